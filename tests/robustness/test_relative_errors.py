"""What is told of accuracy under corruptions, by hand."""

import json

import numpy as np
import pytest

from pipeline.regression import averages
from pipeline.relative_errors import Cells, accuracies, error_ratios, summarise


def cells(values):
    """[seeds, 2 corruptions, 2 severities, 2 tasks]"""
    return Cells(np.array(values, float), ("fog", "snow"), (1, 5), ("cars", "dtd"))


PRETRAINED = cells([[[[60, 80], [40, 60]], [[50, 90], [30, 70]]]])
OURS = cells([[[[80, 80], [70, 40]], [[50, 95], [50, 75]]]])
CLEAN = np.array([[90.0, 100.0]])


def test_accuracies_of_tasks_with_different_numbers_of_images():
    correct = np.array([[1, 1, 0, 1], [1, 0, 0, 0]], bool)
    assert accuracies(correct, [4, 2]).tolist() == [75.0, 50.0]


def test_error_ratios_by_hand():
    found = error_ratios(OURS, PRETRAINED)
    # cars, fog: (20 + 30) / (40 + 60); cars, snow: (50 + 50) / (50 + 70);
    # dtd, fog: (20 + 60) / (20 + 40); dtd, snow: (5 + 25) / (10 + 30)
    ratios = {"cars": (50.0, 83.33), "dtd": (133.33, 75.0)}
    for task, (fog, snow) in ratios.items():
        assert found["tasks"][task]["corruptions"] == {"fog": fog, "snow": snow}
        assert found["tasks"][task]["mean"] == pytest.approx((fog + snow) / 2, abs=0.01)
    assert found["corruptions"] == {"fog": 91.67, "snow": 79.17}
    assert found["mean"] == 85.42
    # severity 1: 20/40, 20/20, 50/50, 5/10; severity 5: 30/60, 60/40, 50/70, 25/30
    assert found["severities"] == {"1": 75.0, "5": 88.69}
    assert "mean_sd" not in found


def test_the_pretrained_model_has_ratios_of_a_hundred():
    found = error_ratios(PRETRAINED, PRETRAINED)
    assert found["mean"] == 100
    assert set(found["severities"].values()) == {100}


def test_no_error_to_divide_by():
    perfect = cells([[[[100, 80], [100, 60]], [[50, 90], [30, 70]]]])
    found = error_ratios(OURS, perfect)
    assert found["tasks"]["cars"] == {"mean": 83.33, "corruptions": {"fog": None, "snow": 83.33}}
    assert found["corruptions"]["fog"] == 133.33
    assert found["mean"] == pytest.approx((83.33 + 133.33 + 75) / 3, abs=0.01)
    nothing = error_ratios(OURS, cells(np.full((1, 2, 2, 2), 100)))
    assert nothing["mean"] is None and nothing["severities"] == {"1": None, "5": None}
    assert json.loads(json.dumps(nothing)) == nothing


def test_a_row_by_hand():
    row = summarise(OURS, [7], CLEAN, PRETRAINED)
    assert (row["avg"], row["avg_sd"], row["clean"]) == (67.5, 0.0, 95.0)
    assert row["relative_drop"] == round(100 * 27.5 / 95, 2)
    assert row["corruptions"] == {"fog": {"1": 80, "5": 55}, "snow": {"1": 72.5, "5": 62.5}}
    assert row["severities"] == {"1": 76.25, "5": 58.75}
    assert row["tasks"] == {"cars": 62.5, "dtd": 72.5}
    assert row["seeds"] == {"7": 67.5}
    assert row["cells"]["dtd"] == {"fog": {"1": 80, "5": 40}, "snow": {"1": 95, "5": 75}}
    assert row["drops"] == {
        "cars": {"fog": round(100 * 15 / 90, 2), "snow": round(100 * 40 / 90, 2)},
        "dtd": {"fog": 40, "snow": 15},
    }
    assert not {"cells_sd", "severities_sd"} & row.keys()
    assert "error_ratio" not in summarise(OURS, [7], CLEAN, None)


def test_means_and_deviations_over_seeds():
    lower = cells(OURS.accuracy - 10)
    both = cells(np.concatenate([OURS.accuracy, lower.accuracy]))
    again = cells(np.concatenate([PRETRAINED.accuracy] * 2))
    row = summarise(both, [0, 1], np.concatenate([CLEAN, CLEAN]), again)
    sd = round(10 / np.sqrt(2), 2)
    assert (row["avg"], row["avg_sd"]) == (62.5, sd)
    assert row["seeds"] == {"0": 67.5, "1": 57.5}
    assert row["severities_sd"] == {"1": sd, "5": sd}
    assert row["cells_sd"]["cars"]["fog"] == {"1": sd, "5": sd}
    means = [error_ratios(one, PRETRAINED)["mean"] for one in (OURS, lower)]
    assert row["error_ratio"]["mean"] == pytest.approx(np.mean(means), abs=0.01)
    assert row["error_ratio"]["mean_sd"] == pytest.approx(np.std(means, ddof=1), abs=0.01)


def test_one_severity_of_several():
    assert PRETRAINED.at(5).accuracy[0, :, 0].tolist() == [[40, 60], [30, 70]]
    assert error_ratios(OURS.at(5), PRETRAINED.at(5))["corruptions"]["fog"] == 100.0


def test_nothing_right_without_corruption_is_no_drop():
    row = summarise(OURS, [0], np.zeros((1, 2)), None)
    assert row["relative_drop"] == 0 and row["drops"]["cars"] == {"fog": 0, "snow": 0}


def test_error_ratios_are_no_accuracies_to_the_gate():
    row = summarise(OURS, [0], CLEAN, PRETRAINED)
    assert dict(averages({"clean": {"ties": row}})).keys() == {"clean/ties/avg"}
