"""`dvc repro` killed at any moment, with all that it started, and run again."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from dvc_project import dvc, environment, figures, write_dvc_project
from stage_project import half_written

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning"),
]
KILLS = int(os.environ.get("ADAMERGE_KILLS", "3"))  # in threes; 21 for a longer test
SECONDS = 900


@dataclass
class Killed:
    """What is left of a run that was killed again and again, and then left in peace."""

    folder: Path
    refused: subprocess.CompletedProcess[str]  # `make repro` while another ran
    log: str
    code: int


def start(folder: Path, log: Path, module: str = "stages.repro") -> subprocess.Popen[bytes]:
    """`make repro`, or `dvc repro`, in a process group of its own."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", module, *(["repro"] if module == "dvc" else [])],
            cwd=folder,
            env=environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def processor_seconds(process: subprocess.Popen[bytes]) -> float:
    """Of a process and all that it started: a clock that does not mind what else is running."""
    total = 0.0
    try:
        first = psutil.Process(process.pid)
        for one in (first, *first.children(recursive=True)):
            total += sum(one.cpu_times()[:4])  # its own and those of its children that ended
    except psutil.NoSuchProcess:
        pass
    return total


def kill_at(process: subprocess.Popen[bytes], moment: float) -> None:
    """End the process and all that it started with signal 9."""
    deadline = time.monotonic() + SECONDS
    while process.poll() is None and processor_seconds(process) < moment:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module", params=range(1, -(-KILLS // 3) + 1))
def killed(request, tmp_path_factory) -> Killed:
    """A project whose run was killed three times at moments drawn from a seed."""
    folder = tmp_path_factory.mktemp("killed") / "project"
    write_dvc_project(folder)
    log, random_moments = folder.parent / "log", random.Random(request.param)
    # A stage takes some seven seconds, and all of them a minute.
    moments = [random_moments.uniform(3, 22) for _ in range(3)]

    first = start(folder, log)
    while b"Running stage" not in log.read_bytes():
        assert first.poll() is None, log.read_text(encoding="utf-8")
        time.sleep(0.1)
    refused = subprocess.run(
        [sys.executable, "-m", "stages.repro"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
    )
    kill_at(first, moments[0])
    assert first.returncode == -signal.SIGKILL, log.read_text(encoding="utf-8")

    # Without make, DVC sees to it that one of them ends.
    both = [start(folder, log, "dvc") for _ in range(2)]
    for process in both:
        kill_at(process, moments[1])

    third = start(folder, log)
    kill_at(third, moments[2])
    assert third.returncode == -signal.SIGKILL, log.read_text(encoding="utf-8")
    code = start(folder, log).wait(SECONDS)
    return Killed(folder, refused, log.read_text(encoding="utf-8"), code)


def test_a_killed_run_goes_on_to_the_same_figures(killed, undisturbed):
    assert killed.code == 0, killed.log
    assert figures(killed.folder) == figures(undisturbed)
    assert "Traceback" not in killed.log
    assert not half_written(killed.folder / "artifacts")
    assert not half_written(killed.folder / "metrics")


def test_nothing_is_left_to_do_after_it(killed):
    again = dvc(killed.folder, "repro")
    assert again.returncode == 0 and "up to date" in again.stdout + again.stderr
    assert "Running" not in again.stdout


def test_another_make_repro_meanwhile_is_refused(killed):
    assert killed.refused.returncode == 2
    assert killed.refused.stderr.startswith("Error: Another 'make repro' is at work in ")
    assert killed.refused.stderr.count("\n") == 1
