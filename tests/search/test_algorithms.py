"""The searches that are asked for by name."""

from __future__ import annotations

import numpy as np
import pytest
from pymoo.operators.crossover.ux import UniformCrossover
from pymoo.operators.mutation.bitflip import BitflipMutation

from moevoprune import DensitySampling, InputError, PruningProblem
from moevoprune.baselines import rank_bits, top_bits
from moevoprune.search.algorithms import ALGORITHMS, guided, make_algorithm, reference
from moevoprune.search.archive import knee, non_dominated
from moevoprune.search.loop import run_search
from moevoprune.search.survival import LogSizeCrowding, survival_for
from moevoprune.search.trust import trusted_rankings


@pytest.fixture
def make_problem(small_features, quick_head):
    return lambda **changes: PruningProblem(small_features, head=quick_head, cv=3, **{"seed": 1, **changes})


def asked_of(problem):
    asked: list[np.ndarray] = []
    problem.listen(on_requested=lambda masks, values: asked.append(masks.copy()))
    return asked


def test_reference_has_the_published_settings(make_problem):
    algorithm = reference(make_problem())
    assert algorithm.pop_size == 30
    assert algorithm.n_offsprings == 2
    sampling = algorithm.initialization.sampling
    assert isinstance(sampling, DensitySampling)
    assert sampling.scale == "uniform"
    assert isinstance(algorithm.mating.crossover, UniformCrossover)
    assert algorithm.mating.crossover.prob.value == 1.0
    mutation = algorithm.mating.mutation
    assert isinstance(mutation, BitflipMutation)
    assert mutation.prob.value == 1.0
    assert mutation.get_prob_var(make_problem()) == 1 / 14
    problem = make_problem()
    asked = asked_of(problem)
    result = run_search(problem, algorithm="reference", seed=1)
    assert [len(masks) for masks in asked] == [30] + [2] * 85
    assert result.history[-1].evaluations == 200


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_every_search_runs_by_name_and_keeps_to_its_budget(make_problem, name):
    problem = make_problem(max_active=9)
    result = run_search(problem, 8, budget=40, algorithm=name, seed=2)
    assert 40 <= result.history[-1].evaluations <= 48
    assert result.masks.sum(axis=1).max() <= 9


@pytest.mark.parametrize("encoding", ["neurons", "features+neurons", "connections"])
def test_guided_works_on_every_encoding(make_problem, encoding):
    result = run_search(make_problem(encoding=encoding, objectives=["accuracy", "active_neurons"]), 6, n_gen=3)
    assert len(result.masks) > 0


def test_guided_is_the_default(make_problem):
    one = run_search(make_problem(), 6, n_gen=3, seed=5)
    two = run_search(make_problem(), 6, n_gen=3, seed=5, algorithm="guided")
    np.testing.assert_array_equal(one.masks, two.masks)


def test_the_start_holds_the_rankings_own_masks_and_the_dense_head(make_problem):
    problem = make_problem()
    asked = asked_of(problem)
    run_search(problem, 24, n_gen=1, seed=1)
    start = {mask.tobytes() for mask in asked[0]}
    assert np.ones(14, dtype=bool).tobytes() in start
    data = problem.ranking_data()
    best, *others = [rank_bits(data, name) for name in trusted_rankings(problem)]
    for turn, size in enumerate(np.rint(np.geomspace(14, 1, 18)).astype(int)):
        ranked = best if turn % 2 == 0 or not others else others[turn // 2 % len(others)]
        (mask,) = top_bits(ranked, [size])
        assert mask.tobytes() in start
    assert len(start) > 14


def test_polish_removes_or_exchanges_single_bits_around_the_knee(make_problem):
    problem = make_problem(objectives=["accuracy", "active_neurons"])
    algorithm = guided(problem, 10, polished_share=0.3)
    algorithm.setup(problem, termination=("n_gen", 10), seed=1)
    polished = 0
    while algorithm.has_next():
        before = algorithm.pop
        last = algorithm.n_iter is not None and algorithm.n_iter >= 9
        children = algorithm.ask()
        if before is not None and len(before) and last:
            losses = before.get("F")
            kept = non_dominated(losses)
            masks = before[kept].get("X").astype(bool)
            order = np.argsort(masks.sum(axis=1), kind="stable")
            centre = int(np.flatnonzero(order == knee(losses[kept]))[0])
            around = masks[order[max(centre - 2, 0) : centre + 3]]
            for child in children.get("X"):
                removed = [(parent & ~child).sum() for parent in around]
                added = [(child & ~parent).sum() for parent in around]
                assert any(r == 1 and a <= 1 for r, a in zip(removed, added, strict=True))
                polished += 1
        algorithm.evaluator.eval(problem, children)
        algorithm.tell(infills=children)
    assert polished >= 10


def test_scores_are_learned_when_asked_to(make_problem):
    problem = make_problem()
    algorithm = guided(problem, 8, learning=0.5)
    before = algorithm.scores.values.copy()
    algorithm.setup(problem, termination=("n_gen", 4), seed=1)
    while algorithm.has_next():
        algorithm.next()
    assert (algorithm.scores.values != before).any()
    assert algorithm.mating.mutation.scores is algorithm.scores


def test_crowding_counts_sizes_on_a_log_scale():
    sizes = np.array([1, 2, 4, 8, 16, 32, 64, 128, 256, 512]) / 512
    losses = np.stack([np.linspace(1, 0, 10), sizes], axis=1)
    spread = LogSizeCrowding(1, 512, "cd").do(losses)
    np.testing.assert_allclose(spread[1:-1], spread[1], rtol=1e-9)
    assert np.isinf(spread[[0, -1]]).all()


def test_survival_suits_the_number_of_objectives(make_problem):
    two = survival_for(make_problem(objectives=["accuracy", "active_neurons"]))
    assert isinstance(two.crowding_func, LogSizeCrowding)
    assert two.crowding_func.column == 1
    without_size = survival_for(make_problem(objectives=["accuracy", "cka:noise"]))
    assert not isinstance(without_size.crowding_func, LogSizeCrowding)


def test_bad_names_and_sizes(make_problem):
    with pytest.raises(InputError, match="guided"):
        make_algorithm("guide", make_problem())
    with pytest.raises(InputError, match="--pop"):
        run_search(make_problem(), pop_size=1)
    with pytest.raises(InputError, match="algorithm = 3"):
        run_search(make_problem(), algorithm=3)
    with pytest.raises(InputError, match="unknown ranking"):
        guided(make_problem(), rankings=["anova"])
    with pytest.raises(InputError, match="seeded_share"):
        guided(make_problem(), seeded_share=-0.5)
    with pytest.raises(InputError, match="polished_share"):
        guided(make_problem(), polished_share=1.0)
