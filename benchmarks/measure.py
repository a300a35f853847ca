"""What the benchmark measures: do the methods agree, how long do they take, what do they hold."""

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from benchmarks.settings import (
    BFLOAT16,
    GATE,
    MACHINE,
    METHODS,
    ONEDNN,
    TOLERANCES,
    VIT_B_32,
    Problem,
    Setting,
)
from benchmarks.workers import Worker, Workers
from pipeline.errors import UserError
from stages._progress import say


def no_gain(workers: Workers) -> tuple[str, ...]:
    """The methods that this machine gains nothing from: not every CPU multiplies bfloat16."""
    with ExitStack() as stack:
        rates = workers.start(stack, MACHINE, GATE).call("rates")["value"]
    names = {"bfloat16_flops_per_s": BFLOAT16, "onednn_flops_per_s": ONEDNN}
    plain = rates["float32_flops_per_s"]
    left_out = [pair for name, pair in names.items() if rates.get(name, 0.0) <= plain]
    return tuple(method for pair in left_out for method in pair)


def gate(workers: Workers, left_out: Collection[str] = ()) -> dict[str, float]:
    """Error of every method's gradient relative to this project's in float32.

    Raises `UserError` where methods disagree: they compute different things, and their times
    cannot be compared.
    """
    ours = _gradient(workers, "ours")
    errors = {}
    for method in (name for name in TOLERANCES if name not in left_out):
        title, tolerance = METHODS[method].title, TOLERANCES[method]
        error = math.dist(_gradient(workers, method), ours) / math.hypot(*ours)
        say(f"gate: gradient of {title} differs by {error:.1e}")
        if not error <= tolerance:
            raise UserError(
                f"{title}: its gradient differs from this project's by {error:.1e}, more than "
                f"{tolerance:.0e}. Nothing is measured: find out which of the two is wrong."
            )
        errors[method] = error
    return errors


def _gradient(workers: Workers, method: str) -> list[float]:
    with ExitStack() as stack:
        worker = workers.start(stack, METHODS[method], GATE)
        worker.step(METHODS[method])
        return [value for row in worker.call("gradient")["value"] for value in row]


def time_steps(workers: Workers, setting: Setting) -> dict[str, Any]:
    """Every sample of a setting: each method's first step and rounds, the machine's rates."""
    problem = setting.problem
    found: dict[str, Any] = {
        "trunk": setting.trunk,
        "tasks": setting.tasks,
        "batch": setting.batch,
        "groups": [list(group) for group in setting.groups],
        "rates": [],
        "methods": {},
    }
    for group in setting.groups:
        with ExitStack() as stack:
            machine = workers.start(stack, MACHINE, problem)
            running = _start(workers, stack, group, problem)
            for method in group:
                found["methods"][method] = {"first": _step(running, method), "samples": []}
            for number in range(setting.rounds):
                found["rates"].append(machine.call("rates")["value"])
                for method in group if number % 2 == 0 else reversed(group):
                    sample = _step(running, method)
                    found["methods"][method]["samples"].append(sample)
                    say(
                        f"{setting.trunk}, {setting.tasks} tasks, round {number + 1}: "
                        f"{METHODS[method].title} {sample['cpu_s']:.2f} s of CPU"
                    )
    return found


def _start(
    workers: Workers, stack: ExitStack, group: Sequence[str], problem: Problem
) -> dict[str, Worker]:
    """A worker per method; methods that differ in their steps' options alone share one."""
    shared: dict[tuple[str, str], Worker] = {}
    running = {}
    for name in group:
        method = METHODS[name]
        key = method.place, str(method.options)
        if key not in shared:
            shared[key] = workers.start(stack, method, problem)
        running[name] = shared[key]
    return running


def _step(running: Mapping[str, Worker], method: str) -> dict[str, float]:
    answer = running[method].step(METHODS[method])
    return {clock: answer[clock] for clock in ("cpu_s", "wall_s")}


def weigh(workers: Workers, method: str, tasks: int) -> dict[str, Any]:
    """Memory of two steps of ViT-B-32 with one image per task, in a fresh process, in bytes.

    This project's goes through image by image, as FusionBench's does task by task.
    """
    problem, timed = Problem(VIT_B_32, tasks, batch=1), METHODS[method]
    alone = {} if method.startswith(("fusion", "authors")) else {"chunk": 1}
    with ExitStack() as stack:
        worker = workers.start(stack, replace(timed, options=timed.options | alone), problem)
        for _ in range(2):  # from the second one on the optimizer's state is there as well
            peak = worker.step(METHODS[method])["peak_bytes"]
        baseline = worker.facts["baseline_bytes"]
    say(f"memory, {tasks} tasks: {METHODS[method].title} {(peak - baseline) / 1e9:.2f} GB")
    return {"method": method, "tasks": tasks, "baseline_bytes": baseline, "peak_bytes": peak}
