"""Questions to a process of their own, which may crash or hang without harm to who asks."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]  # of the sources


class ProbeFailed(Exception):
    """The process did not answer; the text says why."""


def probe(code: str, *words: str, seconds: float) -> Any:
    """The JSON value that a Python program prints last; `words` are its arguments.

    Raises `ProbeFailed`: an error, a crash, or no end within `seconds`.
    """
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise ProbeFailed(f"no answer within {seconds:.0f} seconds") from None
    if done.returncode < 0:
        raise ProbeFailed(f"crashed (signal {-done.returncode})")
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        last = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ProbeFailed(last[-1][:300]) from None
