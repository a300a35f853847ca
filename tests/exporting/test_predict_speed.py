"""`adamerge predict` costs little more than importing torch and open_clip."""

import os
import resource
import subprocess
import sys

import numpy as np
import pytest
from finished import finished_project
from PIL import Image
from tiny import ROOT

from pipeline.exporting import Request, export, planned

MOST = 1.5  # times the import; CPU seconds, since other programs may run
TRIES = 3
IMPORT = "import torch, open_clip"
PREDICT = """
import sys
from stages.cli import main
try:
    main()
finally:
    heavy = {"mlflow", "pandas", "matplotlib", "scipy", "pyarrow"} & set(sys.modules)
    print(*heavy, file=sys.stderr)
"""


def cost(*words):
    """CPU seconds of a program, and what it says on stdout and stderr."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, done.stdout, done.stderr


@pytest.fixture
def model(tmp_path):
    project = finished_project(tmp_path / "project")
    export(planned(*project, Request(tmp_path / "out", "open_clip", "ties", 0)), {})
    return tmp_path / "out"


def test_one_image_costs_little_more_than_the_imports(model, tmp_path):
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "photo.png")
    words = [str(tmp_path / "photo.png"), "--model", str(model), "--task", "mnist"]
    ratios = []
    while len(ratios) < TRIES and min(ratios, default=MOST) >= MOST:
        imports, _, _ = cost(IMPORT)
        whole, said, errors = cost(PREDICT, "predict", *words)
        assert "photo.png" in said and errors.strip() == ""
        ratios.append(whole / imports)
    assert min(ratios) < MOST, ratios
