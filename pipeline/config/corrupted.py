"""Corrupted images that are not made of the stored ones: what must be so for them to be there."""

from pipeline.config.sections import Profile
from pipeline.corruptions import PUBLISHED_SEVERITY
from pipeline.errors import UserError
from pipeline.tasks import get_task


def check_corrupted(profile: Profile) -> None:
    """Raise `UserError` where `robustness.scale` asks for images that there are not."""
    asked = profile.robustness
    if asked.scale not in ("adamerging", "published"):
        return
    where = f"robustness.scale '{asked.scale}'"
    if profile.suite == "mini":
        raise UserError(
            f"{where} is for images that are fetched, and the suite 'mini' draws its own: take "
            "cifar, tiny or imagenet."
        )
    for key, severities in {
        "severities": asked.severities,
        "adapted.severity": (asked.adapted.severity,),
    }.items():
        if severities != (PUBLISHED_SEVERITY,):
            only = f"[{PUBLISHED_SEVERITY}]" if key == "severities" else PUBLISHED_SEVERITY
            raise UserError(
                f"{where} is one severity, that of the published tables: set robustness.{key} to "
                f"{only}."
            )
    if asked.scale == "published":
        _check_published(profile)


def _check_published(profile: Profile) -> None:
    asked = profile.robustness
    if profile.protocol != "transductive":
        raise UserError(
            "robustness.scale 'published' needs protocol 'transductive': the hub's corrupted "
            "splits do not say which image of the test split a row is, so images to learn from "
            "and to test on cannot be kept apart. Take scale: adamerging."
        )
    for task in asked.tasks:
        source = None if task in profile.own_tasks else get_task(profile.suite, task).source
        there = source.corrupted if source is not None else {}
        if missing := [name for name in asked.corruptions if name not in there]:
            has = f"only {', '.join(there)}" if there else "none"
            raise UserError(
                f"robustness.scale 'published': the hub has no images of '{task}' under "
                f"{missing[0]} ({has}). Leave it out, or take scale: adamerging."
            )
