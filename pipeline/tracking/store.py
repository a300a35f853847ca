"""Where runs are recorded: the store, its experiment and the configuration's parent run."""

import hashlib
import logging
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from pipeline.config import Config
from pipeline.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "adamerge"
HEALTH_SECONDS = 3.0
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

    def create_run(self, name: str, tags: Mapping[str, str]) -> str:
        """Create a RUNNING child of the configuration's run; returns its id."""
        # Of MlflowClient alone: start_run would take MLFLOW_RUN_ID from the environment.
        tags = {**tags, "pipeline.key": self.key, PARENT: self.parent_id}
        return self.client.create_run(self.experiment_id, tags=tags, run_name=name).info.run_id

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


def tracking_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI, or the file mlflow.db in the project's folder `root`."""
    return (
        os.environ.get("MLFLOW_TRACKING_URI")
        or f"sqlite:///{(_home(root) / 'mlflow.db').as_posix()}"
    )


def shown_uri(root: Path) -> str:
    """The tracking URI as it may be printed: without the password it may hold."""
    return _without_password(tracking_uri(root))


def check_reachable(root: Path) -> None:
    """Refuse a store that cannot be used before anything is computed.

    Raises `UserError`: a server that does not answer within seconds, a folder that is read-only.
    """
    uri = tracking_uri(root)
    if uri.startswith(("http://", "https://")):
        _check_server(uri)
    elif uri.startswith("sqlite:///"):
        database = Path(uri.removeprefix("sqlite:///"))
        target = database if database.exists() else database.parent
        if not (database.parent.is_dir() and os.access(target, os.W_OK)):
            raise UserError(
                f"MLflow cannot record in {database}: its folder is missing or cannot be written "
                "to. Set MLFLOW_TRACKING_URI to another place."
            )


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
        "device": config.device,
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
        client = MlflowClient(uri)
        experiment_id = _experiment(client, config.root)
        key = configuration_key(config)
        return Store(client, experiment_id, key, _parent(client, experiment_id, key, config))


@contextmanager
def lock(root: Path, name: str) -> Iterator[None]:
    """Held by one process of this machine at a time; freed when its holder dies."""
    from filelock import FileLock

    path = _home(root) / ".cache" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path, timeout=LOCK_SECONDS):
        yield


@contextmanager
def explained(root: Path) -> Iterator[None]:
    """Turn what the store raises, whichever it is, into a `UserError`."""
    try:
        yield
    except Exception as error:
        raise UserError(
            f"The MLflow store at {shown_uri(root)} cannot be used ({reason(error)}). "
            "Repair it, or set MLFLOW_TRACKING_URI to another one."
        ) from error


def reason(error: BaseException) -> str:
    """The first line of an error's text, shortened."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200].rstrip(" .")


def _home(root: Path) -> Path:
    # DVC runs queued experiments in folders that it deletes; DVC_ROOT stays the project's own.
    return Path(os.environ.get("DVC_ROOT") or root).resolve()


def _without_password(uri: str) -> str:
    secret, at, rest = urlsplit(uri).netloc.rpartition("@")
    return uri.replace(secret + at + rest, rest, 1) if at else uri


def _check_server(uri: str) -> None:
    shown = _without_password(uri)
    try:
        urlopen(f"{shown.rstrip('/')}/health", timeout=HEALTH_SECONDS).close()
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, HTTPError):
            error.close()
            # A server that wants a login, or has no such page, is there all the same.
            if error.code < 500:
                return
        cause = error.reason if isinstance(error, URLError) else error
        if isinstance(cause, ssl.SSLError):
            return  # MLflow has settings of its own for certificates
        raise UserError(
            f"The MLflow server at {shown} does not answer ({cause}). "
            "Start it, or unset MLFLOW_TRACKING_URI to record in mlflow.db."
        ) from error


def _experiment(client: "MlflowClient", root: Path) -> str:
    """The id of the experiment, made if it is missing."""
    from mlflow.exceptions import MlflowException

    # MLflow would put files below the current folder; a server knows its own place for them.
    local = not tracking_uri(root).startswith(("http://", "https://"))
    files = (_home(root) / "mlruns").as_uri() if local else None
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        try:
            return client.create_experiment(EXPERIMENT, artifact_location=files)
        except MlflowException:  # another machine was faster
            experiment = client.get_experiment_by_name(EXPERIMENT)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return experiment.experiment_id


def _parent(client: "MlflowClient", experiment_id: str, key: str, config: Config) -> str:
    """The id of the configuration's run, made if it is missing."""
    from mlflow.entities import Param

    found = client.search_runs(
        [experiment_id],
        f"tags.`pipeline.key` = '{key}' and tags.kind = 'configuration'",
        max_results=1,
        order_by=["attributes.start_time ASC"],
    )
    if found:
        return found[0].info.run_id
    tags = {**configuration_tags(config), "kind": "configuration", "pipeline.key": key}
    run = client.create_run(experiment_id, tags=tags, run_name=f"{config.name} {key[:6]}")
    values = _flat(config.profile.model_dump(mode="json", exclude=DIVISION))
    client.log_batch(run.info.run_id, params=[Param(k, v) for k, v in values.items()])
    client.set_terminated(run.info.run_id)
    return run.info.run_id


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
