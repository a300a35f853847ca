"""What a command shows while it runs: lines of words, and how far it is."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer


def say(text: str) -> None:
    """One line for the person who watches."""
    if speaks():
        typer.echo(text)
        sys.stdout.flush()


def speaks() -> bool:
    """Whether this is the one of several processes that shows how far it is."""
    from pipeline.parallel import launched_group

    return launched_group().first


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """A progress bar: call what it yields with (done, a few words). Lines if no terminal."""
    if not speaks():
        yield lambda done, words: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(what, total)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=total, words="")
        yield lambda done, words: bar.update(task, completed=done, words=words)


def _lines(what: str, total: int) -> Callable[[int, str], None]:
    """Where there is no terminal: a line for every quarter done."""
    quarter = 0

    def update(done: int, words: str) -> None:
        nonlocal quarter
        if done * 4 // total > quarter:
            quarter = done * 4 // total
            say(f"  {what}: {done}/{total} {words}")

    return update
