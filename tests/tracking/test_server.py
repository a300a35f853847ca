"""Rows and stages through a real MLflow server, as several people share one."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from typing import Any
from urllib.request import Request, urlopen

import pytest
from tracking_project import METHODS, ROOT, Project, free_port

from pipeline.tracking import stage_run, track

# Of MLflow's own queries, with SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running `mlflow server`."""
    from stages.ui import pages

    folder, port = tmp_path_factory.mktemp("server"), free_port()
    # The server keeps uploaded files below the folder it starts in.
    with chdir(folder), pages(f"sqlite:///{folder}/server.db", port, folder / "log"):
        yield f"http://127.0.0.1:{port}"


def ask(url: str, question: dict[str, Any] | None = None) -> Any:
    body = None if question is None else json.dumps(question).encode()
    request = Request(url, body, {"Content-Type": "application/json"})
    with urlopen(request, timeout=30) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_server_shows_rows_and_stages(
    bare: Project,
    server: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    with stage_run(bare.config, bare.layout, "merge") as run:
        run.log({"loss": 1.0}, 0)
    rows = track(bare.config, bare.layout)
    assert track(bare.config, bare.layout).written == 0
    assert not (bare.root / "mlflow.db").exists()
    assert capsys.readouterr() == ("", "")

    question = {"experiment_ids": [rows.experiment_id], "filter": "tags.latest = 'true'"}
    found = ask(f"{server}/api/2.0/mlflow/runs/search", question)["runs"]
    assert {run["info"]["run_id"] for run in found} == set(rows.run_ids.values())
    learned = rows.run_ids["adamerging_layerwise", 0]
    history = ask(
        f"{server}/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval"
        f"?run_ids={learned}&metric_key=entropy/sum"
    )
    assert len(history["metrics"]) == 100
    listing = ask(f"{server}/api/2.0/mlflow/artifacts/list?run_id={learned}")
    assert {file["path"] for file in listing["files"]} == {
        "adamerging_layerwise.safetensors",
        *("coefficients.png", "coefficients_table.json", "curves.png", "curves_table.json"),
    }


@pytest.mark.slow
def test_ui_writes_rows_serves_them_and_ends_with_ctrl_c(project: Project) -> None:
    port = free_port()
    command = [sys.executable, "-m", "stages.ui", "--port", str(port)]
    here = {"cwd": project.root, "env": {**os.environ, "PYTHONPATH": str(ROOT)}, "text": True}
    ui = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **here)
    assert ui.stdout is not None
    assert ui.stdout.readline() == f"MLflow: http://127.0.0.1:{port}\n"
    assert "viewStateShareKey=methods" in ui.stdout.readline()
    page = ui.stdout.readline()
    rows = project.runs("tags.latest = 'true'")
    assert len(rows) == len(METHODS)
    assert all(row.info.run_id in page for row in rows)

    second = subprocess.run(command, capture_output=True, timeout=60, check=False, **here)
    assert second.returncode == 2
    assert second.stderr.startswith(f"Error: Port {port} cannot be used")

    ui.send_signal(signal.SIGINT)
    output, error = ui.communicate(timeout=60)
    assert (ui.returncode, error) == (0, "")
    assert output.endswith("Stopped.\n")
    with pytest.raises(OSError, match="refused"):
        urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
