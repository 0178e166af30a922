"""Kernel CKA, biased and debiased, against HSIC in float64 loops over pairs and tuples of rows."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from moevoprune.errors import InputError
from moevoprune.objectives import biased_linear_cka, biased_rbf_cka, debiased_linear_cka, debiased_rbf_cka

ALL = [biased_linear_cka, biased_rbf_cka, debiased_linear_cka, debiased_rbf_cka]
RBF = [biased_rbf_cka, debiased_rbf_cka]


def draw(n: int, p: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, p))


def value(measure, x: np.ndarray, y: np.ndarray, **options: float) -> float:
    return measure(torch.as_tensor(x), torch.as_tensor(y), **options).item()


def rbf_kernel(x: np.ndarray, bandwidth: float) -> np.ndarray:
    n = len(x)
    squares = [[sum((a - b) ** 2 for a, b in zip(x[i], x[j], strict=True)) for j in range(n)] for i in range(n)]
    between = sorted(math.sqrt(squares[i][j]) for i in range(n) for j in range(i) if squares[i][j] > 0)
    width = bandwidth * between[(len(between) - 1) // 2]
    return np.array([[math.exp(-s / (2 * width**2)) for s in row] for row in squares])


def biased_hsic(k: np.ndarray, m: np.ndarray) -> float:
    """The V-statistic as Gretton et al. (2005) state it: three double sums over rows."""
    n = len(k)
    pairs = list(itertools.product(range(n), repeat=2))
    product = sum(k[i, j] * m[i, j] for i, j in pairs) / n**2
    rows = sum(k[i].sum() * m[i].sum() for i in range(n)) / n**3
    return product + sum(k[i, j] for i, j in pairs) * sum(m[i, j] for i, j in pairs) / n**4 - 2 * rows


def unbiased_hsic(k: np.ndarray, m: np.ndarray) -> float:
    """The U-statistic: mean over ordered 4-tuples of distinct rows (Song et al. 2012)."""
    tuples = list(itertools.permutations(range(len(k)), 4))
    return sum(k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in tuples) / len(tuples)


def oracle(hsic, k: np.ndarray, m: np.ndarray) -> float:
    return hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))


@pytest.mark.parametrize("bandwidth", [0.4, 0.8, 3.0])
@pytest.mark.parametrize(("measure", "hsic"), [(biased_rbf_cka, biased_hsic), (debiased_rbf_cka, unbiased_hsic)])
def test_rbf_matches_the_loops(measure, hsic, bandwidth: float) -> None:
    for seed in range(2):
        x = draw(7 + seed, 3, seed) + 2.0
        y = 0.5 * x[:, :2] + draw(7 + seed, 2, seed + 100)
        expected = oracle(hsic, rbf_kernel(x, bandwidth), rbf_kernel(y, bandwidth))
        assert value(measure, x, y, bandwidth=bandwidth) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(("n", "p", "q"), [(9, 3, 2), (6, 20, 11)])
def test_biased_linear_matches_the_loop(n: int, p: int, q: int) -> None:
    x, y = draw(n, p, 1) + 1.0, draw(n, q, 2)
    y[:, 0] += x[:, 0]
    assert value(biased_linear_cka, x, y) == pytest.approx(oracle(biased_hsic, x @ x.T, y @ y.T), abs=1e-12)


def test_equal_rows_do_not_set_the_bandwidth() -> None:
    x = np.concatenate([np.full((6, 4), 0.1), draw(3, 4, 1)])
    y = draw(9, 3, 2)
    for measure, hsic in ((biased_rbf_cka, biased_hsic), (debiased_rbf_cka, unbiased_hsic)):
        expected = oracle(hsic, rbf_kernel(x, 0.8), rbf_kernel(y, 0.8))
        assert value(measure, x, y) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("measure", ALL)
@pytest.mark.parametrize("scale", [1e-200, 1e-3, 7.0, 1e200])
def test_rotation_scale_shift_and_order_change_nothing(measure, scale: float) -> None:
    x, y = draw(20, 6, 1), draw(20, 4, 2)
    y[:, 0] += x[:, 0]
    rotation = np.linalg.qr(draw(6, 6, 3))[0]
    order = np.random.default_rng(4).permutation(20)
    expected = value(measure, x, y)
    assert 0.0 < expected < 1.0
    assert value(measure, scale * (x @ rotation + 3.0), y) == pytest.approx(expected, abs=1e-9)
    assert value(measure, x[order], y[order]) == pytest.approx(expected, abs=1e-12)
    assert value(measure, y, x) == pytest.approx(expected, abs=1e-12)
    assert value(measure, x, scale * (x @ rotation)) == pytest.approx(1.0, abs=1e-9)
    assert value(measure, x, x) <= 1.0


def test_only_the_debiased_are_near_zero_for_unrelated_wide_representations() -> None:
    pairs = [(draw(60, 256, 2 * s), draw(60, 256, 2 * s + 1)) for s in range(10)]
    for measure in (debiased_linear_cka, debiased_rbf_cka):
        values = [value(measure, x, y) for x, y in pairs]
        assert abs(np.mean(values)) < 0.01
        assert min(values) < 0 < max(values)
    for measure in (biased_linear_cka, biased_rbf_cka):
        assert min(value(measure, x, y) for x, y in pairs) > 0.7


def test_a_wide_kernel_is_nearly_linear() -> None:
    x, y = draw(40, 5, 1), draw(40, 3, 2)
    y[:, 0] += 2.0 * x[:, 0]
    for rbf, linear in ((biased_rbf_cka, biased_linear_cka), (debiased_rbf_cka, debiased_linear_cka)):
        assert value(rbf, x, y, bandwidth=1e6) == pytest.approx(value(linear, x, y), abs=1e-4)
        assert abs(value(rbf, x, y, bandwidth=0.3) - value(linear, x, y)) > 0.01


def test_weights_whose_units_are_in_another_order_are_the_same() -> None:
    weights, other = draw(30, 12, 1), draw(30, 8, 2)
    shuffled = weights[:, np.random.default_rng(3).permutation(12)]
    assert value(biased_rbf_cka, weights, shuffled) == pytest.approx(1.0, abs=1e-12)
    assert value(biased_rbf_cka, weights, other) < 0.9


@pytest.mark.parametrize("measure", ALL)
@pytest.mark.parametrize(
    "dead",
    [
        np.zeros((10, 4)),
        np.full((10, 4), 0.1),
        np.tile(draw(1, 4, 0), (10, 1)),
        (1.0 + 3e-7 * draw(10, 4, 0).clip(-1, 1)).astype(np.float32),
        np.zeros((10, 0)),
        np.ones((10, 4), dtype=np.int64),
        np.where(np.arange(40).reshape(10, 4) == 7, math.nan, draw(10, 4, 3)),
        np.where(np.arange(40).reshape(10, 4) == 7, math.inf, draw(10, 4, 3)),
    ],
    ids=["zero", "constant", "equal rows", "float32 rounding", "no width", "integer", "nan", "infinite"],
)
def test_a_dead_representation_has_none(measure, dead: np.ndarray) -> None:
    y = draw(10, 3, 1)
    assert value(measure, dead, y) == value(measure, y, dead) == value(measure, dead, dead) == 0.0


@pytest.mark.parametrize("n", [4, 30])
def test_one_row_apart_from_equal_others_is_dead_where_debiased(n: int) -> None:
    x = np.zeros((n, 8))
    x[1] = draw(1, 8, 1)
    assert value(debiased_rbf_cka, x, x) == 0.0
    assert value(biased_rbf_cka, x, x) == pytest.approx(1.0)


def test_a_kernel_that_sees_no_two_rows_as_alike_has_no_value() -> None:
    assert value(debiased_rbf_cka, draw(10, 30, 1), draw(10, 30, 2), bandwidth=0.01) == 0.0


@pytest.mark.parametrize("measure", ALL)
def test_batched_is_looped_and_a_bad_one_spoils_no_other(measure) -> None:
    x = torch.as_tensor(draw(2 * 3 * 12, 5, 1)).reshape(2, 3, 12, 5).clone()
    y = torch.as_tensor(draw(3 * 12, 7, 2)).reshape(3, 12, 7)
    x[1, 2, 0, 0] = math.nan
    found = measure(x, y)
    assert (found.shape, found.dtype) == ((2, 3), torch.float64)
    for i, j in itertools.product(range(2), range(3)):
        assert found[i, j].item() == pytest.approx(measure(x[i, j], y[j]).item(), abs=1e-12)
    assert found[1, 2] == 0.0


def test_float32_agrees_with_float64() -> None:
    x, y = torch.as_tensor(draw(50, 64, 1)), torch.as_tensor(draw(50, 64, 2))
    y = y + 0.3 * x
    for measure in ALL:
        assert measure(x.float(), y.float()).item() == pytest.approx(measure(x, y).item(), abs=1e-6)


@pytest.mark.parametrize(
    ("measure", "x", "y", "message"),
    [
        (debiased_rbf_cka, (3, 2), (3, 2), "3 rows"),
        (biased_rbf_cka, (1, 2), (1, 2), "1 rows"),
        (biased_linear_cka, (1, 2), (1, 2), "1 rows"),
        (debiased_rbf_cka, (5, 2), (6, 2), "5 rows and y has 6"),
        (biased_linear_cka, (5,), (5, 2), "x has shape"),
        (biased_rbf_cka, (2, 5, 2), (3, 5, 2), "do not broadcast"),
    ],
)
def test_bad_shapes_are_refused(measure, x: tuple[int, ...], y: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        measure(torch.zeros(x), torch.zeros(y))


@pytest.mark.parametrize("measure", RBF)
@pytest.mark.parametrize("bandwidth", [0.0, -1.0, math.nan, math.inf])
def test_a_bandwidth_must_be_positive(measure, bandwidth: float) -> None:
    with pytest.raises(InputError, match="bandwidth"):
        measure(torch.zeros(5, 2), torch.zeros(5, 2), bandwidth=bandwidth)
