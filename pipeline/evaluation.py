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
    brier: np.ndarray  # float32 [N], sum over classes of (probability - [it is the label])^2
    # Without the task's identity (`pipeline.joint`), where the model can be used so, float32 [N]:
    joint: np.ndarray | None = None  # chance that the label wins over all tasks' classes
    joint_same_words: np.ndarray | None = None  # also by another class with its words

    def save(self, path: Path) -> None:
        """Write to an .npz file."""
        arrays = {name: array for name, array in vars(self).items() if array is not None}
        with replacing(path) as temporary:
            np.savez(temporary, **arrays)

    @classmethod
    def load(cls, path: Path, made_by: str) -> "Predictions":
        """Read what `save` wrote; raises `UserError`, naming the stage `made_by`."""
        try:
            with need(path, made_by).open("rb") as file, np.load(file) as arrays:
                return cls(**arrays)
        except (TypeError, ValueError, EOFError, BadZipFile) as error:
            raise UserError(
                f"{path} is damaged ({error}). Delete it and run '{made_by}'."
            ) from error

    @property
    def correct(self) -> np.ndarray:
        """bool [N]: whether the most probable class is the label."""
        return self.top[:, 0] == self.label


def measured(predictions: Predictions) -> dict[str, float]:
    """Metric -> value, of all that the predictions allow: accuracies and ECE in percent."""
    found = {
        "accuracy": accuracy(predictions),
        "ece": calibration_error(predictions),
        "ece_mass": calibration_error_by_mass(predictions),
        "nll": negative_log_likelihood(predictions),
        "brier": brier_score(predictions),
        "entropy": float(predictions.entropy.mean()),
    }
    for name in ("joint", "joint_same_words"):
        share = getattr(predictions, name)
        if share is not None:
            found[name] = 100 * float(share.mean())
    return found


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


def calibration_error_by_mass(predictions: Predictions, bins: int = 15) -> float:
    """Expected calibration error in percent, over bins of equally many predictions.

    Nixon et al. 2019 (https://arxiv.org/abs/1904.01685): bins of equal width leave most bins empty
    where a model is sure of nearly everything. Sizes differ by one where the number of predictions
    is no multiple of `bins`; predictions of the same confidence share their bins evenly, so that
    the order of the images does not matter.
    """
    confidence = predictions.p_top1.astype(np.float64)
    values, place, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    gaps = np.bincount(place, confidence - predictions.correct, minlength=len(values)) / counts
    parts = np.array_split(np.repeat(gaps, counts), bins)
    return 100 * sum(abs(float(part.sum())) for part in parts) / len(confidence)


def brier_score(predictions: Predictions) -> float:
    """Mean over images of sum over classes of (probability - [it is the label])^2, from 0 to 2.

    As Brier defined it (https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2).
    """
    return float(predictions.brier.mean(dtype=np.float64))


def negative_log_likelihood(predictions: Predictions) -> float:
    """Mean of -log p(label), in nats."""
    tiny = np.finfo(np.float32).tiny
    return float(-np.log(np.maximum(predictions.p_label.astype(np.float64), tiny)).mean())
