"""What killed runs left behind is cleared away by the next, and nothing else is."""

import json
import os
import subprocess
import sys
import time

import pytest

from pipeline.files import replacing
from stages.repro import DAY, release_zombies, remove_half_written


@pytest.fixture
def left(tmp_path):
    """Call it with a file: what a writer that was killed leaves of it, so many seconds ago."""

    def leave(name, seconds):
        with pytest.raises(KeyboardInterrupt), replacing(tmp_path / name) as temporary:
            temporary.write_text("half")
            os.link(temporary, kept := tmp_path / "kept")
            raise KeyboardInterrupt
        kept.rename(temporary)  # what a signal 9 would have left there
        then = time.time() - seconds
        os.utime(temporary, (then, then))
        return temporary

    return leave


@pytest.mark.parametrize(
    "name",
    [
        "mlflow.db",
        "metrics/mini/clean.json",
        ".cache/images/0a1b2c.npy",
        ".cache/coefficients/0a1b2c.state.safetensors",
        ".cache/x",
    ],
)
def test_old_ones_are_removed(name, left, tmp_path, capsys):
    old, new = left(name, DAY + 60), left(name, DAY - 60)
    remove_half_written(tmp_path)
    assert not old.exists() and new.exists()
    assert capsys.readouterr().out == "removed 1 half-written files of killed runs, 0.0 MB\n"


@pytest.mark.parametrize(
    "name",
    [
        *(".env", ".gitignore", ".cache/mlflow.lock", ".cache/images/0a1b2c.npy", ".a.b.c"),
        *(".env.20241122", ".params.20240101.yaml", ".notes.0a1b2c3d.md"),
    ],
)
def test_other_files_stay(name, tmp_path, capsys):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("whole")
    os.utime(path, (0, 0))
    remove_half_written(tmp_path)
    assert path.exists() and capsys.readouterr().out == ""


def test_a_project_without_a_cache(tmp_path, capsys):
    remove_half_written(tmp_path)
    assert capsys.readouterr().out == ""


@pytest.fixture
def zombie():
    """The id of a process that has ended, and that nobody has waited for."""
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    process.stdout.read()  # to its end
    time.sleep(0.2)
    yield process.pid
    process.stdout.close()
    process.wait()


@pytest.fixture
def locks(tmp_path):
    """Call it with the ids of processes: DVC's file of the locks that they hold."""

    def hold(*holders):
        first, *others = ({"pid": pid, "cmd": "dvc repro"} for pid in holders)
        path = tmp_path / ".dvc" / "tmp" / "rwlock"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"write": {"x": first}, "read": {"y": others}}))
        return path

    return hold


GONE = 2**22 + 1  # no process has so large an id


def test_locks_of_zombies_are_released(zombie, locks, tmp_path):
    path = locks(zombie, GONE)
    release_zombies(tmp_path)
    assert not path.exists()


def test_locks_of_the_living_stay(zombie, locks, tmp_path):
    path = locks(zombie, os.getpid())
    release_zombies(tmp_path)
    assert path.exists()


def test_the_dead_are_left_to_dvc(locks, tmp_path):
    path = locks(GONE)
    release_zombies(tmp_path)
    assert path.exists()


def test_a_project_without_locks(tmp_path):
    release_zombies(tmp_path)
    assert not list(tmp_path.iterdir())
