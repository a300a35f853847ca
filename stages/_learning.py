"""What coefficient learning is given, alike in every stage that learns."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages._stage import Stage

if TYPE_CHECKING:
    import numpy as np

    from pipeline.learning import Coefficients, FitData, LearningOptions
    from pipeline.vectors import TaskVectors


def fit_data_of(
    run: Stage, seed: int, tasks: Sequence[str], images: int | None = None
) -> "FitData":
    """Unlabeled images to learn on: `adapt`, or under protocol transductive those of `eval`.

    `images`: at most so many of each task; None: all.
    """
    from pipeline.checkpoints.weights import load_weights
    from pipeline.learning import FitData
    from stages._inputs import encoder_of, heads_of, images_of

    encoder, scale = encoder_of(run)
    found = images_of(run, seed, tasks, unlabeled_split(run))
    if images is not None:
        rows = rows_to_learn_on(run, seed, tasks, images)
        found = {task: own[rows[task]] for task, own in found.items()}
    return FitData(
        encoder,
        scale,
        heads_of(run, tasks),
        found,
        experts=lambda task: load_weights(
            run.layout.expert(seed, task), "python -m stages.experts"
        ),
    )


def unlabeled_split(run: Stage) -> str:
    """The split whose images are learned on, without labels."""
    return "adapt" if run.config.profile.protocol == "inductive" else "eval"


def rows_to_learn_on(
    run: Stage, seed: int, tasks: Sequence[str], images: int | None
) -> dict[str, "np.ndarray"]:
    """task -> rows of that split: all, or at most `images`, drawn without looking at classes."""
    import numpy as np

    from pipeline.learning.feeding import draw_some
    from stages._inputs import images_count

    split, found = unlabeled_split(run), {}
    for task in tasks:
        count = images_count(run, seed, task, split)
        if images is None or images >= count:
            found[task] = np.arange(count)
        else:
            found[task] = draw_some(seed, task, count, images)
    return found


def options_of(run: Stage, method: str) -> "LearningOptions":
    """Granularity from the methods table, the rest from the profile."""
    from pipeline.learning import LearningOptions
    from pipeline.merging.methods import METHODS

    asked = run.config.profile.learn.model_dump(
        exclude={"methods", "images", "grid", "keep", "vectors", "coefficients"}
    )
    return LearningOptions(granularity=METHODS[method].defaults["granularity"], **asked)


def adapt_inputs(run: Stage, seed: int, method: str, tasks: Sequence[str]) -> dict[str, Any]:
    """What learned coefficients are made from; the memory budget only divides the work."""
    from dataclasses import asdict

    from pipeline.sources import fingerprint

    config, layout = run.config.profile, run.layout
    split = unlabeled_split(run)
    options = asdict(options_of(run, method))
    experts = tasks if options["objective"] == "distillation" else ()
    processing: dict[str, Any] = processing_of(run, method)
    if processing["processing"] != "none":
        processing["made_by"] = fingerprint("pipeline.processing")
    return {
        "pretrained": layout.pretrained,
        "vectors": [layout.vector(seed, task) for task in tasks],
        "heads": [layout.head(task) for task in tasks],
        "images": [layout.images(seed, task, split) for task in tasks],
        "experts": [layout.expert(seed, task) for task in experts],
        "options": {name: value for name, value in options.items() if name != "memory_gb"},
        "at_most": config.learn.images,
        "kept": config.learn.vectors,
        "processing": processing,
        "precision": run.precision(),
        "tasks": tasks,
        "seed": seed,
    }


@contextmanager
def working_vectors(
    run: Stage, method: str, seed: int, tasks: Sequence[str], state: Path
) -> Iterator["TaskVectors"]:
    """The task vectors as the method takes them, kept as `learn.vectors` says while it learns."""
    from pipeline.learning.memory import LESS, room_for
    from stages._inputs import lazy_vectors_of

    kept = run.config.profile.learn.vectors
    vectors = processed(run, method, lazy_vectors_of(run, seed, tasks))
    if kept != "mapped":
        with room_for(f"the task vectors in {kept}", LESS):
            vectors = (vectors.half() if kept == "float16" else vectors).to(run.device())
        yield vectors
        return
    path = state.with_suffix(".vectors")
    try:
        if run.group.first:
            vectors.write_deltas(path)
        run.group.barrier()  # one file serves all processes of the machine
        vectors = vectors.mapped(path)
        run.group.barrier()  # who has mapped the file keeps it when its name is gone
    finally:
        if run.group.first:
            path.unlink(missing_ok=True)
    yield vectors


def learned_on(run: Stage, seed: int, method: str, tasks: Sequence[str]) -> "Coefficients":
    """Coefficients of `tasks`, learned by this process alone or found in the cache."""
    from pipeline.learning import learn_coefficients, load_coefficients, save_coefficients

    inputs = adapt_inputs(run, seed, method, tasks)
    entry = run.cache.entry("coefficients", "pipeline.learning.loop", inputs, ".safetensors")
    if not entry.exists():
        state = entry.with_name(f"{entry.stem}.state.safetensors")
        with working_vectors(run.alone(), method, seed, tasks, state) as vectors:
            data = fit_data_of(run, seed, tasks, run.config.profile.learn.images)
            options = options_of(run, method)
            learned = learn_coefficients(vectors, data, options, seed=seed, state=state)
        save_coefficients(entry, with_processing(run, method, learned))
    return load_coefficients(entry, f"python -m stages.{run.name}")


def processed(run: Stage, method: str, vectors: "TaskVectors") -> "TaskVectors":
    """The task vectors as the method takes them."""
    from pipeline.processing import processed

    return processed(vectors, **processing_of(run, method))


def processing_of(run: Stage, method: str) -> dict[str, Any]:
    """What the method makes of task vectors first, as `pipeline.processing` has it."""
    from pipeline.merging.methods import METHODS

    how = METHODS[method].defaults.get("processing", "none")
    # The share counts where it is used, so that nothing else is learned again when it changes.
    return {"processing": how, "keep": run.config.profile.learn.keep if how == "ties" else 1.0}


def with_processing(run: Stage, method: str, learned: "Coefficients") -> "Coefficients":
    """The same, with the facts of which task vectors they are for."""
    from dataclasses import replace

    return replace(learned, facts={**learned.facts, **processing_of(run, method)})
