"""Where a merge is written to: a file, a folder that `transformers` loads, or a file per task."""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.checkpoints.architecture import tensor_shapes
from pipeline.checkpoints.contents import HF_CONFIG, HF_PIXELS
from pipeline.checkpoints.hf_folder import TOKENIZER, class_of, write_hf_folder
from pipeline.checkpoints.writing import LazyArrays, write_safetensors
from pipeline.errors import UserError
from pipeline.fetching.room import check_disks
from pipeline.files import ADVICE
from pipeline.merge_files.inputs import Pretrained, facts_in

FILE = ".safetensors"
OTHER_FILES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".onnx", ".gguf")
WRITER = {"written_by": "adamerge merge"}  # by which what is replaced is known
BESIDE = (HF_CONFIG, HF_PIXELS, *TOKENIZER)


@dataclass(frozen=True)
class Output:
    """What is written, and where."""

    path: Path
    tasks: tuple[str, ...] | None  # one model for each of them; None: one model
    whole: bool = False  # both towers
    bytes: int = 0

    @property
    def models(self) -> tuple[str, ...]:
        """The tasks that have a model of their own; "" stands for all."""
        return ("",) if self.tasks is None else self.tasks

    @property
    def kind(self) -> str:
        """file, folder (of Hugging Face's layout) or tasks."""
        if self.tasks is not None:
            return "tasks"
        return "file" if self.path.suffix == FILE else "folder"

    @property
    def loaded_by(self) -> str:
        """The class of `transformers` that loads a folder."""
        return class_of(self.whole)

    def of(self, pretrained: Pretrained) -> "Output":
        """The same once it is known of what; raises `UserError` for what has no such layout."""
        whole = self.kind == "folder" and pretrained.whole
        shapes = {"text_cfg": {}, **pretrained.architecture}
        if self.kind == "folder" and tensor_shapes(shapes) is None:
            raise UserError(
                f"{pretrained.path} is no CLIP of two plain transformers, and has no layout of "
                f"Hugging Face's: write a file, {self.path}{FILE}."
            )
        arrays = pretrained.arrays if whole else pretrained.tower
        size = sum(kind.nbytes for kind in arrays.kinds.values())
        return replace(self, whole=whole, bytes=size * len(self.models))


def check_output(
    out: Path,
    method: str,
    tasks: tuple[str, ...] | None,
    inputs: Sequence[Path],
    replaced: bool,
) -> Output:
    """Raise `UserError` unless `out` is a place to write a merge to.

    `tasks`: those that have a model of their own. `replaced`: what an earlier merge wrote there is;
    anything else stays.
    """
    output = Output(out, tasks)
    if out.suffix == FILE and tasks is not None:
        raise UserError(
            f"{method} makes one model per task: give a folder instead of {out}, for a file each."
        )
    if out.suffix in OTHER_FILES:
        raise UserError(
            f"Merges are written as {FILE} or as a folder, not as {out.suffix}: rename {out}."
        )
    place = out.resolve()
    for path in inputs:
        held = path.resolve()
        if held == place or held in place.parents or place in held.parents:
            raise UserError(
                f"{out} is the input {path}, or one lies inside the other: choose another place to "
                "write to."
            )
    above = next(path for path in place.parents if os.path.exists(path))
    if not above.is_dir():
        raise UserError(f"{out} cannot be written: {above} is a file.")
    for name in (*place.relative_to(above).parts, _temporary(out).name):
        _check_length(above / name)
    if os.path.lexists(out):
        _check_replaceable(output, replaced)
    return output


def _check_length(path: Path) -> None:
    """Raise `UserError` for a name that the disk of the path's folder has no room for."""
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(
                f"The output's name '{path.name[:20]}...' is too long for this disk: choose a "
                "shorter one."
            ) from error


def _check_replaceable(output: Output, replaced: bool) -> None:
    """Raise `UserError` unless `out` may go: nothing but a merge is ever removed.

    A merge is a file whose header says so; or a folder with at least one such file, and besides
    those nothing but what belongs to the layout; or an empty folder.
    """
    out = output.path
    if not replaced:
        raise UserError(f"{out} is there already: choose another place, or replace it (--force).")
    if output.kind == "file":
        if not out.is_file():
            raise UserError(f"{out} is no file, and is not replaced: choose another place.")
        files = [out]
    else:
        files = sorted(out.iterdir()) if out.is_dir() and not out.is_symlink() else [out]
    merges = [path for path in files if _is_merge(path)]
    beside = [path for path in files if path.name in BESIDE and path.is_file() and path != out]
    others = [path for path in files if path not in merges and path not in beside]
    if others or (files and not merges):
        raise UserError(
            f"{others[0] if others else out} was written by no merge, and is not replaced: choose "
            "another place."
        )


def _is_merge(path: Path) -> bool:
    facts = facts_in(path) if path.suffix == FILE and path.is_file() else None
    return facts is not None and facts.items() >= WRITER.items()


def check_room(output: Output, pretrained: Pretrained, copies: int) -> None:
    """Raise `UserError` unless the disk has room; `copies`: of experts, for the time of a merge."""
    tower = sum(kind.nbytes for kind in pretrained.merged.kinds.values())
    folder = output.path.absolute().parent
    needed = {"the merge": (folder, output.bytes)}
    if copies:
        needed["copies of pickled experts, for its time"] = folder, copies * tower
    check_disks(needed)


@contextmanager
def making(output: Output) -> Iterator[tuple[Path, Path]]:
    """Yield a folder beside the output for the time of the block, and where to write in it.

    What lies there at the end of the block takes the output's place; after an error nothing does.
    Raises `UserError` where the disk refuses.
    """
    out = output.path.absolute()
    folder = _temporary(out)
    result = folder / f"result{FILE if output.kind == 'file' else ''}"
    try:
        folder.mkdir(parents=True)
        if output.kind != "file":
            result.mkdir()
        yield folder, result
        _put(result, out, folder / "before")
    except OSError as error:
        advice = ADVICE.get(error.errno or 0)
        if advice is None:
            raise
        raise UserError(f"Cannot write {output.path}: {advice}.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _temporary(out: Path) -> Path:
    """A name beside `out` that nothing has."""
    return out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}")


def _put(result: Path, out: Path, before: Path) -> None:
    """Rename `result` to `out`; a folder there is moved to `before`."""
    if not out.is_dir():
        os.replace(result, out)
        return
    try:
        os.rename(out, before)
        os.rename(result, out)
    except BaseException:
        if before.exists() and not out.exists():
            os.rename(before, out)
        raise


def write_model(
    output: Output,
    result: Path,
    task: str,
    tower: LazyArrays,
    pretrained: Pretrained,
    facts: Mapping[str, str],
) -> None:
    """Write one merged image tower into `result`, as the output's kind asks for it."""
    facts = {**WRITER, **facts}
    if output.kind == "tasks":
        write_safetensors(result / f"{task}{FILE}", tower, {**facts, "task": task})
    elif output.kind == "file":
        write_safetensors(result, tower, facts)
    else:
        folder = pretrained.path if pretrained.path.is_dir() else None
        arrays = _with_texts(tower, pretrained) if output.whole else tower
        write_hf_folder(result, arrays, pretrained.architecture, facts, folder)


def _with_texts(tower: LazyArrays, pretrained: Pretrained) -> LazyArrays:
    """A whole CLIP of a merged image tower."""
    whole = pretrained.arrays
    return LazyArrays(whole.kinds, lambda name: (tower if name in tower else whole)[name])
