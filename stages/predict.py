"""Classify images with a merged model: an exported folder, or one of a profile.

adamerge predict photo.png --task cars
adamerge predict holiday/ --model merged-clip --json

Exit code 0: every image was classified; 1: some are broken, and named; 2: nothing could be done.
"""

import json
import sys
from collections.abc import Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stages._model import MethodOption, ModelOption, SeedOption, choose, exported, torch_device
from stages._progress import progress_bar
from stages._stage import ProfileOption, user_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.classifier import Classifier, Guess

AT_ONCE = 32  # images that are read, and then classified
WIDTH = 200  # columns of a table that goes to a file or a pipe

Images = Annotated[
    list[Path],
    typer.Argument(metavar="IMAGE...", help="Images, and folders of them at any depth."),
]
Task = Annotated[
    str, typer.Option("--task", help="A task whose classes compete; any: those of all tasks.")
]
Top = Annotated[int, typer.Option("--top", min=1, help="Classes to name for each image.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line for each image.")]


@dataclass(frozen=True)
class Answer:
    """What is said of an image: guesses, or why there are none."""

    image: str
    guesses: "Sequence[Guess]" = ()
    error: str | None = None

    def facts(self, task: str) -> dict[str, Any]:
        """As --json prints it; docs/using-the-model.md promises these keys."""
        said: dict[str, Any] = {"image": self.image, "task": task}
        if self.error is not None:
            return said | {"error": self.error}
        found = [
            {
                "class": guess.word,
                "tasks": list(guess.tasks),
                "probability": round(guess.probability, 6),
            }
            for guess in self.guesses
        ]
        return said | {"predictions": found}


def main(
    images: Images,
    task: Task = "any",
    top: Top = 5,
    as_json: AsJson = False,
    model: ModelOption = None,
    profile: ProfileOption = None,
    method: MethodOption = None,
    seed: SeedOption = None,
) -> None:
    """Name what images show, with a merged model."""
    with user_errors():
        from pipeline.data.given import image_files

        files = image_files(images)
        classifier = load(task, model, profile, method, seed)
        with _progress(len(files)) as update:
            answers = list(classified(classifier, files, task, top, update))
    if as_json:
        for answer in answers:
            typer.echo(json.dumps(answer.facts(task)))
    else:
        _print_table(answers)
    broken = [answer for answer in answers if answer.error is not None]
    for answer in broken:
        typer.echo(f"Error: {answer.image} is no image to use: {answer.error}.", err=True)
    if broken:
        raise typer.Exit(1)


def load(
    task: str, model: Path | None, profile: str | None, method: str | None, seed: int | None
) -> "Classifier":
    """The model that the options name; raises `UserError` where there is none, or no such task."""
    from pipeline.classifier import check_task, load_exported, load_merged
    from pipeline.exported import read_labels

    if folder := exported(model, profile, method, seed):
        check_task(task, tuple(read_labels(folder)))
        return load_exported(folder, torch_device("auto"))
    from pipeline.config import load_config  # which takes time that a folder does not need
    from pipeline.layout import Layout

    config = load_config(Path.cwd(), profile)
    check_task(task, config.profile.tasks)
    chosen, number = choose(config, method, seed)
    layout = Layout(config.root, config.name)
    return load_merged(config, layout, chosen, number, task, torch_device(config.device))


@contextmanager
def _progress(total: int) -> "Iterator[Callable[[int, str], None]]":
    """How far it is, on stderr; nothing for a few images."""
    if total <= AT_ONCE:
        yield lambda done, words: None
        return
    with redirect_stdout(sys.stderr), progress_bar("predicting", total) as update:
        yield update


def classified(
    classifier: "Classifier",
    files: Sequence[Path],
    task: str,
    top: int,
    on_progress: "Callable[[int, str], None]",
) -> "Iterator[Answer]":
    """What the model says of each file, in their order; some images are in memory at a time."""
    import numpy as np

    from pipeline.data.decoding import BrokenImage
    from pipeline.data.given import pixels_of

    for start in range(0, len(files), AT_ONCE):
        pixels, errors = {}, {}
        for path in files[start : start + AT_ONCE]:
            try:
                pixels[path] = pixels_of(path, classifier.size)
            except BrokenImage as error:
                errors[path] = str(error)
        guesses = {}
        if pixels:
            found = classifier.classify(np.stack(list(pixels.values())), task, top)
            guesses = dict(zip(pixels, found, strict=True))
        for path in files[start : start + AT_ONCE]:
            yield Answer(_shown(path), guesses.get(path, ()), errors.get(path))
        on_progress(min(start + AT_ONCE, len(files)), "")


def _shown(path: Path) -> str:
    """The path as text that can be printed, also where its bytes are no UTF-8."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _print_table(answers: Sequence[Answer]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("Image", "Class", "Task", box=SIMPLE)
    table.add_column("Probability", justify="right", no_wrap=True)
    for answer in answers:
        if answer.error is not None:
            table.add_row(Text(answer.image), Text("broken"), "", "")
        for place, guess in enumerate(answer.guesses):
            table.add_row(
                Text("" if place else answer.image, overflow="fold"),
                Text(guess.word, overflow="fold"),
                Text(", ".join(guess.tasks), overflow="fold"),
                f"{guess.probability:.1%}",
            )
        table.add_section()
    console = Console()
    Console(width=None if console.is_terminal else WIDTH).print(table)


if __name__ == "__main__":
    typer.run(main)
