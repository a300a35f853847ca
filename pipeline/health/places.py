"""The folders that runs write to: whether they can, how full they are, and the disks' room."""

import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.health.findings import Finding

GB = 1e9


def folders(places: Mapping[str, Path]) -> Iterator[Finding]:
    """`places`: what it is called -> the folder, which may not exist yet."""
    disks: dict[int, list[str]] = defaultdict(list)
    for called, folder in places.items():
        above = existing(folder)
        if not above.exists():
            advice = "Mount the disk that it is on, or remove the link."
            yield Finding(called, f"{above} is a link to nothing", "problem", advice)
            continue
        disks[above.stat().st_dev].append(called)
        if not above.is_dir():
            advice = f"Move {above} away: a folder belongs there."
            yield Finding(called, f"{above} is no folder", "problem", advice)
        elif not os.access(above, os.W_OK | os.X_OK):
            advice = "Check who owns it, or choose another place."
            yield Finding(called, f"{above} cannot be written to", "problem", advice)
        elif folder.exists():
            yield Finding(called, f"{gigabytes(size_of(folder))} in {folder}")
        else:
            yield Finding(called, f"{folder} is not there yet")
    for names in disks.values():
        free = shutil.disk_usage(existing(places[names[0]])).free
        said = f"{free / GB:.1f} GB for {', '.join(names)}"
        advice = "" if free else "Free some space, or move the project to a larger disk."
        yield Finding("free disk", said, "ok" if free else "problem", advice)


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder; a file with several names in it counts once."""
    seen: dict[tuple[int, int], int] = {}
    waiting = [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
                    elif entry.is_file(follow_symlinks=False):
                        state = entry.stat(follow_symlinks=False)
                        seen[state.st_dev, state.st_ino] = state.st_size
        except OSError:  # a run that goes on beside this deletes and locks what it likes
            continue
    return sum(seen.values())


def existing(path: Path) -> Path:
    """The path itself, or the nearest above it that exists."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if os.path.lexists(place))


def gigabytes(size: float) -> str:
    """Bytes in words: MB below a tenth of a GB."""
    return f"{size / GB:,.2f} GB" if size >= GB / 10 else f"{size / 1e6:,.1f} MB"
