"""The stages as a user runs them: separate processes, killed and run again."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from tiny import ROOT

TASKS = ["cars", "mnist"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with a profile of two tasks, fetched, fine-tuned and extracted."""
    root = tmp_path_factory.mktemp("project")
    for name in ("pipeline", "stages", "zoo"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "params.yaml", root)
    profile = yaml.safe_load((ROOT / "profiles" / "ci.yaml").read_text())
    profile["tasks"] = profile["robustness"]["tasks"] = TASKS
    profile["robustness"]["tasks"] = TASKS[:1]
    profile["generalization"]["splits"] = {"unseen_mnist": {"seen": ["cars"], "unseen": ["mnist"]}}
    profile["learn"].update(methods=["adamerging_layerwise"], schedule="paper", steps=800, batch=4)
    profile["robustness"]["adapted"]["methods"] = []
    (root / "profiles").mkdir()
    (root / "profiles" / "two.yaml").write_text(yaml.safe_dump(profile))
    for stage in ("fetch", "experts", "vectors"):
        run(root, stage)
    return root


def run(root, stage, **options):
    """`python -m stages.<stage>` in the project, to its end."""
    done = subprocess.run(command(stage), cwd=root, env=environment(root), text=True, **options)
    assert done.returncode == 0
    return done


def command(stage):
    return [sys.executable, "-m", f"stages.{stage}", "--profile", "two"]


def environment(root):
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{root}/mlflow.db", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **store, "DVC_ROOT": str(root)}


@pytest.mark.slow
def test_splits_share_no_image(project):
    for task in TASKS:
        folder = project / "artifacts" / "two" / "data" / "seed-0" / task
        seen = [
            image.tobytes()
            for split in ("train", "adapt", "select", "eval")
            for image in np.load(folder / split / "images.npy")
        ]
        assert len(set(seen)) == len(seen)
        assert not (folder / "adapt" / "labels.npy").exists()


@pytest.mark.slow
def test_learn_killed_goes_on_to_the_same_bytes(project):
    result = project / "artifacts" / "two" / "coefficients" / "seed-0"
    process = subprocess.Popen(
        command("learn"),
        cwd=project,
        env=environment(project),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    states = project / ".cache" / "coefficients"
    deadline = time.monotonic() + 300
    try:
        while not list(states.glob("*.state.safetensors")):
            assert process.poll() is None, "learning ended before it saved its state"
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert not list(result.glob("*"))

    resumed = run(project, "learn", stdout=subprocess.PIPE).stdout
    assert "resuming" in resumed
    after_kill = values(result)
    shutil.rmtree(project / ".cache")
    shutil.rmtree(result)
    assert "resuming" not in run(project, "learn", stdout=subprocess.PIPE).stdout
    assert np.array_equal(values(result), after_kill)


def values(folder):
    from safetensors.numpy import load_file

    return load_file(folder / "adamerging_layerwise.safetensors")["values"]
