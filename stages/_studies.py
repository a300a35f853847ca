"""The studies: what each of them learns and measures, seed by seed. stages/study.py runs them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages._bench import Bench
from stages._stage import Stage

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from pipeline.statistics import Images
    from pipeline.study.schedules import Curve
    from pipeline.study.selection import Candidate
    from pipeline.study.traces import Trace
    from pipeline.study.variants import Result

Figures = dict[str, Any]


@dataclass(frozen=True)
class Study:
    """One question. `make`: the stage and a bench for every seed -> its figures."""

    make: Callable[[Stage, Sequence[Bench]], Figures]
    summary: str
    predictions: tuple[str, ...] = ()  # methods whose predictions of `evaluate` it reads
    select: bool = False  # whether it reads the split `select`


# ---- Schedules and objectives: docs/learning.md


def schedules(run: Stage, benches: Sequence[Bench]) -> Figures:
    """Quality against time of both schedules."""
    from pipeline.study.schedules import REFERENCE, RIVAL, STUDIED, summary

    methods = {}
    for method in STUDIED:
        found = {b.seed: {s: curve(b, method, s) for s in (REFERENCE, RIVAL)} for b in benches}
        methods[method] = summary(found)
    return {"methods": methods}


def curve(bench: Bench, method: str, schedule: str) -> "Curve":
    """A method's run of learning with every snapshot measured."""
    from pipeline.study.schedules import Curve

    name = f"{method}/{schedule}"
    trace = bench.trace(name, bench.options(method, schedule))
    measured = []
    with bench.run.progress(f"measuring (seed {bench.seed})", len(trace.steps)) as update:
        for place, step in enumerate(trace.steps):
            measured.append(bench.measured(trace.values[place]))
            update(place + 1, f"{name} step {step}: accuracy {measured[-1].accuracy:.1f} %")
            bench.run.log({f"{name}/{bench.seed}/accuracy": measured[-1].accuracy}, step)
    return Curve(trace, measured)


def objectives(run: Stage, benches: Sequence[Bench]) -> Figures:
    """What is minimised, and two details of the paper."""
    from pipeline.study.objectives import CASES, rows

    ends = {}
    for case in CASES:
        ends[case] = {bench.seed: objective(bench, case) for bench in benches}
    return {
        "rows": rows(
            {c: {s: (_trace(r), r.measured) for s, r in own.items()} for c, own in ends.items()}
        )
    }


def objective(bench: Bench, case: str) -> "Result":
    """The end of learning with one detail changed."""
    from pipeline.study.objectives import CASES, METHOD, SCHEDULE

    return learned(bench, case, METHOD, SCHEDULE, **CASES[case])


def learned(
    bench: Bench,
    name: str,
    method: str,
    schedule: str = "fast",
    images: int | None = None,
    **changes: Any,
) -> "Result":
    """Where a run of learning ends, measured."""
    from pipeline.study.variants import Result

    trace = bench.trace(name, bench.options(method, schedule, **changes), images)
    measured = bench.measured(trace.values[-1])
    bench.run.log({f"{name}/{bench.seed}/accuracy": measured.accuracy}, trace.steps[-1])
    return Result(measured, trace)


def _trace(result: "Result") -> "Trace":
    assert result.trace is not None
    return result.trace


# ---- docs/studies.md


def entropy_loss(run: Stage, benches: Sequence[Bench]) -> Figures:
    """Whether entropy stands for the loss."""
    from pipeline.study.entropy_loss import METHODS, summary
    from stages.evaluate import load

    tasks = run.config.profile.tasks
    return summary({m: {task: load(run, m, task) for task in tasks} for m in METHODS})


def budget(run: Stage, benches: Sequence[Bench]) -> Figures:
    """Accuracy against the number of unlabeled images."""
    from pipeline.study.budget import ALL, METHOD, sizes, summary
    from pipeline.study.variants import BEFORE, Result

    results: dict[str, dict[int, Result]] = {BEFORE: before(benches)}
    for size in sizes(min(bench.unlabeled for bench in benches)):
        results[str(size)] = {
            b.seed: learned(b, f"budget/{size}", METHOD, images=size) for b in benches
        }
    results[ALL] = {b.seed: learned(b, f"budget/{ALL}", METHOD) for b in benches}
    return summary(results, images_of(run, benches), [b.unlabeled for b in benches])


def initial(run: Stage, benches: Sequence[Bench]) -> Figures:
    """Accuracy against the first value of the coefficients."""
    from pipeline.study.initial import METHOD, VALUES, summary

    results = {
        f"{value:g}": {
            b.seed: learned(b, f"initial/{value:g}", METHOD, initial=value) for b in benches
        }
        for value in VALUES
    }
    starts = {f"{value:g}": {b.seed: b.uniform(value) for b in benches} for value in VALUES}
    return summary(results, starts, images_of(run, benches))


def granularity(run: Stage, benches: Sequence[Bench]) -> Figures:
    """One coefficient per task, block or tensor."""
    from pipeline.learning.granularity import rows_of
    from pipeline.study.granularity import METHODS, summary
    from pipeline.study.variants import BEFORE, Result

    results: dict[str, dict[int, Result]] = {BEFORE: before(benches)}
    counts = {}
    for name, method in METHODS.items():
        found = {b.seed: learned(b, f"granularity/{name}", method) for b in benches}
        results[name] = found
        wanted = benches[0].options(method).granularity
        counts[name] = len(set(rows_of(benches[0].layers, wanted))) * len(benches[0].tasks)
    return summary(results, images_of(run, benches), counts)


def tasks(run: Stage, benches: Sequence[Bench]) -> Figures:
    """Methods on 2, 3, ... tasks."""
    from pipeline.evaluation import accuracy
    from pipeline.study.tasks import COEFFICIENT, LEARNED, TUNED, UNIFORM, subsets, summary
    from stages.evaluate import load

    whole = run.config.profile.tasks
    found: dict[int, dict[int, dict[str, Any]]] = {}
    tuned: dict[int, list[float]] = {}
    for bench in benches:
        for count, chosen in subsets(whole, bench.seed).items():
            few = bench if len(chosen) == len(whole) else Bench(run, bench.seed, chosen)
            value = few.tuned()
            own = {UNIFORM: few.uniform(COEFFICIENT), TUNED: few.uniform(value)}
            own |= {m: learned(few, f"tasks/{count}/{m}", m).measured for m in LEARNED}
            found.setdefault(count, {})[bench.seed] = own
            tuned.setdefault(count, []).append(value)
            if few is not bench:
                bench.machines += few.machines
    predicted = {task: load(run, "experts", task) for task in whole}
    experts = {
        bench.seed: {task: accuracy(predicted[task][k]) for task in whole}
        for k, bench in enumerate(benches)
    }
    places = images_of(run, benches)
    images = {b.seed: {t: places[t][k] for t in whole} for k, b in enumerate(benches)}
    return {**summary(found, experts, images), "tuned": {str(n): v for n, v in tuned.items()}}


def selection(run: Stage, benches: Sequence[Bench]) -> Figures:
    """Choices without labels against the oracle."""
    from pipeline.study import initial as starts
    from pipeline.study import objectives as objective_cases
    from pipeline.study.schedules import REFERENCE, STUDIED
    from pipeline.study.selection import summary

    choices: dict[str, dict[str, dict[int, Candidate]]] = {}
    for method in STUDIED:
        found = choices.setdefault(f"step/{method}", {})
        for bench in benches:
            trace = bench.trace(f"{method}/{REFERENCE}", bench.options(method, REFERENCE))
            for place, step in enumerate(trace.steps):
                found.setdefault(str(step), {})[bench.seed] = candidate(bench, trace.values[place])
    usual = run.config.profile.learn.initial
    variants: dict[str, Callable[[Bench], Result]] = {
        **{f"initial {v:g}": _starting_at(v) for v in starts.VALUES if v != usual},
        "task-wise": lambda bench: learned(bench, "task-wise", "adamerging_taskwise"),
        "block-wise": lambda bench: learned(bench, "block-wise", "adamerging_blockwise"),
        **{case: _objective(case) for case in reversed(objective_cases.CASES)},  # the paper's last
    }
    choices["variant"] = {
        name: {b.seed: candidate(b, _trace(make(b)).values[-1]) for b in benches}
        for name, make in variants.items()
    }
    return summary(choices, images_of(run, benches))


def _starting_at(value: float) -> "Callable[[Bench], Result]":
    from pipeline.study.initial import METHOD

    return lambda bench: learned(bench, f"initial/{value:g}", METHOD, initial=value)


def _objective(case: str) -> "Callable[[Bench], Result]":
    return lambda bench: objective(bench, case)


def candidate(bench: Bench, values: "Tensor") -> "Candidate":
    """Coefficients with what can be said of their merge."""
    from pipeline.study.selection import Candidate

    return Candidate(bench.scores(values), bench.measured(values))


def cost(run: Stage, benches: Sequence[Bench]) -> Figures:
    """Seconds and memory of every method, under the first seed."""
    from pipeline.study.cost import summary
    from stages._cost import record_of

    bench, methods = benches[0], [m for m in run.config.methods if m != "experts"]
    records = {}
    with run.progress("measuring costs", len(methods)) as update:
        for done, method in enumerate(methods, start=1):
            records[method] = record_of(run, bench.seed, method)
            bench.machines.append(records[method]["machine"])
            update(done, method)
    return {**summary(records), "cost_seed": bench.seed}


def before(benches: Sequence[Bench]) -> "dict[int, Result]":
    """What learning starts from: task arithmetic with the profile's first value."""
    from pipeline.study.variants import Result

    start = benches[0].run.config.profile.learn.initial
    return {bench.seed: Result(bench.uniform(start)) for bench in benches}


def images_of(run: Stage, benches: Sequence[Bench]) -> "Images":
    """Task -> for every seed the numbers of the images tested on."""
    from stages._inputs import image_numbers, images_count

    found: Mapping[str, Sequence[np.ndarray]] = {
        task: image_numbers(run, task, [images_count(run, b.seed, task, "eval") for b in benches])
        for task in run.config.profile.tasks
    }
    return found


STUDIES: dict[str, Study] = {
    "schedules": Study(schedules, "both schedules against time"),
    "objectives": Study(objectives, "what is minimised"),
    "entropy_loss": Study(
        entropy_loss, "entropy against loss", ("task_arithmetic", "adamerging_layerwise")
    ),
    "budget": Study(budget, "numbers of unlabeled images"),
    "initial": Study(initial, "first values of coefficients"),
    "granularity": Study(granularity, "coefficients per task, block or tensor"),
    "tasks": Study(tasks, "numbers of tasks", ("experts",), select=True),
    "cost": Study(cost, "seconds and memory of methods"),
    "selection": Study(selection, "choices without labels", select=True),
}
