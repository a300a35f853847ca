"""A project folder with drawn artifacts, as the stages before tracking leave them."""

import hashlib
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save_file

from pipeline.config import Config, load_config
from pipeline.evaluation import Predictions
from pipeline.files import write_json, write_text
from pipeline.layout import Layout
from pipeline.tracking import tracking_uri

ROOT = Path(__file__).parents[2]
TASKS = ["svhn", "dtd"]
CORRUPTIONS = ["contrast", "pixelate"]
STEPS = 250
METHODS = [
    "pretrained",
    "task_arithmetic",
    "task_arithmetic_tuned",
    "adamerging_layerwise",
    "experts",
]


@dataclass(frozen=True)
class Project:
    """A project folder, and what its store holds."""

    root: Path
    config: Config
    layout: Layout

    @property
    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri(self.root))

    @property
    def experiment_id(self) -> str:
        return str(self.client.get_experiment_by_name("adamerge").experiment_id)

    def runs(self, filter_string: str = "") -> list[Any]:
        return list(self.client.search_runs([self.experiment_id], filter_string))

    def row(self, method: str, seed: int = 0) -> Any:
        """The latest row."""
        where = f"tags.method = '{method}' and tags.seed = '{seed}' and tags.latest = 'true'"
        [row] = self.runs(where)
        return row


def make_project(root: Path, seeds: tuple[int, ...] = (0,)) -> Project:
    """Write a small profile and its artifacts."""
    profile = yaml.safe_load((ROOT / "profiles" / "mini.yaml").read_text(encoding="utf-8"))
    profile["tasks"], profile["seeds"] = TASKS, list(seeds)
    profile["learn"] |= {"methods": ["adamerging_layerwise", "task_arithmetic_tuned"]}
    profile["merge"] |= {"methods": ["pretrained", "task_arithmetic", "experts"]}
    profile["robustness"] |= {"tasks": TASKS, "corruptions": CORRUPTIONS}
    profile["generalization"] |= {
        "methods": ["task_arithmetic"],
        "splits": {"unseen_dtd": {"seen": ["svhn"], "unseen": ["dtd"]}},
    }
    write_text(root / "params.yaml", "profile: mini\ndevice: cpu\n")
    write_text(root / "profiles" / "mini.yaml", yaml.safe_dump(profile))
    config = load_config(root)
    layout = Layout(root, "mini")
    for seed in seeds:
        write_seed(layout, seed)
    write_metrics(layout, seeds)
    return Project(root, config, layout)


def write_seed(layout: Layout, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for task in TASKS:
        write_json(layout.splits(seed, task), splits(f"{task} {seed}"))
    for method in METHODS:
        for task in TASKS:
            layout.predictions(seed, method, task).parent.mkdir(parents=True, exist_ok=True)
            made_predictions(rng).save(layout.predictions(seed, method, task))
        if method != "experts":
            layout.merged(seed, method).parent.mkdir(parents=True, exist_ok=True)
            layout.merged(seed, method).write_bytes(b"weights")
    summary = {m: {"seconds": 0.5, "label_tuned": False, "options": {}} for m in METHODS}
    summary["task_arithmetic"]["options"] = {"coefficient": 0.3}
    write_json(layout.merged_summary(seed), summary)
    facts = {"tasks": TASKS, "layers": ["a", "b", "c"], "seconds": 12.5}
    facts |= {"granularity": "layer", "steps": STEPS, "batch": 16, "lr": 1e-3, "initial": 0.3}
    arrays = {
        "values": rng.random((3, 2), np.float32),
        "history_loss": rng.random(STEPS, np.float32),
        "history_entropy": rng.random((STEPS, 2), np.float32),
        "history_coefficients": rng.random((STEPS, 2), np.float32),
    }
    write_coefficients(layout.coefficients(seed, "adamerging_layerwise"), arrays, facts)
    tuned = {"tasks": TASKS, "layers": ["*"], "accuracy_on_select": {"0.3": 61.0}}
    values = {"values": np.full((1, 2), 0.3, np.float32)}
    write_coefficients(layout.coefficients(seed, "task_arithmetic_tuned"), values, tuned)


def splits(content: str) -> dict[str, Any]:
    """A record of splits whose pixels are those of `content`."""
    return {
        split: {
            "images": images,
            "sha256": hashlib.sha256(f"{content} {split}".encode()).hexdigest(),
        }
        for split, images in (("train", 60), ("adapt", 40), ("select", 10), ("eval", 50))
    }


def write_coefficients(path: Path, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(arrays, path, {name: json.dumps(value) for name, value in facts.items()})


def made_predictions(rng: np.random.Generator) -> Predictions:
    top = rng.integers(0, 4, (20, 4)).astype(np.int16)
    p = rng.random((4, 20)).astype(np.float32)
    return Predictions(np.arange(20, dtype=np.int32), rng.integers(0, 4, 20), top, *p)


def write_metrics(layout: Layout, seeds: tuple[int, ...], average: float = 61.5) -> None:
    by_seed = {str(seed): average + seed for seed in seeds}
    clean = {
        "avg": average,
        "ece": 4.2,
        "nll": 1.234,
        "seeds": by_seed,
        "tasks": {"svhn": 60.0, "dtd": 63.0},
    }
    write_json(layout.metric("clean"), dict.fromkeys(METHODS, clean))
    severities = {"1": 50.0, "3": 40.0, "5": 30.0}
    robust = {"avg": 40.0, "seeds": by_seed, "corruptions": dict.fromkeys(CORRUPTIONS, severities)}
    adapted = robust | {"corruptions": {name: {"3": 45.0} for name in CORRUPTIONS}}
    sections = {"clean": dict.fromkeys(METHODS, robust)}
    sections["adapted"] = {"adamerging_layerwise": adapted}
    write_json(layout.metric("robustness"), sections)
    split = {"seen": 70.0, "unseen": 50.0, "tasks": {}}
    write_json(layout.metric("generalization"), {"unseen_dtd": {"task_arithmetic": split}})


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
