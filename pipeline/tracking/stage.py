"""One short run per executed stage, written while it runs."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.layout import Layout
from pipeline.tracking.address import may_be_away, reason, require_store
from pipeline.tracking.notes import NOTE, report_link, stage_note
from pipeline.tracking.pending import Record, log_points, now
from pipeline.tracking.provenance import (
    device_used,
    experiment_tag,
    git_state,
    git_tags,
    inputs_hash,
)
from pipeline.tracking.store import (
    Store,
    configuration_key,
    configuration_tags,
    explained,
    metric_name,
    open_store,
)

BUFFERED_POINTS = 500
BUFFERED_SECONDS = 10.0


@contextmanager
def stage_run(config: Config, layout: Layout, stage: str) -> Iterator["StageRun"]:
    """Record the block as a run named `stage`: FINISHED, FAILED or, on Ctrl-C, KILLED.

    Raises `UserError` where the store cannot be used at the start, unless the block is within
    `server_may_be_away`. A store that is lost later costs one warning: the run is kept on this
    machine, and `track` sends it.
    """
    tags = {
        **configuration_tags(config),
        **git_tags(git_state(layout.root)),
        **experiment_tag(),
        "kind": "stage",
        "dvc.stage": stage,
        "mlflow.source.name": f"stages/{stage}.py",
    }
    if inputs := inputs_hash(layout.root, stage, config.name):
        tags["dvc.lock.md5"] = inputs
    record = Record(
        f"{stage}, {config.name}", tags, now(), configuration_key(config), process=os.getpid()
    )
    run = StageRun(config.root, record)
    try:
        require_store(config.root)
        run.open(config, stage)
    except UserError as error:
        if not may_be_away():
            raise
        run.lose(error)
    try:
        yield run
    except KeyboardInterrupt:
        run.close("KILLED")
        raise
    except BaseException as error:
        run.tag("error", f"{type(error).__name__}: {reason(error)}")
        run.close("FAILED")
        raise
    run.tag("device", device_used(config.device))
    run.close("FINISHED")


class StageRun:
    """Collects points and tags, sends them in batches, and keeps what could not be sent."""

    def __init__(self, root: Path, record: Record, store: Store | None = None) -> None:
        self._root, self._record, self._store = root, record, store
        self._sent_points = 0
        self._tags: dict[str, str] = {}  # not sent so far
        self._started = self._sent = time.monotonic()
        self._kept: Path | None = None  # the file, once something was lost
        self._lost = False

    @property
    def run_id(self) -> str | None:
        """The run's id; None where the store did not answer when it began."""
        return self._record.run_id

    def open(self, config: Config, stage: str) -> None:
        """Begin the run in the store; raises `UserError` where that cannot be."""
        store = open_store(config)
        link = report_link(store.experiment_id, store.parent_id)
        tags = {**self._record.tags, NOTE: stage_note(stage, config.name, link)}
        with explained(config.root):
            store.end_leftovers({"kind": "stage", "dvc.stage": stage})
            self._record.run_id = store.create_run(self._record.name, tags, self._record.started)
        self._store = store

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Record the values of `metrics` at `step`."""
        moment = now()
        self._record.points += [
            (metric_name(k), float(v), moment, step) for k, v in metrics.items()
        ]
        due = time.monotonic() - self._sent > BUFFERED_SECONDS
        waiting = len(self._record.points) - self._sent_points
        # After a loss points are kept for one last try: a long stage must not wait again and again.
        if not self._lost and (due or waiting >= BUFFERED_POINTS):
            self._attempt(self._send)

    def tag(self, name: str, value: str) -> None:
        """Record a fact about the run."""
        self._record.tags[name] = self._tags[name] = str(value)

    def close(self, status: str) -> None:
        """Send what is left and end the run as `status`; keep it in a file if that fails."""
        self.log({"seconds": round(time.monotonic() - self._started, 2)}, step=0)
        self._record.status, self._record.ended = status, now()
        if not self._attempt(self._finish):
            self._keep()
        elif self._kept is not None:
            with suppress(OSError):
                self._kept.unlink()

    def lose(self, error: Exception) -> None:
        """Keep the run in a file from now on, and say so once."""
        if self._lost:
            return
        self._lost = True
        print(
            f"Warning: MLflow does not take this run ({reason(error)}). It is kept on this "
            "machine, and the results are not affected: run 'adamerge track' once it answers.",
            file=sys.stderr,
        )
        self._keep()

    def _send(self) -> None:
        from mlflow.entities import RunTag

        store, run_id = self._opened()
        store.client.log_batch(run_id, tags=[RunTag(*tag) for tag in self._tags.items()])
        self._tags.clear()
        waiting = self._record.points[self._sent_points :]
        log_points(store, run_id, waiting)
        self._sent_points += len(waiting)
        self._sent = time.monotonic()

    def _finish(self) -> None:
        self._send()
        store, run_id = self._opened()
        store.client.set_terminated(run_id, self._record.status, self._record.ended)

    def _opened(self) -> tuple[Store, str]:
        if self._store is None or self._record.run_id is None:
            raise ConnectionError("the run was not begun in the store")
        return self._store, self._record.run_id

    def _attempt(self, action: Callable[[], None]) -> bool:
        """Whether `action` succeeded; the first failure is printed."""
        try:
            action()
        except Exception as error:
            self.lose(error)
            return False
        return True

    def _keep(self) -> None:
        try:
            self._kept = self._record.keep(self._root, self._kept)
        except (UserError, OSError) as error:
            print(f"Warning: the run cannot be kept either. {reason(error)}.", file=sys.stderr)
