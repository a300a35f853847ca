"""What a check finds, and what must not be repeated of it."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import unquote

from pipeline.errors import UserError

Level = Literal["ok", "warning", "problem"]

SECRET_NAMES = re.compile(
    r"TOKEN(?!IZER)|SECRET|PASS|CREDENTIAL|AUTH(?!OR)|COOKIE|CONNECTION_STRING|(^|_)KEY(_|$)", re.I
)
SHORTEST_SECRET = 4  # of shorter values too many words would be hidden
HIDDEN = "***"
_LOGIN = re.compile(r"(?<=://)[^\s'\"]*@")
_SCHEME_LOGIN = re.compile(r"([\w+.-]*)://([^\s'\"]*)@")
_QUERY = re.compile(r"(\w://[^\s'\"?#]*)[?#][^\s'\"]*")


@dataclass(frozen=True)
class Finding:
    """One line of a doctor's page."""

    about: str  # what was looked at, in a word or two
    text: str
    level: Level = "ok"  # a problem would stop a run
    advice: str = ""  # what to do about it


def examine(about: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """All that `check` finds; where it fails itself, that is the last finding."""
    found: list[Finding] = []
    try:
        found.extend(check())
    except UserError as error:
        what, _, advice = str(error).partition(". ")
        found.append(Finding(about, what.rstrip("."), "problem", advice))
    except ImportError as error:
        found.append(Finding(about, f"not looked at: {error}", "problem", "Run 'make venv'."))
    except Exception as error:
        said = f"not looked at ({type(error).__name__}: {' '.join(str(error).split())})"
        found.append(Finding(about, said, "warning", "Say so in a bug report."))
    return found


def discreet(findings: Iterable[Finding], environment: Mapping[str, str]) -> Iterator[Finding]:
    """The findings as they may be published: no logins, tokens or passwords, home as `~`.

    `environment`: variables whose values are secret if their names say so, and whose addresses may
    hold a login.
    """
    secrets = sorted(_secrets(environment), key=len, reverse=True)
    for finding in findings:
        text, advice = (_clean(part, secrets) for part in (finding.text, finding.advice))
        yield replace(finding, text=text, advice=advice)


def _secrets(environment: Mapping[str, str]) -> set[str]:
    found = {value for name, value in environment.items() if SECRET_NAMES.search(name)}
    logins = (login for value in environment.values() for login in _SCHEME_LOGIN.findall(value))
    for scheme, login in logins:
        user, _, password = login.partition(":")
        # A parser takes a slash for the end of an address, and may complain of the piece before it.
        # Of a web address a bare name may be a token; of a database it is only a name.
        secret = password or (user if scheme in ("http", "https") else "")
        found |= {secret, *secret.split("/")}
    found |= {unquote(secret) for secret in found}
    return {secret for secret in found if len(secret) >= SHORTEST_SECRET}


def _clean(text: str, secrets: Iterable[str]) -> str:
    text = _QUERY.sub(r"\1", _LOGIN.sub("", text))
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    home = os.path.expanduser("~")
    return re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text) if len(home) > 1 else text
