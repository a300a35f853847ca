"""What methods need beside the experts' weights: a letter in tables, words below them."""

from collections.abc import Iterable

from pipeline.merging.methods import METHODS, Need

WEIGHTS = ("W", "weights only")
NEEDS: dict[Need, tuple[str, str]] = {
    "images": ("I", "images of every task"),
    "labels": ("L", "their labels"),
    "experts": ("E", "the experts' answers to them"),
    "task_identity": ("T", "the task of every image in use"),
    "extra_parameters": ("P", "extra parameters for every task"),
}


def needs_of(method: str) -> tuple[tuple[str, str], ...]:
    """(Letter, words) of everything that a method needs; weights only, where it needs no more."""
    return tuple(both for need, both in NEEDS.items() if METHODS[method].reads(need)) or (WEIGHTS,)


def key(methods: Iterable[str]) -> str:
    """'W weights only, I images of every task': the letters that these methods have."""
    found = {both for method in methods for both in needs_of(method)}
    return ", ".join(" ".join(both) for both in (WEIGHTS, *NEEDS.values()) if both in found)
