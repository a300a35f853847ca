"""Show what MLflow recorded: writes rows that are missing, then serves its pages on this machine.

adamerge ui
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stages._progress import say
from stages._server import HOST, check_free, serving, until_stopped, wait
from stages._stage import user_errors

if TYPE_CHECKING:
    import subprocess

    from pipeline.tracking import Rows


def main(port: Annotated[int, typer.Option(help="Port of MLflow's pages.")] = 5000) -> None:
    """Open MLflow on this machine with every method's results."""
    with user_errors():
        from pipeline.tracking import shown_uri, tracking_uri

        root, uri = Path.cwd(), tracking_uri(Path.cwd())
        shared = uri.startswith(("http://", "https://"))
        if not shared:
            check_free(port)
        found = _write_rows(root)
        if shared:
            _print_pages(shown_uri(root).rstrip("/"), found)
            return
        log = root / ".cache" / "mlflow-server.log"
        with until_stopped(), pages(uri, port, log) as server:
            _print_pages(f"http://{HOST}:{port}", found)
            say("Press Ctrl-C to stop.")
            wait(server, log)


@contextmanager
def pages(uri: str, port: int, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """MLflow's pages of the store `uri`, served until the block ends.

    Raises `UserError` if the server does not come up.
    """
    # Not as an option: every user of the machine can read those, and the URI may hold a password.
    environment = {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with serving(["server", "--workers", "1"], port, log, environment) as server:
        yield server


def _write_rows(root: Path) -> dict[str, "Rows"]:
    """Profile -> its rows, of the profiles that have results."""
    from pipeline.config import load_config
    from pipeline.errors import UserError
    from pipeline.layout import Layout
    from pipeline.tracking import track

    found = {}
    for path in sorted((root / "profiles").glob("*.yaml")):
        layout = Layout(root, path.stem)
        if not (layout.metric("clean").exists() and layout.artifacts.is_dir()):
            continue
        try:
            found[path.stem] = track(load_config(root, path.stem), layout)
        except UserError as error:
            typer.echo(f"Warning: the rows of {path.stem} are not up to date. {error}", err=True)
    return found


def _print_pages(server: str, found: dict[str, "Rows"]) -> None:
    from pipeline.tracking import compare_url, methods_url

    say(f"MLflow: {server}")
    for rows in list(found.values())[:1]:
        say(f"All methods, best first: {server}{methods_url(rows)}")
    for profile, rows in found.items():
        say(f"Compare the methods of {profile}: {server}{compare_url(rows)}")
    if not found:
        say("No results yet: run 'make repro' first.")


if __name__ == "__main__":
    typer.run(main)
