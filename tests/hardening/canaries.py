"""Secrets of no use, put where a user's own lie, and the search for them."""

from pathlib import Path

CANARIES = {
    "HF_TOKEN": "canary-hub-token",
    "AWS_SECRET_ACCESS_KEY": "canary-storage-key",
    "AWS_SESSION_TOKEN": "canary-storage-token",
    "MLFLOW_TRACKING_USERNAME": "someone",
    "MLFLOW_TRACKING_PASSWORD": "canary-tracking-password",
    "PGPASSWORD": "canary-database-password",
}
MARK = b"canary"
# As a login is written in a header: base64 of "someone:canary-...".
ENCODED = b"c29tZW9uZTpjYW5hcnkt"


def spilled_in_text(text: str) -> list[str]:
    """Lines with a secret."""
    return [line for line in text.splitlines() if MARK in line.encode() or ENCODED.decode() in line]


def spilled_in(folder: Path) -> list[str]:
    """Files with a secret in their content or their name."""
    found = []
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        if MARK in content or ENCODED in content or MARK.decode() in path.name:
            found.append(path.relative_to(folder).as_posix())
    return found
