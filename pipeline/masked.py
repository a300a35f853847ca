"""One model per task out of one vector: a mask and a scale for every task, in a compact form."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.checkpoints.matching import check_same_tensors
from pipeline.checkpoints.writing import Lazy, kinds_of
from pipeline.errors import CheckpointError

GATHER, COPIES = 0x0102040810204080, 0x0101010101010101
PLACES = 0x8040201008040201 - (1 << 64)  # as a signed number


@dataclass(frozen=True)
class Masked:
    """One model for every task out of one vector: pretrained + scale x mask x unified vector.

    `unified`: name -> tensor; `masks`: task -> name -> `packed` bits; `scales`: task -> number, a
    tensor without dimensions.
    """

    pretrained: Mapping[str, Tensor]
    unified: Mapping[str, Tensor]
    masks: Mapping[str, Mapping[str, Tensor]]
    scales: Mapping[str, Tensor]

    def weights(self, task: str) -> Mapping[str, Tensor]:
        """The task's weights, each tensor made as it is asked for.

        Raises `CheckpointError` for a task without a mask.
        """
        if task not in self.masks:
            raise CheckpointError(
                f"There is no mask of {task}, only of {', '.join(self.masks)}: merge again."
            )

        def make(name: str) -> Tensor:
            kept = unpacked(self.masks[task][name], self.unified[name])
            return self.pretrained[name] + self.scales[task] * kept

        return Lazy(kinds_of(self.pretrained), make)

    @property
    def extra_bits(self) -> int:
        """What one more task adds to what is stored: its mask and its scale."""
        masks, scale = next(iter(self.masks.values())), next(iter(self.scales.values()))
        return 8 * (sum(mask.nbytes for mask in masks.values()) + scale.nbytes)

    def tensors(self) -> dict[str, Tensor]:
        """All but the pretrained model by names for one file: unified.*, mask.<task>.*, scale.*."""
        found = {f"unified.{name}": tensor for name, tensor in self.unified.items()}
        for task, masks in self.masks.items():
            found |= {f"mask.{task}.{name}": mask for name, mask in masks.items()}
            found[f"scale.{task}"] = self.scales[task]
        return found

    @classmethod
    def from_tensors(
        cls, pretrained: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str
    ) -> "Masked":
        """What `tensors()` gave. Raises `CheckpointError`, naming `source`, for what does not fit.

        The tasks are in the order of their names.
        """
        parts = {name.partition(".")[::2]: tensor for name, tensor in tensors.items()}
        unified = {rest: tensor for (kind, rest), tensor in parts.items() if kind == "unified"}
        check_same_tensors(pretrained, unified, "the pretrained model", source)
        scales = {rest: parts[kind, rest] for kind, rest in sorted(parts) if kind == "scale"}
        masks: dict[str, dict[str, Tensor]] = {task: {} for task in scales}
        for task, of_task in masks.items():
            for name, tensor in unified.items():
                mask = parts.get(("mask", f"{task}.{name}"))
                size = -(-tensor.numel() // 8)
                if mask is None or (mask.dtype, mask.shape) != (torch.uint8, (size,)):
                    raise CheckpointError(
                        f"{source} has no mask of '{name}' that fits for {task}. "
                        "Make the file again with the same merge."
                    )
                of_task[name] = mask
        return cls(pretrained, unified, masks, scales)


def packed(bits: Tensor) -> Tensor:
    """Booleans [..., n] as bytes [..., n / 8, rounded up]; a byte's first is its lowest bit."""
    bits = F.pad(bits, (0, -bits.shape[-1] % 8)) if bits.shape[-1] % 8 else bits
    # Eight bytes of 0 or 1 as one number: its product has each at its place in the top byte.
    return (bits.contiguous().view(torch.int64) * GATHER >> 56).to(torch.uint8)


def unpacked(mask: Tensor, values: Tensor) -> Tensor:
    """`values` where the `packed` mask has a bit, and zero elsewhere."""
    # Each byte eight times as one number, of which each copy keeps another bit.
    bits = (mask.to(torch.int64) * COPIES & PLACES).view(torch.uint8)[: values.numel()]
    return torch.where(bits.view(values.shape) != 0, values, 0.0)
