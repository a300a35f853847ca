"""Encoded images found again after a fetch: of the test split, corrupted ones, a user's own."""

import csv
import json
import shutil

import numpy as np
import pytest
import yaml
from published_suite import IMAGES, add_corrupted, add_images, add_models, png, seen
from stage_project import call, refused
from tiny import ROOT

from pipeline.config import load_config
from pipeline.config.corrupted import check_corrupted
from pipeline.config.sections import Profile
from pipeline.data.decoding import worker_pool
from pipeline.data.native import native_images, streamed_chunks
from pipeline.errors import MissingInput, UserError
from pipeline.fetching.kept import kept_corrupted, kept_images, kept_split
from pipeline.hub import Lock, Repository
from pipeline.layout import Layout
from pipeline.tasks import get_task
from pipeline.tasks.hub import TASKS as TASKS_OF_HUB

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")
TASKS = ["eurosat", "mnist"]
TWO = ["contrast", "motion_blur"]
PUBLISHED = {
    "tasks": ["eurosat"],
    "corruptions": TWO,
    "severities": [2],
    "scale": "published",
    "images": 100,
    "adapted": {"methods": ["adamerging_layerwise"], "severity": 2},
}


@pytest.fixture
def pictures(empty_hub, project):
    add_models(empty_hub, TASKS)
    return add_images(empty_hub, TASKS)


@pytest.fixture
def layout(pictures, project):
    return Layout(project, "x")


def config(layout):
    return load_config(layout.root)


@pytest.fixture(scope="module")
def pool():
    with worker_pool(1) as workers:
        yield workers


def together(chunks):
    places, images = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    assert sorted(places) == list(range(len(places)))
    return images[np.argsort(places)]


@pytest.mark.parametrize(
    ("protocol", "split"), [("transductive", "eval"), ("inductive", "eval"), ("inductive", "adapt")]
)
def test_images_are_those_that_were_decoded(layout, set_profile, capsys, pool, protocol, split):
    set_profile(protocol=protocol, seeds=[0, 1])
    assert call("fetch", capsys) == (0, "")
    for seed in (0, 1):
        stored = np.load(layout.images(seed, "eurosat", split))
        for count in (3, None):
            wanted = kept_split(config(layout), layout, "eurosat", seed, split, count)
            assert np.array_equal(together(native_images(wanted, 32, pool, None)), stored[:count])


@pytest.mark.parametrize("split", [None, "contrast"])
def test_files_that_are_gone(layout, set_profile, capsys, empty_hub, pictures, split):
    add_corrupted(empty_hub, "eurosat", pictures["eurosat"], TWO)
    set_profile(robustness=PUBLISHED)

    def find():
        if split is None:
            return kept_split(config(layout), layout, "eurosat", 0, "eval", 5)
        return kept_corrupted(config(layout), layout, "eurosat", 0, split, 5)

    assert call("fetch", capsys) == (0, "")
    assert len(find().rows) == 5
    repository = get_task("hub", "eurosat").source.repository
    shutil.rmtree(Repository(repository, "dataset").folder)
    with pytest.raises(MissingInput) as error:
        find()
    said = str(error.value)
    assert f"that hold its split '{split or 'test'}'" in said
    assert said.endswith("run 'dvc repro --force fetch'.") and said.count(". ") == 0
    assert call("fetch", capsys) == (0, "")
    assert len(find().rows) == 5


def test_a_commit_that_the_lock_does_not_have(layout, capsys):
    assert call("fetch", capsys) == (0, "")
    layout.lock.unlink()
    with pytest.raises(MissingInput, match="run 'dvc repro --force fetch'"):
        kept_images(config(layout), layout, "eurosat")
    facts = json.loads(layout.sources.read_text())
    del facts["images"]["eurosat"]
    layout.sources.write_text(json.dumps(facts))
    with pytest.raises(MissingInput, match="does not say where the images of 'eurosat' came from"):
        kept_images(config(layout), layout, "eurosat")


def own_task(layout, set_profile):
    rng = np.random.default_rng(0)
    for name in ("daisy", "rose"):
        folder = layout.root / "photos" / name
        folder.mkdir(parents=True)
        for number in range(6):
            pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            (folder / f"{number}.png").write_bytes(png(pixels))
    set_profile(
        checkpoint={"family": "own", "hub": "openai/clip-vit-base-patch32"},
        tasks=["eurosat", "flowers"],
        own_tasks={
            "flowers": {
                "images": "photos",
                "templates": ["a photo of a {}."],
                "expert": {"hub": "tanganke/clip-vit-base-patch32_mnist"},
            }
        },
        experts={"hub": "tanganke/clip-vit-base-patch32_{name}"},
        protocol="inductive",
    )


def test_a_folder_of_ones_own(layout, set_profile, capsys, pool):
    own_task(layout, set_profile)
    assert call("fetch", capsys) == (0, "")
    wanted = kept_split(config(layout), layout, "flowers", 0, "eval")
    stored = np.load(layout.images(0, "flowers", "eval"))
    assert np.array_equal(together(native_images(wanted, 32, pool, None)), stored)
    one = layout.root / "photos" / "rose" / "3.png"
    one.write_bytes(png(np.zeros((40, 50, 3), np.uint8)))
    found = r"images of 'flowers' in photos are others than were fetched.*--force fetch'"
    with pytest.raises(UserError, match=found):
        kept_split(config(layout), layout, "flowers", 0, "eval")


def test_corrupted_splits_are_fetched_only_where_they_are_asked_for(
    layout, set_profile, capsys, empty_hub, pictures, sources
):
    add_corrupted(empty_hub, "eurosat", pictures["eurosat"], [*TWO, "spatter"])
    assert call("fetch", capsys) == (0, "")
    assert not empty_hub.asked("*contrast*")
    assert "corrupted" not in sources()["images"]["eurosat"]
    set_profile(robustness=PUBLISHED)
    assert call("fetch", capsys) == (0, "")
    assert len(empty_hub.asked("*contrast*")) > 0 and not empty_hub.asked("*spatter*")
    assert sources()["images"]["eurosat"]["corrupted"] == TWO
    assert "corrupted" not in sources()["images"]["mnist"]
    locked = Lock.load(layout.lock).files(Repository("tanganke/eurosat", "dataset"))
    splits = {file.path.split("/")[1].split("-")[0] for file in locked}
    assert splits == {"test", *TWO}
    # Nothing of them is decoded.
    assert sorted(
        path.name for path in layout.images(0, "eurosat", "eval").parent.parent.iterdir()
    ) == [
        "eval",
        "splits.json",
    ]


@pytest.mark.parametrize("order", ["same", "within classes", "any"])
def test_ready_made_images_are_of_the_same_label_as_those_of_eval(
    layout, set_profile, capsys, empty_hub, pictures, pool, order
):
    held, rng = pictures["eurosat"], np.random.default_rng(5)
    orders = {
        "same": np.arange(IMAGES),
        "within classes": np.lexsort((rng.random(IMAGES), first_of(held.classes))),
        "any": rng.permutation(IMAGES),
    }
    made = add_corrupted(empty_hub, "eurosat", held, TWO, orders[order])
    set_profile(robustness=PUBLISHED)
    assert call("fetch", capsys) == (0, "")
    labels = np.load(layout.labels(0, "eurosat", "eval"))
    rows = seen(np.load(layout.images(0, "eurosat", "eval")))[1]
    wanted = {
        ("eurosat", name): kept_corrupted(config(layout), layout, "eurosat", 0, name)
        for name in TWO
    }
    chunks = streamed_chunks(wanted, 32, pool, None)
    for name in TWO:
        images = together(chunks("eurosat", name, 2))
        classes, theirs = seen(images)
        assert np.array_equal(classes, labels)
        assert sorted(theirs) == list(range(IMAGES))
        assert np.array_equal(images, made[name][theirs])
        if order == "same":
            assert np.array_equal(theirs, rows)


def first_of(classes):
    """For each image the first of its class."""
    return np.array([np.flatnonzero(classes == one)[0] for one in classes])


def test_a_corrupted_split_of_other_images(layout, set_profile, capsys, empty_hub, pictures):
    held = pictures["eurosat"]
    add_corrupted(empty_hub, "eurosat", held, TWO, [0, *range(IMAGES - 1)])
    set_profile(robustness=PUBLISHED)
    assert call("fetch", capsys) == (0, "")
    with pytest.raises(
        UserError, match="corrupted by contrast does not fit its test split: it has other"
    ):
        kept_corrupted(config(layout), layout, "eurosat", 0, "contrast")


def test_a_corrupted_split_of_another_size_is_refused_by_fetch(
    layout, set_profile, capsys, empty_hub, pictures
):
    add_corrupted(empty_hub, "eurosat", pictures["eurosat"], TWO, range(IMAGES - 1))
    set_profile(robustness=PUBLISHED)
    assert f"has {IMAGES - 1} images where {IMAGES} are expected" in refused("fetch", capsys)


def test_a_corrupted_split_that_is_not_there(layout, set_profile, capsys, empty_hub, pictures):
    add_corrupted(empty_hub, "eurosat", pictures["eurosat"], TWO[:1])
    set_profile(robustness=PUBLISHED)
    said = refused("fetch", capsys, dry_run=True)
    assert "no parquet files of the split 'motion_blur'" in said
    assert "leave motion_blur out of robustness.corruptions" in said


def test_room_is_counted_for_corrupted_splits(
    layout, set_profile, capsys, empty_hub, pictures, monkeypatch
):
    add_corrupted(empty_hub, "eurosat", pictures["eurosat"], TWO)
    set_profile(robustness=PUBLISHED)
    asked = []
    monkeypatch.setattr("pipeline.hub.check_room", lambda files: asked.extend(files))
    assert call("fetch", capsys, dry_run=True)[0] == 0
    assert sum("contrast" in file.path for file in asked) == 2


def test_what_a_profile_may_not_ask_for(layout, set_profile):
    for change, said in (
        ({"severities": [1, 2]}, r"set robustness.severities to \[2\]"),
        ({"adapted": {"methods": [], "severity": 3}}, r"set robustness.adapted.severity to 2"),
        ({"tasks": ["mnist"]}, r"no images of 'mnist' under contrast \(none\)"),
    ):
        set_profile(robustness=PUBLISHED | change)
        with pytest.raises(UserError, match=said):
            config(layout)
    set_profile(robustness=PUBLISHED, protocol="inductive")
    with pytest.raises(UserError, match="needs protocol 'transductive'"):
        config(layout)
    set_profile(robustness=PUBLISHED | {"scale": "adamerging"}, protocol="inductive")
    assert config(layout).profile.robustness.scale == "adamerging"


@pytest.mark.parametrize("scale", ["adamerging", "published"])
def test_the_miniature_has_no_files_to_corrupt(scale):
    values = yaml.safe_load((ROOT / "profiles" / "mini.yaml").read_text(encoding="utf-8"))
    values["robustness"]["scale"] = scale
    with pytest.raises(UserError, match=f"scale '{scale}'.*'mini' draws its own: take cifar"):
        check_corrupted(Profile.model_validate(values))


def test_the_four_tasks_of_the_published_table_have_its_seven_corruptions():
    found = {name: set(task.source.corrupted) for name, task in TASKS_OF_HUB.items()}
    four = {name for name, corruptions in found.items() if corruptions}
    assert four == {"cars", "eurosat", "resisc45", "gtsrb"}
    printed = {row["corruption"] for row in printed_rows() if row["table"] == "robustness"}
    for name in four:
        assert found[name] == printed - {"clean"} and len(found[name]) == 7


def printed_rows():
    with (ROOT / "pipeline" / "report" / "published.csv").open(encoding="utf-8") as file:
        yield from csv.DictReader(line for line in file if not line.startswith("#"))
