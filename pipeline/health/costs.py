"""What a run of a profile takes: images, models, bytes on the disk, and time where it is known.

Sizes follow from the profile and from the shapes of its model. Time is never guessed: it is that of
the last run on the same machine, or not known.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.health.findings import Finding
from pipeline.health.places import existing, gigabytes, size_of

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.layout import Layout

FLOAT = 4  # bytes of a weight as it is written
MINI_SIDE = 32  # pixels of the miniature's images
SAME_MACHINE = ("system", "cpu", "cores")


def checkpoint(config: "Config") -> Iterator[Finding]:
    """Whether a checkpoint that lies here is the one that the profile means."""
    from pipeline.files import sha256

    wanted = config.profile.checkpoint
    if wanted.path is None:
        return
    path = config.root / wanted.path
    restore = f"Run 'git checkout -- {wanted.path}', or correct the profile."
    if not path.exists():
        yield Finding("checkpoint", f"{wanted.path} is not there", "problem", restore)
    elif wanted.sha256 is not None and path.is_file() and sha256(path) != wanted.sha256:
        text = f"{wanted.path} is damaged, or not the one that the profile means by its SHA-256"
        yield Finding("checkpoint", text, "problem", restore)
    else:
        said = ", with the profile's SHA-256" if wanted.sha256 and path.is_file() else ""
        yield Finding("checkpoint", f"{wanted.path}{said}")


def amounts(config: "Config", layout: "Layout") -> Iterator[Finding]:
    """Images, methods and the bytes that they take; a problem where the disk lacks the room."""
    profile = config.profile
    seeds, tasks = len(profile.seeds), len(profile.tasks)
    count, uncounted = images(config)
    own = f", and those of {', '.join(uncounted)}" if uncounted else ""
    yield Finding("images", f"{count:,} of {tasks} tasks for {seeds} seed(s){own}")
    learned, merged = len(profile.learn.methods), len(profile.merge.methods)
    yield Finding("methods", f"{learned} that learn or choose coefficients, {merged} others")
    tower, side = model_of(config)
    if tower is None:
        yield Finding("room", "not known: the model's shapes are known only once it is fetched")
        return
    files = weight_files(config)
    needed = round(files * tower) + 3 * side * side * count
    there = size_of(layout.artifacts) if layout.artifacts.exists() else 0
    free = shutil.disk_usage(existing(layout.artifacts)).free
    text = (
        f"at least {gigabytes(needed)} in artifacts/{config.name}: as much as {files:,.1f} image "
        f"encoders of {gigabytes(tower)}, and the images; {gigabytes(there)} are there"
    )
    if needed - there > free:
        advice = "Free some space, or move the project to a larger disk."
        yield Finding("room", f"{text}, {gigabytes(free)} free", "problem", advice)
    else:
        yield Finding("room", text)


def images(config: "Config") -> tuple[int, list[str]]:
    """How many images are kept for all seeds, and the own tasks whose folders were not counted."""
    profile = config.profile
    if profile.suite == "mini":
        each = sum(int(count or 0) for count in profile.data.sizes.values())
        return each * len(profile.tasks) * len(profile.seeds), []
    shares = (profile.data.adapt, profile.data.select, profile.data.eval)
    share = 1.0 if profile.protocol == "transductive" else sum(shares)
    sources = {name: config.task(name).source for name in profile.tasks}
    sizes = (round(source.size * share) for source in sources.values() if source is not None)
    return sum(sizes) * len(profile.seeds), [name for name, source in sources.items() if not source]


def weight_files(config: "Config") -> float:
    """Experts, task vectors and merged models of all seeds, as multiples of an image encoder.

    A fetched expert is one file for all seeds; a mask for a task takes a bit for each weight.
    """
    from pipeline.merging.methods import METHODS

    tasks, seeds = len(config.profile.tasks), len(config.profile.seeds)
    trained = len(config.trained)
    merged = 0.0
    for name in config.methods:
        if METHODS[name].masked:
            merged += 1 + tasks / (8 * FLOAT)
        elif not METHODS[name].reads("task_identity"):
            merged += 1
    return (tasks - trained) + seeds * (trained + tasks + merged)


def model_of(config: "Config") -> tuple[int | None, int]:
    """Bytes of an image encoder in float32, None where unknown, and its images' side in pixels."""
    from pipeline.checkpoints.architecture import named_architecture, tensor_shapes
    from pipeline.checkpoints.writing import open_arrays

    wanted = config.profile.checkpoint
    path = config.root / wanted.path if wanted.path else None
    shapes: Mapping[str, tuple[int, ...]] | None
    if config.profile.suite == "mini" and path is not None:
        side = MINI_SIDE
        shapes = {name: kind.shape for name, kind in open_arrays(path).kinds.items()}
    elif name := wanted.model or wanted.backbone:
        architecture = named_architecture(name)
        side, shapes = architecture["vision_cfg"]["image_size"], tensor_shapes(architecture)
    else:
        return None, 0
    if shapes is None:
        return None, side
    tower = (prod(shape) for name, shape in shapes.items() if name.startswith("visual."))
    return FLOAT * sum(tower), side


def recorded_time(
    layout: "Layout", stages: Iterable[str], machine: Mapping[str, Any]
) -> Iterator[Finding]:
    """Seconds of the stages as they last ran on `machine`; what never ran here stays unknown."""
    known: dict[str, float] = {}
    stages = list(stages)
    for stage in stages:
        record = _record(layout.run(stage))
        where = record.get("machine", {})
        if record and all(where.get(key) == machine[key] for key in SAME_MACHINE):
            known[stage] = record["seconds"]
    if not known:
        yield Finding("time", "not known: no run of this profile is recorded for this machine")
        return
    minutes, seconds = divmod(round(sum(known.values())), 60)
    unknown = [stage for stage in stages if stage not in known]
    rest = f"; not known: {', '.join(unknown)}" if unknown else ""
    text = f"{minutes} min {seconds:02d} s for {len(known)} stages as they last ran here{rest}"
    yield Finding("time", text)


def _record(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) and "seconds" in found else {}
    except (OSError, ValueError):
        return {}
