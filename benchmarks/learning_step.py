"""Time the coefficient-learning step beside FusionBench's and a re-created authors' step.

    python -m benchmarks.learning_step            # about an hour; writes figures, plot and page
    python -m benchmarks.learning_step --quick    # some ten minutes; writes figures to .cache/
    python -m benchmarks.learning_step --report   # plot and page again from the figures

Method, machine and figures: docs/performance.md.
"""

import hashlib
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from stages._progress import say
from stages._stage import user_errors

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "benchmarks" / "learning_step.json"

Quick = Annotated[bool, typer.Option("--quick", help="Fewer tasks, one round: a rough check.")]
Report = Annotated[bool, typer.Option("--report", help="Measure nothing: write plot and page.")]
Device = Annotated[str, typer.Option("--device", help="cpu, or cuda where there is a GPU.")]
Output = Annotated[Path | None, typer.Option("--output", help="Where the figures go (JSON).")]


def main(
    quick: Quick = False, report: Report = False, device: Device = "cpu", output: Output = None
) -> None:
    """Measure, and write benchmarks/learning_step.json, docs/performance.md and its plot.

    Only a full run on the CPU writes these; others write their figures to --output, or .cache/.
    """
    with user_errors():
        from benchmarks.report import write_page
        from pipeline.files import read_json, write_json

        if report:
            write_page(ROOT, read_json(FIGURES, "make bench"))
            return
        published = not quick and device == "cpu" and output is None
        place = (
            output or ROOT / ".cache" / "bench" / f"{'quick' if quick else 'full'}-{device}.json"
        )
        place = FIGURES if published else place
        figures = measure("quick" if quick else "full", device)
        write_json(place, figures)
        say(f"{place}: written")
        if published:
            write_page(ROOT, figures)


def measure(plan_name: str, device: str) -> dict[str, Any]:
    """Carry out a plan. Raises `UserError` if the machine or the methods are not fit for it."""
    from benchmarks.environment import check_device, check_memory, machine, peers_python
    from benchmarks.measure import gate, no_gain, time_steps, weigh
    from benchmarks.settings import CLOCK, PLANS
    from benchmarks.workers import Workers
    from pipeline.tracking.provenance import git_state

    plan = PLANS[plan_name]
    check_device(device)
    check_memory(plan.free_gb)
    started = datetime.now(UTC)
    workers = Workers(ROOT, {False: Path(sys.executable), True: peers_python(ROOT)}, device)
    left_out = no_gain(workers)
    errors = gate(workers, left_out)
    # Parts of an hour's run: one that was stopped goes on with what it lacks.
    folder = ROOT / ".cache" / "bench" / f"{plan_name}-{device}-{_sources()}"
    settings, memory = [], []
    for one in plan.settings:
        setting = one.without(left_out)
        name = f"{setting.trunk}-{setting.tasks}.json"
        settings.append(_part(folder / name, partial(time_steps, workers, setting)))
    for method, tasks in plan.memory:
        name = f"memory-{method}-{tasks}.json"
        memory.append(_part(folder / name, partial(weigh, workers, method, tasks)))
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "plan": plan_name,
        "date": started.isoformat(timespec="seconds"),
        "git": git_state(ROOT),
        "machine": machine() | {"device": workers.device_name},
        "versions": workers.versions,
        "clock": CLOCK[device],
        "gate": errors,
        "settings": settings,
        "memory": memory,
    }


def _part(path: Path, make: Callable[[], Any]) -> Any:
    """What `make` measures, or measured when this run was started before."""
    from pipeline.files import read_json, write_json

    if not path.exists():
        write_json(path, make())
    return read_json(path, "make bench")


def _sources() -> str:
    """Stands for the code that is measured and that measures."""
    digest = hashlib.sha256()
    for folder in ("benchmarks", "pipeline"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


if __name__ == "__main__":
    typer.run(main)
