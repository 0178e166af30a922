"""Means over seeds against 0: held to SciPy, and to Holm's rule by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from moevoprune.studies.mean_tests import by_data, column_tests, mean_tests, per_seed

ROWS = [
    {"data": "a", "seed": 2, "kind": "x", "value": 4.0},
    {"data": "b", "seed": 1, "kind": "x", "value": 1.0},
    {"data": "a", "seed": 1, "kind": "x", "value": 1.0},
    {"data": "a", "seed": 1, "kind": "x", "value": 2.0},
    {"data": "a", "seed": 1, "kind": "y", "value": 9.0},
]


def test_they_are_t_tests_with_holms_correction():
    samples = {"a": [0.4, 0.5, 0.45, 0.6], "b": [0.1, 0.3, -0.02, 0.2], "c": [-0.3, -0.31, -0.29, -0.33]}
    found = mean_tests(samples)
    raw = {name: ttest_1samp(sample, 0.0).pvalue for name, sample in samples.items()}
    first, second, third = sorted(raw, key=raw.get)
    running = 0.0
    for name, factor in ((first, 3), (second, 2), (third, 1)):
        running = max(running, factor * raw[name])
        assert found[name].p_value == pytest.approx(running)
        assert found[name].mean.mean == pytest.approx(np.mean(samples[name]))
    assert {name: test.differs for name, test in found.items()} == {"a": True, "b": False, "c": True}
    assert {name: test.above_zero for name, test in found.items()} == {"a": True, "b": False, "c": False}
    assert found["c"].text() == f"{found['c'].mean.text(2, sign=True)} *"
    assert "*" not in found["b"].text()


def test_what_has_no_value_is_left_out():
    found = mean_tests({"a": [np.nan, 1.0, 1.2, 1.1], "b": [np.nan]})
    assert found["a"].mean.n == 3
    assert found["a"].p_value == pytest.approx(ttest_1samp([1.0, 1.2, 1.1], 0.0).pvalue)
    assert (found["b"].p_value, found["b"].above_zero, found["b"].text()) == (None, False, "n/a")


def test_rows_are_sorted_by_data_and_averaged_by_seed():
    assert {name: len(of) for name, of in by_data(ROWS).items()} == {"a": 4, "b": 1}
    wanted = by_data(ROWS, kind="y")
    assert wanted == {"a": [ROWS[4]], "b": []}
    assert per_seed(by_data(ROWS, kind="x")["a"], "value") == [1.5, 4.0]
    found = column_tests(by_data(ROWS, kind="x"), "value")
    assert {name: test.mean.mean for name, test in found.items()} == {"a": 2.75, "b": 1.0}
