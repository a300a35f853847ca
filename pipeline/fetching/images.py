"""Where a task's images lie, and which of them each split gets."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Config
from pipeline.data.decoding import Encoded
from pipeline.data.folders import Folder, read_folder
from pipeline.data.shards import Shards, select_shards
from pipeline.data.splitting import parts
from pipeline.errors import UserError
from pipeline.fetching.listing import list_all
from pipeline.hub import Lock, RemoteFile, Repository
from pipeline.tasks import Task
from pipeline.tasks.names import label_order

# The hub converts data sets of other formats by itself, into this branch.
BRANCHES = ("main", "refs/convert/parquet")


@dataclass(frozen=True)
class FoundImages:
    """A task's images in parquet files of a data set on the hub."""

    task: Task
    files: tuple[RemoteFile, ...]
    corrupted: Mapping[str, tuple[RemoteFile, ...]] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """As records name it."""
        return self.files[0].repository.id

    @property
    def wanted(self) -> tuple[RemoteFile, ...]:
        """All that is to be downloaded."""
        return (*self.files, *(file for files in self.corrupted.values() for file in files))

    def __len__(self) -> int:
        """How many images the catalog says there are."""
        assert self.task.source is not None
        return self.task.source.size

    @property
    def count(self) -> int:
        """How many files they lie in."""
        return len(self.files)

    @property
    def pixels(self) -> list[Any]:
        """What decides the pixels of every row."""
        assert self.task.source is not None
        return [self.task.source.image, *(file.digest for file in self.files)]

    def opened(self, paths: Sequence[Path]) -> "OpenShards":
        """The images, once the files are there; raises `UserError` if it is not that data set."""
        return open_shards(self.task, paths)


@dataclass(frozen=True)
class OpenShards:
    """Images in parquet files that are here."""

    shards: Shards
    column: str  # of the labels
    order: np.ndarray  # int64: our class of the source's class k

    def __len__(self) -> int:
        return len(self.shards)

    @property
    def meaning(self) -> list[Any]:
        """What decides the labels of every row, besides the files."""
        return [self.column, self.order.tolist()]

    @property
    def labels(self) -> np.ndarray:
        """int64 [N], in the order of the files."""
        return self.shards.labels(self.order)

    def images(self) -> Iterator[Encoded]:
        """In the order of the files."""
        return self.shards.images(self.order)


def open_shards(task: Task, paths: Sequence[Path]) -> OpenShards:
    """The files of a published task's split; raises `UserError` if it is not that data set.

    The split is the one to test on, or one that has its images corrupted.
    """
    assert task.source is not None
    facts = task.source
    shards = Shards(paths, facts.image, facts.label)
    shards.check_size(facts.size, facts.repository)
    return OpenShards(shards, facts.label, label_order(task, shards.names, facts.repository))


@dataclass(frozen=True)
class OwnImages:
    """A task's images in a folder of the user's."""

    task: Task  # with the folder's classes
    source: str
    folder: Folder
    train: np.ndarray | None  # rows to fine-tune on, where the folder sets them apart
    test: np.ndarray  # rows of the others
    files: tuple[RemoteFile, ...] = ()  # nothing to download
    wanted: tuple[RemoteFile, ...] = ()

    def __len__(self) -> int:
        return len(self.folder)

    @property
    def count(self) -> int:
        """How many files they lie in."""
        return len(self.folder)

    @cached_property
    def pixels(self) -> list[str]:
        """What decides the pixels of every row."""
        return self.folder.digests

    def opened(self, paths: Sequence[Path]) -> Folder:
        """The images; nothing was downloaded for them."""
        return self.folder

    def duplicates(self, splits: Mapping[str, np.ndarray]) -> list[tuple[Path, Path]] | None:
        """Pairs of a file to train on and one of another split with the same bytes.

        An expert that is not made here counts as trained on what the folder sets apart for that;
        None where it sets nothing apart.
        """
        others = np.concatenate([rows for split, rows in splits.items() if split != "train"])
        if self.folder.train is None:
            return self.folder.duplicates(splits["train"], others) if "train" in splits else None
        tested = {self.folder.files[row] for row in others}
        return [pair for pair in self._set_apart if pair[1] in tested]

    @cached_property
    def _set_apart(self) -> list[tuple[Path, Path]]:
        """The same for all seeds."""
        assert self.folder.train is not None
        return self.folder.duplicates(self.folder.train, self.folder.test)


def find_images(config: Config, lock: Lock) -> dict[str, FoundImages | OwnImages]:
    """task -> where its images lie. Asks the hub, reads folders, and downloads nothing.

    Raises `UserError` for what is not there or not to be had.
    """
    own = config.profile.own_tasks
    tasks = {name: config.task(name) for name in config.profile.tasks if name not in own}
    of_hub = dict(_on_hub(config, tasks, lock))
    if lost := tasks.keys() - of_hub.keys():
        facts = tasks[min(lost)].source
        assert facts is not None
        raise UserError(
            f"{facts.repository} has no parquet files of the split '{facts.split}', neither of its "
            f"own nor converted by the hub: correct pipeline/tasks/hub/{min(lost)}.yaml, or name "
            f"another revision under data.revisions.{min(lost)}."
        )
    return {
        name: _own(config, name) if name in own else of_hub[name] for name in config.profile.tasks
    }


def _on_hub(
    config: Config, tasks: Mapping[str, Task], lock: Lock
) -> Iterator[tuple[str, FoundImages]]:
    """The tasks whose images are found: where they were last time, or else at the first place."""
    revisions = config.profile.data.revisions
    left = dict(tasks)
    for branch in BRANCHES:
        places = {}
        for name, task in left.items():
            assert task.source is not None
            revision = revisions.get(name, branch)
            place = Repository(task.source.repository, "dataset", revision)
            elsewhere = Repository(task.source.repository, "dataset", BRANCHES[-1])
            # What was fetched converted needs no look at the original, which offline is not there.
            if lock.files(place) or not lock.files(elsewhere):
                places[name] = place
        keys = {place: f"data.revisions.{name}" for name, place in places.items()}
        listed = list_all(keys, lock)
        for name, place in places.items():
            task, by_path = left[name], {file.path: file for file in listed[place]}
            assert task.source is not None
            asked = task.source.configuration, task.source.split
            if chosen := select_shards(sorted(by_path), *asked):
                corrupted = _corrupted(config, task, by_path)
                yield name, FoundImages(task, tuple(by_path[path] for path in chosen), corrupted)
                del left[name]


def _corrupted(
    config: Config, task: Task, by_path: Mapping[str, RemoteFile]
) -> dict[str, tuple[RemoteFile, ...]]:
    """The files of a task's corrupted splits, of those that `robustness` asks for."""
    asked = config.profile.robustness
    if asked.scale != "published" or task.name not in asked.tasks:
        return {}
    assert task.source is not None
    found = {}
    for name in asked.corruptions:
        split = task.source.corrupted[name]
        chosen = select_shards(sorted(by_path), task.source.configuration, split)
        if not chosen:
            raise UserError(
                f"{task.source.repository} has no parquet files of the split '{split}', which "
                f"holds its images under {name}: correct pipeline/tasks/hub/{task.name}.yaml, or "
                f"leave {name} out of robustness.corruptions."
            )
        found[name] = tuple(by_path[path] for path in chosen)
    return found


def _own(config: Config, name: str) -> OwnImages:
    profile = config.profile
    asked = profile.own_tasks[name]
    folder = read_folder(config.root / asked.images, asked.classes, name)
    task = replace(config.task(name), classes=folder.words, labels=folder.names)
    if name not in config.trained:
        return OwnImages(task, asked.images, folder, None, folder.test)
    if folder.train is None and profile.data.train is None:
        raise UserError(
            f"The expert of '{name}' is fine-tuned here, and nothing says on which images: divide "
            f"{asked.images} into train/ and test/, or give data.train the share to train on."
        )
    return OwnImages(task, asked.images, folder, folder.train, folder.test)


def divided(
    config: Config, name: str, found: FoundImages | OwnImages, count: int, seed: int
) -> dict[str, np.ndarray]:
    """split -> int64 rows of a task's `count` images, disjoint and drawn without labels.

    Transductive: all of the test split, in the same random order whatever the seed.
    """
    data = config.profile.data
    rows, splits = np.arange(count), {}
    if isinstance(found, OwnImages):
        rows = found.test
        if name in config.trained and found.train is not None:
            splits["train"] = found.train
        elif name in config.trained:
            share = data.train or 0.0  # `_own` has refused a folder without it
            taken = parts(len(rows), {"train": share, "test": 1 - share}, seed, name)
            splits["train"], rows = rows[taken["train"]], rows[taken["test"]]
    if config.profile.protocol == "transductive":
        shares, seed = {"eval": 1.0}, 0
    else:
        shares = {split: getattr(data, split) for split in ("adapt", "select", "eval")}
    return splits | {
        split: rows[part] for split, part in parts(len(rows), shares, seed, name).items()
    }
