"""The doctor: what it says of a machine, a project and a profile, against what is really there."""

import json
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
import torch
import yaml
from loopback_hub import UNAVAILABLE, LoopbackHub
from published_suite import IMAGES, PRETRAINED, add_images, add_models, expert_of, small_catalog
from published_suite import profile as published_profile
from tiny import ROOT

from pipeline.config import load_config
from pipeline.health import costs, downloads, environment, machine, places
from pipeline.layout import Layout
from stages import doctor
from stages._stage import machine_facts

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")


def diagnosed(root, *words, **variables):
    """Exit code, section -> {what: (level, text)} and all that is printed, of `doctor --json`."""
    done = subprocess.run(
        [sys.executable, "-m", "stages.doctor", "--json", *words],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
    )
    page = json.loads(done.stdout)
    rows = {
        title: {one["about"]: (one["level"], one["text"]) for one in section}
        for title, section in page.items()
    }
    return done.returncode, rows, done.stdout + done.stderr


def levels(findings):
    return {finding.about: finding.level for finding in findings}


def test_what_it_says_of_a_small_project(root):
    shutil.copy(ROOT / "pyproject.toml", root)
    code, page, _ = diagnosed(root)
    assert list(page) == ["Versions", "Machine", "Folders", "Project", "Profile ci"]
    versions = {about: text for about, (_, text) in page["Versions"].items()}
    for package in ("torch", "open_clip_torch", "dvc", "mlflow"):
        assert versions[package] == metadata.version(package)
    assert platform.python_version() in versions["Python"]
    assert f"numpy {metadata.version('numpy')}" in versions["others"]
    if not torch.cuda.is_available():
        assert page["Machine"]["GPU"][1].startswith("none; torch computes on the processor")
    assert f"{os.cpu_count()} cores" in page["Machine"]["processor"][1]
    # Neither git nor DVC knows this folder; the second would stop a run.
    assert page["Project"]["git"][0] == "warning" and page["Project"]["DVC"][0] == "problem"
    assert page["Project"]["MLflow"][0] == "ok" and code == 2
    assert page["Profile ci"]["images"] == (
        "ok",
        f"{2 * (16 + 10 + 8 + 12)} of 2 tasks for 1 seed(s)",
    )
    assert page["Profile ci"]["time"][1].startswith("not known: no run")
    assert page["Profile ci"]["checkpoint"][0] == "ok"


def counted(path):
    return len(np.load(path))


def test_the_weights_of_a_profile_are_as_large_as_it_says(project):
    config, layout = load_config(project), Layout(project, "ci")
    folders = [layout.artifacts / name for name in ("experts", "vectors", "merged")]
    files = [file for folder in folders for file in folder.rglob("*.safetensors")]
    written = sum(file.stat().st_size for file in files)
    tower, side = costs.model_of(config)
    headers = 5000 * len(files)
    assert side == 32 and written - headers < costs.weight_files(config) * tower < written
    [images] = [one for one in costs.amounts(config, layout) if one.about == "images"]
    stored = layout.artifacts.rglob("images.npy")
    assert images.text == f"{sum(map(counted, stored))} of 2 tasks for 1 seed(s)"


def test_a_disk_without_room_is_a_problem(project, monkeypatch):
    config, layout = load_config(project), Layout(project, "new")
    full = shutil._ntuple_diskusage(10**9, 10**9, 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: full)
    assert levels(costs.amounts(config, layout))["room"] == "problem"
    # What is there already needs no room.
    assert levels(costs.amounts(config, Layout(project, "ci")))["room"] == "ok"


def test_time_is_that_of_the_last_runs_on_this_machine(project):
    layout, facts = Layout(project, "ci"), machine_facts("cpu")
    names = ["fetch", "learn", "merge"]
    seconds = [json.loads(layout.run(name).read_text())["seconds"] for name in names[1:]]
    [said] = costs.recorded_time(layout, names, facts)
    minutes, rest = divmod(round(sum(seconds)), 60)
    assert said.text == (
        f"{minutes} min {rest:02d} s for 2 stages as they last ran here; not known: fetch"
    )
    [said] = costs.recorded_time(layout, names, facts | {"cpu": "Another"})
    assert said.text.startswith("not known")
    layout.run("learn").write_text("[]")
    layout.run("merge").write_text("{")
    [said] = costs.recorded_time(layout, names, facts)
    assert said.text.startswith("not known")


@pytest.mark.parametrize("protocol, share", [("transductive", 1.0), ("inductive", 0.5)])
def test_images_of_a_published_suite(tmp_path, monkeypatch, protocol, share):
    small_catalog(monkeypatch)
    changes = {"protocol": protocol, "seeds": [0, 1], "tasks": ["cars", "dtd"]}
    data = {"adapt": 0.2, "select": 0.1, "eval": 0.2}
    config = published(tmp_path, **changes, data=data)
    assert costs.images(config) == (2 * 2 * round(IMAGES * share), [])
    tower, side = costs.model_of(config)
    assert side == 224 and tower == 4 * 87_849_216  # of CLIP ViT-B/32's image tower


def published(root, **changes):
    """A profile of a published suite in the folder `root`."""
    (root / "profiles").mkdir()
    text = yaml.safe_dump(published_profile(**changes))
    (root / "profiles" / "x.yaml").write_text(text, encoding="utf-8")
    (root / "params.yaml").write_text("profile: x\ndevice: cpu\n")
    return load_config(root)


def test_downloads_are_counted_and_nothing_is_downloaded(tmp_path, monkeypatch):
    small_catalog(monkeypatch)
    config = published(tmp_path, tasks=["cars", "dtd"])
    with LoopbackHub() as hub:
        add_models(hub, ["cars", "dtd"])
        add_images(hub, ["cars", "dtd"])
        hub.attach(tmp_path / "home", monkeypatch)
        said = downloads.asked(config.root, "x")
        assert said["missing"] == said["size"] > 0
        # Of each model its weights and what stands beside them, of each data set a file or more.
        assert said["files"] >= len([PRETRAINED, expert_of("cars"), expert_of("dtd")]) + 2
        assert not list((tmp_path / "home").rglob("*.safetensors"))
        monkeypatch.setattr("pipeline.hub.failures.WAITS", ())
        hub.fail("*", UNAVAILABLE, times=100)
        said = downloads.asked(config.root, "x")
        assert said["silent"] and "out of order" in said["error"]


def test_downloads_offline_are_not_known(tmp_path, monkeypatch):
    config = published(tmp_path, tasks=["cars", "dtd"])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    [said] = downloads.downloads(config)
    assert said.level == "warning" and said.text.startswith("not known: HF_HUB_OFFLINE is set")


def test_requirements_that_are_not_met(tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "x"\nrequires-python = ">=99"\n'
        'dependencies = ["torch>=99", "numpy>=1", "no_such_package>=1"]\n'
        'optional-dependencies.demo = ["no_such_demo>=6", "numpy"]\n'
    )
    found = {one.about: one for one in environment.versions(tmp_path)}
    assert levels(found.values()) == {
        **{"adamerge": "ok", "Python": "problem", "torch": "problem"},
        **{"no_such_package": "problem", "others": "ok", "[demo]": "ok"},
    }
    assert found["torch"].text == f"{metadata.version('torch')}, but >=99 is needed"
    assert found["[demo]"].text == "optional, without no_such_demo"


def test_a_gpu_that_is_asked_for_or_there(monkeypatch):
    card = {"name": "H200", "free": 140e9, "total": 150e9, "bfloat16": True}
    answer = {"cuda": "13.2", "threads": 2, "devices": [card]}
    monkeypatch.setattr(machine, "probe", lambda *words, **options: answer)
    [said] = machine.devices("cuda")
    assert said.text == "H200, 150.0 GB, 140.0 GB free, bfloat16, CUDA 13.2" and said.level == "ok"
    answer["devices"] = []
    [said] = machine.devices("cuda")
    assert said.level == "problem" and "'auto'" in said.advice
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/nvidia-smi")
    [said] = machine.devices("auto")
    assert said.level == "warning" and "built for CUDA 13.2" in said.text


def test_folders_and_what_lies_in_them(tmp_path, monkeypatch):
    (tmp_path / "full" / "deep").mkdir(parents=True)
    (tmp_path / "full" / "deep" / "file").write_bytes(bytes(3_000_000))
    os.link(tmp_path / "full" / "deep" / "file", tmp_path / "full" / "other")
    (tmp_path / "full" / "away").symlink_to(tmp_path)
    (tmp_path / "file").write_text("")
    wanted = {"one": tmp_path / "full", "two": tmp_path / "new" / "new", "three": tmp_path / "file"}
    found = {one.about: one for one in places.folders(wanted)}
    assert found["one"].text == f"3.0 MB in {tmp_path / 'full'}"
    assert found["two"].level == "ok" and "not there yet" in found["two"].text
    assert found["three"].level == "problem" and "Move" in found["three"].advice
    assert found["free disk"].text.endswith("GB for one, two, three")
    monkeypatch.setattr("os.access", lambda *words: False)
    assert levels(places.folders(wanted))["one"] == "problem"


def test_lines_for_people_fit_their_width(root):
    page = doctor.shown("Title", [places.Finding("about", "word " * 60, "warning", "do " * 60)])
    lines = page.splitlines()
    assert max(map(len, lines)) <= doctor.WIDTH and lines[1].startswith("  about")
    assert "WARNING: word" in lines[1] and sum("-> do" in line for line in lines) == 1
