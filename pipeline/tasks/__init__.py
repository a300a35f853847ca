"""Classification tasks: what a task is called and how its classes are put into words."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module

from pipeline.errors import unknown

SUITES: tuple[str, ...] = ("mini", "hub")
"""Known suites; each is a sub-package of this one that offers `TASKS`, in report order."""


@dataclass(frozen=True)
class HubImages:
    """Where the test images of a published task lie: a data set on the Hugging Face hub."""

    repository: str  # such as tanganke/sun397
    configuration: str | None  # such as cropped_digits; None where there is only one
    split: str  # the one used as test
    image: str  # column of encoded images
    label: str  # column of classes: numbers, or truth values for two of them
    size: int  # images in that split
    licence: str  # of the images
    url: str  # of the data set's own page
    indexed: bool = False  # its labels are bare numbers without names: k means `classes[k]`
    # Splits that hold the images corrupted, at severity 2: corruption -> split.
    corrupted: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A classification task; label k means `classes[k]`."""

    name: str
    title: str  # as printed in reports
    suite: str  # mini, hub, or own: defined in a profile
    classes: tuple[str, ...]
    templates: tuple[str, ...]  # sentences with one "{}" for the class name
    labels: tuple[str, ...] = ()  # what the images' source calls them, in this order; () = alike
    source: HubImages | None = None  # of a task of the suite hub


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
