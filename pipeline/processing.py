"""What a method makes of task vectors before it combines them."""

from pipeline.disentangling import disentangled
from pipeline.errors import unknown
from pipeline.trimming import trimmed
from pipeline.vectors import TaskVectors

PROCESSING = ("none", "ties", "awd")


def processed(vectors: TaskVectors, processing: str, keep: float) -> TaskVectors:
    """The task vectors as they are ("none"), trimmed and sign-elected ("ties"), or less alike.

    "ties": https://arxiv.org/abs/2306.01708, with the share `keep` of entries, as AdaMerging++
    takes them; "awd": https://arxiv.org/abs/2411.18729 with the published constants.
    """
    if processing == "none":
        return vectors
    if processing == "ties":
        return trimmed(vectors, keep)
    if processing == "awd":
        return disentangled(vectors)
    raise unknown("processing of task vectors", processing, PROCESSING)
