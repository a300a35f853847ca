"""Two runs at the same time share the cache and MLflow's store, and give what one gives."""

import multiprocessing
import os
import shutil
import sqlite3
import sys
from contextlib import closing

import pytest
from dvc_project import figures, write_dvc_project
from stage_process import run_stages
from stage_project import half_written

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")
STAGES = ["experts", "vectors", "learn", "merge", "evaluate"]
SECONDS = 600
IMPORTED = ["open_clip", "mlflow.store.tracking.sqlalchemy_store"]  # by every stage, in seconds


@pytest.fixture(scope="module")
def processes():
    """Processes that begin with everything imported; a test's process may not be forked itself."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["stage_process", *IMPORTED])
    with pytest.MonkeyPatch.context() as patch:
        # Python 3.11 does not pass on where modules are found.
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        patch.setenv("OMP_NUM_THREADS", "1")
        first = context.Process()
        first.start()
    first.join()
    return context


@pytest.fixture
def fetched(undisturbed, tmp_path):
    """A project in which `fetch` has run alone, for the profiles `ci` and `other`."""
    folder = tmp_path / "project"
    write_dvc_project(folder)
    shutil.copy(folder / "profiles" / "ci.yaml", folder / "profiles" / "other.yaml")
    done = undisturbed / "artifacts" / "ci"
    for profile in ("ci", "other"):
        artifacts = folder / "artifacts" / profile
        artifacts.mkdir(parents=True)
        shutil.copy(done / "pretrained.safetensors", artifacts)
        for kind in ("fetched", "data"):
            shutil.copytree(done / kind, artifacts / kind)
    return folder


@pytest.mark.parametrize("profiles", [("ci", "ci"), ("ci", "other")], ids=" and ".join)
def test_two_runs_at_once(profiles, processes, fetched, undisturbed, tmp_path):
    gate = processes.Barrier(2)
    logs = [tmp_path / f"log {number}" for number in (1, 2)]
    both = [
        processes.Process(target=run_stages, args=(fetched, profile, STAGES, gate, log))
        for profile, log in zip(profiles, logs, strict=True)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(SECONDS)
    said = "\n".join(log.read_text(encoding="utf-8") for log in logs)
    assert [process.exitcode for process in both] == [0, 0], said
    assert "Traceback" not in said and "Error" not in said
    wanted = figures(undisturbed)
    for profile in set(profiles):
        found = figures(fetched, profile)
        assert found == {name: wanted[name] for name in found}
        assert {"clean.json", "learning.json"} <= found.keys()
    assert not half_written(fetched / "artifacts") and not half_written(fetched / ".cache")
    assert not list((fetched / ".cache").rglob("*.state.*"))
    with closing(sqlite3.connect(fetched / "mlflow.db")) as store:
        assert store.execute("pragma integrity_check").fetchone() == ("ok",)
        counts = store.execute("select status, count(*) from runs group by status").fetchall()
    statuses = dict(counts)
    # A run for every stage of both, and one for every configuration. One that ends just when the
    # other begins the same stage may be taken for one that was killed.
    assert sum(statuses.values()) == 2 * len(STAGES) + len(set(profiles))
    assert statuses["FINISHED"] > len(STAGES) and statuses.keys() <= {"FINISHED", "KILLED"}
