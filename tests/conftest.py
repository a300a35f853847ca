"""A CLIP of a few thousand parameters, experts near it and images to learn from."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.clip import Clip, build_clip
from pipeline.learning import FitData
from pipeline.vectors import TaskVectors

ROOT = Path(__file__).resolve().parent.parent
TASKS = ("cars", "mnist", "dtd")
ARCHITECTURE = {
    "embed_dim": 12,
    "vision_cfg": {
        "image_size": 32,
        "patch_size": 16,
        "width": 16,
        "layers": 2,
        "head_width": 8,
    },
    "text_cfg": {"context_length": 6, "width": 8, "heads": 2, "layers": 1},
    "mean": (0.5, 0.4, 0.3),
    "std": (0.25, 0.2, 0.3),
}
WORDS = ("<pad>", "a", "photo", "of", "red", "green", "blue", "<eot>")


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
    return TaskVectors.between(tiny_clip.image_encoder().weights(), experts)


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
