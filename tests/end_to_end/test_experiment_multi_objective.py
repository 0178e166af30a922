"""The experiment on three objectives, on two small data sets that are each other's out-of-distribution rows."""

from __future__ import annotations

import csv
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def call(monkeypatch, tmp_path, small_features):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    shifted = replace(small_features, X_train=small_features.X_train + 2, X_test=small_features.X_test + 2)
    narrow = replace(small_features, X_train=small_features.X_train[:, :3], X_test=small_features.X_test[:, :3])
    for name, features in (("one", small_features), ("other", shifted), ("narrow", narrow)):
        features.save(tmp_path / f"{name}.npz")
        settings = "[problem]\ncv = 1\n[head]\nhidden = [8]\nepochs = 2\n"
        (tmp_path / f"{name}.toml").write_text(f'[data]\nfeatures = "{name}.npz"\n{settings}')

    def run(*sources, budget=32):
        folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "results")]
        files = [str(tmp_path / source) for source in sources]
        settings = ["--seeds", "2", "--budget", str(budget), "--jobs", "1"]
        monkeypatch.setattr(sys, "argv", ["multi_objective.py", *files, *settings, *folders])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(EXPERIMENTS / "multi_objective.py"), run_name="__main__")
        return ended.value.code

    return run


def test_its_numbers_are_those_of_the_run_folders(call, tmp_path):
    assert call("one.toml", "other.toml") == 0
    rows = list(csv.DictReader((tmp_path / "results" / "multi_objective.csv").read_text().splitlines()))
    assert len(rows) == 2 * 2 * 3
    for row in rows:
        if row["seed"] == "merged":
            continue
        folder = tmp_path / "work" / row["search"] / f"{row['data']}-seed{row['seed']}"
        *members, dense = csv.DictReader((folder / "front.csv").read_text().splitlines())
        best = max(members, key=lambda member: (float(member["accuracy"]), -int(member["active"])))
        assert float(row["best_accuracy_test"]) == pytest.approx(float(best["test_accuracy"]), abs=1e-6)
        assert float(row["best_auroc_test"]) == pytest.approx(float(best["test_ood_auroc"]), abs=1e-6)
        assert float(row["best_active"]) == pytest.approx(int(best["active"]) / 14, abs=1e-6)
        assert float(row["dense_accuracy_test"]) == pytest.approx(float(dense["test_accuracy"]), abs=1e-6)
        # what a merged front dominates, each of its runs' fronts dominates no more of
        (merged,) = (
            r for r in rows if (r["data"], r["search"], r["seed"]) == (row["data"], row["search"], "merged")
        )
        assert float(merged["hypervolume_validation"]) >= float(row["hypervolume_validation"]) - 1e-6
    text = (tmp_path / "results" / "multi_objective.md").read_text()
    assert str(tmp_path) not in text
    assert "## Claims" in text

    fronts = sorted((tmp_path / "work").rglob("front.npz"))
    before = [(path, path.stat().st_mtime_ns) for path in fronts]
    assert call("one.toml", "other.toml") == 0
    assert [(path, path.stat().st_mtime_ns) for path in fronts] == before
    assert (tmp_path / "results" / "multi_objective.md").read_text() == text


def test_bad_input(call, tmp_path, capsys):
    assert call("one.toml", "other.toml", budget=0) == 2
    assert capsys.readouterr().err.startswith("multi_objective: error: --budget = 0: ")
    assert call("one.toml", "narrow.toml") == 2
    error = capsys.readouterr().err
    assert error.startswith("multi_objective: error: ")
    assert error.count("\n") == 1
    assert "same backbone" in error
    assert not (tmp_path / "results").exists()
