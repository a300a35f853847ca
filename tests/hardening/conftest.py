"""A project in which all nine stages ran undisturbed, with secrets in the environment."""

import importlib
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from canaries import CANARIES
from dvc_project import dvc, write_dvc_project
from stage_project import STAGES, enter


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A DVC project after one run in this process, committed to DVC's cache. Not to be changed.

    Beside it lie MLflow's store and the file `said`: all that the run printed.
    """
    folder = tmp_path_factory.mktemp("undisturbed") / "project"
    write_dvc_project(folder)
    with (
        pytest.MonkeyPatch.context() as patch,
        (folder.parent / "said").open("w", encoding="utf-8") as said,
        redirect_stdout(said),
        redirect_stderr(said),
    ):
        enter(folder, empty_store, patch)
        for name, value in CANARIES.items():
            patch.setenv(name, value)
        for stage in STAGES:
            importlib.import_module(f"stages.{stage}").main()
        done = dvc(folder, "commit", "--force")
        said.write(done.stdout + done.stderr)
    assert done.returncode == 0, done.stderr
    return folder
