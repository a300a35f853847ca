"""The benchmark: its counts, its re-creations and its turns. Nothing is timed."""

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
from benchmarks.floor import floor_seconds, forward_flops, parameters
from benchmarks.ours import Ours
from benchmarks.problem import INITIAL, deltas, heads, mean_entropy, pixels, tower
from benchmarks.settings import (
    AUTHORS,
    BFLOAT16,
    METHODS,
    ONEDNN,
    TOLERANCES,
    VIT_B_32,
    Problem,
    Setting,
    Trunk,
)
from benchmarks.workers import Workers
from pipeline.errors import UserError

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
