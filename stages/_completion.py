"""Values that a shell offers for options, found without importing anything heavy.

They are attached to a command by its parameters' names, so that every command completes alike.
"""

import inspect
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import typer
from typer.models import ParameterInfo

Command = TypeVar("Command", bound=Callable[..., Any])


def profiles(context: typer.Context, incomplete: str) -> list[str]:
    """The profiles of the project in the current folder."""
    files = (path.name for path in Path("profiles").glob("*.yaml"))
    names = (name.removesuffix(".yaml") for name in files if not name.endswith(".lock.yaml"))
    return _beginning(incomplete, sorted(names))


def methods(context: typer.Context, incomplete: str) -> list[str]:
    """The methods of the profile that the command is for; all that there are without one."""
    from pipeline.merging.methods import METHODS

    # `merge --method` merges files, whatever a profile says.
    profile = {} if context.info_name == "merge" else _profile(context)
    listed = [*_names(profile, "merge", "methods"), *_names(profile, "learn", "methods")]
    return _beginning(incomplete, [name for name in METHODS if name in listed] or METHODS)


def tasks(context: typer.Context, incomplete: str) -> list[str]:
    """The tasks of the profile that the command is for; the miniature's without one."""
    from pipeline.tasks import task_names

    listed = _names(_profile(context), "tasks") or task_names("mini")
    return _beginning(incomplete, ["any", *listed])


VALUES = {"profile": profiles, "method": methods, "promote": methods, "task": tasks}


def completing(command: Command) -> Command:
    """The same command; its parameters that `VALUES` names offer values to a shell."""
    hints = get_type_hints(command, include_extras=True)
    for name in inspect.signature(command).parameters.keys() & VALUES.keys():
        for declared in getattr(hints.get(name), "__metadata__", ()):
            if isinstance(declared, ParameterInfo):
                # An option that several commands share is one object, and alike in all of them.
                declared.autocompletion = VALUES[name]
    return command


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _profile(context: typer.Context) -> dict[str, Any]:
    """The profile named before on the line, or in params.yaml; empty where it cannot be read."""
    import yaml

    # What was never checked may be of any shape, and a shell waits for no explanation.
    with suppress(OSError, yaml.YAMLError, ValueError, TypeError, KeyError):
        name = context.params.get("profile")
        if name is None:
            name = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))["profile"]
        found = yaml.safe_load(Path("profiles", f"{name}.yaml").read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def _names(section: Any, *keys: str) -> list[str]:
    """The list of names below `keys`; empty where there is none."""
    for key in keys:
        section = section.get(key) if isinstance(section, dict) else None
    return [name for name in section if isinstance(name, str)] if isinstance(section, list) else []
