"""A project of four tasks with experts and task vectors, ready for the stage `generalization`."""

import importlib
import shutil
from pathlib import Path

import pytest
from four_tasks import TASKS, write_profile
from stage_project import enter, write_project

from pipeline.config import load_config
from pipeline.files import write_json
from pipeline.layout import Layout
from pipeline.tasks.words import write_words
from stages._drawing import draw_task


@pytest.fixture(scope="session")
def with_vectors(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """Everything that the stage reads, and what it wrote."""
    folder = tmp_path_factory.mktemp("unseen")
    write_project(folder)
    write_profile(folder)
    config, layout = load_config(folder), Layout(folder, "ci")
    layout.pretrained.parent.mkdir(parents=True)
    shutil.copy(folder / config.profile.checkpoint.path, layout.pretrained)
    for seed in config.profile.seeds:
        for task in TASKS:
            draw_task(layout, config.profile.data.sizes, seed, task)
    write_words(layout.tasks, [config.task(name) for name in TASKS])
    write_json(layout.sources, {})
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, empty_store, patch)
        for stage in ("experts", "vectors", "generalization"):
            importlib.import_module(f"stages.{stage}").main()
    return folder


@pytest.fixture
def four(
    with_vectors: Path, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of it to spoil, as the current folder."""
    folder = tmp_path / "project"
    shutil.copytree(with_vectors, folder)
    enter(folder, empty_store, monkeypatch)
    return folder
