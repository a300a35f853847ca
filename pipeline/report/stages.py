"""The stages before the report, and the command that runs one."""

STAGES = (
    "fetch",
    "experts",
    "vectors",
    "learn",
    "merge",
    "evaluate",
    "robustness",
    "generalization",
)


def stage_command(stage: str) -> str:
    """What a user runs to get what a stage writes."""
    return f"python -m stages.{stage}"
