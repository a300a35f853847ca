"""A folder of checkpoints to merge: a random CLIP and experts of it, in several layouts."""

import json
import sys
from pathlib import Path

# ruff: noqa: F401 -- tests take from here what lies in that folder
sys.path.append(str(Path(__file__).parent / "checkpoints"))

import layouts
from layouts import (
    ARCHITECTURE,
    LEFTOVERS,
    OURS,
    PRETRAINED,
    PROJECTED,
    hf_folder,
    open_clip_folder,
    prefixed,
    safe,
    zipped,
)
from random_clips import hf_clip, hf_vision, images_of, open_clip_model, texts
from safetensors.torch import save_file

from pipeline.checkpoints.hf import convert_hf_vision

OTHER = convert_hf_vision(hf_vision(seed=2).state_dict())
TOWER = {name: tensor for name, tensor in PRETRAINED.items() if name.startswith("visual.")}
EXPERTS = {"cars": OURS, "mnist": OTHER}


def write_models(folder):
    """clip/ and cars/ in Hugging Face's layout; mnist.pt pickled; others under their names."""
    hf_folder(hf_clip(), folder / "clip")
    hf_folder(PROJECTED, folder / "cars")
    zipped(prefixed("model.", OTHER | LEFTOVERS), folder / "mnist.pt")
    safe(OTHER, folder / "mnist.safetensors")
    safe(TOWER, folder / "tower.safetensors")
    open_clip_folder(PRETRAINED, folder / "open_clip")
    hf_folder(hf_vision(activation="gelu"), folder / "gelu")
    narrow = {"visual.proj": OTHER["visual.proj"][:, :-1]}
    safe(OTHER | narrow, folder / "narrow.safetensors")
    return folder


def described(folder, tensors, name="described.safetensors"):
    """A file that tells its architecture itself, as this project's do."""
    facts = {"architecture": json.dumps(ARCHITECTURE), "tokenizer": "clip"}
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / name, facts)
    return folder / name
