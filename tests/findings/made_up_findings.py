"""Made-up figures of the studies, and what is said of figures."""

from typing import Any

from report_metrics import compare

from pipeline.config import Config
from pipeline.findings.look import Look
from pipeline.study import selection

OURS, REFERENCE = "adamerging_layerwise", "task_arithmetic"
TUNED = "task_arithmetic_tuned"
GIT = {"commit": "0123456789abcdef", "dirty": False}
TITLE = "AdaMerging (layer-wise)"
MINUS = "\N{MINUS SIGN}"


def beside(difference: float, half: float = 1.0) -> dict[str, Any]:
    return {"difference": difference, "interval": [difference - half, difference + half]}


def rows_of(**differences: dict[str, float]) -> dict[str, Any]:
    """Row -> figures: `name={other: difference}`."""
    return {
        name: {"avg": 70.0, "beside": {o: beside(d) for o, d in others.items()}}
        for name, others in differences.items()
    }


def made_up_studies() -> dict[str, Any]:
    budget = {"before": {}, "all": {"before": 9.0}}
    for size, gain in {"1": -2.0, "4": 0.5, "16": 3.0, "64": 8.5}.items():
        budget[size] = {"before": gain, "all": gain - 9}
    layer = {"task": 4.0, "block": 0.5}
    choices = {name: {"none": 0.0} for name in selection.CRITERIA}
    return {
        "entropy_loss": {
            "methods": {OURS: {"images": 0.61, "images_interval": [0.58, 0.64], "groups": 0.98}}
        },
        "budget": {"all": 900, "rows": rows_of(**budget)},
        "initial": {
            "rows": rows_of(**{"0.1": {"0.3": -2.0}, "0.3": {}, "0.5": {"0.3": 0.2}}),
        },
        "granularity": {"rows": rows_of(task={}, block={"task": 3.0}, layer=layer)},
        "tasks": {
            "counts": {
                str(n): {
                    OURS: {"beside": {REFERENCE: beside(n - 3.0), TUNED: beside(n - 5.0)}},
                }
                for n in range(2, 7)
            }
        },
        "selection": {
            "choices": {
                f"step/{OURS}": {"rows": rows_of(**choices)},
                "variant": {"rows": rows_of(**choices)},
            }
        },
        "cost": {
            "cost_seed": 3,
            "rows": {
                REFERENCE: {"seconds": 0.2, "above_gb": 0.1},
                OURS: {"seconds": 41.0, "above_gb": 0.5},
                "wudi": {"seconds": 50.0, "above_gb": 0.4},
            },
        },
    }


def say(statement: Any, files: dict[str, Any], config: Config) -> str:
    text = statement(Look(files, config))
    assert text is not None
    return text.replace("\N{NO-BREAK SPACE}", " ")


def headline(statement: Any, files: dict[str, Any], config: Config) -> str:
    return say(statement, files, config).split("**")[1]


def set_average(files: dict[str, Any], method: str, value: float) -> None:
    files["clean"][method] |= {
        "avg": value,
        "seeds": dict.fromkeys(files["clean"][method]["seeds"], value),
    }
    compare(files["clean"])
