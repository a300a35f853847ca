"""Every name in a profile against the table that gives it a meaning."""

import re
from typing import Any

from pipeline.conditions import CONDITIONS
from pipeline.config.sections import OwnTask, Profile, Robustness
from pipeline.corruptions import CORRUPTIONS
from pipeline.errors import UserError, unknown
from pipeline.merging.methods import METHODS
from pipeline.merging.options import check_count, check_options
from pipeline.tasks import SUITES, task_names


def check_names(profile: Profile) -> None:
    """Every name in the profile must be in the table that gives it a meaning."""
    if profile.suite not in SUITES:
        raise unknown("suite", profile.suite, SUITES)
    known = task_names(profile.suite)
    for name, task in profile.own_tasks.items():
        _check_own(name, task, known)
    _each_known("task", profile.tasks, (*known, *profile.own_tasks))
    experts, data = profile.experts, profile.data
    keyed = {"experts.names": experts.names, "experts.revisions": experts.revisions}
    for key, by_task in (keyed | {"data.revisions": data.revisions}).items():
        _each_known(f"task (of those in 'tasks') in {key}", tuple(by_task), profile.tasks)
    splits = profile.generalization.splits.values()
    for tasks in (profile.robustness.tasks, *((*s.seen, *s.unseen) for s in splits)):
        _each_known("task (of those in 'tasks')", tasks, profile.tasks)
    _check_robustness(profile.robustness)
    learning = [name for name, method in METHODS.items() if method.learns]
    merging = [name for name in METHODS if name not in learning]
    _each_known("method (of those that learn no coefficients)", profile.merge.methods, merging)
    _each_known("method (of those that learn coefficients)", profile.learn.methods, learning)
    unlabeled = [name for name in profile.learn.methods if not METHODS[name].reads("labels")]
    for listed in (profile.robustness.adapted.methods, tuple(profile.learn.coefficients)):
        _each_known("method (of those in 'learn' without labels)", listed, unlabeled)
    single = [
        name
        for name, method in METHODS.items()
        if not (method.reads("labels") or method.reads("task_identity"))
    ]
    _each_known(
        "method (of those with one model, without labels)", profile.generalization.methods, single
    )
    _check_merging(profile)
    if profile.protocol == "transductive" and (
        tuned := [name for name in profile.learn.methods if METHODS[name].reads("labels")]
    ):
        raise UserError(
            f"protocol 'transductive' refuses choices made with labels: remove {', '.join(tuned)}."
        )


def _check_merging(profile: Profile) -> None:
    """Options of merging methods, and how many experts they take."""
    options, generalization = profile.merge.options, profile.generalization
    used = [m for m in (*profile.merge.methods, *generalization.methods) if not METHODS[m].learns]
    _each_known("method (of those in 'merge') in merge.options", tuple(options), used)
    for method, chosen in options.items():
        check_options(method, chosen)
    for method in profile.merge.methods:
        check_count(method, len(profile.tasks), options.get(method, {}))
    counts = {len(split.seen) for split in generalization.splits.values()}
    if generalization.leave_two_out:
        if len(profile.tasks) < 3:
            raise UserError(
                f"generalization.leave_two_out leaves nothing of {len(profile.tasks)} tasks: give "
                "three or more, or leave_two_out: false."
            )
        counts.add(len(profile.tasks) - 2)
    for count in sorted(counts):
        for method in generalization.methods:
            check_count(method, count, options.get(method, {}))


def _check_robustness(asked: Robustness) -> None:
    _each_known("corruption", asked.corruptions, CORRUPTIONS)
    adapted = asked.adapted
    _each_known("condition of robustness.adapted", adapted.conditions, CONDITIONS)
    if adapted.methods and adapted.severity not in asked.severities:
        raise UserError(
            f"robustness.adapted.severity is {adapted.severity}, at which nothing else is tested: "
            f"add it to robustness.severities ({', '.join(map(str, asked.severities))})."
        )


def _check_own(name: str, task: OwnTask, known: tuple[str, ...]) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UserError(
            f"own_tasks: '{name}' is no name: take small letters, digits and '_', a letter first."
        )
    if name in known:
        raise UserError(f"own_tasks: '{name}' is a task of the suite: take another name.")
    if name == "any":
        raise UserError(
            "own_tasks: 'any' means all tasks where a model is used: take another name."
        )
    for template in task.templates:
        if template.count("{}") != 1 or re.search(r"[{}]", template.replace("{}", "")):
            raise UserError(
                f"own_tasks.{name}.templates: '{template}' must hold {{}} once, where the class "
                "goes, and no other brace."
            )


def _each_known(kind: str, names: tuple[str, ...], known: Any) -> None:
    for name in names:
        if name not in known:
            raise unknown(kind, name, known)
    if len(set(names)) < len(names):
        raise UserError(f"A {kind} is listed twice in: {', '.join(names)}.")
