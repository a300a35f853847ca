"""Accuracy under image corruptions (https://arxiv.org/abs/1903.12261).

    python -m stages.robustness

Two conditions: every method as it was merged from clean data, and methods whose coefficients are
learned again on the corrupted images themselves (those of `adapt`; the figures are of `eval`).
"""

from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import typer

from stages._stage import DryRunOption, ProfileOption, Stage, stage

if TYPE_CHECKING:
    import numpy as np

    from pipeline.learning import Coefficients
    from pipeline.vectors import TaskVectors

MADE_BY = "python -m stages.robustness"


def main(profile: ProfileOption = None, dry_run: DryRunOption = False) -> None:
    """Evaluate every method on corrupted images."""
    with stage("robustness", profile, dry_run) as run:
        from pipeline.files import write_json

        asked = run.config.profile.robustness
        check_inputs(run)
        cells = len(asked.corruptions) * len(asked.severities) * len(asked.tasks)
        run.plan(f"{len(run.config.methods)} methods x {cells} cells x {asked.images} images")
        clean: dict[str, dict[int, np.ndarray]] = {}
        adapted: dict[str, dict[int, np.ndarray]] = {}
        for seed in run.config.profile.seeds:
            for method, correct in test_corrupted(run, seed).items():
                clean.setdefault(method, {})[seed] = correct
            for method in asked.adapted.methods:
                adapted.setdefault(method, {})[seed] = test_adapted(run, seed, method)
        reference = {m: reference_accuracy(run, m) for m in run.config.methods}
        severities = [str(severity) for severity in asked.severities]
        rows = {m: summarise(asked, c, severities, reference[m]) for m, c in clean.items()}
        only = [str(asked.adapted.severity)]
        again = {m: summarise(asked, c, only, reference[m]) for m, c in adapted.items()}
        write_json(run.layout.metric("robustness"), {"clean": rows, "adapted": again})
        run.result = ", ".join(f"{name} {row['avg']:.1f} %" for name, row in rows.items())


def check_inputs(run: Stage) -> None:
    """Raise `MissingInput` unless everything that will be read is there."""
    from stages.evaluate import maker, weights_path

    config, layout = run.config.profile, run.layout
    asked = config.robustness
    run.needs("fetch", [layout.pretrained])
    run.needs_data("eval", asked.tasks)
    run.needs("experts", (layout.head(task) for task in config.tasks))
    if asked.adapted.methods:
        run.needs_data("adapt" if config.protocol == "inductive" else "eval", config.tasks)
    for seed in config.seeds:
        run.needs("vectors", (layout.vector(seed, task) for task in config.tasks))
        for method in run.config.methods:
            run.needs(maker(method), (weights_path(run, seed, method, t) for t in asked.tasks))
            run.needs("evaluate", (layout.predictions(seed, method, t) for t in asked.tasks))


def test_corrupted(run: Stage, seed: int) -> dict[str, "np.ndarray"]:
    """method -> bool [corruptions, severities, tasks, N]: which images it classifies correctly."""
    import numpy as np

    from pipeline.corruptions import corrupt
    from pipeline.files import replacing
    from stages._inputs import images_of

    asked = run.config.profile.robustness
    images = images_of(run, seed, asked.tasks, "eval")
    tester = _Tester(run, seed)
    shape = (len(asked.corruptions), len(asked.severities), len(asked.tasks))
    correct: dict[str, dict[tuple[int, ...], np.ndarray]] = {m: {} for m in run.config.methods}
    with run.progress(f"corrupting (seed {seed})", int(np.prod(shape))) as update:
        # Outer loop over images: each is corrupted once for all methods.
        for done, cell in enumerate(np.ndindex(shape), start=1):
            name, severity = asked.corruptions[cell[0]], asked.severities[cell[1]]
            task = asked.tasks[cell[2]]
            rows = np.asarray(images[task][: asked.images])
            corrupted = corrupt(rows, name, severity, seed=seed, scale=asked.scale)
            for method in run.config.methods:
                correct[method][cell] = tester.correct(method, task, corrupted)
            update(done, f"{name} {severity} {task}")
    stacked = {}
    for method, cells in correct.items():
        stacked[method] = np.stack(list(cells.values())).reshape(*shape, -1)
        with replacing(run.layout.robustness(seed, method)) as temporary:
            np.savez_compressed(temporary, correct=stacked[method])
    return stacked


class _Tester:
    """Merged encoders at hand, so that many cells cost one load each."""

    def __init__(self, run: Stage, seed: int) -> None:
        from stages._inputs import encoder_of, heads_of, labels_of

        tasks = run.config.profile.robustness.tasks
        self.run, self.seed = run, seed
        self.encoder, self.scale = encoder_of(run)
        self.heads = heads_of(run, tasks)
        self.labels = labels_of(run, seed, tasks, "eval")
        self.weights: dict[Path, dict[str, Any]] = {}

    def correct(self, method: str, task: str, images: "np.ndarray") -> "np.ndarray":
        """bool [N] for one method and the first N images of a task."""
        from pipeline.checkpoints import load_weights
        from stages.evaluate import maker, weights_path

        path = weights_path(self.run, self.seed, method, task)
        if path not in self.weights:
            self.weights[path] = load_weights(path, f"python -m stages.{maker(method)}")
        self.encoder.load(self.weights[path], str(path))
        return self.classify(task, images)

    def classify(self, task: str, images: "np.ndarray") -> "np.ndarray":
        """bool [N] for the weights that the encoder holds."""
        from pipeline.predictions import predict

        labels = self.labels[task][: len(images)]
        return predict(self.encoder, self.heads[task], self.scale, images, labels).correct


def test_adapted(run: Stage, seed: int, method: str) -> "np.ndarray":
    """bool [corruptions, 1, tasks, N]: coefficients learned on each corruption's own images."""
    import numpy as np

    from pipeline.corruptions import corrupt
    from stages._inputs import images_of, vectors_of
    from stages.learn import processed

    asked, tasks = run.config.profile.robustness, run.config.profile.tasks
    severity = asked.adapted.severity
    images = images_of(run, seed, asked.tasks, "eval")
    vectors = processed(run, method, vectors_of(run, seed, tasks))
    tester = _Tester(run, seed)
    correct = []
    for name in asked.corruptions:
        learned = learn_on(run, seed, method, name, vectors)
        tester.encoder.load(vectors.merged(learned.values), "the merged model")
        for task in asked.tasks:
            rows = np.asarray(images[task][: asked.images])
            corrupted = corrupt(rows, name, severity, seed=seed, scale=asked.scale)
            correct.append(tester.classify(task, corrupted))
    return np.stack(correct).reshape(len(asked.corruptions), 1, len(asked.tasks), -1)


def learn_on(
    run: Stage, seed: int, method: str, corruption: str, vectors: "TaskVectors"
) -> "Coefficients":
    """Coefficients of all tasks, from `adapt` images that are corrupted for the tested tasks."""
    from dataclasses import replace

    import numpy as np

    from pipeline.corruptions import corrupt
    from pipeline.learning import learn_coefficients
    from stages.learn import fit_data_of, options_of

    asked, tasks = run.config.profile.robustness, run.config.profile.tasks
    data = fit_data_of(run, seed, tasks)
    images = dict(data.images)
    for task in asked.tasks:
        rows = np.asarray(images[task])
        # Another seed than the tested images': the noise drawn must not be the same.
        images[task] = corrupt(
            rows, corruption, asked.adapted.severity, seed=seed + 1_000_000, scale=asked.scale
        )
    options = replace(options_of(run, method), steps=asked.adapted.steps)
    with run.progress(f"{method} on {corruption}", options.steps) as update:
        return learn_coefficients(
            vectors,
            replace(data, images=images),
            options,
            seed=seed,
            on_step=lambda p: update(p.step, f"entropy {sum(p.entropies.values()):.3f} nats"),
        )


def reference_accuracy(run: Stage, method: str) -> float:
    """Accuracy in percent on the same images without corruption, mean over tasks and seeds."""
    from pipeline.evaluation import Predictions

    asked = run.config.profile.robustness
    return 100 * mean(
        float(
            Predictions.load(
                run.layout.predictions(seed, method, task), "python -m stages.evaluate"
            )
            .correct[: asked.images]
            .mean()
        )
        for seed in run.config.profile.seeds
        for task in asked.tasks
    )


def summarise(
    asked: Any, by_seed: dict[int, "np.ndarray"], severities: list[str], clean: float
) -> dict[str, Any]:
    """One method's row: means over seeds, in percent."""
    averages = {seed: 100 * float(correct.mean()) for seed, correct in by_seed.items()}
    share = 100 * sum(correct.mean(axis=3) for correct in by_seed.values()) / len(by_seed)
    average = mean(averages.values())
    return {
        "avg": round(average, 2),
        "avg_sd": round(stdev(averages.values()), 2) if len(averages) > 1 else 0.0,
        "clean": round(clean, 2),
        "relative_drop": round(100 * (clean - average) / clean, 2) if clean else 0.0,
        "corruptions": {
            name: {
                severity: round(float(share[row, column].mean()), 2)
                for column, severity in enumerate(severities)
            }
            for row, name in enumerate(asked.corruptions)
        },
        "tasks": {
            task: round(float(share[:, :, column].mean()), 2)
            for column, task in enumerate(asked.tasks)
        },
        "seeds": {str(seed): round(value, 2) for seed, value in averages.items()},
    }


if __name__ == "__main__":
    typer.run(main)
