"""The experiment on constructed networks, at the size of a test."""

from __future__ import annotations

import csv
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t, ttest_rel
from sklearn.metrics import r2_score

from moevoprune.construction.building import build_network
from moevoprune.construction.comparison import MethodScore
from moevoprune.construction.records import ComparisonRecord
from moevoprune.construction.settings import ConstructionSettings
from moevoprune.construction.tables import open_table, split_table

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
LITTLE = ConstructionSettings(hidden=(10, 8), epsilons=(0.0, 0.8), epochs=5, weight_decay=0.01, cv=2, repeats=1)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    script = importlib.import_module("feedforward_construction")
    monkeypatch.setattr(script, "QUICK", LITTLE)
    return script


@pytest.fixture
def call(script, monkeypatch, tmp_path):
    def run(*arguments):
        folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"), "--jobs", "1"]
        monkeypatch.setattr(sys, "argv", ["feedforward_construction.py", "--quick", *arguments, *folders])
        return script.main()

    return run


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_scores_and_tests_are_those_of_the_networks(call, script, small_features, tmp_path, capsys, monkeypatch):
    small_features.save(tmp_path / "small.npz")
    sources = (str(tmp_path / "small.npz"), "linnerud")
    assert call(*sources) == 0
    out = tmp_path / "out" / "feedforward_construction_quick"
    rows = read(out.with_suffix(".csv"))
    tests = {(row["data"], row["seed"], row["method"]): float(row["test"]) for row in rows}
    assert len(tests) == len(rows) == 2 * 2 * 8

    features = split_table(open_table("linnerud"), 2)
    refined = build_network(features, LITTLE, seed=2).refined
    expected = r2_score(features.y_test, refined.predict(features.X_test))
    assert tests["linnerud", "2", "refined"] == pytest.approx(expected, abs=2e-6)

    text = out.with_suffix(".md").read_text(encoding="utf-8")
    scratch, small = ([tests["linnerud", seed, method] for seed in "12"] for method in ("scratch", "refined"))
    difference = np.subtract(small, scratch)
    assert f"{ttest_rel(small, scratch).pvalue:.3f}".lstrip("0") in text
    low = difference.mean() - t.ppf(0.975, 1) * difference.std(ddof=1) / np.sqrt(2)
    assert f"[{low:+.4f}".replace("0.", ".") in text
    assert "small.npz" in text
    assert str(tmp_path) not in text
    assert out.with_suffix(".png").stat().st_size > 1000

    def refuse(*_):
        raise AssertionError("all of it was done already")

    capsys.readouterr()
    monkeypatch.setattr(script, "carry_out", refuse)
    assert call(*sources) == 0
    assert "4 runs, 4 of them finished already" in capsys.readouterr().out
    assert out.with_suffix(".md").read_text(encoding="utf-8") == text


def record(**tests):
    sizes = {"large": 1000, "refined": 200, "best_scoring": 300, "scratch": 200}
    scores = tuple(MethodScore(method, (5,), sizes[method], test) for method, test in tests.items())
    return ComparisonRecord("accuracy", 1.0, 0.5, scores)


@pytest.mark.parametrize(
    ("refined", "said"),
    [
        # within the margin of .01, and always above the network from scratch
        (
            (0.900, 0.911, 0.921, 0.929),
            {"no_loss": "holds**", "beats_scratch": "holds**", "beats_original": "claim holds in part.**"},
        ),
        # two points below the large network
        ((0.880, 0.891, 0.901, 0.909), {"no_loss": "does not hold**", "beats_scratch": "does not hold**"}),
        # above it
        ((0.920, 0.932, 0.941, 0.951), {"no_loss": "holds**", "beats_original": "claim holds.**"}),
    ],
)
def test_claims_are_answered_by_their_rules(script, refined, said):
    large, scratch = (0.90, 0.91, 0.92, 0.93), (0.881, 0.892, 0.900, 0.911)
    seeds = [
        record(large=a, refined=b, best_scoring=b, scratch=c)
        for a, b, c in zip(large, refined, scratch, strict=True)
    ]
    for claim, answer in said.items():
        assert answer in getattr(script, claim)({"made": seeds}), claim


def test_parameters_that_stay_are_no_success(script):
    seeds = [record(large=0.9, refined=0.9, best_scoring=0.9, scratch=0.9) for _ in range(3)]
    assert "**The claim holds**" in script.no_loss({"made": seeds})
    wide = [
        ComparisonRecord("accuracy", 1.0, 0.5, (seed["large"], seed["best_scoring"], refined))
        for seed in seeds
        for refined in [MethodScore("refined", (5,), 301, 0.9)]
    ]
    assert "**The claim does not hold**" in script.no_loss({"made": wide})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("winne",), "did you mean 'wine'"),
        (("nothing.npz",), "nothing.npz"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(call, arguments, said, tmp_path, capsys):
    assert call(*arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
