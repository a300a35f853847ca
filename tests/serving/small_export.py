"""A folder as `adamerge export --format open_clip` writes it, made without that, and pictures."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny import ARCHITECTURE, WORDS

from pipeline.clip import Clip

DIGITS = ["zero", "one", "two"]
LABELS = {
    "svhn": {"title": "SVHN", "classes": DIGITS, "templates": ["the number {}"]},
    "mnist": {"title": "MNIST", "classes": ["Zero", "one", "nine"], "templates": ["the number {}"]},
    "cars": {"title": "Cars", "classes": ["zero", "jeep"], "templates": ["a photo of a {}"]},
}


def write_export(folder: Path, clip: Clip) -> Path:
    """The weights of `clip`, random heads, and labels of which two tasks ask alike."""
    folder.mkdir(parents=True)
    weights = {name: tensor.clone() for name, tensor in clip.model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    text = {**ARCHITECTURE["text_cfg"], "vocab_size": len(WORDS)}
    parts = {"embed_dim": ARCHITECTURE["embed_dim"], "vision_cfg": ARCHITECTURE["vision_cfg"]}
    pixels = {name: ARCHITECTURE[name] for name in ("mean", "std")}
    config = {"model_cfg": {**parts, "text_cfg": text}, "preprocess_cfg": pixels}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    (folder / "labels.json").write_text(json.dumps(LABELS))
    save_file(heads(), folder / "heads.safetensors")
    return folder


def heads() -> dict[str, torch.Tensor]:
    """Unit rows; a class of two tasks that ask alike has the same row in both."""
    generator = torch.Generator().manual_seed(7)
    rows: dict[tuple[str, str], torch.Tensor] = {}
    for said in LABELS.values():
        for word in said["classes"]:
            row = torch.randn(ARCHITECTURE["embed_dim"], generator=generator)
            key = (word.lower(), said["templates"][0])
            rows.setdefault(key, torch.nn.functional.normalize(row, dim=0))
    return {
        task: torch.stack([rows[word.lower(), said["templates"][0]] for word in said["classes"]])
        for task, said in LABELS.items()
    }


def picture(seed: int, width: int = 48, height: int = 40) -> Image.Image:
    """A smooth picture in colours."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG") -> str:
    """An image file in base64."""
    made = io.BytesIO()
    image.save(made, kind)
    return base64.b64encode(made.getvalue()).decode()


def plain_probabilities(folder: Path, images: list[Image.Image], task: str) -> torch.Tensor:
    """softmax [images, classes] by open_clip alone, of an exported folder."""
    import open_clip
    from safetensors.torch import load_file

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    head = load_file(folder / "heads.safetensors")[task]
    with torch.inference_mode():
        features = model.eval().encode_image(torch.stack([transform(one) for one in images]))
        features = features / features.norm(dim=-1, keepdim=True)
        return (model.logit_scale.exp() * features @ head.T).softmax(dim=-1)
