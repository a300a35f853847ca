"""RegMean against its formula, written down plainly in double precision, and FusionBench."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from statistics_problem import SCALE, build, close, expert, only, pixels_of, problem
from tiny import TASKS
from torch.nn import functional as F

from pipeline.checkpoints.hf import convert_hf_vision
from pipeline.errors import UserError
from pipeline.learning import FitData
from pipeline.merging import grams
from pipeline.merging import regmean as module
from pipeline.merging.regmean import regmean, regmean_plus_plus
from pipeline.vectors import TaskVectors

ORACLE = Path(__file__).with_name("statistics_oracle.npz")
BOTH = [regmean, regmean_plus_plus]
MATRICES = ("attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
BLOCKS = [f"visual.transformer.resblocks.{block}." for block in range(2)]


def block(weights, prefix, tokens):
    """Inputs of a block's matrices, and its output, by plain arithmetic on [images, tokens, 16]."""

    def normalized(name, values):
        spread = values.var(dim=-1, correction=0, keepdim=True).add(1e-5).sqrt()
        scaled = (values - values.mean(dim=-1, keepdim=True)) / spread
        return scaled * weights[f"{prefix}{name}.weight"] + weights[f"{prefix}{name}.bias"]

    def times(name, values):
        bias = name.replace("weight", "bias")
        return values @ weights[prefix + name].T + weights[prefix + bias]

    first = normalized("ln_1", tokens)
    query, key, value = (
        part.unflatten(2, (2, 8)).transpose(1, 2)
        for part in times("attn.in_proj_weight", first).chunk(3, dim=2)
    )
    seen = (query @ key.transpose(2, 3) / 8**0.5).softmax(dim=3) @ value
    seen = seen.transpose(1, 2).flatten(2)
    tokens = tokens + times("attn.out_proj.weight", seen)
    second = normalized("ln_2", tokens)
    hidden = times("mlp.c_fc.weight", second)
    hidden = hidden * (1.702 * hidden).sigmoid()
    inputs = dict(zip(MATRICES, (first, seen, second, hidden), strict=True))
    return inputs, tokens + times("mlp.c_proj.weight", hidden)


def stem(weights, images):
    patches = F.conv2d(pixels_of(images), weights["visual.conv1.weight"], stride=4).flatten(2).mT
    first = weights["visual.class_embedding"].expand(len(images), 1, 16)
    tokens = torch.cat([first, patches], dim=1) + weights["visual.positional_embedding"]
    return F.layer_norm(
        tokens, (16,), weights["visual.ln_pre.weight"], weights["visual.ln_pre.bias"]
    )


def regressed(matrices, inputs, shrink):
    """(sum W G) (sum G)^-1, with [out, in] matrices."""
    found = []
    for values in inputs:
        rows = values.flatten(0, -2)
        gram = rows.T @ rows / len(rows)
        keep = torch.full_like(gram, shrink).fill_diagonal_(1)
        found.append(gram * keep + grams.RIDGE * torch.eye(len(gram), dtype=gram.dtype))
    total = sum(w @ g for w, g in zip(matrices, found, strict=True))
    return total @ torch.linalg.inv(sum(found))


def plain_regmean(vectors, data, shrink, on_merged):
    experts = [expert(vectors, row) for row in range(len(vectors.tasks))]
    merged = {name: sum(e[name] for e in experts) / len(experts) for name in experts[0]}
    flows = [
        stem(merged if on_merged else own, data.images[task])
        for task, own in zip(vectors.tasks, experts, strict=True)
    ]
    for prefix in BLOCKS:
        found = [block(own, prefix, flow) for own, flow in zip(experts, flows, strict=True)]
        for name in MATRICES:
            own = [e[prefix + name] for e in experts]
            merged[prefix + name] = regressed(own, [inputs[name] for inputs, _ in found], shrink)
        following = [merged] * len(experts) if on_merged else experts
        flows = [block(e, prefix, flow)[1] for e, flow in zip(following, flows, strict=True)]
    last = [
        F.layer_norm(flow[:, 0], (16,), e["visual.ln_post.weight"], e["visual.ln_post.bias"])
        for e, flow in zip(experts, flows, strict=True)
    ]
    merged["visual.proj"] = regressed([e["visual.proj"].T for e in experts], last, shrink).T
    return merged


@pytest.mark.parametrize("method", BOTH)
@pytest.mark.parametrize(("shrink", "columns"), [(0.95, 256), (1.0, 5), (0.0, 16)])
def test_regmean_is_the_formula(method, shrink, columns, monkeypatch):
    monkeypatch.setattr(grams, "BLOCK", columns)
    monkeypatch.setattr(module, "BATCH", 3)
    vectors, data = problem(counts=(9, 6, 7))
    merged = method(vectors, data, 0, images=9, shrink=shrink).weights()
    expected = plain_regmean(vectors, data, shrink, method is regmean_plus_plus)
    close(merged, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("method", BOTH)
def test_fusion_bench_agrees(method, monkeypatch):
    with np.load(ORACLE) as file:
        arrays = {name: file[name] for name in file.files}
    encoder = build()
    projection = encoder.weights()["visual.proj"].float().numpy()

    def model(kind):
        own = {n.partition("/")[2]: a for n, a in arrays.items() if n.startswith(f"{kind}/")}
        converted = convert_hf_vision({n: a.astype(np.float32) for n, a in own.items()}, projection)
        return {name: torch.from_numpy(array).double() for name, array in converted.items()}

    images = {task: arrays[f"images/{task}"] for task in TASKS}
    vectors = TaskVectors.between(model("pretrained"), {task: model(task) for task in TASKS})
    data = FitData(encoder, SCALE, {}, images)
    monkeypatch.setattr(grams, "RIDGE", 0.0)  # FusionBench adds nothing
    merged = dict(method(vectors, data, 0, images=6, shrink=0.9375).weights())
    expected = model(method.__name__)
    if method is regmean_plus_plus:  # FusionBench keeps the pretrained one
        for name in ("visual.ln_post.weight", "visual.ln_post.bias"):
            mean = sum(model(task)[name] for task in TASKS) / 3
            torch.testing.assert_close(merged.pop(name), mean)
            expected.pop(name)
    close(merged, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", BOTH)
def test_directions_that_no_image_shows_take_the_mean(method):
    vectors, data = problem(counts=(1, 1, 1))
    tokens = stem(expert(vectors, 0), data.images[TASKS[0]])
    inputs, _ = block(expert(vectors, 0), BLOCKS[0], tokens)
    hidden = inputs["mlp.c_proj.weight"].flatten(0, 1)
    assert len(hidden) < hidden.shape[1]
    for rows in ([0], [1, 1]):  # one expert, and the same twice: in every direction
        few = only(vectors, rows)
        merged = method(few, data, 0, images=1, shrink=1.0).weights()
        close(merged, expert(few, 0), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("method", BOTH)
@pytest.mark.parametrize("shrink", [-0.1, 1.1, float("nan")])
def test_shrink_is_a_share(method, shrink):
    with pytest.raises(UserError, match="shrink is"):
        method(*problem(), 0, images=1, shrink=shrink)


def test_another_kind_of_tower_is_refused():
    vectors, data = problem(pool_type="avg")
    with pytest.raises(UserError, match="usual image tower"):
        regmean(vectors, data, 0, images=1, shrink=0.95)


def test_images_that_leave_a_layer_undecided_are_said_to_be_too_few():
    vectors, data = problem(counts=(1, 1, 1))
    for name in vectors.pretrained:
        if "ln_1.weight" in name:  # in single precision, 1e-6 is lost beside such inputs
            vectors.pretrained[name].fill_(1e6)
    single = {name: tensor.float() for name, tensor in vectors.pretrained.items()}
    deltas = {name: tensor[:1].float() for name, tensor in vectors.deltas.items()}
    one = TaskVectors(TASKS[:1], single, deltas)
    with pytest.raises(UserError, match="more images, or a smaller shrink"):
        regmean(one, replace(data, encoder=build(torch.float32)), 0, images=1, shrink=1.0)
