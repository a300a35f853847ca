"""A server whose store is PostgreSQL, as a group would run one."""

import glob
import importlib.util
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from tracking_project import METHODS, Project, free_port

from pipeline.tracking import promote, stage_run, track

NOBODY = 65534
PASSWORD = "hunter2secret"
INITDB = ("-U", "me", "-A", "scram-sha-256", "--no-sync")


def program(name: str) -> str | None:
    """A program of PostgreSQL, also where it is not on the PATH."""
    return shutil.which(name) or next(iter(glob.glob(f"/usr/lib/postgresql/*/bin/{name}")), None)


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (program("initdb") and program("postgres")), reason="PostgreSQL is not installed"
    ),
    pytest.mark.skipif(
        importlib.util.find_spec("psycopg2") is None, reason="psycopg2 is not installed"
    ),
]


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """The URI of a database whose files lie in `folder`."""
    port, data = free_port(), folder / "data"
    data.mkdir()
    (folder / "password").write_text(PASSWORD)
    who: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        who = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        for path in (data, folder / "password"):
            os.chown(path, NOBODY, NOBODY)
        folder.chmod(0o755)
    subprocess.run(
        [program("initdb"), "-D", data, f"--pwfile={folder / 'password'}", *INITDB],
        cwd=folder,
        capture_output=True,
        check=True,
        **who,
    )
    command = [str(program("postgres")), "-D", data, "-p", str(port), "-F"]
    command += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, **who)
        try:
            wait_for(port, server)
            # By its driver: which one stands behind postgresql:// depends on SQLAlchemy's version.
            yield f"postgresql+psycopg2://me:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            server.terminate()
            server.wait(60)


def wait_for(port: int, server: "subprocess.Popen[bytes]") -> None:
    import psycopg2

    for _ in range(300):
        assert server.poll() is None
        try:
            psycopg2.connect(
                host="127.0.0.1", port=port, user="me", password=PASSWORD, dbname="postgres"
            ).close()
            return
        except psycopg2.OperationalError:
            time.sleep(0.2)
    pytest.fail("PostgreSQL did not start")


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that another user can reach, too: pytest keeps its folders to itself."""
    with TemporaryDirectory(prefix="postgres-") as folder:
        yield Path(folder)


def test_server_on_postgres_holds_rows_stages_and_champion(
    bare: Project, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    from stages.ui import pages

    port = free_port()
    # The server keeps uploaded files below the folder it starts in.
    with postgres(folder) as uri, chdir(bare.root), pages(uri, port, bare.root / "log"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        with stage_run(bare.config, bare.layout, "learn") as run:
            run.log({"loss": 1.0}, 0)
            run.log({"loss": float("inf")}, 1)
        rows = track(bare.config, bare.layout)
        assert (rows.written, len(rows.run_ids)) == (len(METHODS), len(METHODS))
        assert track(bare.config, bare.layout).written == 0
        assert promote(bare.config, bare.layout, "adamerging_layerwise", 0) == "1"

        client = MlflowClient(f"http://127.0.0.1:{port}")
        row = client.get_run(rows.run_ids["adamerging_layerwise", 0])
        assert row.data.metrics["clean/avg"] == 61.5
        assert len(client.get_metric_history(row.info.run_id, "entropy/svhn")) == 100
        assert [used.dataset.name for used in row.inputs.dataset_inputs] == [
            "mini eval, seed 0",
            "mini adapt, seed 0",
        ]
        champion = client.get_model_version_by_alias("merged-clip", "champion")
        assert champion.run_id == row.info.run_id
        # MLflow stores infinity as the largest number there is.
        assert client.get_run(str(run.run_id)).data.metrics["loss"] > 1e308
    assert PASSWORD not in (bare.root / "log").read_text()
