"""The page's section of published figures, and where its footer says that things come from."""

from pathlib import Path

import pytest
from published_artifacts import CARS, SVHN, clean_of, figures, write_published_config
from report_artifacts import Page, write_artifacts, write_config

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.layout import Layout
from pipeline.merging.methods import METHODS
from pipeline.report import build_report
from pipeline.report.comparison import INDUCTIVE

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables and words alone: figures take their time."""
    monkeypatch.setattr("pipeline.report.page.DRAWERS", ())


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return write_published_config(tmp_path)


@pytest.fixture
def layout(config: Config) -> Layout:
    return write_artifacts(config, steps=2, images=4)


def page_of(config: Config, layout: Layout) -> Page:
    return Page(build_report(config, layout).read_text(encoding="utf-8"))


def test_page_shows_the_tables(config: Config, layout: Layout) -> None:
    write_json(layout.metric("clean"), clean_of(config, {("experts", "cars"): 0.9}))
    page = page_of(config, layout)
    assert page.sections[:3] == ["summary", "accuracy", "published"]
    theirs = figures("hf")["experts"]["cars"]
    head, experts, pretrained, *_ = page.tables[1]
    assert (experts[0], pretrained[0]) == (METHODS["experts"].title, METHODS["pretrained"].title)
    assert experts[head.index(CARS)] == f"▲ {theirs + 0.9:.1f} (+0.9) {theirs:.1f}"
    assert "do not trust" in page.text
    assert "Figures on corrupted images are not compared" in page.text
    assert "FusionBench documentation" in page.text
    assert "Concrete AdaMerging" in page.text
    assert all(reference.startswith(("#", "data:")) for reference in page.references)


def test_other_settings_are_seen_in_the_table(tmp_path: Path) -> None:
    options = {method: {"coefficient": 0.2} for method in ("task_arithmetic", "ties")}
    config = write_published_config(tmp_path, merge={"options": options})
    table = page_of(config, write_artifacts(config, steps=2, images=4)).tables[2]
    marked = {row[0] for row in table if "other settings" in row[0]}
    titles = (METHODS[method].title for method in ("task_arithmetic", "ties"))
    assert marked == {f"{title} other settings" for title in titles}


def test_page_says_why_there_is_no_table(tmp_path: Path) -> None:
    config = write_published_config(tmp_path, protocol="inductive")
    page = page_of(config, write_artifacts(config, steps=2, images=4))
    assert "published" in page.sections
    assert INDUCTIVE in page.text
    assert "Concrete AdaMerging" not in page.text


def test_page_of_foreign_experts_is_a_sentence(tmp_path: Path) -> None:
    config = write_published_config(tmp_path, experts={"hub": "me/my-own_{name}"})
    page = page_of(config, write_artifacts(config, steps=2, images=4))
    assert "the experts come from me/my-own_{name}" in page.text
    assert not set("▲▼") & set(page.text)
    assert "figures agree" not in page.text


def test_page_of_the_miniature_has_no_such_section(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    page = page_of(config, write_artifacts(config, steps=2, images=4))
    assert "published" not in page.sections


def test_footer_names_the_repositories(config: Config, layout: Layout) -> None:
    assert not layout.sources.exists()
    page = page_of(config, layout)
    assert "openai/clip-vit-base-patch32, revision main, family hf" in page.text
    assert "Fetched" not in page.text
    model = {"source": "openai/clip-vit-base-patch32", "revision": "main", "commit": COMMIT}
    own = {"source": "my/cars.safetensors", "revision": None, "commit": None, "file": None}
    write_json(
        layout.sources,
        {
            "pretrained": {**model, "file": "model.safetensors", "sha256": "a" * 64},
            "experts": {"cars": {**own, "sha256": "b" * 64}},
            "images": {"cars": {"source": "tanganke/stanford_cars", "commit": COMMIT, "files": 2}},
        },
    )
    table = page_of(config, layout).tables[-1]
    assert table == [
        ["What", "Source", "Commit", "SHA-256"],
        ["Pretrained model", f"{model['source']}: model.safetensors", COMMIT, "a" * 64],
        [f"Expert: {CARS}", "my/cars.safetensors", "\N{EN DASH}", "b" * 64],
        [f"Images: {CARS}", "tanganke/stanford_cars", COMMIT, "2 files"],
    ]


def test_test_images_that_are_trained_on_are_told(config: Config, layout: Layout) -> None:
    source = {"source": "photos", "commit": None, "files": 9}
    images = {"cars": 3, "mnist": 0, "svhn": 1}
    found = {task: source | {"duplicates": number} for task, number in images.items()}
    write_json(layout.sources, {"images": {**found, "dtd": source}})
    page = page_of(config, layout)
    notes = [line for line in page.text.splitlines() if "byte for byte" in line]
    assert notes == [
        f"{CARS}: 3 of its test images are also trained on, byte for byte: "
        "its figures are too good.",
        f"{SVHN}: 1 of its test images is also trained on, byte for byte: "
        "its figures are too good.",
    ]


def test_damaged_record_of_what_was_fetched_names_the_stage(config: Config, layout: Layout) -> None:
    layout.sources.parent.mkdir(parents=True, exist_ok=True)
    layout.sources.write_text("{")
    with pytest.raises(UserError, match=r"sources\.json is damaged .* 'python -m stages\.fetch'"):
        build_report(config, layout)
