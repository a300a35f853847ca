"""Task vectors in memory, in half precision and in a file."""

import errno

import numpy as np
import pytest
import torch

from pipeline.checkpoints.writing import Lazy, kinds_of
from pipeline.errors import UserError
from pipeline.similarity import inner_products, length
from pipeline.vectors import TaskVectors, columns, pieces, stacked


def same(found, wanted):
    assert found.keys() == wanted.keys()
    assert list(found) == list(wanted)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_file_gives_back_every_bit(vectors, tmp_path):
    path = tmp_path / "folder" / "deltas"
    vectors.write_deltas(path)
    mapped = vectors.mapped(path)
    same(mapped.deltas, vectors.deltas)
    assert mapped.in_file and not vectors.in_file
    assert mapped.tasks == vectors.tasks and mapped.layers == vectors.layers
    assert path.stat().st_size == sum(delta.nbytes for delta in vectors.deltas.values())
    assert [file.name for file in path.parent.iterdir()] == ["deltas"]


def test_file_does_not_depend_on_the_order_of_names(vectors, tmp_path):
    backwards = dict(reversed(vectors.deltas.items()))
    other = TaskVectors(vectors.tasks, vectors.pretrained, backwards)
    other.write_deltas(tmp_path / "deltas")
    same(vectors.mapped(tmp_path / "deltas").deltas, vectors.deltas)


def test_file_holds_what_is_read_lazily_and_in_half_precision(vectors, tmp_path):
    names = list(vectors.deltas)
    parts = [{name: vectors.deltas[name][k].half() for name in names} for k in range(3)]
    lazy = TaskVectors(vectors.tasks, vectors.pretrained, stacked(names, parts))
    lazy.write_deltas(tmp_path / "deltas")
    found = vectors.mapped(tmp_path / "deltas").deltas
    same(found, {name: delta.half().float() for name, delta in vectors.deltas.items()})


def test_what_is_mapped_is_never_written(vectors, tmp_path):
    vectors.write_deltas(tmp_path / "deltas")
    before = (tmp_path / "deltas").read_bytes()
    mapped = vectors.mapped(tmp_path / "deltas")
    mapped.deltas["visual.proj"].zero_()
    assert (tmp_path / "deltas").read_bytes() == before


def test_mapped_tensors_share_one_mapping(vectors, tmp_path):
    vectors.write_deltas(tmp_path / "deltas")
    deltas = vectors.mapped(tmp_path / "deltas").deltas
    first, *others = [delta.untyped_storage().data_ptr() for delta in deltas.values()]
    assert all(other == first for other in others)
    assert all(delta.is_contiguous() for delta in deltas.values())


def test_full_disk_is_said(vectors, tmp_path, monkeypatch):
    # A write through a mapping would end the process with a signal instead.
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "memmap", None)
    vectors.write_deltas(tmp_path / "deltas")
    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UserError, match="the disk is full"):
        vectors.write_deltas(tmp_path / "other")
    assert [file.name for file in tmp_path.iterdir()] == ["deltas"]


def test_stack_reads_one_name_at_a_time():
    reads = []

    def part(value):
        tensors = {"a": torch.full((2,), value), "b": torch.full((2, 3), value)}
        return Lazy(kinds_of(tensors), lambda name: (reads.append(name), tensors[name])[1])

    both = stacked(("a", "b"), [part(1.0), part(2.0)])
    assert (list(both), len(both), reads) == (["a", "b"], 2, [])
    assert torch.equal(both["b"], torch.stack([torch.ones(2, 3), torch.full((2, 3), 2.0)]))
    assert reads == ["b", "b"]
    with pytest.raises(KeyError):
        both["c"]


def test_merging_from_any_storage(vectors, tmp_path):
    coefficients = torch.rand(len(vectors.layers), 3, generator=torch.Generator().manual_seed(0))
    wanted = vectors.merged(coefficients)
    vectors.write_deltas(tmp_path / "deltas")
    same(vectors.mapped(tmp_path / "deltas").merged(coefficients), wanted)
    for name, tensor in vectors.half().merged(coefficients).items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, wanted[name], rtol=0, atol=1e-3)


def test_inner_products_are_those_of_whole_vectors(vectors):
    flat = torch.cat([delta.flatten(1) for delta in vectors.deltas.values()], dim=1).double()
    rows = [{k: v[row].numpy() for k, v in vectors.deltas.items()} for row in range(3)]
    np.testing.assert_allclose(inner_products(rows), (flat @ flat.T).numpy(), rtol=1e-12)
    assert length(rows[0]) == pytest.approx(flat[0].norm().item(), rel=1e-12)


def lazily(vectors, reads):
    """The same between models that note in `reads` who is read: (task or None, name)."""

    def model(task):
        held = vectors.expert(task) if task else vectors.pretrained
        return Lazy(kinds_of(held), lambda name: (reads.append((task, name)), held[name])[1])

    return TaskVectors.between(model(None), {task: model(task) for task in vectors.tasks})


def test_one_tasks_vector_is_read_alone(vectors):
    reads = []
    lazy = lazily(vectors, reads)
    own = lazy.of("mnist")
    assert list(own) == list(vectors.layers) and kinds_of(own) == kinds_of(vectors.pretrained)
    assert reads == []
    found = {name: own[name] for name in own}
    assert set(reads) == {(task, name) for task in (None, "mnist") for name in vectors.layers}
    assert len(reads) == len(set(reads))
    for name, tensor in found.items():
        assert torch.equal(tensor, lazy.deltas[name][1])
    same(lazy.expert("mnist"), {n: vectors.pretrained[n] + found[n] for n in found})


def test_one_tasks_vector_of_what_is_held_or_stacked(vectors):
    parts = [{name: delta[row] for name, delta in vectors.deltas.items()} for row in range(3)]
    stack = TaskVectors(vectors.tasks, vectors.pretrained, stacked(vectors.layers, parts))
    for row, task in enumerate(vectors.tasks):
        same(vectors.of(task), parts[row])
        same(stack.of(task), parts[row])
    half = vectors.half()
    assert half.of("cars")["visual.proj"].dtype == torch.float16
    assert half.expert("cars")["visual.proj"].dtype == torch.float32


def kept_in_every_way(vectors):
    """The same task vectors: in memory, stacked of parts, and between models."""
    parts = [{name: delta[row] for name, delta in vectors.deltas.items()} for row in range(3)]
    between = lazily(vectors, [])
    return {
        "held": (vectors.deltas, vectors.deltas),
        "stacked": (stacked(vectors.layers, parts), vectors.deltas),
        "between": (between.deltas, {name: between.deltas[name] for name in between.deltas}),
    }


@pytest.mark.parametrize("size", [1, 100, 2**15])
@pytest.mark.parametrize("way", ["held", "stacked", "between"])
def test_pieces_and_columns_are_the_whole_stack(vectors, way, size):
    deltas, wanted = kept_in_every_way(vectors)[way]
    for name in ["visual.class_embedding", "visual.proj"]:
        flat = wanted[name].flatten(1)
        found = torch.full_like(flat, torch.nan)
        rows = []
        for row, at, values in pieces(deltas, name, size):
            rows.append(row)
            assert len(values) <= size
            found[row, at] = values
        assert rows == sorted(rows)
        assert torch.equal(found, flat)
        blocks = list(columns(deltas, name, size))
        assert max(block.shape[1] for block in blocks) <= size
        assert torch.equal(torch.cat(blocks, dim=1), flat)


def test_pieces_of_models_hold_one_task_at_a_time(vectors):
    reads = []
    lazy = lazily(vectors, reads)
    for row, _, _ in pieces(lazy.deltas, "visual.proj", 50):
        assert [task for task, _ in reads] == [None, *vectors.tasks[: row + 1]]


def test_entrywise_changes_are_those_of_whole_tensors(vectors):
    def largest(delta):
        return delta.abs().amax(dim=0)

    wanted = vectors.changed(lambda name, delta: largest(delta))
    same(vectors.changed_entrywise(largest), wanted)
