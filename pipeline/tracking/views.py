"""MLflow's pages: where they are, and what their tables show without a click.

A view is kept as MLflow itself keeps one that a user shares: as a tag of the experiment, which a
link names. Its text is JSON of the table's filter, order and columns.
"""

import json
from collections.abc import Iterable
from urllib.parse import quote

_SHARED = "mlflow.sharedViewState."
_NEWEST = "tags.kind = 'method' and tags.latest = 'true'"
# Not by their start: so ordered, MLflow folds runs into their parents.
_ENDED = ("attributes.end_time", False)
_FIGURES = ("clean/avg", "robust/avg", "unseen/avg", "joint/avg", "ece/avg", "learn/seconds")
_ROWS = ("tags.profile", "tags.seed", *(f"metrics.{name}" for name in _FIGURES))

# Name in the link -> title, filter, order (key, ascending), columns
_VIEWS: dict[str, tuple[str, str, tuple[str, bool], tuple[str, ...]]] = {
    "methods": (
        "The newest row of every method, best first",
        _NEWEST,
        ("metrics.`clean/avg`", False),
        (*_ROWS, "tags.label_tuned", "tags.protocol", "tags.measured"),
    ),
    "history": (
        "Every row there ever was, newest first",
        "tags.kind = 'method'",
        _ENDED,
        (*_ROWS, "tags.measured", "tags.latest", "tags.git.sha", "tags.dvc.exp"),
    ),
    "stages": (
        "Every stage that ran, newest first",
        "tags.kind = 'stage'",
        _ENDED,
        ("tags.profile", "metrics.seconds", "tags.device", "tags.git.sha", "tags.dvc.exp"),
    ),
}


def view_page(experiment_id: str, view: str) -> str:
    """The address, after the server's `/`, of a table with one of the views."""
    return f"#/experiments/{experiment_id}/runs?viewStateShareKey={view}"


def file_page(experiment_id: str, run_id: str, file: str) -> str:
    """The address, after the server's `/`, of the page that shows a run's file."""
    return f"#/experiments/{experiment_id}/runs/{run_id}/artifacts/{quote(file)}"


def compare_page(experiment_id: str, run_ids: Iterable[str]) -> str:
    """The address, after the server's `/`, of the page that compares runs."""
    runs = quote(json.dumps(list(run_ids), separators=(",", ":")))
    return f"#/compare-runs?runs={runs}&experiments={quote(json.dumps([experiment_id]))}"


def view_tags() -> dict[str, str]:
    """The experiment's tags that hold the views."""
    return {f"{_SHARED}{name}": _state(*view[1:]) for name, view in _VIEWS.items()}


def experiment_note(experiment_id: str) -> str:
    """What the experiment's page says of itself, as Markdown."""
    links = [
        f"- [{title}]({view_page(experiment_id, name)})" for name, (title, *_) in _VIEWS.items()
    ]
    return "\n".join(
        [
            "CLIP experts merged into one model: what every method achieves, and what ran.",
            "",
            *links,
            "",
            "A run is one of three kinds (tag `kind`): `configuration` is a profile with all its "
            "settings; under it lie a `method` run for every method and seed, and a `stage` run "
            "for every stage that was executed. Accuracies are in percent.",
        ]
    )


def _state(where: str, order: tuple[str, bool], columns: Iterable[str]) -> str:
    key, ascending = order
    named = (column.partition(".") for column in columns)
    selected = [f"{kind}.`{name}`" for kind, _, name in named]
    state = {
        "searchFilter": where,
        "orderByKey": key,
        "orderByAsc": ascending,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": selected,
        "columnOrder": selected,
    }
    return json.dumps(state)
