"""The two programs elsewhere that runs talk to: MLflow's store and the Hugging Face hub."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import UserError
from pipeline.health.findings import Finding
from pipeline.health.places import gigabytes


def mlflow(root: Path) -> Iterator[Finding]:
    """Whether the store can record, as every stage asks before it begins."""
    from pipeline.tracking import check_reachable, shown_uri, tracking_uri

    shown, uri = shown_uri(root), tracking_uri(root)
    try:
        check_reachable(root)
    except UserError as error:
        what, _, advice = str(error).partition(". ")
        yield Finding("MLflow", what, "problem", advice)
        return
    if uri.startswith(("http://", "https://")):
        yield Finding("MLflow", f"the server at {shown} answers")
    elif uri.startswith("sqlite:///"):
        database = Path(uri.removeprefix("sqlite:///"))
        held = gigabytes(database.stat().st_size) if database.exists() else "not there yet"
        yield Finding("MLflow", f"{database}, {held}")
    else:
        yield Finding("MLflow", f"{shown}, which the first stage will try")


def hub() -> Iterator[Finding]:
    """How the hub would be asked: whose address, as whom, or not at all. It is not asked here."""
    from huggingface_hub import constants, get_token

    token = "with a token" if get_token() else "without a token (public repositories need none)"
    if constants.HF_HUB_OFFLINE:
        advice = "Unset HF_HUB_OFFLINE until everything is in its cache."
        text = "HF_HUB_OFFLINE is set: only what is in its cache can be used"
        yield Finding("hub", text, "warning", advice)
    else:
        yield Finding("hub", f"{constants.ENDPOINT}, {token}")
