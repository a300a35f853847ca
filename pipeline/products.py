"""Matrix products of linear layers, by the faster of the two libraries that torch carries for CPUs.

On AMD's CPUs with AVX-512 the library that torch multiplies float32 with by default (MKL) keeps to
narrower instructions; oneDNN uses all of them, at the same precision and up to twice the speed.
torch's switch for it also allows oneDNN to compute in bfloat16, which it does on CPUs with AMX. So
the choice is made by the kind of CPU, and only after a look at what comes out.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

EXACT = 2e-6  # relative error of a float32 product; one in bfloat16 is off by 1e-3 and more


def linear(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`torch.nn.functional.linear`: inputs [..., in], weight [out, in], bias [out]."""
    plain = inputs.device.type != "cpu" or inputs.dtype is not torch.float32
    if plain or torch.is_autocast_enabled("cpu") or not wide():
        return F.linear(inputs, weight, bias)
    return _Linear.apply(inputs, weight, bias)


@cache
def wide() -> bool:
    """Whether this CPU multiplies float32 faster, and as exactly, with oneDNN."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not _made_by_amd():
        return False
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=generator) for _ in range(2))
    exact = a.double() @ b.double()
    with _onednn():
        return bool((a @ b - exact).norm() < EXACT * exact.norm())


def _made_by_amd() -> bool:
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


@contextmanager
def _onednn() -> Iterator[None]:
    """Products of float32 matrices by oneDNN. Not for attention: its small ones are slower so."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class _Linear(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        with _onednn():
            return F.linear(inputs, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], inputs[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        inputs, weight = ctx.saved_tensors
        rows = gradient.flatten(0, -2)
        with _onednn():
            below = gradient @ weight if ctx.needs_input_grad[0] else None
            own = rows.T @ inputs.flatten(0, -2)
        return below, own, rows.sum(dim=0)
