"""A stage in several processes: how they start, what they tell, and how they end together."""

import os
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

# A folder that a stage gives the processes it starts: what they would print as an error lies there
# under its exit code, so that the same sentence is printed once, and by the stage that was started.
ERRORS = "ADAMERGE_ERRORS"
PARENT = "ADAMERGE_PARENT"  # the process id of that stage
INTERRUPTED = 130
SECONDS_TO_END = 30


def started_by_stage() -> bool:
    """Whether a stage started this process, rather than a person or torchrun."""
    return ERRORS in os.environ


def check_processes(name: str, device: str, count: int, parallel: bool) -> None:
    """Raise `UserError` for processes that have nothing to share, or no GPU of their own."""
    from pipeline.errors import UserError

    if count == 1:
        return
    if not parallel:
        raise UserError(f"{name} runs in one process: start it with 'python -m stages.{name}'.")
    import torch

    here = int(os.environ.get("LOCAL_WORLD_SIZE", count))
    if device != "cpu" and torch.cuda.is_available() and here > torch.cuda.device_count():
        raise UserError(
            f"{here} processes need a GPU each, but there are {torch.cuda.device_count()}: lower "
            "'processes' in the profile, or set device to 'cpu' in params.yaml."
        )


def run_processes(name: str, profile: str, count: int) -> int:
    """Run the stage in `count` processes to their end; returns the exit code."""
    import logging

    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // count)))
    logging.disable(logging.CRITICAL)  # the launcher reports every failure at length
    with tempfile.TemporaryDirectory(prefix="adamerge-") as folder:
        os.environ |= {ERRORS: folder, PARENT: str(os.getpid())}
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, sys.executable)("-m", f"stages.{name}", "--profile", profile)
        except ChildFailedError as error:
            codes = [failure.exitcode for failure in error.failures.values()]
            return _explain(Path(folder), codes, count)
        except SignalException as error:
            return 128 + error.sigval
        finally:
            del os.environ[ERRORS], os.environ[PARENT]
            logging.disable(logging.NOTSET)
    return 0


def tell(text: str, code: int) -> None:
    """Print an error, or leave it for the stage that started this process to print."""
    if started_by_stage():
        from pipeline.files import write_text

        write_text(Path(os.environ[ERRORS]) / str(code), text)
    else:
        typer.echo(text, err=True)


def _explain(folder: Path, codes: list[int], count: int) -> int:
    """Print why the processes ended; returns the exit code."""
    from pipeline.parallel import AGAIN

    killed = [signal.Signals(-code).name for code in codes if code < 0 and code != -signal.SIGTERM]
    if (mistake := folder / "2").exists():
        typer.echo(mistake.read_text(encoding="utf-8"), err=True)
        return 2
    if killed or not (lost := folder / "1").exists():
        how = f" ({killed[0]})" if killed else ""
        typer.echo(f"Error: one of the {count} processes ended{how}. {AGAIN}", err=True)
    else:
        typer.echo(lost.read_text(encoding="utf-8"), err=True)
    return 1


@contextmanager
def end_in_order() -> Iterator[None]:
    """One of several processes ends quietly on Ctrl-C, and soon after the stage that started it."""
    from pipeline.parallel import launched

    if not launched():
        yield
        return
    if started_by_stage():
        parent = int(os.environ[PARENT])
        threading.Thread(target=_end_with, args=[parent], daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block SIGTERM is as Ctrl-C, so that nothing half-written stays.

    Whoever started the group sends it when another process failed. It must not be so while a
    process waits for the others to connect: Python would not notice it there.
    """
    hook = sys.unraisablehook

    def repeated(lost: Any) -> None:
        """In a destructor or a weak reference's callback Python drops it: so once more, soon."""
        if lost.exc_type is KeyboardInterrupt:
            threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGTERM]).start()
        else:
            hook(lost)

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.unraisablehook = repeated
    try:
        yield
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGTERM, before)


def _end_with(parent: int) -> None:
    """End this process soon after the one that started it, which may have been killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SECONDS_TO_END)
    os._exit(INTERRUPTED)


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
