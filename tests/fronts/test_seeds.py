"""Runs of several seeds side by side, against counting and against other libraries."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from plot_data import make_front, make_runs, regression_front
from sklearn.metrics import jaccard_score

from moevoprune.errors import InputError
from moevoprune.fronts.front import Front
from moevoprune.fronts.seeds import (
    MEASURES,
    Spread,
    attainment,
    compare_fronts,
    front_attainment,
    mask_agreement,
)


def made_up(seed, n_runs, n_members=9):
    """Sizes and qualities of runs, of which the last has no small member."""
    rng = np.random.default_rng(seed)
    active = [rng.integers(1 + 6 * (run == n_runs - 1), 20, n_members) for run in range(n_runs)]
    # few values, so that runs are equal at times
    return active, [rng.integers(0, 12, n_members) / 10 for _ in range(n_runs)]


def attained_by(active, values, sizes, level, maximise):
    """By counting: the best of all qualities that so many runs have at each size."""
    surface = []
    for size in sizes:
        best = math.nan
        for quality in sorted({value for column in values for value in column}, reverse=not maximise):
            runs = sum(
                any(a <= size and (v >= quality if maximise else v <= quality) for a, v in zip(*run, strict=True))
                for run in zip(active, values, strict=True)
            )
            if runs >= level:
                best = quality
        surface.append(best)
    return surface


@pytest.mark.parametrize("maximise", [True, False])
@pytest.mark.parametrize("n_runs", [1, 2, 3, 6])
def test_surfaces_are_what_counting_gives(n_runs, maximise):
    active, values = made_up(n_runs, n_runs)
    sizes, surfaces = attainment(active, values, maximise, np.array([25]))
    assert sizes.tolist() == sorted({25, *np.concatenate(active).tolist()})
    assert surfaces.shape == (n_runs, len(sizes))
    for level in range(1, n_runs + 1):
        expected = attained_by(active, values, sizes, level, maximise)
        np.testing.assert_array_equal(surfaces[level - 1], expected)


def test_what_is_not_finite_attains_nothing():
    sizes, surfaces = attainment([np.array([1, 2, 3])], [np.array([np.nan, 0.5, np.inf])])
    np.testing.assert_array_equal(sizes, [1, 2, 3])
    np.testing.assert_array_equal(surfaces, [[np.nan, 0.5, 0.5]])


def test_best_median_and_worst_of_fronts():
    fronts = make_runs()
    on_folds, on_test = front_attainment(fronts)
    assert (on_folds.part, on_test.part) == ("validation", "test")
    assert on_folds.n_runs == 3
    np.testing.assert_array_equal(on_folds.best, on_folds.surfaces[0])
    np.testing.assert_array_equal(on_folds.median, on_folds.surfaces[1])
    np.testing.assert_array_equal(on_folds.worst, on_folds.surfaces[2])
    assert on_folds.best[-1] == max(front.values[:, 0].max() for front in fronts)
    assert on_test.worst[-1] == min(front.test.max() for front in fronts)
    assert on_folds.sizes[-1] == 128
    assert (on_folds.dense, on_test.dense) == pytest.approx((0.9, 0.91))
    # half of four runs are two
    four = front_attainment([*fronts, fronts[0]])[0]
    np.testing.assert_array_equal(four.median, four.surfaces[1])


def test_errors_are_attained_downwards():
    on_folds, on_test = front_attainment([regression_front()])
    assert (on_folds.measure, on_folds.maximise) == ("mse", False)
    assert (on_test.measure, on_test.maximise) == ("r2", True)
    assert (np.diff(on_folds.best) <= 0).all()
    assert on_folds.best[-1] == regression_front().values[:, 0].min()


def area(errors, shares):
    """Area that points dominate up to (1, 1), rectangle by rectangle."""
    total, lowest = 0.0, 1.0
    for share, error in sorted(zip(shares, errors, strict=True)):
        if error < lowest and share < 1:
            total += (lowest - error) * (1 - share)
            lowest = error
    return total


def test_scores_of_runs():
    fronts = make_runs()
    comparison = compare_fronts(fronts)
    merged = Front.merge(fronts)
    np.testing.assert_array_equal(comparison.merged.masks, merged.masks)
    for front, run in zip([*fronts, merged], [*comparison.runs, comparison.merged_scores], strict=True):
        shares, knee = front.active / 128, front.knee()
        assert run.members == len(front)
        assert (run.knee_active, run.knee_validation) == (front.active[knee], front.values[knee, 0])
        assert run.knee_test == front.test[knee]
        assert run.validation_hypervolume == pytest.approx(area(1 - front.values[:, 0], shares))
        assert run.test_hypervolume == pytest.approx(area(1 - front.test, shares))
        assert run.test_hypervolume_log == pytest.approx(
            area(1 - front.test, np.log(front.active) / math.log(128))
        )
        assert run.hypervolume == pytest.approx(front.hypervolume())
    losses = [front.F for front in fronts]
    everything = np.concatenate(losses)
    for own, run in zip(losses, comparison.runs, strict=True):
        beaten = [any((other <= row).all() and (other < row).any() for other in everything) for row in own]
        assert run.in_merged == len(own) - sum(beaten)
    assert sum(run.in_merged for run in comparison.runs) == len(merged) == comparison.merged_scores.in_merged


def test_all_objectives_share_a_box():
    one, other = make_runs()[:2]
    wide = replace(other, corner=np.full(3, 2.0))
    comparison = compare_fronts([one, wide])
    expected = replace(one, corner=np.full(3, 2.0)).hypervolume()
    assert comparison.runs[0].hypervolume == pytest.approx(expected)


def test_spread_over_runs():
    comparison = compare_fronts(make_runs())
    for measure in MEASURES:
        values = [getattr(run, measure) for run in comparison.runs]
        spread = comparison.spread(measure)
        assert spread == Spread(np.mean(values), np.std(values, ddof=1), min(values), max(values))
    assert math.isnan(Spread.of([0.5]).deviation)


def test_validation_and_test_errors_of_different_kinds_are_not_compared():
    comparison = compare_fronts([regression_front(), regression_front()])
    assert comparison.quality == "mse"
    assert comparison.runs[0].validation_hypervolume is None
    assert comparison.spread("validation_hypervolume") is None
    assert comparison.spread("test_hypervolume") is not None


def test_members_without_a_test_score_do_not_count_on_the_test_rows():
    one, other = make_runs()[:2]
    partly = replace(one, test=np.where(np.arange(12) < 6, one.test, np.nan))
    shares = one.active / 128
    run = compare_fronts([partly, other]).runs[0]
    assert run.test_hypervolume == pytest.approx(area(1 - one.test[:6], shares[:6]))


def test_agreement_is_the_mean_over_pairs():
    rng = np.random.default_rng(0)
    fronts = [replace(front, masks=rng.random((12, 128)) < 0.3) for front in make_runs()]
    knees = [front.masks[front.knee()] for front in fronts]
    pairs = list(itertools.combinations(range(3), 2))
    agreement = mask_agreement(fronts)
    assert agreement.knees == pytest.approx(np.mean([jaccard_score(knees[i], knees[j]) for i, j in pairs]))
    # by chance: the same masks, shuffled
    shuffled = [jaccard_score(knees[i], rng.permutation(knees[j])) for i, j in pairs for _ in range(100)]
    assert agreement.knees_by_chance == pytest.approx(np.mean(shuffled), abs=0.01)
    assert abs(agreement.frequency) < 0.3


def test_agreement_of_the_same_run_is_whole():
    front = make_runs()[0]
    agreement = mask_agreement([front, front])
    assert agreement.knees == 1.0
    assert agreement.frequency == pytest.approx(1.0)
    constant = replace(front, masks=np.ones_like(front.masks))
    assert math.isnan(mask_agreement([front, constant]).frequency)
    nothing = replace(front, masks=np.zeros_like(front.masks))
    assert mask_agreement([nothing, nothing]).knees == 1.0


def test_what_cannot_be_compared():
    with pytest.raises(InputError, match="at least two"):
        compare_fronts(make_runs()[:1])
    with pytest.raises(InputError, match="front 1 has no members"):
        compare_fronts([make_front(3), make_front(0)])
    with pytest.raises(InputError, match="cannot be merged"):
        compare_fronts([make_front(3), make_front(3, n_obj=2)])
    with pytest.raises(InputError, match="at least one"):
        front_attainment([])
    with pytest.raises(InputError, match="at least two"):
        mask_agreement(make_runs()[:1])
