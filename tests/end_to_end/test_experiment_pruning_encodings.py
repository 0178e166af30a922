"""The experiment on encodings, end to end on small data: its figures held to those of the run folders."""

from __future__ import annotations

import csv
import importlib
import re
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from moevoprune import Front
from moevoprune.studies.study import run_study

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
PROBLEM = "[data]\nfeatures = 'small_leaves.npz'\n[problem]\ncv = 2\n[head]\nepochs = 2\nbatch_size = 32\n"


@pytest.fixture
def call(monkeypatch, tmp_path, small_features):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    experiment = importlib.import_module("pruning_encodings")
    small_features.save(tmp_path / "small_leaves.npz")
    (tmp_path / "leaves.toml").write_text(PROBLEM)

    def run(*arguments):
        folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "results"), "--jobs", "1"]
        asked = [str(tmp_path / "leaves.toml"), "--seeds", "2", "--hidden", "6", "--budget", "8"]
        # half of the six: the others are the same code
        asked += ["--encodings", "1 layer,FS, FC1"]
        monkeypatch.setattr(sys, "argv", ["pruning_encodings.py", *asked, *folders, *arguments])
        return run_study("pruning_encodings", "", experiment.carry_out, 5, {}, experiment.add_options)

    return run


def test_its_figures_are_those_of_the_runs(call, tmp_path, capsys):
    assert call() == 0
    results, work = tmp_path / "results", tmp_path / "work"
    text = (results / "pruning_encodings.md").read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    with (results / "pruning_encodings.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    # of three encodings and two seeds: the dense head, four read off fronts, and four baselines
    assert len(rows) == 3 * 2 * 9

    numbers = {}
    for seed in (1, 2):
        ga, guided = (Front.load(work / f"{search}-FS" / f"leaves-seed{seed}") for search in ("ga", "guided"))
        assert guided.history["evaluations"][-1] <= 8
        validation, size, test = max(
            (v, -a, t) for v, a, t in zip(ga.column("accuracy"), ga.active, ga.test, strict=True)
        )
        numbers[seed, "evolved"] = -size / 14, validation, test
        members = list(zip(guided.active / 14, guided.column("accuracy"), guided.test, strict=True))
        good = [member for member in members if member[1] >= validation - 1e-9]
        numbers[seed, "same"] = min(good) if good else max(members, key=lambda member: member[1])
        numbers[seed, "dense"] = 1.0, ga.dense_values[0], ga.dense_test
    for (seed, head), expected in numbers.items():
        (row,) = (r for r in rows if (r["encoding"], r["seed"], r["head"]) == ("FS", str(seed), head))
        found = [float(row[name]) for name in ("active_share", "validation_accuracy", "test_accuracy")]
        assert found == pytest.approx(expected, abs=1e-6)
    for row in rows:
        if row["head"] in ("weight pruning", "polynomial decay", "neuron pruning"):
            same = [r["active_share"] for r in rows if r["head"] == "evolved" and _where(r) == _where(row)]
            assert same == [row["active_share"]]

    # the table of what the test rows say, and the published figures beside it
    gain = np.mean([numbers[seed, "evolved"][2] - numbers[seed, "dense"][2] for seed in (1, 2)])
    (line,) = (one for one in text.split("Beside the dense head")[1].splitlines() if "leaves, FS" in one)
    assert float(re.split(r"[|\[]", line)[5]) == pytest.approx(gain, abs=6e-4)
    assert "| evolved, FS | .943 @ 59 % |" in text

    before = {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file()}
    assert call() == 0
    assert before == {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file()}
    assert (results / "pruning_encodings.md").read_text(encoding="utf-8") == text
    capsys.readouterr()


def test_one_encoding_alone(call, tmp_path, capsys):
    assert call("--encodings", "FC2", "--seeds", "1", "--budget", "4") == 0
    text = (tmp_path / "results" / "pruning_encodings.md").read_text(encoding="utf-8")
    (dense,) = (line for line in text.splitlines() if line.startswith("Not pruned"))
    assert dense.startswith("Not pruned: two layers .")
    assert "one layer" not in dense
    assert "| not pruned, 2 layers | .919 | " in text
    assert "FS's density" not in text
    capsys.readouterr()


def test_the_searches_are_the_published_ones_and_never_longer(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    experiment = importlib.import_module("pruning_encodings")
    found = experiment.variants(Namespace(budget=200, hidden=64, preset="default", encodings=None))
    encodings = ["connections", "features", "neurons", "neurons:1", "neurons:2", "neurons:both"]
    assert sorted(one["problem.encoding"] for name, one in found.items() if name.startswith("ga-")) == encodings
    assert len(found) == 12
    for name, settings in found.items():
        both = settings["problem.encoding"] == "neurons:both"
        two = settings["problem.encoding"] in ("neurons:1", "neurons:2", "neurons:both")
        assert settings["head.hidden"] == ([64, 64] if two else [64])
        if name.startswith("ga-"):
            assert settings["search.budget"] == (300 if both else 200)
        else:
            assert settings["search.pop"] * settings["search.gens"] == (280 if both else 200)


def _where(row):
    return row["encoding"], row["seed"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--budget", "2"], "--budget"),
        (["--budget", "1" + 19 * "0"], "--budget"),
        (["--preset", "papr"], "paper"),
        (["--hidden", "0"], "hidden"),
        (["--encodings", "FS,FC3"], "FC3"),
    ],
)
def test_bad_input_is_one_line(call, capsys, tmp_path, arguments, named):
    assert call(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line
    assert not (tmp_path / "work").exists()
