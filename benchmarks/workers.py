"""Processes that hold one method each, so that methods can take turns and be in memory alone."""

import json
import os
import subprocess
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.settings import Method, Problem
from pipeline.errors import UserError

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Worker:
    """A running `python -m benchmarks.worker`. Leaving it as a context manager ends it."""

    def __init__(self, python: Path, root: Path, method: Method, problem: Problem) -> None:
        self._method = method
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env=os.environ | dict.fromkeys(THREADS, "1"),
        )
        order = {"problem": asdict(problem), "place": method.place, "options": method.options}
        self._order = order
        self.facts: dict[str, Any] = {}

    def __enter__(self) -> "Worker":
        try:
            self.facts = self._ask(self._order)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def step(self, method: Method) -> dict[str, Any]:
        """One step of a method that this worker was started for: what `call` returns."""
        return self.call("step", method.onednn, **method.step)

    def call(self, name: str, onednn: bool = False, **options: Any) -> dict[str, Any]:
        """Call a method of the object: `value`, `cpu_s`, `wall_s` and the process's `peak_bytes`.

        Raises `UserError` if the process has ended.
        """
        return self._ask({"call": name, "onednn": onednn, "with": options})

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        answer = ""
        try:
            print(json.dumps(order), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            pass  # said below, as where it ends before it answers
        if not answer:
            raise UserError(
                f"{self._method.title}: its process ended with code {self._process.wait()}. What "
                "it said is above; code -9 means that memory ran out: close other programs."
            )
        return json.loads(answer)


@dataclass
class Workers:
    """Starts workers for a device; notes with what they were run."""

    root: Path
    pythons: dict[bool, Path]  # the peers' (True) and this project's
    device: str
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    device_name: str = ""

    def start(self, stack: ExitStack, method: Method, problem: Problem) -> Worker:
        """A worker for a method; it ends with `stack`."""
        problem = replace(problem, device=self.device)
        worker = Worker(self.pythons[method.peer], self.root, method, problem)
        stack.enter_context(worker)
        self.versions["peers" if method.peer else "project"] = worker.facts["versions"]
        self.device_name = worker.facts["device"]
        return worker
