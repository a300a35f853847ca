"""The generated blocks of docs/performance.md, one at a time."""

import re
from pathlib import Path


def write_block(page: Path, name: str, content: str) -> None:
    """Fill a generated block of a page; the others stay."""
    from pipeline.files import write_text
    from pipeline.readme import fill

    text = page.read_text(encoding="utf-8")
    others = dict.fromkeys(re.findall(r"<!-- generated: (\S+) -->", text))
    write_text(page, fill(text, {**others, name: content}, page.name))
