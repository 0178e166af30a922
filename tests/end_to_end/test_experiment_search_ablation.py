"""The search ablation, at the size of a test."""

from __future__ import annotations

import csv
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from moevoprune import Front
from moevoprune.studies.study import run_study

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def call(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    script = importlib.import_module("search_ablation")
    # the others are run the same way, and tested where they are made
    monkeypatch.setattr(script, "GUIDED_PARTS", ("seeds",))
    monkeypatch.setattr(script, "OTHERS", ("random",))

    def run(*arguments):
        folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"), "--jobs", "1"]
        monkeypatch.setattr(sys, "argv", ["search_ablation.py", *arguments, *folders])
        return run_study("search_ablation", "", script.carry_out, 5, {"seeds": 2}, script.add_options)

    return run


def area(losses):
    """Area that points dominate up to (1, 1), by a grid of their coordinates."""
    edges = [np.unique([*losses[:, axis], 1.0]) for axis in (0, 1)]
    return sum(
        (edges[0][i + 1] - low) * (edges[1][j + 1] - left)
        for i, low in enumerate(edges[0][:-1])
        for j, left in enumerate(edges[1][:-1])
        if ((losses[:, 0] <= low) & (losses[:, 1] <= left)).any()
    )


def test_hypervolumes_are_those_of_the_fronts(call, small_features, tmp_path, capsys):
    small_features.save(tmp_path / "small.npz")
    (tmp_path / "quick.toml").write_text('[data]\nfeatures = "small.npz"\n[problem]\ncv = 1\n')
    arguments = (str(tmp_path / "quick.toml"), "--seeds", "2", "--budget", "12", "--pop", "6")
    assert call(*arguments) == 0
    rows = list(csv.DictReader((tmp_path / "out" / "search_ablation.csv").read_text().splitlines()))
    assert [row["search"] for row in rows[::2]] == ["guided", "without-seeds", "random"]
    # 14 features: a start population may lose a mask that it holds twice
    assert {int(row["evaluations"]) for row in rows} <= set(range(9, 13))
    for row in rows:
        front = Front.load(tmp_path / "work" / row["search"] / f"quick-seed{row['seed']}")
        losses = {
            "validation": 1 - front.column("accuracy"),
            "test": 1 - front.test,
        }
        for part, error in losses.items():
            for name, share in {"": front.active / 14, "_log": np.log(front.active) / np.log(14)}.items():
                expected = area(np.column_stack([error, share]))
                assert float(row[f"hypervolume_{part}{name}"]) == pytest.approx(expected, abs=2e-6)
    text = (tmp_path / "out" / "search_ablation.md").read_text()
    assert "Parts that buy" in text
    assert str(tmp_path) not in text
    capsys.readouterr()
    assert call(*arguments) == 0
    assert "finished" not in capsys.readouterr().out
    assert (tmp_path / "out" / "search_ablation.md").read_text() == text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--budget", "13", "--pop", "6"), "--budget 13"),
        (("--objectives", "active_neurons"), "accuracy"),
        (("--objectives", "accuracy"), "second objective"),
        (("nothing.npz",), "nothing.npz"),
    ],
)
def test_bad_input_is_one_line(call, capsys, arguments, said):
    assert call(*arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
