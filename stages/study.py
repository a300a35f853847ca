"""How well coefficient learning does, and what it takes: the studies of docs/.

    python -m stages.study --profile study
    python -m stages.study --profile study --only budget --only initial

Not a stage of dvc.yaml: the studies explain the defaults, and no other stage reads what they write.
Killed, it goes on with the first run of learning that had not ended. docs/learning.md and
docs/studies.md show the figures.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from stages._bench import Bench
from stages._inputs import images_count
from stages._learning import unlabeled_split
from stages._stage import DryRunOption, ProfileOption, Stage, say, stage
from stages._studies import STUDIES

OnlyOption = Annotated[
    list[str] | None, typer.Option("--only", help="A study to run; once for each. Without: all.")
]


def main(
    profile: ProfileOption = None, dry_run: DryRunOption = False, only: OnlyOption = None
) -> None:
    """Study what coefficient learning depends on, and what methods cost."""
    with stage("study", profile, dry_run) as run:
        from pipeline.files import write_json

        names = chosen(only)
        check_inputs(run, names)
        seeds = run.config.profile.seeds
        run.plan(f"{', '.join(names)} for {len(seeds)} seed(s)")
        benches = [Bench(run, seed) for seed in seeds]
        for name in names:
            say(f"  {name}: {STUDIES[name].summary}")
            for bench in benches:
                bench.machines.clear()
            figures = STUDIES[name].make(run, benches)
            machines = [machine for bench in benches for machine in bench.machines]
            different = [m for place, m in enumerate(machines) if m not in machines[:place]]
            facts = {**setting(run), "machines": different}
            write_json(run.layout.metric(name), {**facts, **figures})
        run.result = f"studied {', '.join(names)}"


def chosen(only: Sequence[str] | None) -> list[str]:
    """Names of the studies to run, in their order. Raises `UserError` for an unknown one."""
    from pipeline.errors import unknown

    for name in only or ():
        if name not in STUDIES:
            raise unknown("study", name, STUDIES)
    return [name for name in STUDIES if not only or name in only]


def check_inputs(run: Stage, names: Sequence[str]) -> None:
    """Raise `MissingInput` or `UserError` unless everything that will be read is there."""
    from pipeline.errors import UserError

    config, layout = run.config.profile, run.layout
    run.needs("fetch", [layout.pretrained])
    run.needs_data(unlabeled_split(run), config.tasks)
    run.needs_data("eval", config.tasks)
    run.needs("experts", (layout.head(task) for task in config.tasks))
    for seed in config.seeds:
        run.needs("experts", (layout.expert(seed, task) for task in config.tasks))
        run.needs("vectors", (layout.vector(seed, task) for task in config.tasks))
    for name in names:
        study = STUDIES[name]
        if study.select and config.protocol == "transductive":
            raise UserError(
                f"The study '{name}' reads the split `select`, which protocol 'transductive' has "
                "not: set protocol: inductive, or name other studies with --only."
            )
        if study.select:
            run.needs_data("select", config.tasks)
        for method in study.predictions:
            if method not in run.config.methods:
                raise UserError(
                    f"The study '{name}' reads the predictions of '{method}', which is no method "
                    f"of the profile '{run.config.name}': add it, or name other studies with "
                    "--only."
                )
            for seed in config.seeds:
                paths = (layout.predictions(seed, method, task) for task in config.tasks)
                run.needs("evaluate", paths)


def setting(run: Stage) -> dict[str, Any]:
    """What every file of figures begins with."""
    from pipeline.study.measuring import UNLABELED
    from pipeline.study.quality import NOISE
    from pipeline.tracking.provenance import git_state

    config = run.config.profile
    counts = {
        split: [images_count(run, config.seeds[0], task, split) for task in config.tasks]
        for split in (unlabeled_split(run), "eval")
    }
    return {
        "seeds": config.seeds,
        "tasks": config.tasks,
        "protocol": config.protocol,
        "batch": config.learn.batch,
        "unlabeled_images": min(UNLABELED, *(counts[unlabeled_split(run)])),
        "eval_images": min(counts["eval"]),
        "noise_standard_errors": NOISE,
        "git": git_state(run.config.root),
    }


if __name__ == "__main__":
    typer.run(main)
