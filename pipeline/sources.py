"""Which source files a result depends on: the modules it imports, and theirs, read off the text.

Two things rest on it: entries of the cache are keyed by the code that made them, and a test holds
the `deps` of dvc.yaml against it, so that editing a figure never retrains a model and editing a
model never leaves an old figure.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("pipeline", "stages")
# These check and record, and cannot change a result beyond the parameters that DVC tracks.
NEUTRAL = ("pipeline.config", "pipeline.errors", "pipeline.tracking", "stages._stage")


DATA = (".yaml", ".html", ".css")  # files of a package that its modules read


@cache
def closure(module: str) -> tuple[Path, ...]:
    """Files of `module` and of all project modules it imports, sorted, relative to the root.

    A package that imports by name counts as a whole where it is asked for itself, not where only
    one of its modules is.
    """
    found: set[Path] = set()
    waiting, seen = [(module, True)], set()
    while waiting:
        name, asked_for = waiting.pop()
        path = _file(name)
        if path is None or (name, asked_for) in seen or name.startswith(NEUTRAL):
            continue
        seen.add((name, asked_for))
        found.add(path)
        found.update(file for file in path.parent.iterdir() if file.suffix in DATA)
        waiting += [(found_name, True) for found_name in _imports(path, whole=asked_for)]
        if "." in name:
            waiting.append((name.rpartition(".")[0], False))  # a parent's __init__ runs as well
    return tuple(sorted(path.relative_to(ROOT) for path in found))


def fingerprint(module: str) -> str:
    """SHA-256 over the names and texts of the closure of `module`."""
    digest = hashlib.sha256()
    for path in closure(module):
        digest.update(f"{path}\n".encode() + (ROOT / path).read_bytes())
    return digest.hexdigest()


def _file(name: str) -> Path | None:
    path = ROOT.joinpath(*name.split("."))
    if (package := path / "__init__.py").is_file():
        return package
    return path.with_suffix(".py") if path.with_suffix(".py").is_file() else None


def _imports(path: Path, whole: bool) -> list[str]:
    """Project modules that a file names outside of `if TYPE_CHECKING`.

    `whole`: a package that imports by name counts with all its modules.
    """
    names = []
    for node in _run_time(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    if whole and path.name == "__init__.py" and any(name.startswith("importlib") for name in names):
        files = (file.relative_to(ROOT).with_suffix("") for file in path.parent.rglob("*.py"))
        names += [".".join(file.parts).removesuffix(".__init__") for file in files]
    return [name for name in names if name.split(".")[0] in PACKAGES]


def _run_time(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below `node`, leaving out what only type checkers see."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and getattr(child.test, "id", "") == "TYPE_CHECKING":
            continue
        yield child
        yield from _run_time(child)
