"""Images as they were before they were decoded, found again where `fetch` left them.

For corruptions that are made at the images' own size, and for those that come ready-made. What the
record of `fetch` and the lock file name is read, and nothing else: not what a branch of the hub or
a folder holds by now.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from huggingface_hub import constants

from pipeline.config import Config
from pipeline.data import load_array
from pipeline.data.folders import Folder, read_folder
from pipeline.data.native import Wanted, same_place
from pipeline.data.shards import select_shards
from pipeline.errors import MissingInput, UserError
from pipeline.fetching.images import OpenShards, open_shards
from pipeline.files import read_json
from pipeline.hub import Lock, RemoteFile, Repository
from pipeline.layout import Layout
from pipeline.tasks import Task

MADE_BY = "python -m stages.fetch"
AGAIN = "'dvc repro --force fetch'"


def kept_images(config: Config, layout: Layout, task: str) -> OpenShards | Folder:
    """The source of a task's splits, whose rows splits.json names: encoded images, in its order.

    Raises `MissingInput` where files are gone, `UserError` where they are others by now.
    """
    facts = _facts(layout, task)
    own = config.profile.own_tasks.get(task)
    if own is None:
        return _shards(config.task(task), facts, layout)
    folder = read_folder(config.root / own.images, own.classes, task)
    if folder.sha256 != facts.get("sha256"):
        raise UserError(
            f"The images of '{task}' in {own.images} are others than were fetched: run {AGAIN}."
        )
    return folder


def kept_split(
    config: Config, layout: Layout, task: str, seed: int, split: str, count: int | None = None
) -> Wanted:
    """The first `count` images of a task's split, or all; raises as `kept_images`."""
    rows = _rows(layout, task, seed, split)
    return Wanted(kept_images(config, layout, task), rows[:count])


def kept_corrupted(
    config: Config, layout: Layout, task: str, seed: int, corruption: str, count: int | None = None
) -> Wanted:
    """What the hub has for the first `count` images of a task's `eval`, or all, corrupted.

    `eval` must be the whole test split. Labels agree with those of `eval`; whether it is the same
    image depends on the order of the hub's files (`pipeline.data.native.same_place`). Raises
    `MissingInput` where files are gone or never were fetched.
    """
    rows, labels = (
        _rows(layout, task, seed, "eval"),
        load_array(layout.labels(seed, task, "eval"), MADE_BY),
    )
    source = _shards(config.task(task), _facts(layout, task), layout, corruption)
    try:
        theirs = same_place(np.asarray(labels), rows, source.labels)
    except UserError as error:
        raise UserError(
            f"The split of '{task}' that is corrupted by {corruption} does not fit its test "
            f"split: {error}. Leave {task} out of robustness.tasks, or take scale: adamerging."
        ) from None
    return Wanted(source, theirs[:count])


def corrupted_files(config: Config, layout: Layout, task: str, corruption: str) -> list[str]:
    """The hashes of the files of a ready-made split."""
    files = _files(config.task(task), _facts(layout, task), layout, corruption)
    return [file.digest for file in files]


def _rows(layout: Layout, task: str, seed: int, split: str) -> np.ndarray:
    record = read_json(layout.splits(seed, task), MADE_BY)
    return np.array(record[split]["source_index"], np.int64)


def _facts(layout: Layout, task: str) -> Mapping[str, Any]:
    try:
        facts: Mapping[str, Any] = read_json(layout.sources, MADE_BY)["images"][task]
    except (KeyError, TypeError):
        raise MissingInput(
            f"{layout.sources} does not say where the images of '{task}' came from: run {AGAIN}."
        ) from None
    return facts


def _shards(
    task: Task, facts: Mapping[str, Any], layout: Layout, corruption: str | None = None
) -> OpenShards:
    files = _files(task, facts, layout, corruption)
    return open_shards(task, [file.content or file.place for file in files])


def _files(
    task: Task, facts: Mapping[str, Any], layout: Layout, corruption: str | None
) -> list[RemoteFile]:
    """The files of a split, all of which are there."""
    assert task.source is not None
    split = task.source.split if corruption is None else task.source.corrupted[corruption]
    repository = Repository(facts["source"], "dataset", facts["revision"])
    locked = {
        file.path: file
        for file in Lock.load(layout.lock).files(repository)
        if file.commit == facts["commit"]
    }
    chosen = select_shards(list(locked), task.source.configuration, split)
    files = [locked[path] for path in chosen]
    if not files or any(file.content is None for file in files):
        raise MissingInput(
            f"The files of {repository.id} that hold its split '{split}' are not, or not all, in "
            f"{constants.HF_HUB_CACHE}, and without them the images of '{task.name}' cannot be "
            f"tested as they were before they were decoded: run {AGAIN}."
        )
    return files
