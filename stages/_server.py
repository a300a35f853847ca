"""A server that a command runs on this machine: started, awaited, and ended with the command."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from stages._progress import say

HOST = "127.0.0.1"
_DIRECT = build_opener(ProxyHandler({}))  # this machine is behind no proxy of itself
START_SECONDS = 180.0
STOP_SECONDS = 30.0
REST_SECONDS = 2.0  # for what it started, once it has ended itself


def check_free(port: int) -> None:
    """Raise `UserError` unless a server can be started on the port."""
    from pipeline.errors import UserError

    try:
        if not 0 < port < 2**16:
            raise OSError("ports are numbers from 1 to 65535")
        socket.create_server((HOST, port)).close()
    except OSError as error:
        raise UserError(
            f"Port {port} cannot be used ({error}). Choose another one with --port."
        ) from None


@contextmanager
def until_stopped() -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal end the block, and are no mistake."""
    # Also where a script started this with Ctrl-C ignored.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        say("Stopped.")


@contextmanager
def serving(
    command: Sequence[str], port: int, log: Path, environment: Mapping[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    """A server, one of `python -m mlflow`, that answers on its port; it ends with the block.

    `command`: what stands behind `python -m mlflow`. `environment`: what is added to this
    process's. Its output goes to `log`. Raises `UserError` if the server does not come up.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    # MLflow starts others by their names, which lie beside this interpreter.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command, "--host", HOST, "--port", str(port)],
            stdout=output,
            stderr=output,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "PATH": path, **environment},
            start_new_session=True,  # its processes are ended together
        )
        try:
            _wait_for(server, port, log)
            yield server
        finally:
            _end(server)


def wait(server: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until the server ends; raises `UserError` if that was of itself, and an error."""
    if server.wait():
        raise _failed(log)


def _wait_for(server: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            _DIRECT.open(f"http://{HOST}:{port}/health", timeout=1).close()
            return
        except (URLError, OSError):
            time.sleep(0.3)
    raise _failed(log)


def _end(server: "subprocess.Popen[bytes]") -> None:
    """End the server and whatever it started: in peace, then by force."""
    try:
        _signal(server, signal.SIGTERM)
        server.wait(STOP_SECONDS)
        until = time.monotonic() + REST_SECONDS
        while _signal(server, 0) and time.monotonic() < until:
            time.sleep(0.05)
    except subprocess.TimeoutExpired:
        pass
    finally:  # a second Ctrl-C comes here at once
        _signal(server, signal.SIGKILL)
        server.wait()


def _signal(server: "subprocess.Popen[bytes]", number: int) -> bool:
    """Send a signal to all processes of the server; whether there are any."""
    try:
        os.killpg(server.pid, number)
    except (ProcessLookupError, PermissionError):  # macOS forbids it where all have ended
        return False
    return True


def _failed(log: Path) -> Exception:
    from pipeline.errors import UserError

    return UserError(f"The MLflow server is not running. {log} says why.")
