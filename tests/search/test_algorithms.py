"""The searches that are asked for by name."""

from __future__ import annotations

import numpy as np
import pytest
from pymoo.operators.crossover.ux import UniformCrossover
from pymoo.operators.mutation.bitflip import BitflipMutation

from moevoprune import DensitySampling, InputError, PruningProblem
from moevoprune.baselines import rank_bits, top_bits
from moevoprune.cli.config import changed_settings, parse_config, set_value, to_toml
from moevoprune.search.algorithms import (
    ALGORITHMS,
    DEFAULT_POP_SIZES,
    GUIDED_PARTS,
    guided,
    make_algorithm,
    nsga2,
    reference,
)
from moevoprune.search.archive import knee, non_dominated
from moevoprune.search.loop import default_end, run_search
from moevoprune.search.survival import LogSizeCrowding, survival_for
from moevoprune.search.trust import trusted_rankings
from moevoprune.search.variation import GuidedMutation, SizeCrossover


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


def test_every_name_has_its_defaults():
    assert set(DEFAULT_POP_SIZES) == set(ALGORITHMS)
    assert default_end("evo_prune_deeptl", None, None) == default_end("reference", None, None) == (None, 200)
    assert default_end("random", None, None) == (25, None)


@pytest.mark.parametrize(
    "objectives", [["accuracy", "active_neurons"], ["accuracy", "active_neurons", "cka:noise"]]
)
def test_without_all_its_parts_guided_is_nsga2(make_problem, objectives):
    asked = []
    for algorithm, parts in (("guided", GUIDED_PARTS), ("nsga2", ()), ("guided", ())):
        problem = make_problem(objectives=objectives)
        seen = asked_of(problem)
        run_search(problem, 8, n_gen=12, algorithm=algorithm, seed=3, leave_out=parts)
        # what guidance tries comes before the search
        asked.append(np.concatenate(seen[-12:]))
    np.testing.assert_array_equal(asked[0], asked[1])
    assert asked[0].tobytes() != asked[2].tobytes()


def parts_of(algorithm):
    """Each part of a guided search, in words."""
    sampling, mutation = algorithm.initialization.sampling, algorithm.mating.mutation
    seeded = hasattr(sampling, "masks")
    draws = sampling.fill if seeded else sampling
    return {
        "seeds": len(sampling.masks) if seeded else 0,
        "fill": "by scores" if draws.chances is not None else "blind",
        "crossover": type(algorithm.mating.crossover),
        "mutation": type(mutation),
        "scores": len(np.unique(algorithm.scores.values)) > 1,
        "survival": type(algorithm.survival.crowding_func),
        "polish": algorithm.polished_share,
    }


@pytest.mark.parametrize(
    ("part", "changed"),
    [
        ("seeds", {"seeds"}),
        ("scores", {"scores", "fill"}),
        ("start", {"seeds", "fill"}),
        ("crossover", {"crossover"}),
        ("mutation", {"mutation"}),
        ("survival", {"survival"}),
        ("polish", {"polish"}),
    ],
)
def test_a_part_that_is_left_out_gives_way_to_what_nsga2_has(make_problem, part, changed):
    problem = make_problem(objectives=["accuracy", "active_neurons"])
    whole, without = parts_of(guided(problem, 8)), parts_of(guided(problem, 8, leave_out=[part]))
    assert whole["seeds"] > 0
    assert (whole["crossover"], whole["mutation"]) == (SizeCrossover, GuidedMutation)
    assert {key for key in whole if whole[key] != without[key]} == changed
    plain = nsga2(problem, 8)
    for key, there in (
        ("crossover", plain.mating.crossover),
        ("mutation", plain.mating.mutation),
        ("survival", plain.survival.crowding_func),
    ):
        assert key not in changed or without[key] is type(there)
    assert without["seeds"] == 0 or "seeds" not in changed
    result = run_search(problem, 8, n_gen=3, seed=1, leave_out=[part])
    assert len(result.masks) > 0


def test_parts_that_cannot_be_left_out(make_problem):
    with pytest.raises(InputError, match=r"'polsh' \(did you mean 'polish'|polsh.*did you mean"):
        guided(make_problem(), leave_out=["polsh"])
    with pytest.raises(InputError, match="not of nsga2"):
        make_algorithm("nsga2", make_problem(), leave_out=["polish"])


def test_the_setting_of_what_is_left_out():
    plain = parse_config({"data": {"features": "digits"}}, "here")
    assert "leave_out" not in to_toml(plain)

    def typed(text):
        raw = {"data": {"features": "digits"}}
        assert set_value(raw, f"leave_out={text}") == "search.leave_out"
        return parse_config(raw, "here")

    for text in ("[polish, seeds]", '["seeds", "polish"]', "polish,seeds"):
        assert typed(text).search.leave_out == ("seeds", "polish")
    assert typed("[]") == plain
    changed = typed("polish")
    assert 'leave_out = [\n    "polish",\n]' in to_toml(changed)
    assert [line.split(":")[0] for line in changed_settings(plain, changed)] == ["search.leave_out"]
    assert changed.search.resolved()["leave_out"] == ("polish",)
    for search, message in (
        ({"leave_out": ["scoring"]}, "no part 'scoring'"),
        ({"leave_out": ["polish"], "algorithm": "nsga2"}, "not of nsga2"),
        ({"leave_out": 3}, "leave_out"),
    ):
        with pytest.raises(InputError, match=message):
            parse_config({"data": {"features": "digits"}, "search": search}, "here")
