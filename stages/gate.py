"""Refuse metrics that fell below the committed ones.

    python -m stages.gate --max-drop 1.0 --against HEAD

Exit code 0: nothing fell by more than is allowed; 1: something fell or vanished; 2: there is
nothing to compare.
"""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stages._progress import say
from stages._stage import ProfileOption, user_errors

if TYPE_CHECKING:
    from pipeline.layout import Layout
    from pipeline.regression import Finding

MADE_BY = {"clean": "evaluate", "robustness": "robustness", "generalization": "generalization"}

MaxDrop = Annotated[
    float,
    typer.Option(
        "--max-drop",
        min=0,
        metavar="POINTS",
        help="Percentage points that an average may fall; seed noise is added to it.",
    ),
]
Against = Annotated[
    str, typer.Option("--against", metavar="REV", help="Git revision to compare with.")
]
Markdown = Annotated[
    Path | None, typer.Option("--markdown", metavar="FILE", help="Append a summary table to FILE.")
]


def main(
    profile: ProfileOption = None,
    max_drop: MaxDrop = 1.0,
    against: Against = "HEAD",
    markdown: Markdown = None,
) -> None:
    """Fail if a method's accuracy fell below the committed metrics."""
    with user_errors():
        from pipeline.config import load_config
        from pipeline.files import read_json
        from pipeline.layout import Layout
        from pipeline.regression import FILES, compare, summary_table

        root = Path.cwd()
        layout = Layout(root, load_config(root, profile).name)
        after = {
            name: read_json(layout.metric(name), f"python -m stages.{MADE_BY[name]}")
            for name in FILES
        }
        commit = commit_of(root, against)
        before = {name: committed(layout, name, commit, against) for name in FILES}
        findings = compare(before, after, max_drop)
        lines = [*map(str, findings), verdict(findings, layout.profile, against)]
        say("\n".join(lines))
        if markdown is not None:
            heading = f"### Metrics of {layout.profile}, change against {against}"
            listed = "\n".join(f"- {line}" for line in lines)
            append(markdown, f"{heading}\n\n{summary_table(before, after)}\n{listed}\n")
    if any(finding.fails for finding in findings):
        raise typer.Exit(1)


def commit_of(root: Path, revision: str) -> str:
    """The hash of the commit that a revision names; raises `UserError` if there is none."""
    from pipeline.errors import UserError

    found = git(root, "rev-parse", "--verify", f"{revision}^{{commit}}")
    if found is None:
        raise UserError(
            f"Git knows no commit '{revision}' in {root}. The gate compares with committed "
            "metrics: run it in a clone, or name another revision with --against."
        )
    return found.strip()


def committed(layout: "Layout", name: str, commit: str, revision: str) -> Any:
    """The content of a metrics file in a commit; raises `UserError` if it is not there."""
    from pipeline.errors import UserError

    path = layout.metric(name).relative_to(layout.root).as_posix()
    # "./": the project may be a folder of a larger repository.
    text = git(layout.root, "show", f"{commit}:./{path}")
    if text is None:
        raise UserError(
            f"{revision} has no {path} to compare with. "
            f"Run 'make repro PROFILE={layout.profile}' and commit {Path(path).parent.as_posix()}."
        )
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(
            f"{path} in {revision} is damaged ({error}). Name another revision with --against."
        ) from error


def git(root: Path, *words: str) -> str | None:
    """What a git command prints; None if it fails or git is not installed."""
    try:
        done = subprocess.run(
            ["git", *words], cwd=root, capture_output=True, encoding="utf-8", check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout


def verdict(findings: Sequence["Finding"], profile: str, revision: str) -> str:
    """One line that says whether the gate is open, and what to do if not."""
    failures = sum(finding.fails for finding in findings)
    if not failures:
        return f"gate: {profile} is no worse than in {revision}"
    return (
        f"gate: {profile} has {failures} regression{'s' if failures > 1 else ''} against "
        f"{revision}. If that is meant, commit metrics/{profile} with the reason."
    )


def append(path: Path, text: str) -> None:
    """Add text to the end of a file; raises `UserError` where that cannot be."""
    from pipeline.errors import UserError

    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror}.") from error


if __name__ == "__main__":
    typer.run(main)
