"""README.md and docs/: generated blocks are fresh, links lead somewhere, nothing is left out."""

import json
import re
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from report_artifacts import write_artifacts, write_config

from pipeline.config import Config, Profile, load_config
from pipeline.config.sections import Checkpoint, Data, Experts, OwnTask
from pipeline.config.suites import profile_texts
from pipeline.errors import MissingInput, UserError
from pipeline.files import write_json
from pipeline.findings import findings_blocks
from pipeline.layout import Layout
from pipeline.merging.methods import METHODS
from pipeline.readme import (
    accuracy_block,
    benchmark_blocks,
    figures_of,
    fill,
    methods_block,
    study_block,
    timings_block,
)
from pipeline.report.content import STAGES
from pipeline.study.pages import study_blocks
from stages.readme import PROFILE, STUDY, pages_of

ROOT = Path(__file__).resolve().parents[1]
PAGES = [page for page in pages_of(ROOT) if page.is_file()]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
PAGE = """before
<!-- generated: one -->
old
<!-- end -->
between
<!-- generated: two -->
<!-- end -->
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return write_config(tmp_path_factory.mktemp("readme"), seeds=[0, 1])


@pytest.fixture(scope="module")
def layout(config: Config) -> Layout:
    return write_artifacts(config)


def test_blocks_are_replaced_and_the_rest_stays():
    filled = fill(PAGE, {"one": "new\n", "two": "2\n"}, "page")
    assert filled == PAGE.replace("old\n", "new\n").replace("two -->\n", "two -->\n2\n")
    assert fill(filled, {"one": "new\n", "two": "2\n"}, "page") == filled


def test_a_block_without_new_content_stays():
    assert fill(PAGE, {"one": None, "two": None}, "page") == PAGE


def test_a_replacement_is_taken_literally():
    assert r"\1 \g<0>" in fill(PAGE, {"one": "\\1 \\g<0>\n", "two": None}, "page")


def test_an_unknown_block_is_refused():
    with pytest.raises(UserError, match=r"^page: Unknown generated block 'two'.*one"):
        fill(PAGE, {"one": "new\n"}, "page")


@pytest.mark.parametrize(
    "text",
    [
        "<!-- generated: one -->\n",
        "<!-- generated: one -->\ntext\n<!-- generated: two -->\n<!-- end -->\n",
    ],
)
def test_a_block_without_an_end_is_refused(text: str):
    with pytest.raises(UserError, match="page: the generated block 'one' has no line"):
        fill(text, {"one": "new\n", "two": "new\n"}, "page")


def test_figures_are_those_of_the_images_folder_itself():
    text = "![a](docs/images/accuracy.png) ![b](images/radar.png) ![c](images/tasks/dtd.png)"
    assert figures_of(text) == ["accuracy", "radar"]


def test_accuracy_has_a_line_for_every_method(config: Config, layout: Layout):
    block = accuracy_block(config, layout)
    clean = json.loads(layout.metric("clean").read_text())
    for method in config.methods:
        (line,) = [one for one in block.splitlines() if f"| [{METHODS[method].title}](" in one]
        assert f"{clean[method]['avg']:.1f} ± 0.6" in line
    assert "not comparable with published figures" in block


def test_the_study_goes_beyond_clean_images(config: Config, layout: Layout):
    block = study_block(config, layout)
    assert block.startswith(accuracy_block(config, layout))
    assert "Corrupted images | Unseen mini MNIST, mini EuroSAT |" in block
    figures = json.loads(layout.metric("robustness").read_text())["clean"]["ties"]
    lines = [line for line in block.splitlines() if line.startswith("| [TIES-merging]")]
    assert len(lines) == 2
    assert f"{figures['avg']:.1f} ± {figures['avg_sd']:.1f}" in lines[1]


def test_missing_metrics_name_the_make_target(config: Config, tmp_path: Path):
    with pytest.raises(MissingInput, match="make repro PROFILE=mini"):
        accuracy_block(config, Layout(tmp_path, "mini"))
    with pytest.raises(MissingInput, match="make study"):
        study_block(config, Layout(tmp_path, "study"))


def test_timings_need_every_stage(config: Config, layout: Layout):
    assert timings_block(layout, 6.25) is None  # the artifacts end before the report
    run = json.loads(layout.run("merge").read_text())
    write_json(layout.run("report"), run | {"stage": "report", "seconds": 100})
    block = timings_block(layout, 6.25)
    assert block is not None
    assert "| report | 1 min 40 s |" in block
    assert all(f"| {stage} |" in block for stage in STAGES)
    assert run["machine"]["cpu"] in block


def test_methods_are_all_there():
    lines = methods_block().splitlines()[2:]
    assert [line.split("`")[1] for line in lines] == list(METHODS)


# ---- The pages of this repository


@pytest.mark.parametrize("page", TEXTS)
def test_generated_blocks_are_fresh(page: str):
    blocks: dict[str, str | None] = {"timings": None, "methods": methods_block()}
    blocks |= study_blocks(Layout(ROOT, STUDY))
    blocks |= findings_blocks(load_config(ROOT, STUDY), Layout(ROOT, STUDY))
    blocks["findings-runs"] = None  # from records that git does not keep
    for name, profile, made in (
        ("accuracy", PROFILE, accuracy_block),
        ("study", STUDY, study_block),
    ):
        there = Layout(ROOT, profile).metrics.is_dir()
        blocks[name] = made(load_config(ROOT, profile), Layout(ROOT, profile)) if there else None
    blocks |= benchmark_blocks(TEXTS[page])  # tests/test_benchmark_page.py holds these
    assert fill(TEXTS[page], blocks, page) == TEXTS[page], "run 'make readme'"


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_to_files(page: str):
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", TEXTS[page], flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page} links to {link}"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_stage_has_a_section():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    headings = re.findall(r"^## (\w+)$", TEXTS["docs/stages.md"], re.MULTILINE)
    assert [heading for heading in headings if heading in stages] == list(stages)


def test_every_stage_names_the_keys_that_dvc_tracks():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    text = TEXTS["docs/stages.md"]
    for name, stage in stages.items():
        (keys,) = stage["params"][0].values()
        if keys is None:  # the whole profile
            continue
        section = text.split(f"## {name}\n")[1].split("\n## ")[0]
        named = re.findall(r"`([\w.]+)`", section.split("**Keys**")[1].split("\n\n")[0])
        assert sorted(named) == sorted(keys), name


def profiles_section() -> str:
    return TEXTS["docs/stages.md"].split("\n## Profiles\n")[1].split("\n## ")[0]


def test_every_section_of_a_profile_is_explained():
    explained = re.findall(r"^\| `(\w+)` \|", profiles_section(), re.MULTILINE)
    assert explained == list(Profile.model_fields)


def test_every_key_of_a_source_is_explained():
    sections = {
        "checkpoint": Checkpoint,
        "own_tasks.<name>": OwnTask,
        "data": Data,
        "experts": Experts,
    }
    explained = re.findall(r"^\| `(\w+\.\S+)` \|", profiles_section(), re.MULTILINE)
    asked = [f"{name}.{key}" for name, model in sections.items() for key in model.model_fields]
    assert sorted(explained) == sorted(asked)


def test_every_published_profile_has_its_row():
    lines = [
        "| Profile | Tower | Family | Tasks | Experts come from | Experts | Images | Decoded "
        "| Memory | Minutes |",
        "| :-- | :-- | :-- | --: | :-- | --: | --: | --: | --: | --: |",
    ]
    for file, text in profile_texts().items():
        profile = Profile.model_validate(yaml.safe_load(text))
        assert profile.protocol == "transductive"  # said above the table
        said = re.sub(r"\n# ", " ", text)
        numbers = [
            re.search(look, said).group(1)
            for look in (
                r"the experts ([\d.]+) GB",
                r"([\d,]+) test images",
                r"decoded (\d+) GB",
                r"learning takes (\d+) GB",
                r"(\d+) min a method",
            )
        ]
        experts = profile.experts
        parts = [part for part in (experts.hub or experts.path, experts.file) if part]
        source = ", ".join(f"`{part}`" for part in parts)
        name, tasks = file.removesuffix(".yaml"), str(len(profile.tasks))
        family = f"`{profile.checkpoint.family}`"
        cells = (f"`{name}`", profile.checkpoint.backbone, family, tasks, source, *numbers)
        lines.append(f"| {' | '.join(cells)} |")
    table = "\n".join(lines) + "\n"
    assert table in TEXTS["docs/real-suites.md"], f"write:\n{table}"


def test_every_make_target_that_a_page_names_is_there():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for page, text in TEXTS.items():
        blocks = "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
        named = re.findall(r"^make ([\w-]+)", blocks, re.MULTILINE)
        named += re.findall(r"`make ([\w-]+)", text)
        assert not {*named} - {*targets}, page


def test_every_method_is_mentioned():
    text = "".join(TEXTS[page] for page in TEXTS if page.startswith("docs/"))
    assert [name for name in METHODS if f"`{name}`" not in text] == []


def test_every_task_has_its_row_and_its_contact_sheet():
    suite = files("pipeline.tasks.mini") / "suite.yaml"
    text = TEXTS["docs/miniature.md"]
    for task, entry in yaml.safe_load(suite.read_text(encoding="utf-8")).items():
        camera = ", ".join(f"`{step}`" for step in entry["camera"]) or "none"
        row = rf"^\| `{task}` \| {entry['title']} \| {len(entry['classes'])} [^|]+ \| {camera} \|$"
        assert re.search(row, text, re.MULTILINE), row
        assert f"(images/tasks/{task}.png)" in text


def test_every_output_of_a_stage_is_described():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for stage in stages.values():
        metrics = [next(iter(metric)) for metric in stage.get("metrics", ())]
        for path in (*stage["outs"], *metrics):
            folder, _, name = path.partition("/${profile}")
            place = name.removeprefix("/")
            asked = f"{folder}/<p>/" if not place or place.startswith("runs/") else f"`{place}"
            assert asked in TEXTS["docs/artifacts.md"], path
