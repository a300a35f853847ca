"""A small project as a user has it, with DVC, and what runs in it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch
import yaml
from safetensors.numpy import load_file
from stage_project import write_project
from tiny import ROOT

BIN = str(Path(sys.executable).parent)


def write_dvc_project(folder: Path) -> None:
    """The sources, dvc.yaml and a profile of two tasks on a tiny CLIP, as from a tarball."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)  # the tiny CLIP is random, and the same in every project
    write_project(folder)
    path = folder / "profiles" / "ci.yaml"
    profile = yaml.safe_load(path.read_text(encoding="utf-8"))
    profile["merge"] |= {"methods": ["pretrained", "ties", "emr", "experts"], "options": {}}
    path.write_text(yaml.safe_dump(profile), encoding="utf-8")
    for name in ("pipeline", "stages"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    (folder / ".dvc").mkdir()
    settings = (ROOT / ".dvc" / "config").read_text(encoding="utf-8")
    alone = settings.replace("[core]\n", "[core]\n    no_scm = true\n")
    (folder / ".dvc" / "config").write_text(alone, encoding="utf-8")


def environment(**more: str) -> dict[str, str]:
    """Of a process in a project: the tests' own Python, one thread, MLflow in the project."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DVC_", "MLFLOW_", "PYTEST_"))
    }
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return {**inherited, "PATH": path, "OMP_NUM_THREADS": "1", **more}


def dvc(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """`dvc <words>` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        cwd=folder,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=600,
    )


def figures(folder: Path, profile: str = "ci") -> dict[str, object]:
    """The metrics of a run, and the bytes of every tensor that they rest on."""
    metrics = (folder / "metrics" / profile).glob("*.json")
    found: dict[str, object] = {path.name: path.read_text(encoding="utf-8") for path in metrics}
    assert found
    for kind in ("experts", "coefficients", "merged"):
        for path in (folder / "artifacts" / profile / kind).rglob("*.safetensors"):
            for name, tensor in load_file(path).items():
                found[f"{kind} {path.name} {name}"] = tensor.tobytes()
    return found
