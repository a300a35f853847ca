"""What every stage command shares: configuration, checks, clock, progress, record, exit codes."""

import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pipeline.config import Config

ProfileOption = Annotated[
    str | None, typer.Option("--profile", help="Profile to use instead of the one in params.yaml.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, say what would be done, and stop.")
]


class Stage:
    """A running stage."""

    def __init__(self, name: str, config: "Config", dry_run: bool) -> None:
        from pipeline.cache import Cache
        from pipeline.layout import Layout

        self.name, self.config, self.dry_run = name, config, dry_run
        self.layout: Layout = Layout(config.root, config.name)
        self.cache: Cache = Cache(self.layout.cache)
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

    def plan(self, text: str) -> None:
        """All is checked: say what will be done; a dry run ends here."""
        say(f"{self.name}: {text}")
        if self.dry_run:
            raise typer.Exit(0)

    def device(self) -> Any:
        """The torch device that the parameters ask for."""
        import torch

        from pipeline.errors import UserError

        wanted = self.config.device
        if wanted == "cuda" and not torch.cuda.is_available():
            raise UserError("device is 'cuda' but there is no CUDA GPU: set 'auto' in params.yaml.")
        return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[int, str], None]]:
        """A progress bar: call what it yields with (done, a few words). Lines if no terminal."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        if not console.is_terminal:
            yield _lines(what, total)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[words]}"),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(what, total=total, words="")
            yield lambda done, words: bar.update(task, completed=done, words=words)


@contextmanager
def stage(name: str, profile: str | None, dry_run: bool = False) -> Iterator[Stage]:
    """Configuration in, record out. A user's mistake ends in one sentence and exit code 2."""
    with user_errors():
        from pipeline.config import load_config
        from pipeline.files import write_json
        from pipeline.tracking import check_reachable, stage_run
        from pipeline.tracking.provenance import git_state

        root = Path.cwd()
        running = Stage(name, load_config(root, profile), dry_run)
        check_reachable(root)
        started, clock = datetime.now(UTC), time.monotonic()
        if dry_run:
            yield running
            return
        with stage_run(running.config, running.layout, name) as tracked:
            running.log = tracked.log
            yield running
        seconds = round(time.monotonic() - clock, 2)
        write_json(
            running.layout.run(name),
            {
                "stage": name,
                "started": started.isoformat(timespec="seconds"),
                "seconds": seconds,
                "peak_gb": _peak_gb(),
                "machine": _machine(running.config.device),
                "git": git_state(root),
            },
        )
        say(f"{name}: {running.result or 'done'} ({seconds:.1f} s)")


@contextmanager
def user_errors() -> Iterator[None]:
    """Print a `UserError` as one sentence and exit with 2."""
    from pipeline.errors import UserError

    try:
        yield
    except UserError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from None


def say(text: str) -> None:
    """One line for the person who watches."""
    typer.echo(text)
    sys.stdout.flush()


def _lines(what: str, total: int) -> Callable[[int, str], None]:
    """Where there is no terminal: a line for every quarter done."""
    quarter = 0

    def update(done: int, words: str) -> None:
        nonlocal quarter
        if done * 4 // total > quarter:
            quarter = done * 4 // total
            say(f"  {what}: {done}/{total} {words}")

    return update


def _machine(device: str) -> dict[str, Any]:
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
