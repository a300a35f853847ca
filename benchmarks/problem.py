"""The random weights, task vectors, heads and images of a `Problem`: alike for every method."""

from collections.abc import Iterator

import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.settings import Problem

LOGIT_SCALE = 100.0
INITIAL, LEARNING_RATE = 0.3, 1e-3
LENGTH = 1e-3  # standard deviation of a task vector's entries


def tower(problem: Problem) -> VisionTransformer:
    """open_clip's image tower of the problem's shapes, in evaluation mode, on the CPU."""
    trunk = problem.trunk
    torch.manual_seed(0)
    return VisionTransformer(
        image_size=trunk.image,
        patch_size=trunk.patch,
        width=trunk.width,
        layers=trunk.layers,
        heads=trunk.width // trunk.head_width,
        mlp_ratio=4.0,
        output_dim=trunk.embedding,
    ).eval()


def deltas(problem: Problem, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameter by parameter: its name and all tasks' differences [tasks, *shape]."""
    generator = torch.Generator().manual_seed(1)
    for name, weight in module.named_parameters():
        delta = torch.empty(problem.tasks, *weight.shape)
        yield name, delta.normal_(0, LENGTH, generator=generator)


def heads(problem: Problem) -> list[Tensor]:
    """Per task, unit rows [classes, embedding]."""
    generator = torch.Generator().manual_seed(2)
    size = problem.trunk.embedding
    rows = [torch.randn(count, size, generator=generator) for count in problem.classes]
    return [F.normalize(row, dim=-1).to(problem.device) for row in rows[: problem.tasks]]


def images(problem: Problem, draw: int = 0) -> list[Tensor]:
    """Per task, uint8 [batch, 3, height, width]; every `draw` is another one."""
    generator = torch.Generator().manual_seed(3 + draw)
    shape = problem.batch, 3, problem.trunk.image, problem.trunk.image
    return [
        torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).to(problem.device)
        for _ in range(problem.tasks)
    ]


def pixels(problem: Problem, draw: int = 0) -> list[Tensor]:
    """The same images normalised, as a data loader would hand them over."""
    mean, std = (
        torch.tensor(values, device=problem.device).view(3, 1, 1)
        for values in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
    )
    return [(batch.float() / 255 - mean) / std for batch in images(problem, draw)]


def mean_entropy(features: Tensor, head: Tensor) -> Tensor:
    """Mean softmax entropy in nats of the logits of features [batch, embedding]."""
    logits = LOGIT_SCALE * F.normalize(features.float(), dim=-1) @ head.T
    logs = logits.log_softmax(dim=1)
    return -(logs.exp() * logs).sum(dim=1).mean()
