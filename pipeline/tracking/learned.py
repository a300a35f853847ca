"""What a method learned: its coefficients and their history, as curves and tables."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from pipeline.errors import CheckpointError
from pipeline.files import need

CURVE_POINTS = 100  # of a curve: more than the eye tells apart
MADE_BY = "python -m stages.learn"

Table = dict[str, list[Any]]  # column -> values


@dataclass(frozen=True)
class Learned:
    """The content of a file of coefficients."""

    path: Path
    facts: Mapping[str, Any]  # what it was learned with
    tasks: tuple[str, ...]
    layers: tuple[str, ...]  # tensor names, or ("*",) where all tensors share a row
    values: np.ndarray  # [layers, tasks]
    entropy: np.ndarray  # [steps, tasks] in nats; [0, tasks] where nothing was learned in steps
    coefficients: np.ndarray  # [steps, tasks], mean over layers

    @property
    def curves(self) -> dict[str, np.ndarray]:
        """Name -> one value per step; nothing where nothing was learned in steps."""
        if not len(self.entropy):
            return {}
        found = {"entropy/sum": self.entropy.sum(axis=1)}
        for column, task in enumerate(self.tasks):
            found[f"entropy/{task}"] = self.entropy[:, column]
            found[f"coefficient/{task}"] = self.coefficients[:, column]
        return found

    def thinned(self) -> Iterator[tuple[str, int, float]]:
        """(curve, step, value) at about a hundred steps, first and last included."""
        steps = thinned_steps(len(self.entropy))
        for name, series in self.curves.items():
            yield from ((name, int(step), float(series[step])) for step in steps)

    def tables(self) -> dict[str, Table]:
        """Name of a file -> the numbers of a figure: coefficients by tensor and curves by step."""
        values = {task: self.values[:, k].round(6).tolist() for k, task in enumerate(self.tasks)}
        found: dict[str, Table] = {"coefficients": {"tensor": list(self.layers), **values}}
        if curves := self.curves:
            steps = thinned_steps(len(self.entropy))
            found["curves"] = {"step": steps.tolist()} | {
                name: series[steps].round(6).tolist() for name, series in curves.items()
            }
        return found


def read_learned(path: Path) -> Learned:
    """Read a file of coefficients; raises `MissingInput` or `CheckpointError`."""
    try:
        with safe_open(need(path, MADE_BY), framework="numpy") as file:
            facts = {name: json.loads(text) for name, text in file.metadata().items()}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged ({error}). Run '{MADE_BY}' again.") from None
    none = np.zeros((0, len(facts["tasks"])), np.float32)
    return Learned(
        path,
        facts,
        tuple(facts["tasks"]),
        tuple(facts["layers"]),
        arrays["values"],
        arrays.get("history_entropy", none),
        arrays.get("history_coefficients", none),
    )


def thinned_steps(count: int) -> np.ndarray:
    """At most CURVE_POINTS of the steps 0 .. count-1, first and last included."""
    return np.unique(np.linspace(0, count - 1, CURVE_POINTS).round().astype(int))
