"""Several processes share every step: played by threads that add up, and by one that collects."""

from copy import deepcopy
from dataclasses import dataclass, field, replace
from threading import Barrier, Thread

import pytest
import torch
from oracles import coefficients, data_of, expected, expert_predictions, problem, tower

from pipeline.errors import UserError
from pipeline.learning import LearningOptions, learn_coefficients
from pipeline.learning.feeding import shares
from pipeline.parallel import Group


@dataclass(frozen=True)
class Collects(Group):
    """A process whose sums stay its own; what it would have sent is kept."""

    sent: list = field(default_factory=list)

    def sum_(self, tensor):
        self.sent.append(tensor.clone())
        return tensor


class Meeting:
    """Where threads meet to add up their tensors."""

    def __init__(self, size):
        self.slots, self.barrier = [None] * size, Barrier(size, timeout=30)


@dataclass(frozen=True)
class Together(Group):
    """One of several threads that add up their tensors, always in the same order."""

    meeting: Meeting = field(default_factory=lambda: Meeting(1))

    def sum_(self, tensor):
        self.meeting.slots[self.rank] = tensor.clone()
        self.meeting.barrier.wait()
        tensor.copy_(sum(self.meeting.slots))
        self.meeting.barrier.wait()
        return tensor


def in_threads(size, work):
    """What `work(group)` gives or raises in each of `size` threads."""
    meeting, found = Meeting(size), [None] * size

    def run(rank):
        try:
            found[rank] = work(Together(rank, size, meeting))
        except Exception as error:
            found[rank] = error
            meeting.barrier.abort()

    threads = [Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in found:
        if isinstance(error, Exception) and not isinstance(error, UserError):
            raise error
    return found


def part_of(case, group):
    """The images that are this process's, all processes' numbers of images, and the places."""
    totals = [len(batch) for batch in case.images]
    mine = shares(totals, group)
    return [batch[part] for batch, part in zip(case.images, mine, strict=True)], totals, mine


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("objective", ["entropy", "normalized_entropy", "gated_entropy"])
def test_gradients_of_processes_add_up(size, objective):
    case = problem(tower(), (4, 2, 5))
    raw = coefficients(len(case.vectors.layers))
    total, sums = 0, 0
    for rank in range(size):
        group = Collects(rank, size)
        images, totals, _ = part_of(case, group)
        with case.step(objective, group=group, chunk=2) as step:
            with torch.no_grad():
                step.raw.copy_(raw)
            measured = step(images, totals=totals)
        total = total + step.raw.grad
        sums = sums + torch.stack([measured.losses, measured.entropies])
        assert len(group.sent) == 1  # one reduction in a step
    oracle = expected(case, raw, objective)
    torch.testing.assert_close(total, oracle.gradient, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(sums, torch.stack([oracle.losses, oracle.entropies]))


@pytest.mark.parametrize("size", [2, 3, 5, 13])
@pytest.mark.parametrize("objective", ["entropy", "diversity", "distillation"])
@pytest.mark.parametrize("chunk", [None, 2])
def test_every_process_finds_the_whole_step(size, objective, chunk):
    case = problem(tower(), (4, 2, 5))
    raw = coefficients(len(case.vectors.layers))
    oracle, predicted = expected(case, raw, objective), expert_predictions(case)

    def work(group):
        images, totals, parts = part_of(case, group)
        experts = [rows[part] for rows, part in zip(predicted, parts, strict=True)]
        own = replace(case, encoder=deepcopy(case.encoder))
        with own.step(objective, group=group, chunk=chunk) as step:
            with torch.no_grad():
                step.raw.copy_(raw)
            return step(images, totals=totals, experts=experts), step.raw.grad

    found = in_threads(size, work)
    for measured, gradient in found:
        torch.testing.assert_close(gradient, oracle.gradient, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(measured.losses, oracle.losses)
        torch.testing.assert_close(measured.entropies, oracle.entropies)
        torch.testing.assert_close(measured.shares, oracle.shares)
        assert torch.equal(gradient, found[0][1])


@pytest.mark.parametrize("objective", ["entropy", "diversity"])
def test_one_process_out_of_memory_keeps_nobody_waiting(objective):
    case = problem(tower(), (4, 4, 4))
    raw = coefficients(len(case.vectors.layers))

    def work(group):
        own = replace(case, encoder=deepcopy(case.encoder))
        if group.rank == 1:

            def refuse(module, images, features):
                if len(features) > 3:
                    raise torch.OutOfMemoryError("CUDA out of memory.")

            own.encoder.register_forward_hook(refuse)
        images, totals, _ = part_of(case, group)
        with own.step(objective, group=group) as step:
            with torch.no_grad():
                step.raw.copy_(raw)
            step(images, totals=totals)
            return step.raw.grad, step.chunk

    (first, whole), (second, half) = in_threads(2, work)
    torch.testing.assert_close(
        first, expected(case, raw, objective).gradient, rtol=1e-9, atol=1e-11
    )
    assert torch.equal(first, second)
    assert (whole, half) == (None, 3)


@pytest.fixture
def learning():
    """A function that learns, alone or as one of a group, with an encoder of its own."""
    case = problem(tower(), (13, 2, 20))

    def learn(group, spoil=lambda encoder, group: None, state=None, **more):
        data = data_of(replace(case, encoder=deepcopy(case.encoder)))
        spoil(data.encoder, group)
        options = LearningOptions(**{"steps": 12, "batch": 4, "lr": 0.02} | more)
        return learn_coefficients(case.vectors, data, options, group=group, state=state)

    return learn


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("objective", ["entropy", "diversity", "distillation"])
def test_processes_learn_what_one_does(learning, size, objective, tmp_path):
    alone = learning(Group(), objective=objective)
    state = tmp_path / "state"
    found = in_threads(size, lambda group: learning(group, objective=objective, state=state))
    for learned in found:
        torch.testing.assert_close(learned.values, alone.values, rtol=1e-8, atol=1e-10)
        assert torch.equal(learned.values, found[0].values)
        for name, series in alone.history.items():
            torch.testing.assert_close(learned.history[name], series)
    assert not state.exists()


def test_nan_ends_all_processes(learning, tmp_path):
    def spoil(encoder, group):
        if group.rank == 1:
            encoder.register_forward_hook(lambda module, images, features: features * float("nan"))

    def work(group):
        return learning(group, spoil, tmp_path / f"{group.rank}.safetensors")

    found = in_threads(2, work)
    assert all(isinstance(error, UserError) for error in found)
    assert all("not a finite number at step 1" in str(error) for error in found)
    assert [file.name for file in tmp_path.iterdir()] == ["0.safetensors"]  # one of them saves
