"""Statements about corrupted images and unseen tasks."""

from typing import Any

from pipeline.findings.clean import OURS, TITLE
from pipeline.findings.look import Compared, Look
from pipeline.merging.methods import METHODS
from pipeline.report.clear import by_corruption, level_corrupted, over, paired
from pipeline.report.content import REFERENCE, competes
from pipeline.report.corrupted import at_severity
from pipeline.report.tables import difference, signed
from pipeline.report.words import ends, inline, listed, named, percent
from pipeline.statistics import Interval

OVER = "corruptions"
INTERVAL = "95\N{NO-BREAK SPACE}% interval"


def corrupted_level(look: Look) -> str | None:
    """Who is best on corrupted images."""
    figures = look.files.get("robustness", {}).get("clean", {})
    rivals = [method for method in figures if competes(method)]
    found = level_corrupted(figures, rivals)
    if not found:
        return None
    best = max(found, key=lambda method: figures[method]["avg"])
    for method in found:
        look("robustness", "clean", method, "corruptions")
    average = percent(look("robustness", "clean", best, "avg"))
    others = [method for method in found if method != best]
    if others:
        return (
            f"**No single model without labels is clearly the best on corrupted images.** "
            f"{METHODS[best].title} has the highest average, {average}; level with it over the "
            f"corruptions: {named(others, len(others))}."
        )
    return (
        f"**{METHODS[best].title} is the best single model without labels on corrupted images.** "
        f"It has {average}; all {len(rivals) - 1} others are clearly below it over the corruptions."
    )


def corrupted_errors(look: Look) -> str | None:
    """Errors on corrupted images beside the pretrained model's and task arithmetic's."""
    ratio = look("robustness", "clean", OURS, "error_ratio", "mean")
    ratios = look("robustness", "clean", OURS, "error_ratio", "corruptions")
    if ratio is None or ratios is None:
        return None
    known = [value for value in ratios.values() if value is not None]
    interval = over(known)
    centred = interval and Interval(interval.low - 100, interval.high - 100)
    from_one = Compared(difference(ratio, 100), centred, OVER)
    verdict = from_one.of_three("errs more than", "errs less than", "errs about as often as")
    sure = (
        f" (95\N{NO-BREAK SPACE}% interval {interval.low:.1f} to {interval.high:.1f} over the "
        "corruptions)"
        if interval
        else ""
    )
    drop = look("robustness", "clean", OURS, "relative_drop")
    theirs = look("robustness", "clean", REFERENCE, "corruptions")
    tail = ""
    if theirs:
        ours = look("robustness", "clean", OURS, "corruptions")
        tail = f"; it is {_compared(ours, theirs).than('task arithmetic')}"
    return (
        f"**On corrupted images {TITLE}, learned on clean ones, {verdict} the pretrained model.** "
        f"Its errors are {percent(ratio)} of the pretrained model's{sure}; it loses "
        f"{percent(drop)} of its accuracy without corruption{tail}."
    )


def _compared(ours: dict[str, Any], theirs: dict[str, Any]) -> Compared:
    """Means over corruptions and severities: corruption -> severity -> accuracy, of two methods."""
    first, second = by_corruption({"corruptions": ours}), by_corruption({"corruptions": theirs})
    gap = difference(sum(first.values()) / len(first), sum(second.values()) / len(second))
    return Compared(gap, paired(first, second), OVER)


def adapted_on_each(look: Look) -> str | None:
    """Learning on each corruption's own images."""
    return _adapted(look, "each", "Learning on the corrupted images themselves")


def adapted_on_mixture(look: Look) -> str | None:
    """Learning on a mixture of the corruptions."""
    return _adapted(look, "mixture", "Learning on a mixture of the corruptions")


def adapted_on_stream(look: Look) -> str | None:
    """Learning on a stream, each image seen once."""
    return _adapted(look, "stream", "Learning on a stream of corrupted images, each seen once,")


def adapted_on_small(look: Look) -> str | None:
    """Learning on a mixture in small batches."""
    return _adapted(look, "small", "Learning on a mixture in small batches")


def adapted_on_imbalanced(look: Look) -> str | None:
    """Learning on a mixture with imbalanced classes."""
    return _adapted(look, "imbalanced", "Learning on a mixture with imbalanced classes")


def _adapted(look: Look, condition: str, words: str) -> str | None:
    """A condition beside the same method learned on clean images, at the severity of both."""
    place = ("adapted",) if condition == "each" else ("conditions", condition)
    severity = str(look.config.profile.robustness.adapted.severity)
    if not look.has("robustness", *place, OURS) or not look.has("robustness", "clean", OURS):
        return None
    rows = look.files["robustness"]
    before = at_severity(rows["clean"][OURS], severity)
    for key in place:
        rows = rows[key]
    after = at_severity(rows[OURS], severity)
    if not before or not after:
        return None
    look("robustness", *place, OURS, "corruptions")
    look("robustness", "clean", OURS, "corruptions")
    gap = difference(after["avg"], before["avg"])
    found = Compared(gap, paired(after["corruptions"], before["corruptions"]), OVER)
    verdict = found.of_three("helps", "hurts", "makes no clear difference")
    return (
        f"**{words} {verdict}.** At severity {severity} {TITLE} then has {percent(after['avg'])}: "
        f"{found.than('the ' + percent(before['avg']) + ' of learning on clean images')}."
    )


def unseen_splits(look: Look) -> str | None:
    """Gain or loss on the unseen tasks of the profile's splits."""
    parts, outcomes = [], []
    for split, tasks in look.config.profile.generalization.splits.items():
        found = _gaps(look, "generalization", split)
        if not found:
            continue
        outcomes += [outcome for outcome, _ in found.values()]
        said = "; ".join(f"{inline(method)} {words}" for method, (_, words) in found.items())
        parts.append(f"{listed(look.titles(tasks.unseen))}: {said}.")
    if not parts:
        return None
    return (
        f"**Against the pretrained model {_verdict(outcomes)}, over {len(parts)} splits.** Gaps "
        f"({INTERVAL} over images) on {' On '.join(parts)}"
    )


def unseen_pairs(look: Look) -> str | None:
    """Gain or loss on unseen tasks, over every pair of them."""
    found = _gaps(look, "leave_two_out")
    if not found:
        return None
    parts = []
    for method, (_, words) in found.items():
        above = look("leave_two_out", method, "pairs_above_zero")
        pairs = look("leave_two_out", method, "pairs")
        parts.append(f"{inline(method)} {words}, above it on {above} of {pairs} pairs")
    return (
        f"**Against the pretrained model {_verdict([one for one, _ in found.values()])}.** With "
        f"every pair of tasks left out in turn, mean gaps ({INTERVAL} over images): "
        f"{'; '.join(parts)}."
    )


def _gaps(look: Look, file: str, *place: str) -> dict[str, tuple[str, str]]:
    """Method -> its outcome, and its gap in words, of the merges below `place`."""
    found = {}
    for method in look.names(file, *place):
        ends_of = look(file, *place, method, "gap_interval") if method != "pretrained" else None
        if ends_of is None:
            continue
        interval, gap = Interval(*ends_of), look(file, *place, method, "gap")
        outcome = Compared(gap, interval).of_three("gains", "loses", "no clear difference")
        found[method] = outcome, f"{signed(gap)} ({ends(interval)}; {outcome})"
    return found


def _verdict(outcomes: list[str]) -> str:
    kinds = {*outcomes}
    if kinds == {"gains"}:
        return "every merge gains on unseen tasks"
    if kinds == {"loses"}:
        return "every merge loses on unseen tasks"
    if kinds == {"no clear difference"}:
        return "no merge clearly gains or loses on unseen tasks"
    counts = [(outcomes.count("gains"), "gain"), (outcomes.count("loses"), "lose")]
    said = [f"{count} clearly {verb}{'s' if count == 1 else ''}" for count, verb in counts]
    return f"of {len(outcomes)} merges {listed(said)} on unseen tasks"


def unseen_tasks(look: Look) -> str | None:
    """On which unseen tasks layer-wise AdaMerging gains or loses."""
    tasks = look("leave_two_out", OURS, "tasks")
    if not tasks:
        return None
    gaps = {task: float(f"{row['gap']:.1f}") for task, row in tasks.items()}
    signs = {"gains": 1, "loses": -1}
    said = []
    for verb, sign in signs.items():
        own = sorted((t for t in gaps if gaps[t] * sign > 0), key=lambda t: -abs(gaps[t]))
        titles = zip(look.titles(own), own, strict=True)
        words = listed([f"{title} ({signed(gaps[task])})" for title, task in titles]) if own else ""
        said.append(f"{verb} on {words or 'none'}")
    gained = sum(gap > 0 for gap in gaps.values())
    return (
        f"**{TITLE} has a mean gap above zero on {gained} of {len(gaps)} tasks when they are "
        f"unseen.** It {listed(said)}. Single tasks have no intervals."
    )
