"""Write a merged model as a folder that open_clip or Hugging Face's transformers loads.

adamerge export merged-clip
adamerge export merged-clip --format hf --method ties
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stages._model import MethodOption, SeedOption, choose
from stages._progress import progress_bar, say
from stages._stage import DryRunOption, ProfileOption, user_errors

if TYPE_CHECKING:
    from pipeline.exporting import Plan

Out = Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.")]
Format = Annotated[
    str,
    typer.Option("--format", help="open_clip, or hf: a CLIPModel of Hugging Face's transformers."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an earlier export.")]


def main(
    out: Out,
    form: Format = "open_clip",
    profile: ProfileOption = None,
    method: MethodOption = None,
    seed: SeedOption = None,
    force: Force = False,
    dry_run: DryRunOption = False,
) -> None:
    """Write a merged model as a folder for open_clip or transformers."""
    with user_errors():
        from pipeline.config import load_config
        from pipeline.exporting import Request, export, planned
        from pipeline.layout import Layout
        from pipeline.tracking.provenance import git_state

        config = load_config(Path.cwd(), profile)
        request = Request(out.expanduser(), form, *choose(config, method, seed), force)
        plan = planned(config, Layout(config.root, config.name), request)
        say(_words(plan))
        if dry_run:
            return
        with progress_bar("exporting", plan.steps) as update:
            said = export(plan, git_state(config.root), update)
        say(_written(plan, said))


def _words(plan: "Plan") -> str:
    """What will be written."""
    request = plan.request
    lines = [
        f"export: {request.method} of profile {plan.config.name}, seed {request.seed}, "
        f"to {request.out}"
    ]
    lines += [f"  {name}: {size / 1e6:,.2f} MB" for name, size in plan.sizes.items()]
    return "\n".join([*lines, f"  {', '.join(plan.small_files)}: some kB"])


def _written(plan: "Plan", said: dict[str, Any]) -> str:
    """That it is written, and how to load it."""
    out = plan.request.out
    load = {
        "open_clip": f"open_clip.create_model_and_transforms('local-dir:{out}')",
        "hf": f"transformers.CLIPModel.from_pretrained('{out}')",
    }[plan.request.form]
    average = said["accuracy"] and f", {said['accuracy']['average']['value']:.1f} % on average"
    return (
        f"export: {out} is written ({said['title']}{average or ''}). Load it by {load}, or try "
        f"'adamerge predict IMAGE --model {out}'."
    )


if __name__ == "__main__":
    typer.run(main)
