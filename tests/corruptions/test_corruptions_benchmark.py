"""The benchmark's targets and figures, and the sheet of the docs."""

import json
from pathlib import Path

import numpy as np
import pytest
from corruption_oracle import scenes

from benchmarks import corruption_sheet
from benchmarks.corruptions import FIGURES, Pair, lines, misses, together
from pipeline.corruptions import CORRUPTIONS


def test_stored_figures_reach_the_targets():
    figures = json.loads(Path(FIGURES).read_text(encoding="utf-8"))
    assert list(figures["corruptions"]) == list(CORRUPTIONS)
    assert figures["together"] == pytest.approx(together(figures["corruptions"]))
    assert not misses(figures)


def test_missed_targets_are_named():
    rows = {
        "fog": {"ours_ms": 2.0, "theirs_ms": 8.0, "ratio": 4.0},
        "snow": {"ours_ms": 2.0, "theirs_ms": 1.0, "ratio": 0.5},
    }
    figures = {"corruptions": rows, "together": together(rows)}
    assert figures["together"] == {"ours_per_s": 500, "theirs_per_s": 2000 / 9, "ratio": 2.25}
    each, all_of_them = misses(figures)
    assert "snow has 0.50" in each
    assert "all have 2.25" in all_of_them
    assert lines(figures)[-1] == "together 500 images/s, 222 theirs: 2.25 times"


def test_the_first_call_does_not_count(monkeypatch):
    monkeypatch.setattr("benchmarks.corruptions.LEAST", 0)
    calls: list[int] = []
    slow_once = Pair(lambda: calls.append(sum(range(0 if calls else 10**7))), lambda: None)
    assert slow_once.best(2)["ours_ms"] < 5
    assert len(calls) == 3


def test_the_sheet_shows_every_corruption():
    small = corruption_sheet.contact_sheet(scenes(1, 40)[0])
    cells = np.asarray(small)
    pitch = corruption_sheet.SHOWN + corruption_sheet.GAP + corruption_sheet.TITLE
    assert small.height == 10 * pitch
    for row in range(10):
        for half in (cells[:, : small.width // 2], cells[:, small.width // 2 :]):
            shown = half[row * pitch + corruption_sheet.TITLE : (row + 1) * pitch]
            assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 20
