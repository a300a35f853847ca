"""Coefficients from a file: the authors' table and the project's own format."""

import json
import math
import os
import re
from functools import cache
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.model import CLIP
from tiny import TASKS
from torch import Tensor

from pipeline.checkpoints.weights import save_weights
from pipeline.clip import ImageEncoder
from pipeline.errors import CheckpointError, MissingInput, UserError
from pipeline.files import sha256
from pipeline.learning import Coefficients, load_coefficients, save_coefficients
from pipeline.published import COLUMNS, published_coefficients, read_coefficients
from pipeline.vectors import TaskVectors

ROWS = {"ViT-B-32": 158, "ViT-B-16": 158, "ViT-L-14": 302}
LAYERWISE, TASKWISE = "adamerging_layerwise", "adamerging_taskwise"


@cache
def meta_encoder(model: str) -> dict[str, Tensor]:
    """open_clip's image encoder without memory: names, order and shapes as they are."""
    with torch.device("meta"):
        clip = CLIP(**open_clip.get_model_config(model))
    return ImageEncoder(clip.visual, (0.5,) * 3, (0.5,) * 3).weights()


def table(model: str = "ViT-B-32") -> dict:
    """A made-up table of the authors' layout; every cell is another number from 0 to 1."""
    cells = torch.linspace(0, 1, 8 * (ROWS[model] + 1)).reshape(-1, 8)
    methods = {LAYERWISE: cells[:-1].tolist(), TASKWISE: cells[-1:].tolist()}
    return {"note": "made up", "coefficients": {model: methods}}


def written(path: Path, content: dict) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A made-up table for ViT-B-32."""
    return written(tmp_path / "table.json", table())


@pytest.mark.parametrize("model", ROWS)
def test_rows_follow_the_names_and_columns_the_tasks(model, tmp_path):
    path = written(tmp_path / "table.json", table(model))
    encoder = meta_encoder(model)
    layerwise, taskwise = map(torch.tensor, table(model)["coefficients"][model].values())
    # The image encoder's rows stand in state-dict order, between three and three of the text's.
    rows = dict(zip(encoder, layerwise[3:-3], strict=True))
    backwards = {name: encoder[name] for name in sorted(encoder, reverse=True)}
    for names, tasks, columns in (
        (encoder, COLUMNS, list(range(8))),
        (backwards, ("dtd", "sun397", "svhn"), [7, 0, 4]),
    ):
        read = published_coefficients(path, LAYERWISE, names, tasks)
        assert torch.equal(read.values, torch.stack([rows[name] for name in names])[:, columns])
        assert (read.layers, read.tasks) == (tuple(names), tasks)
        assert read.facts == {"source": "table.json", "sha256": sha256(path)}
        assert read.history == {}
        read = published_coefficients(path, TASKWISE, names, tasks)
        assert torch.equal(read.values, taskwise[:, columns])
        assert (read.layers, read.tasks) == (("*",), tasks)


@pytest.mark.parametrize("method", [LAYERWISE, TASKWISE])
def test_a_merge_from_a_table_from_end_to_end(path, method):
    # A "model" with the names of ViT-B-32 and hardly any numbers.
    shapes = dict.fromkeys(meta_encoder("ViT-B-32"), (2, 3))
    shapes |= {"visual.conv1.weight": (768, 1, 1, 32), "visual.positional_embedding": (50, 2)}
    generator = torch.Generator().manual_seed(0)
    start, mnist, cars = (
        {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        for _ in range(3)
    )
    read = read_coefficients(path, method, start, ("mnist", "cars"))
    merged = TaskVectors.between(start, {"mnist": mnist, "cars": cars}).merged(read.values)
    rows = table()["coefficients"]["ViT-B-32"][method]
    rows = rows[3:-3] if method == LAYERWISE else rows * len(shapes)
    for name, row in zip(shapes, rows, strict=True):
        change = row[6] * (mnist[name] - start[name]) + row[1] * (cars[name] - start[name])
        torch.testing.assert_close(merged[name], start[name] + change)


def test_the_own_format_from_end_to_end(vectors, tmp_path):
    values = torch.rand(len(vectors.layers), 3, generator=torch.Generator().manual_seed(0))
    wanted = vectors.merged(values)
    # The file has the tensors backwards, and the tasks too.
    path, learned = tmp_path / "own.safetensors", ({"loss": torch.ones(4)}, {"steps": 4})
    kept = Coefficients(values.flip(0, 1), TASKS[::-1], vectors.layers[::-1], *learned)
    save_coefficients(path, kept)
    read = read_coefficients(path, LAYERWISE, vectors.pretrained, TASKS)
    assert (read.tasks, read.layers, read.history) == (TASKS, vectors.layers, {})
    assert read.facts == {"source": "own.safetensors", "sha256": sha256(path)}
    merged = vectors.merged(read.values)
    assert all(torch.equal(merged[name], tensor) for name, tensor in wanted.items())
    save_coefficients(tmp_path / "again.safetensors", read)
    assert torch.equal(load_coefficients(tmp_path / "again.safetensors", "").values, values)


@pytest.mark.parametrize("method", [TASKWISE, "task_arithmetic_tuned"])
@pytest.mark.parametrize("layers", [("*",), ("visual.b", "visual.a")])  # the latter: one is frozen
def test_task_wise_coefficients_in_the_own_format(tmp_path, method, layers):
    path, facts = tmp_path / "own.safetensors", {"granularity": "task"}
    values = torch.tensor([[0.1, 0.2, 0.3], [0.0, 0.0, 0.0]])[: len(layers)]
    save_coefficients(path, Coefficients(values, TASKS, layers, {}, facts))
    encoder = dict.fromkeys(("visual.a", "visual.b"), torch.ones(1))
    read = read_coefficients(path, method, encoder, (TASKS[2], TASKS[0]))
    assert torch.equal(read.values, values.flip(0)[:, [2, 0]])
    assert (read.tasks, read.layers) == ((TASKS[2], TASKS[0]), layers[::-1])


def refused(path: Path, says: str, method: str = LAYERWISE, tasks=COLUMNS, encoder=None) -> None:
    """`path` is refused with a message that says `says` and what to do."""
    encoder = encoder or meta_encoder("ViT-B-32")
    with pytest.raises(UserError, match=re.escape(says)) as error:
        read_coefficients(path, method, encoder, tasks)
    advice = "copy the table|copy it again|remove '|name such a file|leave the task|Did you mean"
    assert re.search(f"({advice}).*[.]$", str(error.value))


def test_a_table_of_the_wrong_size_is_refused(path):
    rows = table()["coefficients"]["ViT-B-32"]
    for wrong, says in (
        (rows[LAYERWISE][1:], "157 rows where 158 should be"),
        ([*rows[LAYERWISE], [0.3] * 8], "159 rows where 158 should be"),
        (rows[TASKWISE], "1 rows where 158 should be"),
        ({"rows": []}, "no list of rows where 158 should be"),
        ([*rows[LAYERWISE][:-1], [0.3] * 7], "row 158 of 158 has 7 columns where 8 should be"),
        ([[0.3] * 9, *rows[LAYERWISE][1:]], "row 1 of 158 has 9 columns where 8 should be"),
        ([0.3, *rows[LAYERWISE][1:]], "row 1 of 158 has no list of columns"),
    ):
        changed = {"coefficients": {"ViT-B-32": {LAYERWISE: wrong, TASKWISE: rows[LAYERWISE]}}}
        refused(written(path, changed), says)
    refused(path, "158 rows where 1 should be", TASKWISE)


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.01, 10**400, "0.3", None, True, []])
def test_a_cell_that_is_no_coefficient_is_refused(path, value):
    content = table()
    content["coefficients"]["ViT-B-32"][LAYERWISE][5][2] = value
    refused(written(path, content), "row 6 of 158, column resisc45, holds ")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not valid JSON"),
        ("", "is not valid JSON"),
        ("\udcff", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("[1]", "lacks 'coefficients' where a table should be (it has no keys there)"),
        ('{"note": 1}', "lacks 'coefficients' where a table should be (it has ['note'] there)"),
        ('{"coefficients": {"ViT-H-14": 1}}', "lacks 'ViT-B-32' where a model should be"),
        ('{"coefficients": {"ViT-B-32": []}}', f"lacks '{LAYERWISE}' where a method should be"),
    ],
)
def test_a_file_that_is_no_table_is_refused(path, text, says):
    path.write_bytes(text.encode(errors="surrogateescape"))
    refused(path, says)


def test_methods_and_tasks_that_the_table_lacks_are_refused(path):
    refused(path, "lacks 'adamerging_taskwise_pp' where a method", "adamerging_taskwise_pp")
    refused(path, "Unknown method 'adamerging_layer'. Did you mean", "adamerging_layer")
    says = "no coefficients for the task(s) food101, stl10, only for sun397, cars"
    refused(path, says, tasks=("mnist", "food101", "stl10"))


def test_other_architectures_are_refused(path, tiny_clip):
    tiny = tiny_clip.image_encoder().weights()
    refused(path, "(width 16, patches of 16 pixels, 5 tokens, 2 blocks)", encoder=tiny)
    refused(path, "not for the pretrained model", encoder=meta_encoder("ViT-L-14-336"))
    refused(path, "(width 0, patches of 0 pixels, 0 tokens, 0 blocks)", encoder={"x": tiny_clip})
    refused(path, "lacks 'ViT-L-14' where a model", encoder=meta_encoder("ViT-L-14"))


def test_tensors_without_a_row_and_rows_without_a_tensor_are_refused(path):
    encoder = meta_encoder("ViT-B-32")
    more = encoder | {"visual.mid": encoder["visual.proj"]}
    refused(path, "lacks rows for tensors of the pretrained model: visual.mid", encoder=more)
    less = {name: encoder[name] for name in encoder if name != "visual.proj"}
    refused(path, "rows without a tensor in the pretrained model: visual.proj", encoder=less)


def test_files_that_are_not_there_or_of_another_kind_are_refused(tmp_path):
    refused(tmp_path / "table.csv", "must end in .json (a published table) or .safetensors")
    for name in ("none.json", "none.safetensors"):
        with pytest.raises(MissingInput, match=r"cannot be read \(No such file or directory\)"):
            read_coefficients(tmp_path / name, LAYERWISE, {}, COLUMNS)
    (tmp_path / "folder.json").mkdir()
    refused(tmp_path / "folder.json", "cannot be read (Is a directory)")


def test_an_own_file_that_does_not_fit_is_refused(vectors, tmp_path):
    path = tmp_path / "own.safetensors"
    encoder = dict(vectors.pretrained)
    values, facts = torch.ones(len(encoder), 3), {"granularity": "layer"}
    save_coefficients(path, Coefficients(values, TASKS, vectors.layers, {}, facts))
    refused(path, "task(s) svhn, only for cars, mnist", LAYERWISE, ("svhn", "cars"), encoder)
    refused(path, "granularity 'layer' where 'adamerging_taskwise'", TASKWISE, TASKS, encoder)
    encoder["visual.mid"] = encoder["visual.proj"]
    refused(path, "of the pretrained model: visual.mid", LAYERWISE, TASKS, encoder)
    del encoder["visual.mid"], encoder["visual.proj"]
    refused(path, "in the pretrained model: visual.proj", LAYERWISE, TASKS, encoder)
    save_coefficients(path, Coefficients(torch.ones(1, 3), TASKS, ("*",), {}, {}))
    refused(path, "granularity 'task' where 'adamerging_layerwise'", LAYERWISE, TASKS, encoder)


@pytest.mark.parametrize(
    ("made", "method"),
    [
        ({"processing": "ties", "keep": 0.2}, LAYERWISE),
        ({"keep": 0.2}, LAYERWISE),  # as files of earlier releases have it
        ({"processing": "none"}, f"{LAYERWISE}_pp"),
        ({"processing": "ties"}, f"{LAYERWISE}_awd"),
    ],
)
def test_trimmed_and_plain_vectors_do_not_mix(tmp_path, made, method):
    path = tmp_path / "own.safetensors"
    facts = {"granularity": "layer", **made}
    save_coefficients(path, Coefficients(torch.ones(1, 8), COLUMNS, ("visual.a",), {}, facts))
    refused(path, "task vectors, which", method, encoder={"visual.a": torch.ones(1)})


def test_vectors_trimmed_otherwise_do_not_mix(tmp_path):
    path = tmp_path / "own.safetensors"
    facts = {"granularity": "layer", "processing": "ties", "keep": 0.05}
    save_coefficients(path, Coefficients(torch.ones(1, 8), COLUMNS, ("visual.a",), {}, facts))
    refused(path, "0.05 is kept, and learn.keep is 0.2", f"{LAYERWISE}_pp", encoder={"visual.a": 0})


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("visual.proj", {"family": "mini"}),
        ("visual.proj", {}),
        ("visual.proj", {"tasks": '["a", "b", "c"]', "layers": '["x", "y"]'}),
        ("values", {"tasks": '["a", "b", "c"]', "layers": "2"}),
        ("values", {"tasks": '["a", "b", "c"]', "layers": '["x"]'}),
    ],
)
def test_weights_are_not_taken_for_coefficients(name, facts, tmp_path):
    path = tmp_path / "own.safetensors"
    save_weights(path, {name: torch.ones(2, 3)}, facts)
    with pytest.raises(CheckpointError, match="Run 'the stage' again"):
        load_coefficients(path, "the stage")
    refused(path, "holds no coefficients as 'python -m stages.learn' writes them")


def test_a_damaged_own_file_is_refused(tmp_path):
    path = tmp_path / "own.safetensors"
    path.write_bytes(b"damaged")
    refused(path, "or is damaged")
    save_coefficients(path, Coefficients(torch.tensor([[math.nan]]), ("cars",), ("*",), {}, {}))
    refused(path, "or is damaged", TASKWISE, ("cars",))


@pytest.fixture
def published() -> Path:
    """The authors' table, where the machine has a copy."""
    name = os.environ.get("ADAMERGING_COEFFICIENTS")
    if not name:
        pytest.skip("ADAMERGING_COEFFICIENTS names no copy of the authors' coefficients")
    return Path(name)


# Facts of the table in https://github.com/EnnengYang/AdaMerging (src/merging_cofficient.py),
# counted over all its rows: mean, entries that are 0, entries that are 1.
@pytest.mark.parametrize(
    ("model", "method", "mean", "zeros", "ones"),
    [
        ("ViT-B-32", "adamerging_layerwise", 0.240, 152, 0),
        ("ViT-B-32", "adamerging_layerwise_pp", 0.289, 187, 0),
        ("ViT-B-16", "adamerging_layerwise", 0.269, 390, 18),
        ("ViT-B-16", "adamerging_layerwise_pp", 0.330, 343, 58),
        ("ViT-L-14", "adamerging_layerwise", 0.270, 489, 19),
        ("ViT-L-14", "adamerging_layerwise_pp", 0.341, 231, 60),
    ],
)
def test_the_published_layerwise_coefficients(published, model, method, mean, zeros, ones):
    values = published_coefficients(published, method, meta_encoder(model), COLUMNS).values
    # The six rows of the text encoder have no task vector and stay at their first value, 0.3.
    everything = torch.cat([values, torch.full((6, 8), 0.3)])
    assert everything.mean().item() == pytest.approx(mean, abs=5e-4)
    assert (int((everything == 0).sum()), int((everything == 1).sum())) == (zeros, ones)


def test_published_layers_are_where_they_belong(published):
    read = published_coefficients(published, LAYERWISE, meta_encoder("ViT-B-32"), COLUMNS)
    blocks, kinds = {}, {}
    for name, values in zip(read.layers, read.values, strict=True):
        if found := re.fullmatch(r"visual\.transformer\.resblocks\.(\d+)\.(.+)", name):
            for group, key in ((blocks, int(found[1])), (kinds, found[2])):
                group.setdefault(key, []).append(values.mean())
    blocks = [sum(values) / len(values) for values in blocks.values()]
    kinds = {kind: sum(values) / len(values) for kind, values in kinds.items()}
    assert all(0.155 < value < 0.18 for value in blocks[:4])
    assert all(0.25 < value < 0.305 for value in blocks[4:])
    ordered = sorted(kinds, key=kinds.__getitem__)
    largest = [kind for kind in ordered if kind.endswith("weight")][-3:]
    assert set(largest) == {"attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight"}
    smallest = {"attn.in_proj_bias", "attn.out_proj.bias", "mlp.c_proj.weight", "mlp.c_proj.bias"}
    assert set(ordered[:4]) == smallest


def test_the_published_taskwise_coefficients(published):
    read = published_coefficients(published, TASKWISE, meta_encoder("ViT-B-32"), ("gtsrb", "cars"))
    assert read.values.tolist() == torch.tensor([[0.4003, 0.1413]]).tolist()
    with pytest.raises(UserError, match=f"lacks '{TASKWISE}' where a method should be"):
        published_coefficients(published, TASKWISE, meta_encoder("ViT-L-14"), COLUMNS)
