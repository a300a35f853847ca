"""Corrupted images that are not made of the stored ones: `robustness.scale` adamerging, published.

They are made anew, from the files that `fetch` downloaded or from a user's own.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from stages._learning import unlabeled_split
from stages._stage import Stage

if TYPE_CHECKING:
    import numpy as np

    from pipeline.data.native import Wanted
    from pipeline.robustness import Chunks

    By = dict[tuple[str, str], Wanted]  # task, corruption


def from_files(run: Stage) -> bool:
    """Whether the profile's corrupted images are made of files, and not of the stored images."""
    return run.config.profile.robustness.scale in ("adamerging", "published")


def check_files(run: Stage) -> None:
    """Raise `UserError` unless all files are there and are those that were fetched."""
    for seed in run.config.profile.seeds:
        wanted_of(run, seed, "eval")


def wanted_of(run: Stage, seed: int, split: str, counts: Mapping[str, int] | None = None) -> "By":
    """What every task's corrupted images are made of; `counts`: the first so many of each task."""
    from pipeline.data.native import Wanted
    from pipeline.fetching.kept import kept_corrupted, kept_split

    asked, config, layout = run.config.profile.robustness, run.config, run.layout
    found = {}
    for task in asked.tasks:
        count = counts[task] if counts else None
        if asked.scale == "published":
            for name in asked.corruptions:
                found[task, name] = kept_corrupted(config, layout, task, seed, name, count)
        else:
            wanted: Wanted = kept_split(config, layout, task, seed, split, count)
            found |= {(task, name): wanted for name in asked.corruptions}
    return found


def published_files(run: Stage) -> list[str]:
    """The hashes of ready-made images, which decide what is learned on them."""
    from pipeline.fetching.kept import corrupted_files

    asked = run.config.profile.robustness
    if asked.scale != "published":
        return []
    places = [(task, name) for task in asked.tasks for name in asked.corruptions]
    return [one for at in places for one in corrupted_files(run.config, run.layout, *at)]


@contextmanager
def chunks_from_files(run: Stage, wanted: "By", seed: int) -> Iterator["Chunks"]:
    """As `pipeline.robustness.Chunks`; `seed`: of the noise."""
    from pipeline.data.decoding import worker_pool
    from pipeline.data.native import streamed_chunks

    scale = run.config.profile.robustness.scale
    # Processes that torchrun starts on one machine share its cores.
    workers = max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    with worker_pool(workers) as pool:
        made_here = None if scale == "published" else scale
        yield streamed_chunks(wanted, image_size(run), pool, made_here, seed)


@contextmanager
def images_to_learn_on(
    run: Stage,
    seed: int,
    corruptions: Sequence[str],
    kinds: Mapping[str, "np.ndarray"],
    rows: Mapping[str, "np.ndarray"],
) -> Iterator[dict[str, "np.ndarray"]]:
    """task -> uint8 [N, 3, size, size]: its images to learn on, image k under its corruption.

    That is number `kinds[task][k]` of `corruptions`, and the image row `rows[task][k]` of the split
    that is learned on. They lie in files without names, since steps
    of learning ask for them in any order.
    """
    import numpy as np

    from pipeline.conditions import noise_seed
    from pipeline.data.native import Wanted, unnamed_array

    asked, size = run.config.profile.robustness, image_size(run)
    every = wanted_of(run, seed, unlabeled_split(run))
    places = {
        (task, name): np.flatnonzero(kinds[task] == kind)
        for task in asked.tasks
        for kind, name in enumerate(corruptions)
    }
    wanted = {
        (task, name): Wanted(every[task, name].source, every[task, name].rows[rows[task][some]])
        for (task, name), some in places.items()
    }
    total, done = sum(map(len, places.values())), 0
    with ExitStack() as until:
        images = {}
        for task in asked.tasks:
            shape = len(kinds[task]), 3, size, size
            images[task] = until.enter_context(unnamed_array(run.cache.folder, shape))
        with (
            chunks_from_files(run, wanted, noise_seed(seed)) as chunks,
            run.progress("corrupting images to learn on", total) as update,
        ):
            for (task, name), some in places.items():
                for indices, pixels in chunks(task, name, asked.adapted.severity):
                    images[task][some[indices]] = pixels
                    done += len(indices)
                    update(done, f"{task} {name}")
        yield images


def image_size(run: Stage) -> int:
    """Pixels along an edge of what the model sees."""
    from stages._inputs import images_of

    profile = run.config.profile
    (images,) = images_of(run, profile.seeds[0], profile.robustness.tasks[:1], "eval").values()
    return int(images.shape[-1])
