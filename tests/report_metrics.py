"""Made-up metrics of a profile, in the formats of metrics/<profile>/."""

from itertools import combinations
from typing import Any

import numpy as np

from pipeline.config import Config
from pipeline.files import write_json
from pipeline.layout import Layout
from pipeline.merging.methods import METHODS

AVERAGES = {
    "pretrained": 57.7,
    "weight_average": 64.6,
    "task_arithmetic": 65.4,
    "task_arithmetic_tuned": 67.6,
    "ties": 65.6,
    "dare": 65.2,
    "dare_ties": 65.0,
    "breadcrumbs": 65.9,
    "magmax": 62.8,
    "consensus_ta": 66.4,
    "pcb": 66.9,
    "lines": 67.1,
    "model_stock": 63.3,
    "slerp": 64.0,
    "tsv_m": 69.0,
    "iso_c": 68.5,
    "iso_cts": 68.9,
    "wudi": 69.2,
    "awd": 66.0,
    "fisher": 65.1,
    "regmean": 67.9,
    "regmean_plus_plus": 68.3,
    "adamerging_taskwise": 67.2,
    "adamerging_taskwise_pp": 67.5,
    "adamerging_blockwise": 68.8,
    "adamerging_layerwise": 69.4,
    "adamerging_layerwise_pp": 70.1,
    "adamerging_layerwise_awd": 69.9,
    "tall_mask": 88.4,
    "emr": 86.2,
    "experts": 92.8,
}
NOT_BEST = ("labels", "task_identity")  # what a method that is held beside others does not need


def write_metrics(config: Config, rng: np.random.Generator) -> dict[str, Any]:
    """Write every file of metrics/<profile>/; returns what is in clean.json."""
    layout = Layout(config.root, config.name)
    clean = _clean(config, rng)
    write_json(layout.metric("clean"), clean)
    write_json(layout.metric("robustness"), _robustness(config, clean))
    write_json(layout.metric("generalization"), _generalization(config, clean))
    write_json(layout.metric("leave_two_out"), _leave_two_out(config))
    return clean


def _clean(config: Config, rng: np.random.Generator) -> dict[str, Any]:
    offsets = dict(
        zip(config.profile.tasks, rng.normal(0, 9, len(config.profile.tasks)), strict=True)
    )
    clean = {}
    for method in config.methods:
        spread = 0.2 if method == "experts" else 1.0
        tasks = {
            task: round(float(AVERAGES[method] + spread * offset + rng.normal(0, 2)), 2)
            for task, offset in offsets.items()
        }
        average = round(float(np.mean(list(tasks.values()))), 2)
        ece = round(float(rng.uniform(3, 14)), 2)
        clean[method] = {
            "avg": average,
            "avg_interval": [round(average - 0.9, 2), round(average + 0.9, 2)],
            "avg_sd": 0.61 if len(config.profile.seeds) > 1 else 0.0,
            "worst": min(tasks.values()),
            "normalized": round(average / AVERAGES["experts"] * 100, 2),
            "ece": ece,
            "ece_mass": round(ece - 0.31, 2),
            "nll": 1.1,
            "brier": 0.4321,
            "entropy": 0.7,
            "joint": round(average - 20.5, 2),
            "joint_same_words": round(average - 12.25, 2),
            "seeds": {str(seed): average for seed in config.profile.seeds},
            "tasks": tasks,
        }
        if METHODS[method].reads("task_identity"):
            del clean[method]["joint"], clean[method]["joint_same_words"]
    compare(clean)
    return clean


def compare(clean: dict[str, Any]) -> None:
    """Hold every method beside task arithmetic and the best, as `evaluate` does."""
    single = [m for m in clean if m != "pretrained" and not METHODS[m].needs & {*NOT_BEST}]
    best = max(single, key=lambda method: clean[method]["avg"], default=None)
    for method, row in clean.items():
        others = [other for other in ("task_arithmetic", best) if other in clean]
        row["beside"] = {o: _beside(row, clean[o]) for o in others if o != method}


def _beside(row: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    difference = round(row["avg"] - other["avg"], 2)
    return {
        "difference": difference,
        "interval": [round(difference - 0.8, 2), round(difference + 0.8, 2)],
        "wins": sum(row["tasks"][task] > other["tasks"][task] for task in row["tasks"]),
        "tasks": len(row["tasks"]),
    }


def _robustness(config: Config, clean: dict[str, Any]) -> dict[str, Any]:
    settings = config.profile.robustness

    def figures(method: str, severities: tuple[int, ...], bonus: float) -> dict[str, Any]:
        start = float(np.mean([clean[method]["tasks"][task] for task in settings.tasks]))
        corruptions = {
            name: {str(s): round(start - (1.5 + 0.7 * k) * s + bonus, 2) for s in severities}
            for k, name in enumerate(settings.corruptions)
        }
        average = float(np.mean([list(by.values()) for by in corruptions.values()]))
        found: dict[str, Any] = {
            "avg": round(average, 2),
            "avg_sd": 0.0,
            "clean": round(start, 2),
            "relative_drop": round(100 * (start - average) / start, 2),
            "corruptions": corruptions,
            "tasks": {task: round(average, 2) for task in settings.tasks},
            "seeds": {str(seed): round(average, 2) for seed in config.profile.seeds},
        }
        if "pretrained" in config.methods:
            at = {s: round(140 - start + s - bonus, 2) for s in severities}
            found["error_ratio"] = {
                "mean": round(float(np.mean([*at.values()])), 2),
                "corruptions": {name: 90.0 + k for k, name in enumerate(settings.corruptions)},
                "severities": {str(s): value for s, value in at.items()},
            }
        return found

    at_one = (settings.adapted.severity,)
    return {
        "clean": {m: figures(m, settings.severities, 0.0) for m in config.methods},
        "adapted": {m: figures(m, at_one, 2.5) for m in settings.adapted.methods},
        "conditions": {
            condition: {m: figures(m, at_one, 1.0 - place) for m in settings.adapted.methods}
            for place, condition in enumerate(settings.adapted.conditions)
            if condition != "each"
        },
    }


def _generalization(config: Config, clean: dict[str, Any]) -> dict[str, Any]:
    settings = config.profile.generalization

    def figures(method: str, seen: tuple[str, ...], unseen: tuple[str, ...]) -> dict[str, Any]:
        tasks = {task: AVERAGES[method] + 1.5 for task in seen}
        gap = round(len(method) / 7 - 2, 2) if method != "pretrained" else 0.0
        tasks |= {task: clean["pretrained"]["tasks"][task] + gap for task in unseen}
        tasks = {task: round(value, 2) for task, value in tasks.items()}
        means = {
            "seen": np.mean([tasks[t] for t in seen]),
            "unseen": np.mean([tasks[t] for t in unseen]),
        }
        means = {part: round(float(value), 2) for part, value in means.items()}
        return {**means, "seen_sd": 0.0, "unseen_sd": 0.0, **_gap(method, gap), "tasks": tasks}

    return {
        name: {m: figures(m, split.seen, split.unseen) for m in settings.methods}
        for name, split in settings.splits.items()
    }


def _gap(method: str, gap: float) -> dict[str, Any]:
    half = 0.0 if method == "pretrained" else 0.6
    interval = [round(gap - half, 2), round(gap + half, 2)]
    return {"gap": gap, "gap_sd": 0.0, "gap_interval": interval}


def _leave_two_out(config: Config) -> dict[str, Any]:
    """{} where the profile does not ask for it."""
    tasks, asked = config.profile.tasks, config.profile.generalization
    pairs = ["+".join(pair) for pair in combinations(tasks, 2)]

    def figures(method: str) -> dict[str, Any]:
        gap = round(len(method) / 7 - 2, 2) if method != "pretrained" else 0.0
        unseen = round(AVERAGES["pretrained"] + gap, 2)
        own = {task: round(gap + place - 3, 2) for place, task in enumerate(tasks)}
        return {
            "seen": AVERAGES[method],
            "seen_sd": 0.0,
            "unseen": unseen,
            "unseen_sd": 0.0,
            **_gap(method, gap),
            "pairs": len(pairs),
            "pairs_above_zero": len(pairs) // 3 if gap > 0 else 0,
            "tasks": {task: {"unseen": unseen, "gap": own[task]} for task in tasks},
        }

    return {m: figures(m) for m in asked.methods} if asked.leave_two_out else {}
