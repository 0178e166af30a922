"""Training of feed-forward networks, scores, and the choice of a threshold."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, r2_score

from moevoprune import InputError
from moevoprune.construction.building import build_network
from moevoprune.construction.comparison import METHODS, compare_methods
from moevoprune.construction.network import Training, start_network, train_network
from moevoprune.construction.scoring import row_scores, score_on_test, target_variance
from moevoprune.construction.settings import ConstructionSettings
from moevoprune.construction.sweep import smallest_close, sweep

QUICK = ConstructionSettings(
    hidden=(12, 10), epochs=6, retrain_epochs=3, epsilons=(0.0, 0.6, 1.2), weight_decay=0.01, cv=2
)


def trained_by_torch(network, rows, targets, training, order):
    """The same training as anyone would write it: modules, autograd, an optimiser, in float64."""
    layers = []
    for weight, bias in zip(network.weights, network.biases, strict=True):
        linear = torch.nn.utils.skip_init(torch.nn.Linear, *weight.shape, dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(weight.T.copy()))
            linear.bias.copy_(torch.from_numpy(bias))
        layers += [linear, torch.nn.ReLU()]
    module = torch.nn.Sequential(*layers[:-1])
    inputs = torch.from_numpy((rows.astype(np.float64) - network.mean) / network.scale)
    regression = network.target_mean is not None
    answers = torch.from_numpy(
        (targets - network.target_mean) / network.target_scale if regression else targets.copy()
    )
    loss_of = torch.nn.MSELoss() if regression else torch.nn.CrossEntropyLoss()
    optimiser = torch.optim.Adam(
        module.parameters(), training.learning_rate, weight_decay=training.weight_decay, foreach=False
    )
    steps = training.epochs * -(-len(rows) // training.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for epoch in range(training.epochs):
        for batch in torch.split(torch.from_numpy(order(epoch)), training.batch_size):
            optimiser.zero_grad()
            loss_of(
                module(inputs[batch]), answers[batch].to(torch.float64) if regression else answers[batch]
            ).backward()
            optimiser.step()
            schedule.step()
    return [layer.weight.detach().numpy().T for layer in module if isinstance(layer, torch.nn.Linear)]


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_training_is_that_of_torch_in_float64(task, small_features, small_regression):
    from moevoprune.heads.batches import epoch_order

    features = small_features if task == "classification" else small_regression
    start = start_network(features.X_train, features.y_train, (9, 7), features.n_outputs, 1)
    training = Training(3, 0.01, 0.02, 16)
    trained = train_network(start, features.X_train, features.y_train, training, 5)
    expected = trained_by_torch(
        start, features.X_train, features.y_train, training, lambda epoch: epoch_order(features.n_train, 5, epoch)
    )
    for weight, other in zip(trained.weights, expected, strict=True):
        np.testing.assert_allclose(weight, other, atol=2e-4)


def test_nothing_global_is_touched(small_features):
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    build_network(small_features, QUICK, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(small_features):
    first, second, other = (build_network(small_features, QUICK, seed=seed) for seed in (4, 4, 5))
    for one, two in zip(first.refined.weights, second.refined.weights, strict=True):
        np.testing.assert_array_equal(one, two)
    assert [point.score for point in first.sweep.points] == [point.score for point in second.sweep.points]
    assert not np.array_equal(first.large.weights[0], other.large.weights[0])


def test_scores_are_those_of_scikit_learn(small_features, small_regression):
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(small_features.n_test, 3)).astype(np.float32)
    expected = accuracy_score(small_features.y_test, logits.argmax(axis=1))
    assert score_on_test(logits, small_features) == pytest.approx(expected)
    targets = small_regression.y_test
    guesses = (targets + generator.normal(size=targets.shape) * [3, 30]).astype(np.float32)
    assert score_on_test(guesses, small_regression) == pytest.approx(r2_score(targets, guesses), abs=1e-6)


def test_diverged_rows_score_worst_and_a_constant_target_is_refused(small_features, small_regression):
    nan = np.full((2, 2), np.nan, dtype=np.float32)
    assert row_scores(nan, np.array([0, 0]), None).tolist() == [0.0, 0.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(row_scores(nan, np.zeros((2, 2)), np.ones(2))).all()
    with pytest.raises(InputError, match=r"target 1 .* constant"):
        target_variance(small_regression, np.array([[1.0, 2.0], [3.0, 2.0]]))


def test_multi_output_regression_is_learnt_and_shrinks(small_regression):
    settings = ConstructionSettings(hidden=(24, 24), epochs=120, epsilons=(1.0,), weight_decay=0.01, cv=1)
    built = build_network(small_regression, settings, seed=1)
    assert built.refined.outputs(small_regression.X_test).shape == (40, 2)
    assert score_on_test(built.large.outputs(small_regression.X_test), small_regression) > 0.9
    assert score_on_test(built.refined.outputs(small_regression.X_test), small_regression) > 0.9


def test_the_sweep_does_not_look_at_test_rows(small_features):
    from dataclasses import replace

    turned = replace(small_features, X_test=-small_features.X_test, y_test=small_features.y_test[::-1].copy())
    one, two = sweep(small_features, QUICK, 2), sweep(turned, QUICK, 2)
    assert [point.score for point in one.points] == [point.score for point in two.points]
    assert one.chosen == two.chosen


def test_every_training_row_is_held_out_once_per_repeat(small_features):
    swept = sweep(small_features, QUICK.model_copy(update={"repeats": 2}), 1)
    assert swept.large.rows.shape == (small_features.n_train,)
    # means of two answers
    assert set(np.unique(swept.large.rows)) <= {0.0, 0.5, 1.0}
    sizes = [point.parameters for point in swept.points]
    assert sizes[0] == swept.large.parameters
    assert sizes == sorted(sizes, reverse=True)


def test_weight_decay_is_chosen_by_the_folds(small_features):
    swept = sweep(small_features, QUICK.model_copy(update={"weight_decay": None}), 1)
    close = [
        decay for decay, score in swept.decay_scores.items() if score >= max(swept.decay_scores.values()) - 0.005
    ]
    assert swept.weight_decay == max(close)
    # a penalty that leaves nothing but the class prior is never close here
    assert swept.weight_decay < 1


@pytest.mark.parametrize(
    ("scores", "tolerance", "at_least", "chosen"),
    [
        ([0.9, 0.91, 0.92], 0.0, -np.inf, 2),
        ([0.9, 0.91, 0.92], 0.01, -np.inf, 1),
        ([0.9, 0.91, 0.92], 0.01, 0.925, 2),
        ([0.9, 0.91, 0.92], 0.01, 0.99, 2),
        ([0.92, 0.92, 0.92], 0.0, -np.inf, 0),
    ],
)
def test_the_smallest_close_network_is_chosen(scores, tolerance, at_least, chosen):
    assert smallest_close([10, 20, 30], scores, tolerance, at_least) == chosen


def test_all_methods_have_the_shape_and_a_score(small_features):
    comparison = compare_methods(small_features, QUICK, seed=1, budget=4)
    assert {score.method for score in comparison.scores} == set(METHODS)
    shape = comparison["refined"].widths
    for method in ("constructed", "scratch", "magnitude", "sklearn"):
        assert (comparison[method].widths, comparison[method].parameters) == (
            shape,
            comparison["refined"].parameters,
        )
    assert comparison["large"].widths == (12, 10)
    assert all(0.2 < score.test <= 1 for score in comparison.scores)
    with pytest.raises(KeyError):
        comparison["other"]


def test_deep_networks_go_without_the_search(small_regression):
    settings = QUICK.model_copy(update={"hidden": (6, 6, 6)})
    comparison = compare_methods(small_regression, settings, seed=1, budget=4)
    assert "evolved" not in {score.method for score in comparison.scores}
    assert len(comparison["refined"].widths) == 3


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hidden": ()}, "one width or more"),
        ({"epsilons": (1.0, 0.5)}, "rising"),
        ({"measure": "range"}, "unknown measure"),
        ({"learning_rate": 0.0}, "greater than 0"),
        ({"hiden": (4,)}, "did you mean 'hidden'"),
    ],
)
def test_bad_settings_are_one_clear_line(settings, words):
    with pytest.raises(InputError, match=words):
        ConstructionSettings.checked(**settings)
