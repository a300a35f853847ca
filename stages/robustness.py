"""Accuracy under image corruptions (https://arxiv.org/abs/1903.12261).

    python -m stages.robustness
    torchrun --nproc-per-node 8 -m stages.robustness

Every method as it was merged from clean data, and methods whose coefficients are learned again on
corrupted images, under the conditions in `pipeline.conditions`: on those of `adapt`; the figures
are of `eval`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from stages._corrupted import check_files, chunks_from_files, from_files, wanted_of
from stages._robustness import Model, Weights, adapted_models, learn_adapted
from stages._stage import DryRunOption, ProfileOption, Stage, stage

if TYPE_CHECKING:
    import numpy as np

    from pipeline.relative_errors import Cells
    from pipeline.robustness import Chunks

PRETRAINED = "pretrained"
# (method, condition); no condition: as merged from clean data
Row = tuple[str, str]


def main(profile: ProfileOption = None, dry_run: DryRunOption = False) -> None:
    """Evaluate every method on corrupted images."""
    with stage("robustness", profile, dry_run) as run:
        from pipeline.files import write_json

        config = run.config.profile
        asked, learned = config.robustness, adapted_models(run)
        check_inputs(run)
        cells = len(asked.corruptions) * len(asked.severities) * len(asked.tasks)
        run.plan(
            f"{len(run.config.methods)} methods x {cells} cells x {asked.images} images"
            + f", {len(learned)} sets of coefficients" * bool(learned),
            parallel=True,
        )
        tests = [Test(run, seed) for seed in config.seeds]
        for test in tests:
            test.run_all()
        if not run.group.first:
            return
        for test in tests:
            test.save()
        metrics = summarise_all(run, tests)
        write_json(run.layout.metric("robustness"), metrics)
        rows = metrics["clean"]
        run.result = ", ".join(f"{name} {row['avg']:.1f} %" for name, row in rows.items())


def check_inputs(run: Stage) -> None:
    """Raise `MissingInput` unless everything that will be read is there."""
    from stages._inputs import maker, weights_path

    config, layout = run.config.profile, run.layout
    asked = config.robustness
    run.needs("fetch", [layout.pretrained])
    run.needs_data("eval", asked.tasks)
    run.needs("experts", (layout.head(task) for task in config.tasks))
    if asked.adapted.methods:
        run.needs_data("adapt" if config.protocol == "inductive" else "eval", config.tasks)
        if config.learn.objective == "distillation":
            for seed in config.seeds:
                run.needs("experts", (layout.expert(seed, task) for task in config.tasks))
    for seed in config.seeds:
        run.needs("vectors", (layout.vector(seed, task) for task in config.tasks))
        for method in run.config.methods:
            run.needs(maker(method), (weights_path(run, seed, method, t) for t in asked.tasks))
            run.needs("evaluate", (layout.predictions(seed, method, t) for t in asked.tasks))
    if from_files(run):
        check_files(run)


@contextmanager
def chunks_of(run: Stage, seed: int, counts: Sequence[int]) -> Iterator["Chunks"]:
    """Where the corrupted images that are tested come from."""
    from pipeline.robustness import stored_chunks
    from stages._inputs import images_of

    asked = run.config.profile.robustness
    first = dict(zip(asked.tasks, counts, strict=True))
    if from_files(run):
        with chunks_from_files(run, wanted_of(run, seed, "eval", first), seed) as chunks:
            yield chunks
        return
    images = images_of(run, seed, asked.tasks, "eval")
    yield stored_chunks({task: images[task][:n] for task, n in first.items()}, seed, asked.scale)


class Test:
    """What one seed's models classify correctly.

    `counts`: images of each task, the first of `eval`. `correct`: row -> bool [corruptions,
    severities, tasks, N], where N is the largest of `counts`; rows with a condition have one
    severity, that of the adaptation.
    """

    def __init__(self, run: Stage, seed: int) -> None:
        import numpy as np

        from stages._inputs import labels_of

        self.run, self.seed, self.asked = run, seed, run.config.profile.robustness
        asked, self.labels = self.asked, labels_of(run, seed, self.asked.tasks, "eval")
        self.counts = [min(asked.images, len(self.labels[task])) for task in asked.tasks]
        adapted = [(model.method, model.condition) for model in adapted_models(run)]
        shape = len(asked.tasks), max(self.counts)
        self.correct: dict[Row, np.ndarray] = {
            (method, condition): np.zeros(
                (len(asked.corruptions), 1 if condition else len(asked.severities), *shape),
                np.uint8,
            )
            for method, condition in [*((m, "") for m in run.config.methods), *adapted]
        }

    def run_all(self) -> None:
        """Learn what is to be learned, then test; the processes share both."""
        import torch

        from pipeline.robustness import Encoders
        from stages._inputs import encoder_of, heads_of

        run, asked = self.run, self.asked
        weights = Weights(run, self.seed, learn_adapted(run, self.seed))
        encoder, scale = encoder_of(run)
        budget = run.config.profile.learn.memory_gb
        encoders = Encoders(encoder, weights.read, budget)
        heads = heads_of(run, asked.tasks)
        cells = [
            (c, s, t) for c in asked.corruptions for s in asked.severities for t in asked.tasks
        ]
        mine = run.group.share(cells)
        with (
            chunks_of(run, self.seed, self.counts) as chunks,
            run.progress(f"testing (seed {self.seed})", len(mine)) as update,
        ):
            for done, (corruption, severity, task) in enumerate(mine, start=1):
                found = chunks(task, corruption, severity)
                self.test(corruption, severity, task, found, encoders, heads[task], scale)
                update(done, f"{corruption} {severity} {task}")
        for row, correct in self.correct.items():
            # Each process filled in the cells that it tested and left the others 0.
            self.correct[row] = run.group.sum_(torch.from_numpy(correct)).numpy().astype(bool)

    def test(
        self,
        corruption: str,
        severity: int,
        task: str,
        chunks: Any,
        encoders: Any,
        head: Any,
        scale: float,
    ) -> None:
        """Fill in one cell of every row that has it."""
        from pipeline.robustness import classify

        asked, models = self.asked, self.models(corruption, severity, task)
        count = self.counts[asked.tasks.index(task)]
        labels = self.labels[task][:count]
        found = classify(encoders, models, chunks, head, scale, labels)
        for model, correct in zip(models, found, strict=True):
            place = 0 if model.condition else asked.severities.index(severity)
            cell = asked.corruptions.index(corruption), place, asked.tasks.index(task)
            self.correct[model.method, model.condition][cell][:count] = correct

    def models(self, corruption: str, severity: int, task: str) -> list[Model]:
        """What is tested on the same images."""
        from pipeline.merging.methods import METHODS

        merged = [
            Model(method, task if METHODS[method].reads("task_identity") else "")
            for method in self.run.config.methods
        ]
        adapted = severity == self.asked.adapted.severity
        return merged + adapted_models(self.run, corruption) * adapted

    def save(self) -> None:
        """Write robustness/<method>.npz: `correct`, `images`, and an array for every condition."""
        import numpy as np

        from pipeline.files import replacing

        for method in self.run.config.methods:
            arrays: dict[str, Any] = {
                condition or "correct": found
                for (name, condition), found in self.correct.items()
                if name == method
            }
            with replacing(self.run.layout.robustness(self.seed, method)) as temporary:
                np.savez_compressed(temporary, images=np.array(self.counts), **arrays)


def summarise_all(run: Stage, tests: Sequence[Test]) -> dict[str, Any]:
    """metrics/<profile>/robustness.json."""
    from pipeline.relative_errors import summarise

    asked, seeds = run.config.profile.robustness, run.config.profile.seeds
    every = {row: cells_of(tests, row) for row in tests[0].correct}
    clean = {method: clean_accuracy(run, method) for method in run.config.methods}
    whole = every.get((PRETRAINED, ""))
    at_one = whole and whole.at(asked.adapted.severity) if asked.adapted.methods else None
    sections: dict[str, Any] = {"clean": {}, "adapted": {}, "conditions": {}}
    for (method, condition), cells in every.items():
        uncorrupted = None if condition else clean[method]
        row = summarise(cells, seeds, uncorrupted, at_one if condition else whole)
        # Each corruption's own images are what was learned on before there were conditions.
        section = {"": "clean", "each": "adapted"}.get(condition)
        rows = sections[section] if section else sections["conditions"].setdefault(condition, {})
        rows[method] = row
    return sections


def cells_of(tests: Sequence[Test], row: Row) -> "Cells":
    """Accuracies of one method under one condition, for all seeds."""
    import numpy as np

    from pipeline.relative_errors import Cells, accuracies

    asked = tests[0].asked
    found = np.stack([accuracies(test.correct[row], test.counts) for test in tests])
    severities = [asked.adapted.severity] if row[1] else asked.severities
    return Cells(found, asked.corruptions, severities, asked.tasks)


def clean_accuracy(run: Stage, method: str) -> "np.ndarray":
    """Accuracy in percent on the same images without corruption [seeds, tasks]."""
    import numpy as np

    from pipeline.evaluation import Predictions

    asked, made_by = run.config.profile.robustness, "python -m stages.evaluate"
    found = [
        [
            Predictions.load(run.layout.predictions(seed, method, task), made_by).correct
            for task in asked.tasks
        ]
        for seed in run.config.profile.seeds
    ]
    return np.array([[100 * correct[: asked.images].mean() for correct in row] for row in found])


if __name__ == "__main__":
    typer.run(main)
