"""Look whether everything is there that a run needs, and say what a run of a profile will take.

    adamerge doctor [--profile vit-b-32] [--json]

Nothing is changed and nothing is downloaded. Exit code 0, or 2 if a problem would stop a run. The
output of --json belongs in a bug report: it holds no logins, tokens or passwords.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated

import typer

from stages._progress import say
from stages._stage import ProfileOption, machine_facts

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.health.findings import Finding

Page = Mapping[str, "list[Finding]"]
Check = tuple[str, Callable[[], "Iterable[Finding]"]]

WIDTH = 100
AsJson = Annotated[bool, typer.Option("--json", help="For bug reports; holds nothing secret.")]


def main(profile: ProfileOption = None, as_json: AsJson = False) -> None:
    """Look for what would stop a run, and say what a run will take."""
    page = examined(Path.cwd(), profile)
    findings = [finding for section in page.values() for finding in section]
    if as_json:
        rows = {title: [asdict(one) for one in section] for title, section in page.items()}
        typer.echo(json.dumps(rows, indent=2))
    else:
        say("\n\n".join(shown(title, section) for title, section in page.items()))
        say(f"\n{verdict(findings)}")
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(2)


def examined(root: Path, profile: str | None) -> Page:
    """Section -> findings, without secrets. What has to wait for others waits side by side."""
    from pipeline.health.findings import Finding, discreet, examine

    config: Config | None = None

    def configuration() -> "Iterable[Finding]":
        nonlocal config
        from pipeline.config import load_config

        config = load_config(root, profile)
        yield Finding("profile", f"{config.name}, with nothing wrong in its keys and names")

    found = examine("profile", configuration)
    sections = _sections(root, config)
    with ThreadPoolExecutor() as pool:
        waiting = {
            title: [pool.submit(examine, about, check) for about, check in checks]
            for title, checks in sections.items()
        }
        page = {
            title: [finding for one in parts for finding in one.result()]
            for title, parts in waiting.items()
        }
    asked = (config.name if config else profile) or "in params.yaml"
    page[f"Profile {asked}"] = found + page.pop("Profile")
    return {title: list(discreet(section, _environment())) for title, section in page.items()}


def _sections(root: Path, config: "Config | None") -> dict[str, list[Check]]:
    """Title -> what is looked at under it; of a profile only if it could be read."""
    from pipeline.health import costs, environment, machine, places, services
    from pipeline.health.downloads import downloads
    from pipeline.layout import Layout
    from stages import _project
    from stages.cli import STAGES

    facts = machine_facts("cpu")
    about: list[Check] = []
    if config is not None:
        layout = Layout(root, config.name)
        names = [stage.__name__.rpartition(".")[2] for stage in STAGES]
        about = [
            ("checkpoint", lambda: costs.checkpoint(config)),
            ("downloads", lambda: downloads(config)),
            ("room", lambda: costs.amounts(config, layout)),
            ("time", lambda: costs.recorded_time(layout, names, facts)),
        ]
    return {
        "Versions": [
            ("packages", lambda: environment.versions(root)),
            ("commands", environment.commands),
        ],
        "Machine": [
            ("processor", lambda: machine.processor(facts)),
            ("GPU", lambda: machine.devices(config.device if config else None)),
        ],
        "Folders": [("folders", lambda: places.folders(_project.cache_folders(root)))],
        "Project": [
            ("git", lambda: _project.git_findings(root)),
            ("DVC", lambda: _project.dvc_findings(root)),
            ("MLflow", lambda: services.mlflow(root)),
            ("hub", services.hub),
        ],
        "Profile": about,
    }


def _environment() -> dict[str, str]:
    """The environment, and the hub's token where it is kept in a file."""
    kept = {}
    with suppress(Exception):
        from huggingface_hub import get_token

        kept["HF_TOKEN"] = get_token() or ""
    return {**os.environ, **kept}


def shown(title: str, findings: "Iterable[Finding]") -> str:
    """A section as lines of text."""
    lines = [title]
    for one in findings:
        mark = "" if one.level == "ok" else f"{one.level.upper()}: "
        first = f"  {one.about:<15} "
        lines.append(_wrapped(f"{mark}{one.text}", first, " " * len(first)))
        if one.advice:
            lines.append(_wrapped(one.advice, " " * len(first) + "-> ", " " * (len(first) + 3)))
    return "\n".join(lines)


def verdict(findings: "Iterable[Finding]") -> str:
    """One line: whether a run can begin."""
    levels = [finding.level for finding in findings]
    problems, warnings = levels.count("problem"), levels.count("warning")
    counted = (
        f"{problems} problem{'s' * (problems != 1)}, {warnings} warning{'s' * (warnings != 1)}"
    )
    if problems:
        return f"doctor: {counted}. A run would stop: what to do stands below each (->)."
    return f"doctor: {counted}. Nothing here would stop a run."


def _wrapped(text: str, first: str, others: str) -> str:
    return fill(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


if __name__ == "__main__":
    typer.run(main)
