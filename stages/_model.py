"""Which merged model a command uses: what export, predict, serve and demo share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.config import Config

ModelOption = Annotated[
    Path | None,
    typer.Option("--model", metavar="FOLDER", help="A folder that 'adamerge export' wrote."),
]
MethodOption = Annotated[
    str | None,
    typer.Option("--method", help="A method of the profile (layer-wise AdaMerging if it has it)."),
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", help="A seed of the profile (its first).")
]


def choose(config: "Config", method: str | None, seed: int | None) -> tuple[str, int]:
    """The method and the seed, where one is not named: the profile's default, and its first."""
    from pipeline.classifier import default_method

    return method or default_method(config), config.profile.seeds[0] if seed is None else seed


def exported(
    model: Path | None, profile: str | None, method: str | None, seed: int | None
) -> Path | None:
    """The exported folder, if one is named; raises `UserError` where another model is, too."""
    from pipeline.errors import UserError

    if model is not None and (profile, method, seed) != (None, None, None):
        raise UserError(
            "--model is a folder that knows its method: leave out --profile, --method and --seed, "
            "or leave out --model."
        )
    return model and model.expanduser()


def torch_device(wanted: str) -> str:
    """`device` of params.yaml as torch's: the GPU where there is one and it may be used."""
    import torch

    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"
