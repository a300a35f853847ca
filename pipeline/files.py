"""Files that are whole or absent: every write goes to a temporary name and is renamed."""

import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.errors import MissingInput, UserError

ADVICE = {
    errno.ENOSPC: "the disk is full: free some space and run again",
    errno.EDQUOT: "the disk quota is used up: free some space and run again",
    errno.EFBIG: "it is larger than the file system or 'ulimit -f' allows: choose another disk",
    errno.EROFS: "the file system is read-only: choose a folder that can be written to",
    errno.EACCES: "permission denied: check who owns the folder",
    errno.EPERM: "permission denied: check who owns the folder",
    errno.EEXIST: "a file lies where its folder should be: move it away",
    errno.ENOTDIR: "a file lies where its folder should be: move it away",
}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds.

    Raises `UserError` where the disk is full, read-only or forbidden. Nothing half-written is
    ever left under `path`; the temporary file goes away whatever happens.
    """
    # The ending stays last: some writers choose their format by it.
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if temporary.stat().st_nlink == 1:  # a link's other names may be protected
            temporary.chmod(0o644)  # some writers keep their files to themselves
        os.replace(temporary, path)
    except OSError as error:
        advice = ADVICE.get(error.errno or 0)
        if advice is None:
            raise
        raise UserError(f"Cannot write {path}: {advice}.") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with a final newline; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, made_by: str) -> Any:
    """The JSON value in `path`. `made_by`: the stage to name if it is missing or damaged."""
    try:
        return json.loads(need(path, made_by).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}). Delete it and run '{made_by}'.") from error


def need(path: Path, made_by: str) -> Path:
    """`path` itself if it exists; raises `MissingInput` naming the stage that makes it."""
    if not path.exists():
        raise MissingInput(f"{path} is missing. It is made by '{made_by}': run that first.")
    return path


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal; read once as long as the file stays."""
    state = path.stat()
    return _sha256(path, state.st_ino, state.st_size, state.st_mtime_ns)


@cache
def _sha256(path: Path, *state: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
