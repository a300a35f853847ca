"""The real suites: what lies on the hub or here is found, downloaded, converted and decoded."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages._progress import say
from stages._stage import Stage

if TYPE_CHECKING:
    import numpy as np

    from pipeline.data.decoding import Target
    from pipeline.data.folders import Folder
    from pipeline.fetching.checkpoints import Found
    from pipeline.fetching.images import FoundImages, OpenShards, OwnImages
    from pipeline.fetching.outlines import Outline
    from pipeline.hub import RemoteFile

Images = Mapping[str, "FoundImages | OwnImages"]
Local = Mapping["RemoteFile", Path]
MADE_BY = "pipeline.fetching.images"  # with all that it imports: decoding, shards, folders, names


@dataclass(frozen=True)
class _Job:
    """A task's splits for a seed."""

    seed: int
    found: "FoundImages | OwnImages"
    source: "OpenShards | Folder"
    splits: Mapping[str, "np.ndarray"]
    duplicates: list[tuple[Path, Path]] | None

    @property
    def words(self) -> str:
        return f"{self.found.task.name}, seed {self.seed}"

    @property
    def images(self) -> int:
        return sum(len(rows) for rows in self.splits.values())


def fetch(run: Stage, accept: bool) -> dict[str, Any]:
    """Fetch a profile's checkpoints and images; returns where all of it came from."""
    from pipeline.fetching.checkpoints import find_checkpoints
    from pipeline.fetching.images import find_images
    from pipeline.fetching.outlines import check_models
    from pipeline.hub import Lock, check_room, download, missing_bytes
    from pipeline.tasks.words import write_words

    # What is accepted as it is now needs no look at what it was.
    lock = Lock(run.layout.lock) if accept else Lock.load(run.layout.lock)
    checkpoints = find_checkpoints(run.config, lock)
    images = find_images(run.config, lock)
    outline = check_models(checkpoints, run.config.profile.checkpoint.model)
    wanted = [file for found in checkpoints for file in found.files]
    wanted += [file for found in images.values() for file in found.wanted]
    files = list(dict.fromkeys(wanted))
    check_room(files)
    size, missing = sum(file.size for file in files), missing_bytes(files)
    check_project(run, images, outline, missing)
    run.plan(
        f"{len(checkpoints)} checkpoints and the images of {len(images)} tasks, "
        f"{size / 1e9:.2f} GB, {missing / 1e9:.2f} of it to download"
    )
    # Before the download, so that one that is broken off goes on with the same commits.
    Lock.of(run.layout.lock, files).write(run.layout.lock)
    with run.progress("downloading, MB", max(1, size // 10**6)) as update:
        local = download(files, lambda done, name: update(done // 10**6, name))
    check_corrupted(images, local)
    jobs = decode(run, images, local, convert(run, checkpoints, local))
    write_words(run.layout.tasks, [found.task for found in images.values()])
    total = sum(job.images for job in jobs)
    run.result = f"{len(checkpoints)} checkpoints, {total:,} images of {len(images)} tasks"
    return {
        "pretrained": source_facts(checkpoints[0]),
        "experts": {found.name: source_facts(found) for found in checkpoints[1:]},
        "images": {
            name: image_facts(found, [job for job in jobs if job.found is found])
            for name, found in images.items()
        },
    }


def check_project(run: Stage, images: Images, outline: "Outline", missing: int) -> None:
    """Raise `UserError` unless all that is written has room, `missing` bytes of downloads too."""
    from huggingface_hub import constants

    from pipeline.fetching.images import divided
    from pipeline.fetching.room import check_disks, same_disk

    size, artifacts, cache = outline.image_size, run.layout.artifacts, run.cache.folder
    linked, decoded = 0, {}
    for name, found in images.items():
        for seed in run.config.profile.seeds:
            for rows in divided(run.config, name, found, len(found), seed).values():
                linked += 3 * size * size * len(rows)
                decoded[kept_images(run, found, rows, size)] = 3 * size * size * len(rows)
    old = [run.layout.pretrained, *map(run.layout.fetched, run.config.profile.tasks)]
    weights = outline.weights - sum(path.stat().st_size for path in old if path.exists())
    needed = {
        "downloads": (Path(constants.HF_HUB_CACHE), missing),
        "decoded images": (cache, sum(n for path, n in decoded.items() if not path.exists())),
        "weights": (artifacts, max(0, weights)),
    }
    if not same_disk(cache, artifacts):  # where links are copies
        needed["copies of decoded images"] = artifacts, linked
    check_disks(needed)


def check_corrupted(images: Images, local: Local) -> None:
    """Raise `UserError` unless corrupted splits are of the same data sets as what they corrupt."""
    from pipeline.fetching.images import FoundImages, open_shards

    for found in images.values():
        if isinstance(found, FoundImages):
            for files in found.corrupted.values():
                open_shards(found.task, [local[file] for file in files])


def convert(run: Stage, checkpoints: Sequence["Found"], local: Local) -> int:
    """Write the pretrained model and the experts under this project's names; the image size."""
    import json

    from pipeline.checkpoints.reading import read_clip, read_image_encoder
    from pipeline.checkpoints.writing import open_arrays, write_safetensors
    from pipeline.fetching.checkpoints import naming

    profile, layout = run.config.profile, run.layout
    pretrained, *experts = checkpoints
    with run.progress("converting", len(checkpoints)) as update:
        path, file = pretrained.local(local)
        with naming(path, pretrained.called):
            arrays, architecture = read_clip(path, profile.checkpoint.model, file)
        facts: dict[str, str] = {"family": profile.checkpoint.family}
        facts |= {"architecture": json.dumps(architecture), "tokenizer": "clip"}
        write_safetensors(layout.pretrained, arrays, facts | source_facts(pretrained))
        update(1, pretrained.name)
        arrays = open_arrays(layout.pretrained, "python -m stages.fetch")
        for done, expert in enumerate(experts, start=2):
            path, file = expert.local(local)
            with naming(path, expert.called):
                weights = read_image_encoder(path, arrays, architecture, file)
            facts = {"family": profile.checkpoint.family, "task": expert.name}
            write_safetensors(layout.fetched(expert.name), weights, facts | source_facts(expert))
            del weights  # all of a pickle, which would stay while the next one is read
            update(done, expert.name)
    return int(architecture["vision_cfg"]["image_size"])


def decode(run: Stage, images: Images, local: Local, size: int) -> list[_Job]:
    """Write every task's splits for every seed; returns what they are."""
    jobs = list(_jobs(run, images, local))
    total, done = sum(job.images for job in jobs), 0
    with run.progress("decoding", total) as update:
        for job in jobs:
            decode_task(run, job, size, partial(_report, update, done, job.words))
            done += job.images
            update(done, job.words)
    return jobs


def _jobs(run: Stage, images: Images, local: Local) -> Iterator[_Job]:
    from pipeline.fetching.images import divided

    for name, found in images.items():
        source = found.opened([local[file] for file in found.files])
        for seed in run.config.profile.seeds:
            splits = divided(run.config, name, found, len(source), seed)
            job = _Job(seed, found, source, splits, _duplicates(run, found, splits))
            if job.duplicates:
                one, other = job.duplicates[0]
                say(
                    f"  {job.words}: {len(job.duplicates)} of the images to test on are trained on "
                    f"as well, such as {other} ({one}): the figures will be too good"
                )
            yield job


def _duplicates(
    run: Stage, found: "FoundImages | OwnImages", splits: Mapping[str, "np.ndarray"]
) -> list[tuple[Path, Path]] | None:
    """Images trained on and tested on, as seen from the project: alike on every machine."""
    from pipeline.fetching.images import OwnImages

    pairs = found.duplicates(splits) if isinstance(found, OwnImages) else None
    if pairs is None:
        return None
    seen = partial(os.path.relpath, start=run.config.root)
    return [(Path(seen(one)), Path(seen(other))) for one, other in pairs]


def _report(update: Callable[[int, str], None], before: int, words: str, done: int) -> None:
    update(before + done, words)


def decode_task(run: Stage, job: _Job, size: int, on_progress: Callable[[int], None]) -> None:
    """Write a task's splits for a seed: decoded now, or found in the cache."""
    from pipeline.data import decoding
    from pipeline.data.splitting import splits_record
    from pipeline.files import write_json

    seed, name = job.seed, job.found.task.name
    kept = {split: _kept(run, job, split, rows, size) for split, rows in job.splits.items()}
    new = [target for target in kept.values() if not target.complete]
    if new:
        decoding.decode(job.source.images(), new, size, os.cpu_count() or 1, on_progress)
    for split, target in kept.items():
        run.cache.link(target.images, run.layout.images(seed, name, split))
        if target.labels is not None:
            run.cache.link(target.labels, run.layout.labels(seed, name, split))
    write_json(run.layout.splits(seed, name), splits_record(kept, job.duplicates))


def _kept(run: Stage, job: _Job, split: str, rows: "np.ndarray", size: int) -> "Target":
    """Where the cache has a split; `adapt` has no labels."""
    from pipeline.data import UNLABELED
    from pipeline.data.decoding import Target

    images = kept_images(run, job.found, rows, size)
    inputs = {"source": job.found.pixels, "rows": _hash(rows), "meaning": job.source.meaning}
    labels = run.cache.entry("images", MADE_BY, inputs, ".labels.npy")
    return Target(rows, images, labels if split != UNLABELED else None)


def kept_images(
    run: Stage, found: "FoundImages | OwnImages", rows: "np.ndarray", size: int
) -> Path:
    """Where the cache has these images, whatever they are labelled."""
    inputs = {"source": found.pixels, "rows": _hash(rows), "size": size}
    return run.cache.entry("images", MADE_BY, inputs, ".npy")


def _hash(rows: "np.ndarray") -> str:
    return hashlib.sha256(rows.tobytes()).hexdigest()


def source_facts(found: "Found") -> dict[str, str]:
    """Where a checkpoint came from, for the record and the headers of the files made of it."""
    if found.path is not None:
        return {"source": found.source} | ({"sha256": found.sha256} if found.sha256 else {})
    first = found.weights[0]
    return {
        "source": found.source,
        "revision": first.repository.revision,
        "commit": first.commit,
        "file": first.path,
        first.hashed_by: first.digest,
    }


def image_facts(found: "FoundImages | OwnImages", jobs: Sequence[_Job]) -> dict[str, Any]:
    """Where a task's images came from; how many to test on are trained on, at most for a seed."""
    from pipeline.fetching.images import FoundImages

    facts: dict[str, Any] = {"source": found.source, "files": found.count}
    if isinstance(found, FoundImages):
        first = found.files[0]
        facts |= {"revision": first.repository.revision, "commit": first.commit}
        facts |= {"corrupted": list(found.corrupted)} if found.corrupted else {}
    else:
        facts["sha256"] = found.folder.sha256
    known = [len(job.duplicates) for job in jobs if job.duplicates is not None]
    return facts | ({"duplicates": max(known)} if known else {})
