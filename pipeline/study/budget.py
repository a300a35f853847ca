"""How many unlabeled images learning needs: layer-wise AdaMerging on few of each task's.

Images are drawn without a look at their classes; a smaller draw is part of a larger one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.statistics import Images
from pipeline.study.variants import BEFORE, Result, rows

METHOD = "adamerging_layerwise"
SIZES = (1, 4, 16, 64, 256)  # images of each task; and all that there are
ALL = "all"


def sizes(count: int) -> list[int]:
    """The numbers of images to learn from where the task with the fewest has `count`."""
    return [size for size in SIZES if size < count]


def summary(
    results: Mapping[str, Mapping[int, Result]], images: Images, counts: Sequence[int]
) -> dict[str, Any]:
    """The core of metrics/<profile>/budget.json; `counts`: for every seed what `all` means."""
    return {"all": min(counts), "rows": rows(results, images, (BEFORE, ALL))}
