"""Nested cross-validation of rankings."""

from __future__ import annotations

import numpy as np
import pytest

from moevoprune import FeatureSet, HeadSettings, InputError, PruningProblem
from moevoprune.baselines import rank_bits
from moevoprune.search.trust import BASE_RANKING, nested_scores, trusted_rankings

HEAD = HeadSettings(hidden=(8,), epochs=15, batch_size=32)


def problem_of(rows, labels, **settings):
    half = len(rows) // 2
    data = FeatureSet(rows[:half], labels[:half], rows[half:], labels[half:])
    return PruningProblem(data, head=HEAD, cv=4, seed=1, objectives=["accuracy", "active_neurons"], **settings)


def pure_noise():
    rng = np.random.default_rng(3)
    return rng.normal(size=(240, 300)).astype(np.float32), rng.integers(0, 2, 240)


def redundant():
    """Three causes of the class, of which the strongest comes in sixty near-copies."""
    rng = np.random.default_rng(4)
    causes = rng.normal(size=(600, 3))
    labels = (causes @ [1.3, 1.0, 1.0] > 0).astype(np.int64)
    copies = causes[:, :1] + 0.3 * rng.normal(size=(600, 60))
    others = causes[:, 1:] + 0.1 * rng.normal(size=(600, 2))
    return np.c_[copies, others, rng.normal(size=(600, 38))].astype(np.float32), labels


def test_on_pure_noise_folds_flatter_and_nested_scores_do_not():
    problem = problem_of(*pure_noise())
    order = np.argsort(-rank_bits(problem.ranking_data(), "recursive_elimination"), kind="stable")
    mask = np.zeros((1, 300), dtype=bool)
    mask[0, order[:20]] = True
    assert problem.values(mask)[0, 0] > 0.75
    scores = nested_scores(problem, [BASE_RANKING, "recursive_elimination"])
    assert scores.shape == (2, 120)
    assert abs(scores.mean(axis=1) - 0.5).max() < 0.09
    assert trusted_rankings(problem) == (BASE_RANKING,)


def test_rankings_that_see_redundancy_are_trusted_where_it_matters():
    trusted = trusted_rankings(problem_of(*redundant()))
    assert trusted[-1] == BASE_RANKING
    assert {"minimum_redundancy", "forward_selection"} <= set(trusted)


def test_row_scores_agree_with_the_fitness():
    problem = problem_of(*redundant())
    masks = np.random.default_rng(0).random((3, 100)) < 0.2
    fitness = problem.fitness
    rows = np.concatenate([fitness.row_scores(masks, fold) for fold in range(4)], axis=1)
    np.testing.assert_allclose(rows.mean(axis=1), problem.values(masks)[:, 0], atol=1e-12)
    assert fitness.n_heads == 2 * 3 * 4


def test_row_scores_of_regression_are_squared_errors(small_regression):
    data = small_regression
    single = FeatureSet(data.X_train, data.y_train[:, 0], data.X_test, data.y_test[:, 0], task="regression")
    problem = PruningProblem(single, head=HEAD, cv=3, objectives=["mse"])
    masks = np.ones((1, problem.n_var), dtype=bool)
    rows = np.concatenate([problem.fitness.row_scores(masks, fold) for fold in range(3)], axis=1)
    expected = problem.values(masks)[0, 0] / problem.features.y_train.var()
    np.testing.assert_allclose(-rows.mean(), expected, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1e9])
def test_trust_does_not_depend_on_the_unit_of_regression_targets(small_regression, scale):
    data = small_regression
    scaled = FeatureSet(
        data.X_train, data.y_train * scale, data.X_test, data.y_test * scale, task="regression", name="scaled"
    )
    one, two = (
        nested_scores(PruningProblem(d, head=HEAD, cv=3, objectives=["r2"]), [BASE_RANKING, "l1_path"])
        for d in (data, scaled)
    )
    np.testing.assert_allclose(one, two, rtol=1e-2, atol=1e-3)


def test_repeats_do_not_make_rows(monkeypatch):
    rows, labels = redundant()
    once, thrice = (problem_of(rows, labels, repeats=repeats) for repeats in (1, 3))
    # the same scores three times over are no surer than once
    scores = np.stack([np.r_[np.zeros(150), np.zeros(150)], np.r_[np.ones(12), np.zeros(288)] - 0.03])
    monkeypatch.setattr("moevoprune.search.trust.nested_scores", lambda *_: scores)
    assert trusted_rankings(once, ["l1_path"]) == (BASE_RANKING,)
    monkeypatch.setattr("moevoprune.search.trust.nested_scores", lambda *_: np.tile(scores, 3))
    assert trusted_rankings(thrice, ["l1_path"]) == (BASE_RANKING,)


@pytest.mark.parametrize("encoding", ["neurons", "features+neurons", "connections"])
def test_every_encoding(encoding):
    rows, labels = redundant()
    trusted = trusted_rankings(problem_of(rows[:, 50:62], labels, encoding=encoding))
    assert trusted[-1] == BASE_RANKING


def test_a_diverged_head_is_wrong_about_every_row():
    head = HeadSettings(hidden=(8,), epochs=3, learning_rate=1e30)
    rows, labels = pure_noise()
    data = FeatureSet(rows, labels, rows, labels)
    problem = PruningProblem(data, head=head, cv=3, objectives=["accuracy"])
    assert (problem.fitness.row_scores(np.ones((1, 300), dtype=bool), 0) == 0).all()


def test_unknown_rankings():
    with pytest.raises(InputError, match="unknown ranking"):
        trusted_rankings(problem_of(*pure_noise()), candidates=["l1"])
