"""A tiny CLIP, experts near it, images to learn from, and projects that stages ran in."""

import importlib
import os
import shutil
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # of several: each takes one core, and so do its children
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from stage_project import STAGES, enter, write_inputs, write_project
from tiny import ARCHITECTURE, TASKS, WORDS
from torch import Tensor

from pipeline.clip import Clip, build_clip
from pipeline.learning import FitData
from pipeline.vectors import TaskVectors


@pytest.fixture
def tiny_clip() -> Clip:
    """A CLIP with random weights, in evaluation mode."""
    torch.manual_seed(0)
    clip = build_clip(ARCHITECTURE, WORDS, 20.0)
    clip.model.eval()
    return clip


@pytest.fixture
def experts(tiny_clip: Clip) -> dict[str, dict[str, Tensor]]:
    """task -> weights near the pretrained ones."""
    start = tiny_clip.image_encoder().weights()
    generator = torch.Generator().manual_seed(1)
    return {
        task: {
            name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator)
            for name, tensor in start.items()
        }
        for task in TASKS
    }


@pytest.fixture
def vectors(tiny_clip: Clip, experts: dict[str, dict[str, Tensor]]) -> TaskVectors:
    """The task vectors of `experts`."""
    lazy = TaskVectors.between(tiny_clip.image_encoder().weights(), experts)
    return lazy.to(torch.device("cpu"))


@pytest.fixture
def fit_data(tiny_clip: Clip) -> FitData:
    """Unlabeled images and heads of 4, 5 and 6 classes."""
    rng = np.random.default_rng(2)
    generator = torch.Generator().manual_seed(3)
    heads, images = {}, {}
    for classes, task in enumerate(TASKS, start=4):
        head = torch.randn(classes, ARCHITECTURE["embed_dim"], generator=generator)
        heads[task] = torch.nn.functional.normalize(head, dim=1)
        images[task] = rng.integers(0, 256, (10 + classes, 3, 32, 32), dtype=np.uint8)
    return FitData(tiny_clip.image_encoder(), tiny_clip.logit_scale, heads, images)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with tables and nothing in them; to make one takes seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def root(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a project with params.yaml, a small profile and its checkpoint."""
    folder = tmp_path / "project"
    write_project(folder)
    enter(folder, empty_store, monkeypatch)
    return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A project in which every stage up to `generalization` has run."""
    folder = tmp_path_factory.mktemp("made")
    write_project(folder)
    layout = write_inputs(folder)
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, empty_store, patch)
        for stage in STAGES[1:-1]:
            importlib.import_module(f"stages.{stage}").main()
            assert layout.run(stage).is_file()
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `made` to spoil."""
    folder = tmp_path / "project"
    shutil.copytree(made, folder)
    enter(folder, empty_store, monkeypatch)
    return folder
