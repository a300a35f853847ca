"""Where runs are recorded, what is refused at once, and where inputs come from."""

import socket
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from tracking_project import Project, free_port

from pipeline.errors import UserError
from pipeline.files import write_text
from pipeline.tracking import check_reachable, stage_run, tracking_uri
from pipeline.tracking.provenance import git_state, inputs_hash

# Of MLflow's own queries, with SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")


def test_store_is_a_file_of_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking_uri(tmp_path) == f"sqlite:///{tmp_path.as_posix()}/mlflow.db"
    check_reachable(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert tracking_uri(tmp_path / "experiment") == f"sqlite:///{tmp_path.as_posix()}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://example.org")
    assert tracking_uri(tmp_path) == "http://example.org"


def test_folder_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/absent/mlflow.db")
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI"):
        check_reachable(tmp_path)


def test_silent_server_is_found_out_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{free_port()}")
    started = time.monotonic()
    with pytest.raises(UserError, match="does not answer") as caught:
        check_reachable(tmp_path)
    assert "secret" not in str(caught.value)
    assert time.monotonic() - started < 3

    with socket.create_server(("127.0.0.1", 0)) as deaf:  # accepts, but never answers
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        with pytest.raises(UserError, match="timed out"):
            check_reachable(tmp_path)
    assert time.monotonic() - started < 6


def test_damaged_store_is_a_users_error(project: Project) -> None:
    (project.root / "mlflow.db").write_bytes(b"not a database" * 100)
    with (
        pytest.raises(UserError, match="not a database"),
        stage_run(project.config, project.layout, "learn"),
    ):
        pytest.fail("the stage must not start")


def test_inputs_are_those_of_the_stages_before(tmp_path: Path) -> None:
    def lock(vectors: str, learn: str) -> None:
        outs = {
            "vectors": ("artifacts/mini/vectors", vectors),
            "learn": ("artifacts/mini/c", learn),
        }
        stages = {s: {"outs": [{"path": p, "md5": m}]} for s, (p, m) in outs.items()}
        write_text(tmp_path / "dvc.lock", yaml.safe_dump({"stages": stages}))

    deps = ["pipeline/learning/loop.py", "artifacts/${profile}/vectors"]
    write_text(tmp_path / "dvc.yaml", yaml.safe_dump({"stages": {"learn": {"deps": deps}}}))
    assert inputs_hash(tmp_path, "learn", "mini") is None
    lock("one", "first")
    first = inputs_hash(tmp_path, "learn", "mini")
    assert first is not None
    lock("one", "second")
    assert inputs_hash(tmp_path, "learn", "mini") == first
    lock("two", "second")
    assert inputs_hash(tmp_path, "learn", "mini") != first


def test_git_state_leaves_results_out(tmp_path: Path) -> None:
    assert git_state(tmp_path) == {"commit": None, "dirty": False}
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    write_text(tmp_path / "code.py", "one")
    for command in (["init", "-q"], ["add", "code.py"], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    write_text(tmp_path / "metrics" / "mini" / "clean.json", "{}")
    write_text(tmp_path / "dvc.lock", "")
    state = git_state(tmp_path)
    assert len(state["commit"]) == 40
    assert not state["dirty"]
    write_text(tmp_path / "code.py", "two")
    assert git_state(tmp_path)["dirty"]
