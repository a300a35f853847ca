"""CLIP as open_clip builds it: image encoder, tokenizer and zero-shot heads."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.checkpoints import load_metadata, load_weights
from pipeline.errors import CheckpointError, UserError
from pipeline.tower import class_token_features, pools_class_token

PREFIX = "visual."


class ImageEncoder(nn.Module):
    """The image tower with its preprocessing. Parameters carry open_clip's names (`visual.*`).

    `precision`: what the tower computes in. Parameters and features stay in their own type, and
    so do the gradients of the parameters: float32 for bfloat16 as well.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        visual: nn.Module,
        mean: Iterable[float],
        std: Iterable[float],
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.visual = visual
        self.precision = precision
        self.register_buffer("mean", torch.tensor(tuple(mean)).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(tuple(std)).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 images [batch, 3, height, width] -> features of unit length [batch, dim]."""
        pixels = (images.to(self.mean.dtype) / 255 - self.mean) / self.std
        low = self.precision is not torch.float32
        with torch.autocast(pixels.device.type, self.precision, enabled=low):
            if pools_class_token(self.visual):
                features = class_token_features(self.visual, pixels)
            else:
                features = self.visual(pixels)
        return F.normalize(features.to(pixels.dtype), dim=-1)

    def weights(self) -> dict[str, Tensor]:
        """A copy of what a merge works on: every floating-point tensor by name."""
        return {
            name: tensor.detach().clone()
            for name, tensor in self.state_dict().items()
            if tensor.is_floating_point()
        }

    def load(self, weights: Mapping[str, Tensor], source: str) -> "ImageEncoder":
        """Take `weights` [name: tensor]; raises `CheckpointError` naming what does not fit."""
        check_same_tensors(self.weights(), weights, "the model", source)
        self.load_state_dict(dict(weights), strict=False)
        return self


def check_same_tensors(
    ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], our_name: str, their_name: str
) -> None:
    """Raise `CheckpointError` unless both hold the same names with the same shapes."""
    for wrong, what in ((ours.keys() - theirs.keys(), "lacks"), (theirs.keys() - ours.keys(), "")):
        if wrong:
            names = ", ".join(sorted(wrong)[:3]) + (", ..." if len(wrong) > 3 else "")
            text = "lacks" if what else "has unexpected"
            raise CheckpointError(
                f"{their_name} {text} {len(wrong)} tensor(s) compared with {our_name}: {names}. "
                "Use experts fine-tuned from this pretrained model."
            )
    for name, tensor in ours.items():
        if tensor.shape != theirs[name].shape:
            raise CheckpointError(
                f"{their_name}: the tensor '{name}' has shape {list(theirs[name].shape)} where "
                f"{our_name} has {list(tensor.shape)}. "
                "Use experts fine-tuned from this pretrained model."
            )


@dataclass(frozen=True)
class WordTokenizer:
    """Words to token ids [texts, context], with an end token after the last word."""

    vocabulary: tuple[str, ...]  # padding first, end of text last
    context: int

    def __call__(self, texts: Iterable[str]) -> Tensor:
        ids = {word: index for index, word in enumerate(self.vocabulary)}
        rows = []
        for text in texts:
            words = text.split()[: self.context - 1]
            if missing := [word for word in words if word not in ids]:
                raise UserError(
                    f"The model's vocabulary lacks the word(s) {', '.join(missing)} of '{text}'. "
                    "Use other class names, or a model with a larger vocabulary."
                )
            row = [ids[word] for word in words] + [len(ids) - 1]
            rows.append(row + [0] * (self.context - len(row)))
        return torch.tensor(rows)


@dataclass
class Clip:
    """A CLIP with all that is needed to use it."""

    model: CLIP
    tokenizer: WordTokenizer
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def logit_scale(self) -> float:
        """The factor of cosine similarity that makes logits."""
        return self.model.logit_scale.exp().item()

    def image_encoder(self) -> ImageEncoder:
        """The image encoder, sharing this model's weights."""
        return ImageEncoder(self.model.visual, self.mean, self.std).eval()

    @torch.no_grad()
    def zero_shot_head(self, classes: Iterable[str], templates: Iterable[str]) -> Tensor:
        """Unit rows [classes, dim]: per class the mean of its templates' text features."""
        prompts = [[template.format(name) for name in classes] for template in templates]
        features = [
            self.model.encode_text(self.tokenizer(texts), normalize=True) for texts in prompts
        ]
        return F.normalize(torch.stack(features).mean(0), dim=-1)


def build_clip(
    architecture: Mapping[str, Any], vocabulary: tuple[str, ...], logit_scale: float
) -> Clip:
    """A CLIP with random weights from open_clip's `embed_dim`, `vision_cfg` and `text_cfg`."""
    model = CLIP(
        embed_dim=architecture["embed_dim"],
        vision_cfg=dict(architecture["vision_cfg"]),
        text_cfg=dict(architecture["text_cfg"], vocab_size=len(vocabulary)),
        init_logit_scale=torch.tensor(logit_scale).log().item(),
    )
    tokenizer = WordTokenizer(vocabulary, architecture["text_cfg"]["context_length"])
    return Clip(model, tokenizer, tuple(architecture["mean"]), tuple(architecture["std"]))


def load_clip(path: Path, made_by: str) -> Clip:
    """The CLIP stored in one file: weights, architecture, vocabulary.

    Raises `MissingInput` or `CheckpointError`.
    """
    facts = load_metadata(path, made_by)
    try:
        architecture = json.loads(facts["architecture"])
        vocabulary = tuple(json.loads(facts["vocabulary"]))
        clip = build_clip(architecture, vocabulary, 1.0)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} does not say its architecture and vocabulary. Run '{made_by}' again."
        ) from error
    weights = load_weights(path, made_by)
    check_same_tensors(clip.model.state_dict(), weights, "the architecture", str(path))
    clip.model.load_state_dict(weights)
    clip.model.eval()
    return clip


def load_encoder(path: Path, made_by: str) -> tuple[ImageEncoder, float]:
    """The image encoder of `load_clip` and the model's logit scale."""
    clip = load_clip(path, made_by)
    return clip.image_encoder(), clip.logit_scale
