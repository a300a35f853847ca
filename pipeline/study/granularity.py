"""What finer coefficients are worth: one per task, one per block and task, one per tensor."""

from collections.abc import Mapping
from typing import Any

from pipeline.statistics import Images
from pipeline.study.variants import BEFORE, Result, rows

# Granularity -> the method whose coefficients these are.
METHODS = {
    "task": "adamerging_taskwise",
    "block": "adamerging_blockwise",
    "layer": "adamerging_layerwise",
}


def summary(
    results: Mapping[str, Mapping[int, Result]], images: Images, counts: Mapping[str, int]
) -> dict[str, Any]:
    """The core of metrics/<profile>/granularity.json; `counts`: how many coefficients each has."""
    found = rows(results, images, (BEFORE, *METHODS))
    for name, count in counts.items():
        found[name]["coefficients"] = count
    return {"rows": found}
