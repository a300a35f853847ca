"""A guard against collapse: low entropy is worthless where one class is predicted for everything.

Entropy is lowest for a model that always gives the same answer with certainty. A task whose
predictions come to concentrate on one class is named, and the last coefficients from before can be
kept.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

WINDOW = 10  # steps over which shares are averaged
SHARE = 0.95  # of a window's images whose predicted class is their batch's most frequent one


def tells(classes: int, images: int) -> bool:
    """Whether shares say anything of a task with so many classes and images in a step.

    One class is always the most frequent; and so is, nearly, one of few images' classes.
    """
    return classes > 1 and images >= 8


class Guard:
    """Watches the share of the most frequent predicted class of the tasks that can be told by it.

    `good` [rows, tasks]: raw coefficients from at least a window before the last step that was
    looked at and found in order. `since` [tasks]: the step at which a task's predictions had
    concentrated over a whole window; 0 where they never did.
    """

    def __init__(self, raw: Tensor, watched: Sequence[bool]) -> None:
        self._watched = torch.tensor(watched, dtype=torch.bool)
        self.since = torch.zeros(len(watched), dtype=torch.int64)
        self.good = raw.detach().clone()
        self._newer = raw.detach().clone()

    def watch(self, shares: Tensor, raw: Tensor) -> None:
        """Look at `shares` [steps so far, tasks] after a step."""
        steps = len(shares)
        if steps < WINDOW:
            return
        concentrated = (shares[-WINDOW:].mean(dim=0) >= SHARE) & self._watched
        self.since[concentrated & (self.since == 0)] = steps
        if steps % WINDOW == 0 and not bool(concentrated.any()):
            self.good, self._newer = self._newer, raw.detach().clone()

    def state(self) -> dict[str, Tensor]:
        """What a saved run must hold."""
        return {"since": self.since, "good": self.good, "newer": self._newer}

    def restore(self, saved: dict[str, Tensor]) -> None:
        """Take what `state` gave."""
        self.since = saved["since"]
        self.good = saved["good"].to(self.good)
        self._newer = saved["newer"].to(self.good)
