"""Models on the line from the pretrained weights to merged ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_export import LABELS, heads

from pipeline.blending import KEPT, Blend, load_blend
from pipeline.classifier import Classifier
from pipeline.clip import Clip
from pipeline.config import load_config
from pipeline.errors import MissingInput, UserError
from pipeline.exported import Labels
from pipeline.layout import Layout

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")


@pytest.fixture
def blend(tiny_clip: Clip, experts: dict[str, dict[str, torch.Tensor]]) -> Blend:
    """From a random encoder to one beside it."""
    start = tiny_clip.image_encoder().weights()
    labels = {
        task: Labels(tuple(said["classes"]), tuple(said["templates"]), said["title"])
        for task, said in LABELS.items()
    }
    encoder = tiny_clip.image_encoder().load(experts["cars"], "an expert")
    return Blend(Classifier(encoder, tiny_clip.logit_scale, 32, heads(), labels), start)


def test_both_ends_are_the_very_weights(blend: Blend, experts: dict[str, dict[str, torch.Tensor]]):
    before = {name: tensor.clone() for name, tensor in blend.pretrained.items()}
    for share, expected in ((0.0, before), (1.0, experts["cars"]), (0.0, before)):
        found = blend.at(share).encoder.weights()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.95])
def test_between_the_ends_weights_are_linear(blend: Blend, share: float):
    found = blend.at(share).encoder.weights()
    for name, end in blend.merged.encoder.weights().items():
        start = blend.pretrained[name].double()
        expected = (1 - share) * start + share * end.double()
        torch.testing.assert_close(found[name].double(), expected, atol=1e-6, rtol=1e-6)


def test_predictions_follow_the_weights(blend: Blend):
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
    merged = blend.merged.probabilities(images, "svhn")
    assert torch.equal(blend.at(1.0).probabilities(images, "svhn"), merged)
    features = blend.at(0.0).encoder(torch.from_numpy(images))
    logits = blend.merged.logit_scale * features @ heads()["svhn"].T
    pretrained = blend.at(0.0).probabilities(images, "svhn")
    torch.testing.assert_close(pretrained, logits.softmax(dim=1), atol=1e-5, rtol=0)
    assert not torch.allclose(pretrained, merged, atol=1e-3)


def test_the_last_models_are_kept(blend: Blend):
    first = blend.at(0.5)
    assert blend.at(0.5) is first
    for share in np.linspace(0, 0.4, KEPT):
        blend.at(float(share))
    assert blend.at(0.5) is not first


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_beyond_the_ends_there_is_nothing(blend: Blend, share: float):
    with pytest.raises(ValueError, match="not from 0 to 1"):
        blend.at(share)


def test_of_a_profile(made: Path):
    config, layout = load_config(made), Layout(made, "ci")
    blend = load_blend(config, layout, "ties", 0)
    pretrained = load_file(layout.pretrained)
    for name, tensor in blend.at(0).encoder.weights().items():
        assert torch.equal(tensor, pretrained[name])
    merged = load_file(layout.merged(0, "ties"))
    found = blend.at(1).encoder.weights()
    assert all(torch.equal(found[name], tensor) for name, tensor in merged.items())


def test_what_is_no_line_is_refused(made: Path):
    config, layout = load_config(made), Layout(made, "ci")
    with pytest.raises(UserError, match="has a model for every task"):
        load_blend(config, layout, "experts", 0)
    with pytest.raises(UserError, match="Did you mean ties"):
        load_blend(config, layout, "tie", 0)
    with pytest.raises(MissingInput, match=r"python -m stages\."):
        load_blend(config, Layout(made, "elsewhere"), "ties", 0)
