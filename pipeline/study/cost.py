"""What every method costs: seconds and memory, each measured in a process of its own."""

from collections.abc import Mapping
from typing import Any

from pipeline.merging.methods import METHODS


def summary(records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The core of metrics/<profile>/cost.json: method -> figures, the cheapest first."""
    rows = {
        method: {
            "seconds": round(one["seconds"], 3),
            "peak_gb": round(one["peak_gb"], 3),
            "above_gb": round(one["peak_gb"] - one["before_gb"], 3),
            "steps": one["steps"],
            "learns": METHODS[method].learns,
        }
        for method, one in records.items()
    }
    return {"rows": dict(sorted(rows.items(), key=lambda item: item[1]["seconds"]))}
