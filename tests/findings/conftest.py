"""Metrics of everything that docs/findings.md speaks of."""

import copy
import json
from typing import Any

import pytest
from made_up_findings import GIT, OURS, made_up_studies
from report_artifacts import write_artifacts, write_config

from pipeline.config import Config
from pipeline.files import write_json
from pipeline.findings import read_files
from pipeline.layout import Layout

METHODS = ["pretrained", "weight_average", "task_arithmetic", "ties", OURS]
CONDITIONS = ["each", "mixture", "stream", "small", "imbalanced"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return write_config(
        tmp_path_factory.mktemp("findings"),
        "study",
        generalization={"methods": METHODS, "leave_two_out": True},
        robustness={
            "adapted": {"methods": [OURS], "severity": 3, "conditions": CONDITIONS},
        },
    )


@pytest.fixture(scope="module")
def layout(config: Config) -> Layout:
    layout = write_artifacts(config, steps=2, images=4)
    for name, figures in made_up_studies().items():
        write_json(layout.metric(name), {"git": GIT, **figures})
    run = json.loads(layout.run("evaluate").read_text())
    write_json(layout.run("study"), run | {"stage": "study"})
    return layout


@pytest.fixture
def files(layout: Layout) -> dict[str, Any]:
    return copy.deepcopy(dict(read_files(layout)))
