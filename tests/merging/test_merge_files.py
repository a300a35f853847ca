"""Merging files: the same as merging tensors, read and written tensor by tensor."""

import errno
import json
import os
import weakref
from dataclasses import replace

import pytest
import torch
from model_files import (
    EXPERTS,
    OTHER,
    OURS,
    PRETRAINED,
    TOWER,
    described,
    images_of,
    layouts,
    open_clip_model,
    texts,
    write_models,
)
from stage_project import tree
from tiny import ARCHITECTURE, WORDS
from transformers import CLIPImageProcessor, CLIPModel, CLIPVisionModelWithProjection

from pipeline.checkpoints.reading import read_image_encoder
from pipeline.checkpoints.weights import load_metadata, load_weights, save_weights
from pipeline.checkpoints.writing import Lazy, kinds_of
from pipeline.errors import CheckpointError, UserError
from pipeline.files import sha256
from pipeline.merge_files import Request, merge_files, planned
from pipeline.merging import METHODS, merge

PER_TASK = ("emr", "tall_mask")
METHODS_OF_FILES = [
    name
    for name, row in METHODS.items()
    if not row.needs - {"task_identity", "extra_parameters"} and row.title.split()[0] != "Experts"
]
METHODS_OF_FILES.remove("pretrained")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("models"))


def request(models, out, method="ties", pretrained="clip", **options):
    fields = {name: options.pop(name) for name in ("seed", "model", "replace") if name in options}
    experts = {"cars": models / "cars", "mnist": models / "mnist.pt"}
    experts = options.pop("experts", experts)
    return Request(method, models / pretrained, experts, out, options, **fields)


def merged(*arguments, **options):
    asked = request(*arguments, **options)
    merge_files(planned(asked), "cpu")
    return asked.out


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-7, msg=name)


@pytest.mark.parametrize("method", METHODS_OF_FILES)
def test_every_method_merges_files_as_it_merges_tensors(method, models, tmp_path):
    expected = merge(method, TOWER, EXPERTS, seed=3)
    if method in PER_TASK:
        out = merged(models, tmp_path / "out", method, seed=3)
        assert sorted(path.name for path in out.iterdir()) == [f"{t}.safetensors" for t in EXPERTS]
        for task in EXPERTS:
            same(load_weights(out / f"{task}.safetensors", ""), expected.weights(task))
            assert load_metadata(out / f"{task}.safetensors", "")["task"] == task
    else:
        out = merged(models, tmp_path / "out.safetensors", method, seed=3)
        same(load_weights(out, ""), expected.weights())
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_options_and_the_seed_reach_the_method(models, tmp_path):
    for number, options in enumerate(({"keep": 0.6}, {"seed": 1, "drop": 0.9})):
        method = ("ties", "dare")[number]
        out = merged(models, tmp_path / f"{number}.safetensors", method, **options)
        expected = merge(method, TOWER, EXPERTS, **options).weights()
        same(load_weights(out, ""), expected)
        facts = load_metadata(out, "")
        assert json.loads(facts["options"]) == METHODS[method].defaults | {
            name: value for name, value in options.items() if name != "seed"
        }
        assert facts["seed"] == str(options.get("seed", 0))


def test_the_file_tells_what_it_was_made_of(models, tmp_path):
    facts = load_metadata(merged(models, tmp_path / "out.safetensors"), "")
    assert json.loads(facts["architecture"]) == layouts.ARCHITECTURE
    assert facts["method"] == "ties"
    assert json.loads(facts["pretrained"]) == {
        "path": str(models / "clip"),
        "sha256": {"model.safetensors": sha256(models / "clip" / "model.safetensors")},
    }
    assert json.loads(facts["experts"])["mnist"]["sha256"] == {
        "mnist.pt": sha256(models / "mnist.pt")
    }


@torch.no_grad()
def test_transformers_loads_the_folder_of_a_whole_clip(models, tmp_path):
    out = merged(models, tmp_path / "out", "weight_average")
    model = CLIPModel.from_pretrained(out).eval()
    average = {name: (OURS[name] + OTHER[name]) / 2 for name in TOWER}
    ours = open_clip_model(layouts.ARCHITECTURE, PRETRAINED | average)
    found = model(pixel_values=images_of(), input_ids=texts())
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(found.image_embeds, ours.encode_image(images_of(), True), **close)
    torch.testing.assert_close(found.text_embeds, ours.encode_text(texts(), True), **close)
    assert model.logit_scale == PRETRAINED["logit_scale"]
    pixels = CLIPImageProcessor.from_pretrained(out)
    assert list(pixels.image_mean) == layouts.ARCHITECTURE["mean"]
    assert dict(pixels.crop_size) == {"height": 24, "width": 24}


@torch.no_grad()
@pytest.mark.parametrize("kind", ["hf", "open_clip"])
def test_transformers_loads_the_folder_of_an_image_tower(kind, models, tmp_path):
    if kind == "hf":
        start = layouts.hf_folder(layouts.hf_vision(seed=7), tmp_path / "start")
    else:
        start = described(tmp_path, TOWER)
    out = merged(models, tmp_path / "out", "weight_average", start)
    model = CLIPVisionModelWithProjection.from_pretrained(out).eval()
    average = {name: (OURS[name] + OTHER[name]) / 2 for name in TOWER}
    ours = open_clip_model(layouts.ARCHITECTURE, average)
    found = model(images_of()).image_embeds
    torch.testing.assert_close(found, ours.encode_image(images_of()), rtol=1e-5, atol=1e-5)


def test_a_merge_is_merged_again(models, tmp_path):
    """What is written is read, both as the start and as an expert, and tells its architecture."""
    folder, file = (merged(models, tmp_path / name) for name in ("a", "a.safetensors"))
    for start in (folder, file):
        experts = {"cars": models / "cars", "more": models / "mnist.safetensors"}
        out = merged(models, tmp_path / "b.safetensors", "ties", start, experts=experts, replace=1)
        same(load_weights(out, ""), merge("ties", load_weights(file, ""), EXPERTS).weights())
    experts = {"merged": file, "mnist": models / "mnist.pt"}
    assert planned(request(models, tmp_path / "c", experts=experts)).size[0] == len(TOWER)


@pytest.mark.parametrize("layout", layouts.EXPERTS)
def test_experts_of_every_layout(layout, models, tmp_path):
    make, expected = layouts.EXPERTS[layout]
    experts = {"one": make(tmp_path / "one"), "mnist": models / "mnist.pt"}
    out = merged(models, tmp_path / "out.safetensors", experts=experts)
    same(load_weights(out, ""), merge("ties", TOWER, {"one": expected, "mnist": OTHER}).weights())


@pytest.mark.parametrize("start", ["open_clip", "described"])
def test_pretrained_models_of_every_layout(start, models, tmp_path):
    path = models / start if start == "open_clip" else described(tmp_path, PRETRAINED)
    out = merged(models, tmp_path / "out.safetensors", "ties", path)
    same(load_weights(out, ""), merge("ties", TOWER, EXPERTS).weights())


@torch.no_grad()
def test_artifacts_of_this_project(tiny_clip, experts, tmp_path):
    """The miniature's model has a vocabulary of words."""
    facts = {"architecture": json.dumps(ARCHITECTURE), "vocabulary": json.dumps(WORDS)}
    save_weights(tmp_path / "pretrained.safetensors", tiny_clip.model.state_dict(), facts)
    paths = {task: tmp_path / f"{task}.safetensors" for task in experts}
    for task, path in paths.items():
        save_weights(path, experts[task], {"family": "mini", "task": task})
    merged(tmp_path, tmp_path / "out", "ties", "pretrained.safetensors", experts=paths)
    encoder = tiny_clip.image_encoder()
    expected = merge("ties", encoder.weights(), experts).weights()
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    features = encoder.load(expected, "the merge")(images)
    model = CLIPModel.from_pretrained(tmp_path / "out").eval()
    pixels = -(encoder.mean / encoder.std).expand(1, 3, 32, 32)
    found = model.get_image_features(pixels).pooler_output
    found = torch.nn.functional.normalize(found, dim=1)
    torch.testing.assert_close(found, features, rtol=1e-5, atol=1e-5)


def test_tensors_are_read_a_few_at_a_time(models, tmp_path):
    """Of safetensors inputs: never more than one name's tensors, and each as often as needed."""
    experts = {"cars": models / "cars", "mnist": models / "mnist.safetensors"}
    plan = planned(request(models, tmp_path / "out", "task_arithmetic", experts=experts))
    alive, most, reads = set(), [0], []

    def watched(arrays):
        def make(name):
            made = arrays[name]
            reads.append(name)
            alive.add(id(made))
            weakref.finalize(made, alive.discard, id(made))
            most[0] = max(most[0], len(alive))
            return made

        return Lazy(kinds_of(arrays), make)

    watching = [replace(expert, arrays=watched(expert.arrays)) for expert in plan.experts]
    merge_files(replace(plan, experts=tuple(watching)), "cpu")
    assert 1 <= most[0] <= 2
    assert len(reads) == 2 * len(TOWER)  # q, k and v are one tensor, made once


def test_one_pickle_at_a_time_is_in_memory(models, tmp_path, monkeypatch):
    from pipeline.checkpoints import pickled

    read, alive, most = pickled.read_pickle, [0], [0]

    def gone():
        alive[0] -= 1

    def watched(path):
        found = read(path)
        alive[0] += 1
        most[0] = max(most)
        most.append(alive[0])
        weakref.finalize(next(iter(found.arrays.values())), gone)
        return found

    monkeypatch.setattr(pickled, "read_pickle", watched)
    layouts.zipped(OURS, tmp_path / "cars.pt")
    experts = {"cars": tmp_path / "cars.pt", "mnist": models / "mnist.pt"}
    merged(models, tmp_path / "out", experts=experts)
    assert max(most) == 1 and alive[0] == 0
    assert len(most) > 4  # both when planned and when merged


@pytest.mark.parametrize("out", ["out", "out.safetensors"])
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("fault", ["Ctrl-C", "full disk", "NaN"])
def test_nothing_is_left_of_a_merge_that_fails(fault, before, out, models, tmp_path):
    if before:
        merged(models, tmp_path / out, "weight_average")
    held = tree(tmp_path)
    broken = OURS | {"visual.proj": torch.full_like(OURS["visual.proj"], torch.nan)}
    experts = {"cars": models / "cars", "mnist": models / "mnist.pt"}
    if fault == "NaN":
        (tmp_path / "inputs").mkdir()
        layouts.safe(broken, tmp_path / "inputs" / "broken")
        experts["cars"] = tmp_path / "inputs" / "broken"
        held = tree(tmp_path)
    plan = planned(request(models, tmp_path / out, replace=True, experts=experts))

    def interrupted(done, words):
        if fault == "Ctrl-C" and done == plan.steps - 2:
            raise KeyboardInterrupt
        if fault == "full disk" and done == plan.steps - 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    wrong, words = {
        "Ctrl-C": (KeyboardInterrupt, None),
        "full disk": (UserError, "Cannot write .* the disk is full"),
        "NaN": (CheckpointError, "'visual.proj' holds NaN or infinity"),
    }[fault]
    with pytest.raises(wrong, match=words):
        merge_files(plan, "cpu", interrupted)
    assert tree(tmp_path) == held
    assert {path.name for path in tmp_path.iterdir()} <= {out, "inputs"}


def test_what_is_replaced_comes_back_if_the_new_cannot_take_its_place(
    models, tmp_path, monkeypatch
):
    out = merged(models, tmp_path / "out", "weight_average")
    held, rename = tree(tmp_path), os.rename

    def refused(source, target):
        if os.fspath(source).endswith("result"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        rename(source, target)

    monkeypatch.setattr("os.rename", refused)
    with pytest.raises(UserError, match="read-only"):
        merged(models, out, replace=True)
    assert tree(tmp_path) == held and list(tmp_path.iterdir()) == [out]


def test_the_tokenizer_of_the_pretrained_model_comes_along(models, tmp_path):
    start = layouts.hf_folder(layouts.hf_clip(), tmp_path / "start")
    (start / "merges.txt").write_text("a b\n")
    (start / "README.md").write_text("a card\n")
    out = merged(models, tmp_path / "out", "ties", start)
    assert (out / "merges.txt").read_text() == "a b\n"
    assert not (out / "README.md").exists()
    merged(models, tmp_path / "out", "ties", start, replace=True)


def test_the_layouts_agree(models, tmp_path):
    folder, file = (merged(models, tmp_path / name) for name in ("out", "out.safetensors"))
    arrays = {name: tensor.numpy() for name, tensor in PRETRAINED.items()}
    read = read_image_encoder(folder, arrays, layouts.ARCHITECTURE)
    same({name: torch.from_numpy(read[name]) for name in read}, load_weights(file, ""))
