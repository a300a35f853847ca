"""What `benchmarks.merging` gives both sides to merge, and how it measures one call."""

import contextlib
import ctypes
import io
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.problem import tower
from benchmarks.settings import Problem
from pipeline.clip import PREFIX
from pipeline.merging.interference import LINEAR

ENTRY = 1e-3  # standard deviation of a task vector's entries
RANK, STRENGTH = 16, 2.0  # of the part that stands out of a matrix, and its size beside the rest
COEFFICIENT, DROP, KEEP, SHRINK, STEPS = 0.3, 0.5, 0.2, 0.95, 20

Tensors = Mapping[str, Tensor]
BLOCK = f"{PREFIX}transformer.resblocks.0."


def models(problem: Problem, wanted: Callable[[str], bool]) -> tuple[Tensors, dict[str, Tensors]]:
    """The pretrained tower and every task's: random, by open_clip's names, what is `wanted`.

    Task vectors have a part of low rank that stands out.
    """
    start = {PREFIX + name: t.detach() for name, t in tower(problem).named_parameters()}
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    experts: dict[str, Tensors] = {}
    for task in range(problem.tasks):
        own = {}
        for name, tensor in start.items():
            own[name] = ENTRY * random(*tensor.shape)
            if tensor.dim() == 2:
                rows, columns = tensor.shape
                own[name] += (
                    ENTRY * STRENGTH / RANK**0.5 * random(rows, RANK) @ random(RANK, columns)
                )
            own[name] += tensor
        experts[f"task{task}"] = {name: tensor for name, tensor in own.items() if wanted(name)}
    return {name: tensor for name, tensor in start.items() if wanted(name)}, experts


def everything(name: str) -> bool:
    """Whether a method of the whole tower takes the tensor."""
    return True


def one_block(name: str) -> bool:
    """Whether the tensor is a linear layer of the first block: WUDI is measured on these."""
    return name.startswith(BLOCK) and name.endswith(LINEAR)


@dataclass(frozen=True)
class Call:
    """A merge that is ready to run, and what to compare of its result."""

    run: Callable[[], Any]
    change: Callable[[Any], Tensors]  # result -> what is added to the pretrained weights, by name
    prepare: Callable[[], None] = lambda: None  # what is done before a run and not measured


class Side:
    """One method of one side in a process of its own; `python -m benchmarks.worker` asks it."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def write(self, path: str) -> None:
        """Merge, not measured, and write the change."""
        change = self._call.change(self._once())
        save_file({name: t.detach().contiguous().clone() for name, t in change.items()}, path)

    def measure(self) -> dict[str, float]:
        """Seconds of CPU of one merge, and bytes: how far memory rises above what was held."""
        self._call.prepare()
        # What earlier calls left with the C library would otherwise count as held.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, start = _memory("VmRSS"), time.process_time()
        result = self._once(prepared=True)
        seconds, peak = time.process_time() - start, _memory("VmHWM")
        del result
        return {"seconds": seconds, "bytes": peak - before}

    def _once(self, prepared: bool = False) -> Any:
        if not prepared:
            self._call.prepare()
        silent = io.StringIO()
        with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
            return self._call.run()


def _memory(key: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(rf"{key}:\s+(\d+)", text)
    assert found
    return 1024 * int(found[1])
