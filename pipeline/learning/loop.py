"""AdaMerging (https://arxiv.org/abs/2310.02575): learn merging coefficients from unlabeled images.

Adam minimises the sum over tasks of the mean softmax entropy of the merged model. The loop can be
killed at any moment: it goes on from its last saved state to the same result, bit for bit on a CPU.
"""

import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.checkpoints import load_weights, save_weights
from pipeline.clip import ImageEncoder
from pipeline.errors import UserError
from pipeline.learning.coefficients import Coefficients
from pipeline.learning.step import CoefficientStep, Granularity
from pipeline.vectors import TaskVectors

SECONDS_BETWEEN_SAVES = 2.0


@dataclass(frozen=True)
class FitData:
    """What a merge may read beside weights: images, heads, and labels where a choice needs them."""

    encoder: ImageEncoder  # its parameters are overwritten
    logit_scale: float
    heads: Mapping[str, Tensor]  # task -> unit rows [classes, dim]
    images: Mapping[str, np.ndarray]  # task -> uint8 [N, 3, height, width]
    labels: Mapping[str, np.ndarray] | None = None  # task -> int64 [N]


@dataclass(frozen=True)
class LearningOptions:
    """The published hyper-parameters by default."""

    granularity: Granularity = "layer"
    steps: int = 500
    batch: int = 16  # images per task and step
    lr: float = 1e-3
    initial: float = 0.3


@dataclass(frozen=True)
class Progress:
    """Where the learning stands after a step."""

    step: int  # steps done
    steps: int
    entropies: dict[str, float]  # task -> nats
    coefficients: dict[str, float]  # task -> mean over layers
    images_per_second: float


def learn_coefficients(
    vectors: TaskVectors,
    data: FitData,
    options: LearningOptions = LearningOptions(),
    *,
    seed: int = 0,
    state: Path | None = None,
    on_step: Callable[[Progress], None] = lambda progress: None,
) -> Coefficients:
    """Learn one coefficient per task, or per tensor and task.

    `state`: a file that keeps the state of an interrupted run; it is removed at the end. Raises
    `UserError` where a task has no images or its entropy is no longer a finite number.
    """
    tasks = vectors.tasks
    for task in tasks:
        if not len(data.images[task]):
            raise UserError(f"The task '{task}' has no unlabeled images to learn from.")
    draws = [_draws(seed, task, len(data.images[task]), options) for task in tasks]
    device = next(data.encoder.parameters()).device
    with CoefficientStep(
        data.encoder,
        vectors,
        data.heads,
        data.logit_scale,
        granularity=options.granularity,
        initial=options.initial,
    ) as step:
        run = _Run(step, options, len(tasks), state)
        while run.done < options.steps:
            batch = [
                torch.from_numpy(data.images[task][rows[run.done]]).to(device)
                for task, rows in zip(tasks, draws, strict=True)
            ]
            run.advance(batch, tasks)
            on_step(run.progress(tasks, sum(map(len, batch))))
        return run.finish(vectors)


def _draws(seed: int, task: str, count: int, options: LearningOptions) -> np.ndarray:
    """Image indices [steps, batch], no image twice in a batch; a task's draws are its own."""
    rng = np.random.default_rng([seed, zlib.crc32(task.encode())])
    size = min(options.batch, count)
    return np.stack([rng.permutation(count)[:size] for _ in range(options.steps)])


class _Run:
    """Optimiser, history and clock of one run, saved together so that they agree."""

    def __init__(
        self, step: CoefficientStep, options: LearningOptions, tasks: int, state: Path | None
    ) -> None:
        self.step, self.options, self.state = step, options, state
        self.done = 0
        self.history = {
            "loss": torch.zeros(options.steps),
            "entropy": torch.zeros(options.steps, tasks),
            "coefficients": torch.zeros(options.steps, tasks),
        }
        # Adam's moments, spelled out so that the saved state is a few plain tensors.
        self.optimizer = torch.optim.Adam([step.raw], lr=options.lr)
        self.seconds = 0.0
        if state is not None and state.exists():
            self._restore(load_weights(state, "python -m stages.learn"))
        self._since = self._saved = time.monotonic()

    def advance(self, batch: list[Tensor], tasks: tuple[str, ...]) -> None:
        """One step: entropy, gradient, update."""
        used = self.step.used().detach().mean(0)
        entropies = self.step(batch)
        self._check(entropies, tasks)
        self.optimizer.step()
        self.history["loss"][self.done] = entropies.sum()
        self.history["entropy"][self.done] = entropies
        self.history["coefficients"][self.done] = used
        self.done += 1
        if self.state is not None and time.monotonic() - self._saved > SECONDS_BETWEEN_SAVES:
            self._save()

    def progress(self, tasks: tuple[str, ...], images: int) -> Progress:
        """Where the run stands."""
        row = self.done - 1
        elapsed = self._elapsed()
        return Progress(
            self.done,
            self.options.steps,
            dict(zip(tasks, self.history["entropy"][row].tolist(), strict=True)),
            dict(zip(tasks, self.history["coefficients"][row].tolist(), strict=True)),
            images * self.done / elapsed,
        )

    def finish(self, vectors: TaskVectors) -> Coefficients:
        """The result; the saved state is no longer needed."""
        if self.state is not None:
            self.state.unlink(missing_ok=True)
        layers = vectors.layers if self.options.granularity == "layer" else ("*",)
        facts = {**asdict(self.options), "seconds": round(self._elapsed(), 2)}
        values = self.step.used().detach().cpu()
        return Coefficients(values, vectors.tasks, layers, self.history, facts)

    def _check(self, entropies: Tensor, tasks: tuple[str, ...]) -> None:
        bad = [
            task for task, ok in zip(tasks, entropies.isfinite().tolist(), strict=True) if not ok
        ]
        if bad:
            raise UserError(
                f"The entropy of {', '.join(bad)} is not a finite number at step {self.done + 1}. "
                "Check that task's images and expert, or lower learn.lr."
            )

    def _elapsed(self) -> float:
        return self.seconds + time.monotonic() - self._since

    def _save(self) -> None:
        assert self.state is not None
        moments = self.optimizer.state[self.step.raw]
        tensors = {
            "raw": self.step.raw,
            "step": moments["step"],
            "exp_avg": moments["exp_avg"],
            "exp_avg_sq": moments["exp_avg_sq"],
            "seconds": torch.tensor(self._elapsed(), dtype=torch.float64),
            **{name: series[: self.done] for name, series in self.history.items()},
        }
        save_weights(self.state, tensors, {})
        self._saved = time.monotonic()

    def _restore(self, saved: dict[str, Tensor]) -> None:
        raw = self.step.raw
        with torch.no_grad():
            raw.copy_(saved["raw"])
        self.done = len(saved["loss"])
        self.optimizer.state[raw] = {
            "step": saved["step"],
            "exp_avg": saved["exp_avg"].to(raw),
            "exp_avg_sq": saved["exp_avg_sq"].to(raw),
        }
        for name, series in self.history.items():
            series[: self.done] = saved[name]
        self.seconds = saved["seconds"].item()
