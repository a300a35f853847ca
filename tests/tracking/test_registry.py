"""The registry entry `merged-clip`: its versions, and who may move its champion."""

import json
from typing import Any

import pytest
from tracking_project import Project

from pipeline.errors import UserError
from pipeline.files import sha256, write_json
from pipeline.tracking import promote, track

# Of MLflow's own queries, with SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")


def versions(project: Project) -> dict[str, Any]:
    """Number -> version."""
    found = project.client.search_model_versions("name = 'merged-clip'")
    return {str(version.version): version for version in found}


def change_figures(project: Project, method: str) -> None:
    clean = json.loads(project.layout.metric("clean").read_text())
    clean[method]["tasks"]["svhn"] -= 1
    write_json(project.layout.metric("clean"), clean)


def test_only_the_default_model_is_registered_and_only_once(project: Project) -> None:
    rows = track(project.config, project.layout)
    track(project.config, project.layout)
    [version] = versions(project).values()
    assert version.run_id == rows.run_ids["adamerging_layerwise", 0]
    assert version.tags["method"] == "adamerging_layerwise"
    merged = project.layout.merged(0, "adamerging_layerwise")
    assert version.tags["weights.sha256"] == sha256(merged)
    assert "[Report](#/experiments/" in version.description
    assert version.aliases == []

    change_figures(project, "experts")  # another row, but the same model
    track(project.config, project.layout)
    assert list(versions(project)) == ["1"]
    change_figures(project, "adamerging_layerwise")
    track(project.config, project.layout)
    assert sorted(versions(project)) == ["1", "2"]


def test_champion_moves_with_promote_alone(project: Project) -> None:
    track(project.config, project.layout)
    assert promote(project.config, project.layout, "adamerging_layerwise", 0) == "1"
    assert promote(project.config, project.layout, "adamerging_layerwise", 0) == "1"
    change_figures(project, "adamerging_layerwise")
    track(project.config, project.layout)
    client = project.client
    assert str(client.get_model_version_by_alias("merged-clip", "champion").version) == "1"
    assert promote(project.config, project.layout, "task_arithmetic", 0) == "3"
    champion = client.get_model_version_by_alias("merged-clip", "champion")
    assert (str(champion.version), champion.tags["method"]) == ("3", "task_arithmetic")
    assert versions(project)["1"].aliases == []


def test_what_cannot_be_promoted(project: Project) -> None:
    with pytest.raises(UserError, match=r"no row of ties|method of profile mini 'ties'"):
        promote(project.config, project.layout, "ties", 0)
    with pytest.raises(UserError, match="no seed 7"):
        promote(project.config, project.layout, "task_arithmetic", 7)
    with pytest.raises(UserError, match="experts is not one model"):
        promote(project.config, project.layout, "experts", 0)
    with pytest.raises(UserError, match=r"no row of task_arithmetic, seed 0.*'adamerge track'"):
        promote(project.config, project.layout, "task_arithmetic", 0)
    assert versions(project) == {}


def test_figures_that_were_not_tracked_are_not_promoted(project: Project) -> None:
    track(project.config, project.layout)
    change_figures(project, "adamerging_layerwise")
    with pytest.raises(UserError, match="present figures"):
        promote(project.config, project.layout, "adamerging_layerwise", 0)


def test_row_without_weights_is_not_promoted(project: Project) -> None:
    project.layout.merged(0, "task_arithmetic").unlink()
    track(project.config, project.layout)
    with pytest.raises(UserError, match="without its weights"):
        promote(project.config, project.layout, "task_arithmetic", 0)
