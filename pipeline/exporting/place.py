"""Where an export is written to: a folder that is new, empty, or an earlier export."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from pipeline.checkpoints.contents import CONFIGS
from pipeline.checkpoints.hf_folder import TOKENIZER
from pipeline.errors import UserError
from pipeline.exported import CARD, HEADS, LABELS, MADE_BY, PROVENANCE, WEIGHTS
from pipeline.merge_files.outputs import FILE, check_output

OURS = {*WEIGHTS.values(), *CONFIGS, *TOKENIZER, HEADS, LABELS, PROVENANCE, CARD}


def check_place(out: Path, method: str, inputs: Sequence[Path], replaced: bool) -> None:
    """Raise `UserError` unless a folder may be written to `out`.

    `inputs`: files and folders that it must not touch. `replaced`: an earlier export there goes;
    anything else stays.
    """
    if out.suffix == FILE:
        raise UserError(f"An export is a folder: leave {FILE} out of {out}.")
    if not os.path.lexists(out):
        check_output(out, method, None, inputs, replaced=False)
        return
    if not replaced:
        raise UserError(f"{out} is there already: choose another place, or replace it (--force).")
    if not out.is_dir() or out.is_symlink():
        raise UserError(f"{out} is no folder, and is not replaced: choose another place.")
    held = sorted(out.iterdir())
    others = [path for path in held if path.name not in OURS or not path.is_file()]
    if others or (held and not _is_export(out)):
        raise UserError(
            f"{others[0] if others else out} was not written by '{MADE_BY}', and is not replaced: "
            "choose another place."
        )


def _is_export(folder: Path) -> bool:
    try:
        facts = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(facts, dict) and facts.get("written_by") == MADE_BY
