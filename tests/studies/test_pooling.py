"""Mean differences over data sets, against scipy's tests."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_1samp, ttest_ind

from moevoprune import InputError
from moevoprune.studies.pooling import pooled_test


def test_one_data_set_is_the_paired_test():
    values = [0.01, 0.04, -0.01, 0.03, 0.02]
    test, oracle = pooled_test([values]), ttest_1samp(values, 0.0)
    assert test.p_value == pytest.approx(oracle.pvalue, rel=1e-12)
    low, high = oracle.confidence_interval(0.95)
    assert (test.difference.mean, test.difference.low, test.difference.high) == pytest.approx((0.018, low, high))


def test_two_data_sets_are_welchs_test():
    first, second = np.array([0.01, 0.04, -0.01, 0.03]), np.array([0.2, 0.1, 0.4, 0.3, 0.25])
    test, oracle = pooled_test([first, second]), ttest_ind(first, -second, equal_var=False)
    assert test.p_value == pytest.approx(oracle.pvalue, rel=1e-12)
    interval = oracle.confidence_interval(0.95)
    assert (2 * test.difference.low, 2 * test.difference.high) == pytest.approx((interval.low, interval.high))
    assert test.difference.n == 9


def test_the_level_is_kept():
    generator = np.random.default_rng(0)
    scales = np.array([0.1, 1.0, 3.0])[:, None]
    p_values = [pooled_test(list(scales * generator.normal(size=(3, 5)))).p_value for _ in range(400)]
    # 95 % of 400 binomial draws of .05 lie within 12 and 29
    assert 8 <= (np.array(p_values) < 0.05).sum() <= 33


def test_without_spread():
    assert pooled_test([[0.0, 0.0], [0.0, 0.0]]).p_value == 1.0
    assert pooled_test([[0.1, 0.1], [0.1, 0.1]]).p_value is None
    single = pooled_test([[0.1], [0.3]])
    assert single.difference.text() == ".200"
    assert single.p_value is None


@pytest.mark.parametrize("differences", [[], [[]], [[0.1], []], [[np.nan, 0.1]]])
def test_bad_input(differences):
    with pytest.raises(InputError):
        pooled_test(differences)
