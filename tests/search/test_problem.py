"""PruningProblem: a pure function of the mask that any pymoo algorithm can search."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.algorithms.moo.nsga3 import NSGA3
from pymoo.algorithms.moo.sms import SMSEMOA
from pymoo.algorithms.moo.spea2 import SPEA2
from pymoo.algorithms.moo.unsga3 import UNSGA3
from pymoo.algorithms.soo.nonconvex.ga import GA
from pymoo.core.callback import Callback
from pymoo.operators.crossover.ux import UniformCrossover
from pymoo.operators.mutation.bitflip import BitflipMutation
from pymoo.optimize import minimize
from pymoo.util.display.output import Output
from pymoo.util.ref_dirs import get_reference_directions

from moevoprune import Candidate, DensitySampling, FeatureSet, HeadSettings, InputError, Objective, PruningProblem

OPERATORS = {
    "sampling": DensitySampling("log"),
    "crossover": UniformCrossover(),
    "mutation": BitflipMutation(),
    "eliminate_duplicates": True,
}
DIRECTIONS = get_reference_directions("das-dennis", 3, n_partitions=3)


@pytest.fixture
def problem(small_features, quick_head):
    return PruningProblem(small_features, head=quick_head, cv=3, seed=1)


def random_masks(n, n_bits, seed=0):
    generator = np.random.default_rng(seed)
    return generator.random((n, n_bits)) < generator.random((n, 1))


@pytest.mark.parametrize(
    "algorithm",
    [
        NSGA2(pop_size=8, **OPERATORS),
        NSGA3(ref_dirs=DIRECTIONS, pop_size=12, **OPERATORS),
        UNSGA3(ref_dirs=DIRECTIONS, pop_size=12, **OPERATORS),
        SMSEMOA(pop_size=8, **OPERATORS),
        SPEA2(pop_size=8, **OPERATORS),
    ],
    ids=lambda algorithm: type(algorithm).__name__,
)
def test_multi_objective_algorithms_run_unchanged(problem, algorithm):
    result = minimize(problem, algorithm, ("n_gen", 4), seed=1)
    assert result.X.dtype == bool
    assert result.F.shape == (len(result.X), 3)
    # the values are the problem's own, whoever searched
    np.testing.assert_array_equal(result.F, problem.losses(problem.values(result.X)))
    assert (problem.encoding.count_active(result.X) >= 1).all()


def test_single_objective_ga_improves_on_its_start(small_features, quick_head):
    problem = PruningProblem(small_features, objectives=["accuracy"], head=quick_head, cv=3)
    result = minimize(problem, GA(pop_size=10, **OPERATORS), ("n_gen", 6), seed=2, save_history=True)
    assert result.X.shape == (problem.n_var,)
    first, last = result.history[0].opt.get("F").min(), result.F[0]
    assert last <= first
    assert 1 - last == problem.values(result.X[None])[0, 0]


def test_ask_and_tell_callback_output_and_history(problem):
    class Count(Callback):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def notify(self, algorithm):
            self.calls += 1

    count = Count()
    result = minimize(
        problem,
        NSGA2(pop_size=6, **OPERATORS),
        ("n_eval", 18),
        seed=3,
        callback=count,
        save_history=True,
        output=Output(),
    )
    assert count.calls == len(result.history) == 3
    assert all(entry.problem is problem for entry in result.history)

    algorithm = NSGA2(pop_size=6, **OPERATORS)
    algorithm.setup(problem, termination=("n_gen", 3), seed=3)
    while algorithm.has_next():
        individuals = algorithm.ask()
        algorithm.evaluator.eval(problem, individuals)
        algorithm.tell(infills=individuals)
    np.testing.assert_array_equal(algorithm.result().F, result.F)


def test_fitness_does_not_depend_on_batch_chunk_order_or_cache(small_features, quick_head):
    masks = random_masks(9, 14)
    reference = PruningProblem(small_features, head=quick_head, cv=3, seed=5).values(masks)
    for chunk in (1, 3, 64):
        problem = PruningProblem(small_features, head=quick_head, cv=3, seed=5, chunk=chunk)
        np.testing.assert_array_equal(problem.values(masks), reference)
    backwards = PruningProblem(small_features, head=quick_head, cv=3, seed=5)
    np.testing.assert_array_equal(backwards.values(masks[::-1])[::-1], reference)
    alone = [
        PruningProblem(small_features, head=quick_head, cv=3, seed=5).values(mask[None]) for mask in masks[:3]
    ]
    np.testing.assert_array_equal(np.concatenate(alone), reference[:3])
    np.testing.assert_array_equal(backwards.values(masks), reference)


def test_repeated_masks_are_trained_once(problem):
    masks = random_masks(5, 14)
    problem.values(np.concatenate([masks, masks]))
    problem.values(masks)
    assert problem.n_trained == len(np.unique(masks, axis=0))
    assert problem.n_requested == 15
    copied = copy.deepcopy(problem)
    copied.values(masks)
    assert problem.n_trained == len(np.unique(masks, axis=0))


def test_whole_numbers_and_floats_of_0_and_1_are_masks(problem):
    masks = random_masks(3, 14)
    np.testing.assert_array_equal(problem.values(masks.astype(int)), problem.values(masks))
    np.testing.assert_array_equal(problem.evaluate(masks.astype(float))[0], problem.evaluate(masks)[0])
    with pytest.raises(InputError, match="only 0 and 1"):
        problem.evaluate(masks * 2.5)
    with pytest.raises(InputError, match="15 bits"):
        problem.values(np.ones((1, 15), bool))


def test_values_turn_into_minimised_losses_and_constraints(problem):
    masks = random_masks(6, 14)
    masks[0] = False
    out = problem.evaluate(masks, return_as_dictionary=True)
    values = problem.values(masks)
    np.testing.assert_allclose(out["F"][:, 0], 1 - values[:, 0])
    np.testing.assert_allclose(out["F"][:, 1], masks.mean(axis=1))
    np.testing.assert_allclose(out["F"][:, 2], 1 - values[:, 2])
    np.testing.assert_array_equal(out["G"][:, 0], 1 - masks.sum(axis=1))


def test_an_empty_mask_is_legal_and_never_flattered(small_features):
    problem = PruningProblem(
        small_features, cv=3, objectives=["accuracy", "active_neurons", "cka", "cka:dense"][:3]
    )
    accuracy, active, cka = problem.values(np.zeros((1, 14), bool))[0]
    largest_class = np.bincount(small_features.y_train).max() / small_features.n_train
    assert accuracy <= largest_class + 1e-9
    assert active == 0
    assert cka == 0
    assert (problem.violations(np.zeros((1, 14), bool)) > 0).all()


@pytest.mark.parametrize("bias", [True, False])
def test_an_empty_mask_predicts_the_largest_class(bias):
    generator = np.random.default_rng(0)
    labels = np.array([0] * 30 + [1] * 60)
    rows = generator.normal(size=(90, 5))
    data = FeatureSet(rows, labels, rows[:9], labels[:9])
    problem = PruningProblem(data, cv=3, objectives=["accuracy", "cka:dense"], head=HeadSettings(bias=bias))
    np.testing.assert_allclose(problem.values(np.zeros((1, 5), bool)), [[60 / 90, 0.0]])


def test_bounds_on_active_bits_are_constraints(small_features, quick_head):
    problem = PruningProblem(small_features, head=quick_head, cv=3, min_active=3, max_active=6)
    result = minimize(problem, NSGA2(pop_size=10, **OPERATORS), ("n_gen", 4), seed=1)
    active = result.X.sum(axis=1)
    assert active.min() >= 3
    assert active.max() <= 6
    for arguments in ({"min_active": 15}, {"max_active": 0}, {"min_active": 5, "max_active": 4}):
        with pytest.raises(InputError, match=r"use a (whole )?number"):
            PruningProblem(small_features, head=quick_head, **arguments)


@pytest.mark.parametrize(
    ("encoding", "hidden", "n_bits"),
    [
        ("features", (), 14),
        ("neurons", (8,), 8),
        ("neurons:2", (8, 6), 6),
        ("neurons:both", (8, 6), 14),
        ("features+neurons", (8,), 22),
        ("connections", (4,), 56),
    ],
)
def test_every_encoding_is_a_problem(small_features, encoding, hidden, n_bits):
    head = HeadSettings(hidden=hidden, epochs=3)
    problem = PruningProblem(small_features, encoding=encoding, head=head, cv=3)
    assert problem.n_var == n_bits
    values = problem.values(np.stack([problem.encoding.dense(), np.zeros(n_bits, bool)]))
    assert np.isfinite(values).all()
    assert values[0, 1] == 1
    assert values[1, 1] == 0


def test_a_users_function_and_objective(small_features, quick_head):
    def agreement(candidate: Candidate) -> float:
        return float(np.mean([f.outputs.argmax(1).eq(f.targets).float().mean() for f in candidate.folds]))

    count = Objective("count", lambda candidate: candidate.active, maximise=False)
    problem = PruningProblem(small_features, objectives=[agreement, count, "accuracy"], head=quick_head, cv=4)
    masks = random_masks(4, 14)
    values = problem.values(masks)
    np.testing.assert_array_equal(values[:, 1], masks.sum(axis=1))
    np.testing.assert_allclose(values[:, 0], values[:, 2], atol=1e-6)
    np.testing.assert_array_equal(problem.losses(values)[:, 0], -values[:, 0])


def test_regression(small_regression):
    problem = PruningProblem(small_regression, head=HeadSettings(epochs=60), cv=4, objectives=["r2", "mse", "cka"])
    dense, empty = problem.values(np.stack([np.ones(10, bool), np.zeros(10, bool)]))
    assert dense[0] > 0.8
    assert empty[0] <= 0.01
    variance = small_regression.y_train.var(axis=0).mean()
    np.testing.assert_allclose(empty[1], variance, rtol=0.15)
    assert dense[1] < 0.25 * variance


def test_a_diverging_head_is_counted_and_scored_worst(small_features):
    head = HeadSettings(hidden=(8,), epochs=4, learning_rate=1e9)
    problem = PruningProblem(small_features, head=head, cv=3)
    values = problem.values(np.ones((1, 14), bool))
    np.testing.assert_array_equal(values, [[0.0, 1.0, 0.0]])
    assert problem.n_diverged == 1


def test_the_test_part_is_never_read(small_features, quick_head):
    """Promise 1: the search sees no test row, so other test rows give the same fitness."""
    other = FeatureSet(
        small_features.X_train,
        small_features.y_train,
        np.full((3, 14), 1e6),
        np.zeros(3, int),
        class_names=small_features.class_names,
    )
    masks = random_masks(5, 14)
    ours = PruningProblem(small_features, head=quick_head, cv=3).values(masks)
    np.testing.assert_array_equal(PruningProblem(other, head=quick_head, cv=3).values(masks), ours)


def test_seed_and_settings_are_part_of_the_identity(small_features, quick_head):
    base = PruningProblem(small_features, head=quick_head, cv=3).identity()
    variants = [
        PruningProblem(small_features, head=quick_head, cv=3, seed=1),
        PruningProblem(small_features, head=quick_head, cv=4),
        PruningProblem(small_features, head="default", cv=3),
        PruningProblem(small_features, head=quick_head, cv=3, encoding="neurons"),
        PruningProblem(small_features, head=quick_head, cv=3, noise=0.5),
        PruningProblem(small_features, head=quick_head, cv=3, max_active=4),
    ]
    identities = [base, *(variant.identity() for variant in variants)]
    assert all(a != b for a, b in itertools.combinations(identities, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objectives": ["acuracy"]}, "did you mean 'accuracy'"),
        ({"objectives": ["r2"]}, "real"),
        ({"encoding": "feature"}, "did you mean 'features'"),
        ({"encoding": "neurons:2"}, "two hidden layers"),
        ({"head": "papers"}, "default, paper"),
        ({"cv": 97}, "97 folds"),
        ({"seed": -1}, "at least 0"),
        ({"device": "tpu9"}, "unknown device"),
        ({"noise": 0.0}, "noise"),
        ({"chunk": 0}, "chunk"),
        ({"chunk": 1.5}, "chunk"),
        ({"seed": 1.5}, "seed"),
        ({"seed": True}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"cv": "3"}, "cv"),
        ({"min_active": None}, "min_active"),
        ({"noise": "a"}, "noise"),
        ({"head": {"epochs": 3}}, "HeadSettings"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(small_features, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        PruningProblem(small_features, **arguments)
    assert "\n" not in str(caught.value)


def test_baselines_search_by_accuracy_wherever_it_stands(small_features, quick_head):
    masks = np.random.default_rng(0).random((6, 14)) < 0.5
    for objectives in (["accuracy", "active_neurons"], ["active_neurons", "accuracy"]):
        problem = PruningProblem(small_features, head=quick_head, cv=3, objectives=objectives)
        evaluate = problem.ranking_data().evaluate
        accuracy = problem.values(masks)[:, objectives.index("accuracy")]
        np.testing.assert_allclose(evaluate(masks), accuracy - 1, atol=1e-12)
