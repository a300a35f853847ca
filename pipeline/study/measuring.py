"""How good merged models are, image by image: what a fair comparison of two of them needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from pipeline.clip import ImageEncoder
from pipeline.errors import UserError
from pipeline.files import need, replacing
from pipeline.predictions import predict, probabilities
from pipeline.vectors import TaskVectors

UNLABELED = 256  # images of a task whose entropies are measured: the first ones


@dataclass(frozen=True)
class Measured:
    """What a merged model makes of every image."""

    entropies: Mapping[str, np.ndarray]  # task -> nats [n], of unlabeled images
    correct: Mapping[str, np.ndarray]  # task -> bool [N], of the images that figures come from

    @property
    def entropy(self) -> float:
        """Sum over tasks of the mean entropy in nats: what learning minimises."""
        return sum(float(nats.mean()) for nats in self.entropies.values())

    @property
    def accuracies(self) -> dict[str, float]:
        """Task -> accuracy in percent."""
        return {task: 100 * float(right.mean()) for task, right in self.correct.items()}

    @property
    def accuracy(self) -> float:
        """Mean over tasks, in percent."""
        return sum(self.accuracies.values()) / len(self.correct)

    def save(self, path: Path) -> None:
        """Write to an .npz file."""
        arrays: dict[str, Any] = {f"entropies/{task}": n for task, n in self.entropies.items()}
        arrays |= {f"correct/{task}": right for task, right in self.correct.items()}
        with replacing(path) as temporary:
            np.savez_compressed(temporary, **arrays)

    @classmethod
    def load(cls, path: Path, made_by: str) -> "Measured":
        """Read what `save` wrote; raises `UserError`, naming the command `made_by`."""
        found: dict[str, dict[str, np.ndarray]] = {"entropies": {}, "correct": {}}
        try:
            with need(path, made_by).open("rb") as file, np.load(file) as arrays:
                for name in arrays.files:
                    kind, _, task = name.partition("/")
                    found[kind][task] = arrays[name]
        except (ValueError, KeyError, EOFError, BadZipFile) as error:
            raise UserError(
                f"{path} is damaged ({error}). Delete it and run '{made_by}'."
            ) from error
        return cls(**found)


@dataclass(frozen=True)
class Judge:
    """The images and heads to measure merges of some task vectors with."""

    encoder: ImageEncoder  # its parameters are overwritten
    logit_scale: float
    vectors: TaskVectors
    heads: Mapping[str, Tensor]  # task -> unit rows [classes, dim]
    unlabeled: Mapping[str, np.ndarray]  # task -> uint8 [n, 3, height, width]
    images: Mapping[str, np.ndarray]  # task -> uint8 [N, 3, height, width]
    labels: Mapping[str, np.ndarray]  # task -> int64 [N]

    def measure(self, values: Tensor) -> Measured:
        """Merge with coefficients [layers, tasks] or [1, tasks], and look at every image."""
        self.encoder.load(self.vectors.merged(values), "the merged model")
        entropies, correct = {}, {}
        for task, head in self.heads.items():
            model = self.encoder, head, self.logit_scale
            shares = probabilities(*model, self.unlabeled[task])
            entropies[task] = torch.special.entr(shares).sum(dim=1).cpu().numpy()
            correct[task] = predict(*model, self.images[task], self.labels[task]).correct
        return Measured(entropies, correct)
