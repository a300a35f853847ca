"""One coefficient for all tasks, chosen on labelled images: what papers do to tune a baseline."""

from collections.abc import Sequence

import torch

from pipeline.errors import UserError
from pipeline.evaluation import accuracy
from pipeline.learning.coefficients import Coefficients
from pipeline.learning.options import FitData
from pipeline.predictions import predict
from pipeline.vectors import TaskVectors


def select_coefficient(vectors: TaskVectors, data: FitData, grid: Sequence[float]) -> Coefficients:
    """The value of `grid` with the highest mean accuracy on `data`'s labelled images.

    The smaller value wins a draw. Raises `UserError` where `data` has no labels.
    """
    if data.labels is None:
        raise UserError("A coefficient can be tuned on labelled images only; none were given.")
    scores = {}
    for value in sorted(grid):
        uniform = torch.full((1, len(vectors.tasks)), value)
        data.encoder.load(vectors.merged(uniform), "the merged model")
        scores[value] = sum(
            accuracy(predict(data.encoder, data.heads[t], data.logit_scale, data.images[t], labels))
            for t, labels in data.labels.items()
        ) / len(data.labels)
    best = max(scores, key=lambda value: scores[value])
    values = torch.full((1, len(vectors.tasks)), best)
    return Coefficients(values, vectors.tasks, ("*",), {}, {"accuracy_on_select": scores})
