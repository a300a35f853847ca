"""`adamerge`: every stage and tool as a sub-command."""

import typer

from stages import (
    demo,
    doctor,
    evaluate,
    experts,
    export,
    fetch,
    gate,
    generalization,
    learn,
    merge,
    predict,
    pretrain,
    profiles,
    report,
    robustness,
    serve,
    study,
    track,
    ui,
    vectors,
)
from stages._completion import completing

app = typer.Typer(
    name="adamerge",
    help="Merge fine-tuned CLIP experts into one model with AdaMerging.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

STAGES = (fetch, experts, vectors, learn, merge, evaluate, robustness, generalization, report)
TOOLS = (doctor, export, predict, serve, demo, track, ui, gate, study, pretrain, profiles)

for module in STAGES:
    name = module.__name__.rpartition(".")[2]
    app.command(name, rich_help_panel="Stages, in order")(completing(module.main))
for module in TOOLS:
    name = module.__name__.rpartition(".")[2]
    app.command(name, rich_help_panel="Tools")(completing(module.main))


def main() -> None:
    """The console script."""
    app()
