"""Frequencies by chance against the Poisson binomial distribution, and the masks of merged fronts."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from scipy.stats import spearmanr, t

from moevoprune import Front, InputError, PruningProblem, evolve
from moevoprune.studies.chance_frequency import chance_frequencies, frequency_agreement, merged_masks_by_run


def masks_of(sizes, n_bits):
    masks = np.zeros((len(sizes), n_bits), dtype=bool)
    for mask, size in zip(masks, sizes, strict=True):
        mask[:size] = True
    return masks


def test_independent_masks_are_poisson_binomial():
    sizes, n_bits, draws = [30, 10, 50, 25, 40, 45], 60, 2000
    found = chance_frequencies([mask[None] for mask in masks_of(sizes, n_bits)], np.random.default_rng(1), draws)
    assert found.shape == (draws, n_bits)
    assert (np.diff(found, axis=1) <= 0).all()
    # exact: each bit is active in each mask with probability size / n_bits, independently over the masks
    pmf = reduce(np.convolve, [[1 - size / n_bits, size / n_bits] for size in sizes])
    for least in range(1, len(sizes) + 1):
        counts = (found >= (least - 0.5) / len(sizes)).sum(axis=1)
        expected = n_bits * pmf[least:].sum()
        assert abs(counts.mean() - expected) < 5 * counts.std() / np.sqrt(draws) + 1e-9


def test_masks_of_one_group_stay_together():
    generator = np.random.default_rng(2)
    group = generator.random((7, 20)) < 0.4
    found = chance_frequencies([group], generator, 5)
    assert found == pytest.approx(np.tile(np.sort(group.mean(axis=0))[::-1], (5, 1)))
    # two groups: a bit of the first meets any of the second
    both = chance_frequencies([group, masks_of([3], 20)], generator, 50)
    assert both.sum(axis=1) == pytest.approx(np.full(50, (group.sum() + 3) / 8))
    assert len(np.unique(both, axis=0)) > 1


@pytest.fixture(scope="module")
def fronts(small_features, quick_head):
    return [
        evolve(
            PruningProblem(small_features, objectives=["accuracy", "active_neurons"], head=quick_head, seed=seed),
            pop_size=8,
            n_gen=2,
            algorithm="nsga2",
            seed=seed,
        )
        for seed in (1, 2, 3)
    ]


def test_masks_of_a_merged_front(fronts):
    by_run = merged_masks_by_run(fronts)
    merged = Front.merge(fronts)
    assert sorted(mask.tobytes() for part in by_run for mask in part) == sorted(m.tobytes() for m in merged.masks)
    for part, front in zip(by_run, fronts, strict=True):
        assert {mask.tobytes() for mask in part} <= {mask.tobytes() for mask in front.masks}


def test_agreement_is_the_mean_over_pairs_with_a_jackknife_over_runs(fronts):
    a, b, c = (front.masks.mean(axis=0) for front in fronts)
    pairs = [spearmanr(*pair).statistic for pair in ((a, b), (a, c), (b, c))]
    found = frequency_agreement(fronts)
    assert found.mean == pytest.approx(np.mean(pairs))
    # without one of three runs one pair is left
    error = np.sqrt(2 / 3 * np.sum((pairs - np.mean(pairs)) ** 2))
    assert found.high - found.low == pytest.approx(2 * t.ppf(0.975, 2) * error)
    assert np.isnan(frequency_agreement(fronts[:2]).low)
    assert np.isnan(frequency_agreement(fronts[:1]).mean)


def test_bad_input():
    generator = np.random.default_rng(3)
    with pytest.raises(InputError, match="at least one mask"):
        chance_frequencies([], generator)
    with pytest.raises(InputError, match="same length"):
        chance_frequencies([masks_of([1], 3), masks_of([1], 4)], generator)
    with pytest.raises(InputError, match="draws"):
        chance_frequencies([masks_of([1], 3)], generator, 0)
