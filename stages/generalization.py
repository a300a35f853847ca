"""Accuracy on tasks that took no part in the merge: experts and images of seen tasks alone.

python -m stages.generalization
torchrun --nproc-per-node 8 -m stages.generalization
"""

from typing import TYPE_CHECKING, Any

import typer

from stages._generalization import Tester, entry_of, in_order, jobs_of, left_out, without
from stages._stage import DryRunOption, ProfileOption, Stage, stage

if TYPE_CHECKING:
    from pipeline.statistics import Correct, Images

MADE_BY = "python -m stages.generalization"
Rows = dict[str, dict[str, Any]]  # method -> its figures


def main(profile: ProfileOption = None, dry_run: DryRunOption = False) -> None:
    """Merge the seen tasks of every split and test on seen and unseen ones."""
    with stage("generalization", profile, dry_run) as run:
        asked = run.config.profile.generalization
        pairs = left_out(run.config.profile)
        check_inputs(run)
        splits = f"{len(asked.splits)} splits" + f" and {len(pairs)} pairs" * bool(pairs)
        run.plan(f"{splits} x {len(asked.methods)} methods", parallel=True)
        test_all(run)
        run.group.barrier()
        if run.group.first:
            write_metrics(run)


def check_inputs(run: Stage) -> None:
    """Raise `MissingInput` unless everything that will be read is there."""
    from pipeline.merging.methods import METHODS

    config, layout = run.config.profile, run.layout
    jobs = jobs_of(config)
    tested = in_order(config, (task for job in jobs for task in job.tested))
    seen = in_order(config, (task for job in jobs for task in job.seen))
    run.needs("fetch", [layout.pretrained])
    run.needs_data("eval", tested)
    if any(METHODS[method].reads("images") for method in config.generalization.methods):
        run.needs_data("adapt" if config.protocol == "inductive" else "eval", seen)
        if config.learn.objective == "distillation":
            for seed in config.seeds:
                run.needs("experts", (layout.expert(seed, task) for task in seen))
    run.needs("experts", (layout.head(task) for task in tested))
    for seed in config.seeds:
        run.needs("fetch", (layout.splits(seed, task) for task in tested))
        run.needs("vectors", (layout.vector(seed, task) for task in seen))


def test_all(run: Stage) -> None:
    """Put into the cache what is this process's share and not there yet."""
    from pipeline.unseen import save_correct

    jobs = jobs_of(run.config.profile)
    tester = Tester(
        run, in_order(run.config.profile, (task for job in jobs for task in job.tested))
    )
    mine = run.group.share(jobs)
    with run.progress("testing", len(mine)) as update:
        for done, job in enumerate(mine, start=1):
            if not (entry := entry_of(run, job)).exists():
                save_correct(entry, tester.test(job))
            update(done, f"{job.method}, {len(job.seen)} tasks merged")


def write_metrics(run: Stage) -> None:
    """metrics/<profile>/generalization.json, and leave_two_out.json, empty where not asked for."""
    from pipeline.files import write_json
    from pipeline.unseen import leave_two_out_rows, split_rows

    config, found = run.config.profile, _Found(run)
    splits = {
        name: split_rows(
            found.by_method(in_order(config, split.seen)),
            found.reference,
            split.seen,
            split.unseen,
            found.images,
        )
        for name, split in config.generalization.splits.items()
    }
    over_pairs: Rows = {}
    if pairs := left_out(config):
        by_pair = {name: found.by_method(without(config, pair)) for name, pair in pairs.items()}
        correct = {m: {name: own[m] for name, own in by_pair.items()} for m in found.methods}
        over_pairs = leave_two_out_rows(correct, found.reference, config.tasks, found.images)
    write_json(run.layout.metric("generalization"), splits)
    write_json(run.layout.metric("leave_two_out"), over_pairs)
    figures = [
        f"{name} {method} {row['unseen']:.1f} %"
        for name, rows in splits.items()
        for method, row in rows.items()
    ]
    figures += [f"pairs {method} {row['gap']:+.1f} points" for method, row in over_pairs.items()]
    run.result = ", ".join(figures)


class _Found:
    """What all processes found."""

    def __init__(self, run: Stage) -> None:
        from pipeline.unseen import REFERENCE, load_correct
        from stages._inputs import image_numbers

        config = run.config.profile
        self.methods, self.seeds = config.generalization.methods, config.seeds
        self._correct = {
            (job.method, job.seen, job.seed): load_correct(entry_of(run, job), MADE_BY)
            for job in jobs_of(config)
        }
        self.reference = self._of(REFERENCE, ()) if self._correct else {}
        self.images: Images = {
            task: image_numbers(run, task, [len(one) for one in seeds])
            for task, seeds in self.reference.items()
        }

    def by_method(self, seen: tuple[str, ...]) -> dict[str, "Correct"]:
        """method -> task -> for every seed bool [N], merged from the tasks `seen`."""
        from pipeline.unseen import REFERENCE

        return {m: self._of(m, () if m == REFERENCE else seen) for m in self.methods}

    def _of(self, method: str, seen: tuple[str, ...]) -> "Correct":
        seeds = [self._correct[method, seen, seed] for seed in self.seeds]
        return {task: [one[task] for one in seeds] for task in seeds[0]}


if __name__ == "__main__":
    typer.run(main)
