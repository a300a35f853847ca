"""Time what comes before merging: decoding images, building zero-shot heads, converting weights.

    python -m benchmarks.preparing     # some three minutes on two cores; idle ones

Writes benchmarks/preparing.json and its block of docs/performance.md. Each has a target, and the
command ends with 1 where one is missed. Needs 6 GB of disk.
"""

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from benchmarks.page import write_block
from stages._progress import say
from stages._stage import user_errors

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "benchmarks" / "preparing.json"
PAGE = ROOT / "docs" / "performance.md"
BLOCK = "preparing"
MODELS = {"ViT-B-32-quickgelu": 3.0, "ViT-L-14-quickgelu": 12.0}  # -> most seconds to convert
IMAGES = 2000
HEADS_SECONDS, DECODED, READ_BACK, MEMORY = 60.0, 0.9, 10.0, 2.5


def main() -> None:
    """Measure, write figures and page."""
    with user_errors():
        from benchmarks.environment import machine
        from pipeline.files import write_json
        from pipeline.tracking.provenance import git_state

        figures = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "git": git_state(ROOT),
            "machine": machine(),
            "heads": heads(),
            "decoding": decoding(),
            "converting": {model: converting(model) for model in MODELS},
        }
        write_json(FIGURES, figures)
        write_block(PAGE, BLOCK, block(figures))
        if missed := misses(figures):
            say(f"missed: {'; '.join(missed)}")
            raise typer.Exit(1)


def heads() -> dict[str, float]:
    """Seconds for the heads of eight tasks of ViT-B/32, and one class at a time."""
    from benchmarks.heads import TASKS, seconds
    from pipeline.tasks import get_task

    tasks = [get_task("hub", name) for name in TASKS]
    words = [(task.classes, task.templates) for task in tasks]
    ours, theirs = seconds("ViT-B-32-quickgelu", words, "cpu")
    sentences = sum(len(classes) * len(templates) for classes, templates in words)
    say(f"heads: {ours['wall_s']:.1f} s, one class at a time {theirs['wall_s']:.1f} s")
    return {"sentences": sentences, "seconds": ours["wall_s"], "one_by_one": theirs["wall_s"]}


def decoding() -> dict[str, float]:
    """Images per second: PIL alone in as many processes as cores, ours, and read back."""
    import os

    from benchmarks.decoding import DISTINCT, ROUNDS, jpeg, measure

    contents = [jpeg(number) for number in range(DISTINCT)]
    stored = [contents[number % DISTINCT] for number in range(IMAGES)]
    with tempfile.TemporaryDirectory() as folder:
        rounds = [measure(stored, os.cpu_count() or 1, Path(folder)) for _ in range(ROUNDS)]
    best = {way: IMAGES / min(found[way].wall for found in rounds) for way in rounds[0]}
    say(", ".join(f"{way} {rate:,.0f} images/s" for way, rate in best.items()))
    return {"pil": best["PIL alone"], "ours": best["decode()"], "read": best["reading"]}


def converting(model: str) -> dict[str, float]:
    """Seconds, and the most memory as a share of the file, in a fresh process."""
    with tempfile.TemporaryDirectory(dir=ROOT / ".cache") as folder:
        source = Path(folder) / "hf.safetensors"
        _write_hf(source, model)
        command = [sys.executable, "-c", _CONVERT, str(source), f"{folder}/ours", model]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
        seconds, memory = map(float, done.stdout.split())
        size = source.stat().st_size
    say(f"{model}: {size / 1e9:.2f} GB in {seconds:.1f} s, {memory:.2f} of it in memory")
    return {"bytes": size, "seconds": seconds, "memory": memory}


_CONVERT = """
import re, sys, time
from pathlib import Path
from pipeline.checkpoints.reading import read_clip
from pipeline.checkpoints.writing import write_safetensors

source, target, model = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
source.read_bytes()  # what is timed begins when the file has been read
# Not that of `getrusage`: a new process begins with its parent's.
def memory(key):
    text = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(key + r":\\s+(\\d+)", text)[1])
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before, start = memory("VmRSS"), time.perf_counter()
write_safetensors(target, read_clip(source, model)[0], {})
seconds = time.perf_counter() - start
print(seconds, (memory("VmHWM") - before) / source.stat().st_size)
"""


def _write_hf(path: Path, model: str) -> None:
    """A file of the model's size in Hugging Face's layout, its numbers random."""
    import numpy as np

    from pipeline.checkpoints.architecture import named_architecture, tensor_shapes
    from pipeline.checkpoints.hf import export_hf_clip
    from pipeline.checkpoints.writing import Lazy, kinds_of, write_safetensors

    shapes = tensor_shapes(named_architecture(model))
    assert shapes is not None
    empty = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    kinds = kinds_of(export_hf_clip(empty))
    largest = max(int(np.prod(kind.shape)) for kind in kinds.values())
    block = np.random.default_rng(0).standard_normal(largest, np.float32)

    def make(name: str) -> np.ndarray:
        shape = kinds[name].shape
        return block[: int(np.prod(shape))].reshape(shape)

    write_safetensors(path, Lazy(kinds, make), {})


def misses(figures: Mapping[str, Any]) -> list[str]:
    """The targets that figures do not reach, in words."""
    rates, found = figures["decoding"], []
    if figures["heads"]["seconds"] > HEADS_SECONDS:
        found.append(f"heads take more than {HEADS_SECONDS:.0f} s")
    if rates["ours"] < DECODED * rates["pil"]:
        found.append(f"decoding has less than {DECODED:.0%} of PIL's rate")
    if rates["read"] < READ_BACK * rates["ours"]:
        found.append(f"reading back is less than {READ_BACK:.0f} times as fast as decoding")
    for model, most in MODELS.items():
        if figures["converting"][model]["seconds"] > most:
            found.append(f"converting {model} takes more than {most:.0f} s")
        if figures["converting"][model]["memory"] > MEMORY:
            found.append(f"converting {model} holds more than {MEMORY} times the file")
    return found


def block(figures: Mapping[str, Any]) -> str:
    """The table of docs/performance.md."""
    heads, rates = figures["heads"], figures["decoding"]
    machine = figures["machine"]
    lines = [
        f"Measured on {figures['date'][:10]} on {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['system']}, no GPU, commit `{figures['git']['commit'][:10]}`.",
        "",
        "| What | Here | Beside | Target |",
        "| :-- | :-- | :-- | :-- |",
        f"| Heads of the 8 tasks of ViT-B/32, {heads['sentences']:,} sentences | "
        f"{heads['seconds']:.0f} s | {heads['one_by_one'] / heads['seconds']:.1f} times as long "
        f"one class at a time | {HEADS_SECONDS:.0f} s |",
        f"| JPEGs of 400x300 decoded, resized, written | {rates['ours']:,.0f} images/s | "
        f"{rates['ours'] / rates['pil']:.2f} of PIL alone on all cores | {DECODED} |",
        f"| Decoded images read back | {rates['read']:,.0f} images/s | "
        f"{rates['read'] / rates['ours']:.0f} times the rate of decoding | {READ_BACK:.0f} |",
    ]
    for model, most in MODELS.items():
        one = figures["converting"][model]
        lines.append(
            f"| {model}, {one['bytes'] / 1e9:.2f} GB, from Hugging Face's layout | "
            f"{one['seconds']:.1f} s | {one['memory']:.2f} of the file in memory | "
            f"{most:.0f} s, {MEMORY} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    typer.run(main)
