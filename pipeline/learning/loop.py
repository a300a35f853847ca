"""AdaMerging (https://arxiv.org/abs/2310.02575): learn merging coefficients from unlabeled images.

Adam minimises the sum over tasks of the mean softmax entropy of the merged model, or another
objective that needs no labels. The loop can be killed at any moment: it goes on from its last saved
state to the same result, bit for bit on a CPU.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import UserError, unknown
from pipeline.learning.coefficients import Coefficients
from pipeline.learning.collapse import tells
from pipeline.learning.feeding import ORDERS, Feeder, draw, draw_long_tail, draw_once
from pipeline.learning.memory import images_at_once
from pipeline.learning.objectives import objective_named
from pipeline.learning.options import PUBLISHED, FitData, LearningOptions
from pipeline.learning.run import Progress, Run
from pipeline.learning.step import CoefficientStep
from pipeline.parallel import ALONE, Group
from pipeline.predictions import probabilities
from pipeline.vectors import TaskVectors


def learn_coefficients(
    vectors: TaskVectors,
    data: FitData,
    options: LearningOptions = PUBLISHED,
    *,
    seed: int = 0,
    state: Path | None = None,
    on_step: Callable[[Progress], None] = lambda progress: None,
    group: Group = ALONE,
) -> Coefficients:
    """Learn one coefficient per task, per block and task, or per tensor and task.

    `state`: a file that keeps the state of an interrupted run; it is removed at the end. `group`:
    the processes that share every step's images; each calls this with the same arguments, and all
    return the same. Raises `UserError` where a task has no images, an option has no such value, the
    memory budget is too small for one image, or the loss is no longer a finite number.
    """
    tasks = vectors.tasks
    objective = objective_named(options.objective)
    if options.clamp and options.initial in (0, 1):
        raise UserError(
            f"Coefficients that start at {options.initial:g} have no gradient under the clamp: "
            "choose learn.initial between 0 and 1, or learn.clamp: false."
        )
    for task in tasks:
        if not len(data.images[task]):
            raise UserError(f"The task '{task}' has no unlabeled images to learn from.")
    device = next(data.encoder.parameters()).device
    first = np.array(data.images[tasks[0]][:1])
    chunk = images_at_once(
        options.memory_gb, data.encoder, vectors, torch.from_numpy(first).to(device)
    )
    experts = _expert_predictions(data, tasks) if objective.needs == "experts" else None
    draws = _draws(seed, vectors, data, options)
    options = replace(options, steps=len(draws[tasks[0]]))
    feeder = Feeder({task: data.images[task] for task in tasks}, draws, device, group)
    with CoefficientStep(
        data.encoder,
        vectors,
        data.heads,
        data.logit_scale,
        granularity=options.granularity,
        initial=options.initial,
        clamp=options.clamp,
        objective=objective,
        batches=options.batches_per_task,
        chunk=chunk,
        group=group,
    ) as step:
        watched = {task: tells(len(data.heads[task]), len(draws[task][0])) for task in tasks}
        run = Run(step, watched, options, state, saves=group.first)
        group.barrier()  # nobody saves before everybody has read
        for batch in feeder.batches(run.done, 0 if run.over else options.resolved.steps):
            wanted = None
            if experts is not None:
                wanted = [experts[t][rows] for t, rows in zip(tasks, batch.rows, strict=True)]
            run.advance(partial(step, batch.images, totals=batch.totals, experts=wanted))
            on_step(run.progress(sum(batch.totals)))
            if run.over:
                break
        return run.result()


def _draws(
    seed: int, vectors: TaskVectors, data: FitData, options: LearningOptions
) -> Mapping[str, Sequence[np.ndarray] | np.ndarray]:
    """task -> for every step the indices of its images."""
    counts = {task: len(data.images[task]) for task in vectors.tasks}
    steps, batch = options.resolved.steps, options.batch * options.batches_per_task
    if options.order == "random":
        return {task: draw(seed, task, count, steps, batch) for task, count in counts.items()}
    if options.order == "stream":
        return draw_once(seed, counts, batch)
    if options.order != "long_tail":
        raise unknown("order of images", options.order, ORDERS)
    # There are no labels: classes are those that the pretrained model predicts.
    data.encoder.load(vectors.pretrained, "the pretrained model")
    found = {}
    for task in vectors.tasks:
        predicted = probabilities(
            data.encoder, data.heads[task], data.logit_scale, data.images[task]
        )
        classes = predicted.argmax(dim=1).cpu().numpy()
        found[task] = draw_long_tail(seed, task, classes, steps, batch)
    return found


def _expert_predictions(data: FitData, tasks: tuple[str, ...]) -> dict[str, Tensor]:
    """task -> what its expert predicts for its images [N, classes]; once, before learning."""
    if data.experts is None:
        raise UserError("The objective 'distillation' needs the experts' weights: pass experts.")
    found = {}
    for task in tasks:
        data.encoder.load(data.experts(task), f"the {task} expert")
        predicted = probabilities(
            data.encoder, data.heads[task], data.logit_scale, data.images[task]
        )
        found[task] = predicted.clone()  # made without a graph, to be used in one
    return found
