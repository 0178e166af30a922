"""The experiment on CKA, end to end on small data: its figures held to computations of their own."""

from __future__ import annotations

import csv
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from moevoprune import PruningProblem
from moevoprune.search.journal import EvaluationJournal
from moevoprune.studies.study import run_study

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
HEAD = "[data]\nfeatures = 'small.npz'\n[problem]\ncv = 2\n[head]\nhidden = 6\nepochs = 2\nbatch_size = 32\n"


@pytest.fixture
def call(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    experiment = importlib.import_module("cka_robustness")

    def run(*arguments):
        folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "results"), "--jobs", "1"]
        monkeypatch.setattr(sys, "argv", ["cka_robustness.py", *folders, *arguments])
        return run_study("cka_robustness", "", experiment.carry_out, 5, {}, experiment.add_options)

    return run


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_its_figures_are_those_of_the_runs(call, tmp_path, small_features, capsys):
    small_features.save(tmp_path / "small.npz")
    (tmp_path / "small.toml").write_text(HEAD)
    asked = [str(tmp_path / "small.toml"), "--seeds", "2", "--budget", "32", "--masks", "30"]
    assert call(*asked) == 0
    results = tmp_path / "results"
    text = (results / "cka_robustness.md").read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    assert "python experiments/cka_robustness.py small.toml --seeds 2 --budget 32 --masks 30" in text
    rows = rows_of(results / "cka_robustness.csv")

    # B: rank correlation of the objective with accuracy of the masks, trained and disturbed anew
    run = tmp_path / "work" / "random" / "small-seed2"
    header, masks, values = EvaluationJournal.read(run / "evaluations.journal")
    config = importlib.import_module("moevoprune.cli.config")
    settings = config.parse_config(config.read_toml(run / "config.toml"), "settings")
    problem = PruningProblem(small_features, head=settings.head, cv=2, seed=2)
    heads = list(problem.fitness.train_final(masks))
    deviation = small_features.X_train.std(axis=0)
    right = np.zeros(len(heads))
    for draw in range(5):
        noise = np.random.default_rng([1002, 0x9015, draw]).standard_normal((45, 14), dtype=np.float32) * deviation
        noisy = small_features.X_test + noise
        right += [np.mean(head.predict(noisy) == small_features.y_test) for head in heads]
    expected = spearmanr(values[:, header["objectives"].index("cka:noise")], right / 5).statistic
    (found,) = (
        row
        for row in rows
        if (row["seed"], row["sample"], row["objective"], row["disturbance"])
        == ("2", "random", "cka:noise", "noise 1")
    )
    assert float(found["accuracy"]) == pytest.approx(expected, abs=0.02)

    # A: the best mask, and how far the nearest one is
    run = tmp_path / "work" / "genetic-features" / "small-seed1"
    _, masks, values = EvaluationJournal.read(run / "evaluations.journal")
    best = min(range(len(masks)), key=lambda place: (-values[place, 0], masks[place].sum()))
    distances = sorted(int((mask != masks[best]).sum()) for mask in masks)
    of_run = [row for row in rows if (row["part"], row["seed"], row["encoding"]) == ("A", "1", "features")]
    assert {float(row["active"]) for row in of_run} == {masks[best].sum()}
    assert {float(row["hamming"]) for row in of_run} == {distances[1]}
    assert all(float(row["linear low"]) <= float(row["linear"]) <= float(row["linear high"]) for row in of_run)

    # once more: nothing is searched nor measured, and the same comes out
    before = (results / "cka_robustness.csv").read_bytes()
    capsys.readouterr()
    assert call(*asked) == 0
    said = capsys.readouterr().out
    assert "finished" not in said
    assert "measured " not in said
    assert (results / "cka_robustness.csv").read_bytes() == before


def test_bad_input_is_one_line(call, tmp_path, small_regression, capsys):
    small_regression.save(tmp_path / "line.npz")
    for asked in ([str(tmp_path / "line.npz")], [str(tmp_path / "absent.npz")], ["digits", "--masks", "3"]):
        assert call(*asked) == 2
        said = capsys.readouterr().err
        assert said.startswith("cka_robustness: error: ")
        assert said.count("\n") == 1
    assert not (tmp_path / "results").exists()
