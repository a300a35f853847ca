"""Task vectors: what fine-tuning changed (https://arxiv.org/abs/2212.04089)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.clip import check_same_tensors
from pipeline.errors import UserError


@dataclass(frozen=True)
class TaskVectors:
    """The pretrained weights and, per tensor, every task's difference from them.

    `pretrained`: name -> tensor; `deltas`: name -> [tasks, *shape], contiguous, so that merging is
    one matrix-vector product per tensor and so is the gradient of its coefficients.
    """

    tasks: tuple[str, ...]
    pretrained: Mapping[str, Tensor]
    deltas: Mapping[str, Tensor]

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the tensors: a row of coefficients each, in this order."""
        return tuple(self.deltas)

    @classmethod
    def between(
        cls, pretrained: Mapping[str, Tensor], experts: Mapping[str, Mapping[str, Tensor]]
    ) -> "TaskVectors":
        """Expert - pretrained for every task. Raises `CheckpointError` if tensors do not match."""
        for task, expert in experts.items():
            check_same_tensors(pretrained, expert, "the pretrained model", f"the {task} expert")
        deltas = {
            name: torch.stack([expert[name] - start for expert in experts.values()])
            for name, start in pretrained.items()
        }
        return cls(tuple(experts), pretrained, deltas)

    def only(self, tasks: tuple[str, ...]) -> "TaskVectors":
        """The vectors of some of the tasks, in the order given."""
        rows = [self.tasks.index(task) for task in tasks]
        return TaskVectors(tasks, self.pretrained, {k: v[rows] for k, v in self.deltas.items()})

    def flat(self) -> Tensor:
        """All task vectors as rows [tasks, parameters]."""
        return torch.cat([delta.flatten(1) for delta in self.deltas.values()], dim=1)

    def ties(self, keep: float) -> "TaskVectors":
        """Trimmed, sign-elected, disjoint task vectors (https://arxiv.org/abs/2306.01708).

        Per task the share `keep` of entries with the largest magnitude stays, over the whole
        vector (more where magnitudes are equal); of those, the ones whose sign is that of their
        sum over tasks. Where the sum is zero, the sign that most of the entries' sums have decides.
        """
        flat = self.flat()
        count = flat.shape[1]
        drop = count - max(1, int(count * keep))
        smallest = flat.abs().kthvalue(drop + 1, dim=1, keepdim=True).values
        flat = torch.where(flat.abs() >= smallest, flat, 0.0)
        elected = flat.sum(0).sign()
        elected[elected == 0] = elected.sum().sign()
        flat = torch.where(flat.sign() == elected, flat, 0.0)
        sizes = [delta[0].numel() for delta in self.deltas.values()]
        parts = zip(self.deltas.items(), flat.split(sizes, dim=1), strict=True)
        deltas = {name: part.reshape(delta.shape).contiguous() for (name, delta), part in parts}
        return TaskVectors(self.tasks, self.pretrained, deltas)

    def merged(self, coefficients: Tensor) -> dict[str, Tensor]:
        """pretrained + sum over tasks of coefficient x task vector, per tensor.

        `coefficients`: [tasks], [1, tasks] or [layers, tasks], used as they are.
        """
        rows = coefficients.reshape(-1, len(self.tasks))
        if rows.shape[0] not in (1, len(self.deltas)):
            raise UserError(
                f"{rows.shape[0]} rows of coefficients for {len(self.deltas)} tensors: "
                "give one row, or one for each tensor."
            )
        rows = rows.expand(len(self.deltas), -1)
        return {
            name: start + torch.tensordot(row.to(start), self.deltas[name], dims=1)
            for (name, start), row in zip(self.pretrained.items(), rows, strict=True)
        }

    def cosines(self) -> Tensor:
        """Cosine similarity between task vectors [tasks, tasks]."""
        flat = torch.nn.functional.normalize(self.flat(), dim=1)
        return flat @ flat.T
