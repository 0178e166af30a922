"""BitProblem: what problems over bits share, held on one whose values have a closed form."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.operators.crossover.ux import UniformCrossover
from pymoo.operators.mutation.bitflip import BitflipMutation
from pymoo.optimize import minimize

from moevoprune import DensitySampling, InputError, Objective
from moevoprune.search.algorithms import ALGORITHMS, guided, make_algorithm, nsga2
from moevoprune.search.archive import non_dominated
from moevoprune.search.bit_problem import BitProblem, Guidance
from moevoprune.search.journal import EvaluationJournal
from moevoprune.search.loop import run_search
from moevoprune.search.survival import LogSizeCrowding, survival_for

LAYERS = (slice(0, 3), slice(3, 7), slice(7, 10))
GAINS = np.array([5, 1, 3, 2, 2, 7, 1, 4, 6, 1]) / 32
COSTS = np.array([4, 1, 1, 2, 3, 1, 5, 2, 2, 3]) / 24


def unused(candidate):
    raise AssertionError("the problem measures for itself")


class LayeredProblem(BitProblem):
    """Ten filters in three layers, of which none may be empty; quality and cost are sums over filters."""

    size_objective = "flops"

    def __init__(self, **bounds):
        objectives = (
            Objective("quality", unused, best=1.0, worst=0.0),
            Objective("flops", unused, maximise=False, best=0.0, worst=1.0),
        )
        for name, bound in bounds.items():
            setattr(self, name, bound)
        super().__init__(10, objectives, n_ieq_constr=2 if self.max_active else 1)
        self.measured = []
        self.closed = 0

    def _measure(self, bits):
        for mask in bits:
            self.measured.append(mask.tobytes())
            yield np.array([GAINS[mask].sum(), COSTS[mask].sum()]), bool(mask.sum() == 9)

    def identity(self):
        return {"problem": "layered"}

    def repair(self, bits):
        for layer in LAYERS:
            bits[~bits[:, layer].any(axis=1), layer.start] = True
        return bits

    def guidance(self, n_seeds):
        best_first = np.argsort(-GAINS, kind="stable")
        seeds = np.zeros((n_seeds, 10), dtype=bool)
        for size, seed in enumerate(seeds, 3):
            seed[best_first[:size]] = True
        return Guidance(GAINS, seeds, DensitySampling("uniform", densities=(0.5, 1.0)))

    def close(self):
        self.closed += 1


class UnguidedProblem(LayeredProblem):
    guidance = BitProblem.guidance


ALL = np.array(list(itertools.product([False, True], repeat=10)))
WHOLE = ALL[np.all([ALL[:, layer].any(axis=1) for layer in LAYERS], axis=0)]


def test_masks_are_repaired_measured_once_and_announced_as_they_were_evaluated():
    problem = LayeredProblem()
    trained, requested = [], []

    def on_trained(masks, values):
        trained.append(masks.copy())

    def on_requested(masks, values):
        requested.append(masks.copy())

    problem.listen(on_trained, on_requested)
    empty, full = np.zeros(10, dtype=bool), np.ones(10, dtype=bool)
    firsts = np.isin(np.arange(10), [0, 3, 7])
    asked = np.array([empty, full, firsts, empty])
    before = asked.copy()
    values = problem.values(asked)
    np.testing.assert_array_equal(asked, before)
    np.testing.assert_array_equal(values[[0, 2, 3]], [[11 / 32, 8 / 24]] * 3)
    np.testing.assert_array_equal(values[1], [1, 1])
    assert problem.measured == [firsts.tobytes(), full.tobytes()]
    np.testing.assert_array_equal(np.concatenate(trained), [firsts, full])
    np.testing.assert_array_equal(requested, [[firsts, full, firsts, firsts]])
    nine = full.copy()
    nine[1] = False
    problem.values([nine])
    assert (problem.n_trained, problem.n_requested, problem.n_diverged) == (3, 5, 1)
    problem.unlisten(on_trained, on_requested)
    assert problem.values(np.zeros((0, 10))).shape == (0, 2)
    assert (len(trained), len(requested)) == (3, 2)


def test_what_is_remembered_is_not_measured_again():
    problem = LayeredProblem()
    problem.remember(np.zeros((1, 10), dtype=bool), np.array([[0.5, 0.25]]))
    np.testing.assert_array_equal(problem.values(np.zeros((1, 10))), [[0.5, 0.25]])
    assert problem.n_trained == 0


def test_pymoo_gets_losses_and_violations_of_repaired_masks():
    problem = LayeredProblem(min_active=4, max_active=9)
    out = problem.evaluate(np.array([[False] * 10, [True] * 10]), return_as_dictionary=True)
    np.testing.assert_allclose(out["F"], [[21 / 32, 8 / 24], [0, 1]])
    np.testing.assert_array_equal(out["G"], [[1, -6], [-6, 1]])
    algorithm = NSGA2(8, sampling=DensitySampling(), crossover=UniformCrossover(), mutation=BitflipMutation())
    result = minimize(problem, algorithm, ("n_gen", 5), seed=1, save_history=True)
    np.testing.assert_array_equal(result.F, problem.losses(problem.values(result.X)))
    assert all(entry.problem is problem for entry in result.history)
    assert copy.deepcopy(problem) is problem


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name not in ("evo_prune_deeptl", "random")])
def test_every_search_for_fronts_finds_that_of_a_small_problem(name):
    problem = LayeredProblem()
    result = run_search(problem, 30, budget=900, algorithm=name, seed=1)
    known = {mask.tobytes() for mask in WHOLE}
    assert {mask.tobytes() for mask in result.masks} <= known
    losses = problem.losses(np.stack([WHOLE @ GAINS, WHOLE @ COSTS], axis=1))
    front = losses[non_dominated(losses)]
    # members of equal losses count once
    found = [np.isclose(member, result.losses).all(axis=1).any() for member in front]
    assert np.mean(found) >= 0.9
    assert (np.diff(result.masks.sum(axis=1)) >= 0).all()
    assert result.history[-1].best == 1.0


def test_resume_is_exact(tmp_path):
    whole = run_search(LayeredProblem(), 8, n_gen=5, seed=2, journal=tmp_path / "whole")

    def stop(generation):
        if generation.number == 2:
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        run_search(LayeredProblem(), 8, n_gen=5, seed=2, journal=tmp_path / "torn", progress=stop)
    problem = LayeredProblem()
    resumed = run_search(problem, 8, n_gen=5, seed=2, journal=tmp_path / "torn", resume=True)
    for name in ("masks", "values", "losses"):
        np.testing.assert_array_equal(getattr(resumed, name), getattr(whole, name))
    assert [g.hypervolume for g in resumed.history] == [g.hypervolume for g in whole.history]
    assert (tmp_path / "torn").read_bytes() == (tmp_path / "whole").read_bytes()
    assert 0 < problem.n_trained < len(EvaluationJournal.read(tmp_path / "whole")[1])


def test_the_guided_search_starts_from_what_the_problem_says():
    problem = LayeredProblem()
    algorithm = guided(problem, 8, seeded_share=0.5)
    algorithm.setup(problem, termination=("n_gen", 2), seed=1)
    start = algorithm.ask().get("X")
    np.testing.assert_array_equal(start[:4], problem.guidance(4).seeds)
    assert len(start) == 8
    np.testing.assert_array_equal(
        np.argsort(algorithm.scores.values, kind="stable"), np.argsort(GAINS, kind="stable")
    )
    assert algorithm.mating.crossover.scale == "uniform"
    with pytest.raises(InputError, match="rankings"):
        guided(problem, rankings=["anova_f"])


def test_sizes_are_linear_unless_the_problem_says_otherwise():
    problem = LayeredProblem()
    assert not isinstance(survival_for(problem).crowding_func, LogSizeCrowding)
    problem.log_sizes = True
    assert survival_for(problem).crowding_func.column == 1
    sampling = nsga2(problem).initialization.sampling
    assert (sampling.scale, sampling.densities) == ("uniform", (0.0, 1.0))


def test_without_guidance_the_other_searches_work():
    problem = UnguidedProblem()
    with pytest.raises(InputError, match="UnguidedProblem: use the algorithm nsga2"):
        make_algorithm("guided", problem)
    assert len(run_search(problem, 8, n_gen=2, algorithm="nsga2").masks) > 0


def test_leaving_the_context_closes():
    with LayeredProblem() as problem:
        assert isinstance(problem, LayeredProblem)
        assert problem.closed == 0
    assert problem.closed == 1


def test_bad_masks():
    problem = LayeredProblem()
    with pytest.raises(InputError, match="masks have 9 bits, but this problem has 10"):
        problem.values(np.ones((2, 9)))
    with pytest.raises(InputError, match="only 0 and 1"):
        problem.values(np.full((1, 10), 0.5))
    with pytest.raises(InputError, match="masks have 3 bits"):
        problem.remember(np.ones((1, 3), dtype=bool), np.zeros((1, 2)))
