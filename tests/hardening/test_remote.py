"""Artifacts on an S3-compatible server: pushed, lost here, pulled again, and nothing left to do."""

import importlib.util
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
from dvc_project import dvc, environment, figures

MISSING = [name for name in ("moto", "dvc_s3") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning"),
    pytest.mark.skipif(bool(MISSING), reason=f"needs {' and '.join(MISSING)}"),
]
KEYS = {
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "canary-of-the-remote",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """The address of a running server with an empty bucket `store`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (tmp_path_factory.mktemp("s3") / "log").open("wb")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=log, stderr=log, env=environment())
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert server.poll() is None
            try:
                urlopen(Request(f"{address}/store", method="PUT"), timeout=60).close()
                break
            except (URLError, ConnectionError):
                time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait(30)
        log.close()


@pytest.fixture
def project(undisturbed, bucket, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(undisturbed, folder, ignore=shutil.ignore_patterns(".cache", "__pycache__"))
    with (folder / ".dvc" / "config").open("a", encoding="utf-8") as config:
        config.write(
            f"['remote \"store\"']\n    url = s3://store/adamerge\n    endpointurl = {bucket}\n"
        )
    return folder


def run(project: Path, *words: str) -> str:
    done = dvc(project, *words, **KEYS)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def lose(project: Path) -> None:
    """As on another machine: what git has, and nothing else."""
    for name in (".dvc/cache", ".dvc/tmp", "artifacts", "report"):
        shutil.rmtree(project / name)


def test_artifacts_are_pushed_and_pulled(project, undisturbed):
    assert "pushed" in run(project, "push", "--remote", "store", "--run-cache")
    lose(project)
    run(project, "pull", "--remote", "store", "--run-cache")
    assert figures(project) == figures(undisturbed)
    said = run(project, "repro")
    assert "up to date" in said and "Running" not in said
    assert "canary" not in said


def test_a_remote_that_is_away_is_said(project):
    path = project / ".dvc" / "config"
    text = path.read_text(encoding="utf-8")
    address = text.split("endpointurl = ")[1].split()[0]
    path.write_text(text.replace(address, "http://127.0.0.1:9"), encoding="utf-8")
    before = figures(project)
    done = dvc(project, "push", "--remote", "store", **KEYS)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    assert "canary" not in done.stdout + done.stderr
    assert figures(project) == before
