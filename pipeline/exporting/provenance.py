"""Where an exported model comes from, as its folder says it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.exported import MADE_BY
from pipeline.exporting.accuracy import Accuracy, Figure
from pipeline.files import read_json, sha256
from pipeline.layout import Layout
from pipeline.merging.methods import METHODS


def provenance_of(
    config: Config,
    layout: Layout,
    method: str,
    seed: int,
    form: str,
    weights: Path,
    git: Mapping[str, Any],
    accuracy: Accuracy | None,
) -> dict[str, Any]:
    """The facts of provenance.json; docs/using-the-model.md lists them.

    `weights`: the file that was written; `git`: commit and dirtiness of the project now.
    """
    learned = layout.coefficients(seed, method)
    return {
        "written_by": MADE_BY,
        "format": form,
        "profile": config.name,
        "method": method,
        "title": METHODS[method].title,
        "paper": METHODS[method].paper,
        "seed": seed,
        "protocol": config.profile.protocol,
        "label_tuned": METHODS[method].reads("labels"),
        "git": merged_at(layout) or _commit(git),
        "exported_at": _commit(git),
        "checkpoint": checkpoint_of(config, layout),
        "experts": experts_of(layout),
        "coefficients": _hash(learned) if METHODS[method].learns and learned.exists() else None,
        "merged": _hash(layout.merged(seed, method)),
        "weights": {"file": weights.name, **_hash(weights), "bytes": weights.stat().st_size},
        "accuracy": None if accuracy is None else _accuracy(accuracy),
    }


def merged_at(layout: Layout) -> dict[str, Any]:
    """Commit and dirtiness of the project when it merged, as the stage recorded it; {} if not."""
    path = layout.run("merge")
    record = read_json(path, "python -m stages.merge") if path.exists() else {}
    return _commit(record["git"]) if record.get("git") else {}


def _commit(git: Mapping[str, Any]) -> dict[str, Any]:
    return {"commit": git.get("commit"), "dirty": git.get("dirty")}


def checkpoint_of(config: Config, layout: Layout) -> dict[str, Any]:
    """Family, source and hash of the pretrained model; what is not known is None."""
    asked, found = config.profile.checkpoint, _sources(layout).get("pretrained", {})
    source = found.get("source") or asked.hub or asked.path
    return {
        "family": asked.family,
        "source": source,
        "hub": asked.hub,
        "revision": found.get("commit") or (asked.revision if asked.hub else None),
        "sha256": found.get("sha256") or asked.sha256,
    }


def experts_of(layout: Layout) -> dict[str, Any]:
    """task -> where its expert was fetched from; nothing of those that were fine-tuned here."""
    return dict(_sources(layout).get("experts", {}))


def _sources(layout: Layout) -> dict[str, Any]:
    return read_json(layout.sources, "python -m stages.fetch") if layout.sources.exists() else {}


def _hash(path: Path) -> dict[str, str]:
    return {"sha256": sha256(path)}


def _accuracy(accuracy: Accuracy) -> dict[str, Any]:
    return {
        "unit": "percent of the eval images; intervals of 95 %",
        "seeds": list(accuracy.seeds),
        "average": _figure(accuracy.average),
        "tasks": {task: _figure(figure) for task, figure in accuracy.tasks.items()},
    }


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "value": round(figure.value, 2),
        "interval": figure.interval.rounded() if figure.interval else None,
        "images": figure.images,
    }
