"""Where runs are recorded: the store, its experiment and the configuration's parent run."""

import hashlib
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.files import replacing
from pipeline.tracking.address import SERVER, home, reason, shown_uri, tracking_uri
from pipeline.tracking.notes import NOTE, configuration_note
from pipeline.tracking.views import experiment_note, view_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

EXPERIMENT = "adamerge"
LOCK_SECONDS = 120.0
PARENT = "mlflow.parentRunId"

# A lost server may cost seconds, not the minutes of MLflow's own defaults.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


@dataclass(frozen=True)
class Store:
    """An open store, ready for child runs of one configuration."""

    client: "MlflowClient"
    experiment_id: str
    key: str  # of the configuration
    parent_id: str

    def create_run(self, name: str, tags: Mapping[str, str], started: int | None = None) -> str:
        """Create a RUNNING child of the configuration's run; returns its id.

        `started`: milliseconds since 1970, where it is not now.
        """
        # Of MlflowClient alone: start_run would take MLFLOW_RUN_ID from the environment.
        tags = {**tags, "pipeline.key": self.key, PARENT: self.parent_id}
        return self.client.create_run(
            self.experiment_id, start_time=started, tags=tags, run_name=name
        ).info.run_id

    def of(self, key: str, tags: Mapping[str, str]) -> "Store":
        """The store for the configuration `key`; its run is made, from `tags`, if it is missing."""
        parent = _parent(self.client, self.experiment_id, key, tags, {})
        return replace(self, key=key, parent_id=parent)

    def search(self, tags: Mapping[str, str], status: str = "FINISHED") -> list["Run"]:
        """The experiment's runs with these tags and this status, newest first."""
        wanted = [f"tags.`{tag}` = '{value}'" for tag, value in tags.items()]
        return list(
            self.client.search_runs(
                [self.experiment_id],
                " and ".join([f"attributes.status = '{status}'", *wanted]),
                max_results=5000,
                order_by=["attributes.start_time DESC"],
            )
        )

    def end_leftovers(self, tags: Mapping[str, str]) -> None:
        """Mark the configuration's runs with these tags KILLED that were left RUNNING."""
        for run in self.search({**tags, "pipeline.key": self.key}, "RUNNING"):
            self.client.set_terminated(run.info.run_id, "KILLED")


# How the work is divided, which is not what is computed.
DIVISION: Any = {"processes": True, "learn": {"memory_gb"}}


def configuration_key(config: Config) -> str:
    """SHA-256 of the resolved configuration: the same key means the same experiment."""
    text = f"{config.name}\n{config.profile.model_dump_json(exclude=DIVISION)}"
    return hashlib.sha256(text.encode()).hexdigest()


def configuration_tags(config: Config) -> dict[str, str]:
    """What every run of the configuration is tagged with."""
    profile = config.profile
    return {
        "profile": config.name,
        "protocol": profile.protocol,
        "checkpoint.family": profile.checkpoint.family,
        "seeds": " ".join(map(str, profile.seeds)),
    }


def metric_name(name: str) -> str:
    """`name` with what MLflow refuses in a metric's name replaced."""
    return re.sub(r"[^\w\-. :/]", "_", name)


def open_store(config: Config) -> Store:
    """Open the store; make the experiment and the configuration's parent run if they are missing.

    Raises `UserError` where the store cannot be used.
    """
    uri = tracking_uri(config.root)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Several processes that make the tables or the parent at once would break or double them.
    with explained(config.root), lock(config.root, "mlflow"):
        from mlflow import MlflowClient

        for logger in ("mlflow", "alembic"):
            logging.getLogger(logger).setLevel(logging.WARNING)
        # It would print a traceback of what is said in a sentence.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        _make_database(uri)
        client = MlflowClient(uri)
        experiment_id = _experiment(client, config.root)
        key = configuration_key(config)
        params = _flat(config.profile.model_dump(mode="json", exclude=DIVISION))
        parent = _parent(client, experiment_id, key, configuration_tags(config), params)
        return Store(client, experiment_id, key, parent)


def _make_database(uri: str) -> None:
    """Make a SQLite store that is not there yet: with all its tables, or not at all.

    One whose maker died between two tables could never be used again.
    """
    from mlflow import MlflowClient

    database = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or (database.exists() and database.stat().st_size):
        return
    with replacing(database) as temporary:
        MlflowClient(f"sqlite:///{temporary.as_posix()}").search_experiments()


@contextmanager
def lock(root: Path, name: str) -> Iterator[None]:
    """Held by one process of this machine at a time; freed when its holder dies."""
    from filelock import FileLock

    path = home(root) / ".cache" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path, timeout=LOCK_SECONDS):
        yield


@contextmanager
def explained(root: Path) -> Iterator[None]:
    """Turn what the store raises, whichever it is, into a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"The MLflow store at {shown_uri(root)} cannot be used ({reason(error)}). "
            "Repair it, or set MLFLOW_TRACKING_URI to another one."
        ) from error


def _experiment(client: "MlflowClient", root: Path) -> str:
    """The id of the experiment, made if it is missing, with what its pages are told by tags."""
    from mlflow.exceptions import MlflowException

    # MLflow would put files below the current folder; a server knows its own place for them.
    local = not tracking_uri(root).startswith(SERVER)
    files = (home(root) / "mlruns").as_uri() if local else None
    if client.get_experiment_by_name(EXPERIMENT) is None:
        try:
            client.create_experiment(EXPERIMENT, artifact_location=files)
        except MlflowException:
            if client.get_experiment_by_name(EXPERIMENT) is None:  # no other machine was faster
                raise
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        raise MlflowException(f"the experiment {EXPERIMENT} cannot be made")
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    _describe(client, experiment)
    return experiment.experiment_id


def _describe(client: "MlflowClient", experiment: "Experiment") -> None:
    """Give MLflow's pages their views; a description that a user wrote stays."""
    wanted = view_tags()
    if NOTE not in experiment.tags:
        wanted |= {
            NOTE: experiment_note(experiment.experiment_id),
            "mlflow.experimentKind": "custom_model_development",
        }
    for name, value in wanted.items():
        if experiment.tags.get(name) != value:
            client.set_experiment_tag(experiment.experiment_id, name, value)


def _parent(
    client: "MlflowClient",
    experiment_id: str,
    key: str,
    tags: Mapping[str, str],
    params: Mapping[str, str],
) -> str:
    """The id of the run of the configuration `key`, made if it is missing."""
    from mlflow.entities import Param

    found = client.search_runs(
        [experiment_id],
        f"tags.`pipeline.key` = '{key}' and tags.kind = 'configuration'",
        max_results=1,
        order_by=["attributes.start_time ASC"],
    )
    if found:
        return found[0].info.run_id
    profile = tags.get("profile", "")
    tags = {**tags, "kind": "configuration", "pipeline.key": key}
    run_id = client.create_run(
        experiment_id, tags=tags, run_name=f"{profile} {key[:6]}"
    ).info.run_id
    client.set_tag(run_id, NOTE, configuration_note(profile, experiment_id, run_id))
    client.log_batch(run_id, params=[Param(name, value) for name, value in params.items()])
    client.set_terminated(run_id)
    return run_id


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested sections as dotted keys; a list is written with commas."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            flat[metric_name(prefix + key)] = text
    return flat
