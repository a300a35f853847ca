"""Learning that a test kills, in a process that is started for it."""

import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from oracles import data_of, problem, tower

from pipeline.learning import Coefficients, LearningOptions, learn_coefficients, run

STEPS = 24


def learn(choice: dict[str, Any], state: Path | None = None, on_step=None) -> Coefficients:
    """A small problem in single precision, always the same."""
    case = problem(tower(), (13, 9, 20), dtype=torch.float32)
    options = LearningOptions(**{"steps": STEPS, "batch": 4, "lr": 0.02} | choice)
    more = {} if on_step is None else {"on_step": on_step}
    return learn_coefficients(case.vectors, data_of(case), options, seed=1, state=state, **more)


def until_killed(choice: dict[str, Any], state: Path, told: Connection, dies_in_save: int) -> None:
    """Save after every step and tell each one; die at save number `dies_in_save`, unless 0."""
    run.SECONDS_BETWEEN_SAVES = 0.0
    saves, replace = [], os.replace

    def dying(source: Path, target: Path) -> None:
        saves.append(target)
        if len(saves) == dies_in_save:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = dying
    learn(choice, state, lambda progress: told.send(progress.step))
