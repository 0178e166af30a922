"""Overlap of frequencies, against sets, a leave-one-out loop and simulated groups."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from moevoprune import InputError
from moevoprune.studies.overlap import compare_overlap, seed_overlap, weighted_jaccard


def groups(shift, seed=0, n=5):
    generator = np.random.default_rng(seed)
    base = generator.random(40)
    first = [np.clip(base + 0.2 * generator.normal(size=40), 0, 1) for _ in range(n)]
    moved = np.roll(base, 1) * shift + base * (1 - shift)
    second = [np.clip(moved + 0.2 * generator.normal(size=40), 0, 1) for _ in range(n)]
    return first, second


def test_of_sets_it_is_the_jaccard_index():
    generator = np.random.default_rng(1)
    a, b = generator.random((2, 50)) < 0.4
    sets = set(np.flatnonzero(a)), set(np.flatnonzero(b))
    expected = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
    assert weighted_jaccard(a.astype(float), b.astype(float)) == pytest.approx(expected)
    assert weighted_jaccard(np.array([0.5, 0.0]), np.array([0.25, 0.25])) == pytest.approx(0.25 / 0.75)
    assert weighted_jaccard(np.zeros(3), np.zeros(3)) == 1.0


def test_the_jackknife_leaves_out_one_seed_at_a_time():
    first, second = groups(0.5)

    def statistic(seeds):
        pairs = [(s, t) for s, t in itertools.permutations(seeds, 2)]
        across = np.mean([weighted_jaccard(first[s], second[t]) for s, t in pairs])
        within = np.mean([weighted_jaccard(first[s], first[t]) for s, t in pairs])
        return across - within

    whole = statistic(range(5))
    pseudo = [5 * whole - 4 * statistic([t for t in range(5) if t != s]) for s in range(5)]
    oracle = ttest_1samp(pseudo, 0.0)
    compared = compare_overlap(first, second)
    assert compared.difference.mean == pytest.approx(whole)
    assert compared.p_value == pytest.approx(oracle.pvalue)
    interval = oracle.confidence_interval(0.95)
    assert (compared.difference.low, compared.difference.high) == pytest.approx((interval.low, interval.high))
    assert compared.across.mean - compared.within.mean == pytest.approx(whole)
    assert compared.within == seed_overlap(first)


def test_equal_groups_are_told_apart_no_more_often_than_stated():
    p_values = [compare_overlap(*groups(0.0, seed)).p_value for seed in range(120)]
    assert (np.array(p_values) < 0.05).mean() < 0.13
    assert compare_overlap(*groups(1.0)).p_value < 0.01


def test_two_seeds_give_no_test():
    compared = compare_overlap(*groups(0.5, n=2))
    assert compared.p_value is None
    assert np.isnan(compared.difference.low)
    assert np.isfinite(compared.difference.mean)


def test_bad_input():
    first, second = groups(0.0)
    for call in (
        lambda: compare_overlap(first, second[:-1]),
        lambda: seed_overlap(first[:1]),
        lambda: weighted_jaccard(first[0], first[0][:-1]),
        lambda: weighted_jaccard(-first[0], first[0]),
        lambda: weighted_jaccard(first[0] * np.nan, first[0]),
    ):
        with pytest.raises(InputError):
            call()
