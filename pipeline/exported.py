"""The files of an exported folder, and those of them that say what the model knows."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError
from pipeline.files import read_json
from pipeline.tasks.words import Words

FORMATS = ("open_clip", "hf")
WEIGHTS = {"open_clip": "open_clip_model.safetensors", "hf": "model.safetensors"}
HEADS = "heads.safetensors"  # task -> unit rows [classes, dim]
LABELS = "labels.json"  # task -> title, classes, templates
PROVENANCE = "provenance.json"
CARD = "README.md"
MADE_BY = "adamerge export"


@dataclass(frozen=True)
class Labels(Words):
    """A task's classes in the order of its head's rows, with the task's printed name."""

    title: str

    @property
    def facts(self) -> dict[str, object]:
        """As the file holds it."""
        return {"title": self.title, "classes": self.classes, "templates": self.templates}


def read_labels(folder: Path) -> dict[str, Labels]:
    """task -> its labels, in the order of the profile; raises `UserError` if it is no export."""
    path = folder / LABELS
    if not path.is_file():
        raise UserError(
            f"{folder} is no folder that '{MADE_BY}' wrote: it has no {LABELS}. Name another "
            "folder, or a profile."
        )
    stored = read_json(path, MADE_BY)
    try:
        found = {
            task: Labels(tuple(one["classes"]), tuple(one["templates"]), one["title"])
            for task, one in stored.items()
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}). Run '{MADE_BY}' again.") from None
    check_labels(found, path)
    return found


def check_labels(labels: Mapping[str, Labels], path: Path) -> None:
    """Raise `UserError` unless every task has words, all of them texts."""
    for task, said in labels.items():
        if not said.classes or not all(isinstance(word, str) for word in said.classes):
            raise UserError(f"{path} is damaged ({task} has no classes). Run '{MADE_BY}' again.")
