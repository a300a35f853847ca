"""One short run per executed stage, written while it runs."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from pipeline.config import Config
from pipeline.layout import Layout
from pipeline.tracking.provenance import git_state, git_tags, inputs_hash
from pipeline.tracking.store import (
    Store,
    configuration_tags,
    explained,
    metric_name,
    open_store,
    reason,
)

BUFFERED_POINTS = 500
BUFFERED_SECONDS = 10.0
BATCH_POINTS = 1000  # the most that MLflow takes in one call


@contextmanager
def stage_run(config: Config, layout: Layout, stage: str) -> Iterator["StageRun"]:
    """Record the block as a run named `stage`: FINISHED, FAILED or, on Ctrl-C, KILLED.

    Raises `UserError` where the store cannot be used at the start. A store that is lost later costs
    the record and one warning, never the stage's result.
    """
    tags = {
        **configuration_tags(config),
        **git_tags(git_state(layout.root)),
        "kind": "stage",
        "dvc.stage": stage,
        "mlflow.source.name": f"stages/{stage}.py",
    }
    if inputs := inputs_hash(layout.root, stage, config.name):
        tags["dvc.lock.md5"] = inputs
    store = open_store(config)
    with explained(config.root):
        store.end_leftovers({"kind": "stage", "dvc.stage": stage})
        run = StageRun(store, store.create_run(stage, tags))
    try:
        yield run
    except KeyboardInterrupt:
        run.close("KILLED")
        raise
    except BaseException as error:
        run.tag("error", f"{type(error).__name__}: {reason(error)}")
        run.close("FAILED")
        raise
    run.close("FINISHED")


class StageRun:
    """Collects points and tags and sends them in batches."""

    def __init__(self, store: Store, run_id: str) -> None:
        self.run_id = run_id
        self._client = store.client
        self._points: list[tuple[str, float, int, int]] = []  # name, value, milliseconds, step
        self._tags: dict[str, str] = {}
        self._started = self._sent = time.monotonic()
        self._lost = False

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Record the values of `metrics` at `step`."""
        now = time.time_ns() // 1_000_000
        self._points += [(metric_name(k), float(v), now, step) for k, v in metrics.items()]
        due = time.monotonic() - self._sent > BUFFERED_SECONDS
        # After a loss points are kept for one last try: a long stage must not wait again and again.
        if not self._lost and (due or len(self._points) >= BUFFERED_POINTS):
            self._attempt(self._send)

    def tag(self, name: str, value: str) -> None:
        """Record a fact about the run."""
        self._tags[name] = str(value)

    def close(self, status: str) -> None:
        """Send what is left and end the run as `status`."""
        self.log({"seconds": time.monotonic() - self._started}, step=0)
        if self._attempt(self._send):
            self._attempt(lambda: self._client.set_terminated(self.run_id, status))

    def _send(self) -> None:
        from mlflow.entities import Metric, RunTag

        tags = [RunTag(name, value) for name, value in self._tags.items()]
        self._client.log_batch(self.run_id, tags=tags)
        self._tags.clear()
        while self._points:
            batch = self._points[:BATCH_POINTS]
            self._client.log_batch(self.run_id, metrics=[Metric(*point) for point in batch])
            del self._points[:BATCH_POINTS]
        self._sent = time.monotonic()

    def _attempt(self, action: Callable[[], None]) -> bool:
        """Whether `action` succeeded; the first failure is printed."""
        try:
            action()
        except Exception as error:
            if not self._lost:
                print(
                    f"Warning: MLflow lost this run ({reason(error)}). The results are not "
                    "affected; 'adamerge track' records them once it answers again.",
                    file=sys.stderr,
                )
            self._lost = True
            return False
        return True
