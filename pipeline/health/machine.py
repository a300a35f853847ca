"""Processor, memory and accelerators: what tensors can be computed on."""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.health.findings import Finding
from pipeline.health.probing import ProbeFailed, probe

GB = 1e9
SECONDS = 120.0  # to import torch from a cold and busy disk

_TORCH = """
import json, torch
cuda = torch.cuda.is_available()
devices = []
for number in range(torch.cuda.device_count() if cuda else 0):
    free, total = torch.cuda.mem_get_info(number)
    name, fast = torch.cuda.get_device_name(number), torch.cuda.is_bf16_supported()
    devices.append({"name": name, "free": free, "total": total, "bfloat16": fast})
threads = torch.get_num_threads()
print(json.dumps({"cuda": torch.version.cuda, "devices": devices, "threads": threads}))
"""


def processor(facts: Mapping[str, Any]) -> Iterator[Finding]:
    """`facts`: as records of stages name the machine, with `cpu`, `cores` and `system`."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else facts["cores"]
    limit = f", {usable} of them for this process" if usable != facts["cores"] else ""
    yield Finding("processor", f"{facts['cpu']}, {facts['cores']} cores{limit}")
    total, free = _memory()
    if total is not None:
        said = f"{total / GB:.1f} GB" + (f", {free / GB:.1f} GB free" if free is not None else "")
        yield Finding("memory", said)
    if facts["system"].startswith("Windows"):
        yield Finding("system", facts["system"], "problem", "Use Linux, macOS or WSL.")


def devices(wanted: str | None) -> Iterator[Finding]:
    """What torch finds, asked in a process of its own. `wanted`: `device` of params.yaml."""
    try:
        found = probe(_TORCH, seconds=SECONDS)
    except ProbeFailed as error:
        advice = "Run 'make venv'; see https://pytorch.org/get-started/locally for your GPU."
        yield Finding("torch", f"cannot be used: {error}", "problem", advice)
        return
    for number, device in enumerate(found["devices"]):
        kind = "bfloat16" if device["bfloat16"] else "float32 only"
        said = f"{device['name']}, {device['total'] / GB:.1f} GB, {device['free'] / GB:.1f} GB free"
        yield Finding(f"GPU {number}", f"{said}, {kind}, CUDA {found['cuda']}")
    if found["devices"]:
        return
    threads = f"torch computes on the processor, in {found['threads']} threads"
    if wanted == "cuda":
        text = "device is 'cuda' in params.yaml, but torch finds no CUDA GPU"
        yield Finding("GPU", text, "problem", "Set device to 'auto' in params.yaml.")
    elif shutil.which("nvidia-smi"):
        built = f"is built for CUDA {found['cuda']}" if found["cuda"] else "is built without CUDA"
        text = f"there is an NVIDIA driver, but torch {built} and finds no GPU; {threads}"
        advice = "Install a torch that fits the driver: https://pytorch.org/get-started/locally"
        yield Finding("GPU", text, "warning", advice)
    else:
        yield Finding("GPU", f"none; {threads}")


def _memory() -> tuple[int | None, int | None]:
    """Bytes of memory, and of what can be had now; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        return sizes["MemTotal"], sizes["MemAvailable"]
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), None
    except (OSError, ValueError, AttributeError):
        return None, None
