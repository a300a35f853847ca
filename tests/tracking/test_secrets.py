"""Passwords and tokens stand in no message, tag, file or list of processes."""

import subprocess
from pathlib import Path

import pytest
from tracking_project import Project, free_port

from pipeline.errors import UserError
from pipeline.tracking import shown_uri, stage_run, track, without_secrets
from pipeline.tracking.address import reason

# Of MLflow's own queries, with SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

PASSWORD, TOKEN = "p%40ss%2Fw0rd", "tok-12345678"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        (f"http://me:{PASSWORD}@mlflow.example:80/x", "http://mlflow.example:80/x"),
        (f"postgresql://me:{PASSWORD}@host/db", "postgresql://host/db"),
        (
            "postgresql://host/db?user=me&password=hunter2",
            "postgresql://host/db?user=me&password=***",
        ),
        ("mysql://host/db?ssl=1&sslpassword=hunter2", "mysql://host/db?ssl=1&sslpassword=***"),
        ("http://me:p@ss/w0rd@mlflow.example/x", "http://mlflow.example/x"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
    ],
)
def test_shown_address_has_no_password(
    uri: str, shown: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert shown_uri(tmp_path) == shown


def test_what_others_write_is_cleaned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{PASSWORD}@host")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    text = f"GET http://me:{PASSWORD}@host/api failed, p@ss/w0rd refused, Bearer {TOKEN}"
    assert without_secrets(text) == "GET http://host/api failed, *** refused, Bearer ***"
    assert reason(ValueError(text)) == without_secrets(text)
    assert without_secrets("user@host is no secret") == "user@host is no secret"


def test_error_of_a_stage_is_recorded_without_them(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2secret")
    with pytest.raises(ValueError, match="hunter2"), stage_run(project.config, project.layout, "x"):
        raise ValueError("login with hunter2secret was refused")
    [run] = project.runs("attributes.status = 'FAILED'")
    assert run.data.tags["error"] == "ValueError: login with *** was refused"


@pytest.mark.parametrize("scheme", ["http", "postgresql+nodriver"])
def test_store_that_cannot_be_used_is_named_without_them(
    scheme: str,
    bare: Project,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    uri = f"{scheme}://me:hunter2secret@127.0.0.1:{free_port()}/store"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UserError) as caught:
        track(bare.config, bare.layout)
    said = [str(caught.value), caplog.text, *capfd.readouterr()]
    assert "127.0.0.1" in said[0]
    assert not any("hunter2secret" in text for text in said)


@pytest.mark.slow
def test_server_is_started_without_them(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    from stages.ui import pages

    log, uri = project.root / "log", f"sqlite:///{project.root}/mlflow.db?token=hunter2secret"
    with pages(uri, free_port(), log):
        running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert "mlflow server" in running.stdout
    assert "hunter2secret" not in running.stdout
    assert "hunter2secret" not in log.read_text() + "".join(capfd.readouterr())
