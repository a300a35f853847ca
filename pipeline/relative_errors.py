"""Accuracy under corruptions beside that without, and errors beside the pretrained model's.

Error ratios follow ImageNet-C (https://arxiv.org/abs/1903.12261), whose errors are divided by
AlexNet's: of a corruption, the error summed over severities, divided by the pretrained model's, in
percent. Below 100 a model errs less than the pretrained one. A mean is one of ratios.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Cells:
    """Accuracy in percent [seeds, corruptions, severities, tasks], and what the places mean."""

    accuracy: np.ndarray
    corruptions: Sequence[str]
    severities: Sequence[int]
    tasks: Sequence[str]

    def at(self, severity: int) -> "Cells":
        """Those of one severity."""
        place = list(self.severities).index(severity)
        part = self.accuracy[:, :, place : place + 1]
        return Cells(part, self.corruptions, (severity,), self.tasks)


def accuracies(correct: np.ndarray, images: Sequence[int]) -> np.ndarray:
    """Percent [..., tasks] of bool [..., tasks, N], where task t has the first `images`[t] of N."""
    return 100 * correct.sum(axis=-1) / np.asarray(images)


def summarise(
    cells: Cells, seeds: Sequence[int], clean: np.ndarray | None, pretrained: Cells | None
) -> dict[str, Any]:
    """One method's row of robustness.json: means over seeds, in percent.

    `clean`: the same model's accuracy in percent without corruption [seeds, tasks]; None: it was
    not tested there, and nothing is said of drops. `pretrained`: the pretrained
    model's cells at the same severities; None: there are no error ratios.
    """
    values = cells.accuracy
    by_seed = values.mean(axis=(1, 2, 3))
    average = float(by_seed.mean())
    row: dict[str, Any] = {
        "avg": _rounded(average),
        "avg_sd": _rounded(_spread(by_seed)),
        "corruptions": _nested(values.mean(axis=(0, 3)), cells.corruptions, cells.severities),
        "tasks": _nested(values.mean(axis=(0, 1, 2)), cells.tasks),
        "seeds": _nested(by_seed, seeds),
        "severities": _nested(values.mean(axis=(0, 1, 3)), cells.severities),
        "cells": _cells(values.mean(axis=0), cells),
    }
    if clean is not None:
        by_task = clean.mean(axis=0)[:, None]
        row["clean"] = _rounded(clean.mean())
        row["relative_drop"] = _rounded(_drop(clean.mean(), average))
        drops = _drop(by_task, values.mean(axis=(0, 2)).T)
        row["drops"] = _nested(drops, cells.tasks, cells.corruptions)
    if len(seeds) > 1:
        row["severities_sd"] = _nested(_spread(values.mean(axis=(1, 3))), cells.severities)
        row["cells_sd"] = _cells(_spread(values), cells)
    if pretrained is not None:
        row["error_ratio"] = error_ratios(cells, pretrained)
    return row


def error_ratios(cells: Cells, pretrained: Cells) -> dict[str, Any]:
    """Errors in percent of the pretrained model's; null where that one makes none.

    `mean`: over corruptions and tasks; `corruptions` and `severities`: over tasks, and the latter
    over corruptions; `tasks`: task -> `mean` over corruptions, and each corruption's. `mean_sd`:
    where there are several seeds.
    """
    errors, reference = 100 - cells.accuracy, 100 - pretrained.accuracy
    ratios = _ratio(errors.sum(axis=2), reference.sum(axis=2))  # [seeds, corruptions, tasks]
    means = _mean(ratios.reshape(len(ratios), -1), 1)
    found: dict[str, Any] = {"mean": _rounded(_mean(means, 0))}
    if len(ratios) > 1:
        found["mean_sd"] = _rounded(_spread(means))
    over_seeds = _mean(ratios, 0)
    found["corruptions"] = _nested(_mean(over_seeds, 1), cells.corruptions)
    at_each = _mean(_ratio(errors, reference), 0)  # [corruptions, severities, tasks]
    curve = _mean(_mean(at_each, 2), 0)
    found["severities"] = _nested(curve, cells.severities)
    found["tasks"] = {
        task: {
            "mean": _rounded(_mean(over_seeds[:, place], 0)),
            "corruptions": _nested(over_seeds[:, place], cells.corruptions),
        }
        for place, task in enumerate(cells.tasks)
    }
    return found


def _cells(values: np.ndarray, cells: Cells) -> dict[str, Any]:
    """task -> corruption -> severity -> value, of [corruptions, severities, tasks]."""
    return _nested(values.transpose(2, 0, 1), cells.tasks, cells.corruptions, cells.severities)


def _nested(values: np.ndarray, *names: Sequence[Any]) -> dict[str, Any]:
    """Nested by the names of each axis."""
    first, *rest = names
    return {
        str(name): _nested(value, *rest) if rest else _rounded(value)
        for name, value in zip(first, values, strict=True)
    }


def _rounded(value: Any) -> float | None:
    return None if np.isnan(value) else round(float(value), 2)


def _spread(values: np.ndarray) -> np.ndarray:
    """Standard deviation over the first axis, the seeds; 0 of one."""
    return values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1:])


def _drop(before: Any, after: Any) -> Any:
    """How much is lost, in percent of what there was before; 0 of nothing."""
    return _ratio(before - np.asarray(after), np.broadcast_to(before, np.shape(after)), 0.0)


def _ratio(values: np.ndarray, of: np.ndarray, otherwise: float = np.nan) -> np.ndarray:
    return np.divide(100 * values, of, out=np.full(np.shape(of), otherwise), where=of != 0)


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean over those that are known; unknown where none is."""
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)
