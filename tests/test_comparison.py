"""Our figures beside published ones: the right ones, flagged where they differ, never mixed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from published_artifacts import (
    AS_ORIGINAL,
    CARS,
    EUROSAT,
    MNIST,
    OURS,
    RESISC45,
    SVHN,
    content_of,
    figures,
    read_file,
    splits_of,
    write_published_config,
)
from report_artifacts import ROOT

from pipeline.config import Config, load_config
from pipeline.config.sections import OwnTask
from pipeline.merging.methods import METHODS
from pipeline.report.beside import Beside, Pair
from pipeline.report.comparison import INDUCTIVE, compare
from pipeline.report.published import ELSEWHERE, SOURCES, published, title
from pipeline.report.summary import sentences


def pair_of(table: Beside | None, method: str, column: str) -> Pair:
    assert table is not None
    [line] = [line for line in table.lines if line.method == method]
    return line.pairs[table.columns.index(column)]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return write_published_config(tmp_path)


def test_every_row_of_the_data_file_has_a_meaning() -> None:
    rows = read_file()
    keys = [tuple(row[k] for k in row if k not in ("accuracy_percent", "source")) for row in rows]
    assert len(set(keys)) == len(keys)
    for row in rows:
        assert 0 < float(row["accuracy_percent"]) < 100
        assert row["source"] in SOURCES
        method = OURS.get(row["method"], row["method"])
        assert (method in METHODS) != (method in ELSEWHERE)
    for family, backbone in {(row["checkpoint_family"], row["backbone"]) for row in rows}:
        found = published("clean", family, backbone)
        assert all(len(printed.tasks) == 8 for printed in found.values())


@pytest.mark.parametrize(
    ("method", "points", "mark"),
    [
        ("experts", 0.3, ""),
        ("experts", 0.4, "▲"),
        ("pretrained", -0.3, ""),
        ("pretrained", -0.4, "▼"),
        ("task_arithmetic", 0.4, "▲"),
        ("adamerging_layerwise", 1.0, ""),
        ("adamerging_layerwise", -1.1, "▼"),
    ],
)
def test_flags_what_lies_outside(config: Config, method: str, points: float, mark: str) -> None:
    clean = compare(content_of(config, {(method, "cars"): points})).clean
    pair = pair_of(clean, method, CARS)
    assert pair.difference == points
    assert pair.mark == mark
    flagged = [(line.method, column) for line, column, pair in clean.compared if pair.outside]
    assert flagged == ([(method, CARS)] if mark else [])


def test_experts_and_pretrained_come_first(config: Config) -> None:
    first, merged = compare(content_of(config)).clean.groups
    assert [line.method for line in first] == ["experts", "pretrained"]
    assert {line.method for line in merged} == {
        *("weight_average", "task_arithmetic", "ties"),
        *("adamerging_taskwise", "adamerging_layerwise"),
    }


def test_summary_warns_of_another_evaluator(config: Config) -> None:
    first, *_ = sentences(content_of(config, {("experts", "cars"): 0.9, ("ties", "mnist"): -2.0}))
    assert first.startswith(
        f"The evaluator disagrees with the published one on {CARS} (experts +0.9)"
    )
    assert "do not trust" in first
    first, *_ = sentences(content_of(config, {("ties", "mnist"): -2.0}))
    # Seven methods, eight tasks and an average; the average of TIES falls by a quarter of a point.
    assert first.startswith("62 of 63 figures agree")
    assert f"{MNIST} (TIES-merging \N{MINUS SIGN}2.0)" in first


@pytest.mark.parametrize("changes", [{}, AS_ORIGINAL], ids=["hf", "original"])
def test_families_are_never_mixed(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = write_published_config(tmp_path, **changes)
    known = figures(config.profile.checkpoint.family)
    clean = compare(content_of(config)).clean
    assert {line.method for line in clean.lines} == known.keys() & set(config.methods)
    for line in clean.lines:
        *tasks, average = (pair.theirs for pair in line.pairs)
        assert tasks == [known[line.method][task] for task in config.profile.tasks]
        assert average == pytest.approx(sum(tasks) / 8)


def test_family_without_published_experts_says_so(tmp_path: Path) -> None:
    comparison = compare(content_of(write_published_config(tmp_path, **AS_ORIGINAL)))
    assert "only merged models check the evaluator" in " ".join(comparison.notes)
    assert not any("version" in note for note in comparison.notes)


def test_backbone_without_figures_says_so(tmp_path: Path) -> None:
    config = write_published_config(tmp_path, checkpoint={"family": "tall_masks"})
    comparison = compare(content_of(config))
    assert "family tall_masks and ViT-B-32" in comparison.absence
    assert not comparison.clean


@pytest.mark.parametrize("family", ["mini", "own"])
def test_families_that_nobody_published_show_nothing(tmp_path: Path, family: str) -> None:
    config = write_published_config(tmp_path, checkpoint={"family": family})
    assert compare(content_of(config)) is None


FOREIGN = [
    ("hf", {"hub": "me/my-own_{name}"}, "me/my-own_{name}"),
    ("hf", {"path": "my/{name}.safetensors"}, "my/{name}.safetensors"),
    ("tall_masks", {"path": "my/{name}.pt"}, "my/{name}.pt"),
    ("original", {"hub": "me/ViT-B-32_TA", "file": "{name}.pt"}, "me/ViT-B-32_TA"),
    ("original", {"hub": "JH-C-k/ViT-B-32", "file": "other/{name}.pt"}, "JH-C-k/ViT-B-32"),
]


@pytest.mark.parametrize(("family", "experts", "named"), FOREIGN)
@pytest.mark.parametrize("protocol", ["transductive", "inductive"])
def test_foreign_experts_have_no_published_figures(
    tmp_path: Path, family: str, experts: dict[str, str], named: str, protocol: str
) -> None:
    config = write_published_config(
        tmp_path, checkpoint={"family": family}, experts=experts, protocol=protocol
    )
    comparison = compare(content_of(config))
    assert f"the experts come from {named}, not from the published" in comparison.absence
    assert not comparison.clean and not comparison.elsewhere and not comparison.verdict


@pytest.mark.parametrize(
    "source",
    [
        {"hub": "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"},
        {"hub": "openai/clip-vit-large-patch14-336"},
        {"hub": "me/openai/clip-vit-base-patch32"},
        {"hub": None, "path": "my/clip-vit-base-patch32", "model": "ViT-B-32"},
    ],
    ids=lambda source: source["hub"] or source["path"],
)
def test_foreign_pretrained_model_has_no_published_figures(
    tmp_path: Path, source: dict[str, str]
) -> None:
    comparison = compare(content_of(write_published_config(tmp_path, checkpoint=source)))
    named = source["hub"] or source["path"]
    assert f"the pretrained model comes from {named}, not from OpenAI" in comparison.absence
    assert not comparison.clean and not comparison.verdict


def test_original_experts_may_have_been_downloaded_by_hand(tmp_path: Path) -> None:
    experts = {"path": "checkpoints/ViT-B-32/{name}/finetuned.pt"}
    config = write_published_config(tmp_path, **AS_ORIGINAL, experts=experts)
    assert compare(content_of(config)).clean


@pytest.mark.parametrize(
    "path", sorted((ROOT / "profiles").glob("vit-*.yaml")), ids=lambda p: p.stem
)
def test_the_published_profiles_are_of_the_published_sources(path: Path) -> None:
    config = load_config(ROOT, path.stem)
    comparison = compare(content_of(config))
    assert not comparison.absence or "is known in print" in comparison.absence


def test_inductive_figures_stand_alone(tmp_path: Path) -> None:
    comparison = compare(content_of(write_published_config(tmp_path, protocol="inductive")))
    assert comparison.absence == INDUCTIVE
    assert not comparison.clean and not comparison.splits


@pytest.mark.parametrize("more", [True, False])
def test_merges_of_other_tasks_are_not_compared(config: Config, more: bool) -> None:
    own = {"flowers": OwnTask(images="photos", templates=("a photo of a {}.",))}
    tasks = config.profile.tasks
    update = {"own_tasks": own, "tasks": (*tasks, "flowers") if more else tasks[:-1]}
    profile = config.profile.model_copy(update=update)
    comparison = compare(content_of(config.model_copy(update={"profile": profile})))
    assert {line.method for line in comparison.clean.lines} == {"experts", "pretrained"}
    assert "Average" not in comparison.clean.columns
    assert len(comparison.clean.columns) == (8 if more else 7)
    assert comparison.elsewhere is None
    assert any("Merged models are left out" in note for note in comparison.notes)


def test_splits_stand_beside_those_of_the_same_tasks(config: Config) -> None:
    comparison = compare(replace(content_of(config), generalization=splits_of(config)))
    assert list(comparison.splits) == [f"{MNIST}, {EUROSAT}", f"{RESISC45}, {SVHN}"]
    for table in comparison.splits.values():
        methods = {line.method for line in table.lines}
        assert methods == {"pretrained", "task_arithmetic", "ties", "adamerging_layerwise"}
        assert [pair.difference for _, _, pair in table.compared] == [0.0] * 4 * 10
    gap = abs(
        figures("hf")["pretrained"]["svhn"]
        - figures("hf", table="generalization_1_seen")["pretrained"]["svhn"]
    )
    assert any(f"by up to {gap:.1f} points ({SVHN})" in note for note in comparison.notes)


def test_splits_of_other_tasks_are_not_compared(config: Config, tmp_path: Path) -> None:
    split = {"seen": ["sun397", "cars", "resisc45", "dtd", "svhn"], "unseen": ["mnist", "eurosat"]}
    other = write_published_config(tmp_path, generalization={"splits": {"other": split}})
    found = {"other": next(iter(splits_of(config).values()))}
    assert not compare(replace(content_of(other), generalization=found)).splits


def test_methods_not_run_here_are_listed_with_their_averages(config: Config) -> None:
    elsewhere = compare(content_of(config)).elsewhere
    missing = {m: by for m, by in figures("hf").items() if m not in config.methods}
    assert dict(elsewhere.rows) == {
        title(method): (f"{sum(by.values()) / 8:.1f}",) for method, by in missing.items()
    }
    assert {METHODS[m].title for m in config.methods}.isdisjoint(dict(elsewhere.rows))
