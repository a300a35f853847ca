"""How fast the machine multiplies matrices and reads memory, and the clock of every measurement."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks.settings import CLOCK, Problem

REPEATS = 3
# Between two looks at the clock: at least so many operations, and so many readings.
FLOPS = {"cpu": 10**10, "cuda": 10**13}
READINGS = {"cpu": 1, "cuda": 1000}
READ = 1 << 26  # entries of each of two vectors: 256 MiB of float32, more than any cache
PRECISE = 1e-5  # of a float32 product, relative
MOST_IMAGES = 128  # rows of more images would multiply no faster


def timed(device: str, call: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What `call` returns, and the seconds it took: of this process's CPU, and on the wall."""
    _wait(device)
    cpu, wall = time.process_time(), time.perf_counter()
    value = call()
    _wait(device)
    return value, {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}


@contextmanager
def products(onednn: bool) -> Iterator[None]:
    """Float32 products by oneDNN instead of torch's default library, within the block.

    torch's switch for it allows oneDNN to compute in bfloat16, which it does on CPUs with AMX.
    Others have no such instructions for float32: there oneDNN stays precise, and on AMD's it uses
    wider ones than the default library does.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium" if onednn else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


class Machine:
    """The rates that the floor of a step is made from."""

    def __init__(self, problem: Problem) -> None:
        trunk, self._device = problem.trunk, problem.device
        self._rows = min(problem.tasks * problem.batch, MOST_IMAGES) * trunk.tokens
        width = trunk.width
        # The products of a block: queries, keys and values; out-projection; the two of the MLP.
        self._shapes = [(width, n * width) for n in (3, 1, 4)] + [(4 * width, width)]

    def rates(self) -> dict[str, float]:
        """The best of a few repeats: floating-point operations and bytes per second.

        The rate of oneDNN is there only if its products are as precise.
        """
        found = {
            "float32_flops_per_s": self._multiply(torch.float32),
            "bfloat16_flops_per_s": self._multiply(torch.bfloat16),
            "bytes_per_s": self._read(),
        }
        with products(onednn=True):
            if self._precise():
                found["onednn_flops_per_s"] = self._multiply(torch.float32)
        return found

    def _precise(self) -> bool:
        """Whether products are those of float32: bfloat16 would be off by 1e-3 and more."""
        a, b = (torch.randn(256, 256, device=self._device) for _ in range(2))
        exact = a.double() @ b.double()
        return bool((a @ b - exact).norm() < PRECISE * exact.norm())

    def _multiply(self, dtype: torch.dtype) -> float:
        return max(self._product(*shape, dtype) for shape in self._shapes)

    def _product(self, inner: int, outer: int, dtype: torch.dtype) -> float:
        a = torch.randn(self._rows, inner, dtype=dtype, device=self._device)
        b = torch.randn(inner, outer, dtype=dtype, device=self._device)
        out = a @ b
        flops = 2 * self._rows * inner * outer
        times = -(-FLOPS[self._device] // flops)
        return times * flops / self._best(lambda: torch.mm(a, b, out=out), times)

    def _read(self) -> float:
        a, b = (torch.ones(READ, device=self._device) for _ in range(2))
        times = READINGS[self._device]
        return times * (a.nbytes + b.nbytes) / self._best(lambda: torch.dot(a, b), times)

    def _best(self, call: Callable[[], Any], times: int) -> float:
        """Seconds of so many calls: the least of a few repeats."""

        def repeat() -> None:
            for _ in range(times):
                call()

        clock = CLOCK[self._device]
        return min(timed(self._device, repeat)[1][clock] for _ in range(REPEATS))
