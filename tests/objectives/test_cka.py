"""Debiased linear CKA against two independent statements of Song et al.'s unbiased HSIC."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moevoprune.errors import InputError
from moevoprune.objectives import debiased_linear_cka
from moevoprune.objectives.cka import debiased_linear_cka_of_folds


def draw(n: int, p: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, p))


def cka(x: np.ndarray, y: np.ndarray) -> float:
    return debiased_linear_cka(torch.as_tensor(x), torch.as_tensor(y)).item()


def hsic_by_tuples(k: np.ndarray, m: np.ndarray) -> float:
    """The U-statistic: mean over ordered 4-tuples of distinct rows (Song et al. 2012)."""
    total, count = 0.0, 0
    for i, j, q, r in itertools.permutations(range(len(k)), 4):
        total += k[i, j] * (m[i, j] + m[q, r] - 2.0 * m[i, q])
        count += 1
    return total / count


def hsic_closed_form(k: np.ndarray, m: np.ndarray) -> float:
    """Equation 5 in plain loops, no centring."""
    n = len(k)
    trace = sum(k[i, j] * m[i, j] for i in range(n) for j in range(n) if i != j)
    row_k = [sum(k[i, j] for j in range(n) if j != i) for i in range(n)]
    row_m = [sum(m[i, j] for j in range(n) if j != i) for i in range(n)]
    cross = sum(a * b for a, b in zip(row_k, row_m, strict=True))
    bracket = trace + sum(row_k) * sum(row_m) / ((n - 1) * (n - 2)) - 2.0 * cross / (n - 2)
    return float(bracket / (n * (n - 3)))


def oracle(hsic, x: np.ndarray, y: np.ndarray) -> float:
    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))


def biased_cka(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(0), y - y.mean(0)
    cross = np.linalg.norm(y.T @ x) ** 2
    return float(cross / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)))


@pytest.mark.parametrize("seed", range(3))
def test_matches_the_u_statistic_over_all_tuples(seed: int) -> None:
    x = draw(8, 3, seed) + 2.0
    y = 0.5 * x[:, :2] + draw(8, 2, seed + 100)
    assert cka(x, y) == pytest.approx(oracle(hsic_by_tuples, x, y), abs=1e-12)


@pytest.mark.parametrize(("n", "p", "q"), [(4, 3, 2), (5, 1, 1), (40, 7, 5), (40, 100, 3)])
def test_matches_equation_five(n: int, p: int, q: int) -> None:
    x, y = draw(n, p, 1), draw(n, q, 2)
    y[:, 0] += 2.0 * x[:, 0]
    assert cka(x, y) == pytest.approx(oracle(hsic_closed_form, x, y), abs=1e-12)


def test_the_estimator_ignores_row_and_column_constants() -> None:
    k, m = (z @ z.T for z in (draw(8, 3, 1), draw(8, 2, 2)))
    shift = draw(8, 1, 3)
    assert hsic_by_tuples(k + shift + shift.T + 5.0, m) == pytest.approx(hsic_by_tuples(k, m), abs=1e-12)
    assert hsic_closed_form(k + shift + shift.T + 5.0, m) == pytest.approx(hsic_closed_form(k, m), abs=1e-12)


def test_is_near_zero_for_unrelated_wide_representations() -> None:
    values = [cka(draw(100, 512, 2 * s), draw(100, 512, 2 * s + 1)) for s in range(20)]
    biased = [biased_cka(draw(100, 512, 2 * s), draw(100, 512, 2 * s + 1)) for s in range(20)]
    assert abs(np.mean(values)) < 0.01
    assert min(values) < 0 < max(values)
    assert min(biased) > 0.7


def test_a_negative_value_is_not_clipped() -> None:
    # Two disjoint pairings of four rows: U-centred, each is a third of the way against the other.
    x = np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    y = np.array([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    assert cka(x, y) == pytest.approx(oracle(hsic_by_tuples, x, y), abs=1e-12)
    assert cka(x, y) < -0.4


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(4, 30),
    p=st.integers(1, 20),
    scale=st.floats(1e-3, 1e3),
    shift=st.floats(-100, 100),
)
def test_rotation_scale_shift_and_order_change_nothing(
    seed: int, n: int, p: int, scale: float, shift: float
) -> None:
    x, y = draw(n, p, seed), draw(n, 3, seed + 1)
    rotation = np.linalg.qr(draw(p, p, seed + 2))[0]
    order = np.random.default_rng(seed).permutation(n)
    value = cka(x, y)
    assert -1.0 - 1e-12 <= value <= 1.0
    assert cka(scale * (x @ rotation) + shift, y) == pytest.approx(value, abs=1e-8)
    assert cka(x[order], y[order]) == pytest.approx(value, abs=1e-8)
    assert cka(y, x) == pytest.approx(value, abs=1e-12)
    assert cka(x, x @ rotation) == pytest.approx(1.0, abs=1e-9)
    assert cka(x, x) <= 1.0


@pytest.mark.parametrize("scale", [1e-300, 1e-80, 1e80, 1e300, 5e307])
def test_extreme_scales_neither_overflow_nor_vanish(scale: float) -> None:
    x, y = draw(20, 5, 1), draw(20, 4, 2)
    assert cka(scale * x, y) == pytest.approx(cka(x, y), abs=1e-9)


def test_a_large_shift_in_float32_leaves_what_float32_kept() -> None:
    x = (draw(50, 8, 1) + 1000.0).astype(np.float32)
    y = draw(50, 8, 2)
    assert cka(x, y) == pytest.approx(cka(x.astype(np.float64) - 1000.0, y), abs=1e-9)


@pytest.mark.parametrize(
    "dead",
    [
        np.zeros((10, 4)),
        np.full((10, 4), 0.1),
        np.tile(draw(1, 4, 0), (10, 1)),
        np.full((10, 4), 1e300),
        (1.0 + 3e-7 * draw(10, 4, 0).clip(-1, 1)).astype(np.float32),
        np.zeros((10, 0)),
        np.ones((10, 4), dtype=np.int64),
    ],
    ids=["zero", "constant", "equal rows", "huge", "float32 rounding", "no width", "integer"],
)
def test_a_dead_representation_has_none(dead: np.ndarray) -> None:
    y = draw(10, 3, 1)
    assert cka(dead, y) == cka(y, dead) == cka(dead, dead) == 0.0


@pytest.mark.parametrize("n", [4, 30, 300])
@pytest.mark.parametrize("seed", range(5))
def test_one_row_apart_from_equal_others_is_dead(n: int, seed: int) -> None:
    x = np.zeros((n, 64))
    x[seed % n] = draw(1, 64, seed)
    assert cka(x, x) == 0.0
    shifted = x + draw(1, 64, seed + 10)
    assert cka(shifted, shifted) == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_not_finite_is_zero_and_only_there(bad: float) -> None:
    x, y = torch.as_tensor(draw(30, 4, 1)).reshape(3, 10, 4).clone(), torch.as_tensor(draw(10, 2, 2))
    clean = debiased_linear_cka(x, y)
    x[1, 3, 2] = bad
    value = debiased_linear_cka(x, y)
    assert value[1] == 0.0
    assert torch.equal(value[[0, 2]], clean[[0, 2]])
    assert debiased_linear_cka(y, x)[1] == 0.0


def test_batched_is_looped() -> None:
    x = torch.as_tensor(draw(2 * 3 * 12, 5, 1)).reshape(2, 3, 12, 5)
    y = torch.as_tensor(draw(3 * 12, 7, 2)).reshape(3, 12, 7)
    value = debiased_linear_cka(x, y)
    assert value.shape == (2, 3)
    assert value.dtype == torch.float64
    for i, j in itertools.product(range(2), range(3)):
        assert value[i, j].item() == pytest.approx(debiased_linear_cka(x[i, j], y[j]).item(), abs=1e-12)


def test_float32_agrees_with_float64() -> None:
    x, y = torch.as_tensor(draw(90, 64, 1)), torch.as_tensor(draw(90, 64, 2))
    y = y + 0.3 * x
    value = debiased_linear_cka(x.float(), y.float())
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(debiased_linear_cka(x, y).item(), abs=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ((3, 2), (3, 2), "3 rows"),
        ((5, 2), (6, 2), "5 rows and y has 6"),
        ((5,), (5, 2), "x has shape"),
        ((5, 2), (5,), "y has shape"),
        ((2, 5, 2), (3, 5, 2), "do not broadcast"),
    ],
)
def test_bad_shapes_are_refused(x: tuple[int, ...], y: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        debiased_linear_cka(torch.zeros(x), torch.zeros(y))


def test_folds_of_different_sizes_at_once_are_each_as_alone() -> None:
    generator = torch.Generator().manual_seed(8)

    def representation(n_rows: int, width: int) -> torch.Tensor:
        return torch.randn(n_rows, width, generator=generator).relu() + 3.0

    far = representation(9, 6)
    far[0] += 1e9
    constant = torch.full((9, 6), 0.1)
    pairs = [(representation(n, 6), representation(n, 5)) for n in (9, 12, 11, 12)]
    pairs += [(far, representation(9, 5)), (constant, representation(9, 5)), (far * float("nan"), far[:, :5])]
    for chosen in (pairs, pairs[:1], [pairs[1], pairs[3]]):
        alone = torch.stack([debiased_linear_cka(x, y) for x, y in chosen])
        torch.testing.assert_close(debiased_linear_cka_of_folds(chosen), alone, rtol=0, atol=1e-9)
    assert debiased_linear_cka_of_folds(pairs)[5:].tolist() == [0.0, 0.0]
