"""What a profile has to download, asked as `fetch` asks before its first byte."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.health.findings import Finding
from pipeline.health.places import gigabytes
from pipeline.health.probing import ProbeFailed, probe

if TYPE_CHECKING:
    from pipeline.config import Config

SECONDS = 60.0  # a network without an answer takes its time to say so
_ASK = """
import json, sys
from pathlib import Path
from pipeline.health.downloads import asked
print(json.dumps(asked(Path(sys.argv[1]), sys.argv[2])))
"""


def downloads(config: "Config") -> Iterator[Finding]:
    """What is still to be downloaded; what the profile's lock lists and the cache has is enough.

    The hub is asked in a process of its own, which ends after `SECONDS` whatever the network does.
    """
    if config.profile.suite == "mini":
        yield Finding("downloads", "none: the miniature is drawn here")
        return
    try:
        found = probe(_ASK, str(config.root), config.name, seconds=SECONDS)
    except ProbeFailed as error:
        advice = "Try 'python -m stages.fetch --dry-run'."
        yield Finding("downloads", f"not known: {error}", "warning", advice)
        return
    if "error" in found:
        what, _, advice = found["error"].partition(". ")
        text = f"not known: {what}" if found["silent"] else what
        yield Finding("downloads", text, "warning" if found["silent"] else "problem", advice)
        return
    size, missing = gigabytes(found["size"]), gigabytes(found["missing"])
    yield Finding("downloads", f"{missing} of {size} in {found['files']} files")


def asked(root: Path, profile: str) -> dict[str, Any]:
    """`files`, their `size` and what is `missing` of it in bytes; or an `error`, maybe `silent`."""
    from pipeline.config import load_config
    from pipeline.fetching.checkpoints import find_checkpoints
    from pipeline.fetching.images import find_images
    from pipeline.hub import Lock, Unreachable, check_room, missing_bytes
    from pipeline.layout import Layout

    config = load_config(root, profile)
    try:
        lock = Lock.load(Layout(root, config.name).lock)
        files = {file for found in find_checkpoints(config, lock) for file in found.files}
        files |= {file for found in find_images(config, lock).values() for file in found.wanted}
        check_room(files)
    except UserError as error:
        return {"error": str(error), "silent": isinstance(error, Unreachable)}
    size = sum(file.size for file in files)
    return {"files": len(files), "size": size, "missing": missing_bytes(files)}
