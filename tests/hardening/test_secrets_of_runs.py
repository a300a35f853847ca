"""Passwords and tokens appear nowhere: not on the screen, not in a file that a run leaves."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from canaries import CANARIES, spilled_in, spilled_in_text
from stage_project import call

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")


def test_a_whole_run_leaves_no_secret(undisturbed):
    assert spilled_in(undisturbed.parent) == []


@pytest.fixture
def secrets(monkeypatch):
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")


class Refusing(BaseHTTPRequestHandler):
    """A server that is well, and refuses every question with the question itself."""

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        login = self.headers.get("Authorization", "")
        body = b"OK" if self.path == "/health" else f"{self.path} {login}".encode()
        self.send_response(200 if self.path == "/health" else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def server():
    """The port of a server that refuses."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as served:
        thread = threading.Thread(target=served.serve_forever, daemon=True)
        thread.start()
        yield served.server_address[1]
        served.shutdown()
        thread.join()


LOGIN = "someone:canary-userinfo"
STORES = {
    "a server that refuses": f"http://{LOGIN}@127.0.0.1:PORT",
    "no server": f"http://{LOGIN}@127.0.0.1:9",
    "no port": f"http://{LOGIN}@127.0.0.1:port",
    "no database server": f"postgresql://{LOGIN}@127.0.0.1:9/mlflow",
    "an unknown kind of database": f"oracel://{LOGIN}@127.0.0.1/mlflow",
    "no address at all": f"postgresql:/{LOGIN}@/",
    "a password among options": "postgresql://127.0.0.1:9/mlflow?password=canary-userinfo",
}


@pytest.mark.parametrize("store", STORES)
def test_a_store_that_fails_tells_no_secret(store, server, project, secrets, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", STORES[store].replace("PORT", str(server)))
    # Rows for methods are written by the report alone.
    code, said = call("report" if store == "a server that refuses" else "vectors", capfd)
    assert code in (0, 2)
    assert spilled_in_text(said) == []
    assert spilled_in(project.parent) == []
    assert "Traceback" not in said


def test_a_stage_that_fails_tells_no_secret(project, secrets, capfd):
    (project / "artifacts" / "ci" / "experts" / "seed-0" / "dtd.safetensors").unlink()
    code, said = call("vectors", capfd)
    assert code == 2 and "dtd.safetensors is missing" in said
    assert spilled_in_text(said) == []
    assert spilled_in(project.parent) == []
