"""The table of methods in MLflow: one run per method and seed, written from the artifacts."""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote

from pipeline.config import Config
from pipeline.layout import Layout
from pipeline.tracking.row import Row, read_rows
from pipeline.tracking.store import Store, check_reachable, explained, lock, open_store

BATCH_POINTS = 1000  # the most that MLflow takes in one call


@dataclass(frozen=True)
class Rows:
    """The newest row of every method."""

    experiment_id: str
    run_ids: Mapping[tuple[str, int], str]  # (method, seed) -> run, in report order
    written: int  # how many of them are new


def track(config: Config, layout: Layout) -> Rows:
    """Write the rows that are missing; what is recorded already is left alone.

    The newest row of a method, seed and profile carries the tag `latest`. Raises `MissingInput`
    where an artifact is missing and `UserError` where the store cannot be used.
    """
    check_reachable(config.root)
    rows = read_rows(config, layout)
    store = open_store(config)
    run_ids, written = {}, 0
    # Two processes must not write the same row.
    with explained(config.root), lock(config.root, "track"):
        store.end_leftovers({"kind": "method"})
        found = store.search({"kind": "method", "profile": config.name, "latest": "true"})
        for row in rows:
            older = {
                run.info.run_id: run.data.tags.get("row.digest")
                for run in found
                if (run.data.tags["method"], run.data.tags["seed"]) == (row.method, str(row.seed))
            }
            run_id = next((run for run, digest in older.items() if digest == row.digest), None)
            if run_id is None:
                run_id, written = _write(store, config, row), written + 1
            for run in older.keys() - {run_id}:
                store.client.delete_tag(run, "latest")
            run_ids[row.method, row.seed] = run_id
    return Rows(store.experiment_id, run_ids, written)


def compare_url(rows: Rows) -> str:
    """The part of the address, after the server's, of MLflow's page that compares the rows."""
    runs = quote(json.dumps(list(rows.run_ids.values()), separators=(",", ":")))
    return f"/#/compare-runs?runs={runs}&experiments={quote(json.dumps([rows.experiment_id]))}"


def _write(store: Store, config: Config, row: Row) -> str:
    """Record a row; it is `latest` only once it is complete."""
    run_id = store.create_run(row.title, {**row.tags, "row.digest": row.digest})
    try:
        _log(store, config, row, run_id)
    except BaseException:
        with suppress(Exception):
            store.client.set_terminated(run_id, "FAILED")
        raise
    store.client.set_terminated(run_id, "FINISHED")
    store.client.set_tag(run_id, "latest", "true")
    return run_id


def _log(store: Store, config: Config, row: Row, run_id: str) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

    client = store.client
    if row.data:
        folder, digest = row.data
        source = json.dumps({"uri": folder})
        dataset = Dataset(f"{config.name} seed {row.seed}", digest, "local", source)
        used = DatasetInput(dataset, [InputTag("mlflow.data.context", "eval")])
        client.log_inputs(run_id, [used])
    now = time.time_ns() // 1_000_000
    model_id = _log_model(store, row, run_id) if row.model else None
    metrics = [Metric(k, v, now, 0, model_id=model_id) for k, v in row.metrics.items()]
    params = [Param(name, value) for name, value in row.params.items()]
    client.log_batch(run_id, metrics=metrics, params=params)
    curves = [Metric(name, value, now, step) for name, value, step in row.thinned()]
    for start in range(0, len(curves), BATCH_POINTS):
        client.log_batch(run_id, metrics=curves[start : start + BATCH_POINTS])
    for path in row.files:
        client.log_artifact(run_id, str(path))


def _log_model(store: Store, row: Row, run_id: str) -> str:
    """A model entry that says where the weights are; they stay in DVC."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    kept = ("dvc.path", "dvc.md5", "git.sha", "profile", "method", "seed")
    tags = {name: row.tags[name] for name in kept if name in row.tags}
    model = store.client.create_logged_model(
        store.experiment_id,
        f"{row.method}-seed-{row.seed}",
        run_id,
        {**tags, "mlflow.model.isExternal": "true"},
        dict(row.params),
    )
    store.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    store.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return model.model_id
