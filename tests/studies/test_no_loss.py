"""Tests of no loss, held to SciPy, with Holm's correction by hand."""

from __future__ import annotations

import pytest
from scipy.stats import t, ttest_1samp

from moevoprune.studies.no_loss import loss_tests

PAIRS = {
    "close": ([0.90, 0.92, 0.93, 0.91], [0.905, 0.918, 0.932, 0.912]),
    "far": ([0.80, 0.83, 0.81, 0.82], [0.90, 0.92, 0.93, 0.91]),
    "same": ([0.5, 0.6], [0.5, 0.6]),
}
MARGINS = {"close": 0.01, "far": 0.02, "same": 0.01}


def test_each_is_tested_with_its_margin_and_corrected():
    found = loss_tests(PAIRS, MARGINS)
    p_values = {}
    for name in ("close", "far"):
        differences = [a - b for a, b in zip(*PAIRS[name], strict=True)]
        tested = ttest_1samp(differences, -MARGINS[name], alternative="greater")
        p_values[name] = tested.pvalue
        assert found[name].test.p_value == pytest.approx(tested.pvalue)
        low = tested.confidence_interval(0.95).low
        assert float(found[name].difference_cells(4)[1]) == pytest.approx(low, abs=6e-5)
    # what has no p-value does not count
    assert found["close"].p_value == pytest.approx(2 * p_values["close"])
    assert found["far"].p_value == pytest.approx(max(2 * p_values["close"], p_values["far"]))
    assert {name: test.shown for name, test in found.items()} == {"close": True, "far": False, "same": True}
    assert found["same"].p_cells() == ["", ""]
    assert found["same"].difference_cells(2)[1] == "+.00"


def test_what_is_shown_alone_may_not_be_after_the_correction():
    # p of .03 by a margin as many standard errors away
    differences = [-0.01, 0.0, 0.01, 0.0]
    error = (sum(d * d for d in differences) / 3 / 4) ** 0.5
    margin = error * float(t.ppf(0.97, 3))
    pair = (differences, [0.0] * 4)
    assert loss_tests({"a": pair}, {"a": margin})["a"].shown
    both = loss_tests({"a": pair, "b": pair}, {"a": margin, "b": margin})
    assert both["a"].test.shown
    assert not both["a"].shown
    assert both["a"].p_value == pytest.approx(0.06)


def test_one_seed_shows_nothing():
    assert not loss_tests({"a": ([0.9], [0.1])}, {"a": 0.1})["a"].shown
