"""Metrics of a profile, read by key: what a statement looked at is where its figures are from."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.config import Config
from pipeline.report import clear
from pipeline.report.tables import difference
from pipeline.report.words import beside
from pipeline.statistics import Interval

Files = Mapping[str, Mapping[str, Any]]  # name of a metrics file -> what is in it


class Compared(NamedTuple):
    """A difference in points as printed, its interval, and what the interval is over."""

    gap: float
    interval: Interval | None
    over: str = "images"

    def of_three(self, higher: str, lower: str, same: str) -> str:
        """The words that fit."""
        if self.interval is None or not self.interval.clear or self.gap == 0:
            return same
        return higher if self.interval.low > 0 else lower

    def than(self, other: str) -> str:
        """'2.1 points above `other` (95 % interval +1.1 to +3.1)', or that nothing is clear."""
        if self.interval is None:
            return f"{beside(self.gap, None, other)} (one seed, no interval: not clear)"
        # That intervals are over images is said at the page's head.
        return beside(self.gap, self.interval, other, "" if self.over == "images" else self.over)


class Look:
    """Reads values out of `files`, and remembers under which keys."""

    def __init__(self, files: Files, config: Config) -> None:
        self.files, self.config = files, config
        self.used: dict[tuple[str, tuple[str, ...]], None] = {}  # (file, keys), in order

    def __call__(self, file: str, *keys: str) -> Any:
        """The value under `keys`, one within the other; None where there is none."""
        value: Any = self.files.get(file)
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            self.used[file, keys] = None
        return value

    def has(self, file: str, *keys: str) -> bool:
        """Whether there is such a value; this is not remembered."""
        return Look(self.files, self.config)(file, *keys) is not None

    def names(self, file: str, *keys: str) -> list[str]:
        """The names of what lies under `keys`; none where there is nothing. Not remembered."""
        return list(Look(self.files, self.config)(file, *keys) or ())

    def average(self, method: str) -> float | None:
        """A method's average accuracy on clean images, in percent."""
        found: float | None = self("clean", method, "avg")
        return found

    def compared(self, method: str, other: str) -> Compared | None:
        """`method` less `other` on clean images; None if either was not tested.

        The interval is over images where `evaluate` compared the two, else over the seeds.
        """
        ours, theirs = self.average(method), self.average(other)
        if ours is None or theirs is None:
            return None
        gap = difference(ours, theirs)
        clean = self.files["clean"]
        interval = clear.beside(clean, method, other)
        if interval is not None:
            straight = self.has("clean", method, "beside", other)
            first, second = (method, other) if straight else (other, method)
            self("clean", first, "beside", second, "interval")
            return Compared(gap, interval)
        seeds, others = self("clean", method, "seeds"), self("clean", other, "seeds")
        values = [seeds[seed] - others[seed] for seed in seeds if seed in others]
        return Compared(gap, clear.over(values), "seeds")

    def wins(self, method: str, other: str) -> str:
        """'7 of 8': tasks on which `method` is the more accurate."""
        ours, theirs = self("clean", method, "tasks"), self("clean", other, "tasks")
        return f"{sum(ours[task] > theirs[task] for task in ours)} of {len(ours)}"

    def titles(self, tasks: Sequence[str]) -> list[str]:
        """How tasks are printed."""
        return [self.config.task(task).title for task in tasks]
