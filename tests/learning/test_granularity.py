"""Which tensors of a model share a row of coefficients."""

from itertools import groupby

import open_clip
import pytest
import torch
from open_clip.model import CLIP
from oracles import tower

from pipeline.clip import ImageEncoder
from pipeline.learning.granularity import rows_of


def names_of(model):
    with torch.device("meta"):
        clip = CLIP(**open_clip.get_model_config(model))
    return list(ImageEncoder(clip.visual, (0.5,) * 3, (0.5,) * 3).weights())


@pytest.mark.parametrize(("model", "blocks"), [("ViT-B-32", 12), ("ViT-L-14", 24)])
def test_blocks_of_open_clip_towers(model, blocks):
    names = names_of(model)
    found = dict(zip(names, rows_of(names, "block"), strict=True))
    rows = [f"visual.transformer.resblocks.{number}" for number in range(blocks)]
    assert set(found.values()) == {"stem", *rows, "head"}
    assert {name for name, row in found.items() if row == "stem"} == {
        "visual.class_embedding",
        "visual.positional_embedding",
        "visual.conv1.weight",
        "visual.ln_pre.weight",
        "visual.ln_pre.bias",
    }
    assert {name for name, row in found.items() if row == "head"} == {
        "visual.proj",
        "visual.ln_post.weight",
        "visual.ln_post.bias",
    }
    for row in rows:
        inside = [name for name in names if name.startswith(f"{row}.")]
        assert len(inside) == 12 and {found[name] for name in inside} == {row}


def test_blocks_of_other_towers():
    names = list(ImageEncoder(tower("attention"), (0.5,) * 3, (0.5,) * 3).weights())
    pooled = [name for name in names if ".attn_pool" in name]
    assert len(pooled) > 5 and set(rows_of(pooled, "block")) == {"head"}
    resnet = rows_of(names_of("RN50"), "block")
    order = [row for row, _ in groupby(resnet)]
    assert (order[0], order[-1], len(order)) == ("stem", "head", 3 + 4 + 6 + 3 + 2)


def test_one_row_for_all_or_one_for_each():
    names = names_of("ViT-B-32")
    assert rows_of(names, "task") == ["*"] * len(names)
    assert rows_of(iter(names), "layer") == names
