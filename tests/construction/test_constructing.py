"""The small network: what is kept, what is folded, and what is exact."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moevoprune import InputError, TrainedHead
from moevoprune.construction.construction import construct, take_units
from moevoprune.construction.network import n_parameters, parameter_count
from moevoprune.construction.variability import MEASURES, variability


def random_network(seed, hidden=(7, 5), n_features=4, n_outputs=3, task="regression"):
    generator = np.random.default_rng(seed)
    widths = (n_features, *hidden, n_outputs)
    regression = task == "regression"
    return TrainedHead(
        task=task,
        n_features=n_features,
        inputs=np.arange(n_features),
        weights=tuple(generator.normal(size=ends).astype(np.float32) for ends in itertools.pairwise(widths)),
        biases=tuple(generator.normal(size=width).astype(np.float32) for width in widths[1:]),
        mean=generator.normal(size=n_features).astype(np.float32),
        scale=generator.uniform(0.5, 2, size=n_features).astype(np.float32),
        target_mean=generator.normal(size=n_outputs).astype(np.float32) if regression else None,
        target_scale=generator.uniform(0.5, 2, size=n_outputs).astype(np.float32) if regression else None,
    )


def random_rows(seed, n_rows=40, n_features=4):
    return np.random.default_rng([seed, 1]).normal(size=(n_rows, n_features)).astype(np.float32)


def units_by_hand(network, row):
    """Outputs of all hidden units and of the network for one row, in float64, one number at a time."""
    values = [(float(x) - float(m)) / float(s) for x, m, s in zip(row, network.mean, network.scale, strict=True)]
    layers = []
    for weight, bias in zip(network.weights, network.biases, strict=True):
        sums = [
            float(bias[unit]) + sum(value * float(weight[i, unit]) for i, value in enumerate(values))
            for unit in range(weight.shape[1])
        ]
        layers.append(sums)
        values = [max(total, 0.0) for total in sums]
    return [[max(total, 0.0) for total in sums] for sums in layers[:-1]], layers[-1]


def outputs_of_built(network, rows, dropped_means):
    """What the small network must give: dropped units of each layer replaced by their mean, row by row."""
    outputs = []
    for row in rows:
        values = (row.astype(np.float64) - network.mean) / network.scale
        for layer, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
            values = values @ weight.astype(np.float64) + bias
            if layer < len(network.weights) - 1:
                values = np.maximum(values, 0.0)
                for unit, mean in dropped_means[layer].items():
                    values[unit] = mean
        outputs.append(values * network.target_scale + network.target_mean)
    return np.array(outputs)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), depth=st.integers(1, 3), measure=st.sampled_from(sorted(MEASURES)))
def test_with_all_units_kept_the_outputs_are_equal(seed, depth, measure):
    network, rows = random_network(seed, (6, 5, 4)[:depth]), random_rows(seed)
    built = construct(network, rows, 0.0, measure)
    assert [len(units) for units in built.kept] == list(network.widths[1:-1])
    np.testing.assert_array_equal(built.network.outputs(rows), network.outputs(rows))


def test_constant_units_are_folded_exactly():
    network, rows = random_network(13), random_rows(13)
    # constant whatever comes in: one unit at a level, one dead, and in the second layer one more at a level
    network.weights[0][:, [1, 4]] = 0.0
    network.biases[0][[1, 4]] = [0.7, -0.5]
    network.weights[1][:, 2] = 0.0
    network.biases[1][2] = 1.3
    built = construct(network, rows, 1e-6)
    np.testing.assert_array_equal(built.kept[0], [0, 2, 3, 5, 6])
    np.testing.assert_array_equal(built.kept[1], [0, 1, 3, 4])
    # also for rows that the variability was not measured on
    others = random_rows(99)
    np.testing.assert_allclose(built.network.outputs(others), network.outputs(others), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("measure", sorted(MEASURES))
def test_dropped_units_act_as_their_means_over_the_rows(measure):
    network, rows = random_network(5), random_rows(5)
    epsilon = 0.6
    built = construct(network, rows, epsilon, measure)
    dropped = [np.setdiff1d(np.arange(width), kept) for width, kept in zip((7, 5), built.kept, strict=True)]
    assert all(len(units) > 0 for units in dropped)
    assert all(len(units) > 0 for units in built.kept)
    first = np.array([units_by_hand(network, row)[0][0] for row in rows])
    means = [{unit: first[:, unit].mean() for unit in dropped[0]}, {}]
    # the second layer is measured behind the first as it has become
    changed = first.copy()
    for unit, mean in means[0].items():
        changed[:, unit] = mean
    second = np.maximum(changed @ network.weights[1].astype(np.float64) + network.biases[1], 0.0)
    means[1] = {unit: second[:, unit].mean() for unit in dropped[1]}
    expected = outputs_of_built(network, rows, means)
    np.testing.assert_allclose(built.network.outputs(rows), expected, rtol=1e-4, atol=1e-4)
    varying = variability(second, network.weights[2], measure)
    np.testing.assert_array_equal(built.kept[1], np.flatnonzero(varying >= epsilon))


def test_units_of_the_large_network_are_as_a_loop_computes_them():
    network, rows = random_network(8), random_rows(8, 5)
    expected = [units_by_hand(network, row)[1] for row in rows] * network.target_scale + network.target_mean
    np.testing.assert_allclose(network.outputs(rows), expected, rtol=1e-4, atol=1e-4)


def test_a_layer_is_never_emptied():
    network, rows = random_network(1), random_rows(1)
    built = construct(network, rows, 1e9)
    assert built.network.widths == (4, 1, 1, 3)
    assert n_parameters(built.network) == parameter_count(4, (1, 1), 3) == 5 + 2 + 6
    dead = random_network(2)
    dead.weights[0][:] = 0.0
    built = construct(dead, rows, 0.5)
    assert built.network.widths[1] == 1
    np.testing.assert_allclose(built.network.outputs(rows), dead.outputs(rows), rtol=2e-5, atol=2e-5)


def test_larger_thresholds_keep_fewer_units_of_the_first_layer():
    network, rows = random_network(4, (30, 5)), random_rows(4)
    kept = [set(construct(network, rows, epsilon).kept[0].tolist()) for epsilon in (0.0, 0.5, 1.0, 1.5, 2.0)]
    assert all(smaller <= larger for larger, smaller in itertools.pairwise(kept))
    assert len(kept[0]) == 30 > len(kept[-1])


def test_taken_units_keep_their_weights_and_nothing_is_folded():
    network = random_network(6)
    small = take_units(network, [[1, 3], [0, 2, 4]])
    np.testing.assert_array_equal(small.weights[1], network.weights[1][[1, 3]][:, [0, 2, 4]])
    np.testing.assert_array_equal(small.biases[0], network.biases[0][[1, 3]])
    np.testing.assert_array_equal(small.biases[2], network.biases[2])
    assert small.widths == (4, 2, 3, 3)


def test_measures_are_what_they_say():
    outputs = np.array([[0.0, 1.0, 5.0], [2.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    outgoing = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]])
    deviations = [np.sqrt(2 / 3), 0.0, np.sqrt(14 / 3)]
    np.testing.assert_allclose(variability(outputs, outgoing, "deviation"), deviations)
    np.testing.assert_allclose(
        variability(outputs, outgoing, "share_of_largest"), np.array(deviations) / np.sqrt(14 / 3)
    )
    np.testing.assert_allclose(
        variability(outputs, outgoing, "relative_deviation"), np.array(deviations) / np.mean(deviations)
    )
    moved = np.array(deviations) * [5.0, 1.0, 2.0]
    np.testing.assert_allclose(variability(outputs, outgoing), moved / moved.mean())
    with pytest.raises(InputError, match="did you mean 'deviation'"):
        variability(outputs, outgoing, "deviaton")
