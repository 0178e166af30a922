"""DeepPruningES on plain pymoo problems and ours: its start, its elites, its mutants, its end."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pymoo.core.problem import Problem
from pymoo.operators.sampling.rnd import BinaryRandomSampling
from pymoo.optimize import minimize

from moevoprune import InputError, PruningProblem
from moevoprune.search.algorithms import deep_pruning_es
from moevoprune.search.choices import three_choices
from moevoprune.search.deep_pruning_es import DeepPruningES
from moevoprune.search.loop import run_search


class Knapsack(Problem):
    """Lost worth against the share of bits; at most some bits, if asked; notes all masks asked for."""

    def __init__(self, n_var=40, most=None):
        super().__init__(n_var=n_var, n_obj=2, n_ieq_constr=int(most is not None), vtype=bool)
        self.worth = np.random.default_rng(5).random(n_var)
        self.most = most
        self.asked = []

    def _evaluate(self, x, out, *args, **kwargs):
        self.asked.append(x.copy())
        out["F"] = np.column_stack([(~x) @ self.worth, x.mean(axis=1)])
        if self.most is not None:
            out["G"] = x.sum(axis=1, keepdims=True) - self.most

    def __deepcopy__(self, memo):
        return self


def plain_choices(losses, cost, quality):
    """By the definition, one row at a time."""
    rows = [i for i, row in enumerate(losses) if np.isfinite(row).all()]
    front = [
        i for i in rows if not any((losses[j] <= losses[i]).all() and (losses[j] < losses[i]).any() for j in rows)
    ]
    low, high = losses[front].min(axis=0), losses[front].max(axis=0)

    def distance(i):
        shares = [(losses[i, k] - low[k]) / (high[k] - low[k]) for k in range(losses.shape[1]) if high[k] > low[k]]
        return round(float(np.sum(shares)), 9)

    heavy = min(front, key=lambda i: (losses[i, quality], losses[i, cost]))
    light = min(front, key=lambda i: (losses[i, cost], losses[i, quality]))
    return heavy, {i for i in front if distance(i) == min(map(distance, front))}, light


@settings(max_examples=150, deadline=None)
@given(
    losses=arrays(
        np.float64,
        st.tuples(st.integers(1, 12), st.integers(2, 3)),
        elements=st.sampled_from([0, 1, 2, 4, np.inf, np.nan]),
    ),
    swapped=st.booleans(),
)
def test_choices_follow_the_definition(losses, swapped):
    columns = (0, 1) if swapped else (1, 0)
    if not np.isfinite(losses).all(axis=1).any():
        with pytest.raises(InputError, match="none is finite"):
            three_choices(losses, *columns)
        return
    heavy, knees, light = plain_choices(losses, *columns)
    chosen = three_choices(losses, *columns)
    np.testing.assert_array_equal(losses[chosen.heavy], losses[heavy])
    np.testing.assert_array_equal(losses[chosen.light], losses[light])
    assert chosen.knee in knees


def test_choices_need_two_different_columns():
    for arguments, message in [
        (([[1.0]],), "takes two objectives"),
        (([1.0, 2.0],), "shape"),
        (([[1.0, 2.0]], 2), "cost_column = 2"),
        (([[1.0, 2.0]], 1, -1), "quality_column = -1"),
        (([[1.0, 2.0]], 1, 1), "both 1"),
        ((np.zeros((0, 2)),), "of 0 rows"),
    ]:
        with pytest.raises(InputError, match=message):
            three_choices(*arguments)


def test_the_published_settings_are_the_defaults():
    problem = Knapsack(200)
    result = minimize(problem, DeepPruningES(), seed=1)
    assert [len(masks) for masks in problem.asked] == [30] + [27] * 10
    start = problem.asked[0]
    assert start[0].all()
    assert start[1:].mean() == pytest.approx(0.8, abs=0.02)
    assert result.X.dtype == bool
    assert result.algorithm.n_gen - 1 == 11


def test_children_are_mutants_of_the_three_elites_with_a_fifth_of_the_bits_flipped():
    problem = Knapsack(1000)
    algorithm = DeepPruningES()
    algorithm.setup(problem, termination=("n_gen", 6), seed=3)
    parents = np.zeros(3)
    algorithm.next()
    while algorithm.has_next():
        elites = algorithm.elites.get("X")
        heavy, _, light = algorithm.elites.get("F")
        losses = algorithm.pop.get("F")
        assert heavy[0] == losses[:, 0].min()
        assert light[1] == losses[:, 1].min()
        algorithm.next()
        children = problem.asked[-1]
        flipped = (children[:, None] != elites[None]).mean(axis=2)
        assert flipped.min(axis=1) == pytest.approx(0.2, abs=0.06)
        parents += np.bincount(flipped.argmin(axis=1), minlength=3)
        assert len(algorithm.pop) == 27 + len(np.unique(elites, axis=0))
    assert parents.sum() == 5 * 27
    assert parents.min() > 25


def test_the_best_of_both_ends_are_never_lost_nor_evaluated_again():
    problem = Knapsack()
    result = minimize(problem, DeepPruningES(pop_size=10), ("n_gen", 12), seed=2, save_history=True)
    ends = np.array([[entry.elites[0].F[0], entry.elites[2].F[1]] for entry in result.history])
    assert (np.diff(ends, axis=0) <= 0).all()
    # all ones lose nothing
    assert ends[-1, 0] == 0
    assert ends[-1, 1] < ends[0, 1] - 0.2
    assert len(np.unique(np.concatenate(problem.asked), axis=0)) == 10 + 11 * 7


def test_ask_and_tell_copies_and_seeds_give_the_same_run():
    problem = Knapsack()
    result = minimize(problem, DeepPruningES(pop_size=8), ("n_gen", 6), seed=4, save_history=True)
    assert len(result.history) == 6

    algorithm = DeepPruningES(pop_size=8)
    algorithm.setup(problem, termination=("n_gen", 6), seed=4)
    copied = None
    while algorithm.has_next():
        infills = algorithm.ask()
        algorithm.evaluator.eval(problem, infills)
        algorithm.tell(infills=infills)
        if algorithm.n_gen == 4:
            copied = copy.deepcopy(algorithm)
    np.testing.assert_array_equal(algorithm.pop.get("X"), result.pop.get("X"))
    continued = copied.run()
    np.testing.assert_array_equal(continued.pop.get("X"), result.pop.get("X"))
    np.testing.assert_array_equal(copied.elites.get("F"), result.algorithm.elites.get("F"))
    other = minimize(problem, DeepPruningES(pop_size=8), ("n_gen", 6), seed=5)
    assert (other.pop.get("X") != result.pop.get("X")).any()


def test_evaluations_can_end_it():
    result = minimize(Knapsack(), DeepPruningES(pop_size=10), ("n_eval", 40), seed=1)
    assert result.algorithm.evaluator.n_eval == 10 + 5 * 7


def test_infeasible_individuals_come_last():
    problem = Knapsack(30, most=18)
    result = minimize(problem, DeepPruningES(pop_size=12), ("n_gen", 25), seed=1, save_history=True)
    seen_infeasible = False
    for entry in result.history:
        feasible = entry.pop.get("FEAS").ravel()
        if feasible.any():
            assert entry.elites.get("FEAS").all()
        else:
            seen_infeasible = True
            least = np.sort(entry.pop.get("CV").ravel())[:3]
            np.testing.assert_array_equal(entry.elites.get("CV").ravel(), least)
    assert seen_infeasible
    assert (result.X.sum(axis=1) <= 18).all()


def test_losses_that_are_not_finite_are_no_elites():
    class Broken(Knapsack):
        def _evaluate(self, x, out, *args, **kwargs):
            super()._evaluate(x, out)
            out["F"][x.all(axis=1)] = np.nan

    algorithm = DeepPruningES(pop_size=6)
    algorithm.setup(Broken(), termination=("n_gen", 3), seed=1)
    while algorithm.has_next():
        algorithm.next()
        assert np.isfinite(algorithm.elites.get("F")).all()


def test_a_problem_with_fewer_masks_than_individuals_ends_without_repeats():
    problem = Knapsack(2)
    minimize(problem, DeepPruningES(sampling=np.array([[True, True]])), ("n_gen", 9), seed=1)
    assert [len(masks) for masks in problem.asked] == [1, 3]
    assert len(np.unique(np.concatenate(problem.asked), axis=0)) == 4


def test_another_start_and_other_columns():
    problem = Knapsack()
    algorithm = DeepPruningES(sampling=BinaryRandomSampling(), cost_column=0, quality_column=1)
    result = minimize(problem, algorithm, ("n_gen", 2), seed=1)
    assert problem.asked[0].mean() == pytest.approx(0.5, abs=0.05)
    elites, losses = result.algorithm.elites.get("F"), result.pop.get("F")
    assert elites[0, 1] == losses[:, 1].min()
    assert elites[2, 0] == losses[:, 0].min()


def test_it_runs_by_name_on_heads(small_features, quick_head):
    options = {"head": quick_head, "cv": 3, "seed": 1}
    problem = PruningProblem(small_features, objectives=["active_neurons", "cka", "accuracy"], **options)
    algorithm = deep_pruning_es(problem)
    assert (algorithm.pop_size, algorithm.quality_column, algorithm.cost_column) == (30, 2, 0)
    result = run_search(problem, 6, algorithm="deep_pruning_es", seed=1)
    assert [generation.evaluations for generation in result.history] == [6 + 3 * i for i in range(11)]
    without_size = PruningProblem(small_features, objectives=["accuracy", "cka"], **options)
    assert deep_pruning_es(without_size).cost_column == 1
    with pytest.raises(InputError, match="second objective"):
        deep_pruning_es(PruningProblem(small_features, objectives=["accuracy"], **options))


def test_bad_settings():
    with pytest.raises(InputError, match="population of 3"):
        DeepPruningES(pop_size=3)
    for flip in (0, 1.5, float("nan")):
        with pytest.raises(InputError, match="flip"):
            DeepPruningES(flip=flip)
    with pytest.raises(InputError, match="cost_column = 2"):
        minimize(Knapsack(), DeepPruningES(cost_column=2), ("n_gen", 1), seed=1)
