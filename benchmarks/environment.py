"""What the benchmark runs on: the machine, and an environment of their own for the peers.

The project must not depend on the peers' packages, nor on the versions that they ask for.
"""

import os
import platform
import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.settings import CLOCK
from pipeline.errors import UserError, unknown
from pipeline.files import write_text
from stages._progress import say

FOLDER = ".venv-bench"


def requirements() -> tuple[str, ...]:
    """What the peers need: one release each, and torch and open_clip just as they are here."""
    same = [f"{name}=={version(name).split('+')[0]}" for name in ("torch", "open_clip_torch")]
    return ("fusion-bench==0.2.33", "imagecorruptions-imaug==1.1.5", *same)


def peers_python(root: Path) -> Path:
    """The peers' Python; the environment is made first where it is missing or another one.

    Raises `UserError` if a package cannot be installed.
    """
    folder = root / FOLDER
    python, installed, wanted = folder / "bin" / "python", folder / "installed", requirements()
    if installed.is_file() and installed.read_text(encoding="utf-8").split() == list(wanted):
        return python
    say(f"{FOLDER}: installing {', '.join(wanted)} (some 6 GB, minutes)")
    venv.create(folder, clear=True, with_pip=True)
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
    if subprocess.run(command, stdout=sys.stderr).returncode:
        raise UserError(
            f"The peers' packages cannot be installed into {folder}: pip's message is above. "
            "Check the network and the disk, and run 'make bench' again."
        )
    write_text(installed, "\n".join(wanted) + "\n")
    return python


def check_device(device: str) -> None:
    """Raise `UserError` unless this machine has the device."""
    if device not in CLOCK:
        raise unknown("device", device, CLOCK)
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise UserError("There is no CUDA GPU here: leave --device out to measure on the CPU.")


def check_memory(needed_gb: float) -> None:
    """Raise `UserError` where less memory is free, if the system tells: a run would be killed."""
    free = _fact("/proc/meminfo", "MemAvailable")
    free_gb = int(free.split()[0]) * 1024 / 1e9 if free else needed_gb
    if free_gb < needed_gb:
        raise UserError(
            f"The benchmark needs {needed_gb} GB of free memory and {free_gb:.1f} GB are free. "
            "Close other programs."
        )


def machine() -> dict[str, Any]:
    """System, processor and number of cores."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _fact("/proc/cpuinfo", "model name") or platform.processor() or "unknown",
        "cores": os.cpu_count(),
    }


def _fact(file: str, name: str) -> str:
    """The first value of that name in one of the system's files; empty where it has none."""
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.split(":")[1].strip() for line in lines if line.startswith(name)), "")
