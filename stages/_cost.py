"""What one method costs, measured in a process that does nothing else.

    python -m stages._cost PROFILE SEED METHOD TO

From the task vectors on disk to the merged weights in a file. The study `cost` starts it.
"""

import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from stages._stage import Stage

ROOT = Path(__file__).resolve().parent.parent


def record_of(run: Stage, seed: int, method: str) -> dict[str, Any]:
    """Seconds and memory of a method, from the cache if nothing it rests on changed."""
    from pipeline.errors import UserError
    from pipeline.files import read_json

    entry = run.cache.entry("study", "stages._cost", _inputs(run, seed, method), ".json")
    if not entry.exists():
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        ended = subprocess.run(
            [sys.executable, "-m", "stages._cost", run.config.name, str(seed), method, str(entry)],
            cwd=run.config.root,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
        )
        if ended.returncode:
            reason = ended.stderr.strip().splitlines()[-1:] or [f"exit code {ended.returncode}"]
            raise UserError(f"The cost of {method} could not be measured: {reason[0]}")
    found: dict[str, Any] = read_json(entry, "python -m stages.study")
    return found


def _inputs(run: Stage, seed: int, method: str) -> dict[str, Any]:
    config, layout = run.config.profile, run.layout
    return {
        "pretrained": layout.pretrained,
        "vectors": [layout.vector(seed, task) for task in config.tasks],
        "heads": [layout.head(task) for task in config.tasks],
        "method": method,
        "options": config.merge.options.get(method, {}),
        "learn": config.learn.model_dump(exclude={"methods", "coefficients"}),
        "sizes": config.data.sizes,
        "protocol": config.protocol,
        "device": run.config.device,
        "precision": run.precision(),
        "seed": seed,
    }


def main(profile: str, seed: int, method: str, to: str) -> None:
    """Write what the method took to `to`."""
    from pipeline.config import load_config
    from pipeline.files import write_json
    from stages._inputs import encoder_of
    from stages._stage import machine_facts, user_errors

    with user_errors(), ExitStack() as until:
        run = Stage("study", load_config(Path.cwd(), profile), False, until)
        encoder_of(run)  # torch and the model are there before the clock starts
        forget_peak()
        before, started = memory_gb("VmRSS"), time.monotonic()
        folder = until.enter_context(tempfile.TemporaryDirectory(prefix="adamerge-"))
        steps = _make(run, seed, method, Path(folder))
        record = {
            "seconds": time.monotonic() - started,
            "before_gb": before,
            "peak_gb": memory_gb("VmHWM"),
            "steps": steps,
            "machine": machine_facts(run.config.device),
        }
        write_json(Path(to), record)


def _make(run: Stage, seed: int, method: str, folder: Path) -> int:
    """Learn if the method does, merge, and write the result; returns the steps of learning."""
    from pipeline.checkpoints.weights import save_weights
    from pipeline.learning import learn_coefficients
    from pipeline.merging.methods import METHODS
    from stages._inputs import lazy_vectors_of
    from stages._learning import fit_data_of, options_of, processed, working_vectors
    from stages.learn import tune
    from stages.merge import merged_at_once

    config = run.config.profile
    vectors = lazy_vectors_of(run, seed, config.tasks)
    if not METHODS[method].learns:
        merged = merged_at_once(run, seed, method, vectors)
        weights = merged.masked.tensors() if merged.masked else merged.shared
        save_weights(folder / "merged.safetensors", weights, {})
        return 0
    if METHODS[method].reads("labels"):
        learned = tune(run, seed)
    else:
        with working_vectors(run, method, seed, config.tasks, folder / "state") as working:
            data = fit_data_of(run, seed, config.tasks, config.learn.images)
            learned = learn_coefficients(working, data, options_of(run, method), seed=seed)
    weights = processed(run, method, vectors).merged(learned.values)
    save_weights(folder / "merged.safetensors", weights, {})
    return int(learned.facts.get("steps", 0))


def forget_peak() -> None:
    """Let the peak begin anew: loading libraries takes more for a moment than they hold."""
    with suppress(OSError):  # where the system does not let us, the peak is one since the start
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def memory_gb(name: str) -> float:
    """Main memory in GB (1e9 bytes), mapped files too: VmRSS is held now, VmHWM was at the most."""
    # Not ru_maxrss: a process that is started inherits that of the one that starts it.
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e9
    raise AssertionError(f"/proc/self/status has no {name}")


if __name__ == "__main__":
    name, seed, method, to = sys.argv[1:]
    main(name, int(seed), method, to)
