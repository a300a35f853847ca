"""Accuracies that others printed, from published.csv: by table, checkpoint family and backbone.

    published("clean", "hf", "ViT-B-32")["experts"].tasks["cars"]

Every row of the file names its source. Tables: `clean`; `generalization_<n>_seen` and `_unseen`;
`robustness`, of four merged tasks, with a corruption in every row (`clean`: none).
"""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipeline.merging.methods import METHODS

_FILE = Path(__file__).with_name("published.csv")
_SPLIT = re.compile(r"generalization_(\d+)_(?:seen|unseen)")

_OURS = {"finetuned": "experts", "average": "weight_average"}  # where the file's name differs
ELSEWHERE = {  # how methods are printed that are not in METHODS
    "multitask": "Multi-task fine-tuning",
    "ensemble": "Ensemble of the experts",
    "concrete_task_arithmetic": "Concrete task arithmetic",
    "concrete_adamerging": "Concrete AdaMerging (layer-wise)",
    "e_wemoe_90": "Efficient WEMoE (90 %)",
    "wemoe": "WEMoE",
}
SOURCES = {
    "FusionBench documentation": "https://tanganke.github.io/fusion_bench/",
    "AdaMerging authors' log": "https://github.com/EnnengYang/AdaMerging",
    "WUDI-Merging README": "https://github.com/nathanielyvo/WUDI-Merging",
}


@dataclass(frozen=True)
class Printed:
    """What a table prints for a method."""

    tasks: Mapping[str, float]  # task -> accuracy in percent
    sources: tuple[str, ...]

    @property
    def average(self) -> float:
        """The mean over the tasks, in percent."""
        return sum(self.tasks.values()) / len(self.tasks)


def published(
    table: str, family: str, backbone: str | None, corruption: str = ""
) -> dict[str, Printed]:
    """Method -> what `table` prints, in the file's order; empty where nothing is printed.

    Methods and tasks have this project's names, where it has any.
    """
    found: dict[str, dict[str, tuple[float, str]]] = {}
    for row in _rows():
        key = (row["table"], row["checkpoint_family"], row["backbone"], row["corruption"])
        if key == (table, family, backbone, corruption):
            method = _OURS.get(row["method"], row["method"])
            cell = (float(row["accuracy_percent"]), row["source"])
            found.setdefault(method, {})[row["task"].lower()] = cell
    return {
        method: Printed(
            tasks={task: value for task, (value, _) in cells.items()},
            sources=tuple(dict.fromkeys(source for _, source in cells.values())),
        )
        for method, cells in found.items()
    }


def corruptions(family: str, backbone: str | None) -> tuple[str, ...]:
    """What images were corrupted with in table `robustness`; empty where nothing is printed."""
    wanted = ("robustness", family, backbone)
    found = (
        row["corruption"]
        for row in _rows()
        if (row["table"], row["checkpoint_family"], row["backbone"]) == wanted
    )
    return tuple(name for name in dict.fromkeys(found) if name != "clean")


def split_numbers() -> tuple[str, ...]:
    """Numbers of the published generalization splits."""
    found = (_SPLIT.fullmatch(row["table"]) for row in _rows())
    return tuple(dict.fromkeys(match.group(1) for match in found if match))


def title(method: str) -> str:
    """How a method of the file is printed."""
    return METHODS[method].title if method in METHODS else ELSEWHERE[method]


@cache
def _rows() -> tuple[dict[str, str], ...]:
    with _FILE.open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(line for line in file if not line.startswith("#")))
