"""Methods beside one another: what they cost, how they are scored, summed up and drawn."""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import ttest_rel

from moevoprune import InputError, PruningProblem, evolve
from moevoprune.baselines import BASELINES, default_sizes, make_baseline
from moevoprune.fronts.comparison import (
    COLUMNS,
    DEFAULT_METHODS,
    METHODS,
    QUALITY,
    MethodResult,
    check_methods,
    curve,
    picked,
    run_method,
    score,
    standing,
    validation_hypervolume,
)
from moevoprune.fronts.comparison_tables import (
    comparison_table,
    members_csv,
    scores_csv,
    summarise,
)
from moevoprune.fronts.plots import plot_comparison, save_comparison


@pytest.fixture
def problem(small_features, quick_head):
    return PruningProblem(small_features, head=quick_head, cv=3, seed=1)


def result_of(active, test, validation=None, method="anova", seed=1, data="d", n_bits=100, seconds=1.5):
    test = np.array(test, dtype=np.float64)
    validation = test if validation is None else np.array(validation, dtype=np.float64)
    return MethodResult(data, method, seed, n_bits, np.array(active), validation, test, 7, seconds)


def random_result(number, **changes):
    generator = np.random.default_rng(number)
    n = int(generator.integers(1, 30))
    active = generator.integers(0, 101, n)
    return result_of(active, generator.random(n), generator.random(n), **changes)


def staircase(error, share):
    """Area that points dominate up to (1, 1), strip by strip from left to right."""
    area, lowest = 0.0, 1.0
    corners = [*sorted(zip(share, error, strict=True)), (1.0, 0.0)]
    for (left, height), (right, _) in itertools.pairwise(corners):
        lowest = min(lowest, height)
        area += (right - left) * (1.0 - lowest)
    return area


@pytest.mark.parametrize("number", range(20))
def test_hypervolumes_are_the_area_under_the_staircase(number):
    result = random_result(number)
    linear = result.active / 100
    log = np.log(np.maximum(result.active, 1)) / np.log(100)
    row = score(result)
    assert row["test_hypervolume"] == pytest.approx(staircase(1 - result.test, linear), abs=1e-12)
    assert row["test_hypervolume_log"] == pytest.approx(staircase(1 - result.test, log), abs=1e-12)
    assert validation_hypervolume(result) == pytest.approx(staircase(1 - result.validation, linear), abs=1e-12)


def test_hypervolume_is_the_share_of_a_grid_that_is_dominated():
    result = random_result(3)
    middles = (np.arange(1000) + 0.5) / 1000
    error, share = np.meshgrid(middles, middles)
    dominated = np.zeros_like(error, dtype=bool)
    for accuracy, active in zip(result.test, result.active, strict=True):
        dominated |= (1 - accuracy <= error) & (active / 100 <= share)
    assert score(result)["test_hypervolume"] == pytest.approx(dominated.mean(), abs=2e-3)


def test_scores_of_a_small_case():
    row = score(result_of([1, 5, 10, 40, 100], [0.5, 0.7, 0.6, 0.9, 0.8]))
    assert tuple(row) == COLUMNS
    assert row["test_hypervolume"] == pytest.approx(0.04 * 0.5 + 0.35 * 0.7 + 0.6 * 0.9)
    assert [row[f"accuracy_at_{percent}"] for percent in (2, 5, 10, 25)] == [0.5, 0.7, 0.7, 0.7]
    assert row["best_test_accuracy"] == 0.9
    nothing = score(result_of([], []))
    assert nothing["test_hypervolume"] == nothing["test_hypervolume_log"] == 0
    assert nothing["best_test_accuracy"] is None
    # a single bit has no log scale; all bits active is all bits active
    assert score(result_of([1], [0.9], n_bits=1))["test_hypervolume_log"] == 0


def test_five_percent_is_exact():
    for n_bits in range(20, 2001, 20):
        small = score(result_of([n_bits // 20], [0.5], n_bits=n_bits))
        large = score(result_of([n_bits // 20 + 1], [0.5], n_bits=n_bits))
        assert small["accuracy_at_5"] == 0.5
        assert large["accuracy_at_5"] is None
        assert picked(result_of([n_bits // 20], [0.5], n_bits=n_bits), 0.05) == (0.5, 0.5)


def test_negative_r2_counts_as_nothing():
    row = score(result_of([1, 10], [-1000.0, 0.4], [-2.0, 0.5]))
    assert row["test_hypervolume"] == pytest.approx(0.9 * 0.4)
    assert row["accuracy_at_2"] == 0.0
    assert picked(result_of([1], [-1000.0], [-2.0]), 0.05) == (0.0, 0.0)


def test_picked_chooses_without_the_test_rows():
    result = result_of([2, 4, 5, 30], [0.9, 0.1, 0.2, 0.3], [0.5, 0.6, 0.6, 0.8])
    assert picked(result, 0.05) == (0.6, 0.1)
    assert picked(result, 0.02) == (0.5, 0.9)
    assert picked(result, 1.0) == (0.8, 0.3)
    assert picked(result, 0.01) is None


def test_curve_is_the_best_so_far():
    result = result_of([5, 2, 30], [0.4, 0.6, 0.9])
    np.testing.assert_array_equal(
        curve(result, np.array([1, 2, 5, 29, 30, 100])), [np.nan, 0.6, 0.6, 0.6, 0.9, 0.9]
    )


def test_json_keeps_every_number():
    result = random_result(5)
    again = MethodResult.from_json(result.to_json())
    assert again.to_json() == result.to_json()
    for name in ("active", "validation", "test"):
        np.testing.assert_array_equal(getattr(again, name), getattr(result, name))
    assert (again.data, again.method, again.seed, again.n_bits) == ("d", "anova", 1, 100)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"anova"', '"nonsense"'),
        ('"seed": 1', '"seed": "1"'),
        ('"n_bits": 100', '"n_bits": 2'),
        ('"seconds": 1.5', '"seconds": NaN'),
        ('"trainings"', '"training"'),
        ("{", ""),
        ("0.5", "null"),
        ("0.5", "NaN"),
        ("0.5,", ""),
    ],
)
def test_damaged_json_is_refused(old, new):
    text = result_of([5, 6], [0.5, 0.25], [0.75, 0.875]).to_json()
    assert old in text
    with pytest.raises(InputError, match="damaged"):
        MethodResult.from_json(text.replace(old, new, 1))


def test_methods_are_checked_and_ordered():
    assert check_methods(["anova", "guided", "anova"]) == ("guided", "anova")
    assert set(METHODS) == {"guided", "reference", "nsga2", "dense", *BASELINES}
    assert set(METHODS) - set(DEFAULT_METHODS) == {"nsga2"}
    with pytest.raises(InputError, match="did you mean 'anova'"):
        check_methods(["anov"])
    with pytest.raises(InputError, match="no method"):
        check_methods([])


def count_trainings(problem, monkeypatch):
    """Heads that the problem's trainer is asked for from now on, call by call."""
    trained = []
    fit = problem.fitness.trainer.fit

    def counting(masks, rows):
        trained.append(len(masks) * len(rows))
        return fit(masks, rows)

    monkeypatch.setattr(problem.fitness.trainer, "fit", counting)
    return trained


@pytest.mark.parametrize(
    "method", ["dense", "anova", "weight_magnitude", "gradual_magnitude", "random", "best_fixed"]
)
def test_baselines_are_scored_on_folds_and_test_rows_and_all_trainings_counted(
    method, small_features, quick_head, monkeypatch
):
    problem = PruningProblem(small_features, head=quick_head, cv=3, seed=1)
    trained = count_trainings(problem, monkeypatch)
    result = run_method(problem, method, 1, 10)
    # gradual pruning has a loop of its own, one head per size
    own = len(default_sizes(14)) if method == "gradual_magnitude" else 0
    assert result.trainings == sum(trained) + own
    assert result.seconds > 0
    assert (result.data, result.method, result.seed, result.n_bits) == ("small", method, 1, 14)

    fresh = PruningProblem(small_features, head=quick_head, cv=3, seed=1)
    if method == "dense":
        masks = np.ones((1, 14), dtype=bool)
    else:
        masks = make_baseline(method).masks(fresh.ranking_data(), default_sizes(14))
    np.testing.assert_array_equal(result.active, masks.sum(axis=1))
    np.testing.assert_array_equal(result.validation, fresh.values(masks)[:, 0])
    accuracies = [
        np.mean(head.predict(small_features.X_test) == small_features.y_test)
        for head in fresh.fitness.train_final(masks)
    ]
    np.testing.assert_array_equal(result.test, accuracies)


@pytest.mark.parametrize("method", ["guided", "reference", "nsga2"])
def test_searches_give_their_front_and_all_trainings_are_counted(
    method, problem, small_features, quick_head, monkeypatch
):
    trained = count_trainings(problem, monkeypatch)
    result = run_method(problem, method, 2, 30)
    fresh = PruningProblem(small_features, head=quick_head, cv=3, seed=1)
    front = evolve(fresh, algorithm=method, budget=30, seed=2)
    np.testing.assert_array_equal(result.active, front.active)
    np.testing.assert_array_equal(result.validation, front.column("accuracy"))
    np.testing.assert_array_equal(result.test, front.test)
    assert result.trainings == sum(trained) >= fresh.n_trained * 3 + len(front)


def test_an_interrupted_search_is_no_result(problem, monkeypatch):
    evaluate, calls = PruningProblem._evaluate, []

    def interrupted(self, *args, **kwargs):
        calls.append(1)
        if len(calls) > 1:
            raise KeyboardInterrupt
        evaluate(self, *args, **kwargs)

    monkeypatch.setattr(PruningProblem, "_evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_method(problem, "guided", 1, 500)


def test_accuracy_may_stand_anywhere_but_must_be_there(small_features, small_regression, quick_head):
    swapped = PruningProblem(small_features, objectives=["active_neurons", "accuracy"], head=quick_head, cv=3)
    plain = PruningProblem(small_features, objectives=["accuracy", "active_neurons"], head=quick_head, cv=3)
    np.testing.assert_array_equal(
        run_method(swapped, "anova", 1, 10).validation, run_method(plain, "anova", 1, 10).validation
    )
    without = PruningProblem(small_features, objectives=["active_neurons", "cka"], head=quick_head, cv=3)
    with pytest.raises(InputError, match="accuracy"):
        run_method(without, "anova", 1, 10)
    squared = PruningProblem(small_regression, objectives=["mse", "active_neurons"], head=quick_head, cv=3)
    with pytest.raises(InputError, match="r2"):
        run_method(squared, "anova", 1, 10)
    regression = PruningProblem(small_regression, head=quick_head, cv=3)
    assert run_method(regression, "anova", 1, 10).validation.max() <= 1


@pytest.fixture
def results():
    """Two data sets, four methods, four seeds."""
    return [
        random_result(1000 * d + 10 * m + seed, method=method, seed=seed, data=data, seconds=float(m + seed))
        for d, data in enumerate(["leaves", "stones"])
        for m, method in enumerate(["guided", "reference", "anova", "l1_path"])
        for seed in (1, 2, 3, 4)
    ]


def test_summary_has_means_errors_winners_and_paired_tests(results):
    leaves, stones = summarise(results)
    assert (leaves.data, stones.data, leaves.n_bits, leaves.champion) == ("leaves", "stones", 100, "guided")
    rows = [score(result) for result in results if result.data == "leaves"]
    means = {}
    for column in ("test_hypervolume", "test_hypervolume_log", "seconds"):
        for method in leaves.methods:
            values = [row[column] for row in rows if row["method"] == method.method]
            means[column, method.method] = np.mean(values)
            estimate = method.estimates[column]
            assert estimate.mean == pytest.approx(np.mean(values))
            assert estimate.error == pytest.approx(np.std(values, ddof=1) / math.sqrt(4))
    order = [method.method for method in leaves.methods]
    assert order == sorted(order, key=lambda method: -means["test_hypervolume", method])
    assert leaves.winners["test_hypervolume"] == {order[0]}
    assert set(leaves.winners) == set(QUALITY)
    for column in ("test_hypervolume", "test_hypervolume_log"):
        ours = [row[column] for row in rows if row["method"] == "guided"]
        theirs = [row[column] for row in rows if row["method"] == "anova"]
        expected = ttest_rel(ours, theirs).pvalue
        assert leaves.p_values["anova"][column] == pytest.approx(expected)
    with pytest.raises(KeyError):
        leaves["random"]


def test_no_test_without_seeds_or_spread():
    one = [result_of([5], [0.5], method=method) for method in ("guided", "anova")]
    same = [replace(result, seed=seed) for result in one for seed in (1, 2, 3)]
    for results in (one, same):
        (summary,) = summarise(results)
        assert summary.p_values["anova"] == {"test_hypervolume": None, "test_hypervolume_log": None}
        assert summary.winners["test_hypervolume"] == {"guided", "anova"}
        assert "p n/a" in comparison_table(results, "here")
    assert math.isnan(summarise(one)[0]["guided"].estimates["seconds"].error)
    # without guided, the best one is what others are tested against
    (summary,) = summarise([result_of([5], [0.5]), result_of([5], [0.7], method="random")])
    assert summary.champion == "random"
    assert list(summary.p_values) == ["anova"]


def test_markdown(results):
    text = comparison_table(results, "moevoprune compare x", ["today"])
    lines = text.splitlines()
    assert lines[2] == "`moevoprune compare x`"
    assert "today" in lines
    assert [line for line in lines if line.startswith("## ")] == ["## leaves", "## stones"]
    tables = [line for line in lines if line.startswith("| ")]
    assert len(tables) == 2 * 2 * 5
    assert {line.count("|") for line in tables} == {11, 9}
    leaves = summarise(results)[0]
    best = leaves.methods[0]
    first = next(line for line in tables if line.startswith(f"| {best.method} |"))
    assert f"**{best.mean('test_hypervolume'):.4f}".replace("0.", ".") in first
    assert any(
        re.match(r"Guided less the best baseline: linear, \w+: [+-]\.\d{4} \(worst seed", li) for li in lines
    )
    assert any(re.match(r"Guided less the reference: .* times its seconds\.", line) for line in lines)
    baselines = [leaves[name] for name in ("anova", "l1_path")]
    top = max(baselines, key=lambda method: method.mean("test_hypervolume"))
    gap = leaves["guided"].mean("test_hypervolume") - top.mean("test_hypervolume")
    assert f"linear, {top.method}: {gap:+.4f}".replace("0.", ".") in text


def test_csv_has_a_row_per_result_and_blanks_where_nothing_is_so_small():
    results = [result_of([40, 100], [0.123456789, 0.5]), result_of([1], [0.5], method="random")]
    rows = list(csv.DictReader(io.StringIO(scores_csv(results))))
    assert tuple(rows[0]) == COLUMNS
    assert [row["accuracy_at_25"] for row in rows] == ["", "0.500000"]
    assert rows[0]["trainings"] == "7"
    assert rows[0]["seconds"] == "1.500000"
    members = list(csv.DictReader(io.StringIO(members_csv(results))))
    assert len(members) == 3
    assert members[0] == {
        "data": "d", "method": "anova", "seed": "1", "active": "40", "active_fraction": "0.400000",
        "validation": "0.123457", "test": "0.123457",
    }  # fmt: skip


def test_standing_is_the_best_of_four_rankings(problem, small_features, quick_head):
    front = evolve(problem, pop_size=8, n_gen=3, seed=1)
    trained = problem.n_trained
    found = standing(front, problem)
    assert problem.n_trained == trained
    volumes = {}
    for name in ("anova", "l1_path", "recursive_elimination", "weight_magnitude"):
        fresh = PruningProblem(small_features, head=quick_head, cv=3, seed=1)
        row = score(run_method(fresh, name, 1, 10))
        volumes[name] = (row["test_hypervolume"], row["test_hypervolume_log"])
    assert found.best == max(volumes, key=lambda name: volumes[name][0])
    assert found.baseline == pytest.approx(volumes[found.best])
    assert found.front[0] == pytest.approx(staircase(1 - front.test, front.active / 14))
    assert re.fullmatch(
        r"against the best of 4 baselines \(\w+\): test hypervolume \.\d{3} vs \.\d{3} "
        r"\(active bits on a log scale: \.\d{3} vs \.\d{3}\)",
        str(found),
    )
    assert found.to_dict()["best"] == found.best


def test_figure_has_a_line_per_method_with_means_over_seeds(results, tmp_path):
    before = dict(matplotlib.rcParams)
    leaves = [result for result in results if result.data == "leaves"]
    leaves += [result_of([100], [0.9], method="dense", data="leaves"), result_of([], [], method="random")]
    ax = Figure().add_subplot()
    assert plot_comparison(leaves, ax) is ax
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert set(lines) == {"guided", "reference", "dense", "anova", "l1 path"}
    assert ax.get_xscale() == "log"
    sizes, heights = lines["anova"].get_data()
    at = list(sizes).index(100)
    best = [result.test.max() for result in leaves if result.method == "anova"]
    assert heights[at] == pytest.approx(np.mean(best))
    first = max(result.active.min() for result in leaves if result.method == "anova")
    assert np.isfinite(heights[sizes >= first]).all()
    assert np.isnan(heights[sizes < first]).all()
    assert lines["guided"].get_linewidth() > max(
        line.get_linewidth() for name, line in lines.items() if name != "guided"
    )
    assert dict(matplotlib.rcParams) == before
    first_bytes = save_comparison(leaves, tmp_path / "figures" / "a.png").read_bytes()
    assert first_bytes.startswith(b"\x89PNG")
    assert save_comparison(leaves, tmp_path / "figures" / "b.png").read_bytes() == first_bytes
    assert "no members" in plot_comparison([result_of([], [])]).texts[0].get_text()


def test_every_method_looks_different():
    results = [result_of([1, 50], [0.5, 0.6], method=method) for method in METHODS]
    ax = plot_comparison(results)
    looks = {(line.get_color(), str(line._unscaled_dash_pattern)) for line in ax.get_lines()}
    assert len(looks) == len(METHODS)
    # the legend covers no curve
    ax.figure.canvas.draw()
    assert ax.get_legend().get_window_extent().x0 >= ax.get_window_extent().x1


@pytest.mark.parametrize("method", ["anova", "random", "best_fixed", "gradual_magnitude"])
def test_bounds_on_active_bits_hold_for_baselines_too(small_features, quick_head, method):
    problem = PruningProblem(small_features, head=quick_head, cv=3, min_active=2, max_active=6)
    result = run_method(problem, method, 1, 10)
    assert set(result.active) <= {2, 3, 4, 5, 6}
