"""What the experiments share: options and results files."""

from __future__ import annotations

import csv
import sys

import pytest

from moevoprune import InputError
from moevoprune.fronts.plots.style import new_axes
from moevoprune.studies.study import run_study


@pytest.fixture
def call(monkeypatch, tmp_path):
    def run(carry_out, *arguments):
        folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "results")]
        monkeypatch.setattr(sys, "argv", ["trial.py", *folders, *arguments])
        return run_study("trial", "A trial.", carry_out, 5, {"seeds": 2})

    return run


def test_it_ends_with_three_files(call, tmp_path, capsys):
    def carry_out(study):
        assert list(study.seeds) == [1, 2, 3, 4, 5]
        assert study.arguments.work == tmp_path / "work"
        study.sections.append("Some text.")
        study.rows += [{"seed": 1, "accuracy": 0.5}, {"seed": 2, "size": 3}]
        study.write("A trial", "What it is.", new_axes(None, (2, 2)))

    assert call(carry_out) == 0
    results = tmp_path / "results"
    assert {path.name for path in results.iterdir()} == {"trial.md", "trial.csv", "trial.png"}
    text = (results / "trial.md").read_text()
    assert text in capsys.readouterr().out
    assert text.startswith("# A trial\n\nWhat it is.\n\nSome text.")
    rows = list(csv.DictReader((results / "trial.csv").read_text().splitlines()))
    assert rows == [{"seed": "1", "accuracy": "0.500000", "size": ""}, {"seed": "2", "accuracy": "", "size": "3"}]


def test_the_quick_form_keeps_apart(call, tmp_path):
    def carry_out(study):
        assert list(study.seeds) == [1, 2]
        assert study.arguments.work == tmp_path / "work" / "quick"
        study.write("A trial", "What it is.", new_axes(None, (2, 2)))

    assert call(carry_out, "--quick") == 0
    assert (tmp_path / "results" / "trial_quick.md").exists()


def test_what_is_typed_counts_before_the_quick_form(call):
    seen = []
    assert call(lambda study: seen.extend(study.seeds), "--quick", "--seeds", "3") == 0
    assert seen == [1, 2, 3]


def test_files_can_be_called_something_else(call, tmp_path, capsys):
    def carry_out(study):
        assert study.command == "python experiments/trial.py --seeds 3"
        study.write("A trial", "What it is.", new_axes(None, (2, 2)))

    assert call(carry_out, "--seeds", "3", "--name", "leaves") == 0
    assert {path.name for path in (tmp_path / "results").iterdir()} == {"leaves.md", "leaves.csv", "leaves.png"}
    assert "](leaves.png)" in (tmp_path / "results" / "leaves.md").read_text()
    capsys.readouterr()
    assert call(carry_out, "--name", "../leaves") == 2
    assert "--name ../leaves" in capsys.readouterr().err
    assert call(carry_out, "--name", "") == 2


def test_bad_input_and_interruption(call, capsys):
    def refuse(_):
        raise InputError("data.npz: no such file")

    def stop(_):
        raise KeyboardInterrupt

    assert call(refuse) == 2
    assert capsys.readouterr().err == "trial: error: data.npz: no such file\n"
    assert call(stop) == 130
    assert call(refuse, "--seeds", "0") == 2
    assert "--seeds" in capsys.readouterr().err
