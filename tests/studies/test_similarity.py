"""How alike heads are: held to functions of NumPy's own, and to what must not change it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moevoprune import InputError, PruningProblem
from moevoprune.studies.similarity import compare_heads, first_layer_weights


@pytest.fixture(scope="module")
def heads(small_features, quick_head):
    problem = PruningProblem(small_features, head=quick_head, cv=3, seed=1)
    masks = np.ones((3, 14), dtype=bool)
    masks[1, 5:] = masks[2, ::2] = False
    return list(problem.fitness.train_final(masks))


def generator():
    return np.random.default_rng(3)


def hidden(head, rows):
    """First hidden layer in float64, weight by weight."""
    prepared = (rows[:, head.inputs].astype(np.float64) - head.mean) / head.scale
    return np.maximum(prepared @ head.weights[0] + head.biases[0], 0)


def debiased_linear(x, y):
    """Song et al.'s estimator by its definition, with loops' worth of matrices."""

    def hsic(k, other):
        n = len(k)
        k, other = k - np.diag(np.diag(k)), other - np.diag(np.diag(other))
        middle = k.sum() * other.sum() / ((n - 1) * (n - 2))
        return (np.trace(k @ other) + middle - 2 / (n - 2) * (k @ other).sum()) / (n * (n - 3))

    k, other = x @ x.T, y @ y.T
    return hsic(k, other) / np.sqrt(hsic(k, k) * hsic(other, other))


def biased_rbf(x, y):
    def centred(x):
        distances = np.linalg.norm(x[:, None] - x[None], axis=-1)
        differ = np.sort(distances[distances > 0])
        kernel = np.exp(-(distances**2) / (2 * (0.8 * differ[(len(differ) - 1) // 2]) ** 2))
        middle = np.eye(len(x)) - 1 / len(x)
        return middle @ kernel @ middle

    k, other = centred(x), centred(y)
    return (k * other).sum() / np.linalg.norm(k) / np.linalg.norm(other)


def test_it_is_cka_of_what_heads_make_of_the_rows_and_of_their_weights(heads, small_features):
    rows = small_features.X_test
    one, other = heads[1:]
    found = compare_heads(one, other, rows, generator(), groups=5)
    assert found.linear.mean == pytest.approx(debiased_linear(hidden(one, rows), hidden(other, rows)), abs=1e-5)
    weights = [np.zeros((14, 8)) for _ in range(2)]
    weights[0][:5], weights[1][1::2] = one.weights[0], other.weights[0]
    assert found.weights == pytest.approx(biased_rbf(*weights), abs=1e-5)
    np.testing.assert_array_equal(first_layer_weights(other), weights[1].astype(np.float32))
    for interval in (found.linear, found.rbf):
        assert interval.low < interval.mean < interval.high
        assert interval.n == 45


def test_the_order_and_the_scale_of_units_do_not_matter(heads, small_features):
    one = heads[0]
    turned = replace(
        one, weights=(2 * one.weights[0][:, ::-1], one.weights[1]), biases=(2 * one.biases[0][::-1], None)
    )
    found = compare_heads(one, turned, small_features.X_test, generator())
    assert [found.linear.mean, found.rbf.mean, found.weights] == pytest.approx([1, 1, 1], abs=1e-6)
    apart = compare_heads(one, heads[1], small_features.X_test, generator())
    assert max(apart.linear.mean, apart.rbf.mean, apart.weights) < 0.99


def test_heads_of_other_features_and_too_few_rows_are_refused(heads, small_features):
    with pytest.raises(InputError, match="14 and of 15 features"):
        compare_heads(heads[0], replace(heads[1], n_features=15), small_features.X_test, generator())
    with pytest.raises(InputError, match="rows"):
        compare_heads(heads[0], heads[1], small_features.X_test[:4], generator())
