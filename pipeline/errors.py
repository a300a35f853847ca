"""Mistakes a user can mend: said in one or two sentences, never as a traceback."""

import difflib
from collections.abc import Iterable

LONGEST = 80  # characters of an unknown name that a message repeats


class UserError(Exception):
    """What is wrong, where, and what to do next. The command line prints it and exits with 2."""


class MissingInput(UserError):
    """A file that an earlier stage writes, or that the user must supply, is not there."""


class CheckpointError(UserError):
    """A checkpoint that is damaged, or whose tensors do not fit the model it is meant for."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """A `UserError` for a name that is not in a table, with the nearest names that are."""
    known, name = list(known), name if len(name) <= LONGEST else f"{name[:LONGEST]}..."
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return UserError(f"Unknown {kind} '{name}'.{hint} Available: {', '.join(known)}.")
