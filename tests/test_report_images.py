"""Confusions of the worst task, and sample images before and after merging."""

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_artifacts import write_artifacts, write_config
from sklearn.metrics import confusion_matrix

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.evaluation import Predictions
from pipeline.files import write_json
from pipeline.layout import Layout
from pipeline.report.confusion import MOST, confusion, said, shares, shown
from pipeline.report.content import Content, read_content
from pipeline.report.predicted import Confusion, read_classes
from pipeline.report.samples import OUTCOMES, SIDE, data_uri, read_samples
from pipeline.report.style import drawing, inline_svg, settle


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return write_config(tmp_path_factory.mktemp("images"), seeds=[3, 4])


@pytest.fixture(scope="module")
def layout(config: Config) -> Layout:
    return write_artifacts(config, steps=2, images=80)


@pytest.fixture(scope="module")
def content(config: Config, layout: Layout) -> Content:
    return read_content(config, layout)


def predictions(layout: Layout, method: str, task: str) -> list[Predictions]:
    return [Predictions.load(layout.predictions(seed, method, task), "") for seed in (3, 4)]


def test_confusions_are_counted_over_all_seeds(content: Content, layout: Layout) -> None:
    found = content.confusion
    assert found is not None and content.best is not None
    assert (found.method, found.task) == (content.best, content.worst(content.best))
    both = predictions(layout, found.method, found.task)
    label = np.concatenate([one.label for one in both])
    answer = np.concatenate([one.top[:, 0] for one in both])
    expected = confusion_matrix(label, answer, labels=range(len(found.classes)))
    assert np.array_equal(found.counts, expected)
    assert found.classes == content.config.task(found.task).classes


def made_up(classes: int) -> Confusion:
    """30 right answers of each class, and k images of class k taken for the one before."""
    counts = 30 * np.eye(classes, dtype=int)
    counts[range(1, classes), range(classes - 1)] = range(1, classes)
    return Confusion("ties", "cars", tuple(f"car {place}" for place in range(classes)), counts)


def test_few_classes_are_all_shown() -> None:
    found = made_up(MOST)
    assert shown(found) == list(range(MOST))
    percent = shares(found, shown(found))
    assert percent.shape == (MOST, MOST)
    assert np.allclose(percent.sum(1), 100)
    assert percent[2, 1] == pytest.approx(100 * 2 / 32)


def test_of_many_classes_the_most_confused_are_shown() -> None:
    found = made_up(3 * MOST)
    places = shown(found)
    assert places == list(range(2 * MOST, 3 * MOST))
    percent = shares(found, places)
    assert percent.shape == (MOST, MOST + 1)
    assert np.allclose(percent.sum(1), 100)
    first = 2 * MOST  # it is taken for a class that is not shown
    assert percent[0, -1] == pytest.approx(100 * first / (30 + first))
    last = 3 * MOST - 1
    assert said(found).startswith(
        f"It most often takes 'car {last}' for 'car {last - 1}' ({last} of {30 + last} images)"
    )


def test_a_task_without_errors_is_said_to_be_one() -> None:
    counts = 3 * np.eye(4, dtype=int)
    assert "no error" in said(Confusion("ties", "cars", ("a", "b", "c", "d"), counts))


def test_names_of_any_script_are_drawn_as_they_are(content: Content) -> None:
    names = ("a $1 or $2 note", "\N{HIRAGANA LETTER O}", "c")
    strange = Confusion("ties", "cars", names, np.ones((3, 3), dtype=int))
    with drawing():
        plot = confusion(replace(content, confusion=strange))
        assert plot is not None
        settle(plot.figure)
        svg = inline_svg(plot)
    assert all(f">{name}<" in svg for name in names)


def test_classes_are_those_of_the_images_at_hand(config: Config, tmp_path: Path) -> None:
    layout = Layout(tmp_path, "mini")
    assert read_classes(config, layout, "cars", 3) == config.task("cars").classes
    write_json(layout.tasks, {"cars": {"classes": ["bus", "van"]}})
    assert read_classes(config, layout, "cars", 3) == ("bus", "van", "class 2")


def test_shares_of_outcomes_are_of_all_images(content: Content, layout: Layout) -> None:
    for task in content.samples:
        before = np.concatenate([p.correct for p in predictions(layout, "pretrained", task.task)])
        after = np.concatenate([p.correct for p in predictions(layout, content.best, task.task)])
        for (first, second), one in zip(OUTCOMES, task.outcomes, strict=True):
            share = 100 * np.mean((before == first) & (after == second))
            assert one.share == pytest.approx(share)
            if one.sample:
                assert (one.sample.before == one.sample.label) == first
                assert (one.sample.after == one.sample.label) == second
        assert sum(one.share for one in task.outcomes) == pytest.approx(100)


def test_a_sample_is_an_image_with_its_outcome(content: Content, layout: Layout) -> None:
    for task in content.samples:
        images = np.load(layout.images(3, task.task, "eval"))
        before = predictions(layout, "pretrained", task.task)[0]
        after = predictions(layout, content.best, task.task)[0]
        for (first, second), one in zip(OUTCOMES, task.outcomes, strict=True):
            if one.sample is None:
                continue
            assert one.sample.small
            sample = decoded(one.sample.address).transpose(2, 0, 1)
            [place] = np.flatnonzero((images == sample).all((1, 2, 3)))
            assert (before.correct[place], after.correct[place]) == (first, second)
            assert one.sample.sure_after == pytest.approx(100 * after.p_top1[place])


def test_the_same_images_are_drawn_again(content: Content, layout: Layout) -> None:
    assert read_samples(content.config, layout, content.best) == content.samples


def decoded(address: str) -> np.ndarray:
    _, _, encoded = address.partition(";base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))


def test_a_large_image_becomes_a_thumbnail() -> None:
    ramp = np.broadcast_to(np.arange(224, dtype=np.uint8), (3, 224, 224))
    address = data_uri(np.ascontiguousarray(ramp))
    assert address.startswith("data:image/jpeg;base64,")
    thumbnail = decoded(address)
    assert thumbnail.shape == (SIDE, SIDE, 3)
    middle = thumbnail[SIDE // 2, :, 0].astype(float)
    assert np.abs(middle - np.linspace(0, 223, SIDE)).max() < 6


def test_without_the_images_the_rest_is_there(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    layout = write_artifacts(config, steps=2, images=20)
    layout.images(0, "svhn", "eval").unlink()
    content = read_content(config, layout)
    assert content.samples == ()
    assert content.confusion is not None
    lacking = "sample images before and after merging"
    assert content.absent == {lacking: "python -m stages.fetch"}


def test_damaged_images_name_the_stage(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    layout = write_artifacts(config, steps=2, images=20)
    layout.images(0, "svhn", "eval").write_bytes(b"\x93NUMPY of something else")
    with pytest.raises(UserError, match=r"images\.npy is damaged .* 'python -m stages\.fetch'"):
        read_content(config, layout)
