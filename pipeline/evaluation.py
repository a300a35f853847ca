"""Metrics of predictions: accuracy and calibration, in NumPy."""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from pipeline.errors import UserError
from pipeline.files import need, replacing


@dataclass(frozen=True)
class Predictions:
    """What a model says about N images of one task; everything the metrics and plots need."""

    index: np.ndarray  # int32 [N], the image's place in its split
    label: np.ndarray  # int64 [N]
    top: np.ndarray  # int16 [N, min(5, classes)], most probable class first
    p_top1: np.ndarray  # float32 [N], probability of the most probable class
    p_label: np.ndarray  # float32 [N], probability of the label
    entropy: np.ndarray  # float32 [N], of the softmax, in nats

    def save(self, path: Path) -> None:
        """Write to an .npz file."""
        with replacing(path) as temporary:
            np.savez(temporary, **vars(self))

    @classmethod
    def load(cls, path: Path, made_by: str) -> "Predictions":
        """Read what `save` wrote; raises `UserError`, naming the stage `made_by`."""
        try:
            with need(path, made_by).open("rb") as file, np.load(file) as arrays:
                return cls(**arrays)
        except (ValueError, EOFError, BadZipFile) as error:
            raise UserError(
                f"{path} is damaged ({error}). Delete it and run '{made_by}'."
            ) from error

    @property
    def correct(self) -> np.ndarray:
        """bool [N]: whether the most probable class is the label."""
        return self.top[:, 0] == self.label


def accuracy(predictions: Predictions) -> float:
    """Share of correct predictions, in percent."""
    return 100 * float(predictions.correct.mean())


def calibration_error(predictions: Predictions, bins: int = 15) -> float:
    """Expected calibration error in percent, over bins of equal width.

    Guo et al. 2017 (https://arxiv.org/abs/1706.04599): the mean gap between confidence and
    accuracy, weighted by how many predictions fall in each bin.
    """
    confidence = predictions.p_top1.astype(np.float64)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = np.bincount(place, confidence - predictions.correct, minlength=bins)
    return 100 * float(np.abs(gap).sum() / len(confidence))


def negative_log_likelihood(predictions: Predictions) -> float:
    """Mean of -log p(label), in nats."""
    tiny = np.finfo(np.float32).tiny
    return float(-np.log(np.maximum(predictions.p_label.astype(np.float64), tiny)).mean())
