"""Runs of stages that the store did not take: kept in files of this machine until it does.

A file holds the whole run, so that it can be sent to a store that has never heard of it.
"""

import json
import os
import sys
import time
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.files import write_json
from pipeline.tracking.address import home, reason, without_secrets
from pipeline.tracking.notes import NOTE, report_link, stage_note
from pipeline.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run

BATCH_POINTS = 1000  # the most that MLflow takes in one call

Point = tuple[str, float, int, int]  # name, value, milliseconds since 1970, step


@dataclass
class Record:
    """All that is known of a stage's run."""

    name: str
    tags: dict[str, str]
    started: int  # milliseconds since 1970
    key: str  # of the configuration
    run_id: str | None = None  # in the store, if it has the run
    points: list[Point] = field(default_factory=list)
    status: str = "RUNNING"
    ended: int | None = None
    process: int | None = None  # on this machine, whose run it is

    @property
    def goes_on(self) -> bool:
        """Whether its process will write the record again."""
        return self.status == "RUNNING" and self.process is not None and _is_there(self.process)

    def keep(self, root: Path, path: Path | None = None) -> Path:
        """Write the record where `send_pending` finds it, or over `path`; returns the path."""
        path = path or _folder(root) / f"{self.started}-{uuid.uuid4().hex[:8]}.json"
        facts = asdict(self)
        # JSON has no infinity and no NaN: as texts they come back through float().
        facts["points"] = [(name, str(value), *when) for name, value, *when in self.points]
        facts["tags"] = {name: without_secrets(value) for name, value in self.tags.items()}
        write_json(path, facts)
        return path

    @classmethod
    def load(cls, path: Path) -> "Record":
        """Read what `keep` wrote; raises `ValueError` or `TypeError` of anything else."""
        record = cls(**json.loads(path.read_text(encoding="utf-8")))
        record.points = [(str(n), float(v), int(ms), int(k)) for n, v, ms, k in record.points]
        return record


def send_pending(store: Store, root: Path) -> int:
    """Send the kept runs that have ended and delete their files; returns how many it sent.

    Raises what the store raises; files that were not sent stay. A damaged one is named in a
    warning, and stays too.
    """
    sent = 0
    for path in sorted(_folder(root).glob("*.json")):
        try:
            record = Record.load(path)
        except (ValueError, TypeError) as error:
            print(f"Warning: {path} is no record of a run ({reason(error)}).", file=sys.stderr)
            continue
        if record.goes_on:
            continue
        _send(store, record, root, path)
        path.unlink()
        sent += 1
    return sent


def log_points(store: Store, run_id: str, points: Iterable[Point]) -> None:
    """Send points in calls that MLflow takes; those that it has already do no harm."""
    from mlflow.entities import Metric

    metrics = [Metric(*point) for point in points]
    for start in range(0, len(metrics), BATCH_POINTS):
        store.client.log_batch(run_id, metrics=metrics[start : start + BATCH_POINTS])


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return True


def _send(store: Store, record: Record, root: Path, path: Path) -> None:
    if record.key != store.key:
        store = store.of(record.key, record.tags)
    run = _found(store, record.run_id)
    if run is not None and run.info.lifecycle_stage == "deleted":
        return  # its user did not want it
    if run is None:
        link = report_link(store.experiment_id, store.parent_id)
        note = stage_note(record.tags["dvc.stage"], record.tags["profile"], link)
        record.run_id = store.create_run(record.name, {NOTE: note}, record.started)
        record.keep(root, path)  # or a second attempt would make a second run
    run_id = str(record.run_id)
    for name, value in record.tags.items():
        store.client.set_tag(run_id, name, value)
    log_points(store, run_id, record.points)
    if record.status != "RUNNING":
        store.client.set_terminated(run_id, record.status, record.ended)


def _found(store: Store, run_id: str | None) -> "Run | None":
    """The run, if this store has it."""
    from mlflow.exceptions import MlflowException

    if run_id is None:
        return None
    try:
        return store.client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _folder(root: Path) -> Path:
    return home(root) / ".cache" / "mlflow-pending"
