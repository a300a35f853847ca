"""The benchmark: its counts, its re-creations, and the page that it writes. Nothing is timed."""

import json
import re
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import typer
from open_clip import get_model_config
from tiny import ROOT
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import learning_step, machine, measure
from benchmarks.authors import RecreatedAuthorsStep
from benchmarks.estimates import (
    fit,
    held_out_error,
    passes_and_merges,
    step_memory,
    step_seconds,
)
from benchmarks.floor import floor_seconds, forward_flops, parameters
from benchmarks.ours import Ours
from benchmarks.plot import draw
from benchmarks.problem import INITIAL, deltas, heads, mean_entropy, pixels, tower
from benchmarks.report import MARK, PAGE, blocks
from benchmarks.settings import (
    AUTHORS,
    BFLOAT16,
    METHODS,
    ONEDNN,
    PLANS,
    TOLERANCES,
    TRUNKS,
    VIT_B_32,
    Problem,
    Setting,
    Trunk,
)
from benchmarks.workers import Workers
from pipeline.errors import UserError
from pipeline.readme import fill

SMALL = Trunk(image=32, patch=16, width=16, layers=3, head_width=8, embedding=12)
PROBLEM = Problem(SMALL, tasks=3, batch=2, classes=(5, 4, 7))
RATES = {
    "float32_flops_per_s": 1e11,
    "onednn_flops_per_s": 2e11,
    "bfloat16_flops_per_s": 4e11,
    "bytes_per_s": 1e10,
}
SAMPLE = {"cpu_s": 1.0, "wall_s": 2.0}
FLOAT32 = 1e-4  # error of a gradient relative to its norm


# ---- What is counted


def test_the_default_trunk_is_open_clips():
    found = get_model_config("ViT-B-32")
    vision = found["vision_cfg"]
    assert (vision["image_size"], vision["patch_size"]) == (VIT_B_32.image, VIT_B_32.patch)
    assert (vision["width"], vision["layers"]) == (VIT_B_32.width, VIT_B_32.layers)
    assert found["embed_dim"] == VIT_B_32.embedding
    assert vision.get("head_width", 64) == VIT_B_32.head_width
    assert vision.get("mlp_ratio", 4.0) == 4.0


@pytest.mark.parametrize("trunk", [SMALL, VIT_B_32])
def test_parameters_are_those_of_the_tower(trunk):
    with torch.device("meta"):
        built = tower(replace(PROBLEM, trunk=trunk))
    assert parameters(trunk) == sum(weight.numel() for weight in built.parameters())


def test_operations_are_those_that_torch_counts():
    images = torch.zeros(2, 3, SMALL.image, SMALL.image)
    with FlopCounterMode(display=False) as counter:
        tower(PROBLEM)(images)
    assert 2 * forward_flops(SMALL) == counter.get_total_flops()


def test_the_floor_adds_multiplications_and_traffic():
    operations = 3 * forward_flops(SMALL) * 6
    traffic = 4 * parameters(SMALL) * (2 * 3 + 3)
    assert floor_seconds(PROBLEM, operations, traffic) == 2
    assert floor_seconds(PROBLEM, operations / 2, traffic) == 3


def test_rates_are_those_of_the_clock(monkeypatch):
    monkeypatch.setattr(machine, "READ", 10)
    monkeypatch.setattr(machine, "FLOPS", {"cpu": 1})
    monkeypatch.setattr(machine, "timed", lambda device, call: (call(), {"cpu_s": 0.5}))
    rates = machine.Machine(PROBLEM).rates()
    rows = 6 * SMALL.tokens
    products = 2 * rows * 16 * 64 / 0.5
    assert rates.pop("bytes_per_s") == 2 * 40 / 0.5
    assert set(rates.values()) == {products}
    assert {"float32_flops_per_s", "bfloat16_flops_per_s"} <= set(rates)


def test_a_rate_at_less_than_float32_precision_is_not_told(monkeypatch):
    built = machine.Machine(PROBLEM)
    monkeypatch.setattr(built, "_multiply", lambda dtype: 1.0)
    monkeypatch.setattr(built, "_read", lambda: 1.0)
    monkeypatch.setattr(machine, "PRECISE", 1.0)
    assert "onednn_flops_per_s" in built.rates()
    monkeypatch.setattr(machine, "PRECISE", 0.0)
    assert "onednn_flops_per_s" not in built.rates()


def test_the_switch_of_products_is_put_back():
    before = torch.get_float32_matmul_precision()
    with machine.products(onednn=False):
        assert torch.get_float32_matmul_precision() == before
    with machine.products(onednn=True):
        assert torch.get_float32_matmul_precision() == "medium"
    assert torch.get_float32_matmul_precision() == before


# ---- What is compared


def plain(problem, draws):
    """The gradient by autograd through one merge, task after task."""
    visual = tower(problem)
    changes = dict(deltas(problem, visual))
    raw = torch.full((len(changes), problem.tasks), INITIAL, requires_grad=True)
    merged = {
        name: weight.detach() + torch.tensordot(row, changes[name], dims=1)
        for (name, weight), row in zip(visual.named_parameters(), raw, strict=True)
    }
    for draw_number in range(draws):
        for batch, head in zip(pixels(problem, draw_number), heads(problem), strict=True):
            mean_entropy(functional_call(visual, merged, (batch,)), head).backward(
                retain_graph=True
            )
    return raw.grad


def difference(found, expected):
    return ((torch.tensor(found) - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("batches", [1, 2])
def test_the_recreated_step_is_plain_autograd(batches):
    step = RecreatedAuthorsStep(PROBLEM)
    step.step(batches=batches)
    assert difference(step.gradient(), plain(PROBLEM, batches)) < FLOAT32


def test_the_recreated_step_fills_gradients_that_nothing_clears():
    step = RecreatedAuthorsStep(PROBLEM)
    step.step(batches=1)
    terms = [term for terms in step._terms.values() for term in terms]
    before = [term.grad.clone() for term in terms]
    step.step(batches=1)
    assert any(not torch.equal(term.grad, old) for term, old in zip(terms, before, strict=True))
    assert len(terms) == len(step._terms) * (PROBLEM.tasks + 1)


@pytest.mark.parametrize(("half", "error"), [(False, FLOAT32), (True, TOLERANCES["ours_float16"])])
def test_our_step_is_plain_autograd(half, error):
    step = Ours(PROBLEM, half=half)
    step.step()
    assert difference(step.gradient(), plain(PROBLEM, 1)) < error


def test_bfloat16_passes_give_nearly_the_same_gradient():
    step = Ours(PROBLEM)
    step.step("bfloat16")
    assert FLOAT32 < difference(step.gradient(), plain(PROBLEM, 1)) < 0.5  # 16 channels only


def test_all_steps_have_the_same_loss_and_go_on():
    ours, authors = Ours(PROBLEM), RecreatedAuthorsStep(PROBLEM)
    losses = [(ours.step(), authors.step(batches=1)) for _ in range(3)]
    assert all(mine == pytest.approx(theirs, rel=1e-5) for mine, theirs in losses)
    assert len({mine for mine, _ in losses}) == 3


def test_the_gate_is_shut_where_gradients_differ(monkeypatch):
    gradients = {method: [3.0, 4.0] for method in METHODS}
    monkeypatch.setattr(measure, "_gradient", lambda workers, method: gradients[method])
    assert measure.gate(None) == dict.fromkeys(TOLERANCES, 0)
    assert "ours_bfloat16" not in measure.gate(None, ["ours_bfloat16"])
    for wrong in ([3.0, 4.01], [3.0, float("nan")]):
        gradients["fusion_bench"] = wrong
        with pytest.raises(UserError, match="FusionBench: its gradient differs"):
            measure.gate(None)


def test_workers_answer_and_say_when_they_end():
    workers = Workers(ROOT, {False: Path(sys.executable)}, "cpu")
    with ExitStack() as stack:
        worker = workers.start(stack, METHODS["authors"], PROBLEM)
        answer = worker.call("step", batches=1)
        found = worker.call("gradient")["value"]
        with pytest.raises(UserError, match="two batches: its process ended with code 1"):
            worker.call("nothing")
    assert answer["peak_bytes"] >= worker.facts["baseline_bytes"] > 0
    assert answer["cpu_s"] > 0 and answer["wall_s"] > 0
    assert difference(found, plain(PROBLEM, 1)) < FLOAT32
    assert workers.versions["project"]["torch"] == version("torch")


def test_methods_take_turns_and_share_workers(monkeypatch):
    started, steps = [], []

    class Recorder:
        facts = {"baseline_bytes": 0}  # noqa: RUF012

        def __init__(self, name):
            self.name = name
            started.append(name)

        def call(self, name):
            return {"value": RATES}

        def step(self, method):
            steps.append((self.name, method))
            return {"value": 0.0, "cpu_s": 1.0, "wall_s": 2.0, "peak_bytes": 9}

    class Recorders:
        device = "cpu"

        def start(self, stack, method, problem):
            return Recorder(method.place.partition(":")[2])

    setting = Setting("vit", 4, 16, (("ours", "fusion_bench"), AUTHORS), 2)
    found = measure.time_steps(Recorders(), setting)
    methods = ("ours", "fusion_bench", *AUTHORS)
    assert [found["methods"][name]["samples"] for name in methods] == [[SAMPLE] * 2] * 4
    assert [found["methods"][name]["first"] for name in methods] == [SAMPLE] * 4
    assert found["rates"] == [RATES] * 4
    ours, peer, one, two = (METHODS[name] for name in methods)
    assert [method for _, method in steps] == [
        *(ours, peer, ours, peer, peer, ours),
        *(one, two, one, two, two, one),
    ]
    authors = "RecreatedAuthorsStep"
    assert started == ["Machine", "Ours", "FusionBenchLoop", "Machine", authors]


def test_methods_that_the_machine_gains_nothing_from_are_named():
    class Recorder:
        def __init__(self, rates):
            self.rates = rates

        def start(self, stack, method, problem):
            return self

        def call(self, name):
            return {"value": self.rates}

    assert measure.no_gain(Recorder(RATES)) == ()
    slow = {"float32_flops_per_s": 1.0, "bfloat16_flops_per_s": 0.5}
    assert set(measure.no_gain(Recorder(slow))) == {*BFLOAT16, *ONEDNN}


# ---- What is reported


@pytest.fixture(scope="module")
def figures():
    """A full run in which every cost is known: one of T and T (T + 1), and memory of T."""
    clocks = {"ours": (2, 0), "ours_float16": (2.5, 0), "ours_bfloat16": (0.5, 0)}
    clocks |= {"fusion_bench": (3, 1), "fusion_bench_bfloat16": (1, 1)}
    clocks |= {"fusion_bench_onednn": (2, 1)}
    clocks |= {"authors_one": (3, 2), "authors": (6, 4)}
    settings = []
    for setting in PLANS["full"].settings:
        found = {}
        for method in (name for group in setting.groups for name in group):
            a, b = clocks[method]
            seconds = a * setting.tasks + b * setting.tasks * (setting.tasks + 1)
            sample = {"cpu_s": seconds, "wall_s": 2 * seconds}
            found[method] = {"first": sample, "samples": [sample] * setting.rounds}
        settings.append(
            {
                "trunk": setting.trunk,
                "tasks": setting.tasks,
                "batch": setting.batch,
                "groups": setting.groups,
                "rates": [RATES] * setting.rounds,
                "methods": found,
            }
        )
    memory = [
        {"method": name, "tasks": tasks, "baseline_bytes": 1e9, "peak_bytes": (2 + tasks) * 1e9}
        for name, tasks in PLANS["full"].memory
    ]
    versions = {"python": "3", "torch": "2", "open_clip_torch": "3"}
    return {
        "plan": "full",
        "date": "2020-01-02T03:04:05+00:00",
        "seconds": 600.0,
        "git": {"commit": None, "dirty": False},
        "machine": {"system": "S", "cpu": "C", "cores": 2, "device": "cpu"},
        "versions": {"project": versions, "peers": versions | {"fusion-bench": "0"}},
        "clock": "cpu_s",
        "gate": dict.fromkeys(TOLERANCES, 1e-6),
        "settings": settings,
        "memory": memory,
    }


def test_a_cost_is_found_again_from_two_points():
    cost = fit({2: 3 * 2 + 2 * 6, 4: 3 * 4 + 2 * 20}, passes_and_merges)
    assert cost(20) == pytest.approx(3 * 20 + 2 * 420)


@pytest.mark.parametrize("points", [{}, {2: 1.0}, {2: 10.0, 4: 12.0}])
def test_too_few_points_or_contradicting_ones_are_not_continued(points):
    assert fit(points, passes_and_merges) is None


def test_only_what_was_not_measured_is_extrapolated(figures):
    for trunk in TRUNKS:
        table = step_seconds(figures, trunk)
        for setting in (s for s in figures["settings"] if s["trunk"] == trunk):
            row = table[setting["tasks"]]
            measured = {name for name, estimate in row.items() if not estimate.extrapolated}
            assert measured == {*setting["methods"], "floor"}
            assert set(row) - measured <= set(AUTHORS)
    assert step_seconds(figures, "vit")[20]["authors"].value == pytest.approx(6 * 20 + 4 * 420)
    memory = step_memory(figures)
    assert memory[8]["authors"].extrapolated and not memory[8]["ours"].extrapolated
    assert memory[8]["authors"].value == pytest.approx(9e9)


def test_extrapolation_is_checked_where_it_was_measured(figures):
    assert held_out_error(step_seconds(figures, "two_blocks"), "authors") == pytest.approx(0)
    assert held_out_error(step_seconds(figures, "vit"), "authors") is None


def test_extrapolated_cells_are_marked_and_no_others(figures):
    marked = [
        (line.split(" | ")[0], cell.split()[0])
        for line in blocks(figures)["step-seconds"].splitlines()
        for cell in line.split(" | ")
        if MARK in cell
    ]
    costs = [(t, a * t + b * t * (t + 1)) for t in (8, 14, 20) for a, b in ((3, 2), (6, 4))]
    assert marked == [(f"| {tasks}", f"{cost:.0f}") for tasks, cost in costs]
    ratios = blocks(figures)["step-ratios"].splitlines()[-1]
    assert ratios.count(MARK) == 2 and f"| {(3 * 20 + 420) / 40:.2f} |" in ratios


def test_variants_are_compared_with_their_like(figures):
    made = blocks(figures)
    # With 20 tasks this project takes 40 seconds, 10 in bfloat16; the peer 480, 460 and 440.
    assert made["step-bfloat16"].splitlines()[-1] == "| 20 | 44.00 | 4.00 |"
    assert made["step-onednn"].splitlines()[-1] == "| 20 | 11.50 | 1.04 |"


def test_variants_that_were_left_out_are_said_to_be(figures):
    settings = [
        setting | {"methods": {m: f for m, f in setting["methods"].items() if m not in BFLOAT16}}
        for setting in figures["settings"]
    ]
    made = blocks(figures | {"settings": settings})
    assert made["step-bfloat16"].startswith("Left out") and "| 8 |" in made["step-onednn"]


def test_the_floor_takes_the_faster_library(figures):
    found = step_seconds(figures, "vit")[8]["floor"].value
    problem = Problem(VIT_B_32, 8, 16)
    assert found == floor_seconds(problem, RATES["onednn_flops_per_s"], RATES["bytes_per_s"])


def test_methods_are_left_out_of_a_setting():
    left = PLANS["full"].settings[-1].without((*BFLOAT16, *ONEDNN, "fusion_bench"))
    assert left.groups == (("ours",),)


def test_a_quick_run_says_so(figures):
    assert "quick run" not in blocks(figures)["step-run"]
    assert "**A quick run" in blocks(figures | {"plan": "quick"})["step-run"]


def test_the_plot_is_drawn(figures, tmp_path):
    draw(figures, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_the_page_says_what_the_figures_say():
    if not learning_step.FIGURES.is_file():
        pytest.skip("no figures yet: make bench")
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    written = json.loads(learning_step.FIGURES.read_text(encoding="utf-8"))
    assert fill(text, blocks(written), PAGE) == text, "run 'make bench BENCH=--report'"
    names = re.findall(r"generated: (\S+)", text)
    assert sorted(names) == sorted(blocks(written))


# ---- The command


def test_the_command_starts_without_heavy_imports():
    heavy = "import sys, benchmarks.learning_step; print(*{'torch', 'open_clip', 'matplotlib'}"
    command = [sys.executable, "-c", f"{heavy} & set(sys.modules))"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


def test_an_unknown_device_is_refused(capsys):
    with pytest.raises(typer.Exit) as end:
        learning_step.main(device="cdua")
    assert end.value.exit_code == 2
    assert "Unknown device 'cdua'. Did you mean cuda" in capsys.readouterr().err
