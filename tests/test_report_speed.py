"""What makes the report quick: no torch, and every figure made and drawn once for each file."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from unittest import mock

import pytest
from matplotlib.figure import Figure
from report_artifacts import ROOT, write_artifacts, write_config

from pipeline.report import build_report, page

BUILD = """
import sys
from pathlib import Path
from pipeline.config import load_config
from pipeline.layout import Layout
from pipeline.report import build_report
config = load_config(Path(sys.argv[1]), "mini")
print(build_report(config, Layout(config.root, config.name)))
print(*sorted({"torch", "open_clip", "mlflow", "matplotlib.pyplot"} & {*sys.modules}))
"""


def test_report_is_made_without_torch(tmp_path: Path) -> None:
    write_artifacts(write_config(tmp_path), steps=2, images=6)
    command = [sys.executable, "-c", BUILD, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    path, heavy = done.stdout.split("\n")[:2]
    assert Path(path).is_file()
    assert heavy == ""


def test_every_figure_is_drawn_once_for_each_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path)
    layout = write_artifacts(config, steps=4, images=6)
    drawers = [mock.Mock(side_effect=draw) for draw in page.DRAWERS]
    monkeypatch.setattr(page, "DRAWERS", drawers)
    drawn: Counter[int] = Counter()
    draw = Figure.draw

    def counted(figure: Figure, renderer: object) -> None:
        drawn[id(figure)] += 1
        draw(figure, renderer)

    monkeypatch.setattr(Figure, "draw", counted)
    build_report(config, layout)
    assert [one.call_count for one in drawers] == [1] * len(drawers)
    assert len(drawn) == len([*layout.report.glob("*.png")]) > 5
    assert set(drawn.values()) == {2}  # the PNG, and the SVG in the page
