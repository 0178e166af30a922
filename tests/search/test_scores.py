"""Scores of bits and starts drawn by them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata

from moevoprune import DensitySampling, FeatureSet, HeadSettings, InputError, PruningProblem
from moevoprune.baselines import RANKINGS, combine, rank_bits
from moevoprune.search.scores import BitScores
from moevoprune.search.trust import BASE_RANKING, CANDIDATE_RANKINGS, trusted_rankings


def sample(sampling, n_samples, n_var, seed=0):
    class Problem:
        pass

    problem = Problem()
    problem.n_var = n_var
    return sampling._do(problem, n_samples, random_state=np.random.default_rng(seed))


@pytest.mark.parametrize("encoding", ["features", "neurons", "features+neurons", "connections"])
def test_every_encoding_has_scores(small_features, encoding):
    problem = PruningProblem(small_features, encoding, head=HeadSettings(hidden=(4, 3), epochs=2), cv=3)
    data = problem.ranking_data()
    scores = combine([rank_bits(data, name) for name in (BASE_RANKING, *CANDIDATE_RANKINGS)])
    assert scores.shape == (problem.n_var,)
    assert 0 < scores.min() < scores.max() <= 1


def test_the_test_part_is_not_read(small_features, quick_head):
    other = FeatureSet(
        small_features.X_train, small_features.y_train, -small_features.X_test, small_features.y_test[::-1].copy()
    )
    problems = [PruningProblem(data, head=quick_head, cv=3) for data in (small_features, other)]
    assert trusted_rankings(problems[0]) == trusted_rankings(problems[1])
    for name in RANKINGS:
        one, two = (rank_bits(problem.ranking_data(), name) for problem in problems)
        np.testing.assert_array_equal(one, two)


def test_learning_finds_the_bits_that_make_masks_good():
    rng = np.random.default_rng(0)
    worth = np.zeros(30)
    worth[:5] = 1.0
    scores = BitScores(rng.random(30), weight=0.5)
    for _ in range(20):
        masks = rng.random((20, 30)) < rng.uniform(0.1, 0.9, 20)[:, None]
        # larger masks are better anyway; that must not credit every bit they have
        losses = -masks.sum(axis=1) - 3.0 * masks @ worth + rng.normal(0, 0.5, 20)
        scores.learn(masks, losses)
    assert set(np.argsort(-scores.values)[:5]) == set(range(5))


def test_without_weight_nothing_is_learned():
    scores = BitScores([3.0, 1.0, 2.0], weight=0.0)
    scores.learn(np.eye(3, dtype=bool), np.array([5.0, 1.0, 3.0]))
    np.testing.assert_allclose(scores.values, [1, 1 / 3, 2 / 3])


def test_learning_is_the_credit_of_its_definition():
    masks = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0]], dtype=bool)
    losses = np.array([0.3, 0.5, 0.2])
    scores = BitScores(np.arange(4.0), weight=1.0)
    scores.learn(masks, losses)
    # sizes 2, 2 and 1 lie within a factor of 2 of each other: all are compared with the mean of all
    gains = losses.mean() - losses
    credit = np.array([gains[0] / 2**0.5 + gains[2], (gains[0] + gains[1]) / 2**0.5, gains[1] / 2**0.5, 0])
    variance = losses.var() * np.array([1.5, 1.0, 0.5, 0.0])
    z = np.divide(credit, np.sqrt(variance), out=np.zeros(4), where=variance > 0)
    np.testing.assert_allclose(scores.values, rankdata(np.arange(1, 5) / 4 + z) / 4)


def test_bad_priors():
    with pytest.raises(InputError, match="one number a bit"):
        BitScores([1.0, np.nan])
    with pytest.raises(InputError, match="weight"):
        BitScores([1.0, 2.0], weight=-1)


def test_high_scores_are_drawn_as_often_as_tournaments_are_won():
    n_var, tournament = 40, 3
    scores = np.random.default_rng(1).permutation(n_var)
    sampling = DensitySampling("log", high=1, scores=scores, tournament=tournament)
    counts = sum(sample(sampling, 1, n_var, seed).sum(axis=0) for seed in range(4000))
    rank = (scores + 1) / n_var
    expected = 4000 * rank**2 / (rank**2).sum()
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected.max())


def test_scored_masks_still_span_all_sizes():
    masks = sample(DensitySampling("log", scores=np.arange(500.0)), 30, 500)
    sizes = np.sort(masks.sum(axis=1))
    assert sizes[0] == 1
    assert sizes[-1] > 350
    assert len(np.unique(masks, axis=0)) == 30
    small = masks[masks.sum(axis=1) < 100]
    assert np.nonzero(small)[1].mean() > 330


def test_bad_scores():
    with pytest.raises(InputError, match="'log' only"):
        DensitySampling("uniform", scores=np.ones(3))
    with pytest.raises(InputError, match="NaN"):
        DensitySampling("log", scores=[1.0, np.nan])
    with pytest.raises(InputError, match="tournament"):
        DensitySampling("log", scores=[1.0, 2.0], tournament=0)
    with pytest.raises(InputError, match="3 scores"):
        sample(DensitySampling("log", scores=np.ones(3)), 2, 4)
