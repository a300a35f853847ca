"""A disk that fills up, in every stage: one sentence, the last good state, and then a whole run."""

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dvc_project import figures
from stage_project import STAGES, call, enter, half_written, refused, tree

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")
# Bytes that are free at one try after the other, with what was there before left as it is.
ROOM = [0, 2**17, 2**19, 2**22]
FILLER = "filler"
SOURCES = shutil.ignore_patterns(".cache", ".dvc*", "pipeline", "stages", "mlruns")


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a small disk (tmpfs) can be mounted only by root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def leave(disk: Path, free: int) -> None:
    """Fill the disk up to `free` bytes."""
    with (disk / FILLER).open("wb") as file:
        state = os.statvfs(disk)
        os.posix_fallocate(file.fileno(), 0, state.f_bavail * state.f_frsize - free)


def settled(project: Path) -> dict[str, object]:
    """What a run may not change: all but caches, MLflow's store, and what holds a clock's time."""
    timed = ("/runs/", "/coefficients/", "merged/seed-0/summary.json", "index.html")
    files = {
        name: digest
        for name, digest in tree(project).items()
        if name.startswith(("artifacts/", "metrics/", "report/"))
        and not any(part in name for part in timed)
    }
    return files | figures(project)


def complaints(said: str) -> list[str]:
    """The lines of an error; warnings that MLflow has no record of it go by the way."""
    return [line for line in said.splitlines() if not line.startswith("Warning: ")]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_on_a_full_disk(stage, disk, undisturbed, empty_store, monkeypatch, capsys):
    project = disk / stage
    shutil.copytree(undisturbed, project, ignore=SOURCES)
    shutil.copy(empty_store, project / "mlflow.db")
    before = settled(project)

    def attempt(free: int) -> str | None:
        """Run the stage with `free` bytes: the sentence with which it refuses, or None."""
        leave(disk, free)
        code, said = call(stage, capsys)
        (disk / FILLER).unlink()
        assert not half_written(project) and settled(project) == before
        if code == 0:
            return None
        [sentence] = complaints(said)
        assert code == 2 and sentence.startswith("Error: ")
        return sentence

    enter(project, empty_store, monkeypatch)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{undisturbed.parent}/{stage}.db")
    shutil.copy(empty_store, undisturbed.parent / f"{stage}.db")
    assert "the disk is full: free some space" in attempt(0)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    sentences = list(iter(map(attempt, ROOM).__next__, None))
    assert sentences and all("full" in sentence for sentence in sentences)
    shutil.rmtree(project)


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """In the block no file can be made larger than `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_files_that_may_not_become_so_large(
    undisturbed, tmp_path, empty_store, monkeypatch, capsys
):
    project = tmp_path / "project"
    shutil.copytree(undisturbed, project, ignore=SOURCES)
    enter(project, empty_store, monkeypatch)
    before = settled(project)
    monkeypatch.setattr("pipeline.tracking.stage_run", recorded_nowhere)  # its file is larger
    with no_file_beyond(20_000):
        assert "'ulimit -f'" in refused("vectors", capsys)
    assert settled(project) == before and not half_written(project)
    assert call("vectors", capsys)[0] == 0
    assert settled(project) == before


@contextmanager
def recorded_nowhere(*_):
    class Run:
        def log(self, metrics, step):
            pass

    yield Run()
