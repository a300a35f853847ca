"""Classify every task's `eval` images with every merged model; accuracy and calibration.

python -m stages.evaluate
torchrun --nproc-per-node 8 -m stages.evaluate

Labels of `eval` choose nothing that is measured here. They do name the best model that others are
held beside, and the best of several looks a little better than it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import typer

from pipeline.merging.methods import METHODS
from stages._inputs import images_count, maker, weights_of, weights_path
from stages._stage import DryRunOption, ProfileOption, Stage, stage

if TYPE_CHECKING:
    from pipeline.evaluation import Predictions
    from pipeline.joint import Joint

MADE_BY = "python -m stages.evaluate"
# What every method is held beside, and the best of all.
COMPARED = ("task_arithmetic", "task_arithmetic_tuned", "adamerging_layerwise")
DIGITS = {
    **{"ece": 2, "ece_mass": 2, "nll": 4, "brier": 4, "entropy": 4},
    **{"joint": 2, "joint_same_words": 2},
}


def main(profile: ProfileOption = None, dry_run: DryRunOption = False) -> None:
    """Evaluate every method on clean images."""
    with stage("evaluate", profile, dry_run) as run:
        check_inputs(run)
        config = run.config.profile
        total = sum(images_count(run, config.seeds[0], task, "eval") for task in config.tasks)
        run.plan(
            f"{len(run.config.methods)} methods x {total:,} images of {len(config.tasks)} tasks",
            parallel=True,
        )
        predict_all(run)
        run.group.barrier()
        if run.group.first:
            from pipeline.files import write_json

            metrics = summarise(run)
            write_json(run.layout.metric("clean"), metrics)
            run.result = ", ".join(f"{name} {row['avg']:.1f} %" for name, row in metrics.items())


def check_inputs(run: Stage) -> None:
    """Raise `MissingInput` unless everything that will be read is there."""
    config, layout = run.config.profile, run.layout
    run.needs("fetch", [layout.pretrained, layout.tasks])
    run.needs_data("eval", config.tasks)
    run.needs("experts", (layout.head(task) for task in config.tasks))
    for seed in config.seeds:
        run.needs("fetch", (layout.splits(seed, task) for task in config.tasks))
        for method in run.config.methods:
            paths = (weights_path(run, seed, method, task) for task in config.tasks)
            run.needs(maker(method), paths)


def predict_all(run: Stage) -> None:
    """Write the predictions that are this process's share."""
    from stages._inputs import images_of

    config, predictor = run.config.profile, _Predictor(run)
    jobs = [(s, m, t) for s in config.seeds for m in run.config.methods for t in config.tasks]
    sizes = {
        (seed, task): len(images)
        for seed in config.seeds
        for task, images in images_of(run, seed, config.tasks, "eval").items()
    }
    # Tasks with many images first: what is left to share at the end is small.
    jobs.sort(key=lambda job: sizes[job[0], job[2]], reverse=True)
    mine = run.group.share(jobs)
    with run.progress("evaluating", len(mine)) as update:
        for done, (seed, method, task) in enumerate(mine, start=1):
            predictor.predict(seed, method, task)
            update(done, f"{method} {task}")


class _Predictor:
    """The encoder and the heads of all tasks, at hand for one model after the other."""

    def __init__(self, run: Stage) -> None:
        from pipeline.tasks.words import read_words
        from stages._inputs import encoder_of, heads_of

        tasks = run.config.profile.tasks
        self.run = run
        self.encoder, self.scale = encoder_of(run)
        self.heads = heads_of(run, tasks)
        self.words = read_words(run.layout.tasks, tasks, "python -m stages.fetch")

    @cached_property
    def joint(self) -> dict[str, "Joint"]:
        """task -> the classes of all tasks as it sees them."""
        from pipeline.joint import joint_heads

        return joint_heads(self.words, self.heads)

    def predict(self, seed: int, method: str, task: str) -> None:
        """Write predictions/<method>/<task>.npz, from the cache if nothing it rests on changed.

        Methods with a model per task cannot be used without the task's identity: their
        predictions have no joint figures.
        """
        from pipeline.predictions import predict
        from stages._inputs import images_of, labels_of

        run = self.run

        def make(path: Path) -> None:
            source = weights_path(run, seed, method, task)
            self.encoder.load(weights_of(run, seed, method, task), str(source))
            predict(
                self.encoder,
                self.heads[task],
                self.scale,
                images_of(run, seed, [task], "eval")[task],
                labels_of(run, seed, [task], "eval")[task],
                None if METHODS[method].reads("task_identity") else self.joint[task],
            ).save(path)

        inputs = self.inputs(seed, method, task)
        entry = run.cache.entry("predictions", "pipeline.predictions", inputs, ".npz")
        run.cache.fetch(entry, run.layout.predictions(seed, method, task), make)

    def inputs(self, seed: int, method: str, task: str) -> dict[str, Any]:
        """What the predictions rest on, for the cache."""
        from pipeline.sources import fingerprint

        layout, row = self.run.layout, METHODS[method]
        inputs = {
            "pretrained": layout.pretrained,
            "weights": weights_path(self.run, seed, method, task),
            "head": layout.head(task),
            "images": layout.images(seed, task, "eval"),
            "labels": layout.labels(seed, task, "eval"),
            "precision": self.run.precision(),
        }
        if row.masked:  # the file holds the masks of all tasks
            return inputs | {"task": task, "unmasked_by": fingerprint("pipeline.masked")}
        if row.reads("task_identity"):
            return inputs
        union = [(name, layout.head(name), asdict(said)) for name, said in self.words.items()]
        return inputs | {"task": task, "union": union, "joint_by": fingerprint("pipeline.joint")}


def summarise(run: Stage) -> dict[str, Any]:
    """metrics/<profile>/clean.json: means over seeds, in percent."""
    from pipeline.statistics import resample
    from stages._inputs import image_numbers

    tasks = run.config.profile.tasks
    found = {m: {task: load(run, m, task) for task in tasks} for m in run.config.methods}
    correct = {
        method: {task: [one.correct for one in seeds] for task, seeds in own.items()}
        for method, own in found.items()
    }
    sizes = {task: [len(one.label) for one in next(iter(found.values()))[task]] for task in tasks}
    resampled = resample(correct, {task: image_numbers(run, task, sizes[task]) for task in tasks})
    values = {m: {task: measure(own[task]) for task in tasks} for m, own in found.items()}
    rows = {m: _row(run, own, values.get("experts")) for m, own in values.items()}
    beside = [other for other in dict.fromkeys((*COMPARED, best_of(rows))) if other in rows]
    for method, row in rows.items():
        row["avg_interval"] = resampled.interval(method).rounded()
        row["beside"] = {
            other: resampled.compare(method, other).rounded() for other in beside if other != method
        }
    return rows


def load(run: Stage, method: str, task: str) -> list["Predictions"]:
    """For every seed what a method predicted on a task."""
    from pipeline.evaluation import Predictions

    seeds = run.config.profile.seeds
    return [Predictions.load(run.layout.predictions(s, method, task), MADE_BY) for s in seeds]


def best_of(rows: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The single merged model with the highest average that needed no label, as in the report."""
    single = [
        method
        for method in rows
        if method != "pretrained"
        and not METHODS[method].reads("labels")
        and not METHODS[method].reads("task_identity")
    ]
    return max(single, key=lambda method: rows[method]["avg"], default=None)


def measure(seeds: Sequence["Predictions"]) -> dict[str, list[float]]:
    """Metric -> its value for each seed, of one method on one task; joint ones if it has them."""
    from pipeline.evaluation import measured

    found = [measured(one) for one in seeds]
    return {name: [of_seed[name] for of_seed in found] for name in found[0]}


def _row(run: Stage, tasks: dict[str, Any], experts: dict[str, Any] | None) -> dict[str, Any]:
    """One method's row from its metrics by task."""
    seeds = run.config.profile.seeds
    by_seed = [mean(t["accuracy"][k] for t in tasks.values()) for k in range(len(seeds))]
    accuracies = {task: mean(values["accuracy"]) for task, values in tasks.items()}
    row: dict[str, Any] = {
        "avg": round(mean(by_seed), 2),
        "avg_sd": round(stdev(by_seed), 2) if len(by_seed) > 1 else 0.0,
        "worst": round(min(accuracies.values()), 2),
    }
    if experts and all(any(experts[task]["accuracy"]) for task in tasks):
        shares = [accuracies[task] / mean(experts[task]["accuracy"]) for task in tasks]
        row["normalized"] = round(100 * mean(shares), 2)
    for name, digits in DIGITS.items():
        if all(name in values for values in tasks.values()):
            row[name] = round(mean(mean(values[name]) for values in tasks.values()), digits)
    row["seeds"] = {str(s): round(v, 2) for s, v in zip(seeds, by_seed, strict=True)}
    row["tasks"] = {task: round(value, 2) for task, value in accuracies.items()}
    return row


if __name__ == "__main__":
    typer.run(main)
