"""Made-up artifacts of a profile, in the stages' formats, and a reader of the report's page."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from report_metrics import write_metrics
from safetensors.numpy import save_file

from pipeline.config import Config, load_config
from pipeline.data import save_array
from pipeline.evaluation import Predictions
from pipeline.files import write_json
from pipeline.layout import Layout
from pipeline.merging.methods import METHODS
from pipeline.report.content import STAGES

ROOT = Path(__file__).resolve().parents[1]
# Every method of eight tasks: SLERP takes two.
EVERY: dict[str, Any] = {
    "merge": {"methods": [m for m in METHODS if not METHODS[m].learns and m != "slerp"]},
    "learn": {"methods": [m for m in METHODS if METHODS[m].learns]},
}
_IN_BLOCK = ("ln_1", "attn.in_proj_", "attn.out_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")


def _layers(blocks: int) -> tuple[str, ...]:
    """Tensor names of an image tower of that many blocks."""
    return (
        "visual.class_embedding",
        "visual.positional_embedding",
        "visual.proj",
        "visual.conv1.weight",
        "visual.ln_pre.weight",
        "visual.ln_pre.bias",
        *(
            f"visual.transformer.resblocks.{block}.{name}{'' if name[-1] == '_' else '.'}{kind}"
            for block in range(blocks)
            for name in _IN_BLOCK
            for kind in ("weight", "bias")
        ),
        "visual.ln_post.weight",
        "visual.ln_post.bias",
    )


LAYERS = _layers(6)  # the miniature's


def write_config(root: Path, name: str = "mini", **changes: Any) -> Config:
    """A copy of the profile `name` below `root`; `changes` replace its keys."""
    profile = yaml.safe_load((ROOT / "profiles" / f"{name}.yaml").read_text())
    for key, value in changes.items():
        profile[key] = profile[key] | value if isinstance(value, dict) else value
    (root / "profiles").mkdir(parents=True, exist_ok=True)
    (root / "profiles" / f"{name}.yaml").write_text(yaml.safe_dump(profile, sort_keys=False))
    (root / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    return load_config(root, name)


def write_artifacts(config: Config, steps: int = 40, images: int = 120, side: int = 32) -> Layout:
    """Everything that the stages before the report write; the same for the same arguments.

    `images`: of a task, `side` pixels high and wide.
    """
    layout = Layout(config.root, config.name)
    rng = np.random.default_rng(1)
    clean = write_metrics(config, rng)
    for seed in config.profile.seeds:
        _vectors(config, layout, seed, rng)
        for method in config.profile.learn.methods:
            _coefficients(config, layout.coefficients(seed, method), method, steps, rng)
        for method in config.methods:
            for task in config.profile.tasks:
                share = clean[method]["tasks"][task] / 100
                label = np.random.default_rng([seed, len(task)]).integers(0, 6, images)
                _predictions(layout.predictions(seed, method, task), share, label, rng)
        for task in config.profile.tasks:
            pixels = rng.integers(0, 256, (images, 3, side, side), dtype=np.uint8)
            save_array(layout.images(seed, task, "eval"), pixels)
        seconds = {method: {"seconds": 0.5 + place} for place, method in enumerate(config.methods)}
        write_json(layout.merged_summary(seed), seconds)
    for place, stage in enumerate(STAGES):
        write_json(layout.run(stage), _run(stage, place))
    return layout


def _coefficients(
    config: Config, path: Path, method: str, steps: int, rng: np.random.Generator
) -> None:
    tasks = config.profile.tasks
    layers = ("*",) if "taskwise" in method or "tuned" in method else _tensors(config)
    depth = np.linspace(-0.6, 1, len(layers))[:, None]
    drift = rng.normal(0, 0.05, len(tasks)) + rng.normal(0, 0.03, (len(layers), len(tasks)))
    values = np.clip(0.3 + drift + (0.08 * depth if len(layers) > 1 else 0), 0, 1)
    arrays = {"values": values.astype(np.float32)}
    progress = np.linspace(0, 1, steps)[:, None]
    if method != "task_arithmetic_tuned":
        entropy = rng.uniform(0.8, 1.4, len(tasks)) * (1 - 0.4 * progress)
        entropy = entropy + rng.normal(0, 0.08, entropy.shape)
        arrays["history_entropy"] = entropy.astype(np.float32)
        arrays["history_loss"] = arrays["history_entropy"].sum(1)
        arrays["history_coefficients"] = (0.3 + (values.mean(0) - 0.3) * progress).astype(
            np.float32
        )
    facts = {"tasks": tasks, "layers": layers, "steps": steps, "seconds": 41.5}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(arrays, path, {name: json.dumps(value) for name, value in facts.items()})


def _vectors(config: Config, layout: Layout, seed: int, rng: np.random.Generator) -> None:
    tasks = config.profile.tasks
    cosines = rng.uniform(-0.02, 0.18, (len(tasks), len(tasks)))
    cosines = (cosines + cosines.T) / 2
    np.fill_diagonal(cosines, 1)
    norms = {
        task: round(float(value), 4)
        for task, value in zip(tasks, rng.uniform(2, 4, len(tasks)), strict=True)
    }
    summary = {
        "tasks": tasks,
        "layers": _tensors(config),
        "norms": norms,
        "cosines": cosines.round(4).tolist(),
        "relative_norms": {task: round(norm / 30, 5) for task, norm in norms.items()},
    }
    write_json(layout.vectors_summary(seed), summary)


def _tensors(config: Config) -> tuple[str, ...]:
    """Those of the miniature, or of a ViT-B."""
    return LAYERS if config.profile.suite == "mini" else _layers(12)


def _predictions(path: Path, share: float, label: np.ndarray, rng: np.random.Generator) -> None:
    images = len(label)
    top = (label[:, None] + np.arange(5)) % 6
    wrong = rng.random(images) > share
    top[wrong] = (top[wrong] + 1) % 6
    p = rng.uniform(0.3, 0.9, images).astype(np.float32)
    index = np.arange(images, dtype=np.int32)
    Predictions(index, label, top.astype(np.int16), p, p, p, p).save(path)


def _run(stage: str, place: int) -> dict[str, Any]:
    return {
        "stage": stage,
        "started": f"2025-03-04T05:{place:02d}:07.123456+00:00",
        "seconds": [0.9, 131.4, 6.2, 262.0, 4.4, 14.8, 71.3, 118.6][place],
        "peak_gb": [0.2, 0.9, 0.6, 1.4, 0.6, 0.8, 0.9, 1.4][place],
        "machine": {
            "system": "Linux",
            "cpu": "Example CPU",
            "cores": 2,
            "device": "cpu",
            "python": "3.11.9",
            "torch": "2.15.0",
        },
        "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": place > 5},
    }


class Page(HTMLParser):
    """The parts of a page that the tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []  # what a browser would load
        self.tables: list[list[list[str]]] = []
        self.sections: list[str] = []
        self.images: list[str] = []  # alternative texts of drawings
        self.photos: list[str] = []  # and of pictures
        self.text = ""
        self._cell: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        names = {"src", "srcset", "data", "action", "xlink:href"} | (
            set() if tag == "a" else {"href"}
        )
        self.references += [value for name, value in values.items() if name in names]
        if tag == "img":
            self.photos.append(values["alt"])
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self._cell = ""
        elif tag == "section":
            self.sections.append(values["id"])
        elif values.get("role") == "img":
            self.images.append(values["aria-label"])

    def handle_endtag(self, tag: str) -> None:
        if tag in ("th", "td"):
            self.tables[-1][-1].append(" ".join((self._cell or "").split()))
            self._cell = None

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._cell is not None:
            self._cell += data
