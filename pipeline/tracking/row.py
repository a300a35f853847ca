"""What one method achieved under one seed, read from the artifacts."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.evaluation import Predictions, measured
from pipeline.files import read_json, sha256
from pipeline.layout import Layout
from pipeline.merging.methods import METHODS
from pipeline.tracking.datasets import Images, images_read
from pipeline.tracking.learned import Learned, read_learned
from pipeline.tracking.provenance import (
    dvc_outputs,
    experiment_tag,
    git_state,
    git_tags,
    inputs_hash,
    output_holding,
)
from pipeline.tracking.store import configuration_key, configuration_tags, metric_name

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
    weights: str  # path of the merged weights below the root: a file, or a folder of several
    one_file: bool  # whether one file holds them, and is there
    images: tuple[Images, ...]
    learned: Learned | None

    @property
    def digest(self) -> str:
        """SHA-256 of everything measured: the same digest means the same results."""
        kept = [self.tags.get(name) for name in ("pipeline.key", "coefficients.sha256")]
        images = [used.digest for used in self.images]
        # A row that was written without the weights is written anew once they are there.
        found = [self.metrics, self.params, kept, images, self.one_file]
        facts = json.dumps(found, sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()


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
        **experiment_tag(),
    }
    if inputs := inputs_hash(layout.root, "report", config.name):
        tags["dvc.lock.md5"] = inputs
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
        method, weights, learned = METHODS[self.method], self._weights(), None
        if method.learns:
            learned = read_learned(self.layout.coefficients(self.seed, self.method))
        summary = read_json(self.layout.merged_summary(self.seed), "python -m stages.merge")
        merge = summary.get(self.method, {})
        metrics = self._clean(clean) | self._robust(optional.get("robustness", {}))
        metrics |= self._unseen(optional.get("generalization", {}))
        if "seconds" in merge:
            metrics["merge/seconds"] = merge["seconds"]
        own = {
            "method": self.method,
            "seed": str(self.seed),
            "label_tuned": str(method.reads("labels")).lower(),
            "needs": ", ".join(sorted(method.needs)) or "weights only",
            **output_holding(outputs, _relative(self.layout, weights)),
        }
        options = dict(merge.get("options", {}))
        if learned:
            options |= {name: learned.facts[name] for name in LEARNING if name in learned.facts}
            metrics["coefficient/mean"] = float(learned.values.mean())
            if "seconds" in learned.facts:
                metrics["learn/seconds"] = learned.facts["seconds"]
            own["coefficients.sha256"] = sha256(learned.path)
        return Row(
            method=self.method,
            seed=self.seed,
            title=f"{method.title}, {self.config.name}, seed {self.seed}",
            metrics={metric_name(name): float(value) for name, value in metrics.items()},
            params={name: str(value) for name, value in sorted(options.items())},
            tags={**tags, **own},
            weights=_relative(self.layout, weights),
            one_file=weights.is_file(),
            images=images_read(self.config, self.layout, self.method, self.seed),
            learned=learned,
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

    def _weights(self) -> Path:
        """The merged model; a folder where every task has its own."""
        if self.method == "experts":
            return self.layout.expert(self.seed, self.config.profile.tasks[0]).parent
        return self.layout.merged(self.seed, self.method)


def _relative(layout: Layout, path: Path) -> str:
    return path.relative_to(layout.root).as_posix()


def _measured_at(layout: Layout) -> dict[str, str]:
    """Commit, device and time of the evaluation, which may be older than this row."""
    path = layout.run("evaluate")
    record = read_json(path, "python -m stages.evaluate") if path.exists() else {}
    facts = {"device": record.get("machine", {}).get("device"), "measured": record.get("started")}
    tags = {name: value for name, value in facts.items() if value}
    return tags | git_tags(record.get("git") or git_state(layout.root))
