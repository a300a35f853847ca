"""What the options of merging methods may be: known without tensors, so checked before any work."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.errors import UserError, unknown
from pipeline.merging.methods import METHODS

Limit = tuple[Callable[[Any], bool], str]

# Sums of task vectors are to stay numbers of single precision.
_FINITE: Limit = (lambda value: abs(value) <= 1e6, "a finite number, of a million at most")
_SHARE: Limit = (lambda value: 0 <= value <= 1, "a number from 0 to 1")
_SOME: Limit = (lambda value: 0 < value <= 1, "a number above 0 and at most 1")
_NOT_ALL: Limit = (lambda value: 0 <= value < 1, "a number from 0 to below 1")
_POSITIVE: Limit = (lambda value: 0 < value < math.inf, "a number above 0")
_NOT_NEGATIVE: Limit = (lambda value: 0 <= value < math.inf, "a number of at least 0")
_COUNT: Limit = (lambda value: isinstance(value, int) and value >= 1, "a whole number above 0")

LIMITS: Mapping[str, Limit] = {
    "coefficient": _FINITE,
    "keep": _SOME,
    "drop": _NOT_ALL,
    "largest": _NOT_ALL,
    "smallest": _NOT_ALL,
    "mask": _NOT_NEGATIVE,
    "least": _COUNT,
    "first": _FINITE,
    "slope": _FINITE,
    "share": _SHARE,
    "common": _SHARE,
    "shrink": _SHARE,
    "weight": _NOT_NEGATIVE,
    "rate": _POSITIVE,
    "lr": _POSITIVE,
    "steps": _COUNT,
    "images": _COUNT,
    "batch": _COUNT,
    "batches_per_task": _COUNT,
    "initial": _SHARE,
}
CHOICES: Mapping[str, tuple[str, ...]] = {
    "reduce": ("sum", "mean"),
    "solve": ("adam", "closed"),
    "granularity": ("task", "block", "layer"),
    "processing": ("none", "ties", "awd"),
    "order": ("random", "stream", "long_tail"),
    "on_collapse": ("warn", "restore"),
}


def check_options(method: str, options: Mapping[str, Any]) -> None:
    """Raise `UserError` for an option that `method` does not have, or a value that is none."""
    defaults = METHODS[method].defaults
    for name, value in options.items():
        if name not in defaults:
            raise unknown(f"option of {method}", name, defaults)
        if value is None and defaults[name] is None:
            continue
        if name in CHOICES and value not in CHOICES[name]:
            raise unknown(f"{name} of {method}", str(value), CHOICES[name])
        if isinstance(defaults[name], bool) and not isinstance(value, bool):
            raise UserError(f"{method}: {name} is {value!r}: give True or False.")
        if name in LIMITS:
            fits, words = LIMITS[name]
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and fits(value)):
                raise UserError(f"{method}: {name} is {value!r}: give {words}.")
    values = {**defaults, **options}
    if "largest" in values and values["largest"] + values["smallest"] >= 1:
        raise UserError(
            f"{method}: largest {values['largest']} and smallest {values['smallest']} leave "
            "nothing. Give shares that add up to less than 1."
        )


def check_count(method: str, tasks: int, options: Mapping[str, Any]) -> None:
    """Raise `UserError` where `method` does not merge so many experts."""
    row = METHODS[method]
    least, most = row.experts
    if tasks < least or (most is not None and tasks > most):
        words = f"{least} experts" if least == most else f"{least} or more experts"
        raise UserError(f"{method} merges {words}, and here are {tasks}.")
    needed = {**row.defaults, **options}.get("least", 1)
    if needed > tasks:
        raise UserError(
            f"{method}: least is {needed}, but there are {tasks} tasks. "
            "Give the number of tasks that must need an entry."
        )
