"""Made-up models, runs of learning and figures of the studies."""

import numpy as np
import torch

from pipeline.files import write_json
from pipeline.layout import Layout
from pipeline.study import objectives, schedules
from pipeline.study.measuring import Measured
from pipeline.study.traces import Trace

IMAGES = 100


def model(right, nats=1.0, ripple=0.0):
    """A made-up model: so many of each task's images are right, the first ones; entropies about
    `nats`, with a `ripple` that cancels."""
    waves = np.where(np.arange(IMAGES) % 2, ripple, -ripple)
    return Measured(
        {task: np.full(IMAGES, nats) + waves for task in ("a", "b")},
        {task: np.arange(IMAGES) < right for task in ("a", "b")},
    )


def curve(steps, seconds, models, collapsed=()):
    facts = {"stopped": "", "collapsed": dict.fromkeys(collapsed, 3), "seconds_in_all": 9.0}
    return schedules.Curve(Trace(steps, seconds, torch.zeros(len(steps), 1, 2), facts), models)


def two_seeds(last=85):
    """Seed 0: the rival is as good at step 10. Seed 1: its last snapshot has `last` right."""
    paper = curve((0, 100, 400, 500), (0.0, 10.0, 40.0, 50.0), [model(r) for r in (20, 60, 80, 80)])
    fast = curve((0, 10, 20), (0.0, 2.0, 4.0), [model(20), model(80), model(85)])
    other = curve((0, 10, 16), (0.0, 2.0, 5.0), [model(20), model(50), model(last)], ["a"])
    return {0: {"paper": paper, "fast": fast}, 1: {"paper": paper, "fast": other}}


def ablation():
    ends = {"diversity": 90, "distillation": 60}
    return {
        case: {
            seed: (curve((0, 10 + seed), (0.0, 1.0), [], ["a"]).trace, model(ends.get(case, 80)))
            for seed in (0, 1)
        }
        for case in objectives.CASES
    }


def write_metrics(folder, curves):
    layout = Layout(folder, "study")
    machine = {"cpu": "a CPU", "cores": 2, "device": "cpu", "system": "Linux", "python": "3.11"}
    facts = {
        "seeds": [0, 1],
        "unlabeled_images": 256,
        "eval_images": IMAGES,
        "noise_standard_errors": 2.0,
        "machines": [machine | {"torch": "2.15"}],
        "git": {"commit": "0123456789abcdef", "dirty": False},
    }
    methods = {method: schedules.summary(curves) for method in schedules.STUDIED}
    write_json(layout.metric("schedules"), {**facts, "methods": methods})
    write_json(layout.metric("objectives"), {**facts, "rows": objectives.rows(ablation())})
    return layout
