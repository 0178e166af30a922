"""EvoPruneDeepTL's steady-state algorithm: its pairs, its mutation, who survives, and who wins."""

from __future__ import annotations

import numpy as np
import pytest
from pymoo.core.population import Population
from pymoo.operators.crossover.ux import UniformCrossover
from pymoo.optimize import minimize

from moevoprune import DensitySampling, InputError, Objective, PruningProblem, evolve
from moevoprune.search.algorithms import evo_prune_deeptl
from moevoprune.search.bit_problem import BitProblem
from moevoprune.search.evo_prune_deeptl import EvoPruneDeepTL, NegativeAssortativeMating, OneBitMutation
from moevoprune.search.loop import run_search


def unused(candidate):
    raise AssertionError("the problem measures for itself")


class Worth(BitProblem):
    """Worth in coarse steps, so that ties are many; optionally the active share, and a repaired first bit."""

    size_objective = "share"

    def __init__(self, n_var=40, with_size=True, first_stays=False, **bounds):
        objectives = (
            Objective("worth", unused, best=1.0, worst=0.0),
            Objective("share", unused, maximise=False, best=0.0, worst=1.0),
        )
        for name, bound in bounds.items():
            setattr(self, name, bound)
        super().__init__(n_var, objectives[: 1 + with_size], n_ieq_constr=2 if self.max_active else 1)
        worth = np.random.default_rng(3).random(n_var)
        self.worth = worth / worth.sum()
        self.first_stays = first_stays
        self.asked = []
        self.listen(on_requested=lambda masks, values: self.asked.append(masks.copy()))

    def _measure(self, bits):
        for mask in bits:
            yield np.array([np.round(self.worth[mask].sum(), 1), mask.mean()])[: self.n_obj], False

    def repair(self, bits):
        bits[:, 0] |= self.first_stays
        return bits

    def loss(self, mask):
        return 1 - np.round(self.worth[mask].sum(), 1)


def test_it_has_the_published_settings():
    problem = Worth()
    algorithm = evo_prune_deeptl(problem)
    assert (algorithm.pop_size, algorithm.n_offsprings) == (30, 2)
    assert isinstance(algorithm.initialization.sampling, DensitySampling)
    assert algorithm.initialization.sampling.scale == "uniform"
    assert isinstance(algorithm.mating.crossover, UniformCrossover)
    assert algorithm.mating.crossover.prob.value == 1.0
    assert algorithm.mating.mutation.prob.value == 0.07
    assert algorithm.mating.selection.candidates == 3
    result = run_search(problem, algorithm="evo_prune_deeptl", seed=1)
    assert [len(masks) for masks in problem.asked] == [30] + [2] * 85
    assert result.history[-1].evaluations == 200
    by_pymoo = minimize(Worth(), EvoPruneDeepTL(), seed=1)
    assert by_pymoo.algorithm.evaluator.n_eval == 200


def test_parents_are_unlike_each_other():
    # sizes 0, 1, 3 and 7, each within the next: no two distances are equal
    masks = np.arange(7) < np.array([[0], [1], [3], [7]])
    pop = Population.new(X=masks)
    distances = (masks[:, None] != masks[None]).sum(axis=2)
    rng = np.random.default_rng(2)
    # with as many candidates as there are others, the partner is the farthest of all
    pairs = NegativeAssortativeMating(3).do(None, pop, 4_000, 2, to_pop=False, random_state=rng)
    np.testing.assert_array_equal(pairs[:, 1], distances.argmax(axis=1)[pairs[:, 0]])
    shares = np.bincount(pairs[:, 0], minlength=4) / 4_000
    np.testing.assert_allclose(shares, 0.25, atol=5 * np.sqrt(0.25 * 0.75 / 4_000))
    # with two of three, it is the least like one unless it was not drawn, which has a chance of 1/3
    pairs = NegativeAssortativeMating(2).do(None, pop, 4_000, 2, to_pop=False, random_state=rng)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    farthest = (pairs[:, 1] == distances.argmax(axis=1)[pairs[:, 0]]).mean()
    assert farthest == pytest.approx(2 / 3, abs=5 * np.sqrt(2 / 9 / 4_000))
    alone = NegativeAssortativeMating().do(None, pop[:1], 3, 2, to_pop=False, random_state=rng)
    np.testing.assert_array_equal(alone, np.zeros((3, 2)))


def test_mutation_flips_one_bit_of_seven_in_a_hundred():
    masks = np.random.default_rng(1).random((20_000, 12)) < 0.5
    pop = Population.new(X=masks.copy())
    mutated = OneBitMutation().do(None, pop, random_state=np.random.default_rng(2)).get("X")
    assert mutated.dtype == np.bool_
    flips = mutated != masks
    assert set(flips.sum(axis=1)) == {0, 1}
    assert flips.any(axis=1).mean() == pytest.approx(0.07, abs=5 * np.sqrt(0.07 * 0.93 / 20_000))
    per_bit = flips.sum(axis=0) / flips.sum()
    np.testing.assert_allclose(per_bit, 1 / 12, atol=5 * np.sqrt(1 / 12 / flips.sum()))


@pytest.mark.parametrize("bounds", [{}, {"min_active": 8, "max_active": 14}])
def test_the_best_survive_and_no_mask_is_held_twice(bounds):
    problem = Worth(first_stays=True, **bounds)
    low, high = bounds.get("min_active", 1), bounds.get("max_active", 40)
    algorithm = evo_prune_deeptl(problem, 12)
    algorithm.setup(problem, termination=("n_eval", 400), seed=5)
    held = []
    while algorithm.has_next():
        children = algorithm.ask()
        algorithm.evaluator.eval(problem, children)
        # oracle: sort everyone by violation, loss and size; of equals the older comes first
        everyone = [*held, *children.get("X")]
        keys = [
            (max(low - mask.sum(), 0) + max(mask.sum() - high, 0), problem.loss(mask), mask.sum())
            for mask in everyone
        ]
        held = [everyone[row] for row in sorted(range(len(everyone)), key=lambda row: keys[row])][:12]
        algorithm.tell(infills=children)
        np.testing.assert_array_equal(algorithm.pop.get("X"), held)
        np.testing.assert_array_equal(algorithm.opt.get("X"), held[:1])
        assert len({mask.tobytes() for mask in held}) == len(held)
        assert all(mask[0] for mask in held)
    assert algorithm.evaluator.n_eval == 400
    assert low <= held[0].sum() <= high


def test_further_objectives_do_not_steer_it():
    alone, both = Worth(with_size=False), Worth()
    for problem in (alone, both):
        run_search(problem, algorithm="evo_prune_deeptl", seed=4)
    np.testing.assert_array_equal(np.concatenate(alone.asked), np.concatenate(both.asked))
    other = Worth()
    run_search(other, algorithm="evo_prune_deeptl", seed=5)
    assert (np.concatenate(other.asked) != np.concatenate(both.asked)).any()


def test_the_fronts_best_is_the_winner(small_features, quick_head):
    problem = PruningProblem(
        small_features, head=quick_head, cv=3, seed=1, objectives=["active_neurons", "accuracy"]
    )
    asked = []
    problem.listen(on_requested=lambda masks, values: asked.extend(zip(masks.copy(), values[:, 1], strict=True)))
    front = evolve(problem, budget=60, algorithm="evo_prune_deeptl", seed=2)
    accuracy, active = max((value, -mask.sum()) for mask, value in asked if mask.any())
    winner = front.best("accuracy")
    assert front.active[winner] == -active
    assert problem.values(front.masks[winner : winner + 1])[0, 1] == accuracy


def test_bad_settings():
    with pytest.raises(InputError, match="--pop"):
        EvoPruneDeepTL(1)
    with pytest.raises(InputError, match="quality_column"):
        run_search(Worth(), algorithm=EvoPruneDeepTL(quality_column=2), budget=40)
    with pytest.raises(InputError, match="candidates"):
        NegativeAssortativeMating(0)
    with pytest.raises(InputError, match="two parents"):
        NegativeAssortativeMating().do(None, Population.new(X=np.eye(4) > 0), 1, 3, random_state=None)
