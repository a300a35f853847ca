"""Runs of executed stages: status, nesting, buffering, and stores that break."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tracking_project import ROOT, Project

from pipeline.tracking import stage_run
from pipeline.tracking.store import configuration_key

# Of MLflow's own queries, with SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")


def test_stage_is_recorded_below_its_configuration(project: Project) -> None:
    with stage_run(project.config, project.layout, "learn") as run:
        for step in range(1200):
            run.log({"entropy": 1.0 / (step + 1)}, step)
        run.tag("device", "cpu")
    [stored] = project.runs("tags.kind = 'stage'")
    assert stored.info.status == "FINISHED"
    assert stored.info.run_name == "learn, mini"
    assert stored.data.tags["dvc.stage"] == "learn"
    assert stored.data.tags["checkpoint.family"] == "mini"
    history = project.client.get_metric_history(stored.info.run_id, "entropy")
    assert [point.step for point in history] == list(range(1200))
    [parent] = project.runs("tags.kind = 'configuration'")
    assert stored.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.data.tags["pipeline.key"] == configuration_key(project.config)
    assert parent.data.params["experts.finetuning.lr"] == "0.0005"
    assert parent.info.artifact_uri.startswith((project.root / "mlruns").as_uri())


def test_failed_and_interrupted_stages(project: Project) -> None:
    for error in (ValueError("a bad tensor"), KeyboardInterrupt()):
        with (
            pytest.raises(type(error)),
            stage_run(project.config, project.layout, "merge") as run,
        ):
            run.log({"loss": 1.0}, 0)
            raise error
    [failed] = project.runs("attributes.status = 'FAILED'")
    assert failed.data.metrics["loss"] == 1.0
    assert failed.data.tags["error"] == "ValueError: a bad tensor"
    assert len(project.runs("attributes.status = 'KILLED'")) == 1


def test_run_id_of_the_environment_is_ignored(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stage_run(project.config, project.layout, "fetch") as outer:
        pass
    monkeypatch.setenv("MLFLOW_RUN_ID", outer.run_id)
    with stage_run(project.config, project.layout, "experts") as run:
        assert run.run_id != outer.run_id
    [parent] = project.runs("tags.kind = 'configuration'")
    for stored in project.runs("tags.kind = 'stage'"):
        assert stored.data.tags["mlflow.parentRunId"] == parent.info.run_id


CHILD = """
import sys, time
from pathlib import Path
from pipeline.config import load_config
from pipeline.layout import Layout
from pipeline.tracking import stage_run

root, stage, wait = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "wait"
config = load_config(root)
with stage_run(config, Layout(root, config.name), stage) as run:
    run.log({"loss": 1.0}, 0)
    print("running", flush=True)
    time.sleep(600 if wait else 0)
"""


def child(root: Path, stage: str, wait: str = "go") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(root), stage, wait],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_killed_stage_is_marked_at_the_next_run(project: Project) -> None:
    process = child(project.root, "learn", "wait")
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    [left] = project.runs("tags.kind = 'stage'")
    assert left.info.status == "RUNNING"
    with stage_run(project.config, project.layout, "learn"):
        pass
    assert project.client.get_run(left.info.run_id).info.status == "KILLED"


@pytest.mark.slow
def test_processes_may_start_at_once_and_stay_quiet(bare: Project) -> None:
    processes = [child(bare.root, f"stage{k}") for k in range(4)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert outputs == [("running\n", "")] * 4
    assert len(bare.runs("tags.kind = 'configuration'")) == 1
    assert len(bare.runs("tags.kind = 'stage'")) == 4
