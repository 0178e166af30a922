"""What is kept of a comparison, and that it is not done twice."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from moevoprune import InputError
from moevoprune.construction import records
from moevoprune.construction.building import build_network
from moevoprune.construction.records import BEST_SCORING, ComparisonRecord, ComparisonTask, carry_out
from moevoprune.construction.settings import ConstructionSettings
from moevoprune.construction.sweep import Sweep, SweepPoint

LITTLE = ConstructionSettings(
    hidden=(10, 8), epsilons=(0.0, 0.6, 1.2), epochs=6, weight_decay=0.01, cv=2, repeats=1
)


@pytest.fixture
def task(small_features, tmp_path):
    return ComparisonTask("small", small_features, LITTLE, 3, 0, tmp_path / "records")


def test_a_record_holds_the_networks_scores(task, small_features, monkeypatch):
    record = carry_out(task)
    built = build_network(small_features, LITTLE, seed=3)
    accuracy = np.mean(built.refined.predict(small_features.X_test) == small_features.y_test)
    assert record["refined"].test == pytest.approx(accuracy, abs=1e-12)
    assert record.epsilon == built.sweep.epsilon
    assert record.gone("large") == 0
    assert record.gone("refined") == 1 - record["refined"].parameters / record["large"].parameters
    best = max(point.score for point in built.sweep.points)
    assert record.best_epsilon in [point.epsilon for point in built.sweep.points if point.score == best]
    # the best-scoring threshold, used as it is, gives that network
    alone = build_network(small_features, LITTLE.model_copy(update={"epsilons": (record.best_epsilon,)}), seed=3)
    right = np.mean(alone.refined.predict(small_features.X_test) == small_features.y_test)
    assert record[BEST_SCORING].test == pytest.approx(right, abs=1e-12)
    assert record[BEST_SCORING].widths == alone.refined.widths[1:-1]

    # it is read the next time, and other settings have a record of their own
    def refuse(*_):
        raise AssertionError("it was done already")

    monkeypatch.setattr(records, "compare_methods", refuse)
    assert carry_out(task) == record
    others = (replace(task, budget=20), replace(task, seed=4), replace(task, settings=ConstructionSettings()))
    assert all(other.stored() is None for other in others)


def test_damaged_records_are_none(task):
    record = carry_out(task)
    assert ComparisonRecord.load(task.path) == record
    whole = json.loads(task.path.read_text())
    for change in (
        {"format": 9},
        {"metric": "luck"},
        {"epsilon": None},
        {"best_epsilon": float("nan")},
        {"scores": []},
        {"scores": [{**whole["scores"][0], "test": "high"}]},
    ):
        task.path.write_text(json.dumps({**whole, **change}))
        with pytest.raises(InputError, match="missing or damaged"):
            ComparisonRecord.load(task.path)
        assert task.stored() is None
    task.path.write_text("{")
    assert task.stored() is None


@pytest.mark.parametrize(
    ("scores", "chosen", "best"),
    [((0.8, 0.9, 0.7), 0, 1.0), ((0.9, 0.9, 0.7), 2, 1.0), ((0.7, 0.8, 0.9), 1, 2.0)],
)
def test_the_best_epsilon_disregards_the_choice(scores, chosen, best):
    points = tuple(
        SweepPoint(float(number), 100.0 - number, (4.0,), np.full(5, score)) for number, score in enumerate(scores)
    )
    swept = Sweep(0.1, {0.1: 0.8}, points[0], points, chosen)
    # of equally good ones that of the smaller network
    assert swept.best_epsilon == best
    assert swept.epsilon == float(chosen)
