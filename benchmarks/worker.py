"""One method in a process of its own, told what to do line by line.

    python -m benchmarks.worker

Reads JSON lines: first the problem and the class, then one call of a method of its object each.
Answers every line with one, the first when the object is ready.
"""

import importlib
import json
import os
import platform
import resource
import sys
from functools import partial
from importlib.metadata import version
from typing import Any

import torch

from benchmarks.machine import products, timed
from benchmarks.settings import Problem, Trunk

PACKAGES = ("torch", "open_clip_torch", "fusion-bench")


def main() -> None:
    """Answer until the input ends."""
    # Standard output is for answers alone: what libraries print goes to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(1)

    def answer(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=answers, flush=True)

    order = json.loads(sys.stdin.readline())
    problem = problem_of(order["problem"])
    module, _, name = order["place"].partition(":")
    made = getattr(importlib.import_module(module), name)
    baseline = _peak_bytes(problem.device)
    worker = made(problem, **order["options"])
    answer({"versions": _versions(), "device": _device(problem), "baseline_bytes": baseline})
    for line in sys.stdin:
        call = json.loads(line)
        work = partial(getattr(worker, call["call"]), **call["with"])
        with products(call["onednn"]):
            value, seconds = timed(problem.device, work)
        answer({"value": value, **seconds, "peak_bytes": _peak_bytes(problem.device)})


def problem_of(order: dict[str, Any]) -> Problem:
    """A problem from its JSON form."""
    trunk, classes = Trunk(**order["trunk"]), tuple(order["classes"])
    return Problem(**order | {"trunk": trunk, "classes": classes})


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        if package != "fusion-bench" or "fusion_bench" in sys.modules:
            found[package] = version(package)
    return found


def _device(problem: Problem) -> str:
    return torch.cuda.get_device_name() if problem.device == "cuda" else "cpu"


def _peak_bytes(device: str) -> int:
    """The most memory that this process held so far; on a GPU, the most that its tensors did."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main()
