"""What the experiments share: options and results files."""

from __future__ import annotations

import csv
import os
import sys

import numpy as np
import pytest

from moevoprune import FeatureSet, InputError
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
        study.rows += [{"seed": 1, "accuracy": 0.5}, {"seed": 2, "size": 3, "accuracy": float("nan")}]
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


def test_a_slip_in_the_options_is_one_line(call, capsys):
    for slip in (["--nope", "1"], ["--seeds", "1.5"]):
        with pytest.raises(SystemExit) as ended:
            call(lambda study: None, *slip)
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert slip[0] in line
        assert "trial.py --help" in line


@pytest.mark.parametrize("option", ["--work", "--out"])
def test_a_folder_that_cannot_be_made_is_found_before_anything_is_done(call, tmp_path, capsys, option):
    (tmp_path / "file").write_text("")
    done = []
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        assert call(done.append, option, str(folder)) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{option} {folder}" in line
        assert "another" in line
    assert call(done.append, "--name", "n" * 300) == 2
    assert "--name" in capsys.readouterr().err
    assert not done


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_found_before_anything_is_done(call, tmp_path, capsys):
    (tmp_path / "shut").mkdir(mode=0o500)
    done = []
    assert call(done.append, "--out", str(tmp_path / "shut" / "inside")) == 2
    assert "cannot be written to" in capsys.readouterr().err
    assert not done


def test_of_one_seed_nothing_is_concluded(call, tmp_path):
    def carry_out(study):
        study.write("A trial", "What it is.", new_axes(None, (2, 2)))

    for seeds, said in (("1", True), ("2", False)):
        assert call(carry_out, "--seeds", seeds) == 0
        text = (tmp_path / "results" / "trial.md").read_text()
        assert ("nothing can be concluded" in text) is said


def test_the_page_finds_its_figure_and_says_what_to_type(call, tmp_path):
    def carry_out(study):
        study.write("A trial", study.command, new_axes(None, (2, 2)))

    assert call(carry_out, ".", "--name", "my trial", "--jobs", "1", "--jobs", "2") == 0
    text = (tmp_path / "results" / "my trial.md").read_text()
    assert "](my%20trial.png)" in text
    assert "python experiments/trial.py .\n" in text


def test_a_data_set_that_cannot_spare_a_class(call, tmp_path, capsys):
    rows = np.eye(6, dtype=np.float32)
    labels = np.arange(6) % 2
    FeatureSet(rows, labels, rows, labels).save(tmp_path / "two.npz")
    (tmp_path / "images" / "a").mkdir(parents=True)
    for source, said in (("two.npz", "name a second data set"), ("images", "name a second set of images")):
        assert call(lambda study: study.with_others_as_ood(), str(tmp_path / source)) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert source in line
        assert said in line
    assert not (tmp_path / "work").exists()


def test_of_several_data_sets_the_one_that_does_not_fit_is_named(call, tmp_path, capsys):
    rows, numbers = np.eye(8, dtype=np.float32), np.linspace(0, 1, 8)
    FeatureSet(rows, numbers, rows, numbers, task="regression").save(tmp_path / "numbers.npz")
    objectives = {"problem.objectives": ["accuracy", "active_neurons"], "search.budget": 2}
    assert call(lambda study: study.sweep({"any": objectives}), "digits", str(tmp_path / "numbers.npz")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "numbers.npz" in line
    assert "needs class labels" in line
    assert not (tmp_path / "work").exists()
