"""Pairs of equal size: every rule by itself, and the gain by a loop."""

from __future__ import annotations

import numpy as np
import pytest

from moevoprune import InputError
from moevoprune.studies.matched_pairs import equal_pairs, gain_of_picking


def test_neighbours_in_size_are_paired_once():
    generator = np.random.default_rng(1)
    sizes = np.exp(generator.uniform(0, 5, size=200)).astype(int)
    kinds = generator.choice(["a", "b"], size=200)
    pairs = equal_pairs(sizes, 0.1, kinds)
    assert len(pairs) > 60
    assert len(set(pairs.ravel().tolist())) == pairs.size
    assert (sizes[pairs[:, 0]] <= sizes[pairs[:, 1]]).all()
    assert (sizes[pairs[:, 1]] <= 1.1 * sizes[pairs[:, 0]]).all()
    assert (kinds[pairs[:, 0]] == kinds[pairs[:, 1]]).all()
    # nothing that could have been paired with its neighbour is left alone on both sides
    alone = np.setdiff1d(np.arange(200), pairs)
    for kind in "ab":
        left = np.sort(sizes[alone[kinds[alone] == kind]])
        assert (left[1:] > 1.1 * left[:-1]).all()
    assert len(equal_pairs(sizes, 0.1)) >= len(pairs)


def test_no_pairs():
    assert equal_pairs([1, 2, 4]).shape == (0, 2)
    assert equal_pairs([]).shape == (0, 2)
    assert np.isnan(gain_of_picking([1, 2, 4], [1, 1, 1], equal_pairs([1, 2, 4])))


def test_the_gain_is_that_of_the_higher_score():
    score, outcome = [3, 1, 2, 2, 0, 5], [0.5, 0.7, 0.1, 0.9, 0.2, 0.3]
    pairs = np.array([[0, 1], [2, 3], [4, 5]])
    assert gain_of_picking(score, outcome, pairs) == pytest.approx(((0.5 - 0.7) + 0 + (0.3 - 0.2)) / 3)


def test_what_cannot_be_sizes_is_refused():
    for sizes, tolerance, kinds in (
        ([1, -1], 0.1, None),
        ([[1]], 0.1, None),
        ([1], -0.1, None),
        ([1], 0.1, [1, 2]),
    ):
        with pytest.raises(InputError):
            equal_pairs(sizes, tolerance, kinds)
