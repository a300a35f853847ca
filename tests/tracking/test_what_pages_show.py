"""What MLflow's pages are given: descriptions, views, files of what was learned, datasets."""

import json
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tracking_project import TASKS, Project

from pipeline.files import write_text
from pipeline.tracking import stage_run, track

# Of MLflow's own queries, with SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

NOTE = "mlflow.note.content"


def table(project: Project, run_id: str, name: str) -> dict[str, list[Any]]:
    """A table as MLflow's own client reads it."""
    import mlflow
    from mlflow import MlflowClient

    mlflow.set_tracking_uri(f"sqlite:///{project.root}/mlflow.db")
    try:
        frame = MlflowClient().load_table(project.experiment_id, name, [run_id])
    finally:
        mlflow.set_tracking_uri(None)
    return frame.to_dict("list")


def test_every_run_is_described_and_leads_to_the_report(project: Project) -> None:
    write_text(project.layout.report / "index.html", "<p>the report</p>")
    with stage_run(project.config, project.layout, "learn"):
        pass
    track(project.config, project.layout)
    [parent] = project.runs("tags.kind = 'configuration'")
    page = f"#/experiments/{project.experiment_id}/runs/{parent.info.run_id}/artifacts/report.html"
    for run in project.runs():
        assert f"[Report]({page})" in run.data.tags[NOTE]
    path = project.client.download_artifacts(parent.info.run_id, "report.html", str(project.root))
    with open(path) as file:
        assert file.read() == "<p>the report</p>"


def test_report_is_stored_again_only_if_it_changed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    stored = []
    monkeypatch.setattr(MlflowClient, "log_text", lambda self, *words: stored.append(words[1]))
    track(project.config, project.layout)  # without a report there is nothing to store
    for text in ("one", "one", "two"):
        write_text(project.layout.report / "index.html", text)
        track(project.config, project.layout)
    assert stored == ["one", "two"]


def test_row_says_what_it_is_in_words(project: Project) -> None:
    track(project.config, project.layout)
    note = project.row("task_arithmetic_tuned").data.tags[NOTE]
    first, second = note.split("\n\n")
    assert first == (
        "Task arithmetic, tuned on labels, profile `mini`, seed 0: 61.5 % on clean images, "
        "61.5 % on corrupted images."
    )
    assert "with labels: it does not compete" in second
    assert "not comparable with published figures" in second
    assert "50.0 % on tasks that took no part" in project.row("task_arithmetic").data.tags[NOTE]


def test_views_select_what_rows_have(project: Project) -> None:
    track(project.config, project.layout)
    tags = project.client.get_experiment(project.experiment_id).tags
    prefix = "mlflow.sharedViewState."
    views = {k.removeprefix(prefix): json.loads(v) for k, v in tags.items() if prefix in k}
    assert list(views) == ["methods", "history", "stages"]
    for name in views:
        assert (
            f"](#/experiments/{project.experiment_id}/runs?viewStateShareKey={name})" in tags[NOTE]
        )
    view = views["methods"]
    rows = project.client.search_runs(
        [project.experiment_id], view["searchFilter"], order_by=[f"{view['orderByKey']} DESC"]
    )
    assert len(rows) == 5
    row = project.row("adamerging_layerwise").data
    had = {f"metrics.`{name}`" for name in row.metrics} | {f"tags.`{name}`" for name in row.tags}
    # Its project has neither unseen tasks for this method, nor figures over the joint classes.
    absent = {"metrics.`unseen/avg`", "metrics.`joint/avg`", "tags.`measured`"}
    assert set(view["selectedColumns"]) - had == absent


def test_description_that_a_user_wrote_stays(project: Project) -> None:
    track(project.config, project.layout)
    project.client.set_experiment_tag(project.experiment_id, NOTE, "ours")
    track(project.config, project.layout)
    assert project.client.get_experiment(project.experiment_id).tags[NOTE] == "ours"


def test_what_was_learned_is_there_as_pictures_and_as_tables(project: Project) -> None:
    run_id = track(project.config, project.layout).run_ids["adamerging_layerwise", 0]
    for name in ("coefficients.png", "curves.png"):
        with open(project.client.download_artifacts(run_id, name), "rb") as file:
            assert file.read(8) == b"\x89PNG\r\n\x1a\n"
    stored = load_file(project.layout.coefficients(0, "adamerging_layerwise"))
    columns = table(project, run_id, "coefficients_table.json")
    assert columns["tensor"] == ["a", "b", "c"]
    for place, task in enumerate(TASKS):
        assert np.allclose(columns[task], stored["values"][:, place], atol=1e-5)
    columns = table(project, run_id, "curves_table.json")
    assert np.allclose(
        columns["entropy/svhn"], stored["history_entropy"][columns["step"], 0], atol=1e-5
    )


def test_rows_without_coefficients_of_their_own_have_no_pictures(project: Project) -> None:
    rows = track(project.config, project.layout)
    for method, expected in (
        ("experts", set()),
        ("task_arithmetic_tuned", {"task_arithmetic_tuned.safetensors", "coefficients_table.json"}),
    ):
        files = project.client.list_artifacts(rows.run_ids[method, 0])
        assert {file.path for file in files} == expected


def test_datasets_say_which_images_were_read_and_why(project: Project) -> None:
    track(project.config, project.layout)

    def read(method: str) -> dict[str, tuple[str, str]]:
        inputs = project.row(method).inputs.dataset_inputs
        return {used.dataset.name: (used.tags[0].value, used.dataset.digest) for used in inputs}

    learned = read("adamerging_layerwise")
    assert {name: context for name, (context, _) in learned.items()} == {
        "mini eval, seed 0": "eval",
        "mini adapt, seed 0": "adapt",
    }
    assert learned["mini eval, seed 0"][1] != learned["mini adapt, seed 0"][1]
    assert read("experts") == {"mini eval, seed 0": learned["mini eval, seed 0"]}
    assert [context for context, _ in read("task_arithmetic_tuned").values()] == ["eval", "select"]
    [used, _] = project.row("adamerging_layerwise").inputs.dataset_inputs
    assert json.loads(used.dataset.profile) == {"images": 100, "svhn": 50, "dtd": 50}


def test_other_images_make_other_rows(project: Project) -> None:
    first = track(project.config, project.layout)
    path = project.layout.splits(0, "dtd")
    facts = json.loads(path.read_text())
    facts["adapt"]["sha256"] = "0" * 64
    write_text(path, json.dumps(facts))
    second = track(project.config, project.layout)
    changed = {key for key in first.run_ids if first.run_ids[key] != second.run_ids[key]}
    assert changed == {("adamerging_layerwise", 0)}


def test_figures_are_linked_to_the_model_and_to_the_images(project: Project) -> None:
    track(project.config, project.layout)
    [model] = project.client.search_logged_models(
        [project.experiment_id], "name = 'mini-adamerging_layerwise-seed-0'"
    )
    linked = {metric.key: metric.dataset_name for metric in model.metrics}
    assert linked["clean/svhn"] == linked["ece/avg"] == "mini eval, seed 0"
    assert linked["robust/contrast/5"] is None  # of corrupted images
    assert linked["learn/seconds"] is None
    found = project.client.search_logged_models(
        [project.experiment_id],
        "metrics.`clean/avg` > 61",
        datasets=[{"dataset_name": "mini eval, seed 0"}],
    )
    assert len(found) == 4  # of the experts there is one for every task


def test_experiment_and_inputs_are_tags(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "lr-0.01")
    track(project.config, project.layout)
    with stage_run(project.config, project.layout, "learn"):
        pass
    assert {
        run.data.tags.get("dvc.exp") for run in project.runs("tags.kind != 'configuration'")
    } == {"lr-0.01"}
