"""The table of methods: complete rows, written once, from the artifacts."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from safetensors.numpy import load_file
from tracking_project import METHODS, STEPS, Project, make_project

from pipeline.errors import MissingInput, UserError
from pipeline.evaluation import Predictions, accuracy
from pipeline.files import write_json, write_text
from pipeline.tracking import compare_url, track

# Of MLflow's own queries, with SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")


def test_rows_hold_every_figure(project: Project) -> None:
    rows = track(project.config, project.layout)
    assert rows.written == 5
    assert list(rows.run_ids) == [(method, 0) for method in METHODS]
    row = project.row("adamerging_layerwise")
    assert row.info.run_name == "AdaMerging (layer-wise), mini, seed 0"
    assert row.info.status == "FINISHED"
    expected = {
        "clean/avg": 61.5,
        "clean/svhn": 60.0,
        "robust/avg": 61.5,
        "robust/contrast/5": 30.0,
        "robust_adapted/pixelate/3": 45.0,
        "ece/avg": 4.2,
        "nll/avg": 1.234,
        "learn/seconds": 12.5,
        "merge/seconds": 0.5,
    }
    assert {name: row.data.metrics[name] for name in expected} == expected
    assert row.data.params["lr"] == "0.001"
    assert row.data.params["granularity"] == "layer"
    assert row.data.tags["kind"] == "method"
    assert row.data.tags["report"] == "report/mini/index.html"
    assert project.row("task_arithmetic").data.metrics["unseen/unseen_dtd"] == 50.0
    assert project.row("task_arithmetic").data.metrics["seen/avg"] == 70.0
    assert project.row("task_arithmetic").data.params == {"coefficient": "0.3"}
    assert project.row("task_arithmetic_tuned").data.tags["label_tuned"] == "true"


def test_curves_are_thinned_and_kept_whole_in_a_file(project: Project) -> None:
    track(project.config, project.layout)
    client, row = project.client, project.row("adamerging_layerwise")
    curve = client.get_metric_history(row.info.run_id, "entropy/svhn")
    assert len(curve) == 100
    assert {curve[0].step, curve[-1].step} == {0, STEPS - 1}
    for name in ("entropy/sum", "coefficient/dtd"):
        assert len(client.get_metric_history(row.info.run_id, name)) == 100
    name = "adamerging_layerwise.safetensors"
    path = client.download_artifacts(row.info.run_id, name, str(project.root))
    assert load_file(path)["history_entropy"].shape == (STEPS, 2)


def test_data_and_model_are_linked(project: Project) -> None:
    lock = {
        "stages": {
            "merge": {"outs": [{"path": "artifacts/mini/merged", "md5": "abc.dir"}]},
            "experts": {"outs": [{"path": "artifacts/mini/experts", "md5": "def.dir"}]},
        }
    }
    write_text(project.root / "dvc.lock", yaml.safe_dump(lock))
    track(project.config, project.layout)
    row = project.row("adamerging_layerwise")
    assert row.data.tags["dvc.path"] == "artifacts/mini/merged"
    assert row.data.tags["dvc.md5"] == "abc.dir"
    [model] = project.client.search_logged_models(
        [row.info.experiment_id], "name = 'mini-adamerging_layerwise-seed-0'"
    )
    assert model.tags["dvc.md5"] == "abc.dir"
    assert model.tags["weights"] == "artifacts/mini/merged/seed-0/adamerging_layerwise.safetensors"
    assert {metric.key: metric.value for metric in model.metrics}["clean/avg"] == 61.5
    assert project.row("experts").data.tags["dvc.path"] == "artifacts/mini/experts"


def test_second_track_writes_nothing(project: Project) -> None:
    first = track(project.config, project.layout)
    second = track(project.config, project.layout)
    assert second.written == 0
    assert second.run_ids == first.run_ids


def test_new_figures_make_a_new_latest_row(project: Project) -> None:
    first = track(project.config, project.layout)
    clean = json.loads(project.layout.metric("clean").read_text())
    clean["experts"]["tasks"] = {"svhn": 61.0, "dtd": 64.0}
    write_json(project.layout.metric("clean"), clean)
    second = track(project.config, project.layout)
    assert second.written == 1
    changed = ("experts", 0)
    assert {k for k in METHODS if first.run_ids[k, 0] != second.run_ids[k, 0]} == {"experts"}
    assert project.row("experts").info.run_id == second.run_ids[changed]
    assert len(project.runs("tags.kind = 'method' and tags.method = 'experts'")) == 2


def test_half_written_row_is_written_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    def disk_full(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifact", disk_full)
        with pytest.raises(UserError, match="disk full"):
            track(project.config, project.layout)
    [failed] = project.runs("attributes.status = 'FAILED'")
    rows = track(project.config, project.layout)
    assert rows.written == 3  # two were complete
    assert failed.info.run_id not in rows.run_ids.values()
    assert len(project.runs("tags.latest = 'true'")) == 5


def test_each_seed_has_a_row_of_its_own(tmp_path: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    project = make_project(tmp_path, seeds=(0, 1))
    assert track(project.config, project.layout).written == 10
    row = project.row("pretrained", seed=1)
    assert row.info.run_name == "Pretrained, mini, seed 1"
    assert row.data.metrics["clean/avg"] == 62.5
    stored = Predictions.load(project.layout.predictions(1, "pretrained", "dtd"), "evaluate")
    assert row.data.metrics["clean/dtd"] == pytest.approx(accuracy(stored))
    assert "robust/contrast/5" not in row.data.metrics
    assert "unseen/avg" not in project.row("task_arithmetic").data.metrics


def test_profile_without_robustness_has_rows(project: Project) -> None:
    project.layout.metric("robustness").unlink()
    project.layout.metric("generalization").unlink()
    track(project.config, project.layout)
    names = project.row("task_arithmetic").data.metrics
    assert not [name for name in names if name.startswith(("robust", "unseen", "seen"))]


def test_missing_artifact_names_the_stage(project: Project) -> None:
    project.layout.coefficients(0, "adamerging_layerwise").unlink()
    with pytest.raises(MissingInput, match=r"stages\.learn"):
        track(project.config, project.layout)


def test_figures_of_other_seeds_are_refused(project: Project) -> None:
    clean = json.loads(project.layout.metric("clean").read_text())
    clean["experts"]["seeds"] = {"7": 61.5}
    write_json(project.layout.metric("clean"), clean)
    with pytest.raises(UserError, match=r"experts for seed 0.*stages\.evaluate"):
        track(project.config, project.layout)


def test_compare_url_lists_the_rows(project: Project) -> None:
    rows = track(project.config, project.layout)
    url = compare_url(rows)
    assert url.startswith("/#/compare-runs?runs=%5B%22")
    assert all(run in url for run in rows.run_ids.values())
