"""Intervals and tests against scipy, the definitions in plain loops, and hand-worked tables."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from moevoprune.errors import InputError
from moevoprune.fronts.statistics import (
    Interval,
    bootstrap_interval,
    holm,
    interval,
    jackknife_interval,
    no_worse,
    p_text,
    paired_test,
    t_test,
)
from moevoprune.objectives import debiased_linear_cka

A = [0.91, 0.93, 0.90, 0.95, 0.92, 0.94]
B = [0.90, 0.93, 0.87, 0.93, 0.93, 0.91]


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_the_interval_is_students(confidence: float) -> None:
    found = interval(A, confidence)
    low, high = stats.t.interval(confidence, len(A) - 1, loc=np.mean(A), scale=stats.sem(A))
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(A), low, high), abs=1e-15)
    assert (found.n, found.confidence) == (6, confidence)


def test_an_interval_holds_the_mean_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        found = interval(generator.normal(3.0, 2.0, size=5))
        hits += found.low <= 3.0 <= found.high
    # 380 expected, standard deviation 4.4
    assert 360 <= hits <= 397


def test_one_value_has_no_limits() -> None:
    found = interval([0.5])
    assert (found.mean, found.n) == (0.5, 1)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert str(found) == ".500"


@pytest.mark.parametrize(
    ("shown", "digits", "sign", "text"),
    [
        (Interval(0.9131, 0.9049, 0.9212, 5), 3, False, ".913 [.905, .921]"),
        (Interval(0.0123, -0.00001, 0.0251, 5), 3, True, "+.012 [+.000, +.025]"),
        (Interval(-0.25, -1.5, 1.0, 5), 2, False, "-.25 [-1.50, 1.00]"),
        (Interval(math.nan, math.nan, math.nan, 5), 3, False, "n/a"),
        (Interval(12.34, math.nan, math.nan, 1), 1, False, "12.3"),
    ],
)
def test_intervals_are_written_unmistakably(shown: Interval, digits: int, sign: bool, text: str) -> None:
    assert shown.text(digits, sign) == text


def signed_rank_by_all_signs(differences: list[float]) -> float:
    """Two-sided p-value: every assignment of signs to the ranks, one by one."""
    kept = [d for d in differences if d != 0]
    ranks = stats.rankdata(np.abs(kept))
    seen = sum(rank for rank, d in zip(ranks, kept, strict=True) if d > 0)
    sums = [float(np.dot(ranks, signs)) for signs in itertools.product((0, 1), repeat=len(ranks))]
    low, high = sum(s <= seen for s in sums), sum(s >= seen for s in sums)
    return min(1.0, 2.0 * min(low, high) / len(sums))


def test_paired_tests_agree_with_scipy() -> None:
    generator = np.random.default_rng(2)
    a, b = generator.normal(0.4, 1.0, size=9), generator.normal(size=9)
    found = paired_test(a, b)
    assert found.p_value == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-12)
    assert found.wilcoxon_p_value == pytest.approx(stats.wilcoxon(a, b).pvalue, rel=1e-12)
    assert found.difference == interval(a - b)
    assert paired_test(b, a).p_value == pytest.approx(found.p_value)
    assert found.text() == f"{found.difference.text(sign=True)}, {p_text(found.p_value)}"


def test_the_signed_rank_test_of_many_pairs_agrees_with_scipy() -> None:
    differences = np.random.default_rng(3).normal(0.3, 1.0, size=45)
    found = paired_test(differences, np.zeros(45))
    expected = stats.wilcoxon(differences, method="exact").pvalue
    assert found.wilcoxon_p_value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "differences",
    [
        [1, 2, 3, 4, 5],
        [1, 1, 2, -2, 3],
        [0, 0, 1, 1, -1],
        [0, 1, 2, -3, 3, 3, 3],
        [1, 2, -1, -2, 3, -1, 1],
        [-1],
        [0, 2],
    ],
)
def test_the_signed_rank_test_is_exact_with_ties_and_noughts(differences: list[float]) -> None:
    base = np.linspace(0.11, 0.83, len(differences))
    # differences of accuracies that are equal but for rounding are ties
    found = paired_test(base + np.array(differences) / 149, base)
    assert found.wilcoxon_p_value == pytest.approx(signed_rank_by_all_signs(differences), abs=1e-12)


def test_five_pairs_cannot_reject_by_signed_ranks() -> None:
    found = paired_test([1.0, 2.0, 3.0, 4.0, 5.1], [0.0] * 5)
    assert found.wilcoxon_p_value == 0.0625
    assert found.p_value is not None
    assert found.p_value < 0.05


def test_without_spread_there_is_no_t_test() -> None:
    assert paired_test(A, A).p_value == 1.0
    assert paired_test(A, A).wilcoxon_p_value == 1.0
    assert paired_test([0.9, 0.8, 0.7], [0.8, 0.7, 0.6]).p_value is None
    assert paired_test([0.9], [0.8]).p_value is None
    assert paired_test([0.9], [0.9]).p_value == 1.0
    assert t_test([]) is None
    assert t_test([0.1]) is None
    assert t_test([0.0, 0.0]) is None
    assert (p_text(None), p_text(0.0132), p_text(1.0)) == ("p n/a", "p = .013", "p = 1")


def test_holm_of_a_table_worked_by_hand() -> None:
    # .005 * 4, .01 * 3, .03 * 2, .04 * 1 raised to the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, None, 0.04, None]) == [0.02, None, 0.04, None]
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([None]) == [None]
    assert holm([]) == []


def test_holm_rejects_what_the_procedure_rejects() -> None:
    generator = np.random.default_rng(4)
    for _ in range(100):
        p_values = (generator.random(7) ** 3).round(2).tolist()
        adjusted = holm(p_values)
        for alpha in (0.0123, 0.0501, 0.1777):
            # Holm (1979): go up while p_(k) <= alpha / (m - k + 1), and stop at the first that is not
            rejected = set()
            for k, place in enumerate(np.argsort(p_values, kind="stable").tolist()):
                if p_values[place] > alpha / (7 - k):
                    break
                rejected.add(place)
            assert {i for i, p in enumerate(adjusted) if p is not None and p <= alpha} == rejected


def test_no_worse_is_a_shifted_one_sided_test() -> None:
    found = no_worse(A, B, margin=0.01, confidence=0.9)
    shifted = np.array(A) + 0.01
    assert found.p_value == pytest.approx(stats.ttest_rel(shifted, B, alternative="greater").pvalue, rel=1e-9)
    differences = np.array(A) - B
    bound = differences.mean() - stats.t.ppf(0.9, 5) * stats.sem(differences)
    assert found.lower == pytest.approx(bound, abs=1e-12)
    assert found.difference.low < found.lower < found.difference.mean
    assert found.shown


@pytest.mark.parametrize("margin", [0.0, 0.005, 0.02, 0.05])
@pytest.mark.parametrize("seed", range(5))
def test_limit_and_p_value_of_no_worse_say_the_same(margin: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    found = no_worse(generator.normal(0.9, 0.02, 6), generator.normal(0.9, 0.02, 6), margin)
    assert found.p_value is not None
    assert found.shown == (found.p_value < 0.05)


def test_no_worse_without_spread_or_with_one_pair() -> None:
    same = no_worse(A, A, 0.01)
    assert (same.lower, same.p_value, same.shown) == (0.0, None, True)
    assert not no_worse(A, A, 0.0).shown
    one = no_worse([0.9], [0.8], 0.01)
    assert math.isnan(one.lower)
    assert one.p_value is None
    assert not one.shown
    assert str(one) == "+.100, at least n/a (margin .010), p n/a"


def test_the_bootstrap_of_a_mean_is_near_the_normal_interval() -> None:
    values = np.random.default_rng(5).random(200) < 0.8
    found = bootstrap_interval(lambda rows: float(values[rows].mean()), 200, np.random.default_rng(6), 2000)
    error = math.sqrt(values.mean() * (1 - values.mean()) / 200)
    assert found.mean == values.mean()
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.012)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.012)
    assert found.n == 200


def test_the_bootstrap_is_that_of_its_generator() -> None:
    values = np.random.default_rng(5).normal(size=30)

    def once(seed: int) -> Interval:
        return bootstrap_interval(lambda rows: float(values[rows].mean()), 30, np.random.default_rng(seed), 50)

    assert once(1) == once(1)
    assert once(1) != once(2)


def test_resamples_without_a_value_are_left_out_unless_there_are_many() -> None:
    values = np.arange(10.0)

    def unless(rows: np.ndarray, share: float) -> float:
        return math.nan if (rows == 0).sum() > share else float(values[rows].mean())

    def found(limit: int) -> Interval:
        return bootstrap_interval(lambda rows: unless(rows, limit), 10, np.random.default_rng(1), 200)

    assert found(2).low < 4.5 < found(2).high
    # row 0 is missing in about a third of the resamples, but the whole has it: no value at all
    assert str(found(0)) == "n/a"
    never_twice = bootstrap_interval(
        lambda rows: 1.0 if len(set(rows.tolist())) == 10 else math.nan, 10, np.random.default_rng(1), 50
    )
    assert str(never_twice) == "1.000"


def test_the_jackknife_of_a_mean_over_single_rows_is_students_interval() -> None:
    values = np.random.default_rng(7).normal(size=24)
    found = jackknife_interval(lambda rows: float(values[rows].mean()), 24, np.random.default_rng(1), groups=24)
    expected = interval(values)
    assert (found.mean, found.low, found.high) == pytest.approx(
        (expected.mean, expected.low, expected.high), abs=1e-12
    )
    assert jackknife_interval(lambda rows: math.nan, 24, np.random.default_rng(1)).text() == "n/a"
    assert jackknife_interval(lambda rows: float(len(rows)), 3, np.random.default_rng(1)).n == 3


def test_the_jackknife_holds_debiased_cka_where_the_bootstrap_does_not() -> None:
    generator = np.random.default_rng(8)
    hits = {"jackknife": 0, "bootstrap": 0}
    for _ in range(20):
        x, y = (torch.as_tensor(generator.normal(size=(80, 60))) for _ in range(2))

        def cka(rows: np.ndarray, x: torch.Tensor = x, y: torch.Tensor = y) -> float:
            return debiased_linear_cka(x[rows], y[rows]).item()

        found = jackknife_interval(cka, 80, generator)
        hits["jackknife"] += found.low <= 0.0 <= found.high
        found = bootstrap_interval(cka, 80, generator, resamples=40)
        hits["bootstrap"] += found.low <= 0.0 <= found.high
    assert hits["jackknife"] >= 17
    # repeated rows are alike in both representations
    assert hits["bootstrap"] <= 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: interval([]), "at least one number"),
        (lambda: interval([0.1, math.nan]), r"number 1 \(counted from 0\) is nan"),
        (lambda: interval(A, 1.0), "confidence = 1.0"),
        (lambda: paired_test(A, B[:-1]), "6 and 5 values do not make pairs"),
        (lambda: paired_test([math.inf], [0.0]), "the first values: number 0"),
        (lambda: no_worse(A, B, -0.1), "margin = -0.1"),
        (lambda: no_worse(A, B, math.nan), "margin = nan"),
        (lambda: holm([0.1, 1.2]), r"p-value 1 \(counted from 0\) is 1.2"),
        (lambda: holm([math.nan]), "is nan"),
        (lambda: bootstrap_interval(len, 0, np.random.default_rng(1)), "n_rows = 0"),
        (lambda: bootstrap_interval(len, 5, np.random.default_rng(1), 3), "resamples = 3"),
        (lambda: jackknife_interval(len, 1, np.random.default_rng(1)), "n_rows = 1"),
        (lambda: jackknife_interval(len, 9, np.random.default_rng(1), 1), "groups = 1"),
    ],
)
def test_bad_input_is_one_clear_line(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
