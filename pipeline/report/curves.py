"""Figures of the learning: how entropy and coefficients moved, step by step."""

from collections.abc import Mapping

import numpy as np

from pipeline.report.content import Content
from pipeline.report.learned import Learned
from pipeline.report.style import LOOKS, Plot, legend, panel_grid

MAX_POINTS = 120  # of a drawn curve: more than the eye tells apart
SMOOTHING = 20  # a window is this fraction of all steps

Curve = tuple[np.ndarray, np.ndarray]  # steps [N], series [N, tasks]


def entropy(content: Content) -> Plot | None:
    """Prediction entropy per task while the coefficients were learned."""
    curves = {m: smoothed(one.entropy) for m, one in _with_history(content).items()}
    return _panels(
        content,
        "entropy",
        curves,
        "entropy, nats",
        "Mean entropy of the predictions on each step's unlabeled batch, in nats, as moving "
        "averages over a twentieth of the steps. Learning lowers the sum over the tasks, not each.",
    )


def coefficients(content: Content) -> Plot | None:
    """Mean coefficient per task while they were learned."""
    curves = {m: thinned(one.coefficients) for m, one in _with_history(content).items()}
    return _panels(
        content,
        "coefficient_curves",
        curves,
        "coefficient",
        "Coefficient of each task vector during learning; for layer-wise methods the mean over "
        "all tensors.",
    )


def smoothed(series: np.ndarray) -> Curve:
    """Centred moving averages of [steps, tasks], thinned."""
    window = max(1, len(series) // SMOOTHING)
    kernel = np.full(window, 1 / window)
    means = np.stack([np.convolve(one, kernel, mode="valid") for one in series.T], axis=1)
    steps, means = thinned(means)
    return steps + (window - 1) / 2, means


def thinned(series: np.ndarray) -> Curve:
    """At most MAX_POINTS rows of [steps, tasks] with their step numbers; first and last stay."""
    rows = np.unique(np.linspace(0, len(series) - 1, MAX_POINTS).round().astype(int))
    return rows.astype(float), series[rows]


def _with_history(content: Content) -> dict[str, Learned]:
    return {m: one for m, one in content.learned.items() if len(one.entropy)}


def _panels(
    content: Content, name: str, curves: Mapping[str, Curve], label: str, caption: str
) -> Plot | None:
    """A panel per task with a curve per method; None if no method learned in steps."""
    if not curves:
        return None
    figure, panels = panel_grid(len(content.tasks), 1.9, 0.9, ("step", label))
    for task, axes in zip(content.tasks, panels, strict=True):
        for method, (steps, series) in curves.items():
            column = content.learned[method].tasks.index(task)
            every = max(1, len(steps) // 4)
            axes.plot(steps, series[:, column], markevery=every, **LOOKS[method].line(markersize=4))
        axes.set_title(content.task_titles[task])
    legend(figure, curves, 4)
    data = {
        method: {
            "steps": steps.tolist(),
            "tasks": {
                task: series[:, place].round(5).tolist()
                for place, task in enumerate(content.learned[method].tasks)
            },
        }
        for method, (steps, series) in curves.items()
    }
    alt = f"Curves of the {label} over the steps, a panel for each of {len(panels)} tasks"
    return Plot(name, figure, caption, alt, {"unit": label, "methods": data})
