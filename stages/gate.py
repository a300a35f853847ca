"""Refuse metrics that fell below the committed ones by more than noise.

    python -m stages.gate --against HEAD --promote default

Exit code 0: nothing fell by more than its 95 % interval, or than is allowed where none is stored;
1: something fell or vanished; 2: there is nothing to compare. docs/ci.md has the rule.
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
    from pipeline.config import Config
    from pipeline.layout import Layout
    from pipeline.regression import Change, Finding

MADE_BY = {"clean": "evaluate", "robustness": "robustness", "generalization": "generalization"}
DEFAULT = "default"  # stands for the method that is used where none is named

MaxDrop = Annotated[
    float,
    typer.Option(
        "--max-drop",
        min=0,
        metavar="POINTS",
        help="Percentage points that an average without an interval may fall; twice its standard "
        "deviation over seeds is added.",
    ),
]
Against = Annotated[
    str, typer.Option("--against", metavar="REV", help="Git revision to compare with.")
]
AllowNew = Annotated[
    bool,
    typer.Option("--allow-new", help="Pass where the revision has no metrics of the profile."),
]
Markdown = Annotated[
    Path | None, typer.Option("--markdown", metavar="FILE", help="Append a summary table to FILE.")
]
Promote = Annotated[
    str | None,
    typer.Option(
        "--promote",
        metavar="METHOD",
        help="If the gate opens, move the registry's champion to this method's model; "
        f"'{DEFAULT}': the one that export and predict take.",
    ),
]


def main(
    profile: ProfileOption = None,
    max_drop: MaxDrop = 1.0,
    against: Against = "HEAD",
    allow_new: AllowNew = False,
    markdown: Markdown = None,
    promote: Promote = None,
) -> None:
    """Fail if an accuracy fell below the committed metrics by more than noise."""
    with user_errors():
        from pipeline.config import load_config
        from pipeline.files import read_json
        from pipeline.layout import Layout
        from pipeline.regression import FILES, changes, compare, summary_table

        config = load_config(Path.cwd(), profile)
        champion = None if promote is None else chosen(config, promote)
        layout = Layout(config.root, config.name)
        after = {
            name: read_json(layout.metric(name), f"python -m stages.{MADE_BY[name]}")
            for name in FILES
        }
        before = all_committed(layout, FILES, against, allow_new)
        findings = compare(before, after, max_drop)
        lines = [
            *map(str, findings),
            rule(changes(before, after, max_drop), max_drop),
            verdict(findings, layout.profile, against),
        ]
        say("\n".join(lines))
        if markdown is not None:
            heading = f"### Metrics of {layout.profile}, change against {against}"
            listed = "\n".join(f"- {line}" for line in lines)
            append(markdown, f"{heading}\n\n{summary_table(before, after)}\n{listed}\n")
        shut = any(finding.fails for finding in findings)
        if champion is not None:
            line = promotion(config, layout, champion, open_gate=bool(before) and not shut)
            say(line)
            if markdown is not None:
                append(markdown, f"- {line}\n")
    if shut:
        raise typer.Exit(1)


def chosen(config: "Config", method: str) -> str:
    """The method to promote; raises `UserError` unless the profile has it."""
    from pipeline.classifier import check_choice, default_method

    if method == DEFAULT:
        return default_method(config)
    check_choice(config, method, config.profile.seeds[0])
    return method


def promotion(config: "Config", layout: "Layout", method: str, open_gate: bool) -> str:
    """Move the registry's champion, or leave it where it is; one line that says which."""
    if not open_gate:
        return "champion: not moved"
    from pipeline.tracking import promote

    seed = config.profile.seeds[0]
    version = promote(config, layout, method, seed)
    return f"champion: {method} of {config.name}, seed {seed}, version {version}"


def all_committed(
    layout: "Layout", names: Sequence[str], revision: str, allow_new: bool
) -> dict[str, Any]:
    """Name -> content of the committed metrics files; empty where there may be and are none."""
    commit = commit_of(layout.root, revision)
    if allow_new and all(text_of(layout, name, commit) is None for name in names):
        return {}
    return {name: committed(layout, name, commit, revision) for name in names}


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
    text = text_of(layout, name, commit)
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


def text_of(layout: "Layout", name: str, commit: str) -> str | None:
    """A metrics file as a commit holds it; None if it does not."""
    path = layout.metric(name).relative_to(layout.root).as_posix()
    # "./": the project may be a folder of a larger repository.
    return git(layout.root, "show", f"{commit}:./{path}")


def git(root: Path, *words: str) -> str | None:
    """What a git command prints; None if it fails or git is not installed."""
    try:
        done = subprocess.run(
            ["git", *words], cwd=root, capture_output=True, encoding="utf-8", check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout


def rule(changes: "dict[str, Change]", max_drop: float) -> str:
    """One line that says by what the averages were compared."""
    measured = sum(change.measured for change in changes.values())
    return (
        f"gate: {measured} of {len(changes)} averages compared by their 95 % intervals, the others "
        f"by an allowance of {max_drop:g} point{'' if max_drop == 1 else 's'} and twice the "
        "standard deviation over seeds"
    )


def verdict(findings: Sequence["Finding"], profile: str, revision: str) -> str:
    """One line that says whether the gate is open, and what to do."""
    failures = sum(finding.fails for finding in findings)
    if failures:
        return (
            f"gate: {profile} has {failures} regression{'s' if failures > 1 else ''} against "
            f"{revision}. If that is meant, commit metrics/{profile} with the reason."
        )
    line = f"gate: {profile} is no worse than in {revision}"
    if any(finding.kind == "rose" for finding in findings):
        return f"{line}; some of it rose beyond noise: commit the new metrics/{profile}"
    return line


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
