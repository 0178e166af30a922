"""The searches to compare with: on problems where fronts degenerate, within bounds, and by their seed alone."""

from __future__ import annotations

import sys
import warnings
from math import comb

import numpy as np
import pytest

from moevoprune import InputError, Objective, PruningProblem
from moevoprune.search.algorithms import ALGORITHMS
from moevoprune.search.bit_problem import BitProblem
from moevoprune.search.loop import run_search
from moevoprune.search.standard_searches import nsga3, sms_emoa

NAMES = ("nsga3", "sms_emoa", "age_moea", "spea2", "random")


def unused(candidate):
    raise AssertionError("the problem measures for itself")


class Shaped(BitProblem):
    """Losses as a function of how many bits are active among the first half, and among all."""

    def __init__(self, shape, n_obj, n_var=24, **bounds):
        objectives = [Objective(f"loss{i}", unused, maximise=False, best=0.0, worst=1.0) for i in range(n_obj)]
        for name, bound in bounds.items():
            setattr(self, name, bound)
        super().__init__(n_var, tuple(objectives), n_ieq_constr=2 if self.max_active else 1)
        self.shape = shape
        self.asked = []
        self.listen(on_requested=lambda masks, values: self.asked.append(masks.copy()))

    def _measure(self, bits):
        for mask in bits:
            half, share = mask[: self.n_var // 2].mean(), mask.mean()
            losses = {
                "weighed": [1 - half, share, abs(half - 0.5)],
                "constant": [1 - half, 0.5, share],
                "one point": [share, share**2, share**3],
                "all the same": [0.25, 0.25, 0.25],
            }[self.shape]
            yield np.array(losses[: self.n_obj]), False


@pytest.mark.parametrize("shape", ["weighed", "constant", "one point", "all the same"])
@pytest.mark.parametrize("n_obj", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_degenerate_fronts_are_searched_without_a_warning(name, n_obj, shape):
    for seed in (1, 2, 3):
        problem = Shaped(shape, n_obj)
        algorithm = ALGORITHMS[name](problem, 8)
        algorithm.setup(problem, termination=("n_gen", 6), seed=seed)
        filters = list(warnings.filters)
        while algorithm.has_next():
            algorithm.next()
            held = algorithm.pop.get("X")
            assert held.dtype == np.bool_
            assert len({mask.tobytes() for mask in held}) == len(held)
        assert warnings.filters == filters
        assert len(held) == 8
        # of the start one mask may have been drawn twice
        assert [len(masks) for masks in problem.asked[1:]] == [8] * 5


@pytest.mark.parametrize(
    "objectives", [["accuracy", "active_neurons"], ["accuracy", "active_neurons", "cka:noise"]]
)
@pytest.mark.parametrize("name", NAMES)
def test_heads_within_bounds(small_features, quick_head, name, objectives):
    problem = PruningProblem(
        small_features, head=quick_head, cv=2, seed=1, objectives=objectives, min_active=3, max_active=6
    )
    for seed in (1, 2, 3):
        result = run_search(problem, 6, n_gen=4, algorithm=name, seed=seed)
        assert len(result.masks) > 0
        sizes = result.masks.sum(axis=1)
        assert sizes.min() >= 3
        assert sizes.max() <= 6


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_everything(name):
    def masks(seed, **bounds):
        problem = Shaped("weighed", 3, **bounds)
        run_search(problem, 8, n_gen=6, algorithm=name, seed=seed)
        return np.concatenate(problem.asked)

    # nothing feasible to be found: whoever violates least is drawn among equals
    for bounds in ({}, {"min_active": 24}):
        first = masks(1, **bounds)
        # another search in between, with other ranges
        run_search(Shaped("constant", 3), 8, n_gen=3, algorithm=name, seed=2)
        np.testing.assert_array_equal(masks(1, **bounds), first)
        assert masks(2, **bounds).tobytes() != first.tobytes()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "random"])
def test_selection_gets_nearer_to_the_front_than_chance(name):
    def found(algorithm):
        return np.mean([run_search(Shaped("weighed", 2), 8, n_gen=25, algorithm=algorithm, seed=seed)
                        .history[-1].hypervolume for seed in range(4)])  # fmt: skip

    assert found(name) > found("random") + 0.05


def test_nsga3_has_as_many_directions_as_the_population_holds():
    for n_obj in (1, 2, 3, 4, 6):
        for pop_size in (2, 7, 40):
            directions = nsga3(Shaped("weighed", n_obj), pop_size).ref_dirs
            fitting = [n for n in (comb(p + n_obj - 1, n_obj - 1) for p in range(60)) if n <= pop_size]
            assert directions.shape == (max(fitting), n_obj)
            np.testing.assert_allclose(directions.sum(axis=1), 1.0)
    assert nsga3(Shaped("weighed", 2)).pop_size == 40


def test_random_search_does_not_look_at_what_it_found():
    asked = []
    for shape in ("weighed", "one point"):
        problem = Shaped(shape, 2, n_var=60)
        run_search(problem, 20, n_gen=10, algorithm="random", seed=3)
        asked.append(np.concatenate(problem.asked))
    np.testing.assert_array_equal(*asked)
    # densities uniform in (0, 1), from the first generation to the last
    shares = asked[0].mean(axis=1)
    for part in (shares[:100], shares[100:]):
        assert part.mean() == pytest.approx(0.5, abs=5 * np.sqrt(1 / 12 / 100))
        assert part.std() == pytest.approx(np.sqrt(1 / 12), abs=0.06)


def test_what_is_missing_is_said(monkeypatch):
    with pytest.raises(InputError, match="second objective"):
        sms_emoa(Shaped("weighed", 1))
    with pytest.raises(InputError, match="--pop"):
        nsga3(Shaped("weighed", 2), 1)
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(InputError, match=r"age_moea needs numba: pip install 'moevoprune\[age\]'"):
        run_search(Shaped("weighed", 2), algorithm="age_moea")
