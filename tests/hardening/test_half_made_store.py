"""A run that is killed while MLflow makes its tables does not stand in the way of the next."""

import pytest
from stage_project import write_project

from pipeline.config import load_config
from pipeline.tracking.store import open_store

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")


class Killed(BaseException):
    """As by signal 9: nobody catches it."""


def test_tables_that_were_half_made(tmp_path, monkeypatch):
    write_project(tmp_path)
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    config = load_config(tmp_path)

    def die(*_):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("mlflow.store.db.utils._upgrade_db", die)  # some tables are there by then
        open_store(config)
    assert not (tmp_path / "mlflow.db").exists()
    first = open_store(config)
    assert open_store(config).parent_id == first.parent_id
    assert (tmp_path / "mlflow.db").is_file()
