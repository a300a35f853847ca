"""dvc.yaml against the code: what a stage imports, reads and writes is what DVC watches."""

import re
from functools import reduce
from pathlib import Path

import pytest
import yaml
from tiny import ROOT

from pipeline.config import profile_names
from pipeline.config.sections import Profile
from pipeline.layout import Layout
from pipeline.sources import closure

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
PROFILES = [ROOT / "profiles" / f"{name}.yaml" for name in profile_names(ROOT)]
ARTIFACTS = ("artifacts/", "metrics/", "report/")
BOILERPLATE = {"stages/__init__.py", "pipeline/__init__.py"}


def deps(stage, artifacts):
    """The stage's dependencies that are artifacts, or those that are sources."""
    return [path for path in STAGES[stage]["deps"] if path.startswith(ARTIFACTS) is artifacts]


def outs(stage):
    """Every path that the stage writes."""
    listed = [*STAGES[stage]["outs"], *STAGES[stage].get("metrics", [])]
    return [next(iter(out)) if isinstance(out, dict) else out for out in listed]


def watched_keys(stage):
    """Keys of the profile that the stage depends on; None for all."""
    [params] = STAGES[stage]["params"]
    assert list(params) == ["profiles/${profile}.yaml"]
    return params["profiles/${profile}.yaml"]


def covers(dep, path):
    return path == dep or path.startswith(f"{dep}/")


def imported(stage):
    return {path.as_posix() for path in closure(f"stages.{stage}")} - BOILERPLATE


def test_stages_stand_in_the_order_of_the_flow():
    assert list(STAGES) == [
        *("fetch", "experts", "vectors", "learn", "merge"),
        *("evaluate", "robustness", "generalization", "report"),
    ]


@pytest.mark.parametrize("stage", STAGES)
def test_every_source_that_a_stage_imports_is_watched(stage):
    watched = deps(stage, artifacts=False)
    missing = [path for path in imported(stage) if not any(covers(dep, path) for dep in watched)]
    assert not missing, f"add to the deps of {stage}: {', '.join(sorted(missing))}"


@pytest.mark.parametrize("stage", STAGES)
def test_nothing_is_watched_that_a_stage_does_not_import(stage):
    for dep in deps(stage, artifacts=False):
        files = [path for path in (ROOT / dep).rglob("*") if "__pycache__" not in path.parts]
        below = {path.relative_to(ROOT).as_posix() for path in files if path.is_file()} or {dep}
        assert below <= imported(stage), f"{stage} does not import {below - imported(stage)}"


@pytest.mark.parametrize("stage", STAGES)
def test_commands_are_constant(stage):
    assert STAGES[stage]["cmd"] == f"python -m stages.{stage}"
    assert not STAGES[stage].keys() - {"desc", "cmd", "deps", "params", "outs", "metrics"}
    assert STAGES[stage]["desc"]


@pytest.mark.parametrize("stage", STAGES)
def test_every_artifact_carries_the_profile(stage):
    for path in [*deps(stage, artifacts=True), *outs(stage)]:
        assert re.match(r"(artifacts|metrics|report)/\$\{profile\}(/|$)", path)


def test_what_a_stage_reads_an_earlier_one_writes():
    written = set()
    for stage in STAGES:
        read = set(deps(stage, artifacts=True))
        assert read <= written, f"{stage} reads what no earlier stage writes: {read - written}"
        new = set(outs(stage))
        assert not new & written, f"{stage} writes what another stage writes"
        assert f"artifacts/${{profile}}/runs/{stage}.json" in new
        written |= new


def test_the_outs_are_where_the_layout_puts_things():
    layout = Layout(Path("."), "${profile}")
    places = {
        "fetch": [
            *(layout.pretrained, layout.fetched("cars"), layout.sources, layout.tasks),
            *(layout.images(0, "cars", "adapt"), layout.splits(0, "cars")),
        ],
        "experts": [layout.head("cars"), layout.expert(0, "cars")],
        "vectors": [layout.vector(0, "cars"), layout.vectors_summary(0)],
        "learn": [layout.coefficients(0, "ties"), layout.metric("learning")],
        "merge": [layout.merged(0, "ties"), layout.merged_summary(0)],
        "evaluate": [layout.predictions(0, "ties", "cars"), layout.metric("clean")],
        "robustness": [layout.robustness(0, "ties"), layout.metric("robustness")],
        "generalization": [layout.metric("generalization"), layout.metric("leave_two_out")],
        "report": [layout.report / "index.html"],
    }
    assert places.keys() == STAGES.keys()
    for stage, paths in places.items():
        used = set()
        for path in [*paths, layout.run(stage)]:
            [out] = [out for out in outs(stage) if covers(out, path.as_posix())]
            used.add(out)
        assert used == set(outs(stage))


@pytest.mark.parametrize("stage", STAGES)
def test_metrics_are_committed_and_nothing_else_is(stage):
    for out in [*STAGES[stage]["outs"], *STAGES[stage].get("metrics", [])]:
        path, options = next(iter(out.items())) if isinstance(out, dict) else (out, {})
        assert options == ({"cache": False} if path.startswith("metrics/") else {})


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("stage", STAGES)
def test_watched_keys_exist_in_every_profile(stage, profile):
    values = yaml.safe_load(profile.read_text(encoding="utf-8"))
    for key in watched_keys(stage) or []:
        reduce(lambda section, part: section[part], key.split("."), values)


@pytest.mark.parametrize("stage", STAGES)
def test_every_key_that_a_stage_reads_is_watched(stage):
    text = (ROOT / "stages" / f"{stage}.py").read_text(encoding="utf-8")
    read = set(re.findall(r"\b(?:config|profile)\.(\w+)", text)) & Profile.model_fields.keys()
    if (keys := watched_keys(stage)) is not None:
        # Sizes of splits are printed; what comes of them is watched as artifacts/${profile}/data.
        unwatched = read - {key.split(".")[0] for key in keys} - {"data"}
        assert not unwatched, f"add to the params of {stage}: {', '.join(unwatched)}"


def test_git_ignores_the_artifacts_and_dvc_ignores_bytecode():
    assert "artifacts" in (ROOT / ".gitignore").read_text(encoding="utf-8")
    ignored = (ROOT / ".dvcignore").read_text(encoding="utf-8").split()
    assert {"__pycache__/", "*.pyc"} <= set(ignored)
