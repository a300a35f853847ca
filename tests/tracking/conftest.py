"""Project folders with drawn artifacts, and a store of their own."""

import shutil
from pathlib import Path

import pytest
from tracking_project import Project, make_project


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "DVC_ROOT", "DVC_STAGE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def bare(tmp_path: Path) -> Project:
    """The artifacts of one seed; nothing was tracked so far."""
    return make_project(tmp_path)


@pytest.fixture
def project(bare: Project, empty_store: Path) -> Project:
    """The same with an empty store."""
    shutil.copy(empty_store, bare.root / "mlflow.db")
    return bare
