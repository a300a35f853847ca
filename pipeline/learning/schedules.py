"""How learning proceeds: the paper's schedule, and one as good in a fraction of its steps."""

from dataclasses import dataclass, replace

from torch import Tensor

from pipeline.errors import unknown

WINDOW = 10  # steps over which progress is added up


@dataclass(frozen=True)
class Schedule:
    """Adam's learning rate over the steps, and when they end.

    `progress` [steps taken]: for every step minus the inner product of its move with the gradient
    that comes after it: how much the move lowered the loss, judged by images that did not choose
    it. It needs no labels, costs nothing, and has a fraction of the noise of the losses themselves.
    """

    summary: str
    steps: int  # at most
    lr: float
    decay: int = 0  # steps over which the rate falls to zero at the end; 0: it never does
    # The end begins when the progress of a window has fallen below this share of the first one's.
    plateau: float = 0.0

    def rate(self, progress: Tensor) -> float:
        """The learning rate of the next step."""
        if not self.decay:
            return self.lr
        return self.lr * min(1.0, (self.end(progress) - len(progress)) / self.decay)

    def end(self, progress: Tensor) -> int:
        """How many steps learning takes, as far as `progress` tells."""
        if not self.plateau or len(progress) < 2 * WINDOW:
            return self.steps
        windows = progress.unfold(0, WINDOW, 1).sum(dim=1)
        slow = (windows[WINDOW:] < self.plateau * windows[0].clamp(min=0)).nonzero()
        if not len(slow):
            return self.steps
        return min(self.steps, int(slow[0]) + 2 * WINDOW + self.decay)


SCHEDULES: dict[str, Schedule] = {
    "paper": Schedule("Adam at a constant rate, as published", 500, 1e-3),
    "fast": Schedule(
        "Adam at ten times the rate until progress slows down, then down to zero",
        70,
        1e-2,
        decay=10,
        plateau=0.3,
    ),
}


def schedule_named(name: str, steps: int | None, lr: float | None) -> Schedule:
    """A schedule of `SCHEDULES` with other steps or another rate where they are given.

    Raises `UserError` for an unknown name.
    """
    if name not in SCHEDULES:
        raise unknown("schedule", name, SCHEDULES)
    found = SCHEDULES[name]
    return replace(found, steps=steps or found.steps, lr=lr or found.lr)
