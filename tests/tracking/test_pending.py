"""Runs of stages that the store did not take: kept on this machine, and sent later."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tracking_project import ROOT, Project, free_port

from pipeline.errors import UserError
from pipeline.tracking import server_may_be_away, stage_run, track
from pipeline.tracking.pending import Record
from pipeline.tracking.stage import StageRun
from pipeline.tracking.store import open_store

# Of MLflow's own queries, with SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")


def kept(project: Project) -> list[Path]:
    return sorted((project.root / ".cache" / "mlflow-pending").glob("*"))


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a server that does not answer."""
    uri = f"http://me:hunter2secret@127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


@pytest.mark.slow
def test_nothing_is_lost_with_a_server_that_dies_in_a_long_stage(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from stages.ui import pages

    open_store(project.config)  # or the server would keep files where only it finds them
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    database, log = f"sqlite:///{project.root}/mlflow.db", project.root / "log"
    with (
        pages(database, port, log) as server,
        stage_run(project.config, project.layout, "learn") as run,
    ):
        for step in range(600):  # more than are held back
            run.log({"loss": 1.0 / (step + 1)}, step)
        os.killpg(server.pid, signal.SIGKILL)  # with the processes that answer for it
        server.wait(30)
        run.log({"loss": float("nan"), "entropy": 0.5}, 600)
    assert capsys.readouterr().err.count("Warning: MLflow does not take this run") == 1
    assert len(kept(project)) == 1

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    [left] = project.runs("tags.kind = 'stage'")
    assert (left.info.run_id, left.info.status) == (run.run_id, "RUNNING")
    assert track(project.config, project.layout).sent == 1
    [stored] = project.runs("tags.kind = 'stage'")
    assert (stored.info.run_id, stored.info.status) == (run.run_id, "FINISHED")
    assert stored.data.metrics["seconds"] > 0
    assert stored.data.tags["device"]
    history = project.client.get_metric_history(stored.info.run_id, "loss")
    assert [point.step for point in history] == list(range(601))
    assert kept(project) == []
    assert track(project.config, project.layout).sent == 0


def test_store_that_breaks_costs_one_warning(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    with stage_run(project.config, project.layout, "learn") as run:
        with sqlite3.connect(project.root / "mlflow.db") as database:
            database.execute("drop table metrics")
        for step in range(1200):
            run.log({"loss": 1.0}, step)
    assert capsys.readouterr().err.count("Warning: ") == 1
    [path] = kept(project)
    assert len(Record.load(path).points) == 1201


def test_points_held_back_after_a_loss_are_sent_at_the_end(tmp_path: Path) -> None:
    sent: list[int] = []
    failures = iter([True])

    def log_batch(run_id: str, metrics: tuple[Any, ...] = (), tags: object = ()) -> None:
        if next(failures, False):
            raise ConnectionError("gone")
        sent.append(len(metrics))

    ended: list[str] = []
    client = SimpleNamespace(
        log_batch=log_batch, set_terminated=lambda run_id, status, when: ended.append(status)
    )
    record = Record("learn, mini", {}, 0, "key", run_id="run")
    run = StageRun(tmp_path, record, SimpleNamespace(client=client))
    for step in range(500):
        run.log({"loss": 1.0}, step)
    folder = tmp_path / ".cache" / "mlflow-pending"
    assert len(list(folder.iterdir())) == 1  # should the process be killed now
    for step in range(500, 1500):
        run.log({"loss": 1.0}, step)
    run.close("FINISHED")
    assert sum(sent) == 1501
    assert ended == ["FINISHED"]
    assert list(folder.iterdir()) == []


def test_stage_that_may_run_without_a_server_is_sent_to_another_store(
    project: Project,
    away: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(UserError, match="does not answer"):
        stage_run(project.config, project.layout, "report").__enter__()
    with server_may_be_away(), stage_run(project.config, project.layout, "report") as run:
        run.log({"loss": 2.0}, 3)
    assert run.run_id is None
    assert "hunter2secret" not in capsys.readouterr().err + kept(project)[0].read_text()

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert track(project.config, project.layout).sent == 1
    [stored] = project.runs("tags.kind = 'stage'")
    assert stored.info.run_name == "report, mini"
    assert stored.info.status == "FINISHED"
    assert stored.data.metrics["loss"] == 2.0
    [parent] = project.runs("tags.kind = 'configuration'")
    assert stored.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert kept(project) == []


@pytest.mark.slow
def test_report_is_written_without_its_server(tmp_path: Path, away: str) -> None:
    from report_artifacts import write_artifacts, write_config

    layout = write_artifacts(write_config(tmp_path))
    report = subprocess.run(
        [sys.executable, "-m", "stages.report"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert report.returncode == 0, report.stderr
    assert (layout.report / "index.html").is_file()
    assert report.stderr.count("Warning: ") == 2  # of its own run, and of the rows
    assert "hunter2secret" not in report.stdout + report.stderr
    [record] = (tmp_path / ".cache" / "mlflow-pending").iterdir()
    assert json.loads(record.read_text())["status"] == "FINISHED"


def test_runs_of_other_settings_come_below_their_own_configuration(project: Project) -> None:
    tags = {"kind": "stage", "dvc.stage": "learn", "profile": "mini"}
    Record("learn, mini", tags, 1000, "f" * 64, status="KILLED", ended=5000).keep(project.root)
    track(project.config, project.layout)
    [stored] = project.runs("tags.kind = 'stage'")
    assert (stored.info.status, stored.info.start_time, stored.info.end_time) == (
        "KILLED",
        1000,
        5000,
    )
    parent = project.client.get_run(stored.data.tags["mlflow.parentRunId"])
    assert parent.data.tags["pipeline.key"] == "f" * 64


def test_run_that_was_half_sent_is_not_doubled(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    tags = {"kind": "stage", "dvc.stage": "learn", "profile": "mini"}
    store = open_store(project.config)
    points = [("loss", 1.0, 1000, step) for step in range(3)]
    Record("learn, mini", tags, 1000, store.key, None, points, "FINISHED", 5000).keep(project.root)

    def gone(*_: object) -> None:
        raise ConnectionError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_terminated", gone)
        with pytest.raises(UserError, match="gone"):
            track(project.config, project.layout)
    assert track(project.config, project.layout).sent == 1
    [stored] = project.runs("tags.kind = 'stage'")
    assert stored.info.status == "FINISHED"
    assert len(project.client.get_metric_history(stored.info.run_id, "loss")) == 3


def test_damaged_record_is_named_and_left(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = project.root / ".cache" / "mlflow-pending"
    folder.mkdir(parents=True)
    for name, text in {"a": "{", "b": "[]", "c": json.dumps({"surprise": 1})}.items():
        (folder / f"{name}.json").write_text(text)
    assert track(project.config, project.layout).sent == 0
    assert capsys.readouterr().err.count("is no record of a run") == 3
    assert len(kept(project)) == 3


def test_user_who_deleted_the_run_does_not_get_it_back(project: Project) -> None:
    with stage_run(project.config, project.layout, "learn") as run:
        pass
    project.client.delete_run(run.run_id)
    tags = {"kind": "stage", "dvc.stage": "learn", "profile": "mini"}
    store = open_store(project.config)
    Record("learn, mini", tags, 1000, store.key, run.run_id).keep(project.root)
    track(project.config, project.layout)
    assert project.runs("tags.kind = 'stage'") == []
    assert kept(project) == []


def test_run_that_goes_on_is_left_to_its_process(project: Project) -> None:
    tags = {"kind": "stage", "dvc.stage": "report", "profile": "mini"}
    store = open_store(project.config)
    record = Record("report, mini", tags, 1000, store.key, process=os.getpid())
    path = record.keep(project.root)
    track(project.config, project.layout)
    assert kept(project) == [path]
    record.status, record.ended = "FINISHED", 5000
    record.keep(project.root, path)
    track(project.config, project.layout)
    assert kept(project) == []
    [run] = project.runs("tags.kind = 'stage'")
    assert run.info.status == "FINISHED"
