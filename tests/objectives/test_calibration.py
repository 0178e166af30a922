"""Expected calibration error."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from moevoprune.errors import InputError
from moevoprune.objectives.calibration import expected_calibration_error


def by_hand(probabilities, targets, bins):
    """Guo et al.'s equation 3, one row and one bin at a time."""
    total = 0.0
    for b in range(bins):
        rows = [
            i
            for i, row in enumerate(probabilities)
            if b / bins < max(row) <= (b + 1) / bins or (b == 0 and max(row) == 0)
        ]
        if rows:
            right = sum(int(np.argmax(probabilities[i])) == targets[i] for i in rows) / len(rows)
            sure = sum(float(max(probabilities[i])) for i in rows) / len(rows)
            total += len(rows) / len(targets) * abs(right - sure)
    return total


@pytest.mark.parametrize("bins", [1, 4, 15, 100])
@pytest.mark.parametrize("classes", [2, 5])
def test_it_is_that_of_a_loop_over_the_bins(bins, classes):
    generator = np.random.default_rng(bins + classes)
    probabilities = softmax(generator.normal(scale=2, size=(300, classes)), axis=1)
    targets = generator.integers(0, classes, 300)
    ours = expected_calibration_error(probabilities, targets, bins)
    assert ours == pytest.approx(by_hand(probabilities, targets, bins), abs=1e-12)
    assert expected_calibration_error(probabilities.astype(np.float32), targets, bins) == pytest.approx(
        ours, abs=1e-2
    )


def test_closed_forms():
    sure = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert expected_calibration_error(sure, np.array([0, 0, 1, 1])) == 0
    assert expected_calibration_error(sure, np.array([1, 1, 0, 0])) == 1
    assert expected_calibration_error(sure, np.array([0, 1, 1, 0])) == 0.5
    # right three times of four, and says so
    assert expected_calibration_error(np.array([[0.75, 0.25]] * 4), np.array([0, 0, 0, 1])) == 0
    # a probability on an edge belongs to the bin below: these two are in different bins, and both off
    edge = np.array([[0.5, 0.4, 0.1], [0.6, 0.3, 0.1]])
    assert expected_calibration_error(edge, np.array([0, 1]), 2) == pytest.approx((0.5 + 0.6) / 2)
    # in one bin what they are off cancels in part
    assert expected_calibration_error(edge, np.array([0, 1]), 1) == pytest.approx(abs(0.5 - 0.55))


def test_calibrated_probabilities_have_little_of_it():
    generator = np.random.default_rng(0)
    one = generator.uniform(size=40_000)
    targets = (generator.uniform(size=40_000) < one).astype(np.int64)
    assert expected_calibration_error(np.stack([1 - one, one], axis=1), targets) < 0.02


def test_rounding_above_one_is_no_error():
    assert expected_calibration_error(np.array([[1.000001, 0.0]], np.float32), np.array([0])) == 0


@pytest.mark.parametrize(
    ("probabilities", "targets", "bins", "said"),
    [
        (np.zeros((0, 2)), np.zeros(0, np.int64), 15, "at least one row"),
        (np.ones(3), np.zeros(3, np.int64), 15, "shapes"),
        (np.ones((3, 1)), np.zeros(2, np.int64), 15, "shapes"),
        (np.array([[1.5, -0.5]]), np.array([0]), 15, "between 0 and 1"),
        (np.array([[np.nan, 0.5]]), np.array([0]), 15, "between 0 and 1"),
        (np.array([[0.5, 0.5]]), np.array([2]), 15, "from 0 to 1"),
        (np.array([[0.5, 0.5]]), np.array([0.0]), 15, "class labels"),
        (np.array([[0.5, 0.5]]), np.array([0]), 0, "bins"),
    ],
)
def test_bad_input_is_refused(probabilities, targets, bins, said):
    with pytest.raises(InputError, match=said):
        expected_calibration_error(probabilities, targets, bins)
