"""What the figures can tell apart and what they cannot: no ranking where an interval covers zero.

Two methods are compared on the same images (`beside` of clean.json), or on the same corruptions.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from scipy.special import stdtrit

from pipeline.statistics import TAIL, Interval, level_with

Rows = Mapping[str, Mapping[str, Any]]  # method -> its figures


def over(values: Sequence[float]) -> Interval | None:
    """The 95 % interval of a mean by Student's t; None of fewer than two values."""
    if len(values) < 2:
        return None
    half = float(stdtrit(len(values) - 1, 1 - TAIL)) * stdev(values) / math.sqrt(len(values))
    middle = mean(values)
    # What would be printed as zero is not clear.
    return Interval(round(middle - half, 2) + 0.0, round(middle + half, 2) + 0.0)


def beside(clean: Rows, method: str, other: str) -> Interval | None:
    """Interval of `method` less `other` over the images, from either's row; None if in neither."""
    for first, second, sign in ((method, other, 1), (other, method, -1)):
        found = clean.get(first, {}).get("beside", {}).get(second)
        if found:
            low, high = sorted(sign * end for end in found["interval"])
            return Interval(low, high)
    return None


def level(clean: Rows, rivals: Iterable[str]) -> tuple[str, ...]:
    """The best of `rivals` and those that the images cannot tell from it; () if not compared."""
    rows = {method: clean[method] for method in rivals}
    best = max(rows, key=lambda method: rows[method]["avg"], default=None)
    if best is None or any(
        best not in row.get("beside", {}) for m, row in rows.items() if m != best
    ):
        return ()
    return level_with(best, rows)


def by_corruption(row: Mapping[str, Any], severity: str | None = None) -> dict[str, float]:
    """Corruption -> accuracy in percent, mean over severities, or at the one."""
    return {
        name: mean(by.values()) if severity is None else by[severity]
        for name, by in row["corruptions"].items()
        if by and (severity is None or severity in by)
    }


def paired(ours: Mapping[str, float], theirs: Mapping[str, float]) -> Interval | None:
    """Interval of the mean difference, over the corruptions that both have."""
    return over([ours[name] - theirs[name] for name in ours if name in theirs])


def level_corrupted(figures: Rows, rivals: Collection[str]) -> tuple[str, ...]:
    """The best of `rivals` on corrupted images and those that the corruptions cannot tell from it.

    () where there are too few corruptions to say.
    """
    best = max(rivals, key=lambda method: figures[method]["avg"], default=None)
    if best is None:
        return ()
    means = {method: by_corruption(figures[method]) for method in rivals}
    gaps = {method: paired(means[best], means[method]) for method in rivals}
    if any(gap is None for gap in gaps.values()):
        return ()
    return tuple(m for m, gap in gaps.items() if gap is not None and (m == best or not gap.clear))
