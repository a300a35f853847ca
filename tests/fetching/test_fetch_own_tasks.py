"""A folder of one's own images beside published tasks: its splits, its expert, its duplicates."""

import shutil
from itertools import chain

import numpy as np
import pytest
import torch
from published_suite import (
    PRETRAINED,
    add_images,
    add_models,
    expert_files,
    fine_tuned,
    image_features,
    png,
    random_clip,
    saved,
    seen,
)
from safetensors.torch import load, load_file, save
from stage_project import call, refused

from pipeline.checkpoints import convert_hf_vision
from pipeline.clip import load_encoder
from pipeline.files import read_json
from pipeline.layout import Layout

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")
TASKS = ["eurosat", "mnist", "flowers"]
CLASSES = ("daisy", "rose", "water_lily")
SOURCES = {  # what stands in the record for an expert from there
    **{"hub": "me/flowers", "file of the hub": "me/all", "open_clip's names": "me/visual"},
    **{"exact name": "me/exact", "path": "mine/model.safetensors", "folder": "mine"},
}
RECIPE = {"steps": 3, "batch": 4, "lr": 1.0e-3, "weight_decay": 0.1, "warm_up": 1, "clip": 1.0}


def write_images(folder, each, first=0):
    """`each` images per class whose pixels say the class, and numbers from `first`."""
    rng = np.random.default_rng(first)
    for kind, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(first + kind * each, first + (kind + 1) * each):
            pixels = rng.integers(0, 256, (32, 40, 3), dtype=np.uint8)
            pixels[16, 20] = kind, 0, number
            (folder / name / f"{number:03}.png").write_bytes(png(pixels))


@pytest.fixture
def layout(empty_hub, project):
    add_models(empty_hub, TASKS[:2])
    add_images(empty_hub, TASKS[:2])
    return Layout(project, "x")


@pytest.fixture
def set_task(set_profile):
    """Have `flowers` beside two published tasks; call it with keys of the task."""

    def take(expert=None, data=None, protocol="inductive", **keys):
        task = {"images": "photos", "templates": ["a photo of a {}."], **keys}
        recipe = {"finetuning": RECIPE | {"augmentation": "crop"}}
        set_profile(
            checkpoint={"family": "own", "hub": PRETRAINED},
            tasks=TASKS,
            protocol=protocol,
            own_tasks={"flowers": task | ({"expert": expert} if expert else {})},
            data={"adapt": 0.4, "select": 0.1, "eval": 0.5} | (data or {}),
            experts={"hub": "tanganke/clip-vit-base-patch32_{name}"} | recipe,
        )

    return take


def stored(layout, split):
    """The numbers of a split's images, after a look at its labels."""
    images = np.load(layout.images(0, "flowers", split))
    classes, numbers = seen(images)
    if split == "adapt":
        assert not layout.labels(0, "flowers", split).exists()
    else:
        assert np.load(layout.labels(0, "flowers", split)).tolist() == classes.tolist()
    return sorted(numbers.tolist())


def said(capsys):
    """What a fetch prints."""
    from stages.fetch import main

    capsys.readouterr()
    main()
    return capsys.readouterr().out


def test_fine_tuned_here_beside_published_experts(layout, set_task, capsys):
    write_images(layout.root / "photos" / "train", 8)
    write_images(layout.root / "photos" / "test", 4, first=100)
    set_task(classes={"rose": "red rose", "daisy": "daisy flower", "water_lily": "water lily"})
    for stage in ("fetch", "experts", "vectors", "learn", "merge", "evaluate", "report"):
        assert call(stage, capsys) == (0, ""), stage
    words = read_json(layout.tasks, "")["flowers"]["classes"]
    assert words == ["red rose", "daisy flower", "water lily"]
    # Labels are places in the profile's order, pixels say the place in that of the alphabet.
    train = np.load(layout.images(0, "flowers", "train"))
    kinds, numbers = seen(train)
    assert sorted(numbers) == list(range(24))
    in_order = np.array([1, 0, 2])[kinds].tolist()
    assert np.load(layout.labels(0, "flowers", "train")).tolist() == in_order
    tests = [seen(np.load(layout.images(0, "flowers", s)))[1] for s in ("adapt", "select", "eval")]
    assert sorted(np.concatenate(tests)) == list(range(100, 112))
    assert not layout.images(0, "mnist", "train").exists()
    assert not layout.fetched("flowers").exists()
    made, started = (load_file(p) for p in (layout.expert(0, "flowers"), layout.pretrained))
    assert made.keys() == {name for name in started if name.startswith("visual.")}
    steps = {name: (made[name] - started[name]).abs().max().item() for name in made}
    assert all(0 < step < 0.01 for step in steps.values())
    assert read_json(layout.metric("clean"), "")["experts"]["tasks"].keys() == set(TASKS)


def test_a_folder_without_a_division_is_divided(layout, set_task, capsys):
    write_images(layout.root / "photos", 8)
    set_task()
    error = refused("fetch", capsys)
    assert "'flowers' is fine-tuned here" in error and "data.train" in error
    assert not layout.artifacts.exists()
    set_task(data={"train": 0.5})
    assert call("fetch", capsys) == (0, "")
    numbers = {split: stored(layout, split) for split in ("train", "adapt", "select", "eval")}
    assert sorted(chain(*numbers.values())) == list(range(24))
    assert {split: len(found) for split, found in numbers.items()} == {
        "train": 12,
        "adapt": 5,
        "select": 1,
        "eval": 6,
    }
    assert not layout.images(0, "mnist", "train").exists()


@pytest.mark.parametrize("place", SOURCES)
def test_an_expert_from_elsewhere(place, empty_hub, layout, set_task, sources, capsys):
    write_images(layout.root / "photos", 8)
    expert = fine_tuned(random_clip(), 9)
    if place == "hub":
        empty_hub.add("me/flowers", expert_files(expert))
        set_task({"hub": "me/flowers"})
    elif place == "file of the hub":
        empty_hub.add("me/all", {"flowers/best.safetensors": saved(expert, "vision_model.")})
        set_task({"hub": "me/all", "file": "flowers/best.safetensors"})
    elif place == "exact name":
        files = {"best.safetensors": saved(expert, "vision_model."), "old/best.safetensors": b"-"}
        empty_hub.add("me/exact", files)
        set_task({"hub": "me/exact", "file": "best.safetensors"})
    elif place == "open_clip's names":
        projection = expert.visual_projection.weight.detach().T.contiguous()
        weights = convert_hf_vision(load(saved(expert, "vision_model.")), projection)
        empty_hub.add("me/visual", {"model.safetensors": save(weights)})
        set_task({"hub": "me/visual"})
    else:
        folder = layout.root / "mine"
        folder.mkdir()
        for name, content in expert_files(expert).items():
            (folder / name).write_bytes(content)
        set_task({"path": SOURCES[place]})
    assert call("fetch", capsys) == (0, "")
    assert call("experts", capsys) == (0, "")
    assert not layout.images(0, "flowers", "train").exists()
    encoder, _ = load_encoder(layout.pretrained, "")
    encoder.load(load_file(layout.expert(0, "flowers")), "the expert")
    images = np.load(layout.images(0, "flowers", "eval"))
    with torch.inference_mode():
        found = encoder(torch.from_numpy(images))
    assert torch.allclose(found, image_features(expert, images), atol=1e-5)
    assert sources()["experts"]["flowers"]["source"] == SOURCES[place]
    facts = sources()["images"]["flowers"]
    assert len(facts.pop("sha256")) == 64
    assert facts == {"source": "photos", "files": 24}


def test_transductive_takes_the_whole_test_folder(layout, set_task, capsys):
    write_images(layout.root / "photos" / "train", 8)
    write_images(layout.root / "photos" / "test", 4, first=100)
    set_task(protocol="transductive")
    assert call("fetch", capsys) == (0, "")
    assert stored(layout, "eval") == list(range(100, 112))
    assert stored(layout, "train") == list(range(24))
    assert not layout.images(0, "flowers", "adapt").exists()


@pytest.mark.parametrize("made_here", [True, False])
def test_images_that_are_trained_and_tested_on_are_reported(
    made_here, layout, set_task, sources, capsys
):
    photos = layout.root / "photos"
    write_images(photos / "train", 8)
    write_images(photos / "test", 4, first=100)
    if not made_here:
        (layout.root / "own.safetensors").write_bytes(saved(fine_tuned(random_clip(), 9)))
    set_task(None if made_here else {"path": "own.safetensors"})
    assert "trained on" not in said(capsys)
    assert sources()["images"]["flowers"]["duplicates"] == 0
    assert read_json(layout.splits(0, "flowers"), "")["duplicates"] == []
    assert "duplicates" not in read_json(layout.splits(0, "mnist"), "")
    pairs = [("rose/009.png", "rose/104.png"), ("daisy/001.png", "rose/105.png")]
    pairs = [[f"photos/train/{one}", f"photos/test/{other}"] for one, other in pairs]
    for one, other in pairs:
        shutil.copy(one, other)
    out = said(capsys)
    assert "flowers, seed 0: 2 of the images to test on are trained on as well, such as " in out
    assert sorted(read_json(layout.splits(0, "flowers"), "")["duplicates"]) == sorted(pairs)
    assert sources()["images"]["flowers"]["duplicates"] == 2


def test_images_that_were_labelled_anew(layout, set_task, capsys):
    write_images(layout.root / "photos", 8)
    files = sorted((layout.root / "photos").rglob("*.png"))
    listed = layout.root / "photos.csv"

    def fetched(labels):
        lines = (f"{file.relative_to(layout.root)},{label}" for file, label in labels.items())
        listed.write_text("\n".join(["path,label", *lines]), encoding="utf-8")
        assert call("fetch", capsys) == (0, "")
        images = np.load(layout.images(0, "flowers", "eval"))
        names = np.load(layout.labels(0, "flowers", "eval"))
        return {int(n): CLASSES[k] for n, k in zip(seen(images)[1], names, strict=True)}

    set_task(images="photos.csv", data={"train": 0.5})
    labels = {file: file.parent.name for file in files}
    assert all(labels[files[n]] == name for n, name in fetched(labels).items())
    labels = {file: CLASSES[CLASSES.index(name) - 1] for file, name in labels.items()}
    assert all(labels[files[n]] == name for n, name in fetched(labels).items())


def test_twins_in_a_folder_without_a_division(layout, set_task, capsys):
    write_images(layout.root / "photos", 8)
    set_task(data={"train": 0.5})
    said(capsys)
    trained, tested = stored(layout, "train"), stored(layout, "eval")
    files = {int(path.stem): path for path in (layout.root / "photos").rglob("*.png")}
    shutil.copy(files[trained[0]], files[tested[0]])
    assert "1 of the images to test on" in said(capsys)
    [pair] = read_json(layout.splits(0, "flowers"), "")["duplicates"]
    assert pair == [str(files[n].relative_to(layout.root)) for n in (trained[0], tested[0])]


def test_an_expert_that_is_not_there(empty_hub, layout, set_task, tmp_path, capsys):
    write_images(layout.root / "photos", 8)
    set_task({"path": "mine/model.safetensors"})
    assert "There is no mine/model.safetensors" in refused("fetch", capsys)
    set_task({"hub": "me/flowers"})
    assert "There is no model 'me/flowers'" in refused("fetch", capsys)
    empty_hub.add("me/flowers", {"README.md": b""})
    assert "me/flowers has none of the files" in refused("fetch", capsys)
    empty_hub.add("me/flowers", {"best.safetensors": b""})
    set_task({"hub": "me/flowers", "file": "bets.safetensors"})
    assert "Did you mean best.safetensors?" in refused("fetch", capsys)
    empty_hub.add("me/flowers", {"a/best.safetensors": b"", "b/best.safetensors": b""})
    set_task({"hub": "me/flowers", "file": "best.safetensors"})
    assert (
        "'best.safetensors' fits several files of me/flowers: a/best.safetensors, "
        "b/best.safetensors; write the whole path"
    ) in refused("fetch", capsys)
    assert not layout.artifacts.exists()
    assert not list((tmp_path / "home").rglob("blobs/*"))
