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
from moevoprune.construction.settings import ConstructionSettings
from moevoprune.construction.tables import open_table, split_table
from moevoprune.studies import constructed_networks_runs
from moevoprune.studies.study import run_study

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
        quick = {"seeds": 2, "budget": 20}
        return run_study("feedforward_construction", "", script.carry_out, 10, quick, script.add_options, data=())

    return run


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_scores_and_tests_are_those_of_the_networks(call, small_features, tmp_path, capsys, monkeypatch):
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
    monkeypatch.setattr(constructed_networks_runs, "carry_out", refuse)
    assert call(*sources) == 0
    assert "4 runs, 4 of them finished already" in capsys.readouterr().out
    assert out.with_suffix(".md").read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("winne",), "did you mean 'wine'"),
        (("nothing.npz",), "nothing.npz"),
        (("wine", "--budget", "1" + 19 * "0"), "--budget"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(call, arguments, said, tmp_path, capsys):
    assert call(*arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
