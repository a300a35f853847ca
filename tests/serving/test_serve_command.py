"""`adamerge serve` as a user runs it: over HTTP, with MLflow's own server."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image
from small_export import plain_probabilities
from stage_project import TASKS, refused
from tiny import ROOT
from tutorial import code_blocks

from pipeline.exported import read_labels
from pipeline.serving import request_for

# Of MLflow's own queries, with SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")
PAGE = ROOT / "docs" / "serving.md"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return held.getsockname()[1]


def ask(address: str, request: dict[str, Any]) -> Any:
    """(status, answer) of the server."""
    body, kind = json.dumps(request).encode(), {"Content-Type": "application/json"}
    try:
        with urlopen(Request(address, body, kind), timeout=60) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


def drawn(project: Path, task: str) -> list[Image.Image]:
    """The first test images of a task."""
    pixels = np.load(project / f"artifacts/ci/data/seed-0/{task}/eval/images.npy")
    return [Image.fromarray(one.transpose(1, 2, 0)) for one in pixels[:4]]


def png(image: Image.Image, folder: Path) -> bytes:
    path = folder / "image.png"
    image.save(path)
    return path.read_bytes()


def check_examples(address: str, said: str, photo: Image.Image, folder: Path) -> None:
    """What the command prints and what the page shows both get the server's answer."""
    (folder / "photo.png").write_bytes(png(photo, folder))
    _, answer = ask(address, request_for([png(photo, folder)], "cars", 3))
    if shutil.which("curl"):
        [printed] = re.findall(r"^  \(echo.*\n.*\n.*invocations$", said, re.MULTILINE)
        assert json.loads(output_of(["bash", "-c", printed], folder)) == answer
    [code] = [code for language, code in code_blocks(PAGE) if "urlopen" in code]
    code = code.replace("http://127.0.0.1:5001/invocations", address)
    [guesses] = answer["predictions"]
    expected = [f"{one['probability']:.1%} {one['class']}" for one in guesses]
    assert output_of([sys.executable, "-c", code], folder).splitlines() == expected


def output_of(command: list[str], folder: Path) -> str:
    return subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True).stdout


@pytest.mark.slow
def test_serves_a_profiles_model_over_http(project: Path, tmp_path: Path):
    port = free_port()
    command = [sys.executable, "-m", "stages.serve", "--port", str(port)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    here = {"cwd": project, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}
    server = subprocess.Popen(command, **pipes, **here)
    try:
        said = []
        for line in server.stdout or ():
            said.append(line)
            if "Press Ctrl-C" in line:
                break
        address = f"http://127.0.0.1:{port}/invocations"
        assert f"serve: {address} answers. Tasks: cars, dtd, any.\n" in said
        [export] = (project / ".cache").glob("serve-*/model")

        for task in TASKS:
            images = drawn(project, task)
            request = request_for([png(one, tmp_path) for one in images], task, 99)
            status, answer = ask(address, request)
            assert status == 200
            expected = plain_probabilities(export, images, task).tolist()
            words = read_labels(export)[task].classes
            for row, guesses in zip(expected, answer["predictions"], strict=True):
                found = {one["class"]: one["probability"] for one in guesses}
                assert [found[word] for word in words] == pytest.approx(row, abs=1e-5)

        check_examples(address, "".join(said), drawn(project, "cars")[0], tmp_path)
        status, answer = ask(address, request_for([b"no image"], "cars"))
        assert (status, answer["message"].split(" (")[0]) == (
            400,
            "Image 0 is no image of a known format",
        )
        assert "stack_trace" not in answer
        assert ask(address, request_for([b""], "dogs"))[0] == 400

        second = subprocess.run(command, capture_output=True, timeout=60, check=False, **here)
        assert second.returncode == 2
        assert second.stderr.startswith(b"Error: Port %d cannot be used" % port)
    finally:
        server.send_signal(signal.SIGINT)
        output, error = server.communicate(timeout=120)
    assert (server.returncode, error, output) == (0, "", "Stopped.\n")
    assert not export.exists()
    with pytest.raises(OSError, match="refused"):
        urlopen(address, timeout=5)


def test_options_that_contradict_each_other(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    said = refused("serve", capsys, model=tmp_path, method="ties", port=free_port())
    assert "leave out --profile, --method and --seed" in said
    said = refused("serve", capsys, model=tmp_path, port=free_port())
    assert "no folder that 'adamerge export' wrote" in said
    assert list(tmp_path.iterdir()) == []


def test_before_there_is_a_model(root: Path, capsys):
    said = refused("serve", capsys, port=free_port())
    assert "is missing" in said and "python -m stages." in said
    assert list((root / ".cache").iterdir()) == []


def test_a_folder_that_cannot_be_written_to(root: Path, capsys):
    (root / ".cache").touch()
    said = refused("serve", capsys, port=free_port())
    assert f"Cannot write to {root / '.cache'}: a file lies where its folder should be" in said


def test_a_used_port_is_refused_before_anything_is_read(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # no project
    with socket.create_server(("127.0.0.1", 0)) as held:
        said = refused("serve", capsys, port=held.getsockname()[1])
    assert "Choose another one with --port" in said
    assert "from 1 to 65535" in refused("serve", capsys, port=99999)


@pytest.mark.slow
def test_a_server_that_does_not_come_up_is_said(tmp_path: Path):
    from pipeline.errors import UserError
    from stages._server import serving

    command = ["models", "serve", "--model-uri", str(tmp_path), "--env-manager", "local"]
    log = tmp_path / "logs" / "server.log"
    with pytest.raises(UserError, match=f"{log} says why"), serving(command, free_port(), log, {}):
        pass
    assert "MLmodel" in log.read_text()
