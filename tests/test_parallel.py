"""Several processes share a run: the same figures, one voice, and an end for all when one dies."""

import importlib
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import typer
import yaml
from mlflow import MlflowClient
from safetensors.numpy import load_file
from stage_project import call, half_written, refused, tree
from tiny import ROOT

from pipeline.data import save_array
from pipeline.files import read_json
from pipeline.layout import Layout
from pipeline.parallel import VARIABLES, Group, launched_group
from stages._processes import interruptible

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

SHARED = ("learn", "evaluate", "robustness", "generalization")
SECONDS = 120  # far more than anything here takes; a hang is a failure

# What a member of a group of three sees; at the end the second one dies while the others wait.
MEMBER = """
import os, signal, sys
import torch
from pipeline.parallel import PeerLost, connected, launched_group

group = launched_group()
with connected(group, torch.device("cpu")):
    # Sums of these depend on the order of the terms; every process must have the same bits.
    parts = [torch.rand(1000, generator=torch.Generator().manual_seed(r)) * 10**r for r in range(3)]
    total = group.sum_(parts[group.rank].clone())
    torch.testing.assert_close(total, sum(parts))
    marks = torch.zeros(3, 7, dtype=torch.uint8)
    marks[group.rank, group.span(7)] = 1
    assert group.sum_(marks) is marks
    assert marks.sum(0).tolist() == [1] * 7
    assert group.agree(group.first) and not group.agree(not group.first)
    print(group.rank, total.numpy().tobytes().hex()[:4000], flush=True)
    try:
        group.barrier()  # where others may still be when one is through it, and dies
        if group.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        group.sum_(total)
    except PeerLost as error:
        sys.exit(str(error))
"""

# Several stages in one start, as each costs seconds.
STAGES = (
    "import importlib, sys\nfor n in sys.argv[1:]: importlib.import_module(f'stages.{n}').main()"
)

# Kills the second process where it is in the middle of its work.
DEATH = """
import os, signal, sys, threading, time
def wait():
    while "pipeline.predictions" not in sys.modules:
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)
if os.environ.get("RANK") == "1":
    threading.Thread(target=wait, daemon=True).start()
"""


@pytest.fixture(autouse=True)
def no_process_is_left(tmp_path):
    """Whatever a test starts here has ended when it ends."""
    yield
    left = living(tmp_path)
    for process in left:
        process.kill()
    assert not left


def living(folder):
    """Processes that work in the folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(folder) and process.pid != os.getpid():
                found.append(process)
    return found


def start(folder, *words, **variables):
    """A command in the folder."""
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process):
    """Exit code, standard output, standard error."""
    out, err = process.communicate(timeout=SECONDS)
    return process.returncode, out, err


def change(project, edit):
    """Edit the profile."""
    path = project / "profiles" / "ci.yaml"
    profile = yaml.safe_load(path.read_text(encoding="utf-8"))
    edit(profile)
    path.write_text(yaml.safe_dump(profile), encoding="utf-8")


def in_processes(project, count):
    change(project, lambda profile: profile.update(processes=count))


def forget(project):
    """Delete what the stages in SHARED write."""
    for path in (".cache", "metrics", "artifacts/ci/predictions", "artifacts/ci/robustness"):
        shutil.rmtree(project / path)


def figures(project):
    """Path -> contents of what evaluate, robustness and generalization write."""
    found = {}
    for path in project.glob("metrics/ci/*.json"):
        if path.stem != "learning":
            found[path.stem] = read_json(path, "")
    for kind in ("predictions", "robustness"):
        for path in (project / "artifacts" / "ci" / kind).rglob("*.npz"):
            with np.load(path) as arrays:
                found[str(path)] = {name: arrays[name].tolist() for name in arrays}
    return found


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_shares_and_spans_cover_everything_once_and_evenly(size, count):
    items = list(range(count))
    groups = [Group(rank, size) for rank in range(size)]
    shares = [group.share(items) for group in groups]
    spans = [items[group.span(count)] for group in groups]
    assert [item for span in spans for item in span] == items
    assert sorted(item for share in shares for item in share) == items
    for parts in (shares, spans):
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_one_process_alone_exchanges_nothing(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    group, values = launched_group(), torch.ones(3)
    assert group == Group() and group.first
    assert group.sum_(values) is values and values.tolist() == [1, 1, 1]
    assert group.agree(True) and not group.agree(False)
    group.barrier()


def test_a_group_sums_agrees_and_notices_a_death(tmp_path):
    from torch.distributed import TCPStore

    # The store that torchrun would hold; it finds a port that is free.
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    facts = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port), "WORLD_SIZE": "3"}
    facts |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    members = [
        start(tmp_path, "-c", MEMBER, RANK=str(rank), LOCAL_RANK=str(rank), **facts)
        for rank in range(3)
    ]
    codes, outs, errs = zip(*map(ended, members), strict=True)
    assert codes == (1, -signal.SIGKILL, 1), errs
    for survivor in (0, 2):
        assert "Running the same command again goes on" in errs[survivor]
        assert "Traceback" not in errs[survivor]
    sums = [out.split()[1] for out in outs]
    assert sums == sums[:1] * 3


def test_processes_of_torchrun_find_what_one_finds(project, capsys):
    adapted = {"methods": ["adamerging_layerwise"], "severity": 3}
    conditions = {"conditions": ["each", "mixture", "stream", "small", "imbalanced"]}
    change(
        project,
        lambda profile: profile["robustness"].update(
            tasks=profile["tasks"],
            corruptions=["gaussian_noise", "contrast"],
            adapted=adapted | conditions,
        ),
    )
    learned = project / "artifacts/ci/coefficients/seed-0/adamerging_layerwise.safetensors"
    forget(project)
    for stage in SHARED:
        assert call(stage, capsys) == (0, "")
    alone, values = figures(project), load_file(learned)["values"]

    (project / "run.py").write_text(STAGES, encoding="utf-8")
    for count in (2, 3):
        forget(project)
        words = ("--standalone", "--nproc-per-node", str(count), "run.py", *SHARED)
        code, out, err = ended(start(project, "-m", "torch.distributed.run", *words))
        assert code == 0, err
        assert figures(project) == alone
        np.testing.assert_allclose(load_file(learned)["values"], values, atol=1e-5)
        assert not half_written(project)
        for stage in SHARED:
            first, last = [line for line in out.splitlines() if line.startswith(f"{stage}: ")]
            assert first.endswith(f", in {count} processes") and last.endswith(" s)")


def test_a_profile_asks_for_two_processes(project):
    alone = figures(project)
    forget(project)
    in_processes(project, 2)
    code, out, err = ended(start(project, "-m", "stages.evaluate"))
    assert (code, err) == (0, "")
    assert figures(project) == {name: alone[name] for name in alone if name in figures(project)}
    assert read_json(Layout(project, "ci").metric("clean"), "") == alone["clean"]

    first, *_, last = out.splitlines()
    assert first.endswith(", in 2 processes") and last.startswith("evaluate: pretrained ")
    assert out.count("evaluate: ") == 2
    assert read_json(Layout(project, "ci").run("evaluate"), "")["processes"] == 2
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("adamerge").experiment_id
    [recorded] = client.search_runs([experiment], "tags.`dvc.stage` = 'evaluate'")
    assert recorded.info.status == "FINISHED"


def test_a_process_that_is_killed_ends_the_stage_in_one_sentence(project, tmp_path):
    forget(project)
    in_processes(project, 2)
    place = tmp_path / "death"
    place.mkdir()
    (place / "sitecustomize.py").write_text(DEATH, encoding="utf-8")
    process = start(project, "-m", "stages.evaluate", PYTHONPATH=f"{place}{os.pathsep}{ROOT}")
    code, _, err = ended(process)
    assert code == 1
    assert err == (
        "Error: one of the 2 processes ended (SIGKILL). Running the same command again goes on "
        "from the last saved state.\n"
    )
    assert not half_written(project) and not (project / "metrics").exists()


def test_a_mistake_that_a_process_finds_is_said_once(project, capsys):
    in_processes(project, 2)
    layout = Layout(project, "ci")
    shutil.rmtree(project / ".cache")
    labels = np.load(layout.labels(0, "cars", "eval"))
    labels[1] = 8
    save_array(layout.labels(0, "cars", "eval"), labels)
    before = tree(project / "metrics")
    code, _, err = ended(start(project, "-m", "stages.evaluate"))
    assert code == 2
    assert err.startswith("Error: The task 'cars' has labels") and err.count("\n") == 1
    assert not half_written(project) and tree(project / "metrics") == before


def test_processes_end_with_the_stage_that_started_them(project):
    in_processes(project, 2)
    record = Layout(project, "ci").run("evaluate")
    record.unlink()
    process = start(project, "-m", "stages.evaluate")
    deadline = time.monotonic() + SECONDS
    while len(living(project)) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    ended(process)
    while living(project):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not record.exists() and not half_written(project)


@pytest.fixture
def no_workers(monkeypatch):
    def fail(*_):
        raise AssertionError("processes were started")

    monkeypatch.setattr("stages._processes.run_processes", fail)


@pytest.mark.parametrize("stage", SHARED)
def test_what_is_missing_is_said_before_processes_start(stage, project, no_workers, capsys):
    in_processes(project, 2)
    Layout(project, "ci").head("cars").unlink()
    assert "heads/cars.safetensors is missing" in refused(stage, capsys)


@pytest.mark.parametrize("stage", SHARED)
def test_a_dry_run_says_how_many_and_starts_none(stage, project, no_workers, capsys):
    in_processes(project, 2)
    with pytest.raises(typer.Exit) as end:
        importlib.import_module(f"stages.{stage}").main(dry_run=True)
    assert end.value.exit_code == 0
    assert capsys.readouterr().out.endswith(", in 2 processes\n")


def test_each_process_needs_a_gpu_of_its_own(project, no_workers, monkeypatch, capsys):
    in_processes(project, 3)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(AssertionError, match="were started"):
        call("evaluate", capsys)  # params.yaml says cpu: any number will do
    (project / "params.yaml").write_text("profile: ci\ndevice: auto\n", encoding="utf-8")
    assert "3 processes need a GPU each, but there are 2" in refused("evaluate", capsys)


def test_a_stage_with_nothing_to_share_refuses_torchrun(project, monkeypatch, capsys):
    for name in VARIABLES:
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    before = tree(project)
    assert "start it with 'python -m stages.merge'" in refused("merge", capsys)
    assert tree(project) == before


def test_a_robustness_run_that_was_killed_keeps_its_coefficients(project, monkeypatch, capsys):
    def killed(*_, **__):
        raise KeyboardInterrupt

    forget(project)
    assert call("evaluate", capsys)[0] == 0
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("stages.robustness.summarise_all", killed)
        call("robustness", capsys)
    # They are found again, and learned again where the corruption is another.
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.learning.learn_coefficients", killed)
        assert call("robustness", capsys)[0] == 0
        for key, value in (("scale", "imagenet"), ("corruptions", ["gaussian_noise"])):
            change(project, lambda profile, new={key: value}: profile["robustness"].update(new))
            with pytest.raises(KeyboardInterrupt):
                call("robustness", capsys)


def test_an_interruption_that_python_drops_is_repeated(capfd):
    class Interrupted:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    with pytest.raises(KeyboardInterrupt), interruptible():
        Interrupted()
        time.sleep(SECONDS)
    assert capfd.readouterr().err == ""
