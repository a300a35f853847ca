"""Metrics against plain loops and cases whose answer is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline import predictions as module
from pipeline.errors import UserError
from pipeline.evaluation import Predictions, accuracy, calibration_error, negative_log_likelihood
from pipeline.predictions import entropy, predict


def made(confidence, correct, p_label=None):
    """Predictions of two classes with the given confidences, right or wrong."""
    confidence, correct = np.asarray(confidence, np.float32), np.asarray(correct)
    count = len(confidence)
    top = np.stack([np.zeros(count), np.ones(count)], axis=1).astype(np.int16)
    p_label = np.where(correct, confidence, 1 - confidence) if p_label is None else p_label
    return Predictions(
        index=np.arange(count, dtype=np.int32),
        label=np.where(correct, 0, 1).astype(np.int64),
        top=top,
        p_top1=confidence,
        p_label=np.asarray(p_label, np.float32),
        entropy=np.zeros(count, np.float32),
        brier=np.zeros(count, np.float32),
    )


def calibration_by_hand(confidence, correct, bins=15):
    """Guo et al. 2017, equation 3, bin by bin."""
    error = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        last = number == bins - 1
        inside = [
            (c, right)
            for c, right in zip(confidence, correct, strict=True)
            if low <= c < high or (last and c == 1)
        ]
        if inside:
            mean_confidence = sum(c for c, _ in inside) / len(inside)
            share_right = sum(right for _, right in inside) / len(inside)
            error += len(inside) / len(confidence) * abs(share_right - mean_confidence)
    return 100 * error


@pytest.fixture
def said(tiny_clip, fit_data):
    """What the tiny model says about the dtd images, with some labels."""
    images, head = fit_data.images["dtd"], fit_data.heads["dtd"]
    labels = np.arange(len(images)) % len(head)
    return predict(fit_data.encoder, head, fit_data.logit_scale, images, labels)


def test_accuracy_is_the_share_of_correct_ones():
    assert accuracy(made([0.9] * 4, [True, True, False, True])) == 75
    assert accuracy(made([0.9], [False])) == 0


@pytest.mark.parametrize("seed", range(4))
def test_calibration_error_bin_by_bin(seed):
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.05, 1, 200).astype(np.float32)
    correct = rng.random(200) < confidence**2
    expected = calibration_by_hand(confidence.astype(float), correct)
    assert calibration_error(made(confidence, correct)) == pytest.approx(expected, abs=1e-9)


def test_calibration_of_known_cases():
    assert calibration_error(made([0.75] * 4, [True, True, True, False])) == pytest.approx(0)
    assert calibration_error(made([1.0] * 5, [True] * 5)) == pytest.approx(0)
    assert calibration_error(made([1.0] * 5, [False] * 5)) == pytest.approx(100)
    # Two bins: 0.5 sure and always right, 0.9 sure and half right.
    both = made([0.5, 0.5, 0.9, 0.9], [True, True, True, False])
    assert calibration_error(both) == pytest.approx(100 * (0.5 * 0.5 + 0.5 * 0.4), abs=1e-5)
    # Float rounding may carry a probability above one.
    assert calibration_error(made([1.0000001], [True])) == pytest.approx(0, abs=1e-4)


def test_negative_log_likelihood():
    p = [0.5, 0.25, 1.0]
    expected = -sum(math.log(value) for value in p) / 3
    assert negative_log_likelihood(made([0.9] * 3, [True] * 3, p)) == pytest.approx(expected)
    assert math.isfinite(negative_log_likelihood(made([1.0], [False], [0.0])))


def test_predictions_by_hand(said, fit_data):
    images, head = fit_data.images["dtd"], fit_data.heads["dtd"]
    with torch.no_grad():
        features = fit_data.encoder(torch.from_numpy(images)).double()
    logits = (fit_data.logit_scale * features @ head.double().T).numpy()
    for row, label in enumerate(said.label):
        p = np.exp(logits[row] - logits[row].max())
        p /= p.sum()
        assert said.top[row].tolist() == sorted(range(6), key=lambda k: -p[k])[:5]
        assert said.p_top1[row] == pytest.approx(p.max(), rel=1e-5)
        assert said.p_label[row] == pytest.approx(p[label], rel=1e-4, abs=1e-7)
        assert said.entropy[row] == pytest.approx(-(p * np.log(p)).sum(), rel=1e-4, abs=1e-6)
        error = sum((p[k] - (k == label)) ** 2 for k in range(6))
        assert said.brier[row] == pytest.approx(error, rel=1e-4, abs=1e-6)
    assert said.correct.tolist() == (logits.argmax(1) == said.label).tolist()


def test_predictions_have_the_promised_form(said):
    count = len(said.label)
    arrays = {name: array for name, array in vars(said).items() if array is not None}
    assert {name: (array.dtype.name, array.shape) for name, array in arrays.items()} == {
        "index": ("int32", (count,)),
        "label": ("int64", (count,)),
        "top": ("int16", (count, 5)),
        "p_top1": ("float32", (count,)),
        "p_label": ("float32", (count,)),
        "entropy": ("float32", (count,)),
        "brier": ("float32", (count,)),
    }
    assert (said.p_label <= said.p_top1 + 1e-6).all()


def test_fewer_classes_than_five(fit_data):
    images, head = fit_data.images["cars"], fit_data.heads["cars"]
    said = predict(fit_data.encoder, head, 20.0, images, np.zeros(len(images), np.int64))
    assert said.top.shape == (len(images), 4)
    assert all(sorted(row) == [0, 1, 2, 3] for row in said.top.tolist())


@pytest.mark.parametrize("batch", [1, 4, 7, 1000])
def test_batch_size_does_not_matter(said, fit_data, monkeypatch, batch):
    monkeypatch.setattr(module, "BATCH", batch)
    images, head = fit_data.images["dtd"], fit_data.heads["dtd"]
    again = predict(fit_data.encoder, head, fit_data.logit_scale, images, said.label)
    assert np.array_equal(again.top, said.top)
    for name in ("p_top1", "p_label", "entropy", "brier"):
        np.testing.assert_allclose(getattr(again, name), getattr(said, name), atol=1e-5)


@pytest.mark.parametrize("joint", [None, np.ones(15, np.float32)])
def test_predictions_survive_the_file(said, tmp_path, joint):
    said = replace(said, joint=joint, joint_same_words=joint)
    first, second = tmp_path / "p.npz", tmp_path / "q.npz"
    said.save(first)
    said.save(second)
    loaded = Predictions.load(first, "")
    for name, array in vars(said).items():
        assert np.array_equal(getattr(loaded, name), array)
        assert array is None or getattr(loaded, name).dtype == array.dtype
    assert first.read_bytes() == second.read_bytes()


def test_predictions_of_an_older_version_name_the_stage(said, tmp_path):
    arrays = {name: array for name, array in vars(said).items() if array is not None}
    del arrays["brier"]
    np.savez(tmp_path / "p.npz", **arrays)
    with pytest.raises(UserError, match=r"brier.* Delete it and run 'the stage'\."):
        Predictions.load(tmp_path / "p.npz", "the stage")


def test_entropy_lies_between_zero_and_that_of_a_guess():
    logits = torch.cat([torch.zeros(1, 10), torch.eye(10) * 1000, torch.randn(50, 10) * 5])
    nats = entropy(logits)
    assert nats[0].item() == pytest.approx(math.log(10), rel=1e-6)
    assert nats[1:11].tolist() == pytest.approx([0.0] * 10, abs=1e-6)
    assert (nats >= -1e-6).all() and (nats <= math.log(10) + 1e-6).all()
    assert entropy(logits + 300).allclose(nats, atol=1e-4)


def test_correct_reads_the_first_of_the_top(said):
    always = replace(said, label=said.top[:, 0].astype(np.int64))
    never = replace(said, label=said.top[:, 1].astype(np.int64))
    assert (accuracy(always), accuracy(never)) == (100, 0)
