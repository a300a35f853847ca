"""A CLIP as a folder that `transformers` loads: config.json, model.safetensors, preprocessing.

Written tensor by tensor and without torch; the inverse of `pipeline.checkpoints.hf`.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.checkpoints._hf_layout import IMAGE, WORDS, Tower, depth_of, pieces_of
from pipeline.checkpoints.architecture import TEXT, VISION
from pipeline.checkpoints.contents import HF_CONFIG, HF_PIXELS
from pipeline.checkpoints.writing import Kind, LazyArrays, kinds_of, write_safetensors
from pipeline.files import write_json

WEIGHTS = "model.safetensors"
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
)
BICUBIC = 3  # Pillow's number


def class_of(whole: bool) -> str:
    """The class of `transformers` that loads the folder; `whole`: both towers are in it."""
    return "CLIPModel" if whole else "CLIPVisionModelWithProjection"


def write_hf_folder(
    folder: Path,
    tensors: Mapping[str, np.ndarray],
    architecture: Mapping[str, Any],
    metadata: Mapping[str, str],
    tokenizer: Path | None = None,
) -> None:
    """Write a whole CLIP, or an image tower alone, into `folder`.

    `tensors`: open_clip's name -> float32, of a CLIP of two transformers; of `LazyArrays` the parts
    of one block's attention are in memory at a time. `architecture`: see
    `pipeline.checkpoints.architecture`. `metadata`: of the weights' file. `tokenizer`: a folder
    whose files of a tokenizer, if it has any, belong to the model. Raises `UserError` where the
    disk refuses, and whatever making an array raises.
    """
    whole = "logit_scale" in tensors
    write_json(folder / HF_CONFIG, config_of(architecture, whole))
    write_json(folder / HF_PIXELS, _preprocessing(architecture))
    towers = (IMAGE, WORDS) if whole else (IMAGE,)
    arrays = _exported(tensors, towers)
    write_safetensors(folder / WEIGHTS, arrays, {"format": "pt", **metadata})
    if tokenizer is not None and whole:
        for path in (tokenizer / name for name in TOKENIZER):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)


def config_of(architecture: Mapping[str, Any], whole: bool) -> dict[str, Any]:
    """What `transformers` writes into config.json; `architecture_of` gives the same back."""
    vision, dim = VISION | architecture["vision_cfg"], architecture["embed_dim"]
    common = {
        "hidden_act": "quick_gelu" if architecture.get("quick_gelu") else "gelu",
        "layer_norm_eps": 1e-5,
        "projection_dim": dim,
    }
    image = {
        "model_type": "clip_vision_model",
        **_sizes(vision),
        "num_attention_heads": vision["width"] // vision["head_width"],
        "image_size": vision["image_size"],
        "patch_size": vision["patch_size"],
        "num_channels": 3,
        **common,
    }
    if not whole:
        return {"architectures": [class_of(whole)], **image, "dtype": "float32"}
    words = TEXT | architecture["text_cfg"]
    text = {
        "model_type": "clip_text_model",
        **_sizes(words),
        "num_attention_heads": words["heads"],
        "vocab_size": words["vocab_size"],
        "max_position_embeddings": words["context_length"],
        # open_clip takes the features of the largest token of a text, and CLIP's ends in it.
        "eos_token_id": words["vocab_size"] - 1,
        "bos_token_id": words["vocab_size"] - 2,
        "pad_token_id": words["vocab_size"] - 1,
        **common,
    }
    return {
        "architectures": [class_of(whole)],
        "model_type": "clip",
        "projection_dim": dim,
        "vision_config": image,
        "text_config": text,
        "dtype": "float32",
    }


def _sizes(tower: Mapping[str, Any]) -> dict[str, int]:
    return {
        "hidden_size": tower["width"],
        "intermediate_size": int(tower["width"] * tower["mlp_ratio"]),
        "num_hidden_layers": tower["layers"],
    }


def _preprocessing(architecture: Mapping[str, Any]) -> dict[str, Any]:
    size = (VISION | architecture["vision_cfg"])["image_size"]
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": BICUBIC,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(architecture["mean"]),
        "image_std": list(architecture["std"]),
    }


def _exported(tensors: Mapping[str, np.ndarray], towers: Sequence[Tower]) -> LazyArrays:
    """As `pipeline.checkpoints.hf` exports, but each array is made when it is asked for."""
    kinds = kinds_of(tensors)
    depths = [depth_of(kinds, f"{tower.ours}transformer.resblocks.") for tower in towers]
    place = {
        part: (piece, number)
        for piece in pieces_of(towers, depths)
        for number, part in enumerate(piece.parts)
    }
    held: dict[str, np.ndarray] = {}  # q, k and v are one tensor, to be made once

    def make(part: str) -> np.ndarray:
        piece, number = place[part]
        value = held.pop(piece.name) if piece.name in held else tensors[piece.name]
        if piece.transposed:
            return value.T
        if number + 1 < len(piece.parts):  # v is asked for last: names are sorted
            held[piece.name] = value
        rows = len(value) // len(piece.parts) if value.ndim else 0
        return value[number * rows : (number + 1) * rows] if len(piece.parts) > 1 else value

    def kind(part: str) -> Kind:
        piece, _ = place[part]
        dtype, shape = kinds[piece.name]
        if piece.transposed:
            return Kind(dtype, shape[::-1])
        count = len(piece.parts)
        return Kind(dtype, (shape[0] // count, *shape[1:]) if count > 1 else shape)

    return LazyArrays({part: kind(part) for part in place}, make)
