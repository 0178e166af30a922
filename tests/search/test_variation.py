"""Crossover and mutation by scores and sizes."""

from __future__ import annotations

import numpy as np
import pytest
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem
from pymoo.optimize import minimize

from moevoprune import DensitySampling, InputError
from moevoprune.search.scores import BitScores
from moevoprune.search.variation import GuidedMutation, SizeCrossover


class Bounded:
    def __init__(self, n_var, min_active=1, max_active=None):
        self.n_var, self.min_active, self.max_active = n_var, min_active, max_active


def mutate(mutation, masks, problem, seed=0):
    return mutation._do(problem, masks, random_state=np.random.default_rng(seed))


def random_masks(n, n_var, sizes, seed=0):
    rng = np.random.default_rng(seed)
    masks = np.zeros((n, n_var), dtype=bool)
    for mask in masks:
        mask[rng.choice(n_var, int(rng.choice(sizes)), replace=False)] = True
    return masks


def test_children_keep_what_parents_share_and_add_nothing_of_their_own():
    parents = np.stack([random_masks(200, 60, [3, 40], 1), random_masks(200, 60, [5, 20], 2)])
    children = SizeCrossover()._do(Bounded(60), parents, random_state=np.random.default_rng(0))
    assert children.dtype == bool
    assert (children >= (parents[0] & parents[1])).all()
    assert (children <= (parents[0] | parents[1])).all()
    sizes, parental = children.sum(axis=2), parents.sum(axis=2)
    assert (sizes >= parental.min(axis=0)).all()
    assert (sizes <= parental.max(axis=0)).all()


def test_sizes_of_children_are_log_uniform_between_the_parents():
    parents = np.zeros((2, 4000, 100), dtype=bool)
    parents[0, :, :4] = True
    parents[1, :, 4:68] = True
    sizes = SizeCrossover()._do(Bounded(100), parents, random_state=np.random.default_rng(0)).sum(axis=2)
    # between 4 and 64 the geometric mean, not the arithmetic one, is in the middle
    assert abs(np.median(sizes) - 16) <= 1
    assert sizes.min() == 4
    assert sizes.max() == 64


def test_sizes_of_children_can_be_uniform():
    parents = np.zeros((2, 4000, 100), dtype=bool)
    parents[0, :, :4] = True
    parents[1, :, 4:68] = True
    crossover = SizeCrossover(scale="uniform")
    sizes = crossover._do(Bounded(100), parents, random_state=np.random.default_rng(0)).sum(axis=2)
    np.testing.assert_allclose(np.quantile(sizes, [0.25, 0.5, 0.75]), [19, 34, 49], atol=1.5)
    with pytest.raises(InputError, match="crossover scale is 'linear'"):
        SizeCrossover(scale="linear")


def test_mutation_does_not_drift_to_half_density():
    for start in (2, 30, 270):
        masks = random_masks(4000, 300, [start])
        change = mutate(GuidedMutation(np.ones(300)), masks, Bounded(300)).sum(axis=1) - start
        assert abs(change.mean()) < 0.15 * max(start**0.5, 1.0)
        assert (change > 0).mean() == pytest.approx(1 / 3, abs=0.05)


def test_the_number_of_flips_grows_with_the_mask():
    rate = 0.05
    for start in (10, 400):
        masks = random_masks(3000, 1000, [start])
        added = (mutate(GuidedMutation(np.ones(1000), rate=rate), masks, Bounded(1000)) & ~masks).sum(axis=1)
        # two of three mutations add
        assert added.mean() == pytest.approx(2 / 3 * (1 + rate * start), rel=0.05)


def test_high_scores_come_and_low_scores_go_as_often_as_they_win_tournaments():
    n_var, tournament = 50, 4
    scores = np.arange(n_var, dtype=float)
    masks = np.zeros((20_000, n_var), dtype=bool)
    masks[:, ::2] = True
    mutated = mutate(GuidedMutation(scores, tournament, rate=0.0), masks, Bounded(n_var))
    added, removed = mutated & ~masks, masks & ~mutated
    share = (np.arange(25) + 1) / 25
    best_of_four = share**tournament - (share - 1 / 25) ** tournament
    np.testing.assert_allclose(added.sum(axis=0)[1::2] / added.sum(), best_of_four, atol=0.01)
    worst_of_two = share[::-1] ** 2 - (share[::-1] - 1 / 25) ** 2
    # an exchange never removes what it just added, apart from ties of the draw
    first = removed.sum(axis=0)[::2] / removed.sum()
    np.testing.assert_allclose(first, worst_of_two, atol=0.01)


def test_bounds_are_kept_and_no_mask_is_emptied():
    masks = random_masks(500, 40, [1, 2, 5, 9, 40])
    free = mutate(GuidedMutation(np.ones(40), rate=1.0), masks, Bounded(40))
    assert free.any(axis=1).all()
    bounded = mutate(GuidedMutation(np.ones(40), rate=1.0), masks, Bounded(40, 3, 8)).sum(axis=1)
    assert set(bounded) == {3, 4, 5, 6, 7, 8}


def test_mutation_asks_learned_scores_anew():
    scores = BitScores(np.arange(10.0), weight=5.0)
    mutation = GuidedMutation(scores, tournament=200, rate=0.0)
    empty = np.zeros((60, 10), dtype=bool)
    empty[:, 9] = True
    assert mutate(mutation, empty, Bounded(10))[:, 8].any()
    scores.learn(np.eye(10, dtype=bool), np.array([0.0, *[1.0] * 9]))
    later = mutate(mutation, empty, Bounded(10))
    assert later[:, 0].any()
    assert not later[:, 8].any()


def test_they_work_in_any_pymoo_algorithm_on_any_bool_problem():
    class Overlap(Problem):
        def __init__(self):
            super().__init__(n_var=24, n_obj=2, vtype=bool)

        def _evaluate(self, x, out, *args, **kwargs):
            out["F"] = np.stack([-x[:, :6].sum(axis=1), x.sum(axis=1)], axis=1).astype(float)

    scores = np.r_[np.ones(6), np.zeros(18)]
    algorithm = NSGA2(
        12, sampling=DensitySampling("log"), crossover=SizeCrossover(), mutation=GuidedMutation(scores)
    )
    result = minimize(Overlap(), algorithm, ("n_gen", 30), seed=1)
    best = {int(f[1]): -f[0] for f in result.F}
    assert best[6] == 6


def test_bad_settings():
    with pytest.raises(InputError, match="tournament"):
        GuidedMutation(np.ones(3), tournament=0)
    with pytest.raises(InputError, match="rate"):
        GuidedMutation(np.ones(3), rate=2)
    with pytest.raises(InputError, match="3 scores"):
        mutate(GuidedMutation(np.ones(3)), np.ones((1, 4), dtype=bool), Bounded(4))
