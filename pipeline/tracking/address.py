"""Where runs are recorded, and what may be said about it: never a password."""

import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import parse_qsl, unquote, urlsplit
from urllib.request import urlopen

from pipeline.errors import UserError

HEALTH_SECONDS = 3.0
SERVER = ("http://", "https://")
SECRETS = (  # of the environment, as MLflow and what it stores files with read them
    *("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "DATABRICKS_TOKEN"),
    *("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "PGPASSWORD", "HF_TOKEN"),
    *("AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_CLIENT_SECRET"),
)
HIDDEN = "***"
SHORTEST = 4  # letters of a secret that is taken out of a text wherever it stands
# One slash is a slip, and a "/" or "@" should have been escaped: the password is one all the same.
_CREDENTIALS = re.compile(r"(:/{1,2})(?=[^\s/?#'\"])[^\s?#'\"]*@")
_IN_QUERY = re.compile(
    r"([?&;](?:[\w.-]*(?:password|passwd|token|secret)[\w.-]*)=)[^&\s'\")]+", re.I
)

_MAY_BE_AWAY: ContextVar[bool] = ContextVar("server_may_be_away", default=False)


@contextmanager
def server_may_be_away() -> Iterator[None]:
    """In the block a server that does not answer costs a warning, not a `UserError`.

    For what is worth having without a record: `stage_run` keeps its run on this machine.
    """
    before = _MAY_BE_AWAY.set(True)
    try:
        yield
    finally:
        _MAY_BE_AWAY.reset(before)


def may_be_away() -> bool:
    """Whether this is such a block."""
    return _MAY_BE_AWAY.get()


def home(root: Path) -> Path:
    """The project's own folder; DVC runs queued experiments in folders that it deletes."""
    return Path(os.environ.get("DVC_ROOT") or root).resolve()


def tracking_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI, or the file mlflow.db in the project's folder `root`."""
    return (
        os.environ.get("MLFLOW_TRACKING_URI")
        or f"sqlite:///{(home(root) / 'mlflow.db').as_posix()}"
    )


def shown_uri(root: Path) -> str:
    """The tracking URI as it may be printed: without the password it may hold."""
    return _without_password(tracking_uri(root))


def without_secrets(text: str) -> str:
    """`text` without the passwords and tokens that the tracking URI and the environment hold."""
    text = _IN_QUERY.sub(rf"\1{HIDDEN}", _CREDENTIALS.sub(r"\1", text))
    for secret in sorted(_secrets(), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def check_reachable(root: Path) -> None:
    """Refuse a store that cannot be used before anything is computed.

    Raises `UserError`: a server that does not answer within seconds, unless it may be away; a
    folder that is read-only.
    """
    if not (may_be_away() and tracking_uri(root).startswith(SERVER)):
        require_store(root)


def require_store(root: Path) -> None:
    """Raise `UserError` where the store cannot be used now, wherever this is called."""
    uri = tracking_uri(root)
    if uri.startswith(SERVER):
        _check_server(uri)
    elif uri.startswith("sqlite:///"):
        database = Path(uri.removeprefix("sqlite:///"))
        target = database if database.exists() else database.parent
        if not (database.parent.is_dir() and os.access(target, os.W_OK)):
            raise UserError(
                f"MLflow cannot record in {database}: its folder is missing or cannot be written "
                "to. Set MLFLOW_TRACKING_URI to another place."
            )


def reason(error: BaseException) -> str:
    """The first line of an error's text, shortened and without secrets."""
    lines = without_secrets(str(error)).strip().splitlines() or [type(error).__name__]
    return lines[0][:200].rstrip(" .")


def _secrets() -> set[str]:
    """Passwords and tokens as they may stand in a text: also as they are written in a URI."""
    found = {os.environ.get(name, "") for name in SECRETS}
    with suppress(ValueError):  # an address that is none
        parts = urlsplit(os.environ.get("MLFLOW_TRACKING_URI", ""))
        password = parts.netloc.rpartition("@")[0].partition(":")[2]
        found |= {password, unquote(password)}
        found |= {value for name, value in parse_qsl(parts.query) if _IN_QUERY.match(f"?{name}=x")}
    return {secret for secret in found if len(secret) >= SHORTEST}


def _without_password(uri: str) -> str:
    return _IN_QUERY.sub(rf"\1{HIDDEN}", _CREDENTIALS.sub(r"\1", uri))


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
