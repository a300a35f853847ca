"""Words for figures: what sentences of the summary and of docs/findings.md are made of."""

from collections.abc import Sequence

from pipeline.merging.methods import METHODS
from pipeline.report.content import REFERENCE
from pipeline.report.tables import hundredths, printed, signed
from pipeline.statistics import Interval

TUNED = "task_arithmetic_tuned"
# Methods whose titles are ordinary words: inside a sentence these begin with a small letter.
WORDS = ("pretrained", "weight_average", REFERENCE, TUNED, "experts")


def percent(value: float) -> str:
    """A percentage that no line break takes from its sign."""
    return f"{printed(value)}\N{NO-BREAK SPACE}%"


def inline(method: str) -> str:
    """A method's title inside a sentence: names keep their capitals, ordinary words do not."""
    title = METHODS[method].title
    return title[0].lower() + title[1:] if method in WORDS else title


def listed(parts: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'; nothing of none."""
    return " and ".join(part for part in (", ".join(parts[:-1]), *parts[-1:]) if part)


def named(methods: Sequence[str], most: int = 5) -> str:
    """Methods by their titles; of more than `most` the first ones and how many others."""
    if len(methods) <= most:
        return listed([inline(method) for method in methods])
    return listed([*map(inline, methods[: most - 1]), f"{len(methods) - most + 1} others"])


def ends(interval: Interval) -> str:
    """'-0.21 to +0.84': with two decimals, so that it shows on which side of zero an end lies."""
    return f"{hundredths(interval.low)} to {hundredths(interval.high)}"


def points(gap: float) -> str:
    """'2.1 points above', to be followed by what it is compared with."""
    if gap == 0:
        return "level with"
    return f"{abs(gap):.1f} points {'above' if gap > 0 else 'below'}"


def beside(gap: float, interval: Interval | None, other: str, over: str = "") -> str:
    """'2.1 points above task arithmetic (95 % interval +1.10 to +3.08)', or that nothing is clear.

    `gap`: in points, as printed; `other`: what it is held beside, in words; `over`: what the
    interval is over, where that is to be said.
    """
    if interval is None:
        return f"{points(gap)} {other}"
    sure = f"95\N{NO-BREAK SPACE}% interval {ends(interval)}" + (f" over {over}" if over else "")
    if interval.clear and gap:
        return f"{points(gap)} {other} ({sure})"
    return f"not clearly different from {other} ({signed(gap)} points, {sure})"


def duration(seconds: float) -> str:
    """Seconds as a reader says them: '9.3 s', '4 min 08 s', '2 h 05 min'."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
