"""Merge the experts by every method and write the merged image encoders.

python -m stages.merge
"""

import time
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stages._learning import fit_data_of, processed, processing_of
from stages._stage import DryRunOption, ProfileOption, Stage, stage

if TYPE_CHECKING:
    from pipeline.merging import Merged
    from pipeline.vectors import TaskVectors

FILES = "Merge files, without a profile"
Method = Annotated[
    str | None,
    typer.Option("--method", help="Merge files by this method.", rich_help_panel=FILES),
]
Pretrained = Annotated[
    str | None,
    typer.Option(
        "--pretrained",
        help="File or folder of the model that experts come from.",
        rich_help_panel=FILES,
    ),
]
Expert = Annotated[
    list[str] | None,
    typer.Option(
        "--expert",
        metavar="NAME=PATH",
        help="File or folder of an expert; once for each.",
        rich_help_panel=FILES,
    ),
]
Out = Annotated[
    str | None,
    typer.Option(
        "--out",
        help="A .safetensors file; or a folder, in Hugging Face's layout, or with a file per "
        "expert where the method has a model for each (emr, tall_mask).",
        rich_help_panel=FILES,
    ),
]
MethodOption = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        help="An option of the method, such as keep=0.1.",
        rich_help_panel=FILES,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", help="Of methods that draw at random (0).", rich_help_panel=FILES),
]
Device = Annotated[
    str | None,
    typer.Option("--device", help="auto, cpu or cuda (auto).", rich_help_panel=FILES),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="open_clip's name of the architecture, for a file that does not tell it.",
        rich_help_panel=FILES,
    ),
]
Force = Annotated[
    bool,
    typer.Option("--force", help="Replace what an earlier merge wrote.", rich_help_panel=FILES),
]


def main(
    profile: ProfileOption = None,
    dry_run: DryRunOption = False,
    method: Method = None,
    pretrained: Pretrained = None,
    expert: Expert = None,
    out: Out = None,
    option: MethodOption = None,
    seed: Seed = None,
    device: Device = None,
    model: Model = None,
    force: Force = False,
) -> None:
    """Write a merged encoder per method and seed; with --method, merge files."""
    files: dict[str, Any] = {"pretrained": pretrained, "expert": expert, "out": out}
    files |= {"option": option, "seed": seed, "device": device, "model": model, "force": force}
    given = {name: value for name, value in files.items() if value or type(value) is int}
    if method is None and not given:
        run_stage(profile, dry_run)
        return
    # By name, and no dependency in dvc.yaml: no result of the stage rests on how files are merged.
    command = import_module("stages._merge_files")
    command.merge_files(given, method, profile, dry_run)


def run_stage(profile: str | None, dry_run: bool) -> None:
    """Write one merged encoder per method and seed."""
    with stage("merge", profile, dry_run) as run:
        from pipeline.merging.methods import METHODS

        config, layout = run.config.profile, run.layout
        run.needs("fetch", [layout.pretrained])
        if any(METHODS[method].reads("images") for method in config.merge.methods):
            run.needs_data("adapt" if config.protocol == "inductive" else "eval", config.tasks)
            run.needs("experts", (layout.head(task) for task in config.tasks))
        for seed in config.seeds:
            run.needs("vectors", (layout.vector(seed, task) for task in config.tasks))
            run.needs("learn", (layout.coefficients(seed, m) for m in config.learn.methods))
        run.plan(f"{len(run.config.methods)} methods x {len(config.seeds)} seed(s)")
        for seed in config.seeds:
            merge_all(run, seed)
        run.result = f"{len(run.config.methods)} methods"


def merge_all(run: Stage, seed: int) -> None:
    """Write a seed's merged encoders and the summary of how they were made."""
    from pipeline.files import write_json
    from pipeline.merging.methods import METHODS
    from stages._inputs import lazy_vectors_of

    methods, summary = run.config.methods, {}
    vectors = lazy_vectors_of(run, seed, run.config.profile.tasks)
    with run.progress(f"merging (seed {seed})", len(methods)) as update:
        for done, method in enumerate(methods, start=1):
            started = time.monotonic()
            if method in run.config.profile.learn.methods:
                options = write_learned(run, seed, method, vectors)
            else:
                options = options_of(run, method)
                write(run, seed, method, merged_at_once(run, seed, method, vectors))
            summary[method] = {
                "seconds": round(time.monotonic() - started, 3),
                "label_tuned": METHODS[method].reads("labels"),
                "options": options,
            }
            update(done, method)
    write_json(run.layout.merged_summary(seed), summary)


def merged_at_once(run: Stage, seed: int, method: str, vectors: "TaskVectors") -> "Merged":
    """The merge of these task vectors by a method that learns no coefficients."""
    from pipeline.merging import merge_vectors
    from pipeline.merging.methods import METHODS

    images = METHODS[method].reads("images")
    data = fit_data_of(run, seed, vectors.tasks) if images else None
    return merge_vectors(method, vectors, data=data, seed=seed, **options_of(run, method))


def write_learned(run: Stage, seed: int, method: str, vectors: "TaskVectors") -> dict[str, Any]:
    """Write the merge by coefficients that `learn` found; returns what was asked of learning."""
    from pipeline.learning import load_coefficients
    from pipeline.merging import Merged
    from pipeline.merging.methods import METHODS

    path = run.layout.coefficients(seed, method)
    learned = load_coefficients(path, "python -m stages.learn")
    merged = Merged(processed(run, method, vectors).merged(learned.values))
    write(run, seed, method, merged)
    if METHODS[method].reads("labels"):
        return {"coefficient": round(learned.values.mean().item(), 4)}
    processing = processing_of(run, method)
    if "source" in learned.facts:  # a file: the options of learning had no part in it
        return {**processing, **learned.facts}
    asked, defaults = run.config.profile.learn.model_dump(), METHODS[method].defaults
    return {name: asked.get(name, value) for name, value in defaults.items()} | processing


def write(run: Stage, seed: int, method: str, merged: "Merged") -> None:
    """Write a merged encoder; of a mask per task its compact form."""
    from pipeline.checkpoints.weights import save_weights

    family = run.config.profile.checkpoint.family
    facts = {"family": family, "method": method, "seed": str(seed)}
    path = run.layout.merged(seed, method)
    if merged.masked:
        save_weights(path, merged.masked.tensors(), facts | {"kind": "masked"})
    elif not merged.extras:  # experts have a model per task: those files are there already
        save_weights(path, merged.shared, facts)


def options_of(run: Stage, method: str) -> dict[str, Any]:
    """The method's options: its defaults, with what the profile says of them."""
    from pipeline.merging.methods import METHODS

    return {**METHODS[method].defaults, **run.config.profile.merge.options.get(method, {})}


if __name__ == "__main__":
    typer.run(main)
