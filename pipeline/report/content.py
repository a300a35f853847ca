"""Everything the report says, read from the files that the stages wrote into one structure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.files import read_json
from pipeline.layout import Layout
from pipeline.merging.methods import METHODS
from pipeline.report.learned import (
    Learned,
    Similarity,
    read_learned,
    read_merging,
    read_similarity,
)
from pipeline.report.predicted import Confusion, read_confusion
from pipeline.report.samples import BEFORE, TaskSamples, read_samples
from pipeline.report.stages import STAGES, stage_command
from pipeline.statistics import Interval

REFERENCE = "task_arithmetic"  # the merge without learning that the learned ones are held against


@dataclass(frozen=True)
class Content:
    """The report's facts. Accuracies are in percent, means over seeds."""

    config: Config
    clean: Mapping[str, Mapping[str, Any]]  # method -> figures, as in metrics/<profile>/clean.json
    robustness: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    generalization: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    leave_two_out: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    learned: Mapping[str, Learned] = field(default_factory=dict)
    merging: Mapping[str, float] = field(default_factory=dict)  # method -> seconds of its merge
    similarity: Similarity | None = None
    confusion: Confusion | None = None  # of `best` on its worst task
    samples: tuple[TaskSamples, ...] = ()  # before merging and after it by `best`
    gain: Interval | None = None  # of `best` over task arithmetic
    runs: tuple[Mapping[str, Any], ...] = ()
    sources: Mapping[str, Any] = field(default_factory=dict)  # of checkpoints and images
    absent: Mapping[str, str] = field(default_factory=dict)  # what is left out -> command for it

    @property
    def tasks(self) -> tuple[str, ...]:
        """Task names in report order."""
        return self.config.profile.tasks

    @property
    def methods(self) -> tuple[str, ...]:
        """Method names in report order."""
        return self.config.methods

    @cached_property
    def task_titles(self) -> dict[str, str]:
        """Task name -> how it is printed."""
        return task_titles(self.config)

    @property
    def best(self) -> str | None:
        """The single merged model with the highest average that needed no label."""
        return best_of(self, (m for m in self.methods if competes(m) and m != "pretrained"))

    def worst(self, method: str) -> str:
        """The task that a method is worst on."""
        return min(self.tasks, key=self.clean[method]["tasks"].__getitem__)


def task_titles(config: Config) -> dict[str, str]:
    """Task name -> how it is printed, in report order."""
    return {task: config.task(task).title for task in config.profile.tasks}


def best_of(content: Content, methods: Iterable[str]) -> str | None:
    """The one with the highest clean average; None of none. What has no clean figures is last."""
    averages = {m: content.clean[m]["avg"] if m in content.clean else 0.0 for m in methods}
    return max(averages, key=averages.__getitem__, default=None)


def one_per_task(method: str) -> bool:
    """Whether a method is not one model, but wants the task of an image or parameters for each."""
    row = METHODS[method]
    return row.reads("task_identity") or row.reads("extra_parameters")


def competes(method: str) -> bool:
    """Whether a method makes one model for all tasks without reading a label."""
    return not METHODS[method].reads("labels") and not one_per_task(method)


def is_adamerging(method: str) -> bool:
    """Whether a method learns its coefficients without labels."""
    return METHODS[method].learns and not METHODS[method].reads("labels")


def read_clean(config: Config, layout: Layout) -> dict[str, Any]:
    """The clean accuracies. Raises `MissingInput`, or `UserError` if a method or task lacks."""
    path, made_by = layout.metric("clean"), stage_command("evaluate")
    clean = read_json(path, made_by)
    for method in config.methods:
        if not set(config.profile.tasks) <= set(clean.get(method, {}).get("tasks", ())):
            raise UserError(f"{path} lacks figures of {method}. Run '{made_by}' again.")
    return clean


def read_content(config: Config, layout: Layout) -> Content:
    """Read all that is there. Raises `MissingInput` if the clean accuracies are not."""
    content = Content(config, read_clean(config, layout))
    absent: dict[str, str] = {}

    def metric(name: str, stage: str, what: str) -> dict[str, Any]:
        if layout.metric(name).exists():
            return read_json(layout.metric(name), stage_command(stage))
        absent[what] = stage_command(stage)
        return {}

    robustness = metric("robustness", "robustness", "robustness")
    generalization = metric("generalization", "generalization", "generalization")
    pairs = {}
    if generalization and config.profile.generalization.leave_two_out:
        pairs = metric("leave_two_out", "generalization", "every pair of unseen tasks")
    absent |= _older(content.clean, robustness, generalization)
    learned = read_learned(config, layout)
    if learned is None:
        absent["learned coefficients"] = stage_command("learn")
    similarity = read_similarity(config, layout)
    if similarity is None:
        absent["task vectors"] = stage_command("vectors")
    confusion, samples, lacking = _of_images(content, layout)
    return replace(
        content,
        robustness=robustness,
        generalization=generalization,
        leave_two_out=pairs,
        learned=learned or {},
        merging=read_merging(config, layout),
        similarity=similarity,
        confusion=confusion,
        samples=samples,
        gain=_gain(content),
        runs=tuple(_read_runs(layout)),
        sources=read_json(layout.sources, stage_command("fetch"))
        if layout.sources.exists()
        else {},
        absent=absent | lacking,
    )


def _of_images(
    content: Content, layout: Layout
) -> tuple[Confusion | None, tuple[TaskSamples, ...], dict[str, str]]:
    """What is shown of single images, and what lacks -> the command that adds it."""
    best, lacking = content.best, {}
    if best is None:
        return None, (), {}
    confusion = read_confusion(content.config, layout, best, content.worst(best))
    if confusion is None:
        lacking["confusions of the worst task"] = stage_command("evaluate")
    if BEFORE not in content.methods:
        return confusion, (), lacking
    samples = read_samples(content.config, layout, best)
    if samples is None:
        lacking["sample images before and after merging"] = stage_command("fetch")
    return confusion, samples or (), lacking


def _older(
    clean: Mapping[str, Any], robustness: Mapping[str, Any], generalization: Mapping[str, Any]
) -> dict[str, str]:
    """What metrics files of an earlier version lack -> the command that adds it."""
    corrupted = robustness.get("clean", {})
    gapless = (row for split in generalization.values() for row in split.values())
    lacking = {
        "intervals, calibration and joint accuracy": (
            "evaluate",
            any("ece_mass" not in row or "beside" not in row for row in clean.values()),
        ),
        "errors beside the pretrained model's": (
            "robustness",
            "pretrained" in corrupted and any("error_ratio" not in r for r in corrupted.values()),
        ),
        "gaps on unseen tasks": ("generalization", any("gap_interval" not in r for r in gapless)),
    }
    return {what: stage_command(stage) for what, (stage, lacks) in lacking.items() if lacks}


def _gain(content: Content) -> Interval | None:
    """Interval of the best model's gain over task arithmetic, as `evaluate` found it.

    Both models saw the same images, so it is that of the paired differences. None where task
    arithmetic is itself the best, or was not tested.
    """
    if content.best is None:
        return None
    beside = content.clean[content.best].get("beside", {}).get(REFERENCE)
    return beside and Interval(*beside["interval"])


def _read_runs(layout: Layout) -> Iterator[dict[str, Any]]:
    """The runs of the stages before this one, in the pipeline's order."""
    for stage in STAGES:
        if layout.run(stage).exists():
            yield read_json(layout.run(stage), stage_command(stage))
