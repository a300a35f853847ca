"""requirements.lock: complete, hashed, and within the ranges of pyproject.toml."""

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# What the file is made for, whatever runs the tests.
TARGET = {
    "implementation_name": "cpython",
    "implementation_version": "3.11.9",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": "3.11.9",
    "python_version": "3.11",
    "sys_platform": "linux",
}


def locked() -> dict[str, Version]:
    """Name -> version of every line that pins one."""
    found = re.findall(r"(?m)^([\w.-]+)==(\S+) \\$", LOCK)
    return {canonicalize_name(name): Version(number) for name, number in found}


def asked() -> list[Requirement]:
    """What pyproject.toml asks for, tools for tests included."""
    return [
        Requirement(line)
        for line in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    ]


def needed_by(name: str, extras: frozenset[str]) -> Iterator[Requirement]:
    """What an installed package needs on the lock file's system, with these extras."""
    for line in requires(name) or []:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({**TARGET, "extra": e}) for e in {"", *extras}):
            yield requirement


def reached() -> Iterator[tuple[str, Requirement]]:
    """(whose, what): every requirement that can be read here, from pyproject.toml on.

    A package's requirements are those of the version that is installed: they count if it is the
    pinned one.
    """
    pins = locked()
    pending = [("pyproject.toml", requirement) for requirement in asked()]
    seen = set()
    while pending:
        whose, requirement = pending.pop()
        yield whose, requirement
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen or not installed_as_pinned(name, pins):
            continue
        seen.add((name, extras))
        pending += [(name, further) for further in needed_by(name, extras)]


def installed_as_pinned(name: str, pins: dict[str, Version]) -> bool:
    try:
        # A build's own label, as in 2.15.0+cu132, is no part of the pin.
        return Version(Version(version(name)).public) == pins.get(name)
    except PackageNotFoundError:
        return False


def test_every_line_is_a_pin_a_hash_or_a_comment():
    line = re.compile(r"#.*|[\w.-]+==\S+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?| +# .*")
    assert [text for text in LOCK.splitlines() if not line.fullmatch(text)] == []
    assert "://" not in LOCK


def test_every_pin_has_a_hash():
    hashes = re.findall(r"(?m)^[\w.-]+==\S+ \\\n    --hash=sha256:", LOCK)
    assert len(hashes) == len(locked()) > 100


@pytest.mark.parametrize("requirement", asked(), ids=str)
def test_pins_are_within_the_ranges_of_the_project(requirement: Requirement):
    assert requirement.specifier.contains(locked()[canonicalize_name(requirement.name)])


def test_pins_are_compatible_and_complete():
    pins, wrong = locked(), []
    found = list(reached())
    for whose, requirement in found:
        pin = pins.get(canonicalize_name(requirement.name))
        if pin is None or not requirement.specifier.contains(pin, prereleases=True):
            wrong.append(f"{whose} needs {requirement}, pinned is {pin}")
    assert wrong == [], "make lock"
    assert len({whose for whose, _ in found}) > 20  # packages' own requirements were read


def test_nothing_is_pinned_that_nobody_needs():
    pins = locked()
    if not all(installed_as_pinned(name, pins) for name in pins):
        pytest.skip("other versions are installed than the pinned ones: make venv LOCKED=1")
    assert pins.keys() == {canonicalize_name(requirement.name) for _, requirement in reached()}
