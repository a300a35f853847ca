"""Metrics of random predictions against torchmetrics and torch, and binning by mass by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.functional import mean_squared_error
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
)

from pipeline.evaluation import (
    Predictions,
    accuracy,
    brier_score,
    calibration_error,
    calibration_error_by_mass,
    negative_log_likelihood,
)
from pipeline.predictions import predict

CLASSES, IMAGES = 7, 500


class Features(nn.Module):
    """An encoder whose features are what its images hold."""

    def __init__(self, features):
        super().__init__()
        self.features = nn.Parameter(features)

    def forward(self, images):
        return self.features[images[:, 0, 0, 0].long()]


@pytest.fixture(params=[0.5, 3.0, 20.0], ids=["unsure", "middling", "sure"])
def case(request):
    """Logits, labels that they half know, and the predictions."""
    generator = torch.Generator().manual_seed(int(request.param))
    logits = request.param * torch.randn(IMAGES, CLASSES, generator=generator)
    noisy = logits + request.param * torch.randn(logits.shape, generator=generator)
    labels = noisy.argmax(dim=1)
    images = np.arange(IMAGES).reshape(-1, 1, 1, 1)
    said = predict(Features(logits), torch.eye(CLASSES), 1.0, images, labels.numpy())
    return logits, labels, said


def test_against_torchmetrics(case):
    logits, labels, said = case
    shares = logits.softmax(dim=1)
    right = multiclass_accuracy(shares, labels, CLASSES, average="micro")
    assert accuracy(said) == pytest.approx(100 * right.item(), abs=1e-4)
    error = multiclass_calibration_error(shares, labels, CLASSES, n_bins=15, norm="l1")
    assert calibration_error(said) == pytest.approx(100 * error.item(), abs=1e-3)
    truth = nn.functional.one_hot(labels, CLASSES).float()
    squares = mean_squared_error(shares.flatten(), truth.flatten()) * CLASSES
    assert brier_score(said) == pytest.approx(squares.item(), rel=1e-4)
    loss = nn.functional.cross_entropy(logits, labels)
    assert negative_log_likelihood(said) == pytest.approx(loss.item(), rel=1e-4)
    nats = torch.distributions.Categorical(logits=logits).entropy()
    np.testing.assert_allclose(said.entropy, nats.numpy(), atol=1e-5)


def by_mass_by_hand(said, bins):
    """Sorted, cut into bins of as many images, each one's gap weighted by its size."""
    order = np.argsort(said.p_top1)
    total, start = 0.0, 0
    for number in range(bins):
        size = len(order) // bins + (number < len(order) % bins)
        mine = order[start : start + size]
        if size:
            gap = abs(said.correct[mine].mean() - said.p_top1[mine].astype(float).mean())
            total += size / len(order) * gap
        start += size
    return 100 * total


def test_calibration_by_mass_bin_by_bin(case):
    *_, said = case
    # Confidences that float32 rounds to the same have no order: they are left out here.
    _, first = np.unique(said.p_top1, return_index=True)
    said = Predictions(*(array[first] for array in vars(said).values() if array is not None))
    for bins in (1, 4, 15, 600):
        expected = by_mass_by_hand(said, bins)
        assert calibration_error_by_mass(said, bins) == pytest.approx(expected, abs=1e-9)


def test_calibration_of_known_cases_by_mass(case):
    *_, said = case
    alike = replace(said, p_top1=np.full(IMAGES, 0.25, np.float32))
    assert calibration_error_by_mass(alike) == pytest.approx(abs(accuracy(said) - 25), abs=1e-9)
    one_bin = abs(accuracy(said) - 100 * said.p_top1.mean(dtype=float))
    assert calibration_error_by_mass(said, bins=1) == pytest.approx(one_bin, abs=1e-9)
    # Two halves, each as sure as it is right: with two bins nothing is left.
    sure = np.repeat([0.5, 1.0], [4, 4]).astype(np.float32)
    top = np.array([[0], [0], [1], [1], [0], [0], [0], [0]], np.int16)
    zeros = np.zeros(8)
    halves = Predictions(zeros, zeros, top, sure, zeros, zeros, zeros)
    assert calibration_error_by_mass(halves, bins=2) == 0


def test_order_of_images_does_not_matter(case):
    *_, said = case
    rng = np.random.default_rng(0)
    # Many are equally sure, and too sure in some bins as in others not enough.
    sure = rng.uniform(accuracy(said) / 100 - 0.4, accuracy(said) / 100 + 0.4, IMAGES)
    rough = replace(said, p_top1=sure.clip(0, 1).round(1))
    order = rng.permutation(IMAGES)
    arrays = [array for array in vars(rough).values() if array is not None]
    turned = Predictions(*(array[order] for array in arrays))
    for metric in (calibration_error, calibration_error_by_mass, brier_score, accuracy):
        assert metric(turned) == pytest.approx(metric(rough), abs=1e-9)


def test_brier_of_known_cases():
    logits = torch.tensor([[80.0, 0, 0, 0], [80.0, 0, 0, 0], [1.0, 1, 1, 1]])
    labels = np.array([0, 1, 3])
    images = np.arange(3).reshape(-1, 1, 1, 1)
    said = predict(Features(logits), torch.eye(4), 1.0, images, labels)
    # Sure and right, sure and wrong, and a guess among four: 3 * 1/16 + 9/16.
    assert said.brier.tolist() == pytest.approx([0, 2, 0.75])
