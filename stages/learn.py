"""Learn merging coefficients from images: AdaMerging, and the label-tuned baseline.

    python -m stages.learn

Killed, it goes on where it was when it is run again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from stages._stage import DryRunOption, ProfileOption, Stage, say, stage

if TYPE_CHECKING:
    from pipeline.learning import Coefficients, FitData, LearningOptions, Progress
    from pipeline.vectors import TaskVectors


def main(profile: ProfileOption = None, dry_run: DryRunOption = False) -> None:
    """Learn merging coefficients from unlabeled images."""
    with stage("learn", profile, dry_run) as run:
        from pipeline.merging.methods import METHODS

        config, layout = run.config.profile, run.layout
        split = "adapt" if config.protocol == "inductive" else "eval"
        run.needs("fetch", [layout.pretrained])
        run.needs_data(split, config.tasks)
        if any(METHODS[method].reads("labels") for method in config.learn.methods):
            run.needs_data("select", config.tasks)
        run.needs("experts", (layout.head(task) for task in config.tasks))
        for seed in config.seeds:
            run.needs("vectors", (layout.vector(seed, task) for task in config.tasks))
        jobs = [(seed, method) for seed in config.seeds for method in config.learn.methods]
        run.plan(
            f"{len(jobs)} sets of coefficients, {config.learn.steps} steps x "
            f"{len(config.tasks)} tasks x {config.learn.batch} images of '{split}'"
        )
        hits = sum(learn(run, seed, method) for seed, method in jobs)
        write_metrics(run)
        run.result = f"{len(jobs) - hits} sets of coefficients learned, {hits} from the cache"


def learn(run: Stage, seed: int, method: str) -> bool:
    """Learn the coefficients of one method, or find them in the cache (then True)."""
    from pipeline.learning import save_coefficients
    from pipeline.merging.methods import METHODS

    config, layout = run.config.profile, run.layout
    labelled = METHODS[method].reads("labels")
    split = "select" if labelled else "adapt" if config.protocol == "inductive" else "eval"
    inputs = {
        "pretrained": layout.pretrained,
        "vectors": [layout.vector(seed, task) for task in config.tasks],
        "heads": [layout.head(task) for task in config.tasks],
        "images": [layout.images(seed, task, split) for task in config.tasks],
        "labels": [layout.labels(seed, t, split) for t in config.tasks] if labelled else [],
        "options": config.learn.model_dump(exclude={"methods"}),
        "defaults": dict(METHODS[method].defaults),
        "keep": config.merge.keep,
        "tasks": config.tasks,
        "seed": seed,
    }
    made_by = "pipeline.learning.selection" if labelled else "pipeline.learning.loop"
    entry = run.cache.entry("coefficients", made_by, inputs, ".safetensors")

    def make(path: Path) -> None:
        state = path.with_name(f"{path.stem}.state.safetensors")
        learned = tune(run, seed) if labelled else adapt(run, seed, method, state)
        save_coefficients(path, learned)

    return run.cache.fetch(entry, layout.coefficients(seed, method), make)


def tune(run: Stage, seed: int) -> "Coefficients":
    """One coefficient for all tasks, the one that labels of `select` prefer."""
    from dataclasses import replace

    from pipeline.learning import select_coefficient
    from stages._inputs import images_of, labels_of, vectors_of

    tasks = run.config.profile.tasks
    data = replace(
        fit_data_of(run, seed, tasks),
        images=images_of(run, seed, tasks, "select"),
        labels=labels_of(run, seed, tasks, "select"),
    )
    return select_coefficient(vectors_of(run, seed, tasks), data, run.config.profile.learn.grid)


def adapt(run: Stage, seed: int, method: str, state: Path) -> "Coefficients":
    """AdaMerging of one variant."""
    from pipeline.learning import learn_coefficients
    from stages._inputs import vectors_of

    config = run.config.profile
    vectors = processed(run, method, vectors_of(run, seed, config.tasks))
    options = options_of(run, method)
    if state.exists():
        say(f"  {method}: resuming a run that was interrupted")
    with run.progress(f"{method} (seed {seed})", options.steps) as update:

        def on_step(progress: "Progress") -> None:
            total = sum(progress.entropies.values())
            speed = f"{progress.images_per_second:.0f} images/s"
            update(progress.step, f"entropy {total:.3f} nats, {speed}")
            run.log({f"{method}/{seed}/entropy": total}, progress.step)

        data = fit_data_of(run, seed, config.tasks)
        return learn_coefficients(vectors, data, options, seed=seed, state=state, on_step=on_step)


def fit_data_of(run: Stage, seed: int, tasks: Sequence[str]) -> "FitData":
    """Unlabeled images to learn on: `adapt`, or under protocol transductive those of `eval`."""
    from pipeline.learning import FitData
    from stages._inputs import encoder_of, heads_of, images_of

    split = "adapt" if run.config.profile.protocol == "inductive" else "eval"
    encoder, scale = encoder_of(run)
    images = images_of(run, seed, tasks, split)
    return FitData(encoder, scale, heads_of(run, tasks), images)


def processed(run: Stage, method: str, vectors: "TaskVectors") -> "TaskVectors":
    """The task vectors as the method takes them: TIES-processed for the ++ variants."""
    from pipeline.merging.methods import METHODS

    plain = METHODS[method].defaults["keep"] == 1.0
    return vectors if plain else vectors.ties(run.config.profile.merge.keep)


def options_of(run: Stage, method: str) -> "LearningOptions":
    """Granularity from the methods table, the rest from the profile."""
    from pipeline.learning import LearningOptions
    from pipeline.merging.methods import METHODS

    asked = run.config.profile.learn
    granularity = METHODS[method].defaults["granularity"]
    return LearningOptions(granularity, asked.steps, asked.batch, asked.lr, asked.initial)


def write_metrics(run: Stage) -> None:
    """metrics/<profile>/learning.json: where the entropy and the coefficients ended, by method."""
    import torch

    from pipeline.files import write_json
    from pipeline.learning import load_coefficients

    config, summary = run.config.profile, {}
    for method in config.learn.methods:
        made_by = "python -m stages.learn"
        learned = [
            load_coefficients(run.layout.coefficients(seed, method), made_by)
            for seed in config.seeds
        ]
        values = [one.values for one in learned]
        mean = torch.stack([value.mean(0) for value in values]).mean(0)
        summary[method] = {
            "steps": config.learn.steps if learned[0].history else 0,
            "coefficient_mean": round(float(mean.mean()), 4),
            "coefficient_min": round(min(float(value.min()) for value in values), 4),
            "coefficient_max": round(max(float(value.max()) for value in values), 4),
            "tasks": dict(zip(config.tasks, [round(v, 4) for v in mean.tolist()], strict=True)),
        }
        if learned[0].history:
            for name, place in (("loss_first", 0), ("loss_last", -1)):
                losses = [float(one.history["loss"][place]) for one in learned]
                summary[method][name] = round(sum(losses) / len(losses), 4)
    write_json(run.layout.metric("learning"), summary)


if __name__ == "__main__":
    typer.run(main)
