"""Rank correlation: held to SciPy, to the textbook's formula and to hidden causes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from moevoprune import InputError
from moevoprune.studies.rank_correlation import rank_correlation


def test_without_others_it_is_spearmans():
    generator = np.random.default_rng(1)
    x = generator.integers(6, size=50)
    y = x + generator.normal(size=50)
    assert rank_correlation(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert rank_correlation(x, np.exp(y)) == pytest.approx(rank_correlation(x, y))


def test_given_others_it_is_that_of_the_inverse_matrix():
    values = np.random.default_rng(2).normal(size=(80, 4)) @ np.random.default_rng(3).normal(size=(4, 4))
    x, y, *given = values.T
    for known in (given[:1], given):
        inverse = np.linalg.inv(spearmanr(np.column_stack([x, y, *known])).statistic)
        expected = -inverse[0, 1] / np.sqrt(inverse[0, 0] * inverse[1, 1])
        assert rank_correlation(x, y, known) == pytest.approx(expected)


def test_a_common_cause_is_taken_out():
    cause, one, other = np.random.default_rng(4).normal(size=(3, 2000))
    x, y = cause + 0.3 * one, cause + 0.3 * other
    assert rank_correlation(x, y) > 0.85
    assert abs(rank_correlation(x, y, [cause])) < 0.1


def test_there_is_none_where_nothing_is_left():
    x = np.arange(9.0)
    assert np.isnan(rank_correlation(x, np.ones(9)))
    assert np.isnan(rank_correlation(x, np.random.default_rng(5).normal(size=9), [x**3]))
    assert np.isnan(rank_correlation(x[:3], x[2::-1] ** 2, [[2, 1, 3]]))
    assert rank_correlation(x, -x) == pytest.approx(-1)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"\(3,\), \(2,\)"):
        rank_correlation([1, 2, 3], [1, 2])
    with pytest.raises(InputError, match="not finite"):
        rank_correlation([1, 2, 3], [1, 2, np.nan])
