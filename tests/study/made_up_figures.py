"""Made-up figures of every study of docs/studies.md, as the stage writes them."""

import numpy as np
import torch

from pipeline.evaluation import Predictions
from pipeline.files import write_json
from pipeline.layout import Layout
from pipeline.study import budget, cost, entropy_loss, granularity, initial, selection, tasks
from pipeline.study.measuring import Measured
from pipeline.study.selection import Candidate
from pipeline.study.traces import Trace
from pipeline.study.variants import BEFORE, Result

TASKS = ["sun397", "cars", "resisc45", "eurosat", "svhn", "gtsrb", "mnist", "dtd"]
SEEDS = [3, 4, 5]
N = 1000
IMAGES = {task: [np.arange(N) + N * k for k in range(len(SEEDS))] for task in TASKS}


def model(share, seed, names=TASKS):
    """About so many of the images are right; entropies all alike."""
    rng = np.random.default_rng(seed)
    draws = {task: rng.random(N) for task in TASKS}
    right = {task: draws[task] < share for task in names}
    return Measured({task: np.full(4, 1.5 - share) for task in names}, right)


def results(share):
    def one(seed):
        facts = {"seconds_in_all": 6.5, "collapsed": {"mnist": 4} if share < 0.5 else {}}
        trace = Trace((0, 50 + seed), (0.0, 6.0), torch.zeros(2, 1, 8), facts)
        return Result(model(share + seed / 500, seed), trace)

    return {seed: one(seed) for seed in SEEDS}


def unlearned(share):
    return {seed: model(share, seed) for seed in SEEDS}


def made_up_budget():
    shares = {"1": 0.49, "4": 0.7, "16": 0.78, "64": 0.806, "256": 0.82, "all": 0.82}
    found = {BEFORE: {s: Result(m) for s, m in unlearned(0.76).items()}}
    return budget.summary(
        found | {name: results(share) for name, share in shares.items()}, IMAGES, [900] * 3
    )


def made_up_initial():
    names = [f"{value:g}" for value in initial.VALUES]
    ends = dict(zip(names, (0.81, 0.819, 0.82, 0.82, 0.8), strict=True))
    starts = dict(zip(names, (0.7, 0.77, 0.76, 0.72, 0.6), strict=True))
    return initial.summary(
        {name: results(share) for name, share in ends.items()},
        {name: unlearned(share) for name, share in starts.items()},
        IMAGES,
    )


def made_up_granularity():
    found = {BEFORE: {s: Result(m) for s, m in unlearned(0.76).items()}}
    shares = {"task": 0.784, "block": 0.81, "layer": 0.812}
    found |= {name: results(share) for name, share in shares.items()}
    return granularity.summary(found, IMAGES, {"task": 8, "block": 64, "layer": 1216})


def made_up_tasks(experts=96.0):
    drop = {"task_arithmetic": 0.03, "task_arithmetic_tuned": 0.028}
    drop |= {"adamerging_taskwise": 0.026, "adamerging_layerwise": 0.02}
    found = {
        count: {
            seed: {
                m: model(0.95 - drop[m] * (count - 1), seed, tasks.subsets(TASKS, seed)[count])
                for m in tasks.STUDIED
            }
            for seed in SEEDS
        }
        for count in range(2, 9)
    }
    own = {seed: dict.fromkeys(TASKS, experts) for seed in SEEDS}
    images = {seed: {t: IMAGES[t][k] for t in TASKS} for k, seed in enumerate(SEEDS)}
    return tasks.summary(found, own, images)


def made_up_entropy_loss():
    def predicted(task, seed):
        rng = np.random.default_rng([task, seed])
        entropies = rng.gamma(1.0, 0.5 + task / 20, N)
        chances = np.exp(-entropies * rng.uniform(0, 2.5, N))
        label, top = np.zeros(N, np.int64), np.zeros((N, 2), np.int16)
        return Predictions(np.arange(N), label, top, chances, chances, entropies, chances)

    found = {task: [predicted(k, seed) for seed in SEEDS] for k, task in enumerate(TASKS)}
    return entropy_loss.summary({method: found for method in entropy_loss.METHODS})


def made_up_cost():
    methods = ["task_arithmetic", "ties", "wudi", "regmean", "emr"]
    methods += ["adamerging_taskwise", "adamerging_layerwise", "task_arithmetic_tuned"]
    records = {
        name: {
            "seconds": 0.04 * 2.2**k,
            "before_gb": 0.45,
            "peak_gb": 0.5 + 0.1 * k,
            "steps": 56 * name.startswith("ada"),
        }
        for k, name in enumerate(methods)
    }
    return cost.summary(records) | {"cost_seed": 3}


def made_up_selection():
    def one(share, seed, k):
        scores = {"entropy": 1.0 / (k + 1), "infomax": 1.0 + k % 5, "snd": abs(k - 3.5)}
        return Candidate(scores | {"accuracy": 100 * share}, model(share, seed))

    def choice(names, best):
        return {
            name: {s: one(0.8 - abs(k - best) / 90, s, k) for s in SEEDS}
            for k, name in enumerate(names)
        }

    steps = [str(step) for step in range(0, 501, 50)]
    variants = ["initial 0.1", "task-wise", "diversity", "distillation", "entropy"]
    choices = {f"step/{method}": choice(steps, 7) for method in tasks.LEARNED[::-1]}
    return selection.summary(choices | {"variant": choice(variants, 2)}, IMAGES)


MADE = {
    "entropy_loss": made_up_entropy_loss,
    "budget": made_up_budget,
    "initial": made_up_initial,
    "granularity": made_up_granularity,
    "tasks": made_up_tasks,
    "cost": made_up_cost,
    "selection": made_up_selection,
}


def write_figures(folder):
    """metrics/study/ of a made-up project."""
    layout = Layout(folder, "study")
    machine = {"cpu": "a CPU", "cores": 2, "device": "cpu", "system": "Linux", "python": "3.11"}
    facts = {
        "seeds": SEEDS,
        "eval_images": N,
        "machines": [machine | {"torch": "2.15"}],
        "git": {"commit": "0123456789abcdef", "dirty": False},
    }
    for name, make in MADE.items():
        write_json(layout.metric(name), {**facts, **make()})
    return layout
