"""What the stages before stored about task vectors and coefficients, as means over seeds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from pipeline.config import Config
from pipeline.errors import CheckpointError
from pipeline.files import need, read_json
from pipeline.layout import Layout
from pipeline.report.stages import stage_command


@dataclass(frozen=True)
class Learned:
    """What one method learned; means over seeds."""

    values: np.ndarray  # [layers, tasks], or [1, tasks] where all tensors share them
    tasks: tuple[str, ...]
    layers: tuple[str, ...]  # tensor names, or ("*",) for one row
    entropy: np.ndarray  # [steps, tasks] in nats; [0, tasks] where nothing was learned in steps
    coefficients: np.ndarray  # [steps, tasks], mean over layers
    steps: float | None = None  # None: not learned in steps
    seconds: float | None = None


@dataclass(frozen=True)
class Similarity:
    """How alike the task vectors are; means over seeds."""

    tasks: tuple[str, ...]
    cosines: np.ndarray  # [tasks, tasks]
    relative_norms: Mapping[str, float]  # task -> |task vector| / |pretrained weights|


def read_learned(config: Config, layout: Layout) -> dict[str, Learned] | None:
    """Method -> what it learned; None if the stage has not run."""
    seeds, methods = config.profile.seeds, config.profile.learn.methods
    paths = {m: [layout.coefficients(seed, m) for seed in seeds] for m in methods}
    if not all(path.exists() for group in paths.values() for path in group):
        return None
    return {m: _mean([_read_coefficients(path) for path in paths[m]]) for m in methods}


def _read_coefficients(path: Path) -> Learned:
    made_by = stage_command("learn")
    try:
        with safe_open(need(path, made_by), framework="numpy") as file:
            facts = {name: json.loads(text) for name, text in file.metadata().items()}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged ({error}). Run '{made_by}' again.") from None
    tasks = tuple(facts["tasks"])
    nothing = np.empty((0, len(tasks)))
    return Learned(
        values=arrays["values"].reshape(-1, len(tasks)),
        tasks=tasks,
        layers=tuple(facts["layers"]),
        entropy=arrays.get("history_entropy", nothing),
        coefficients=arrays.get("history_coefficients", nothing),
        steps=facts.get("steps") if "history_entropy" in arrays else None,
        seconds=facts.get("seconds"),
    )


def _mean(seeds: list[Learned]) -> Learned:
    """Means over seeds; of the curves what goes beyond the shortest is dropped."""
    steps = min(len(one.entropy) for one in seeds)
    return Learned(
        values=np.mean([one.values for one in seeds], axis=0),
        tasks=seeds[0].tasks,
        layers=seeds[0].layers,
        entropy=np.mean([one.entropy[:steps] for one in seeds], axis=0),
        coefficients=np.mean([one.coefficients[:steps] for one in seeds], axis=0),
        steps=_mean_of([one.steps for one in seeds]),
        seconds=_mean_of([one.seconds for one in seeds]),
    )


def _mean_of(numbers: Sequence[float | None]) -> float | None:
    """None where a seed has none."""
    found = [number for number in numbers if number is not None]
    return float(np.mean(found)) if len(found) == len(numbers) else None


def read_similarity(config: Config, layout: Layout) -> Similarity | None:
    """Cosines and norms of the task vectors; None if the stage has not run."""
    paths = [layout.vectors_summary(seed) for seed in config.profile.seeds]
    if not all(path.exists() for path in paths):
        return None
    seeds = [read_json(path, stage_command("vectors")) for path in paths]
    tasks = tuple(seeds[0]["tasks"])
    return Similarity(
        tasks=tasks,
        cosines=np.mean([one["cosines"] for one in seeds], axis=0),
        relative_norms={
            task: float(np.mean([one["relative_norms"][task] for one in seeds])) for task in tasks
        },
    )


def read_merging(config: Config, layout: Layout) -> dict[str, float]:
    """Method -> seconds that its merge took; {} where the stage left no record."""
    paths = [layout.merged_summary(seed) for seed in config.profile.seeds]
    if not all(path.exists() for path in paths):
        return {}
    seeds = [read_json(path, stage_command("merge")) for path in paths]
    shared = [m for m in config.methods if all("seconds" in one.get(m, {}) for one in seeds)]
    return {m: float(np.mean([one[m]["seconds"] for one in seeds])) for m in shared}
