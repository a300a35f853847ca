"""open_clip's configurations, against open_clip."""

import json
import subprocess
import sys

import open_clip
import pytest
import torch
from open_clip.model import CLIP

from pipeline.checkpoints.architecture import (
    MEAN,
    STD,
    differences,
    named_architecture,
    tensor_shapes,
)
from pipeline.errors import UserError

CONFIGS = {name: open_clip.get_model_config(name) for name in open_clip.list_models()}
PARTS = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}
PLAIN = [
    name
    for name, config in CONFIGS.items()
    if config.keys() <= PARTS and not any("hf_" in key for key in config["text_cfg"])
]
TRANSFORMERS = [name for name in PLAIN if name.startswith("ViT-") and "alt" not in name]


def test_configurations_are_open_clips():
    assert len(PLAIN) > 40
    for name in PLAIN:
        found = named_architecture(name)
        pixels = {"mean": list(MEAN), "std": list(STD)}
        assert found == {"quick_gelu": False} | CONFIGS[name] | pixels
        assert found["quick_gelu"] is name.endswith("-quickgelu")
        assert json.loads(json.dumps(found)) == found


def test_pixels_are_open_clips():
    assert MEAN == open_clip.constants.OPENAI_DATASET_MEAN
    assert STD == open_clip.constants.OPENAI_DATASET_STD


@pytest.mark.parametrize("name", sorted(CONFIGS.keys() - set(PLAIN)))
def test_models_with_other_texts_are_unknown(name):
    with pytest.raises(UserError, match=f"Unknown model '{name}'") as error:
        named_architecture(name)
    offered = str(error.value).split("Available: ")[1].rstrip(".").split(", ")
    assert sorted(offered) == sorted(PLAIN)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ViT-B-32-quickgeluu", "ViT-B-32-quickgelu"),
        ("ViT-B/32", "ViT-B-32"),
        ("vit-l-14", "ViT-L"),
    ],
)
def test_the_nearest_names_are_offered(name, meant):
    with pytest.raises(UserError, match=f"Unknown model '{name}'. Did you mean .*{meant}"):
        named_architecture(name)


@pytest.mark.parametrize("name", ["", "../factory", "/etc/passwd", "ViT-B-32.json"])
def test_a_name_is_no_path(name):
    with pytest.raises(UserError, match="Unknown model"):
        named_architecture(name)


def test_open_clip_is_not_imported():
    code = (
        "import sys; from pipeline.checkpoints.architecture import named_architecture as named\n"
        "named('ViT-B-32'); assert not {'torch', 'open_clip', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_shapes_are_those_of_open_clips_model(name):
    architecture = named_architecture(name)
    with torch.device("meta"):
        parts = {key: architecture[key] for key in PARTS}
        model = CLIP(**parts, init_logit_scale=1.0)
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert tensor_shapes(architecture) == expected


@pytest.mark.parametrize("name", ["RN50", "convnext_base", "ViT-M-16-alt"])
def test_shapes_of_other_towers_are_not_guessed(name):
    assert tensor_shapes(named_architecture(name)) is None


def test_the_same_model_has_no_differences():
    ours = named_architecture("ViT-B-32-quickgelu")
    vision = {"head_width": 64, "mlp_ratio": 4.0000001} | ours["vision_cfg"]
    for told in ({}, ours, {"quick_gelu": True}, {"vision_cfg": vision}):
        assert differences(told, ours) == []


def test_differences_are_named():
    ours = named_architecture("ViT-B-32-quickgelu")
    for told in (named_architecture("ViT-B-32"), {"quick_gelu": False}):
        assert differences(told, ours) == ["the activation is GELU instead of QuickGELU"]
        assert differences(ours, told | {"vision_cfg": {}, "text_cfg": {}})
    told = {"vision_cfg": ours["vision_cfg"] | {"head_width": 32, "mlp_ratio": 2}}
    assert differences(told, ours) == [
        "head_width of vision_cfg is 32 instead of 64",
        "hidden of vision_cfg is 1536 instead of 3072",
    ]
    told = ours | {"text_cfg": ours["text_cfg"] | {"heads": 4}}
    assert differences(told, ours) == ["heads of text_cfg is 4 instead of 8"]
    told = {"vision_cfg": ours["vision_cfg"] | {"pool_type": "avg"}}
    assert differences(told, ours) == ["pool_type of vision_cfg is avg instead of None"]
