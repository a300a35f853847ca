"""What open_clip and transformers make of an exported folder, beside this project's own model."""

import json

import numpy as np
import open_clip
import pytest
import torch
from finished import TASKS, finished_project
from PIL import Image
from safetensors.torch import load_file
from stage_project import TASKS as MINI_TASKS
from torch.nn import functional as F
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

from pipeline.checkpoints.weights import load_weights
from pipeline.classifier import load_exported
from pipeline.clip import load_clip, load_encoder
from pipeline.config import load_config
from pipeline.data.given import pixels_of
from pipeline.exporting import Request, export, planned
from pipeline.layout import Layout

# `made` records its stages with MLflow.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

METHOD = "adamerging_layerwise"
GIT = {"commit": "1" * 40, "dirty": True}
KINDS = ("words_gelu", "pairs_gelu", "pairs_quick_gelu")
each_format = pytest.mark.parametrize("form", ["open_clip", "hf"])


@pytest.fixture(scope="module", params=KINDS)
def project(request, tmp_path_factory):
    """(config, layout): the stages' own miniature, and models with CLIP's tokens."""
    if request.param == "words_gelu":
        made = request.getfixturevalue("made")
        return load_config(made), Layout(made, "ci")
    folder = tmp_path_factory.mktemp("project")
    return finished_project(folder, quick_gelu=request.param == "pairs_quick_gelu")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return finished_project(tmp_path_factory.mktemp("project"))


def exported(project, out, form):
    export(planned(*project, Request(out, form, METHOD, 0)), GIT)
    return out


def pixels(layout):
    """uint8 images, and the same as the model's preprocessing leaves them."""
    images = np.random.default_rng(1).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    encoder, scale = load_encoder(layout.pretrained, "")
    encoder.load(load_weights(layout.merged(0, METHOD), ""), "")
    normalized = (torch.from_numpy(images) / 255 - encoder.mean) / encoder.std
    with torch.inference_mode():
        return images, normalized, encoder(torch.from_numpy(images)), scale


@torch.inference_mode()
def test_open_clip_loads_the_same_model(project, tmp_path):
    _, layout = project
    folder = exported(project, tmp_path / "out", "open_clip")
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    images, normalized, expected, scale = pixels(layout)
    found = model.eval().encode_image(normalized, normalize=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert model.logit_scale.exp().item() == pytest.approx(scale, rel=1e-5)
    ours = load_exported(folder)
    torch.testing.assert_close(ours.encoder(torch.from_numpy(images)), expected, rtol=0, atol=1e-5)
    texts = load_clip(layout.pretrained, "").model.state_dict()
    for name, tensor in model.state_dict().items():
        if not name.startswith("visual."):
            assert torch.equal(tensor, texts[name])


@torch.inference_mode()
def test_transformers_loads_the_same_model(project, tmp_path):
    _, layout = project
    folder = exported(project, tmp_path / "out", "hf")
    model = CLIPModel.from_pretrained(folder).eval()
    images, normalized, expected, scale = pixels(layout)
    found = F.normalize(model.get_image_features(normalized).pooler_output, dim=-1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert model.logit_scale.exp().item() == pytest.approx(scale, rel=1e-5)
    ours = load_exported(folder)
    torch.testing.assert_close(ours.encoder(torch.from_numpy(images)), expected, rtol=0, atol=1e-5)
    clip = load_clip(layout.pretrained, "")
    tokens = clip.tokenizer(["a photo of a red", "a photo"])
    texts = F.normalize(model.get_text_features(tokens).pooler_output, dim=-1)
    wanted = F.normalize(clip.model.encode_text(tokens), dim=-1)
    torch.testing.assert_close(texts, wanted, rtol=0, atol=1e-5)


def heads_from_texts(folder, features_of):
    """(task, the head that sentences give, the head in the folder)."""
    heads = load_file(folder / "heads.safetensors")
    labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    assert list(labels) == TASKS and heads.keys() == labels.keys()
    for task, said in labels.items():
        rows = []
        for word in said["classes"]:
            features = features_of([template.format(word) for template in said["templates"]])
            rows.append(F.normalize(F.normalize(features, dim=-1).mean(0), dim=0))
        yield task, torch.stack(rows), heads[task]


@torch.inference_mode()
def test_open_clips_tokenizer_gives_the_heads(pairs, tmp_path):
    folder = exported(pairs, tmp_path / "out", "open_clip")
    name = f"local-dir:{folder}"
    model, _, _ = open_clip.create_model_and_transforms(name)
    tokenizer = open_clip.get_tokenizer(name)
    for task, made, stored in heads_from_texts(
        folder, lambda texts: model.eval().encode_text(tokenizer(texts))
    ):
        torch.testing.assert_close(made, stored, rtol=0, atol=1e-5, msg=task)


@torch.inference_mode()
def test_the_tokenizer_of_transformers_gives_the_heads(pairs, tmp_path):
    folder = exported(pairs, tmp_path / "out", "hf")
    model, tokenizer = CLIPModel.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder)

    def features_of(texts):
        tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
        return model.eval().get_text_features(**tokens).pooler_output

    for task, made, stored in heads_from_texts(folder, features_of):
        torch.testing.assert_close(made, stored, rtol=0, atol=1e-5, msg=task)


def test_the_tokenizer_is_clips_own(pairs, tmp_path):
    tokenizer = CLIPTokenizer.from_pretrained(exported(pairs, tmp_path / "out", "hf"))
    texts = ["a photo of a Boeing 737-800.", "ein Café, naïve: 80 % \N{SNOWMAN}", "it's 3:45", ""]
    for text in texts:
        wanted = open_clip.tokenize([text])[0]
        end = wanted.argmax() + 1
        assert tokenizer(text)["input_ids"] == wanted[:end].tolist(), text


@each_format
def test_their_preprocessing_is_ours(pairs, tmp_path, form):
    folder = exported(pairs, tmp_path / "out", form)
    picture = np.random.default_rng(2).integers(0, 256, (48, 72, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "photo.png")
    image = Image.open(tmp_path / "photo.png")
    if form == "open_clip":
        _, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        found = preprocess(image)
    else:
        processor = CLIPImageProcessor.from_pretrained(folder)
        found = processor(images=image, return_tensors="pt")["pixel_values"][0]
    encoder = load_exported(folder).encoder
    ours = torch.tensor(pixels_of(tmp_path / "photo.png", 32))
    expected = (ours / 255 - encoder.mean) / encoder.std
    # transformers rounds when it resizes: by one of 255 levels, in units of the deviation.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 if form == "open_clip" else 0.02)


@each_format
def test_the_same_export_has_the_same_bytes(pairs, tmp_path, form):
    contents = []
    for name in ("one", "two"):
        folder = exported(pairs, tmp_path / name / "out", form)
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert contents[0] == contents[1]


def test_the_miniature_keeps_its_own_vocabulary(made, tmp_path):
    project = load_config(made), Layout(made, "ci")
    folder = exported(project, tmp_path / "out", "open_clip")
    assert not (folder / "vocab.json").exists()
    assert list(load_exported(folder).labels) == MINI_TASKS
