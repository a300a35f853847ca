"""One merge of seen tasks after the other, tested on seen and unseen ones."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages._stage import Stage

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from pipeline.config.sections import Profile


@dataclass(frozen=True)
class Job:
    """One merged model and what it is tested on, both in the order of the profile's tasks.

    In that order whatever a split says, so that a split of the profile that is a pair left out as
    well is one merge, with the same figures.
    """

    method: str
    seed: int
    seen: tuple[str, ...]  # merged; none for the pretrained model, which no split changes
    tested: tuple[str, ...]


def left_out(profile: "Profile") -> dict[str, tuple[str, str]]:
    """Name -> the pair, of the pairs of tasks that are left out in turn, if any are."""
    from pipeline.unseen import pairs

    return pairs(profile.tasks) if profile.generalization.leave_two_out else {}


def without(profile: "Profile", pair: Iterable[str]) -> tuple[str, ...]:
    """All tasks but a pair."""
    return in_order(profile, set(profile.tasks).difference(pair))


def in_order(profile: "Profile", tasks: Iterable[str]) -> tuple[str, ...]:
    """`tasks` in the order of the profile's."""
    chosen = set(tasks)
    return tuple(task for task in profile.tasks if task in chosen)


def jobs_of(profile: "Profile") -> list[Job]:
    """Every merge to test, those that take the longest first."""
    from pipeline.merging.methods import METHODS
    from pipeline.unseen import REFERENCE

    asked, tested = profile.generalization, dict[tuple[str, ...], set[str]]()
    for split in asked.splits.values():
        tested.setdefault(in_order(profile, split.seen), set()).update(split.seen, split.unseen)
    for pair in left_out(profile).values():
        tested[without(profile, pair)] = set(profile.tasks)
    tested[()] = set().union(*tested.values())
    jobs = [
        Job(method, seed, seen, in_order(profile, tasks))
        for method in dict.fromkeys((REFERENCE, *asked.methods))
        for seen, tasks in tested.items()
        for seed in profile.seeds
        if bool(seen) is (method != REFERENCE) and tasks
    ]
    return sorted(jobs, key=lambda job: METHODS[job.method].reads("images"), reverse=True)


def entry_of(run: Stage, job: Job) -> Path:
    """The cache's entry of what `job` finds: it rests on nothing of tasks that it leaves out."""
    from pipeline.merging.methods import METHODS
    from pipeline.sources import fingerprint

    layout, row = run.layout, METHODS[job.method]
    inputs: dict[str, Any] = {
        "pretrained": layout.pretrained,
        "tested": job.tested,
        "heads": [layout.head(task) for task in job.tested],
        "images": [layout.images(job.seed, task, "eval") for task in job.tested],
        "labels": [layout.labels(job.seed, task, "eval") for task in job.tested],
        "precision": run.precision(),
        "predicted_by": fingerprint("pipeline.predictions"),
        "method": job.method,
    }
    if row.learns:
        from stages._learning import adapt_inputs

        inputs["learned_from"] = adapt_inputs(run, job.seed, job.method, job.seen)
        inputs["learned_by"] = fingerprint("pipeline.learning.loop")
        return run.cache.entry("unseen", "pipeline.processing", inputs, ".npz")
    from stages.merge import options_of

    split = "adapt" if run.config.profile.protocol == "inductive" else "eval"
    read = job.seen if row.reads("images") else ()
    inputs |= {
        "merged": job.seen,
        "vectors": [layout.vector(job.seed, task) for task in job.seen],
        "merged_from": [layout.images(job.seed, task, split) for task in read],
        "options": options_of(run, job.method),
        "seed": job.seed,
    }
    module = row.function.partition(":")[0]
    return run.cache.entry("unseen", f"pipeline.merging.{module}", inputs, ".npz")


class Tester:
    """The encoder, heads and images at hand for one merged model after the other."""

    def __init__(self, run: Stage, tasks: Sequence[str]) -> None:
        from stages._inputs import encoder_of, heads_of

        self.run, self.tasks = run, tasks
        self.encoder, self.scale = encoder_of(run)
        self.heads = heads_of(run, tasks)
        self._data: dict[int, tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]] = {}

    def test(self, job: Job) -> dict[str, "np.ndarray"]:
        """task -> bool [N]: which `eval` images the merge classifies correctly."""
        from pipeline.predictions import predict

        if job.seed not in self._data:
            self._data[job.seed] = self._read(job.seed)
        images, labels = self._data[job.seed]
        self.encoder.load(self._merged(job), "the merged model")
        return {
            task: predict(
                self.encoder, self.heads[task], self.scale, images[task], labels[task]
            ).correct
            for task in job.tested
        }

    def _read(self, seed: int) -> tuple[Mapping[str, "np.ndarray"], Mapping[str, "np.ndarray"]]:
        from stages._inputs import images_of, labels_of

        run, tasks = self.run, self.tasks
        return images_of(run, seed, tasks, "eval"), labels_of(run, seed, tasks, "eval")

    def _merged(self, job: Job) -> Mapping[str, "Tensor"]:
        """The weights that the method makes of the seen tasks' vectors."""
        from pipeline.merging.methods import METHODS
        from pipeline.unseen import REFERENCE
        from stages._inputs import encoder_of, lazy_vectors_of
        from stages._learning import learned_on, processed
        from stages.merge import merged_at_once

        if job.method == REFERENCE:
            return encoder_of(self.run)[0].weights()
        vectors = lazy_vectors_of(self.run, job.seed, job.seen)
        if METHODS[job.method].learns:
            learned = learned_on(self.run, job.seed, job.method, job.seen)
            return processed(self.run, job.method, vectors).merged(learned.values)
        return merged_at_once(self.run, job.seed, job.method, vectors).shared
