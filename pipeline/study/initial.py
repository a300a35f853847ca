"""How much the first value of the coefficients matters: layer-wise AdaMerging from several."""

from collections.abc import Mapping
from statistics import mean
from typing import Any

from pipeline.statistics import Images
from pipeline.study.measuring import Measured
from pipeline.study.variants import Result, rows, spread

METHOD = "adamerging_layerwise"
VALUES = (0.1, 0.2, 0.3, 0.4, 0.5)
PUBLISHED = "0.3"


def summary(
    results: Mapping[str, Mapping[int, Result]],
    starts: Mapping[str, Mapping[int, Measured]],
    images: Images,
) -> dict[str, Any]:
    """The core of metrics/<profile>/initial.json.

    `results`: value -> seed -> end of learning; `starts`: the same before learning, which is task
    arithmetic with this coefficient.
    """
    found = rows(results, images, (PUBLISHED,))
    for value, row in found.items():
        before = [one.accuracy for one in starts[value].values()]
        row["start"] = {"avg": round(mean(before), 2), "avg_sd": spread(before)}
    return {"rows": found}
