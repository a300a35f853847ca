"""Figures on unseen tasks, against sums by hand and by other ways."""

from itertools import combinations

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.tasks import task_names
from pipeline.unseen import leave_two_out_rows, load_correct, pairs, save_correct, split_rows


def bits(text):
    return np.array([digit == "1" for digit in text])


def same_images(correct):
    """Each seed's images are its own."""
    return {
        task: [np.arange(len(one)) + 1000 * place for place, one in enumerate(seeds)]
        for task, seeds in correct.items()
    }


def test_every_pair_is_left_out_once():
    tasks = task_names("mini")
    found = pairs(tasks)
    assert len(found) == 28 and next(iter(found)) == "sun397+cars"
    assert {frozenset(pair) for pair in found.values()} == {
        frozenset((one, other)) for one in tasks for other in tasks if one != other
    }
    assert all(name.split("+") == list(pair) for name, pair in found.items())


def test_a_split_by_hand():
    method = {
        "a": [bits("1110"), bits("1111")],
        "b": [bits("1000"), bits("1111")],
        "c": [bits("1100"), bits("1111")],
    }
    reference = {
        "a": [bits("0000"), bits("0000")],
        "b": [bits("1100"), bits("0000")],
        "c": [bits("1111"), bits("1100")],
    }
    rows = split_rows(
        {"ties": method, "same": reference}, reference, ["a"], ["b", "c"], same_images(method)
    )
    interval = rows["ties"].pop("gap_interval")
    assert rows["ties"] == {
        "seen": 87.5,  # 75 and 100
        "seen_sd": 17.68,
        "unseen": 68.75,  # 37.5 and 100
        "unseen_sd": 44.19,
        "gap": 18.75,  # 37.5 - 75 and 100 - 25
        "gap_sd": 79.55,
        "tasks": {"a": 87.5, "b": 62.5, "c": 75.0},
    }
    assert interval[0] < 18.75 < interval[1]
    assert rows["same"]["gap"] == rows["same"]["gap_sd"] == 0
    assert rows["same"]["gap_interval"] == [0, 0]


def test_one_seed_has_no_deviation():
    right, wrong = {"a": [bits("11")], "b": [bits("11")]}, {"a": [bits("00")], "b": [bits("00")]}
    [row] = split_rows({"ties": right}, wrong, ["a"], ["b"], same_images(right)).values()
    assert row["gap"] == 100 and row["gap_sd"] == row["seen_sd"] == row["unseen_sd"] == 0
    assert row["gap_interval"] == [100, 100]


def test_the_interval_is_paired_and_of_unseen_tasks_alone():
    rng, count = np.random.default_rng(0), 2000
    reference = {task: [rng.random(count) < 0.6] for task in "abc"}
    # One image in twenty is another: a difference of images is far surer than of two samples.
    method = {task: [one ^ (rng.random(count) < 0.05)] for task, [one] in reference.items()}
    method["a"] = [rng.random(count) < 0.5]
    images = same_images(method)
    [row] = split_rows({"ties": method}, reference, ["a"], ["b", "c"], images).values()
    differences = [100.0 * method[t][0] - 100.0 * reference[t][0] for t in "bc"]
    error = np.sqrt(sum(one.var() / count for one in differences)) / 2
    middle = np.mean([one.mean() for one in differences])
    np.testing.assert_allclose(row["gap"], middle, atol=0.005)
    expected = [middle - 1.96 * error, middle + 1.96 * error]
    np.testing.assert_allclose(row["gap_interval"], expected, atol=0.1 * error)


def test_leaving_two_out_by_hand():
    reference = {"a": [bits("1100")], "b": [bits("1000")], "c": [bits("1111")]}
    by_pair = {
        "a+b": {"a": [bits("1110")], "b": [bits("0000")], "c": [bits("1111")]},
        "a+c": {"a": [bits("1111")], "b": [bits("1111")], "c": [bits("1110")]},
        "b+c": {"a": [bits("1111")], "b": [bits("0000")], "c": [bits("0000")]},
    }
    correct = {"ties": by_pair, "same": dict.fromkeys(by_pair, reference)}
    rows = leave_two_out_rows(correct, reference, ["a", "b", "c"], same_images(reference))
    interval = rows["ties"].pop("gap_interval")
    assert interval[0] < -16.67 < interval[1]
    assert rows["ties"] == {
        "seen": 100.0,
        "seen_sd": 0.0,
        "unseen": 41.67,  # 37.5, 87.5 and 0
        "unseen_sd": 0.0,
        "gap": -16.67,  # 0, 12.5 and -62.5
        "gap_sd": 0.0,
        "pairs": 3,
        "pairs_above_zero": 1,
        "tasks": {
            "a": {"unseen": 87.5, "gap": 37.5},
            "b": {"unseen": 0.0, "gap": -25.0},
            "c": {"unseen": 37.5, "gap": -62.5},
        },
        "by_pair": {
            "a+b": {"seen": 100.0, "unseen": 37.5, "gap": 0.0, "tasks": {"a": 25.0, "b": -25.0}},
            "a+c": {"seen": 100.0, "unseen": 87.5, "gap": 12.5, "tasks": {"a": 50.0, "c": -25.0}},
            "b+c": {"seen": 100.0, "unseen": 0.0, "gap": -62.5, "tasks": {"b": -25.0, "c": -100.0}},
        },
    }
    same = rows["same"]
    assert same["gap"] == 0 and same["gap_interval"] == [0, 0] and same["pairs_above_zero"] == 0


def test_averages_over_pairs_are_those_of_the_pairs():
    rng, tasks = np.random.default_rng(1), [*"abcde"]
    sizes = dict(zip(tasks, (40, 50, 60, 70, 80), strict=True))

    def drawn():
        return {t: [rng.random(n) < rng.random() for _ in range(3)] for t, n in sizes.items()}

    reference, by_pair = drawn(), {f"{a}+{b}": drawn() for a, b in combinations(tasks, 2)}
    images = same_images(reference)
    [row] = leave_two_out_rows({"ties": by_pair}, reference, tasks, images).values()
    seen, unseen, gap = (np.zeros((10, 3)) for _ in range(3))
    for place, (name, found) in enumerate(by_pair.items()):
        for seed in range(3):
            own = {task: 100 * found[task][seed].mean() for task in tasks}
            start = {task: 100 * reference[task][seed].mean() for task in tasks}
            seen[place, seed] = np.mean([own[task] for task in tasks if task not in name])
            unseen[place, seed] = np.mean([own[task] for task in name.split("+")])
            gap[place, seed] = unseen[place, seed] - np.mean([start[t] for t in name.split("+")])
        assert row["by_pair"][name]["gap"] == pytest.approx(gap[place].mean(), abs=0.006)
    for key, values in {"seen": seen, "unseen": unseen, "gap": gap}.items():
        assert row[key] == pytest.approx(values.mean(), abs=0.006)
        assert row[f"{key}_sd"] == pytest.approx(values.mean(axis=0).std(ddof=1), abs=0.006)
    assert row["pairs_above_zero"] == (gap.mean(axis=1) > 0).sum()
    # All pairs of a task are tested on the same images: the interval is not that of ten samples.
    assert row["gap_interval"][0] < row["gap"] < row["gap_interval"][1]


def test_what_is_kept_is_read_back(tmp_path):
    path = tmp_path / "cache" / "kept.npz"
    correct = {"file": bits("101"), "b": bits("0"), "c": bits("11")}
    save_correct(path, correct)
    found = load_correct(path, "it")
    assert list(found) == list(correct)
    for task, right in correct.items():
        assert found[task].dtype == bool
        np.testing.assert_array_equal(found[task], right)


@pytest.mark.parametrize("content", [b"", b"damaged", None])
def test_a_damaged_file_is_named(content, tmp_path):
    path = tmp_path / "kept.npz"
    if content is None:
        np.savez(path, tasks=np.array(["a", "b"]), images=[1, 1, 1], correct=np.ones(3, bool))
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"kept\.npz is damaged.* Delete it and run 'it'"):
        load_correct(path, "it")
