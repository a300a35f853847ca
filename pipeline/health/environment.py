"""Python and the packages that pyproject.toml asks for. Nothing is imported to look at it."""

import os
import platform
import re
import shutil
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from pipeline import __version__
from pipeline.health.findings import Finding, Level

INSTALL = "Run 'make venv', or 'python -m pip install --editable .'."
NEEDED = {"dvc": INSTALL, "git": "Install git: experiments and records of commits need it."}
FIRST = ("torch", "open_clip_torch", "dvc", "mlflow")  # what bug reports are mostly about


def versions(root: Path) -> Iterator[Finding]:
    """This project, Python, and every package that the project needs or can use."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    yield Finding("adamerge", f"{__version__}, {platform.system()} {platform.machine()}")
    yield _python(project["requires-python"])
    needed = {_name(text): text for text in project["dependencies"]}
    for name in FIRST:
        if name in needed:
            yield _package(name, needed[name])
    others = [_package(name, text) for name, text in needed.items() if name not in FIRST]
    yield from (one for one in others if one.level != "ok")
    fitting = ", ".join(f"{one.about} {one.text}" for one in others if one.level == "ok")
    yield Finding("others", fitting or "none")
    for extra, texts in project.get("optional-dependencies", {}).items():
        yield _extra(extra, texts)


def commands() -> Iterator[Finding]:
    """Programs that stages and reports are run with, as a shell would find them."""
    here = Path(sys.executable).parent
    python = shutil.which("python")
    if python is None or Path(python).parent.resolve() != here.resolve():
        used = python or "no Python at all"
        text = f"a bare 'dvc repro' would run stages with {used}, not with that of {here}"
        advice = f"Run 'source {here}/activate' first, or use 'make repro'."
        yield Finding("command python", text, "warning", advice)
    for name in ("dvc", "git"):
        found = shutil.which(name, path=search_path())
        level: Level = "ok" if found else "problem" if name == "dvc" else "warning"
        yield Finding(
            f"command {name}", found or "is not there", level, "" if found else NEEDED[name]
        )
    browser = shutil.which("chromium")
    yield Finding("chromium", browser or "absent: only tests of the report's page use it")


def search_path() -> str:
    """Where commands are looked for: beside this Python first, as `make` does."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def _python(wanted: str) -> Finding:
    found = f"{platform.python_version()} in {sys.prefix}"
    if _fits(platform.python_version(), wanted):
        return Finding("Python", found)
    advice = f"Make the environment with Python {wanted}: make venv PYTHON=..."
    return Finding("Python", found, "problem", advice)


def _package(name: str, requirement: str) -> Finding:
    wanted = requirement[len(name) :]
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(name, "is not installed", "problem", INSTALL)
    if not _fits(found, wanted):
        return Finding(name, f"{found}, but {wanted} is needed", "problem", INSTALL)
    return Finding(name, found)


def _extra(extra: str, requirements: Iterable[str]) -> Finding:
    missing = [name for text in requirements if not _installed(name := _name(text))]
    if not missing:
        return Finding(f"[{extra}]", "installed")
    advice = f"If you want it: python -m pip install --editable '.[{extra}]'"
    return Finding(f"[{extra}]", f"optional, without {', '.join(missing)}", "ok", advice)


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _name(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    return found[0] if found else requirement


def _fits(version: str, wanted: str) -> bool:
    """Whether a version is in a range such as `>=3,<4`; True where `packaging` is missing too."""
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:
        return True
    return SpecifierSet(wanted).contains(version, prereleases=True)
