"""Which tensors share a row of coefficients."""

import re
from collections.abc import Iterable
from typing import Literal

Granularity = Literal["task", "block", "layer"]

ALL = "*"  # the one row of task-wise coefficients
_BLOCK = re.compile(r"^(.*?\.\d+)\.")  # a numbered block: visual.transformer.resblocks.3
_HEAD = re.compile(r"^visual\.(proj$|ln_post\.|attn_?pool|head)")  # what follows the blocks


def rows_of(names: Iterable[str], granularity: Granularity) -> list[str]:
    """The name of each tensor's row: one for all, one per block, or the tensor's own.

    Block-wise, what precedes the blocks is `stem` and what follows them `head`.
    """
    if granularity == "layer":
        return list(names)
    if granularity == "task":
        return [ALL for _ in names]
    return [
        block.group(1) if (block := _BLOCK.match(name)) else "head" if _HEAD.match(name) else "stem"
        for name in names
    ]
