"""Time the corruptions of ImageNet-C beside imagecorruptions-imaug, on one thread.

    OMP_NUM_THREADS=1 .venv-bench/bin/python -m benchmarks.corruptions [--rounds 5]

`make corruptions-bench` does so; `make bench` makes that environment. All 19 at severity 3 on 224
pixels; both sides run in one process, in turn. Seconds are those of the CPU, the best of the
rounds. Writes benchmarks/corruptions.json, and ends with 1 where a target is missed.
"""

import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from stages._progress import say
from stages._stage import user_errors

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "benchmarks" / "corruptions.json"
PEER = "imagecorruptions-imaug"
SIDE, IMAGES, SEVERITY = 224, 16, 3
LEAST = 0.3
TOGETHER, EACH = 5.0, 0.9  # times the peer's images per second, at least

Rounds = Annotated[int, typer.Option("--rounds", help="Times that everything is measured.")]


def main(rounds: Rounds = 5) -> None:
    """Measure, write and print."""
    with user_errors():
        from benchmarks.environment import machine
        from pipeline.errors import UserError
        from pipeline.files import write_json
        from pipeline.tracking.provenance import git_state

        if os.environ.get("OMP_NUM_THREADS") != "1":
            raise UserError("One thread is compared with one: set OMP_NUM_THREADS=1.")
        rows = {name: row.best(rounds) for name, row in pairs().items()}
        figures = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "git": git_state(ROOT),
            "machine": machine(),
            "versions": {
                package: version(package)
                for package in ("numpy", "scipy", "torch", "pillow", PEER, "opencv-python", "numba")
            },
            "images": {"count": IMAGES, "side": SIDE, "severity": SEVERITY},
            "corruptions": rows,
            "together": together(rows),
        }
        write_json(FIGURES, figures)
        for line in lines(figures):
            say(line)
        if missed := misses(figures):
            say(f"missed: {'; '.join(missed)}")
            raise typer.Exit(1)


class Pair:
    """One corruption, both ways."""

    def __init__(self, ours: Callable[[], object], theirs: Callable[[], object]) -> None:
        self.ways = {"ours_ms": ours, "theirs_ms": theirs}

    def best(self, rounds: int) -> dict[str, float]:
        """Milliseconds of the CPU per image, and their ratio.

        What takes less than `LEAST` seconds in so many rounds gets more of them.
        """
        for call in self.ways.values():  # fills caches and compiles
            call()
        seconds: dict[str, list[float]] = {way: [] for way in self.ways}
        while len(seconds["ours_ms"]) < rounds or sum(seconds["ours_ms"]) < LEAST:
            for way, call in self.ways.items():
                start = time.process_time()
                call()
                seconds[way].append(time.process_time() - start)
        found = {way: 1e3 * min(taken) / IMAGES for way, taken in seconds.items()}
        return {**found, "ratio": found["theirs_ms"] / found["ours_ms"]}


def pairs() -> dict[str, Pair]:
    """Every corruption on the same images."""
    import cv2
    import torch
    from imagecorruptions import corrupt as their_corrupt

    from pipeline.corruptions import CORRUPTIONS, corrupt

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    pictures = scenes()
    images = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))

    def each(name: str) -> list[np.ndarray]:
        return [their_corrupt(picture, SEVERITY, name) for picture in pictures]

    return {
        name: Pair(
            partial(corrupt, images, name, SEVERITY),
            partial(each, name),
        )
        for name in CORRUPTIONS
    }


def scenes() -> np.ndarray:
    """Colored clouds with a few sharp edges, uint8 `[IMAGES, SIDE, SIDE, 3]`."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    clouds = gaussian_filter(rng.standard_normal((IMAGES, SIDE, SIDE, 3)), (0, 6, 6, 0))
    clouds = 128 + 50 * clouds / clouds.std()
    for scene in clouds:
        for _ in range(12):
            top, left = rng.integers(0, SIDE, 2)
            height, width = rng.integers(10, 80, 2)
            scene[top : top + height, left : left + width] += rng.normal(0, 60, 3)
    return np.clip(clouds, 0, 255).astype(np.uint8)


def together(rows: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Images per second over all corruptions, and their ratio."""
    ours, theirs = (sum(row[way] for row in rows.values()) for way in ("ours_ms", "theirs_ms"))
    count = 1e3 * len(rows)
    return {"ours_per_s": count / ours, "theirs_per_s": count / theirs, "ratio": theirs / ours}


def lines(figures: Mapping[str, Any]) -> list[str]:
    """The figures as a table."""
    table = [f"{'':<18} {'ours':>8} {'theirs':>8} {'ratio':>6}"]
    for name, row in figures["corruptions"].items():
        ours, theirs = row["ours_ms"], row["theirs_ms"]
        table.append(f"{name:<18} {ours:>5.2f} ms {theirs:>5.2f} ms {row['ratio']:>6.2f}")
    every = figures["together"]
    return [
        *table,
        f"together {every['ours_per_s']:.0f} images/s, {every['theirs_per_s']:.0f} theirs: "
        f"{every['ratio']:.2f} times",
    ]


def misses(figures: Mapping[str, Any]) -> list[str]:
    """The targets that figures do not reach, in words."""
    found = [
        f"{name} has {row['ratio']:.2f} of the peer's rate, not {EACH}"
        for name, row in figures["corruptions"].items()
        if row["ratio"] < EACH
    ]
    if figures["together"]["ratio"] < TOGETHER:
        found.append(f"all have {figures['together']['ratio']:.2f} times its rate, not {TOGETHER}")
    return found


if __name__ == "__main__":
    typer.run(main)
