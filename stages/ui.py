"""Show what MLflow recorded: writes rows that are missing, then serves its pages on this machine.

adamerge ui
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated
from urllib.error import URLError
from urllib.request import urlopen

import typer

from stages._progress import say
from stages._stage import user_errors

HOST = "127.0.0.1"
START_SECONDS = 180.0
STOP_SECONDS = 30.0


def main(port: Annotated[int, typer.Option(help="Port of MLflow's pages.")] = 5000) -> None:
    """Open MLflow on this machine with every method's results."""
    with user_errors():
        from pipeline.tracking import shown_uri, tracking_uri

        root, uri = Path.cwd(), tracking_uri(Path.cwd())
        shared = uri.startswith(("http://", "https://"))
        if not shared:
            _check_free(port)
        pages = _write_rows(root)
        if shared:
            _print_pages(shown_uri(root).rstrip("/"), pages)
            return
        log = root / ".cache" / "mlflow-server.log"
        # Both end the server too, also where a script started this with Ctrl-C ignored.
        for stop in (signal.SIGINT, signal.SIGTERM):
            signal.signal(stop, signal.default_int_handler)
        try:
            with serving(uri, port, log) as server:
                _print_pages(f"http://{HOST}:{port}", pages)
                say("Press Ctrl-C to stop.")
                if server.wait():
                    raise _failed(log)
        except KeyboardInterrupt:
            say("Stopped.")


@contextmanager
def serving(uri: str, port: int, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """An MLflow server of the store `uri` that answers; it ends with the block.

    Raises `UserError` if the server does not come up.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    address = ["--host", HOST, "--port", str(port), "--workers", "1"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, *address],
            stdout=output,
            stderr=output,
            env={**os.environ, **quiet},
        )
        try:
            _wait_for(server, port, log)
            yield server
        finally:
            server.terminate()
            try:
                server.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _write_rows(root: Path) -> dict[str, str]:
    """Profile -> its comparison page, of the profiles that have results."""
    from pipeline.config import load_config
    from pipeline.errors import UserError
    from pipeline.layout import Layout
    from pipeline.tracking import compare_url, track

    pages = {}
    for path in sorted((root / "profiles").glob("*.yaml")):
        layout = Layout(root, path.stem)
        if not (layout.metric("clean").exists() and layout.artifacts.is_dir()):
            continue
        try:
            rows = track(load_config(root, path.stem), layout)
        except UserError as error:
            typer.echo(f"Warning: the rows of {path.stem} are not up to date. {error}", err=True)
            continue
        pages[path.stem] = compare_url(rows)
    return pages


def _print_pages(server: str, pages: dict[str, str]) -> None:
    say(f"MLflow: {server}")
    for profile, page in pages.items():
        say(f"Compare the methods of {profile}: {server}{page}")
    if not pages:
        say("No results yet: run 'make repro' first.")


def _check_free(port: int) -> None:
    from pipeline.errors import UserError

    try:
        socket.create_server((HOST, port)).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"Port {port} cannot be used ({error}). Choose another one with --port."
        ) from None


def _wait_for(server: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urlopen(f"http://{HOST}:{port}/health", timeout=1).close()
            return
        except (URLError, OSError):
            time.sleep(0.3)
    raise _failed(log)


def _failed(log: Path) -> Exception:
    from pipeline.errors import UserError

    return UserError(f"The MLflow server is not running. {log} says why.")


if __name__ == "__main__":
    typer.run(main)
