"""Merging methods against their papers' definitions, recomputed entry by entry in float64."""

import importlib
import inspect
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
import torch

from pipeline.errors import CheckpointError, UserError
from pipeline.learning import LearningOptions, learn_coefficients
from pipeline.merging import METHODS, merge, merge_vectors
from pipeline.merging.options import CHOICES, LIMITS, check_options
from pipeline.processing import processed
from pipeline.trimming import trimmed
from pipeline.vectors import TaskVectors

# What merges the three experts at once, with images or without.
AT_ONCE = [name for name, row in METHODS.items() if not row.learns and row.experts[1] is None]
# Draws by the tasks' places; swings about its minimum differently with every rounding.
IN_ORDER = {"dare", "dare_ties", "wudi"}
GRANULARITY = {"adamerging_taskwise": "task", "adamerging_layerwise": "layer"}


def flat(weights):
    """All tensors one after the other, float64."""
    return np.concatenate([tensor.flatten().double().numpy() for tensor in weights.values()])


def check_equal(merged, expected, tolerance=1e-6):
    np.testing.assert_allclose(flat(merged), expected, rtol=0, atol=tolerance)


def ties_by_hand(taus, keep):
    """Yadav et al. 2023, algorithm 1, with the agreeing entries summed: one entry at a time."""
    kept = []
    for tau in taus:
        order = sorted(range(len(tau)), key=lambda entry: -abs(tau[entry]))
        trimmed = [0.0] * len(tau)
        for entry in order[: int(keep * len(tau))]:
            trimmed[entry] = tau[entry]
        kept.append(trimmed)
    sums = [sum(column) for column in zip(*kept, strict=True)]
    balance = sum((total > 0) - (total < 0) for total in sums)
    merged = []
    for total, column in zip(sums, zip(*kept, strict=True), strict=True):
        sign = total or balance
        merged.append(sum(value for value in column if value * sign > 0))
    return np.array(merged)


@pytest.fixture
def pretrained(vectors):
    return vectors.pretrained


def test_weight_average_is_the_mean(pretrained, experts):
    expected = np.mean([flat(expert) for expert in experts.values()], axis=0)
    check_equal(merge("weight_average", pretrained, experts).weights(), expected)


@pytest.mark.parametrize("coefficient", [0.3, 0.0, 1.0])
def test_task_arithmetic_adds_scaled_task_vectors(pretrained, experts, coefficient):
    start = flat(pretrained)
    expected = start + coefficient * sum(flat(expert) - start for expert in experts.values())
    merged = merge("task_arithmetic", pretrained, experts, coefficient=coefficient)
    check_equal(merged.weights(), expected)


@pytest.mark.parametrize("keep", [0.2, 0.5, 1.0])
def test_ties_follows_the_paper_entry_by_entry(pretrained, experts, keep):
    start = flat(pretrained)
    # In float32, as the method subtracts: a rounding must not decide what is among the largest.
    deltas = TaskVectors.between(pretrained, experts).deltas.values()
    deltas = torch.cat([delta.flatten(1) for delta in deltas], dim=1).double().numpy()
    expected = start + 0.3 * ties_by_hand([row.tolist() for row in deltas], keep)
    check_equal(merge("ties", pretrained, experts, keep=keep).weights(), expected)


def small(*rows):
    """Task vectors of one tensor; the tasks are named a, b, c, ..."""
    deltas = torch.tensor(rows)
    return TaskVectors(
        tuple("abcdefgh"[: len(rows)]), {"w": torch.zeros(len(rows[0]))}, {"w": deltas}
    )


def test_ties_by_eye():
    # Trimmed to the first two entries of each task: one agrees, of the other the larger wins.
    vectors = small([3.0, 2.0, 0.5, 0.1], [1.0, -4.0, 0.2, 0.3])
    merged = merge_vectors("ties", vectors, coefficient=1.0, keep=0.5).weights()
    assert merged["w"].tolist() == [4.0, -4.0, 0.0, 0.0]
    assert merged["w"].tolist() == ties_by_hand(vectors.deltas["w"].tolist(), 0.5).tolist()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_ties_gives_zero_sums_the_majority_sign(sign):
    vectors = small([2.0, 1.0, 1.0], [-2.0, 1.0, 1.0])
    vectors = TaskVectors(vectors.tasks, vectors.pretrained, {"w": sign * vectors.deltas["w"]})
    merged = merge_vectors("ties", vectors, coefficient=1.0, keep=1.0).weights()
    assert merged["w"].tolist() == [2 * sign, 2 * sign, 2 * sign]


def test_ties_keeps_entries_that_are_equally_large():
    # Coarse weights repeat a magnitude: none of the equals is smaller than the others.
    merged = merge_vectors("ties", small([0.5] * 10), coefficient=1.0, keep=0.2).weights()
    assert merged["w"].tolist() == [0.5] * 10


def test_ties_trims_over_the_whole_vector_not_per_tensor():
    start = {"large": torch.zeros(2), "small": torch.zeros(2)}
    deltas = {"large": torch.tensor([[5.0, 4.0]]), "small": torch.tensor([[0.2, 0.1]])}
    kept = trimmed(TaskVectors(("a",), start, deltas), 0.5)
    assert kept.deltas["large"].tolist() == [[5.0, 4.0]]
    assert kept.deltas["small"].tolist() == [[0.0, 0.0]]


def test_experts_and_pretrained_are_the_models_themselves(pretrained, experts):
    merged = merge("experts", pretrained, experts)
    for task, expert in experts.items():
        check_equal(merged.weights(task), flat(expert))
    with pytest.raises(UserError, match=r"one model per task: name one of cars, mnist, dtd\."):
        merged.weights()
    check_equal(merge("pretrained", pretrained, experts).weights(), flat(pretrained), 0)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("weight_average", {}),
        ("task_arithmetic", {"coefficient": 1.0}),
        ("ties", {"coefficient": 1.0, "keep": 1.0}),
    ],
)
def test_one_expert_with_coefficient_one_is_itself(pretrained, experts, method, options):
    alone = {"cars": experts["cars"]}
    check_equal(merge(method, pretrained, alone, **options).weights(), flat(experts["cars"]))


def test_average_of_identical_experts_is_the_expert(pretrained, experts):
    same = {task: experts["cars"] for task in ("a", "b", "c", "d")}
    check_equal(merge("weight_average", pretrained, same).weights(), flat(experts["cars"]))


@pytest.mark.parametrize("method", [name for name in AT_ONCE if name not in IN_ORDER])
def test_order_of_tasks_does_not_matter(pretrained, experts, fit_data, method):
    forward = merge(method, pretrained, experts, data=fit_data)
    backward = merge(method, pretrained, dict(reversed(experts.items())), data=fit_data)
    for task in experts:
        check_equal(forward.weights(task), flat(backward.weights(task)), 5e-6)


@pytest.mark.parametrize("method", AT_ONCE)
def test_merge_is_merge_vectors_of_the_task_vectors(pretrained, experts, vectors, fit_data, method):
    first = merge(method, pretrained, experts, data=fit_data)
    second = merge_vectors(method, vectors, data=fit_data)
    for task in experts:
        one, other = first.weights(task), second.weights(task)
        assert one.keys() == other.keys() == pretrained.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert all(one[name].dtype == pretrained[name].dtype for name in one)


@pytest.mark.parametrize("method", AT_ONCE)
def test_merging_leaves_its_inputs_alone(pretrained, experts, fit_data, method):
    before = {task: flat(expert) for task, expert in experts.items()}
    start = flat(pretrained)
    merge(method, pretrained, experts, data=fit_data)
    assert np.array_equal(flat(pretrained), start)
    assert all(np.array_equal(flat(experts[task]), before[task]) for task in experts)


@pytest.mark.parametrize(
    ("asked", "method", "processing"),
    [
        ("adamerging_taskwise", "adamerging_taskwise", "none"),
        ("adamerging_taskwise_pp", "adamerging_taskwise", "ties"),
        ("adamerging_layerwise", "adamerging_layerwise", "none"),
        ("adamerging_layerwise_pp", "adamerging_layerwise", "ties"),
        ("adamerging_layerwise_awd", "adamerging_layerwise", "awd"),
    ],
)
def test_adamerging_applies_what_it_learns(
    pretrained, experts, fit_data, asked, method, processing
):
    merged = merge(asked, pretrained, experts, data=fit_data, seed=4, steps=3, batch=4, lr=0.01)
    vectors = TaskVectors.between(pretrained, experts)
    taken = processed(vectors, processing, 0.2)
    options = LearningOptions(granularity=GRANULARITY[method], steps=3, batch=4, lr=0.01)
    learned = learn_coefficients(taken, fit_data, options, seed=4)
    assert not torch.all(learned.values == 0.3)
    rows = learned.values.expand(len(vectors.layers), -1).double()
    for row, (name, tensor) in zip(rows, merged.weights().items(), strict=True):
        delta = taken.deltas[name].double()
        expected = pretrained[name].double() + sum(c * d for c, d in zip(row, delta, strict=True))
        torch.testing.assert_close(tensor.double(), expected, rtol=0, atol=1e-6)


def test_names_are_checked(pretrained, experts):
    with pytest.raises(UserError, match=r"Unknown method 'tie'\. Did you mean ties"):
        merge("tie", pretrained, experts)
    with pytest.raises(UserError, match=r"option of ties 'keeep'\. Did you mean keep\?"):
        merge("ties", pretrained, experts, keeep=0.1)
    with pytest.raises(UserError, match="adamerging_layerwise needs images and heads"):
        merge("adamerging_layerwise", pretrained, experts)
    with pytest.raises(UserError, match="no expert"):
        merge("ties", pretrained, {})


@pytest.mark.parametrize(
    ("method", "options", "sentence"),
    [
        ("ties", {"keep": 0}, "ties: keep is 0: give a number above 0 and at most 1"),
        ("ties", {"reduce": "summ"}, "Unknown reduce of ties 'summ'. Did you mean sum"),
        ("dare", {"drop": 1.0}, "dare: drop is 1.0: give a number from 0 to below 1"),
        ("task_arithmetic", {"coefficient": float("nan")}, "coefficient is nan: give a finite"),
        ("task_arithmetic", {"coefficient": "much"}, "coefficient is 'much': give a finite"),
        ("task_arithmetic", {"coefficient": True}, "coefficient is True: give a finite"),
        ("task_arithmetic", {"coefficient": None}, "coefficient is None: give a finite"),
        ("breadcrumbs", {"largest": 0.5, "smallest": 0.5}, "leave nothing"),
        ("consensus_ta", {"least": 2.5}, "least is 2.5: give a whole number"),
        ("consensus_ta", {"least": 4}, "least is 4, but there are 3 tasks"),
        ("wudi", {"solve": "closde"}, "Did you mean closed"),
        ("task_arithmetic", {"coefficient": 10**400}, "give a finite number, of a million"),
        ("adamerging_layerwise", {"granularity": "foo"}, "Unknown granularity of"),
        ("adamerging_layerwise", {"batch": 0}, "batch is 0: give a whole number above 0"),
        ("adamerging_layerwise", {"initial": None}, "initial is None: give a number from 0 to 1"),
        ("adamerging_layerwise", {"clamp": "no"}, "clamp is 'no': give True or False"),
        ("slerp", {}, "slerp merges 2 experts, and here are 3"),
    ],
)
def test_options_are_checked_before_any_work(pretrained, experts, method, options, sentence):
    with pytest.raises(UserError) as error:
        merge(method, pretrained, experts, **options)
    assert sentence in str(error.value)


def test_an_option_may_be_left_to_the_method(pretrained, experts):
    given = merge("lines", pretrained, experts, first=1 / 3).weights()
    check_equal(merge("lines", pretrained, experts, first=None).weights(), flat(given))
    with pytest.raises(UserError, match="model_stock merges 2 or more experts, and here are 1"):
        merge("model_stock", pretrained, {"cars": experts["cars"]})


def test_experts_of_another_model_are_refused_by_name(pretrained, experts):
    name = "visual.class_embedding"
    lacking = {key: tensor for key, tensor in experts["mnist"].items() if key != name}
    with pytest.raises(CheckpointError, match=rf"the mnist expert lacks 1 tensor.*{name}"):
        merge("ties", pretrained, experts | {"mnist": lacking})
    with pytest.raises(CheckpointError, match=r"the mnist expert has unexpected 1 tensor.*: more"):
        merge("ties", pretrained, experts | {"mnist": experts["mnist"] | {"more": torch.ones(1)}})
    wrong = experts["mnist"] | {name: torch.ones(7)}
    with pytest.raises(
        CheckpointError, match=rf"'{name}' has shape \[7\] where the pretrained model has \[16\]"
    ):
        merge("ties", pretrained, experts | {"mnist": wrong})


def test_coefficients_need_a_row_or_one_for_each_tensor(vectors):
    with pytest.raises(UserError, match=f"2 rows of coefficients for {len(vectors.layers)} tensor"):
        vectors.merged(torch.ones(2, 3))


@pytest.mark.parametrize("name", METHODS)
def test_every_row_of_the_table_fits_its_function(name):
    module, function = METHODS[name].function.split(":")
    found = getattr(importlib.import_module(f"pipeline.merging.{module}"), function)
    parameters = list(inspect.signature(found).parameters)
    assert parameters[:3] == ["vectors", "data", "seed"]
    taken = set(parameters[3:])
    if "options" in taken:  # passed on to the learning, but for what a budget of memory divides
        taken |= {option.name for option in fields(LearningOptions)} - {"memory_gb"}
    assert taken - {"options"} == set(METHODS[name].defaults)
    assert METHODS[name].paper.startswith(("https://arxiv.org/abs/", "https://doi.org/"))
    numbers = {o for o, v in METHODS[name].defaults.items() if isinstance(v, int | float)}
    if not METHODS[name].learns:  # those of learning are checked where it reads them
        assert METHODS[name].defaults.keys() <= LIMITS.keys() | CHOICES.keys()
        assert numbers <= LIMITS.keys()
        check_options(name, METHODS[name].defaults)


def test_the_table_costs_no_heavy_import():
    code = "import sys, pipeline.merging; print({'torch', 'open_clip'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
