"""Fronts: evolved, looked at, saved, loaded."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import r2_score

from moevoprune import Front, HeadSettings, InputError, PruningProblem, evolve


@pytest.fixture(scope="module")
def problem(small_features, quick_head):
    return PruningProblem(small_features, head=quick_head, cv=3, seed=1)


@pytest.fixture(scope="module")
def front(problem):
    return evolve(problem, pop_size=10, n_gen=4, seed=1)


def test_members_are_the_archive_sorted_by_size(front, problem):
    np.testing.assert_array_equal(front.values, problem.values(front.masks))
    np.testing.assert_array_equal(front.F, problem.losses(front.values))
    np.testing.assert_array_equal(front.active, front.masks.sum(axis=1))
    assert (np.diff(front.active) >= 0).all()
    assert front.objectives == ("accuracy", "active_neurons", "cka")
    np.testing.assert_array_equal(front.column("active_neurons"), front.active / 14)


def test_heads_are_retrained_on_all_training_rows_and_scored_on_the_test_rows(front, small_features):
    for member, head in enumerate(front.heads):
        np.testing.assert_array_equal(head.inputs, np.flatnonzero(front.masks[member]))
        assert head.widths[0] == front.active[member]
        accuracy = np.mean(head.predict(small_features.X_test) == small_features.y_test)
        assert front.test_scores()[member] == accuracy
    assert front.dense_head.widths == (14, 8, 3)
    assert front.dense_test == np.mean(front.dense_head.predict(small_features.X_test) == small_features.y_test)


def test_hypervolume_is_the_dominated_share_of_the_box(front):
    points = np.random.default_rng(0).random((40_000, 3))
    dominated = (front.F[None] <= points[:, None]).all(axis=2).any(axis=1).mean()
    assert front.hypervolume() == pytest.approx(dominated, abs=0.01)
    assert front.hypervolume() == pytest.approx(front.history["hypervolume"][-1], abs=1e-12)


def test_best_and_knee(front):
    best = front.best("accuracy")
    assert front.values[best, 0] == front.values[:, 0].max()
    assert front.best("active_neurons") == 0
    scaled = (front.F - front.F.min(axis=0)) / np.ptp(front.F, axis=0)
    assert scaled.sum(axis=1)[front.knee()] == scaled.sum(axis=1).min()
    with pytest.raises(InputError, match="did you mean 'accuracy'"):
        front.best("acuracy")


def test_correlations_are_spearman_s(front):
    np.testing.assert_allclose(front.correlations(), spearmanr(front.values).statistic, atol=1e-12)
    same = replace(front, values=np.c_[front.values[:, :2], np.ones(len(front))])
    assert np.isnan(same.correlations()[2]).all()
    assert not np.isnan(same.correlations()[:2, :2]).any()
    single = replace(front, masks=front.masks[:1], values=front.values[:1])
    assert np.isnan(single.correlations()).all()


def test_save_and_load(front, small_features, tmp_path):
    front.save(tmp_path / "run")
    loaded = Front.load(tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "front.csv",
        "front.npz",
        "heads.safetensors",
        "predictions.npz",
    ]
    for name in ("masks", "values", "F", "active", "test", "ideal", "corner", "dense_values"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(front, name))
    assert loaded.axes == front.axes
    assert loaded.to_csv() == front.to_csv() == (tmp_path / "run" / "front.csv").read_text()
    assert loaded.class_names == ("a", "b", "c")
    for ours, theirs in zip([*front.heads, front.dense_head], [*loaded.heads, loaded.dense_head], strict=True):
        np.testing.assert_array_equal(ours.outputs(small_features.X_test), theirs.outputs(small_features.X_test))
    for key, column in front.history.items():
        np.testing.assert_array_equal(loaded.history[key], column)


def test_csv(front):
    rows = list(csv.DictReader(io.StringIO(front.to_csv())))
    assert list(rows[0]) == [
        "member", "active", "active_fraction", "accuracy", "active_neurons", "cka", "test_accuracy",
    ]  # fmt: skip
    assert len(rows) == len(front) + 1
    assert rows[-1]["member"] == "dense"
    assert rows[-1]["active"] == "14"
    assert [int(row["active"]) for row in rows] == sorted(int(row["active"]) for row in rows)
    assert float(rows[0]["accuracy"]) == pytest.approx(front.values[0, 0], abs=1e-6)


def test_damaged_and_missing_fronts_are_refused(front, tmp_path):
    with pytest.raises(InputError, match="not found"):
        Front.load(tmp_path / "nothing")
    front.save(tmp_path)
    content = (tmp_path / "front.npz").read_bytes()
    (tmp_path / "front.npz").write_bytes(content[:-40])
    with pytest.raises(InputError, match="cannot be read"):
        Front.load(tmp_path)
    (tmp_path / "front.npz").write_bytes(content)
    (tmp_path / "heads.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="cannot be read"):
        Front.load(tmp_path)


def test_regression_front(small_regression, tmp_path):
    problem = PruningProblem(small_regression, head=HeadSettings(epochs=30), cv=3)
    front = evolve(problem, pop_size=6, n_gen=2, seed=1)
    assert front.objectives == ("r2", "active_neurons", "cka")
    head = front.heads[-1]
    expected = r2_score(small_regression.y_test, head.predict(small_regression.X_test))
    assert front.test[-1] == pytest.approx(expected)
    front.save(tmp_path)
    assert "test_r2" in (tmp_path / "front.csv").read_text().splitlines()[0]
    np.testing.assert_array_equal(
        Front.load(tmp_path).heads[-1].predict(small_regression.X_test), head.predict(small_regression.X_test)
    )


def test_a_front_of_neurons_counts_units(small_features):
    problem = PruningProblem(small_features, "neurons:both", head=HeadSettings(hidden=(6, 5), epochs=2), cv=3)
    front = evolve(problem, pop_size=5, n_gen=2, seed=1)
    assert front.n_bits == 11
    for member, head in enumerate(front.heads):
        assert head.widths[0] == 14
        assert sum(head.widths[1:-1]) == front.active[member]


def test_merged_fronts_hold_what_no_other_run_dominates(small_features, quick_head, front):
    other = evolve(PruningProblem(small_features, head=quick_head, cv=3, seed=2), pop_size=10, n_gen=3, seed=2)
    merged = Front.merge([front, other])
    together = np.concatenate([front.F, other.F])
    for losses in together:
        beaten = (losses >= merged.F).all(axis=1) & (losses > merged.F).any(axis=1)
        assert beaten.any() or (losses == merged.F).all(axis=1).any()
    for losses in merged.F:
        assert not ((together <= losses).all(axis=1) & (together < losses).any(axis=1)).any()
    assert merged.hypervolume() >= max(front.hypervolume(), other.hypervolume()) - 1e-12
    for member, head in enumerate(merged.heads):
        np.testing.assert_array_equal(head.inputs, np.flatnonzero(merged.masks[member]))
    assert merged.dense_test == pytest.approx((front.dense_test + other.dense_test) / 2)
    with pytest.raises(InputError, match="at least one"):
        Front.merge([])
    neurons = evolve(PruningProblem(small_features, "neurons", head=quick_head, cv=3), pop_size=4, n_gen=1)
    with pytest.raises(InputError, match="different"):
        Front.merge([front, neurons])
