"""Classification tasks: what a task is called and how its classes are put into words."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module

from pipeline.errors import unknown

SUITES: tuple[str, ...] = ("mini",)
"""Known suites; each is a sub-package of this one that offers `TASKS`, in report order."""


@dataclass(frozen=True)
class Task:
    """A classification task; label k means `classes[k]`."""

    name: str
    title: str  # as printed in reports
    suite: str
    classes: tuple[str, ...]
    templates: tuple[str, ...]  # sentences with one "{}" for the class name


def task_names(suite: str) -> tuple[str, ...]:
    """Names of the tasks of `suite`, in report order; UserError for an unknown suite."""
    return tuple(_tasks(suite))


def get_task(suite: str, name: str) -> Task:
    """The task `name` of `suite`; UserError, with a suggestion, if there is none."""
    tasks = _tasks(suite)
    if name not in tasks:
        raise unknown(f"task of suite {suite}", name, tasks)
    return tasks[name]


def _tasks(suite: str) -> Mapping[str, Task]:
    if suite not in SUITES:
        raise unknown("suite", suite, SUITES)
    return import_module(f"pipeline.tasks.{suite}").TASKS
