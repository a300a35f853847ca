"""The shortened last block against open_clip's own forward pass, in double precision."""

import pytest
import torch
from open_clip.model import CLIP

from pipeline.clip import ImageEncoder
from pipeline.tower import pools_class_token


def tower(**options):
    """An image tower of open_clip with random weights, in float64."""
    torch.manual_seed(0)
    vision = {"image_size": 32, "patch_size": 16, "width": 16, "layers": 2, "head_width": 8}
    text = {"context_length": 4, "vocab_size": 5, "width": 8, "heads": 2, "layers": 1}
    quick_gelu = options.pop("quick_gelu", False)
    visual = CLIP(12, {**vision, **options}, text, quick_gelu=quick_gelu).visual
    return ImageEncoder(visual, (0.5,) * 3, (0.25,) * 3).double().eval()


@pytest.mark.parametrize(
    ("options", "short"),
    [
        ({}, True),
        ({"quick_gelu": True}, True),
        ({"ls_init_value": 0.1}, True),
        ({"pool_type": "avg"}, False),
        ({"attentional_pool": True, "attn_pooler_heads": 2}, False),
    ],
)
def test_features_and_gradients_are_those_of_open_clip(options, short):
    encoder = tower(**options)
    assert pools_class_token(encoder.visual) is short
    images = torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8)
    expected = torch.nn.functional.normalize(
        encoder.visual((images.double() / 255 - 0.5) / 0.25), dim=-1
    )
    weight = torch.randn(12, dtype=torch.float64)
    gradients = torch.autograd.grad((expected @ weight).sum(), list(encoder.parameters()))
    features = encoder(images)
    ours = torch.autograd.grad((features @ weight).sum(), list(encoder.parameters()))
    torch.testing.assert_close(features, expected, rtol=1e-12, atol=1e-13)
    for gradient, expected_gradient in zip(ours, gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-12)
