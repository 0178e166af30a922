"""Scores of bits and starts drawn by them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_selection import f_classif

from moevoprune import DensitySampling, FeatureSet, HeadSettings, InputError, PruningProblem
from moevoprune.search.scores import anova_scores


def sample(sampling, n_samples, n_var, seed=0):
    class Problem:
        pass

    problem = Problem()
    problem.n_var = n_var
    return sampling._do(problem, n_samples, random_state=np.random.default_rng(seed))


def test_scores_rank_features_by_anova(small_features, quick_head):
    scores = anova_scores(PruningProblem(small_features, head=quick_head, cv=3))
    expected = f_classif(small_features.X_train, small_features.y_train)[0]
    np.testing.assert_array_equal(np.argsort(scores), np.argsort(expected))


def test_scores_of_other_encodings(small_features):
    def scores(encoding, hidden):
        return anova_scores(PruningProblem(small_features, encoding, head=HeadSettings(hidden=hidden), cv=3))

    plain = scores("features", (4,))
    both = scores("features+neurons", (4, 3))
    np.testing.assert_array_equal(both[:14], plain)
    np.testing.assert_array_equal(both[14:], np.full(7, 0.5))
    single = scores("connections", (4, 3))
    np.testing.assert_array_equal(single[:56].reshape(14, 4), np.repeat(plain[:, None], 4, axis=1))
    np.testing.assert_array_equal(single[56:], np.full(12, 0.5))
    assert scores("neurons", (4,)) is None


def test_constant_features_are_last_and_nothing_is_warned_of(small_features, small_regression):
    rows = np.array(small_features.X_train)
    rows[:, 2] = 3.0
    data = FeatureSet(rows, small_features.y_train, small_features.X_test, small_features.y_test)
    scores = anova_scores(PruningProblem(data, cv=3))
    assert scores.argmin() == 2
    assert np.isfinite(scores).all()
    regression = anova_scores(PruningProblem(small_regression, cv=3))
    assert set(np.argsort(regression)[-3:]) < {0, 1, 2, 3}


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
