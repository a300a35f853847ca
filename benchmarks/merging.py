"""Time merging beside FusionBench's functions, and weigh it.

    python -m benchmarks.merging     # some quarter of an hour on an idle core

Writes benchmarks/merging.json and its block of docs/performance.md. Each method has a target, and
the command ends with 1 where one is missed, or where the two sides' results differ.
"""

import math
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from benchmarks.page import write_block
from benchmarks.settings import TWO_BLOCKS, Method, Problem
from stages._progress import say
from stages._stage import user_errors

if TYPE_CHECKING:
    from benchmarks.workers import Workers

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "benchmarks" / "merging.json"
PAGE = ROOT / "docs" / "performance.md"
BLOCK = "merging"
PROBLEM = Problem(TWO_BLOCKS, tasks=8, batch=64)  # images of a task, for RegMean
SIDES = {"ours": "benchmarks.merging_ours:Ours", "theirs": "benchmarks.merging_theirs:Theirs"}


@dataclass(frozen=True)
class Row:
    """A method that is measured, and its targets."""

    title: str
    faster: float  # than theirs, times
    memory: float | None = None  # most of theirs
    rounds: int = 5
    apart: float | None = 1e-2  # of the results, relative, at most; None: they are random


ROWS = {
    "task_arithmetic": Row("Task arithmetic", 2, 0.5),
    "ties": Row("TIES", 2, 0.5, rounds=3),
    "dare": Row("DARE", 2, 0.5, apart=None),
    "emr": Row("EMR", 2, 0.5),
    "tsv_m": Row("TSV-M", 1.3, rounds=2),
    "iso_c": Row("Iso-C", 1.3, rounds=2),
    "regmean": Row(f"RegMean, {PROBLEM.batch} images a task", 1.5, rounds=2),
    "wudi": Row("WUDI, one block, 20 steps", 1.2, rounds=2),
}


def main() -> None:
    """Measure, write figures and page."""
    with user_errors():
        from benchmarks.environment import machine, peers_python
        from benchmarks.workers import Workers
        from pipeline.files import write_json
        from pipeline.tracking.provenance import git_state

        pythons = {False: Path(sys.executable), True: peers_python(ROOT)}
        workers = Workers(ROOT, pythons, "cpu")
        methods = {name: measure(workers, name) for name in ROWS}
        figures = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "git": git_state(ROOT),
            "machine": machine(),
            "versions": workers.versions,
            "tasks": PROBLEM.tasks,
            "methods": methods,
        }
        write_json(FIGURES, figures)
        write_block(PAGE, BLOCK, block(figures))
        if missed := misses(figures):
            say(f"missed: {'; '.join(missed)}")
            raise typer.Exit(1)


def measure(workers: "Workers", name: str) -> dict[str, Any]:
    """Seconds of CPU and peak bytes of every round, both sides in turn; and how far apart."""
    row = ROWS[name]
    samples: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        running = {
            side: workers.start(
                stack, Method(row.title, place, {"method": name}, peer=side == "theirs"), PROBLEM
            )
            for side, place in SIDES.items()
        }
        for side, worker in running.items():
            worker.call("write", path=str(folder / side))
        error = apart(folder / "ours", folder / "theirs")
        for number in range(row.rounds):
            for side in SIDES if number % 2 == 0 else reversed(SIDES):
                samples[side].append(running[side].call("measure")["value"])
    found = {
        "title": row.title,
        **{
            kind: {side: [sample[kind] for sample in samples[side]] for side in SIDES}
            for kind in ("seconds", "bytes")
        },
        "apart": error if math.isfinite(error) else None,  # JSON has no infinity
        "targets": {"faster": row.faster, "memory": row.memory, "apart": row.apart},
    }
    found |= ratios(found)
    say(
        f"{row.title}: {min(found['seconds']['ours']):.2f} s, {found['faster']:.1f} times as fast, "
        f"{found['memory']:.2f} of the memory, results {error:.0e} apart"
    )
    return found


def ratios(found: Mapping[str, Any]) -> dict[str, float]:
    """How many times as fast as theirs and how much of their memory, each by its least sample."""
    seconds, peaks = found["seconds"], found["bytes"]
    return {
        "faster": min(seconds["theirs"]) / min(seconds["ours"]),
        "memory": min(peaks["ours"]) / min(peaks["theirs"]),
    }


def apart(ours: Path, theirs: Path) -> float:
    """The largest difference of a tensor of theirs from ours, relative to its size.

    Infinite where they cannot be compared: a value is NaN or infinite, ours lacks the tensor or has
    another shape, or there is none.
    """
    from safetensors.torch import load_file

    one, other = load_file(ours), load_file(theirs)
    shapes = {name: tensor.shape for name, tensor in one.items()}
    if not other or any(shapes.get(name) != tensor.shape for name, tensor in other.items()):
        return math.inf
    errors = []
    for name, tensor in other.items():
        difference = (tensor - one[name]).norm()
        errors.append(float(difference / tensor.norm()) if difference else 0.0)
    return max(errors) if all(map(math.isfinite, errors)) else math.inf


def misses(figures: Mapping[str, Any]) -> list[str]:
    """The targets that figures do not reach, in words; results that are None apart miss theirs."""
    found = []
    for method in figures["methods"].values():
        title, targets = method["title"], method["targets"]
        if method["faster"] < targets["faster"]:
            found.append(f"{title} is less than {targets['faster']} times as fast")
        if targets["memory"] is not None and method["memory"] > targets["memory"]:
            found.append(f"{title} holds more than {targets['memory']} of the memory")
        apart = math.inf if method["apart"] is None else method["apart"]
        if targets["apart"] is not None and not apart <= targets["apart"]:
            found.append(f"{title}: results are {apart:.0e} apart")
    return found


def block(figures: Mapping[str, Any]) -> str:
    """The table of docs/performance.md."""
    machine, versions, git = figures["machine"], figures["versions"], figures["git"]
    changed = " with changes that were not committed" if git["dirty"] else ""
    lines = [
        f"Measured on {figures['date'][:10]} on {machine['cpu']}, one thread, {machine['system']}, "
        f"no GPU, torch {versions['project']['torch']}; FusionBench "
        f"{versions['peers']['fusion-bench']} with torch {versions['peers']['torch']}. Commit "
        f"`{git['commit'][:10]}`{changed}.",
        "",
        "| Method | Seconds | FusionBench / this project | Target | Memory, MB "
        "| This project / FusionBench | Target |",
        "| :-- | --: | --: | --: | --: | --: | --: |",
    ]
    for method in figures["methods"].values():
        targets = method["targets"]
        most = "" if targets["memory"] is None else f"{targets['memory']}"
        lines.append(
            f"| {method['title']} | {min(method['seconds']['ours']):.2f} | {method['faster']:.1f} "
            f"| {targets['faster']} | {min(method['bytes']['ours']) / 1e6:.0f} "
            f"| {method['memory']:.2f} | {most} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    typer.run(main)
