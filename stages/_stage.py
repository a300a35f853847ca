"""What every stage command shares: configuration, checks, clock, progress, record, exit codes."""

import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stages._progress import progress_bar, say

if TYPE_CHECKING:
    from pipeline.config import Config

ProfileOption = Annotated[
    str | None, typer.Option("--profile", help="Profile to use instead of the one in params.yaml.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, say what would be done, and stop.")
]


class Stage:
    """A running stage: one process, or one of several that share it."""

    def __init__(self, name: str, config: "Config", dry_run: bool, until: ExitStack) -> None:
        from pipeline.cache import Cache
        from pipeline.layout import Layout
        from pipeline.parallel import Group, launched_group

        self.name, self.config, self.dry_run = name, config, dry_run
        self.layout: Layout = Layout(config.root, config.name)
        # DVC runs queued experiments in folders that it deletes: DVC_ROOT is the project's own.
        project = Path(os.environ.get("DVC_ROOT") or config.root)
        self.cache: Cache = Cache(Layout(project, config.name).cache)
        self.group: Group = launched_group()
        self.progress = progress_bar
        self._until = until  # what is open from `plan` to the stage's end
        self.log: Callable[[dict[str, float], int], None] = lambda metrics, step: None
        self.result = ""

    def needs(self, made_by: str, paths: Iterable[Path]) -> None:
        """Raise `MissingInput` unless every file is there; `made_by` is the stage to run."""
        from pipeline.files import need

        for path in paths:
            need(path, f"python -m stages.{made_by}")

    def needs_data(self, split: str, tasks: Iterable[str]) -> None:
        """`needs` for a split's images of every seed, and for its labels if it has any."""
        from pipeline.data import UNLABELED

        kinds = [self.layout.images] + [self.layout.labels] * (split != UNLABELED)
        for place in kinds:
            for seed in self.config.profile.seeds:
                self.needs("fetch", (place(seed, task, split) for task in tasks))

    def plan(self, text: str, parallel: bool = False) -> None:
        """All is checked: say what will be done; a dry run ends here, and a recorded run begins.

        `parallel`: the stage shares its work by `group`. Where the profile asks for several
        processes they are started here, run the stage from its beginning, and this one ends.
        """
        from pipeline.parallel import connected, launched
        from pipeline.tracking import stage_run
        from stages._processes import (
            check_processes,
            interruptible,
            run_processes,
            started_by_stage,
        )

        wanted = self.config.profile.processes if parallel and not launched() else 1
        count = max(wanted, self.group.size)
        check_processes(self.name, self.config.device, count, parallel)
        if not started_by_stage():
            say(f"{self.name}: {text}" + f", in {count} processes" * (count > 1))
        if self.dry_run:
            raise typer.Exit(0)
        if wanted > 1:
            raise typer.Exit(run_processes(self.name, self.config.name, wanted))
        if self.group.size > 1:
            self._until.enter_context(connected(self.group, self.device()))
            self._until.enter_context(interruptible())
        if self.group.first:
            tracked = self._until.enter_context(stage_run(self.config, self.layout, self.name))
            self.log = tracked.log

    def device(self) -> Any:
        """The torch device that the parameters ask for; each process has a GPU of its own."""
        import torch

        from pipeline.errors import UserError
        from pipeline.parallel import local_rank

        wanted = self.config.device
        if wanted == "cuda" and not torch.cuda.is_available():
            raise UserError("device is 'cuda' but there is no CUDA GPU: set 'auto' in params.yaml.")
        if wanted == "cpu" or not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", local_rank())

    def precision(self) -> str:
        """What forward passes compute in: 'float32' or 'bfloat16'."""
        import torch

        wanted = self.config.profile.precision
        if wanted != "auto":
            return wanted
        fast = self.device().type == "cuda" and torch.cuda.is_bf16_supported()
        return "bfloat16" if fast else "float32"

    def alone(self) -> "Stage":
        """The same stage for work that this process does by itself, while others do theirs."""
        from pipeline.parallel import Group

        view = copy(self)
        view.group = Group()
        return view


@contextmanager
def stage(name: str, profile: str | None, dry_run: bool = False) -> Iterator[Stage]:
    """Configuration in, record out. A user's mistake ends in one sentence and exit code 2."""
    from stages._processes import end_in_order

    with end_in_order(), user_errors():
        from pipeline.config import load_config
        from pipeline.tracking import check_reachable

        root = Path.cwd()
        with ExitStack() as until:
            running = Stage(name, load_config(root, profile), dry_run, until)
            if running.group.first:
                check_reachable(root)
            started, clock = datetime.now(UTC), time.monotonic()
            yield running
        if running.group.first:
            _record(running, started, round(time.monotonic() - clock, 2))


@contextmanager
def user_errors() -> Iterator[None]:
    """Print a `UserError` as one sentence and exit with 2, or 1 if another process is to blame."""
    from pipeline.errors import UserError

    try:
        yield
    except UserError as error:
        from pipeline.parallel import PeerLost
        from stages._processes import tell

        code = 1 if isinstance(error, PeerLost) else 2
        tell(f"Error: {error}", code)
        raise typer.Exit(code) from None


def _record(run: Stage, started: datetime, seconds: float) -> None:
    """Write when, where and how long the stage ran, and say what came of it."""
    from pipeline.files import write_json
    from pipeline.tracking.provenance import git_state

    facts = {
        "stage": run.name,
        "started": started.isoformat(timespec="seconds"),
        "seconds": seconds,
        "peak_gb": _peak_gb(),
        "processes": run.group.size,
        "machine": machine_facts(run.config.device),
        "git": git_state(run.config.root),
    }
    write_json(run.layout.run(run.name), facts)
    say(f"{run.name}: {run.result or 'done'} ({seconds:.1f} s)")


def machine_facts(device: str) -> dict[str, Any]:
    """System, processor and versions; with torch at hand, what it computes on."""
    facts: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    if (torch := sys.modules.get("torch")) is not None:
        cuda = device != "cpu" and torch.cuda.is_available()
        facts["device"] = torch.cuda.get_device_name() if cuda else "cpu"
        facts["torch"] = torch.__version__
    return facts


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def _peak_gb() -> float:
    """The most memory this process held, in GB (1e9 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 3)
