"""Stages that run at the same time as others, in processes that begin with everything imported."""

import importlib
import os
import sys
import traceback
from pathlib import Path

import typer

from pipeline.learning import run


def run_stages(folder: Path, profile: str, stages: list[str], gate, log: Path) -> None:
    """Run `stages` of a profile one after the other, as a user would; exits with the first code.

    `gate`: a barrier that holds each stage until every process is at it.
    """
    os.chdir(folder)
    run.SECONDS_BETWEEN_SAVES = 0.0  # a state after every step, for others to find
    with log.open("w", buffering=1) as output:
        sys.stdout = sys.stderr = output
        for name in stages:
            gate.wait(300)
            try:
                importlib.import_module(f"stages.{name}").main(profile=profile)
            except typer.Exit as end:
                gate.abort()
                sys.exit(end.exit_code)
            except BaseException:
                gate.abort()
                traceback.print_exc()
                sys.exit(70)
