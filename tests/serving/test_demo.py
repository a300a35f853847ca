"""`adamerge demo`: what the page says of an image; with gradio, the page itself."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image
from stage_project import TASKS, refused
from tiny import ROOT

from pipeline.classifier import load_merged
from pipeline.config import load_config
from pipeline.data.decoding import BrokenImage
from pipeline.layout import Layout
from stages._demo_page import Demo, open_demo

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")
TITLE = "TIES-merging, seed 0, of profile ci (inductive protocol)"


def test_without_gradio_one_sentence_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr("stages.demo.find_spec", lambda name: None)
    said = refused("demo", capsys)
    assert "pip install 'adamerge[demo]'" in said and "-e '.[demo]'" in said


def test_a_used_port_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("stages.demo.find_spec", lambda name: name)
    with socket.create_server(("127.0.0.1", 0)) as held:
        said = refused("demo", capsys, port=held.getsockname()[1])
    assert "Choose another one with --port" in said


@pytest.fixture(scope="module")
def demo(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    return open_demo(made, "ci", "ties", 0, tmp_path_factory.mktemp("examples"))


def test_the_examples_are_the_first_test_images(demo: Demo, made: Path):
    assert demo.title == TITLE
    for task, example in zip(TASKS, demo.examples, strict=True):
        stored = np.load(made / f"artifacts/ci/data/seed-0/{task}/eval/images.npy")[0]
        assert np.array_equal(np.asarray(Image.open(example)).transpose(2, 0, 1), stored)


@pytest.mark.parametrize(("share", "method"), [(0.0, "pretrained"), (1.0, "ties")])
def test_the_ends_say_what_the_models_say(demo: Demo, made: Path, share: float, method: str):
    model = load_merged(load_config(made), Layout(made, "ci"), method, 0)
    image = np.load(made / "artifacts/ci/data/seed-0/cars/eval/images.npy")[:1]
    expected = {g.word: g.probability for g in model.classify(image, "cars", 5)[0]}
    assert demo.answer(demo.examples[0], "cars", share) == pytest.approx(expected, abs=1e-6)
    expected = [g.probability for g in model.classify(image, "any", 5)[0]]
    found = demo.answer(demo.examples[0], "any", share)
    assert list(found.values()) == pytest.approx(expected, abs=1e-6)
    assert all(re.search(r" \(mini (Cars|DTD)\)$", words) for words in found)


def test_nothing_is_said_of_no_image(demo: Demo, tmp_path: Path):
    assert demo.answer(None, "cars", 1.0) == {}
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(BrokenImage, match="known format"):
        demo.answer(str(tmp_path / "broken.png"), "cars", 1.0)
    assert demo.tasks == [
        ("All tasks at once", "any"),
        ("mini Cars", "cars"),
        ("mini DTD", "dtd"),
    ]


def test_without_test_images_there_are_no_examples(project: Path, tmp_path: Path):
    for images in project.glob("artifacts/ci/data/seed-0/*/eval/images.npy"):
        images.unlink()
    assert open_demo(project, "ci", "ties", None, tmp_path).examples == ()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # gradio's
@pytest.mark.skipif(find_spec("gradio") is None, reason="gradio, the extra [demo], is not there")
def test_the_page_answers_and_asks_nobody_else(made: Path, demo: Demo):
    from gradio_client import Client, handle_file

    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "stages.demo", "--method", "ties", "--port", str(port)],
        cwd=made,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        address = f"http://127.0.0.1:{port}"
        assert server.stdout.readline() == f"demo: {address} shows {TITLE}\n"
        with urlopen(address, timeout=60) as answer:
            page = answer.read().decode()
        assert TITLE in page and "mini DTD" in page
        loaded = re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="([^"]+)"', page)
        assert loaded and not [url for url in loaded if "//" in url]
        with urlopen(f"{address}/config", timeout=60) as answer:
            assert json.load(answer)["analytics_enabled"] is False

        client, example = Client(address, verbose=False), handle_file(demo.examples[0])
        for share in (0, 0.5, 1):
            said = client.predict(example, "cars", share, api_name="/answer")
            found = {one["label"]: one["confidence"] for one in said["confidences"]}
            expected = demo.answer(demo.examples[0], "cars", share)
            assert found == pytest.approx(expected, abs=1e-5)
    finally:
        server.send_signal(signal.SIGINT)
        output, _ = server.communicate(timeout=120)
    assert server.returncode == 0 and output.endswith("Stopped.\n")
