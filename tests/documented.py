"""The Markdown pages of this repository: their blocks of code, commands, headings and links."""

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tiny import ROOT
from tutorial import code_blocks

SHELLS = ("sh", "bash", "console")
_CODE = re.compile(r"^ *(```|~~~).*?^ *\1 *$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_CONTROL = re.compile(r"[;|&()]+")
_WRITES = re.compile(r"\d?>>?")


def markdown() -> dict[str, Path]:
    """Path below the root -> file, of every page that is a part of the project."""
    folders = (ROOT, ROOT / "docs", ROOT / ".github", ROOT / "zoo", ROOT / "benchmarks")
    pages = [page for folder in folders for page in sorted(folder.glob("*.md"))]
    return {page.relative_to(ROOT).as_posix(): page for page in pages}


def with_commands() -> dict[str, Path]:
    """The pages whose commands a reader may give."""
    return {
        name: page
        for name, page in markdown().items()
        if name in ("README.md", "CONTRIBUTING.md") or name.startswith("docs/")
    }


@dataclass(frozen=True)
class Command:
    """A simple command of a page: its words, without comments and what it is redirected to."""

    page: str
    words: tuple[str, ...]
    script: bool = False  # in a file that the page shows, and not typed

    @property
    def program(self) -> str:
        """Without its folder; "" where only variables are set."""
        rest = self.words[self._leading :]
        return rest[0].removeprefix(".venv/bin/") if rest else ""

    @property
    def arguments(self) -> list[str]:
        """The words behind the program."""
        return list(self.words[self._leading + 1 :])

    @property
    def _leading(self) -> int:
        named = [bool(re.match(r"[A-Za-z_]\w*=", word)) for word in self.words]
        return [*named, False].index(False)

    def __str__(self) -> str:
        if not self.program:
            return " ".join(self.words)
        return " ".join((self.program, *self.arguments))


def commands_of(page: Path) -> list[Command]:
    """Every command in the shell blocks of a page, in order."""
    name = page.relative_to(ROOT).as_posix()
    return [
        Command(name, words, script)
        for language, code in code_blocks(page)
        if language in SHELLS
        for script in [code.startswith("#!")]
        for line in statements(code, language == "console")
        for words in simple_commands(line)
    ]


def statements(code: str, console: bool) -> list[str]:
    """Lines of a block, those put together that belong together: by a backslash or in quotes.

    Of a console, what follows a "$ "; the rest is what it printed.
    """
    found, open_lines = [], ""
    for line in code.splitlines():
        if console and not open_lines:
            if not line.startswith("$ "):
                continue
            line = line.removeprefix("$ ")
        open_lines += line
        if line.endswith("\\"):
            open_lines = open_lines[:-1]
            continue
        try:
            words = shlex.split(open_lines, comments=True)
        except ValueError:  # the quotation goes on
            open_lines += "\n"
            continue
        if words:
            found.append(open_lines)
        open_lines = ""
    assert not open_lines, f"no end: {open_lines}"
    return found


def simple_commands(line: str) -> list[tuple[str, ...]]:
    """The commands between `|`, `&&`, `;` and `&`; of `$(...)` the one that is in it."""
    lexer = shlex.shlex(line.replace("$(", "; "), posix=True, punctuation_chars=";|&()<>")
    lexer.whitespace_split, lexer.commenters = True, "#"
    commands: list[list[str]] = [[]]
    skip = False
    for word in lexer:
        if skip:
            skip = False
        elif _CONTROL.fullmatch(word):
            commands.append([])
        elif _WRITES.fullmatch(word) or word == "<":
            skip = True
        else:
            commands[-1].append(word)
    return [tuple(words) for words in commands if words]


def links_of(page: Path) -> list[str]:
    """Targets of a page's links and images outside of code."""
    prose = _CODE.sub("", page.read_text(encoding="utf-8"))
    return re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r'(?:href|src)="([^"]+)"', prose)


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings; one that comes again gets a number."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    anchors: set[str] = set()
    for heading in re.findall(r"^#+ (.+?) *$", text, re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading.lower())
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = 0
        while (name := f"{anchor}-{number}" if number else anchor) in anchors:
            number += 1
        anchors.add(name)
    return anchors


def target_of(page: Path, link: str) -> tuple[Path, str]:
    """The file that a relative link leads to, and the anchor in it."""
    path, _, anchor = link.partition("#")
    return (Path(os.path.normpath(page.parent / path)) if path else page), anchor
