"""Frequency and importance of features: held to plain loops."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from matplotlib._pylab_helpers import Gcf

from moevoprune import Front, HeadSettings, PruningProblem, evolve
from moevoprune.errors import InputError
from moevoprune.fronts import explanation as module
from moevoprune.fronts.explanation import (
    explain_front,
    feature_frequency,
    feature_importance,
    feature_weight,
    quality_objective,
    unit_frequency,
)
from moevoprune.fronts.plots import plot_frequency, plot_importance, save_frequency
from moevoprune.fronts.predictions import evenly


def evolved(features, encoding="features", seed=1, **head):
    settings = HeadSettings(**{"hidden": (8,), "epochs": 4, "batch_size": 16, **head})
    return evolve(
        PruningProblem(features, encoding, head=settings, cv=2, seed=seed), pop_size=6, n_gen=2, seed=seed
    )


@pytest.fixture(scope="module")
def front(small_features):
    return evolved(small_features)


@pytest.fixture(scope="module")
def fronts(small_features, small_regression, front):
    """One of every kind of head."""
    return {
        "features": (front, small_features),
        "linear": (evolved(small_features, hidden=()), small_features),
        "deep": (evolved(small_features, "features+neurons", hidden=(8, 6)), small_features),
        "neurons": (evolved(small_features, "neurons:2", hidden=(8, 6), bias=False), small_features),
        "connections": (evolved(small_features, "connections"), small_features),
        "regression": (evolved(small_regression, early_stop="none"), small_regression),
    }


KINDS = ["features", "linear", "deep", "neurons", "connections", "regression"]


def importance_by_loop(front, rows):
    """Feature by feature and head by head, through the heads' own outputs."""
    total, readers = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    for head in front.heads:
        for feature in head.inputs:
            without = rows.copy()
            without[:, feature] = rows[:, feature].mean()
            if head.task == "classification":
                every = np.arange(len(rows))
                classes = head.predict(rows)
                change = head.predict_proba(without)[every, classes] - head.predict_proba(rows)[every, classes]
            else:
                change = (head.outputs(without) - head.outputs(rows)) / head.target_scale
            total[feature] += np.abs(change).mean()
            readers[feature] += 1
    return total / np.maximum(readers, 1)


# --- numbers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [1, 2**20])
def test_importance_is_that_of_a_plain_loop(fronts, kind, chunk, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    front, features = fronts[kind]
    rows = features.X_test[:20]
    importance = feature_importance(front, rows)
    np.testing.assert_allclose(importance, importance_by_loop(front, rows), rtol=1e-4, atol=2e-6)
    assert importance.max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_frequency_counts_the_heads_that_read_a_feature(fronts, kind):
    front, _ = fronts[kind]
    frequency = feature_frequency(front)
    for feature, share in enumerate(frequency):
        assert share == np.mean([feature in head.inputs for head in front.heads])
    if kind == "features":
        np.testing.assert_allclose(frequency, front.masks.mean(axis=0))
        assert unit_frequency(front) is None
    assert explain_front(front).prunes_features == (kind != "neurons")


def test_units_are_counted_where_they_are_pruned(fronts):
    front, _ = fronts["neurons"]
    units = unit_frequency(front)
    assert units is not None
    # the second layer alone, and it is numbered from 0
    assert set(units.layers) == {1}
    np.testing.assert_array_equal(units.units, np.arange(6))
    np.testing.assert_array_equal(units.members, front.masks.sum(axis=0))
    assert (feature_frequency(front) == 1).all()

    front, _ = fronts["deep"]
    units = unit_frequency(front)
    assert units is not None
    np.testing.assert_array_equal(units.members, front.masks[:, 14:].sum(axis=0))
    assert units.layers.tolist() == [0] * 8 + [1] * 6
    for other in ("connections", "linear", "regression"):
        assert unit_frequency(fronts[other][0]) is None


def test_weight_is_one_for_an_average_feature(front):
    weight = feature_weight(front)
    total, readers = np.zeros(14), np.zeros(14)
    for head in front.heads:
        norms = np.linalg.norm(head.weights[0].astype(np.float64), axis=1)
        total[head.inputs] += norms / norms.mean()
        readers[head.inputs] += 1
    np.testing.assert_allclose(weight, total / np.maximum(readers, 1))
    one = replace(front, masks=front.masks[:1], heads=front.heads[:1])
    assert feature_weight(one)[front.heads[0].inputs].mean() == pytest.approx(1)


def test_the_features_that_carry_the_class_matter_most(front, small_features):
    importance = feature_importance(front, small_features.X_test)
    assert importance[:5].mean() > 2 * importance[5:].mean()


def test_a_diverged_head_has_no_say(front, small_features):
    broken = replace(front.heads[-1], weights=tuple(np.full_like(w, np.nan) for w in front.heads[-1].weights))
    with_broken = replace(front, heads=(*front.heads[:-1], broken))
    without = replace(front, masks=front.masks[:-1], heads=front.heads[:-1])
    rows = small_features.X_test
    np.testing.assert_array_equal(feature_importance(with_broken, rows), feature_importance(without, rows))
    np.testing.assert_array_equal(feature_weight(with_broken), feature_weight(without))


def test_heads_that_read_nothing(front, small_features):
    head = front.heads[0]
    blind = replace(
        head,
        inputs=np.zeros(0, np.int64),
        weights=(np.zeros((0, 8), np.float32), *head.weights[1:]),
        mean=np.zeros(0, np.float32),
        scale=np.zeros(0, np.float32),
    )
    front = replace(front, heads=(blind,) * len(front), masks=np.zeros_like(front.masks))
    explanation = explain_front(front, small_features.X_test)
    assert explanation.importance is not None
    assert not explanation.importance.any()
    assert not explanation.weight.any()
    assert len(explanation.top(10)) == 0
    assert "no member" in plot_frequency(explanation).texts[0].get_text()
    assert "no member" in plot_importance(explanation).texts[0].get_text()


@pytest.mark.parametrize("shape", [(3, 13), (0, 14), (14,)])
def test_rows_of_another_backbone_are_refused(front, shape):
    with pytest.raises(InputError, match="rows of 14 features"):
        feature_importance(front, np.zeros(shape))


def test_an_empty_front_is_refused(front):
    nothing = replace(
        front,
        masks=front.masks[:0],
        active=front.active[:0],
        values=front.values[:0],
        F=front.F[:0],
        heads=(),
        test=front.test[:0],
    )
    for function in (explain_front, feature_frequency, feature_weight, unit_frequency):
        with pytest.raises(InputError, match="no members"):
            function(nothing)


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [(10, 3, [1, 5, 8]), (3, 10, [0, 1, 2]), (1, 1, [0]), (0, 5, []), (5, 1, [2]), (4, 0, [])],
)
def test_evenly(count, most, expected):
    assert evenly(count, most).tolist() == expected


# --- the table -------------------------------------------------------------------------------------------------


def test_rows_are_sorted_by_frequency_then_importance(front, small_features):
    explanation = explain_front(front, small_features.X_test)
    rows = explanation.to_rows()
    assert sorted(row["feature"] for row in rows) == list(range(14))
    keys = [(-row["members"], -row["importance"]) for row in rows]
    assert keys == sorted(keys)
    assert explanation.top(3).tolist() == [row["feature"] for row in rows[:3]]
    first = rows[0]
    readers = [first["feature"] in head.inputs for head in front.heads]
    assert first["mean_accuracy"] == pytest.approx(front.column("accuracy")[readers].mean())


def test_csv(front, small_features):
    without = explain_front(front)
    table = list(csv.DictReader(io.StringIO(without.to_csv())))
    assert list(table[0]) == ["feature", "frequency", "members", "relative_weight", "mean_accuracy"]
    assert without.strength_name == "relative weight"
    table = list(csv.DictReader(io.StringIO(explain_front(front, small_features.X_test).to_csv())))
    assert list(table[0])[3] == "importance"
    assert float(table[0]["frequency"]) == pytest.approx(int(table[0]["members"]) / len(front), abs=1e-6)
    with pytest.raises(InputError, match="does not prune hidden units"):
        without.units_csv()


def test_a_feature_that_nobody_reads_has_empty_cells(front):
    unread = front.heads[0].inputs
    alone = replace(
        front,
        masks=front.masks[:1],
        active=front.active[:1],
        values=front.values[:1],
        F=front.F[:1],
        heads=front.heads[:1],
        test=front.test[:1],
    )
    rows = explain_front(alone).to_rows()
    assert {row["feature"] for row in rows if row["mean_accuracy"] is not None} == set(unread.tolist())
    assert explain_front(alone).to_csv().splitlines()[-1].endswith(",0.000000,0,0.000000,")


def test_units_csv(fronts):
    table = list(csv.DictReader(io.StringIO(explain_front(fronts["neurons"][0]).units_csv())))
    assert list(table[0]) == ["layer", "unit", "frequency", "members"]
    counts = [int(row["members"]) for row in table]
    assert counts == sorted(counts, reverse=True)


def test_a_merged_front_counts_the_members_of_all(front, small_features):
    merged = Front.merge([front, evolved(small_features, seed=2)])
    assert explain_front(merged).n_members == len(merged)
    np.testing.assert_array_equal(explain_front(merged).members, merged.masks.sum(axis=0))


def test_the_objective_that_says_how_good_a_head_is(front, fronts):
    assert quality_objective(front) == "accuracy"
    assert quality_objective(fronts["regression"][0]) == "r2"
    assert quality_objective(replace(front, test_metric="r2")) == "accuracy"


# --- figures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_bars_show_the_table(fronts, kind):
    front, features = fronts[kind]
    explanation = explain_front(front, features.X_test)
    ax = plot_frequency(explanation, top=4)
    widths = [bar.get_width() for bar in ax.patches]
    names = [label.get_text() for label in ax.get_yticklabels()]
    if kind == "neurons":
        units = explanation.units
        assert units is not None
        shown = units.order()[:4]
        np.testing.assert_allclose(widths, 100 * units.members[shown] / len(front))
        assert names == [str(unit) for unit in units.units[shown]]
    else:
        np.testing.assert_allclose(widths, 100 * explanation.frequency[explanation.top(4)])
        assert names == [str(feature) for feature in explanation.top(4)]
    ax = plot_importance(explanation, top=4)
    assert explanation.importance is not None
    widths = [bar.get_width() for bar in ax.patches]
    np.testing.assert_allclose(widths, explanation.importance[explanation.top(4)])
    assert "importance" in ax.get_xlabel()
    assert "weight" in plot_importance(explain_front(front)).get_xlabel()


def test_figures_go_where_they_are_asked_to(front, tmp_path):
    explanation = explain_front(front)
    ax = plot_frequency(explanation)
    assert plot_importance(explanation, ax=ax) is ax
    assert not Gcf.figs
    first, second = (save_frequency(explanation, tmp_path / name, 3).read_bytes() for name in ("a.png", "b.png"))
    assert first == second
    assert b"Software" not in first
    with pytest.raises(InputError, match="cannot be made"):
        save_frequency(explanation, tmp_path / "a.png" / "b.png")
