"""Statements about clean images: accuracy, calibration, the joint evaluation, cost."""

from pipeline.findings.look import Look
from pipeline.merging.methods import METHODS
from pipeline.report.clear import level
from pipeline.report.content import REFERENCE, competes
from pipeline.report.page import duration
from pipeline.report.tables import difference, printed
from pipeline.report.words import TUNED, inline, listed, named, percent

OURS = "adamerging_layerwise"
TITLE = METHODS[OURS].title
PLUS = {OURS: "adamerging_layerwise_pp", "adamerging_taskwise": "adamerging_taskwise_pp"}
RECENT = ("tsv_m", "iso_c", "iso_cts", "wudi")  # need weights only


def against_task_arithmetic(look: Look) -> str | None:
    """Layer-wise AdaMerging beside task arithmetic."""
    return _against(look, REFERENCE, "task arithmetic")


def against_tuned(look: Look) -> str | None:
    """Layer-wise AdaMerging beside task arithmetic tuned on labels."""
    return _against(look, TUNED, "task arithmetic with its coefficient tuned on labels")


def against_regmean(look: Look) -> str | None:
    """Layer-wise AdaMerging beside RegMean, which reads the same images."""
    return _against(look, "regmean", "RegMean, which reads the same images and the experts")


def _against(look: Look, other: str, words: str) -> str | None:
    found = look.compared(OURS, other)
    if found is None:
        return None
    verdict = found.of_three("is above", "is below", "and")
    tail = "" if verdict != "and" else " do not differ clearly"
    average = look.average(OURS)
    return (
        f"**{TITLE} {verdict} {words}{tail}.** It has {percent(average or 0)} on average, "
        f"{found.than(words.split(',')[0])}, and is the more accurate on "
        f"{look.wins(OURS, other)} tasks."
    )


def level_with_the_best(look: Look) -> str | None:
    """Which methods are level with the best."""
    rivals = [method for method in look.names("clean") if competes(method)]
    found = level(look.files.get("clean", {}), rivals)
    if not found:
        return None
    best = max(found, key=lambda method: look.files["clean"][method]["avg"])
    others = [method for method in found if method != best]
    look.used["clean", ("*", "beside", best, "interval")] = None  # of every method
    average = percent(look.average(best) or 0)
    if not others:
        return (
            f"**{inline(best)[0].upper()}{inline(best)[1:]} is the best single model without "
            f"labels.** It has {average}; all {len(rivals) - 1} others are clearly below it."
        )
    return (
        f"**No single model without labels is clearly the best.** {METHODS[best].title} has the "
        f"highest average, {average}; level with it on these images "
        f"{'is' if len(others) == 1 else 'are'} {named(others, len(others))}. The other "
        f"{len(rivals) - len(found)} are clearly below it."
    )


def plus_plus(look: Look) -> str | None:
    """Whether the ++ variants help."""
    found = {}
    for plain, plus in PLUS.items():
        if (one := look.compared(plus, plain)) is not None:
            found[plain, plus] = one
    if not found:
        return None
    kinds = {one.of_three("help", "hurt", "change nothing clearly") for one in found.values()}
    verdict = kinds.pop() if len(kinds) == 1 else "help in one form and not in the other"
    each = [f"{METHODS[p].title} is {one.than(inline(m))}" for (m, p), one in found.items()]
    return f"**The ++ variants {verdict}.** {'; '.join(each)}."


def weights_only(look: Look) -> str | None:
    """Whether recent methods that need weights only are above layer-wise AdaMerging."""
    found = {m: one for m in RECENT if (one := look.compared(m, OURS)) is not None}
    if not found:
        return None
    outcomes: dict[str, list[str]] = {"above": [], "below": [], "same": []}
    for method, one in found.items():
        outcomes[one.of_three("above", "below", "same")].append(
            f"{METHODS[method].title} is {one.than(TITLE)}"
        )
    above = len(outcomes["above"])
    count = "None" if above == 0 else "All" if above == len(found) else str(above)
    verb = "is" if above in (0, 1) else "are"
    return (
        f"**{count} of {len(found)} recent methods that need weights only {verb} above {TITLE}.** "
        f"{'; '.join(part for group in outcomes.values() for part in group)}."
    )


def kept_of_the_experts(look: Look) -> str | None:
    """How much of the experts' accuracy is kept."""
    share, top = look("clean", OURS, "normalized"), look.average("experts")
    if share is None or top is None:
        return None
    masks = [m for m in ("tall_mask", "emr") if look.has("clean", m, "normalized")]
    others = [f"{METHODS[m].title} {percent(look('clean', m, 'normalized'))}" for m in masks]
    return (
        f"**{TITLE} keeps {percent(share)} of the experts' accuracy.** The experts, one model per "
        f"task, average {percent(top)}."
        + (f" With parameters for every task besides: {listed(others)}." if others else "")
    )


def calibration(look: Look) -> str | None:
    """Whether minimising entropy makes the model over-confident."""
    keys = ("entropy", "ece", "ece_mass", "nll", "brier")
    rows = {m: {key: look("clean", m, key) for key in keys} for m in (REFERENCE, OURS)}
    if any(value is None for row in rows.values() for value in row.values()):
        return None
    before, after = rows[REFERENCE], rows[OURS]
    changes = {
        "ece": difference(after["ece"], before["ece"]),
        "nll": round(after["nll"] - before["nll"], 3),
    }
    if all(change > 0 for change in changes.values()):
        verdict = "makes it worse calibrated"
    elif all(change < 0 for change in changes.values()):
        verdict = "does not make it worse calibrated: both errors fall"
    else:
        verdict = "changes calibration in no clear direction"
    return (
        f"**Minimising entropy {verdict}.** From task arithmetic, where learning starts, to "
        f"{TITLE} the mean entropy of predictions goes from {before['entropy']:.3f} to "
        f"{after['entropy']:.3f} nats, ECE from {percent(before['ece'])} to "
        f"{percent(after['ece'])} (bins of equal mass: {percent(before['ece_mass'])} to "
        f"{percent(after['ece_mass'])}), NLL from {before['nll']:.3f} to {after['nll']:.3f} nats, "
        f"the Brier score from {before['brier']:.3f} to {after['brier']:.3f}. These figures have "
        "no intervals."
    )


def joint(look: Look) -> str | None:
    """What the task's identity is worth."""
    alone, together = look.average(OURS), look("clean", OURS, "joint")
    same = look("clean", OURS, "joint_same_words")
    if alone is None or together is None or same is None:
        return None
    lost = difference(alone, together)
    verdict = (
        (f"costs {printed(lost)} points" if lost > 0 else f"gains {printed(-lost)} points")
        if lost
        else "changes nothing"
    )
    other = look("clean", REFERENCE, "joint")
    return (
        f"**Not knowing an image's task {verdict}.** Among the classes of all tasks together "
        f"{TITLE} has {percent(together)}, against {percent(alone)} with the task known; "
        f"{percent(same)} where the same words in another task count as right."
        + (f" Task arithmetic has {percent(other)}." if other is not None else "")
        + " These figures have no intervals."
    )


def cost(look: Look) -> str | None:
    """What methods cost."""
    rows = look.files.get("cost", {}).get("rows", {})
    if OURS not in rows:
        return None
    seconds = look("cost", "rows", OURS, "seconds")
    longer = [m for m in rows if m != OURS and look("cost", "rows", m, "seconds") > seconds]
    quick = [m for m in (REFERENCE, *RECENT, "regmean") if m in rows]
    beside = [f"{inline(m)} {duration(rows[m]['seconds'])}" for m in quick]
    verdict = (
        "takes the longest"
        if not longer
        else "takes the shortest"
        if len(longer) == len(rows) - 1
        else f"takes longer than {len(rows) - 1 - len(longer)} of {len(rows) - 1} other methods"
    )
    return (
        f"**{TITLE} {verdict}.** It takes {duration(seconds)} and "
        f"{look('cost', 'rows', OURS, 'above_gb'):.2f} GB above the bare process"
        + (f"; {listed(beside)}" if beside else "")
        + ". Measured once, each in a process of its own."
    )
