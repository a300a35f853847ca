"""Learn merging coefficients from images: AdaMerging, and the label-tuned baseline.

    python -m stages.learn
    torchrun --nproc-per-node 8 -m stages.learn

Killed, it goes on where it was when it is run again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from stages._learning import adapt_inputs, fit_data_of, options_of, with_processing, working_vectors
from stages._progress import say
from stages._stage import DryRunOption, ProfileOption, Stage, stage

if TYPE_CHECKING:
    from pipeline.learning import Coefficients, Progress


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
            if config.learn.objective == "distillation":
                run.needs("experts", (layout.expert(seed, task) for task in config.tasks))
        for given in config.learn.coefficients.values():
            check_file(run.config.root / given.path, given.sha256)
        jobs = [(seed, method) for seed in config.seeds for method in config.learn.methods]
        images = config.learn.batch * config.learn.batches_per_task
        run.plan(
            f"{len(jobs)} sets of coefficients, schedule '{config.learn.schedule}', "
            f"{len(config.tasks)} tasks x {images} images of '{split}' a step",
            parallel=True,
        )
        hits = sum(learn(run, seed, method) for seed, method in jobs)
        if run.group.first:
            write_metrics(run)
        run.result = f"{len(jobs) - hits} sets of coefficients learned, {hits} at hand"


def check_file(path: Path, expected: str) -> None:
    """Raise `UserError` unless the file is there and has the SHA-256 that the profile names."""
    from pipeline.errors import UserError
    from pipeline.files import sha256

    if not path.is_file():
        raise UserError(f"{path} is missing: put the file of learn.coefficients there.")
    if (found := sha256(path)) != expected:
        raise UserError(
            f"{path} has SHA-256 {found}, the profile expects {expected}. Restore the file, or "
            "write its hash into learn.coefficients."
        )


def learn(run: Stage, seed: int, method: str) -> bool:
    """Learn the coefficients of one method; True if they come from the cache or a file."""
    from pipeline.learning import save_coefficients
    from pipeline.merging.methods import METHODS

    config, layout = run.config.profile, run.layout
    target = layout.coefficients(seed, method)
    if given := config.learn.coefficients.get(method):
        if run.group.first:
            save_coefficients(target, read(run, method, run.config.root / given.path))
        return True
    labelled = METHODS[method].reads("labels")
    made_by = "pipeline.learning.selection" if labelled else "pipeline.learning.loop"
    inputs = tune_inputs(run, seed) if labelled else adapt_inputs(run, seed, method, config.tasks)
    entry = run.cache.entry("coefficients", made_by, inputs, ".safetensors")
    hit = run.group.agree(entry.exists())
    if not hit:
        state = entry.with_name(f"{entry.stem}.state.safetensors")
        learned = tune(run, seed) if labelled else adapt(run, seed, method, state)
        if run.group.first:
            save_coefficients(entry, learned)
            warn_of_collapse(method, seed, learned)
    if run.group.first:
        run.cache.copy(entry, target)
    return hit


def read(run: Stage, method: str, path: Path) -> "Coefficients":
    """Coefficients that a file holds, for the profile's tasks and the model's tensors."""
    from pipeline.published import read_coefficients
    from stages._inputs import encoder_of

    config, (encoder, _) = run.config.profile, encoder_of(run)
    return read_coefficients(path, method, encoder.weights(), config.tasks, config.learn.keep)


def tune_inputs(run: Stage, seed: int) -> dict[str, Any]:
    """What the label-tuned coefficient is made from."""
    config, layout = run.config.profile, run.layout
    return {
        "pretrained": layout.pretrained,
        "vectors": [layout.vector(seed, task) for task in config.tasks],
        "heads": [layout.head(task) for task in config.tasks],
        "images": [layout.images(seed, task, "select") for task in config.tasks],
        "labels": [layout.labels(seed, task, "select") for task in config.tasks],
        "precision": run.precision(),
        "grid": config.learn.grid,
        "tasks": config.tasks,
    }


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

    config = run.config.profile
    options = options_of(run, method)
    if state.exists():
        say(f"  {method}: resuming a run that was interrupted")
    with (
        working_vectors(run, method, seed, config.tasks, state) as vectors,
        run.progress(f"{method} (seed {seed})", options.resolved.steps) as update,
    ):

        def on_step(progress: "Progress") -> None:
            total = sum(progress.entropies.values())
            speed = f"{progress.images_per_second:.0f} images/s"
            update(progress.step, f"entropy {total:.3f} nats, {speed}")
            run.log({f"{method}/{seed}/entropy": total}, progress.step)

        data = fit_data_of(run, seed, config.tasks, config.learn.images)
        learned = learn_coefficients(
            vectors, data, options, seed=seed, state=state, on_step=on_step, group=run.group
        )
    return with_processing(run, method, learned)


def warn_of_collapse(method: str, seed: int, learned: "Coefficients") -> None:
    """Say which tasks' predictions came to concentrate on one class."""
    for task, step in learned.facts.get("collapsed", {}).items():
        say(
            f"  Warning: {method} (seed {seed}): from step {step} on nearly all images of '{task}' "
            "get the same class. Low entropy means nothing there; see learn.on_collapse."
        )


def write_metrics(run: Stage) -> None:
    """metrics/<profile>/learning.json: where the entropy and the coefficients ended, by method."""
    from pipeline.files import write_json
    from pipeline.learning import load_coefficients

    config, made_by = run.config.profile, "python -m stages.learn"
    write_json(
        run.layout.metric("learning"),
        {
            method: summarise(
                [
                    load_coefficients(run.layout.coefficients(s, method), made_by)
                    for s in config.seeds
                ]
            )
            for method in config.learn.methods
        },
    )


def summarise(learned: Sequence["Coefficients"]) -> dict[str, Any]:
    """One method's row: means over seeds, extremes over all."""
    import torch

    values = [one.values for one in learned]
    mean = torch.stack([value.mean(0) for value in values]).mean(0)
    row: dict[str, Any] = {
        "steps": max(one.facts.get("steps", 0) for one in learned),
        "coefficient_mean": round(float(mean.mean()), 4),
        "coefficient_min": round(min(float(value.min()) for value in values), 4),
        "coefficient_max": round(max(float(value.max()) for value in values), 4),
        "tasks": dict(zip(learned[0].tasks, [round(v, 4) for v in mean.tolist()], strict=True)),
    }
    if learned[0].history:
        for name, place in (("loss_first", 0), ("loss_last", -1)):
            losses = [float(one.history["loss"][place]) for one in learned]
            row[name] = round(sum(losses) / len(losses), 4)
        row["collapsed"] = sorted({task for one in learned for task in one.facts["collapsed"]})
    return row


if __name__ == "__main__":
    typer.run(main)
