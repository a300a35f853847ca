"""What one method achieved under one seed, read from the artifacts."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from pipeline.config import Config
from pipeline.errors import CheckpointError, UserError
from pipeline.evaluation import Predictions, measured
from pipeline.files import need, read_json, sha256
from pipeline.layout import Layout
from pipeline.merging.methods import METHODS
from pipeline.tracking.provenance import dvc_outputs, git_state, git_tags, output_holding
from pipeline.tracking.store import configuration_key, configuration_tags, metric_name

CURVE_POINTS = 100
LEARNING = (
    *("granularity", "objective", "schedule", "steps", "lr", "batch", "batches_per_task"),
    *("initial", "clamp", "processing", "keep", "source", "sha256"),
)

FIGURES = ("ece", "ece_mass", "nll", "brier", "joint")  # of clean images, beside accuracy


@dataclass(frozen=True)
class Row:
    """One row of the table of methods."""

    method: str
    seed: int
    title: str
    metrics: Mapping[str, float]  # accuracies and calibration errors in percent
    params: Mapping[str, str]
    tags: Mapping[str, str]
    curves: Mapping[str, np.ndarray]  # name -> one value per step
    model: Path | None  # the merged weights, if one file holds them
    data: tuple[str, str] | None  # folder of the images, hash of the splits; None if not pulled
    files: tuple[Path, ...]  # coefficients with every step's history, and their heatmap

    @property
    def digest(self) -> str:
        """SHA-256 of everything measured: the same digest means the same results."""
        kept = [self.tags.get(name) for name in ("pipeline.key", "coefficients.sha256")]
        facts = json.dumps([self.metrics, self.params, kept], sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()

    def thinned(self) -> list[tuple[str, float, int]]:
        """(name, value, step) of the curves, at about a hundred steps, first and last included."""
        return [
            (name, float(series[step]), int(step))
            for name, series in self.curves.items()
            for step in np.unique(np.linspace(0, len(series) - 1, CURVE_POINTS).round().astype(int))
        ]


def read_rows(config: Config, layout: Layout) -> list[Row]:
    """A row for every evaluated method and seed, in report order.

    Raises `MissingInput` where an artifact is missing, and `UserError` where one is damaged.
    """
    clean = read_json(layout.metric("clean"), "python -m stages.evaluate")
    optional = {
        name: read_json(layout.metric(name), f"python -m stages.{name}")
        for name in ("robustness", "generalization")
        if layout.metric(name).exists()
    }
    tags = {
        **configuration_tags(config),
        **_measured_at(layout),
        "kind": "method",
        "pipeline.key": configuration_key(config),
        "report": _relative(layout, layout.report / "index.html"),
    }
    outputs = dvc_outputs(layout.root)
    return [
        _Reader(config, layout, method, seed).row(clean[method], optional, tags, outputs)
        for method in config.methods
        if method in clean
        for seed in config.profile.seeds
    ]


@dataclass(frozen=True)
class _Reader:
    config: Config
    layout: Layout
    method: str
    seed: int

    def row(
        self,
        clean: Mapping[str, Any],
        optional: Mapping[str, Any],
        tags: Mapping[str, str],
        outputs: dict[str, str],
    ) -> Row:
        """`clean`: the method's entry in clean.json; `optional`: the other metrics files."""
        method, learned, weights = METHODS[self.method], self._learned(), self._weights()
        summary = read_json(self.layout.merged_summary(self.seed), "python -m stages.merge")
        merge = summary.get(self.method, {})
        options = {**merge.get("options", {}), **learned.options}
        metrics = self._clean(clean) | self._robust(optional.get("robustness", {}))
        metrics |= self._unseen(optional.get("generalization", {})) | learned.metrics
        if "seconds" in merge:
            metrics["merge/seconds"] = merge["seconds"]
        own = {
            "method": self.method,
            "seed": str(self.seed),
            "label_tuned": str(method.reads("labels")).lower(),
            "needs": ", ".join(sorted(method.needs)) or "weights only",
            **learned.tags,
            **output_holding(outputs, _relative(self.layout, weights)),
        }
        return Row(
            method=self.method,
            seed=self.seed,
            title=method.title + (f", seed {self.seed}" if self._several else ""),
            metrics={metric_name(name): float(value) for name, value in metrics.items()},
            params={name: str(value) for name, value in sorted(options.items())},
            tags={**tags, **own},
            curves=learned.curves,
            model=weights if weights.is_file() else None,
            data=self._data(),
            files=learned.files,
        )

    @property
    def _several(self) -> bool:
        return len(self.config.profile.seeds) > 1

    def _clean(self, entry: Mapping[str, Any]) -> dict[str, float]:
        """With several seeds the file holds means: the seed's own come from its predictions."""
        if not self._several:
            figures = {f"{name}/avg": entry[name] for name in FIGURES if name in entry}
            tasks = entry["tasks"]
        else:
            paths = {
                task: self.layout.predictions(self.seed, self.method, task)
                for task in self.config.profile.tasks
            }
            made_by = "python -m stages.evaluate"
            found = {
                task: measured(Predictions.load(path, made_by)) for task, path in paths.items()
            }
            tasks = {task: round(values["accuracy"], 2) for task, values in found.items()}
            figures = {
                f"{name}/avg": round(mean(values[name] for values in found.values()), 4)
                for name in FIGURES
                if all(name in values for values in found.values())
            }
        average = {"clean/avg": self._average(entry, "evaluate")}
        return average | {f"clean/{task}": value for task, value in tasks.items()} | figures

    def _robust(self, file: Mapping[str, Any]) -> dict[str, float]:
        found: dict[str, float] = {}
        for section, name in (("clean", "robust"), ("adapted", "robust_adapted")):
            if entry := file.get(section, {}).get(self.method):
                found[f"{name}/avg"] = self._average(entry, "robustness")
                if not self._several:
                    for corruption, severities in entry["corruptions"].items():
                        for severity, value in severities.items():
                            found[f"{name}/{corruption}/{severity}"] = value
        return found

    def _unseen(self, file: Mapping[str, Any]) -> dict[str, float]:
        entries = {
            split: methods[self.method] for split, methods in file.items() if self.method in methods
        }
        if self._several or not entries:
            return {}
        found: dict[str, float] = {}
        for group in ("seen", "unseen"):
            found |= {f"{group}/{split}": entry[group] for split, entry in entries.items()}
            found[f"{group}/avg"] = round(mean(entry[group] for entry in entries.values()), 2)
        return found

    def _average(self, entry: Mapping[str, Any], stage: str) -> float:
        try:
            return float(entry["seeds"][str(self.seed)])
        except KeyError:
            raise UserError(
                f"The metrics of {self.config.name} have no figures of {self.method} for seed "
                f"{self.seed}. Run 'python -m stages.{stage}' again."
            ) from None

    def _learned(self) -> "_Learned":
        if not METHODS[self.method].learns:
            return _Learned()
        path = self.layout.coefficients(self.seed, self.method)
        facts, arrays = _read_coefficients(path)
        metrics = {"coefficient/mean": float(arrays["values"].mean())}
        if "seconds" in facts:
            metrics["learn/seconds"] = facts["seconds"]
        heatmap = self.layout.report / "coefficients.png"  # of all layer-wise methods
        drawn = len(arrays["values"]) > 1 and heatmap.is_file()
        return _Learned(
            options={name: facts[name] for name in LEARNING if name in facts},
            metrics=metrics,
            tags={"coefficients.sha256": sha256(path)},
            curves=_curves(facts["tasks"], arrays),
            files=(path, heatmap) if drawn else (path,),
        )

    def _weights(self) -> Path:
        """The merged model; a folder where every task has its own."""
        if self.method == "experts":
            return self.layout.expert(self.seed, self.config.profile.tasks[0]).parent
        return self.layout.merged(self.seed, self.method)

    def _data(self) -> tuple[str, str] | None:
        # Images take part in no figure of a row: DVC need not have fetched them.
        paths = [self.layout.splits(self.seed, task) for task in self.config.profile.tasks]
        if not all(path.is_file() for path in paths):
            return None
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in paths))
        # MLflow takes 36 characters at most.
        return _relative(self.layout, paths[0].parent.parent), digest.hexdigest()[:32]


@dataclass(frozen=True)
class _Learned:
    """What the coefficients add to a row; nothing for methods without."""

    options: Mapping[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    curves: Mapping[str, np.ndarray] = field(default_factory=dict)
    files: tuple[Path, ...] = ()


def _read_coefficients(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Metadata and tensors of learned coefficients."""
    made_by = "python -m stages.learn"
    try:
        with safe_open(need(path, made_by), framework="numpy") as file:
            facts = {name: json.loads(text) for name, text in file.metadata().items()}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged ({error}). Run '{made_by}' again.") from None
    return facts, arrays


def _curves(tasks: list[str], history: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Entropies and mean coefficients by step; none where nothing was learned in steps."""
    if "history_entropy" not in history:
        return {}
    entropy, coefficients = history["history_entropy"], history["history_coefficients"]
    curves = {"entropy/sum": entropy.sum(axis=1)}
    for column, task in enumerate(tasks):
        curves[f"entropy/{task}"] = entropy[:, column]
        curves[f"coefficient/{task}"] = coefficients[:, column]
    return curves


def _relative(layout: Layout, path: Path) -> str:
    return path.relative_to(layout.root).as_posix()


def _measured_at(layout: Layout) -> dict[str, str]:
    """Commit and device of the evaluation, which may be older than this row."""
    path = layout.run("evaluate")
    record = read_json(path, "python -m stages.evaluate") if path.exists() else {}
    device = record.get("machine", {}).get("device")
    tags = {"device": device} if device else {}
    return tags | git_tags(record.get("git") or git_state(layout.root))
