"""Predictive measures against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from moevoprune.errors import InputError
from moevoprune.objectives import accuracy, mean_squared_error, r2_score


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 40), classes=st.integers(1, 6))
def test_accuracy_matches_sklearn_with_ties(seed: int, n: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = rng.integers(0, 3, (n, classes)).astype(np.float32), rng.integers(0, classes, n)
    # numpy's argmax documents the first occurrence.
    expected = metrics.accuracy_score(labels, logits.argmax(-1))
    value = accuracy(torch.as_tensor(logits), torch.as_tensor(labels)).item()
    assert value == pytest.approx(expected, abs=1e-15)


def test_accuracy_batched_is_looped() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 2, 11, 4, generator=generator)
    shared = torch.randint(0, 4, (11,), generator=generator)
    own = torch.randint(0, 4, (3, 2, 11), generator=generator, dtype=torch.int32)
    assert accuracy(logits, own).shape == (3, 2)
    for i in range(3):
        for j in range(2):
            assert accuracy(logits, shared)[i, j] == accuracy(logits[i, j], shared)
            assert accuracy(logits, own)[i, j] == accuracy(logits[i, j], own[i, j])


def test_a_row_with_nan_is_wrong() -> None:
    logits = torch.tensor([[math.nan, 0.0], [1.0, 0.0], [math.inf, 0.0]])
    assert accuracy(logits, torch.tensor([0, 0, 0])).item() == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), "logits have shape"),
        (torch.zeros(4, 0), torch.zeros(4, dtype=torch.int64), "logits have shape"),
        (torch.zeros(4), torch.zeros(4, dtype=torch.int64), "logits have shape"),
        (torch.zeros(4, 3), torch.zeros(4), "integer class indices"),
        (torch.zeros(4, 3), torch.zeros(4, dtype=torch.bool), "integer class indices"),
        (torch.zeros(4, 3), torch.zeros(1, dtype=torch.int64), "one label per row"),
        (torch.zeros(4, 3), torch.tensor([0, 1, 2, 3]), r"0 \.\. 3 but"),
        (torch.zeros(4, 3), torch.tensor([0, 1, 2, -1]), r"-1 \.\. 2 but"),
    ],
)
def test_accuracy_refuses(logits: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        accuracy(logits, labels)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 40),
    columns=st.integers(1, 4),
    offset=st.floats(-1e3, 1e3),
)
def test_regression_measures_match_sklearn(seed: int, n: int, columns: int, offset: float) -> None:
    rng = np.random.default_rng(seed)
    targets = rng.normal(size=(n, columns)) + offset
    outputs = targets + rng.normal(size=(n, columns))
    both = torch.as_tensor(outputs), torch.as_tensor(targets)
    assert r2_score(*both).item() == pytest.approx(metrics.r2_score(targets, outputs), rel=1e-8)
    assert mean_squared_error(*both).item() == pytest.approx(
        metrics.mean_squared_error(targets, outputs), rel=1e-10
    )


@pytest.mark.parametrize("value", [0.0, 2.0, 0.1])
def test_a_constant_column_counts_one_or_zero(value: float) -> None:
    targets = np.c_[np.full(6, value), np.arange(6.0)]
    exact, off = targets.copy(), targets + np.array([[0.5, 0.25]])
    for outputs, first in ((exact, 1.0), (off, 0.0)):
        second = metrics.r2_score(targets[:, 1], outputs[:, 1])
        got = r2_score(torch.as_tensor(outputs), torch.as_tensor(targets)).item()
        assert got == pytest.approx((first + second) / 2)
        if value != 0.1:  # sklearn takes the rounding of the mean of 0.1 for variance
            assert got == pytest.approx(metrics.r2_score(targets, outputs))


def test_regression_batched_is_looped() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(5, 9, 2, generator=generator), torch.randn(9, 2, generator=generator)
    own = torch.randn(5, 9, 2, generator=generator)
    for measure in (r2_score, mean_squared_error):
        assert measure(outputs, targets).dtype == torch.float64
        for i in range(5):
            assert measure(outputs, targets)[i].item() == pytest.approx(measure(outputs[i], targets).item())
            assert measure(outputs, own)[i].item() == pytest.approx(measure(outputs[i], own[i]).item())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_outputs_are_not_hidden(bad: float) -> None:
    targets = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
    outputs = targets.clone()
    outputs[0, 0] = bad
    assert not math.isfinite(r2_score(outputs, targets).item())
    assert not math.isfinite(mean_squared_error(outputs, targets).item())


@pytest.mark.parametrize("measure", [r2_score, mean_squared_error])
def test_regression_refuses(measure) -> None:
    with pytest.raises(InputError, match="outputs have shape"):
        measure(torch.zeros(0, 2), torch.zeros(0, 2))
    for shape in ((4,), (4, 1), (1, 4, 2)):
        with pytest.raises(InputError, match="one target per output"):
            measure(torch.zeros(4, 2), torch.zeros(shape))


def test_r2_refuses_a_single_row() -> None:
    with pytest.raises(InputError, match="at least 2 rows"):
        r2_score(torch.zeros(1, 2), torch.zeros(1, 2))
