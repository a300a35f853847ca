"""The guard against collapse: what it takes for one, and what it keeps."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pipeline.clip import ImageEncoder
from pipeline.learning import FitData, LearningOptions, learn_coefficients
from pipeline.learning.collapse import SHARE, WINDOW, Guard, tells
from pipeline.vectors import TaskVectors


def watched(shares, which=(True, True)):
    """A guard that saw `shares` [steps, tasks]; after step k all raw values are k."""
    raw = torch.zeros(3, len(which))
    guard = Guard(raw, which)
    for step in range(1, len(shares) + 1):
        guard.watch(shares[:step], raw.fill_(step))
    return guard


def test_healthy_shares_are_no_collapse():
    guard = watched(torch.full((50, 2), SHARE - 0.01))
    assert guard.since.tolist() == [0, 0]


@pytest.mark.parametrize("begin", [0, 3, 10, 24])
def test_step_at_which_a_whole_window_was_concentrated(begin):
    shares = torch.full((40, 2), 0.4)
    shares[begin:, 1] = 1.0
    # 0.4 in k of 10 steps and 1.0 in the others reaches the share once k is 0.
    assert watched(shares[: begin + WINDOW - 1]).since.tolist() == [0, 0]
    assert watched(shares).since.tolist() == [0, begin + WINDOW]


def test_a_collapse_that_passes_stays_named():
    shares = torch.full((40, 2), 0.4)
    shares[5:20, 0] = 1.0
    assert watched(shares).since.tolist() == [15, 0]


def test_single_steps_do_not_count():
    shares = torch.full((60, 2), 0.5)
    shares[::2] = 1.0
    assert watched(shares).since.tolist() == [0, 0]


def test_task_whose_shares_tell_nothing_is_left_alone():
    assert watched(torch.ones(30, 2), (False, True)).since.tolist() == [0, WINDOW]
    assert [tells(*case) for case in ((1, 16), (2, 16), (5, 1), (5, 16))] == [0, 1, 0, 1]


@pytest.mark.parametrize("begin", range(0, 45))
def test_kept_coefficients_are_from_a_window_before_the_trouble(begin):
    shares = torch.full((begin + 15, 2), 0.4)
    shares[begin:, 0] = 1.0
    guard = watched(shares)
    found, since = int(guard.good[0, 0]), int(guard.since[0])
    assert since == begin + WINDOW
    assert (guard.good == found).all()
    # Before its predictions concentrated, but not needlessly far.
    assert found <= max(0, since - 1 - WINDOW)
    assert found >= since - 3 * WINDOW


def test_guard_goes_on_from_its_state():
    shares = torch.full((40, 2), 0.4)
    shares[20:, 1] = 1.0
    raw, whole = torch.zeros(3, 2), watched(shares)
    for stop in range(1, 40):
        first, second = watched(shares[:stop]), Guard(raw, (True, True))
        second.restore({name: tensor.clone() for name, tensor in first.state().items()})
        for step in range(stop + 1, 41):
            second.watch(shares[:step], torch.full((3, 2), float(step)))
        for name, tensor in whole.state().items():
            assert torch.equal(second.state()[name], tensor)


class Bent(nn.Module):
    """Features are pixels, turned towards one class by the bias."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(48, 12)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.linear(pixels.flatten(1))


@pytest.fixture
def collapsing():
    """Task vectors of which the second gives all images one class, with certainty."""
    torch.manual_seed(0)
    encoder = ImageEncoder(Bent(), (0.5,) * 3, (0.25,) * 3)
    heads = {task: F.normalize(torch.randn(4, 12), dim=1) for task in ("mnist", "dtd")}
    start = encoder.weights()
    moved = {name: torch.stack([torch.zeros_like(t)] * 2) for name, t in start.items()}
    moved["visual.linear.bias"][1] = 20 * (heads["mnist"][0] + heads["dtd"][2])
    rng = np.random.default_rng(0)
    images = {task: rng.integers(0, 256, (60, 3, 4, 4), dtype=np.uint8) for task in heads}
    return TaskVectors(tuple(heads), start, moved), FitData(encoder, 5.0, heads, images)


def options(**more):
    chosen = {"steps": 80, "lr": 0.003, "initial": 0.02, "granularity": "task"}
    return LearningOptions(**chosen | more)


def test_collapse_by_construction_is_named_and_goes_on(collapsing):
    learned = learn_coefficients(*collapsing, options())
    shares = learned.history["share"]
    since = learned.facts["collapsed"]
    assert len(shares) == learned.facts["steps"] == 80
    assert learned.facts["stopped"] == ""
    for k, task in enumerate(("mnist", "dtd")):
        windows = shares[:, k].unfold(0, WINDOW, 1).mean(1)
        assert windows[0] < SHARE <= windows[-1]
        assert since[task] == int((windows >= SHARE).nonzero()[0]) + WINDOW
    # The entropy, meanwhile, looks better and better.
    assert (learned.history["entropy"][-1] < learned.history["entropy"][0] - 0.2).all()


def test_restore_keeps_coefficients_from_before(collapsing):
    warned = learn_coefficients(*collapsing, options())
    learned = learn_coefficients(*collapsing, options(on_collapse="restore"))
    first = min(warned.facts["collapsed"].values())
    assert learned.facts["steps"] == len(learned.history["loss"]) == first < 80
    assert set(learned.facts["collapsed"].values()) == {first}
    assert "collapsed" in learned.facts["stopped"]
    # Its coefficients are those that a step from before the trouble began with.
    series = warned.history["coefficients"]
    [step] = [k for k in range(80) if torch.equal(series[k], learned.values[0])]
    assert 0 < step <= first - 1 - WINDOW
    assert warned.history["share"][step].max() < SHARE


@pytest.mark.parametrize("at", [1, 15, 29, None])
@pytest.mark.parametrize("on_collapse", ["warn", "restore"])
def test_guard_survives_an_interruption(collapsing, tmp_path, monkeypatch, at, on_collapse):
    monkeypatch.setattr("pipeline.learning.run.SECONDS_BETWEEN_SAVES", 0.0)
    chosen, state = options(on_collapse=on_collapse), tmp_path / "state.safetensors"
    whole = learn_coefficients(*collapsing, chosen)
    at = at or whole.facts["steps"]  # that is where the collapse ends it

    class Stop(BaseException):
        pass

    def stop(progress):
        if progress.step == at:
            raise Stop

    with pytest.raises(Stop):
        learn_coefficients(*collapsing, chosen, state=state, on_step=stop)
    rest = learn_coefficients(*collapsing, chosen, state=state)
    assert torch.equal(rest.values, whole.values)
    for name in ("steps", "stopped", "collapsed"):
        assert rest.facts[name] == whole.facts[name]
