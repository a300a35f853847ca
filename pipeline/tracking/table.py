"""The table of methods in MLflow: one run per method and seed, written from the artifacts."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import Config
from pipeline.files import sha256
from pipeline.layout import Layout
from pipeline.tracking.address import require_store
from pipeline.tracking.datasets import Images
from pipeline.tracking.learned import Table
from pipeline.tracking.notes import NOTE, REPORT, report_link, row_note
from pipeline.tracking.pending import log_points, now, send_pending
from pipeline.tracking.registry import register_default
from pipeline.tracking.row import Row, read_rows
from pipeline.tracking.store import Store, explained, lock, open_store
from pipeline.tracking.views import compare_page, view_page

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric

REPORT_SHA = "report.sha256"
LOCK = "track"  # two processes must not write the same row


@dataclass(frozen=True)
class Rows:
    """The newest row of every method."""

    experiment_id: str
    run_ids: Mapping[tuple[str, int], str]  # (method, seed) -> run, in report order
    written: int  # how many of them are new
    sent: int = 0  # runs of stages that had been kept on this machine


def track(config: Config, layout: Layout) -> Rows:
    """Write the rows that are missing; what is recorded already is left alone.

    The newest row of a method, seed and profile carries the tag `latest`. Runs of stages that the
    store did not take are sent first, and the report is put beside the configuration. Raises
    `MissingInput` where an artifact is missing and `UserError` where the store cannot be used.
    """
    require_store(config.root)
    rows = read_rows(config, layout)
    store = open_store(config)
    with explained(config.root), lock(config.root, LOCK):
        sent = send_pending(store, config.root)
        _log_report(store, layout)
        run_ids, written = _write_missing(store, config, rows)
        first = config.profile.seeds[0]
        newest = {method: run for (method, seed), run in run_ids.items() if seed == first}
        register_default(store, config, layout, newest)
    return Rows(store.experiment_id, run_ids, written, sent)


def compare_url(rows: Rows) -> str:
    """The part of the address, after the server's, of MLflow's page that compares the rows."""
    return "/" + compare_page(rows.experiment_id, rows.run_ids.values())


def methods_url(rows: Rows) -> str:
    """The same of the table with the newest row of every method, of all profiles."""
    return "/" + view_page(rows.experiment_id, "methods")


def _write_missing(
    store: Store, config: Config, rows: list[Row]
) -> tuple[dict[tuple[str, int], str], int]:
    """Run of every row, and how many of them are new."""
    run_ids, written = {}, 0
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
    return run_ids, written


def _write(store: Store, config: Config, row: Row) -> str:
    """Record a row; it is `latest` only once it is complete."""
    link = report_link(store.experiment_id, store.parent_id)
    note = row_note(row.method, row.metrics, row.tags, row.weights, link)
    run_id = store.create_run(row.title, {**row.tags, "row.digest": row.digest, NOTE: note})
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
    from mlflow.entities import Metric, Param

    client, moment = store.client, now()
    if row.images:
        client.log_inputs(run_id, [_dataset_input(images) for images in row.images])
    model_id = _log_model(store, row, run_id) if row.one_file else None
    tested = row.images[0] if row.images else None

    def metric(name: str, value: float) -> "Metric":
        """A figure, linked to the model and, if it is of clean images, to those."""
        images = tested if name.startswith(OF_TESTED) else None
        origin = (images.name, images.digest) if images else (None, None)
        return Metric(name, value, moment, 0, model_id, *origin)

    metrics = [metric(name, value) for name, value in row.metrics.items()]
    params = [Param(name, value) for name, value in row.params.items()]
    client.log_batch(run_id, metrics=metrics, params=params)
    if row.learned:
        points = ((name, value, moment, step) for name, step, value in row.learned.thinned())
        log_points(store, run_id, points)
        client.log_artifact(run_id, str(row.learned.path))
        with tempfile.TemporaryDirectory() as folder:
            for file in _drawn(config, row, Path(folder)):
                client.log_artifact(run_id, str(file))
        _log_tables(store, run_id, row.learned.tables())


def _log_tables(store: Store, run_id: str, tables: Mapping[str, Table]) -> None:
    """Put tables where MLflow's pages show and compare them, as its own `log_table` does."""
    listed = []
    for name, table in tables.items():
        lines = [list(line) for line in zip(*table.values(), strict=True)]
        file = f"{name}_table.json"
        store.client.log_dict(run_id, {"columns": list(table), "data": lines}, file)
        listed.append({"path": file, "type": "table"})
    store.client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps(listed))


# Figures of the split `eval` as it is; the others are of corrupted images, or not of images.
OF_TESTED = ("clean/", "ece", "nll/", "brier/", "joint/")


def _drawn(config: Config, row: Row, folder: Path) -> Iterator[Path]:
    from pipeline.tracking.pictures import draw

    titles = {task: config.task(task).title for task in config.profile.tasks}
    if row.learned:
        yield from draw(row.learned, row.title, titles, folder)


def _dataset_input(images: Images) -> "DatasetInput":
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": images.folder})
    profile = json.dumps({"images": sum(images.counts.values()), **images.counts})
    dataset = Dataset(images.name, images.digest, "local", source, profile=profile)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", images.context)])


def _log_model(store: Store, row: Row, run_id: str) -> str:
    """A model entry that says where the weights are; they stay in DVC."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    kept = ("dvc.path", "dvc.md5", "git.sha", "profile", "method", "seed", "protocol")
    tags = {name: row.tags[name] for name in kept if name in row.tags}
    model = store.client.create_logged_model(
        store.experiment_id,
        f"{row.tags['profile']}-{row.method}-seed-{row.seed}",
        run_id,
        {**tags, "weights": row.weights, "mlflow.model.isExternal": "true"},
        dict(row.params),
    )
    store.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    store.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return model.model_id


def _log_report(store: Store, layout: Layout) -> None:
    """Put the page beside the configuration, where the descriptions of its runs link to."""
    page = layout.report / "index.html"
    if not page.is_file():
        return
    content = sha256(page)
    if store.client.get_run(store.parent_id).data.tags.get(REPORT_SHA) == content:
        return
    store.client.log_text(store.parent_id, page.read_text(encoding="utf-8"), REPORT)
    store.client.set_tag(store.parent_id, REPORT_SHA, content)
