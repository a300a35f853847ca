"""Parameters and profile -> one checked, frozen configuration.

`params.yaml` names the profile and holds what every profile shares; `profiles/<name>.yaml` says
which model, tasks, methods and budgets a run has. Everything that can be wrong without looking at
data is refused here, before anything is fetched or computed.
"""

from pathlib import Path
from reprlib import Repr
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.config.corrupted import check_corrupted
from pipeline.config.names import check_names
from pipeline.config.sections import Params, Profile, Section, Split
from pipeline.config.sources import check_sources
from pipeline.errors import UserError, unknown
from pipeline.merging.methods import METHODS
from pipeline.tasks import Task, get_task

Model = TypeVar("Model", bound=BaseModel)
SHOWN = 80  # characters of a wrong value, at most, in a message


class Config(Section):
    """Everything a stage may ask for."""

    root: Path
    device: Literal["auto", "cpu", "cuda"]
    name: str  # of the profile
    profile: Profile

    @property
    def methods(self) -> tuple[str, ...]:
        """Every method of the profile, in the order of the methods table."""
        chosen = {*self.profile.merge.methods, *self.profile.learn.methods}
        return tuple(name for name in METHODS if name in chosen)

    @property
    def trained(self) -> tuple[str, ...]:
        """The tasks whose experts are fine-tuned here; those of the others are fetched."""
        profile = self.profile
        if profile.suite == "mini":
            return profile.tasks
        own = profile.own_tasks
        return tuple(task for task in profile.tasks if task in own and own[task].expert is None)

    def task(self, name: str) -> Task:
        """A task of the suite or of one's own; the latter's classes may be its folder's to say."""
        own = self.profile.own_tasks.get(name)
        if own is None:
            return get_task(self.profile.suite, name)
        words, labels = (own.classes or {}).values(), own.classes or {}
        title = own.title or name.replace("_", " ").capitalize()
        return Task(name, title, "own", tuple(words), own.templates, tuple(labels))


def load_config(root: Path, profile: str | None = None) -> Config:
    """Read params.yaml and the profile it names (or `profile`) below the folder `root`.

    Raises `UserError`: missing file, unknown key, wrong type, unknown task, method or corruption.
    """
    params = _parse(Params, _read(root / "params.yaml"), "params.yaml")
    name = profile or params.profile
    path = root / "profiles" / f"{name}.yaml"
    if name not in (known := profile_names(root)):
        raise unknown("profile", name, known)
    where = f"profiles/{name}.yaml"
    parsed = _parse(Profile, _read(path), where)
    try:
        check_names(parsed)
        check_sources(parsed)
        check_corrupted(parsed)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return Config(root=root, device=params.device, name=name, profile=parsed)


def profile_names(root: Path) -> list[str]:
    """The profiles below the folder `root`."""
    files = (path.name for path in (root / "profiles").glob("*.yaml"))
    return sorted(file.removesuffix(".yaml") for file in files if not file.endswith(".lock.yaml"))


def _read(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"There is no {path.name} in {path.parent}. Run from the project's root folder."
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except RecursionError:
        raise UserError(f"{path} is no valid YAML: brackets stand in brackets too often.") from None
    except (yaml.YAMLError, ValueError) as error:  # a day or a number that there is not; no UTF-8
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold keys and values.")
    return value


def _parse(model: type[Model], values: dict[str, Any], where: str) -> Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
    *parents, key = (str(part) for part in first["loc"])
    name = ".".join([*parents, key])
    if first["type"] == "extra_forbidden":
        raise UserError(f"{where}: {unknown('key', name, _keys(model, parents))}")
    if first["type"] == "missing":
        raise UserError(f"{where}: the key '{name}' is missing.")
    found = f", found {_shown(first['input'])}" if not isinstance(first["input"], dict) else ""
    raise UserError(f"{where}: {name}: {first['msg'].lower()}{found}.")


def _shown(value: Any) -> str:
    """`value` in a message: cut, for a few aliases can unfold to gigabytes."""
    cut = Repr()
    cut.maxlevel, cut.maxstring, cut.maxother = 2, SHOWN, SHOWN
    try:
        return cut.repr(value)
    except ValueError:  # Python writes no number of thousands of digits
        return "a number that is too long to be shown"


def _keys(model: Any, parents: list[str]) -> list[str]:
    """The dotted keys that the section at `parents` may have."""
    for parent in parents:
        field = model.model_fields.get(parent) if hasattr(model, "model_fields") else None
        model = field.annotation if field else Split
    prefix = "".join(f"{parent}." for parent in parents)
    return [prefix + key for key in getattr(model, "model_fields", {})]
