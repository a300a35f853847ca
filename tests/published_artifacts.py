"""Profiles as the published figures were made, and metrics equal to those figures."""

import csv
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from report_artifacts import ROOT, write_config

from pipeline.config import Config
from pipeline.config.sections import Checkpoint, Experts
from pipeline.report.content import Content
from pipeline.tasks import get_task

OURS = {"finetuned": "experts", "average": "weight_average"}  # the data file's name -> ours
EXPERTS = {  # family -> where its published experts lie
    "hf": {"hub": "tanganke/clip-vit-base-patch32_{name}"},
    "original": {"hub": "JH-C-k/ViT-B-32", "file": "ViT-B-32_TA/{name}/finetuned.pt"},
    "tall_masks": {"hub": "nik-dim/tall_masks", "file": "ViT-B-32/{name}Val/finetuned.pt"},
}
ORIGINAL = {"checkpoint": {"family": "original"}}
AS_ORIGINAL = ORIGINAL | {"learn": {"steps": 500, "batches_per_task": 2, "clamp": True}}
MERGED = ("pretrained", "weight_average", "task_arithmetic", "ties", "experts")
LATER = ("tsv_m", "iso_c", "iso_cts", "wudi", "fisher", "regmean", "regmean_plus_plus", "emr")
Added = Mapping[tuple[str, str], float]  # (method, task) -> points
CARS, MNIST, EUROSAT, SVHN, RESISC45 = (
    get_task("mini", name).title for name in ("cars", "mnist", "eurosat", "svhn", "resisc45")
)


def write_published_config(root: Path, **changes: Any) -> Config:
    """A profile as its published figures were made: family `hf`, ViT-B-32, the eight tasks.

    `changes`: as of `write_config`, and `checkpoint`: other keys of that section, and `experts`:
    where they come from, if not from the family's published collection.
    """
    learn = {
        "methods": ["adamerging_taskwise", "adamerging_layerwise", "adamerging_layerwise_pp"],
        "schedule": "paper",
        "steps": 1000,
        "clamp": False,
    }
    checkpoint = {"family": "hf", "hub": "openai/clip-vit-base-patch32"} | changes.pop(
        "checkpoint", {}
    )
    experts = changes.pop("experts", EXPERTS.get(checkpoint["family"], {}))
    changes["learn"] = learn | changes.get("learn", {})
    changes["merge"] = {"methods": [*MERGED], "options": {}} | changes.get("merge", {})
    config = write_config(root, **{"protocol": "transductive"} | changes)
    sources = {"checkpoint": Checkpoint(**checkpoint), "experts": Experts(**experts)}
    profile = config.profile.model_copy(update=sources)
    return config.model_copy(update={"profile": profile})


def read_file() -> list[dict[str, str]]:
    """The data file's rows."""
    path = ROOT / "pipeline" / "report" / "published.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def figures(family: str, backbone: str = "ViT-B-32", table: str = "clean") -> dict[str, Any]:
    """Our method -> our task -> what is printed, read without the module under test."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for row in read_file():
        if (row["table"], row["checkpoint_family"], row["backbone"]) == (table, family, backbone):
            method = OURS.get(row["method"], row["method"])
            found[method][row["task"].lower()] = float(row["accuracy_percent"])
    return found


def clean_of(config: Config, added: Added | None = None) -> dict[str, Any]:
    """Clean metrics equal to the published ones, but for what is `added` to them."""
    known = figures(config.profile.checkpoint.family)
    clean = {}
    for method in config.methods:
        printed = known.get(method, {})
        tasks = {
            task: printed.get(task, 50.0) + (added or {}).get((method, task), 0.0)
            for task in config.profile.tasks
        }
        clean[method] = {
            "tasks": tasks,
            "avg": sum(tasks.values()) / len(tasks),
            "normalized": 90.0,
            "ece": 5.0,
        }
    return clean


def content_of(config: Config, added: Added | None = None) -> Content:
    """Content of such metrics alone."""
    return Content(config, clean_of(config, added))


def splits_of(config: Config) -> dict[str, Any]:
    """Metrics of the paper's splits, equal to the published ones."""
    generalization = {}
    for number, (name, split) in enumerate(config.profile.generalization.splits.items(), start=1):
        seen = figures("hf", table=f"generalization_{number}_seen")
        unseen = figures("hf", table=f"generalization_{number}_unseen")
        generalization[name] = {
            method: {
                "seen": sum(seen[method].values()) / len(split.seen),
                "unseen": sum(unseen[method].values()) / len(split.unseen),
                "tasks": {**seen[method], **unseen[method]},
            }
            for method in config.profile.generalization.methods
            if method in seen
        }
    return generalization
