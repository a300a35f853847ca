"""Which methods a figure shows: a drawing of all of them would be a knot."""

from collections.abc import Iterable

from pipeline.report.content import REFERENCE, Content, best_of, is_adamerging

MOST = 10
ALWAYS = ("pretrained", REFERENCE, "experts")  # those of them that there are


def drawn(content: Content, methods: Iterable[str], most: int = MOST) -> tuple[str, ...]:
    """At most `most` of `methods`, in their order: all of them, where they are no more.

    Otherwise the pretrained model, task arithmetic, the experts, the best AdaMerging and, of the
    others, those with the highest average on clean images.
    """
    methods = tuple(methods)
    if len(methods) <= most:
        return methods
    kept = [method for method in methods if method in ALWAYS]
    learned = best_of(content, filter(is_adamerging, methods))
    kept += [learned] if learned else []
    while len(kept) < most:
        kept.append(best_of(content, (m for m in methods if m not in kept)) or "")
    return tuple(method for method in methods if method in kept)


def left_out(
    shown: Iterable[str], methods: Iterable[str], where: str = "table has", kind: str = "methods"
) -> str:
    """Sentences for a caption: what is drawn, and `where` the rest stands; empty if all are.

    `kind`: what `methods` are.
    """
    count, every = len(tuple(shown)), len(tuple(methods))
    if count == every:
        return ""
    return (
        f" Drawn are {count} of {every} {kind}: the pretrained model, task arithmetic, the "
        "experts, the best AdaMerging and the best of the others, by their averages on clean "
        f"images. The {where} all of them."
    )
