"""Accuracy on tasks that took no part in the merge: experts and images of seen tasks alone.

python -m stages.generalization
"""

from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import typer

from stages._stage import DryRunOption, ProfileOption, Stage, stage

if TYPE_CHECKING:
    from torch import Tensor


def main(profile: ProfileOption = None, dry_run: DryRunOption = False) -> None:
    """Merge the seen tasks of every split and test on seen and unseen ones."""
    with stage("generalization", profile, dry_run) as run:
        from pipeline.files import write_json
        from pipeline.merging.methods import METHODS

        config, layout = run.config.profile, run.layout
        asked = config.generalization
        run.needs("fetch", [layout.pretrained])
        run.needs_data("eval", config.tasks)
        if any(METHODS[method].reads("images") for method in asked.methods):
            run.needs_data("adapt" if config.protocol == "inductive" else "eval", config.tasks)
        run.needs("experts", (layout.head(task) for task in config.tasks))
        for seed in config.seeds:
            run.needs("vectors", (layout.vector(seed, task) for task in config.tasks))
        run.plan(f"{len(asked.splits)} splits x {len(asked.methods)} methods")
        jobs = [
            (name, method, seed)
            for name in asked.splits
            for method in asked.methods
            for seed in config.seeds
        ]
        tested = {}
        with run.progress("testing", len(jobs)) as update:
            for done, (name, method, seed) in enumerate(jobs, start=1):
                tested[name, method, seed] = test(run, seed, name, method)
                update(done, f"{name} {method}")
        results = {
            name: {
                method: summarise(split, [tested[name, method, seed] for seed in config.seeds])
                for method in asked.methods
            }
            for name, split in asked.splits.items()
        }
        write_json(layout.metric("generalization"), results)
        run.result = ", ".join(
            f"{name} {method} {row['unseen']:.1f} %"
            for name, rows in results.items()
            for method, row in rows.items()
        )


def test(run: Stage, seed: int, split: str, method: str) -> dict[str, float]:
    """Accuracy in percent on every task of a split, merged by `method` from the seen ones."""
    from pipeline.evaluation import accuracy
    from pipeline.predictions import predict
    from stages._inputs import encoder_of, heads_of, images_of, labels_of

    tasks = run.config.profile.generalization.splits[split]
    every = (*tasks.seen, *tasks.unseen)
    encoder, scale = encoder_of(run)
    encoder.load(merge_seen(run, seed, split, method), "the merged model")
    heads = heads_of(run, every)
    images, labels = images_of(run, seed, every, "eval"), labels_of(run, seed, every, "eval")
    return {
        task: accuracy(predict(encoder, heads[task], scale, images[task], labels[task]))
        for task in every
    }


def merge_seen(run: Stage, seed: int, split: str, method: str) -> dict[str, "Tensor"]:
    """The weights that `method` makes of the seen tasks' vectors."""
    from pipeline.merging import merge_vectors
    from pipeline.merging.methods import METHODS
    from stages._inputs import vectors_of
    from stages.learn import fit_data_of
    from stages.merge import options_of

    seen = run.config.profile.generalization.splits[split].seen
    options, data = options_of(run, method), None
    if METHODS[method].reads("images"):
        options["steps"] = run.config.profile.generalization.steps
        data = fit_data_of(run, seed, seen)
    vectors = vectors_of(run, seed, seen)
    merged = merge_vectors(method, vectors, data=data, seed=seed, **options)
    return merged.weights()


def summarise(split: Any, by_seed: list[dict[str, float]]) -> dict[str, Any]:
    """One method's row: means over seeds, in percent."""
    row: dict[str, Any] = {}
    for name, tasks in (("seen", split.seen), ("unseen", split.unseen)):
        averages = [mean(result[task] for task in tasks) for result in by_seed]
        row[name] = round(mean(averages), 2)
        row[f"{name}_sd"] = round(stdev(averages), 2) if len(averages) > 1 else 0.0
    row["tasks"] = {task: round(mean(r[task] for r in by_seed), 2) for task in by_seed[0]}
    return row


if __name__ == "__main__":
    typer.run(main)
