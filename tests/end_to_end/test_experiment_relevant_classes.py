"""The relevant-classes study, at the size of a test."""

from __future__ import annotations

import csv
import importlib
import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moevoprune import Front
from moevoprune.features.class_subsets import with_classes
from moevoprune.studies.study import run_study

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def call(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    script = importlib.import_module("relevant_classes")
    monkeypatch.setattr(script, "STEPS", (0.5,))
    monkeypatch.setattr(script, "POP", 6)

    def run(*arguments):
        folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"), "--jobs", "1"]
        monkeypatch.setattr(sys, "argv", ["relevant_classes.py", *arguments, *folders])
        return run_study("relevant_classes", "", script.carry_out, 5, {"seeds": 3}, script.add_options)

    return run


def test_overlaps_and_accuracies_are_those_of_the_fronts(call, small_features, tmp_path, capsys):
    # a table must not break at the name of a class
    named = replace(small_features, class_names=("a", "b", "c|<b>"))
    named.save(tmp_path / "small.npz")
    with_classes(small_features, ["a", "b"]).save(tmp_path / "two.npz")
    (tmp_path / "held.toml").write_text('[data]\nfeatures = "small.npz"\n[problem]\ncv = 1\n')
    arguments = (str(tmp_path / "held.toml"), str(tmp_path / "two.npz"), "--seeds", "3", "--budget", "6")
    assert call(*arguments) == 0
    rows = list(csv.DictReader((tmp_path / "out" / "relevant_classes.csv").read_text().splitlines()))
    most = int(np.bincount(small_features.y_train).argmax())
    variants = ["all-classes", "without-0", "without-1", "without-2", f"class-{most}-at-50"]
    assert [row["classes"] for row in rows[::3]] == variants

    fronts = {
        variant: [Front.load(tmp_path / "work" / variant / f"held-seed{seed}") for seed in (1, 2, 3)]
        for variant in variants
    }
    for row in rows:
        front = fronts[row["classes"]][int(row["seed"]) - 1]
        best = max(range(len(front)), key=lambda i: (front.column("accuracy")[i], -front.active[i]))
        assert float(row["best_accuracy"]) == pytest.approx(front.test[best], abs=1e-6)
        # the hold-out of the original is kept
        settings = (tmp_path / "work" / row["classes"] / f"held-seed{row['seed']}" / "config.toml").read_text()
        assert "cv = 1" in settings

    def overlap(a, b):
        read = [np.mean(front.masks, axis=0) for front in (a, b)]
        return np.minimum(*read).sum() / np.maximum(*read).sum()

    text = (tmp_path / "out" / "relevant_classes.md").read_text()
    pairs = list(itertools.permutations(range(3), 2))
    whole, without = fronts["all-classes"], fronts["without-1"]
    across = np.mean([overlap(whole[s], without[t]) for s, t in pairs])
    within = np.mean([overlap(whole[s], whole[t]) for s, t in pairs])
    assert f"with all classes: {within:.3f}".replace("0.", ".") in text
    assert f"| b | {across:.3f}".replace("0.", ".") in text
    assert "two is left out" in text
    assert "| c\\|&lt;b> | " in text
    assert "<b>" not in text
    assert str(tmp_path) not in text

    capsys.readouterr()
    assert call(*arguments) == 0
    assert "finished" not in capsys.readouterr().out
    assert (tmp_path / "out" / "relevant_classes.md").read_text() == text


@pytest.mark.parametrize(("arguments", "said"), [(("--seeds", "2"), "--seeds"), (("nothing.npz",), "nothing.npz")])
def test_bad_input_is_one_line(call, capsys, arguments, said):
    assert call(*arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_two_classes_alone_are_refused(call, small_features, tmp_path, capsys):
    with_classes(small_features, ["a", "b"]).save(tmp_path / "two.npz")
    assert call(str(tmp_path / "two.npz")) == 2
    assert "three classes" in capsys.readouterr().err


def test_what_has_no_classes_to_leave_out_is_refused(call, small_features, tmp_path, capsys):
    numbers = {part: getattr(small_features, part).astype(float) for part in ("y_train", "y_test")}
    replace(small_features, task="regression", class_names=(), **numbers).save(tmp_path / "numbers.npz")
    (tmp_path / "images" / "a").mkdir(parents=True)
    for source, said in (("numbers.npz", "no classes to leave out"), ("images", "extract them first")):
        assert call(str(tmp_path / source), "--budget", "6") == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert source in line
        assert said in line
