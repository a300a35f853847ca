"""This project's merges, as `benchmarks.merging` measures them."""

from typing import Any

from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

from benchmarks.merging_problem import (
    COEFFICIENT,
    DROP,
    KEEP,
    SHRINK,
    STEPS,
    Call,
    Side,
    Tensors,
    everything,
    models,
    one_block,
)
from benchmarks.problem import LOGIT_SCALE, images, tower
from benchmarks.settings import Problem
from pipeline.clip import ImageEncoder
from pipeline.learning import FitData
from pipeline.merging import merge_vectors
from pipeline.merging.masks import emr_masked
from pipeline.vectors import TaskVectors

OPTIONS: dict[str, dict[str, Any]] = {
    "task_arithmetic": {"coefficient": COEFFICIENT},
    "ties": {"coefficient": COEFFICIENT, "keep": KEEP, "reduce": "sum"},
    "dare": {"coefficient": COEFFICIENT, "drop": DROP},
    "tsv_m": {"coefficient": 1.0},
    "iso_c": {"coefficient": 1.0},
    "wudi": {"solve": "adam", "steps": STEPS},
    "regmean": {"shrink": SHRINK},
}


class Ours(Side):
    """`method`: one of `OPTIONS`, or emr."""

    def __init__(self, problem: Problem, method: str) -> None:
        pretrained, experts = models(problem, one_block if method == "wudi" else everything)
        options, data = OPTIONS.get(method, {}), None
        if method == "regmean":
            data = _fit_data(problem, list(experts))
            options = options | {"images": problem.batch}

        def vectors() -> TaskVectors:
            return TaskVectors.between(pretrained, experts)

        def merged() -> Tensors:
            return dict(merge_vectors(method, vectors(), data=data, **options).shared)

        def change(found: Tensors) -> Tensors:
            return {name: tensor - pretrained[name] for name, tensor in found.items()}

        if method == "emr":
            super().__init__(Call(lambda: emr_masked(vectors()), lambda found: found.unified))
        else:
            super().__init__(Call(merged, change))


def _fit_data(problem: Problem, tasks: list[str]) -> FitData:
    encoder = ImageEncoder(tower(problem), OPENAI_DATASET_MEAN, OPENAI_DATASET_STD).eval()
    pictures = dict(zip(tasks, (batch.numpy() for batch in images(problem)), strict=True))
    return FitData(encoder, LOGIT_SCALE, {}, pictures)
