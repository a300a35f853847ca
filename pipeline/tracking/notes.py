"""Descriptions of runs, as Markdown: what one looks at, and where the rest of it is."""

from collections.abc import Iterator, Mapping

from pipeline.merging.methods import METHODS
from pipeline.tracking.views import file_page

NOTE = "mlflow.note.content"
REPORT = "report.html"  # a file of the configuration's run
_FIGURES = {
    "clean/avg": "on clean images",
    "robust/avg": "on corrupted images",
    "unseen/avg": "on tasks that took no part in the merge",
}


def report_link(experiment_id: str, parent_id: str) -> str:
    """A link to the report; it works wherever MLflow's pages are served."""
    return f"[Report]({file_page(experiment_id, parent_id, REPORT)})"


def configuration_note(profile: str, experiment_id: str, run_id: str) -> str:
    """Of the run that holds a configuration."""
    return (
        f"Profile `{profile}` with the settings among the parameters. Under it: a run for every "
        f"method and seed, and one for every stage that was executed.\n\n"
        f"{report_link(experiment_id, run_id)} (there once the stage `report` has run)"
    )


def stage_note(stage: str, profile: str, link: str) -> str:
    """Of a stage's run; `link`: to the report."""
    return (
        f"Stage `{stage}` of profile `{profile}`, as it was executed.\n\n"
        f"{link} (there once the stage `report` has run)"
    )


def row_note(
    method: str, metrics: Mapping[str, float], tags: Mapping[str, str], weights: str, link: str
) -> str:
    """Of a method's run. `weights`: path of the merged model; `link`: to the report."""
    row = METHODS[method]
    figures = [
        f"{metrics[name]:.1f} % {what}" for name, what in _FIGURES.items() if name in metrics
    ]
    parts = [
        f"{row.title}, profile `{tags['profile']}`, seed {tags['seed']}: {', '.join(figures)}."
    ]
    parts += [" ".join([f"{link} · [Paper]({row.paper}).", *_warnings(tags)])]
    if "dvc.path" in tags:
        commit = f"git checkout {tags['git.sha'][:10]} && " if "git.sha" in tags else ""
        parts.append(
            f"Weights: `{weights}`, kept by DVC (`{tags['dvc.md5']}`). To get them: "
            f"`{commit}dvc pull {tags['dvc.path']}`"
        )
    return "\n\n".join(parts)


def _warnings(tags: Mapping[str, str]) -> Iterator[str]:
    """What a reader must know before comparing the figures."""
    if tags["label_tuned"] == "true":
        yield "It chose its coefficient with labels: it does not compete."
    if tags["protocol"] == "transductive":
        yield "Learned on the evaluation images (protocol `transductive`)."
    if tags["checkpoint.family"] == "mini":
        yield "Miniature tasks: not comparable with published figures."
