"""Coefficients learned on corrupted images: under every condition, by this process or another."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stages._corrupted import from_files, images_to_learn_on, published_files
from stages._learning import (
    adapt_inputs,
    fit_data_of,
    options_of,
    processed,
    rows_to_learn_on,
    unlabeled_split,
    working_vectors,
)
from stages._stage import Stage

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.learning import Coefficients
    from pipeline.vectors import TaskVectors

MADE_BY = "python -m stages.robustness"


class Model(NamedTuple):
    """One image encoder to test."""

    method: str
    task: str = ""  # the one that it is for, of methods that have one encoder for every task
    condition: str = ""  # that its coefficients were learned under; none: as it was merged
    corruption: str = ""  # that they were learned on, where each has its own

    def __str__(self) -> str:
        return " ".join(part for part in self if part)

    def on(self, corruptions: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the corruptions that its coefficients are learned on."""
        return (self.corruption,) if self.corruption else corruptions


def adapted_models(run: Stage, corruption: str | None = None) -> list[Model]:
    """Every model to learn; of those that `corruption` has its own of, only its own."""
    from pipeline.conditions import CONDITIONS

    asked = run.config.profile.robustness
    own = asked.corruptions if corruption is None else (corruption,)
    return [
        Model(method, condition=condition, corruption=name)
        for method in asked.adapted.methods
        for condition in asked.adapted.conditions
        for name in (("",) if CONDITIONS[condition].mixed else own)
    ]


def learn_adapted(run: Stage, seed: int) -> dict[Model, Path]:
    """Model -> its coefficients in the cache; the processes share what is not there yet."""
    from pipeline.learning import save_coefficients

    tasks, models = run.config.profile.tasks, adapted_models(run)
    entries = coefficient_entries(run, seed, models)
    run.group.barrier()  # all have seen what there is
    mine, alone = run.group.share(models), run.alone()
    for method in run.config.profile.robustness.adapted.methods:
        missing = {
            model: entries[model]
            for model in mine
            if model.method == method and not entries[model].exists()
        }
        if not missing:
            continue
        first = next(iter(missing.values()))
        with working_vectors(alone, method, seed, tasks, first) as vectors:
            for model, path in missing.items():
                if not path.exists():  # two conditions may come to the same
                    state = path.with_name(f"{path.stem}.state.safetensors")
                    save_coefficients(path, learn_on(alone, seed, model, vectors, state))
    run.group.barrier()
    return entries


def coefficient_entries(run: Stage, seed: int, models: list[Model]) -> dict[Model, Path]:
    """Model -> where the cache has its coefficients, or will have them."""
    from pipeline.conditions import CONDITIONS, noise_seed
    from pipeline.sources import fingerprint

    asked, tasks = run.config.profile.robustness, run.config.profile.tasks
    files = published_files(run)
    clean = {
        method: run.cache.entry(
            "coefficients", "pipeline.learning.loop", adapt_inputs(run, seed, method, tasks), ""
        ).name
        for method in asked.adapted.methods
    }
    return {
        model: run.cache.entry(
            "coefficients",
            "pipeline.conditions",
            {
                "learned_on_clean_images": clean[model.method],
                "changes": dict(CONDITIONS[model.condition].changes),
                "corruptions": model.on(asked.corruptions),
                "severity": asked.adapted.severity,
                "scale": asked.scale,
                "tasks": asked.tasks,
                "noise": noise_seed(seed),
                "files": files,
                "made_by": fingerprint("pipeline.data.native") if from_files(run) else "",
            },
            ".safetensors",
        )
        for model in models
    }


def learn_on(
    run: Stage, seed: int, model: Model, vectors: "TaskVectors", state: Path
) -> "Coefficients":
    """Coefficients of all tasks, from `adapt` images that are corrupted for the tested tasks."""
    from dataclasses import replace

    from pipeline.conditions import CONDITIONS, CorruptedImages, noise_seed
    from pipeline.learning import learn_coefficients
    from stages._inputs import images_of

    config = run.config.profile
    asked = config.robustness
    options = replace(options_of(run, model.method), **CONDITIONS[model.condition].changes)
    data = fit_data_of(run, seed, config.tasks, config.learn.images)
    drawn = rows_to_learn_on(run, seed, asked.tasks, config.learn.images)
    stored = images_of(run, seed, asked.tasks, unlabeled_split(run))
    corrupted: dict[str, Any] = {
        task: CorruptedImages(
            stored[task],
            task,
            model.on(asked.corruptions),
            asked.adapted.severity,
            seed=noise_seed(seed),
            scale=asked.scale,
            rows=drawn[task],
        )
        for task in asked.tasks
    }
    with ExitStack() as until:
        if from_files(run):
            kinds = {task: images.kinds for task, images in corrupted.items()}
            found = images_to_learn_on(run, seed, model.on(asked.corruptions), kinds, drawn)
            corrupted = until.enter_context(found)
        data = replace(data, images={**data.images, **corrupted})
        update = until.enter_context(run.progress(f"learning {model}", options.resolved.steps))
        return learn_coefficients(
            vectors,
            data,
            options,
            seed=seed,
            state=state,
            on_step=lambda p: update(p.step, f"entropy {sum(p.entropies.values()):.3f} nats"),
        )


class Weights:
    """The weights of any model under one seed."""

    def __init__(self, run: Stage, seed: int, learned: Mapping[Model, Path]) -> None:
        self._run, self._seed, self._learned = run, seed, learned
        self._vectors: dict[str, TaskVectors] = {}

    def read(self, model: Model) -> "Mapping[str, Tensor]":
        """Name -> tensor."""
        from pipeline.learning import load_coefficients
        from stages._inputs import lazy_vectors_of, weights_of

        run, method = self._run, model.method
        if model not in self._learned:
            return weights_of(run, self._seed, method, model.task)
        if method not in self._vectors:
            tasks = run.config.profile.tasks
            self._vectors[method] = processed(run, method, lazy_vectors_of(run, self._seed, tasks))
        values = load_coefficients(self._learned[model], MADE_BY).values
        return self._vectors[method].merged(values)
