"""The command line, in this process."""

from __future__ import annotations

import csv
import json
import os
import pickle
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from moevoprune import Front
from moevoprune.cli.config import parse_config, read_toml, set_value, to_toml
from moevoprune.cli.main import main
from moevoprune.errors import InputError

QUICK = ["--pop", "6", "--gens", "2", "--cv", "3", "--set", "epochs=3", "--set", "hidden=8"]
FILES = {
    "config.toml",
    "run.json",
    "front.csv",
    "front.npz",
    "heads.safetensors",
    "evaluations.journal",
    "figures",
    "predictions.npz",
    "report.html",
}
STUDIED = FILES | {"ensembles.csv", "ensembles.json", "windows.csv"}


@pytest.fixture
def npz(small_features, tmp_path):
    path = tmp_path / "small.npz"
    small_features.save(path)
    return path


def error_of(capsys, arguments, code=2):
    """Run a command that fails and return its one line."""
    try:
        exit_code = main([str(argument) for argument in arguments])
    except SystemExit as exit_:  # argparse
        exit_code = exit_.code
    assert exit_code == code
    captured = capsys.readouterr()
    line = captured.err.strip()
    assert line
    assert "\n" not in line
    assert "Traceback" not in line
    return line


def test_run_show_plot(npz, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["run", str(npz), "--out", str(out), "--seed", "3", *QUICK]) == 0
    said = capsys.readouterr().out
    assert "generation   2/2" in said
    assert "hypervolume" in said
    assert "left" in said
    assert {path.name for path in out.iterdir()} == STUDIED
    assert {path.name for path in (out / "figures").iterdir()} == {
        "front.png",
        "front3d.png",
        "pairs.png",
        "parallel.png",
        "convergence.png",
        "windows.png",
    }
    rows = list(csv.DictReader((out / "front.csv").read_text().splitlines()))
    front = Front.load(out)
    assert len(rows) == len(front) + 1
    with np.load(out / "front.npz") as arrays:
        assert arrays["masks"].shape == (len(front), 14)
        assert arrays["F"].shape == (len(front), 3)
    record = json.loads((out / "run.json").read_text())
    # a mask that the start population would hold twice is dropped
    assert record["evaluations"] in (10, 11, 12)
    assert record["seed"] == 3
    assert len(record["hypervolume_per_generation"]) == 2
    assert record["data"]["sha256"]
    assert record["packages"]["torch"]

    assert main(["show", str(out)]) == 0
    table = capsys.readouterr().out
    members, _, line = table.rpartition("\n\n")
    assert len(members.splitlines()) == len(rows) + 1
    assert line.startswith("hypervolume of all 3 objectives")
    assert "accuracy / cka" in line
    assert "knee" in table
    assert "dense" in table
    before = (out / "figures" / "front.png").read_bytes()
    (out / "figures" / "front.png").unlink()
    assert main(["plot", str(out)]) == 0
    assert (out / "figures" / "front.png").read_bytes() == before


def test_config_gives_the_same_run_again(npz, tmp_path):
    assert main(["run", str(npz), "--out", str(tmp_path / "a"), "--quiet", *QUICK]) == 0
    assert main(["run", str(tmp_path / "a" / "config.toml"), "--out", str(tmp_path / "b"), "--quiet"]) == 0
    for name in ("front.csv", "config.toml", "evaluations.journal"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_chunk_size_changes_nothing(npz, tmp_path, chunk):
    assert main(["run", str(npz), "--out", str(tmp_path / "a"), "--quiet", *QUICK]) == 0
    assert main(["run", str(npz), "--out", str(tmp_path / "b"), "--quiet", *QUICK, "--set", f"chunk={chunk}"]) == 0
    assert (tmp_path / "a" / "front.csv").read_bytes() == (tmp_path / "b" / "front.csv").read_bytes()


def test_a_problem_file_with_options_on_top(npz, tmp_path):
    problem = tmp_path / "my.toml"
    problem.write_text(
        'seed = 5\n[data]\nfeatures = "small.npz"\n[problem]\nobjectives = ["accuracy", "active_neurons"]\n'
        '[head]\npreset = "paper"\nepochs = 2\nhidden = [6]\n[search]\npop = 4\ngens = 1\n'
    )
    out = tmp_path / "out"
    assert main(["run", str(problem), "--out", str(out), "--cv", "3", "--quiet", "--set", "batch_size=16"]) == 0
    config = parse_config(read_toml(out / "config.toml"), "config")
    assert config.seed == 5
    assert config.head.bias is False
    assert config.head.standardise is False
    assert (config.head.epochs, config.head.hidden, config.head.batch_size) == (2, (6,), 16)
    assert config.problem.cv == 3
    assert config.problem.objectives == ("accuracy", "active_neurons")
    assert config.data.features == str(npz)
    assert config.compute.device in ("cpu", "cuda")


def test_output_folder_is_new_where_none_is_given(npz, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("small-seed1", "small-seed1-2"):
        assert main(["run", str(npz), *QUICK]) == 0
        assert (tmp_path / "runs" / name / "front.csv").exists()
        assert name in capsys.readouterr().out


def test_regression_by_option(small_regression, tmp_path, capsys):
    path = tmp_path / "line.npz"
    np.savez(
        path,
        X_train=small_regression.X_train,
        y_train=small_regression.y_train,
        X_test=small_regression.X_test,
        y_test=small_regression.y_test,
    )
    line = error_of(capsys, ["run", path, "--out", tmp_path / "x"])
    assert "task=regression" in line
    assert (
        main(["run", str(path), "--out", str(tmp_path / "x"), "--set", "task=regression", "--quiet", *QUICK]) == 0
    )
    assert "test_r2" in (tmp_path / "x" / "front.csv").read_text()


def test_problems_version_and_help(capsys):
    assert main(["problems"]) == 0
    assert "digits" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert re.match(r"moevoprune \d", capsys.readouterr().out)
    for arguments in (["--help"], ["run", "--help"], ["show", "--help"]):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == 0
        assert "usage" in capsys.readouterr().out
    assert main([]) == 0


class Exploit:
    """Would run code if it were unpickled."""

    def __reduce__(self):
        return (os.system, ("echo pwned",))


def bad_npz(path, small_features, **changes):
    arrays = {
        "X_train": np.array(small_features.X_train),
        "y_train": np.array(small_features.y_train),
        "X_test": np.array(small_features.X_test),
        "y_test": np.array(small_features.y_test),
    }
    arrays.update(changes)
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def test_bad_features_are_refused_before_anything_is_written(small_features, tmp_path, capsys):
    x = np.array(small_features.X_train)
    y = np.array(small_features.y_train)
    nan = x.copy()
    nan[4, 7] = np.nan
    infinite = x.copy()
    infinite[9, 2] = np.inf
    rare = y.copy()
    rare[rare == 2] = 0
    rare[:3] = 2
    cases = {
        "X_test": {"X_test": None},
        "95": {"X_train": x[:-1]},
        "row 4": {"X_train": nan},
        "column 2": {"X_train": infinite},
        "one class": {"y_train": np.zeros_like(y), "y_test": np.zeros(45, int)},
        "fewer than 5 folds": {"y_train": rare},
        "integers": {"y_train": y + 0.5},
        "start at 0": {"y_train": y + 1, "y_test": small_features.y_test + 1},
        "pickle": {"class_names": np.array([Exploit()], dtype=object)},
    }
    for word, changes in cases.items():
        path = bad_npz(tmp_path / "bad.npz", small_features, **changes)
        line = error_of(capsys, ["run", path, "--out", tmp_path / "out"])
        assert word in line, (word, line)
        assert "bad.npz" in line or "bad" in line
        assert not (tmp_path / "out").exists()
    (tmp_path / "plain.npz").write_bytes(pickle.dumps({"X_train": 1}))
    assert "plain.npz" in error_of(capsys, ["run", tmp_path / "plain.npz", "--out", tmp_path / "out"])
    assert "no such file" in error_of(capsys, ["run", tmp_path / "gone.npz"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--pop", "0"], "pop"),
        (["--pop", "1"], "pop"),
        (["--gens", "0"], "gens"),
        (["--gens", "x"], "gens"),
        (["--algorithm", "guide"], "did you mean 'guided'"),
        (["--gens", "3", "--set", "budget=9"], "one of them"),
        (["--set", "repeats=0"], "repeats"),
        (["--encoding", "featres"], "did you mean 'features'"),
        (["--objectives", "accuracy,activ_neurons"], "did you mean 'active_neurons'"),
        (["--objectives", ""], "empty"),
        (["--objectives", "r2"], "accuracy"),
        (["--device", "gpu"], "cuda"),
        (["--device", "cuda:77"], "not available"),
        (["--cv", "0"], "cv"),
        (["--seed", "-1"], "seed"),
        (["--set", "epoch=3"], "did you mean"),
        (["--set", "epochs=many"], "epochs"),
        (["--set", "head.epochs=0"], "epochs"),
        (["--set", "hidden=[8,8,8]"], "two hidden"),
        (["--set", "learning_rate=nan"], "learning_rate"),
        (["--set", "epochs"], "key=value"),
        (["--set", "preset=papers"], "paper"),
        (["--set", "max_active=99"], "max_active"),
        (["--resume"], "--out"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_bad_options_are_one_line(npz, tmp_path, capsys, arguments, word, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert word in error_of(capsys, ["run", npz, *arguments])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("toml", "word"),
    [
        ("nonsense", "TOML"),
        ('[data]\nfeature = "digits"\n', "did you mean 'features'"),
        ('[data]\nfeatures = "digits"\n[problem]\nobjective = ["accuracy"]\n', "did you mean 'objectives'"),
        ('[data]\nfeatures = "digits"\n[heads]\nepochs = 1\n', "did you mean 'head'"),
        ('[data]\nfeatures = "digits"\n[head]\nepochs = "many"\n', "head.epochs"),
        ('[data]\nfeatures = "digits"\n[head]\nepochs = 1.5\n', "head.epochs"),
        ('[data]\nfeatures = "digits"\n[search]\npop = 1\n', "search.pop"),
        ('[data]\nfeatures = "gone.npz"\n', "gone.npz"),
        ("seed = 1\n", "data"),
        ('head = 3\n[data]\nfeatures = "digits"\n', "head"),
    ],
)
def test_bad_problem_files_are_one_line(tmp_path, capsys, toml, word):
    (tmp_path / "p.toml").write_text(toml)
    assert word in error_of(capsys, ["run", tmp_path / "p.toml", "--out", tmp_path / "out"])
    assert not (tmp_path / "out").exists()


def test_unknown_problem_and_missing_run(tmp_path, capsys):
    assert "did you mean 'digits'" in error_of(capsys, ["run", "digit"])
    assert "not found" in error_of(capsys, ["show", tmp_path / "no"])
    assert "not found" in error_of(capsys, ["plot", tmp_path / "no"])


def test_a_folder_with_another_run_is_refused_and_untouched(npz, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["run", str(npz), "--out", str(out), "--quiet", *QUICK]) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert "holds another run" in error_of(capsys, ["run", npz, "--out", out, *QUICK])
    line = error_of(capsys, ["run", npz, "--out", out, *QUICK, "--resume", "--seed", "9", "--set", "epochs=4"])
    assert "seed: 1 → 9" in line
    assert "head.epochs: 3 → 4" in line
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_resume_with_changed_data_says_so(npz, small_features, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["run", str(npz), "--out", str(out), "--quiet", *QUICK]) == 0
    x = np.array(small_features.X_train)
    x[0, 0] += 1
    bad_npz(npz, small_features, X_train=x)
    assert "data" in error_of(capsys, ["run", npz, "--out", out, *QUICK, "--resume"])


def test_resume_of_a_finished_run_writes_the_same(npz, tmp_path):
    out = tmp_path / "out"
    assert main(["run", str(npz), "--out", str(out), "--quiet", *QUICK]) == 0
    before = (out / "front.csv").read_bytes()
    (out / "front.csv").unlink()
    assert main(["run", "--out", str(out), "--quiet", "--resume"]) == 0
    assert (out / "front.csv").read_bytes() == before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_one_line(npz, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "evaluations.journal").symlink_to("/dev/full")
    line = error_of(capsys, ["run", npz, "--out", out, *QUICK, "--resume"])
    assert "journal" in line


def test_a_file_in_place_of_the_folder(npz, tmp_path, capsys):
    (tmp_path / "out").write_text("mine")
    assert "cannot be made" in error_of(capsys, ["run", npz, "--out", tmp_path / "out", *QUICK])
    assert (tmp_path / "out").read_text() == "mine"


def test_ctrl_c_writes_the_partial_front_and_exits_with_130(npz, tmp_path, monkeypatch, capsys):
    from moevoprune.search.problem import PruningProblem

    out = tmp_path / "out"
    evaluate, calls = PruningProblem._evaluate, []

    def interrupted(self, x, results, *args, **kwargs):
        calls.append(len(x))
        if len(calls) == 3:
            raise KeyboardInterrupt
        evaluate(self, x, results, *args, **kwargs)

    many = [*QUICK[:3], "5", *QUICK[4:]]
    monkeypatch.setattr(PruningProblem, "_evaluate", interrupted)
    assert main(["run", str(npz), "--out", str(out), *many]) == 130
    assert "--resume" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == FILES
    assert json.loads((out / "run.json").read_text())["interrupted"] is True
    monkeypatch.undo()
    assert main(["run", "--out", str(out), "--resume", "--quiet"]) == 0
    assert main(["run", str(npz), "--out", str(tmp_path / "whole"), "--quiet", *many]) == 0
    assert (out / "front.csv").read_bytes() == (tmp_path / "whole" / "front.csv").read_bytes()


def test_settings_survive_toml(tmp_path):
    raw = {"data": {"features": "digits"}, "head": {"preset": "paper"}}
    set_value(raw, "max_active=7")
    set_value(raw, "problem.objectives=['accuracy']")
    config = parse_config(raw, "here")
    (tmp_path / "c.toml").write_text(to_toml(config))
    assert parse_config(read_toml(tmp_path / "c.toml"), "there") == config
    with pytest.raises(InputError, match="known keys"):
        set_value(raw, "zzzzzz=1")


def test_python_m(monkeypatch, capsys):
    import runpy

    monkeypatch.setattr(sys, "argv", ["moevoprune", "problems"])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_module("moevoprune", run_name="__main__")
    assert exit_.value.code == 0
    assert "digits" in capsys.readouterr().out


def test_a_diverged_final_head_does_not_lose_the_run(small_regression, npz, tmp_path, capsys):
    line = tmp_path / "line.npz"
    small_regression.save(line)
    for path, column, worst in [(line, "test_r2", -1000.0), (npz, "test_accuracy", 0.0)]:
        out = tmp_path / column
        arguments = ["run", str(path), "--out", str(out), *QUICK, "--set", "learning_rate=1e25"]
        assert main(arguments) == 0
        captured = capsys.readouterr()
        assert "diverged masks" in captured.out
        assert "the unpruned head has diverged" in captured.out
        assert captured.err == ""
        rows = list(csv.DictReader((out / "front.csv").read_text().splitlines()))
        assert {float(row[column]) for row in rows} == {worst}
        assert len(Front.load(out)) == len(rows) - 1


def test_resume_of_nothing_is_refused_and_writes_nothing(npz, tmp_path, capsys):
    assert "what to resume" in error_of(capsys, ["run", "--out", tmp_path / "typo", "--resume"])
    assert not (tmp_path / "typo").exists()
    out = tmp_path / "run"
    assert main(["run", str(npz), "--out", str(out), "--quiet", *QUICK]) == 0
    front = (out / "front.csv").read_bytes()
    (out / "config.toml").unlink()
    assert "what to resume" in error_of(capsys, ["run", "--out", out, "--resume"])
    assert "head.epochs" in error_of(capsys, ["run", npz, "--out", out, "--resume", *QUICK, "--set", "epochs=9"])
    assert not (out / "config.toml").exists()
    assert main(["run", str(npz), "--out", str(out), "--quiet", "--resume", *QUICK]) == 0
    assert (out / "front.csv").read_bytes() == front


def test_too_few_rows_for_cka_are_found_before_anything_is_written(small_features, tmp_path, capsys):
    few = np.r_[0:3, 10:13, 20:23]
    labels = np.repeat([0, 1, 2], 3)
    path = bad_npz(tmp_path / "few.npz", small_features, X_train=small_features.X_train[few], y_train=labels)
    assert "CKA" in error_of(capsys, ["run", path, "--out", tmp_path / "out", "--cv", "3"])
    assert not (tmp_path / "out").exists()


def test_the_start_keeps_to_the_bounds(npz, tmp_path):
    out = tmp_path / "out"
    bounds = ["--set", "min_active=12", "--set", "max_active=13"]
    assert main(["run", str(npz), "--out", str(out), "--quiet", *QUICK, *bounds]) == 0
    active = Front.load(out).active
    assert len(active) > 0
    assert set(active) <= {12, 13}


def test_a_relative_path_given_by_set_is_stored_whole(npz, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "digits", "--out", "run", "--quiet", *QUICK, "--set", "features=small.npz"]) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["run", "--out", str(tmp_path / "run"), "--quiet", "--resume"]) == 0


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--seed", str(2**32)], "--seed"),
        (["--set", "preset=[]"], "preset"),
        (["--set", "preset=papr"], "did you mean 'paper'"),
        (["--set", "hidden=[99999999999]"], "hidden"),
        (["--pop", "1000000000000000"], "--pop"),
        (["--set", "noise=1e300"], "noise"),
        (["--set", "learning_rate=" + "9" * 5000], "learning_rate"),
        (["--set", "features=a" + "b" * 300], "too long"),
        (["--set", "head=3"], "head"),
        (["--out", ""], "--out"),
    ],
)
def test_odd_values_are_one_line(npz, tmp_path, capsys, arguments, word, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = error_of(capsys, ["run", npz, *arguments])
    assert word in line
    assert len(line) < 1000
    assert not (tmp_path / "runs").exists()


def test_impossible_paths_and_odd_toml_are_one_line(npz, tmp_path, capsys):
    assert error_of(capsys, ["run", "x" * 5000 + ".npz"])
    assert error_of(capsys, ["run", ""])
    assert error_of(capsys, ["run", npz, "--out", tmp_path / ("x" * 300), *QUICK])
    problem = tmp_path / "p.toml"
    for text in (
        "[data]\nfeatures = 'digits'\n[head]\nlearning_rate = " + "9" * 5000,
        '[data]\nfeatures = "a\\u0000b.npz"\n',
        "[data]\nfeatures = 'digits'\n[head]\npreset = ['paper']\n",
    ):
        problem.write_text(text)
        assert error_of(capsys, ["run", problem, "--out", tmp_path / "out"])
    assert not (tmp_path / "out").exists()
    problem.write_text(f"[data]\nfeatures = '{npz}'\n", encoding="utf-8-sig")
    assert main(["run", str(problem), "--out", str(tmp_path / "out"), "--quiet", *QUICK]) == 0


def test_a_saved_front_is_not_overwritten(npz, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "front.csv").write_text("mine")
    assert "holds another run" in error_of(capsys, ["run", npz, "--out", tmp_path / "mine", *QUICK])
    assert (tmp_path / "mine" / "front.csv").read_text() == "mine"


def test_leftovers_of_a_killed_run_are_removed_on_resume(npz, tmp_path):
    out = tmp_path / "out"
    assert main(["run", str(npz), "--out", str(out), "--quiet", *QUICK]) == 0
    (out / ".heads.0123abcd.safetensors").write_bytes(b"half")
    (out / "figures" / ".front.89abcdef.png").write_bytes(b"half")
    (out / ".gitignore").write_text("*")
    assert main(["run", "--out", str(out), "--quiet", "--resume"]) == 0
    assert {path.name for path in out.iterdir()} == STUDIED | {".gitignore"}
    assert not list((out / "figures").glob(".*"))


def test_ctrl_c_while_retraining_says_how_to_go_on(npz, tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    monkeypatch.setattr("moevoprune.cli.run.declare_front", interrupted)
    assert main(["run", str(npz), "--out", str(out), *QUICK]) == 130
    assert f"--out {out} --resume" in capsys.readouterr().out
    monkeypatch.undo()
    assert main(["run", "--out", str(out), "--quiet", "--resume"]) == 0
    assert {path.name for path in out.iterdir()} == STUDIED


def test_what_was_measured_on_another_front_goes(npz, tmp_path):
    out = tmp_path / "out"
    assert main(["run", str(npz), "--out", str(out), "--quiet", *QUICK]) == 0
    (out / "robustness.csv").write_text("of this front")
    assert main(["run", "--out", str(out), "--quiet", "--resume"]) == 0
    assert (out / "robustness.csv").read_text() == "of this front"
    # a front of fewer members, as an interrupted run leaves it
    front = Front.load(out)
    kept = np.arange(len(front) - 1)
    replace(
        front,
        masks=front.masks[kept],
        active=front.active[kept],
        values=front.values[kept],
        F=front.F[kept],
        heads=front.heads[:-1],
        test=front.test[kept],
        test_columns={},
        dense_test_columns={},
        predictions=front.predictions.take(kept),
    ).save(out)
    assert main(["run", "--out", str(out), "--quiet", "--resume"]) == 0
    assert not (out / "robustness.csv").exists()
    assert (out / "ensembles.json").exists()


def test_a_reader_that_goes_away_does_not_stop_the_run(npz, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "moevoprune", "run", str(npz), "--out", str(out), *QUICK]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 0, error
    assert error == b""
    assert (out / "front.csv").exists()


def test_damaged_fronts_are_one_line(npz, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["run", str(npz), "--out", str(out), "--quiet", *QUICK]) == 0
    whole = (out / "front.npz").read_bytes()
    with np.load(out / "front.npz") as archive:
        arrays = dict(archive)
    changes = [
        {"values": np.zeros((2, 5))},
        {"objectives": np.array(["a"])},
        {"class_names": np.array("a")},
        {"dense_test": np.zeros(3)},
        {"active": np.array(["a", "b"])},
        {"format": np.array(99)},
        {"F": np.zeros((1, 1))},
        {"ideal": np.zeros(7)},
        {"test": np.zeros(1)},
        {"masks": np.zeros((0, 4, 4))},
    ]
    for change in changes:
        np.savez(out / "front.npz", **{**arrays, **change})
        line = error_of(capsys, ["show", out])
        assert str(out) in line
        assert "pickle" not in line
    for position in range(0, len(whole), max(len(whole) // 25, 1)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        (out / "front.npz").write_bytes(bytes(damaged))
        code = main(["show", str(out)])
        captured = capsys.readouterr()
        # a flipped bit in a time stamp hurts nobody; anything else is found
        assert code in (0, 2)
        assert code == 0 or (captured.err.count("\n") == 1 and "pickle" not in captured.err)


def test_the_algorithm_and_its_defaults_are_settings(tmp_path, npz):
    quick = ["--cv", "3", "--set", "epochs=2", "--set", "hidden=4", "--no-baselines", "--quiet"]
    assert main(["run", str(npz), "--out", str(tmp_path / "r"), "--algorithm", "reference", *quick]) == 0
    config = read_toml(tmp_path / "r" / "config.toml")
    assert config["search"] == {"algorithm": "reference", "pop": 30, "budget": 200}
    assert main(["run", str(npz), "--out", str(tmp_path / "g"), "--set", "budget=90", *quick]) == 0
    config = read_toml(tmp_path / "g" / "config.toml")
    assert config["search"] == {"algorithm": "guided", "pop": 40, "budget": 90}
    assert json.loads((tmp_path / "g" / "run.json").read_text())["evaluations"] in range(90, 131)


def test_repeated_folds_are_a_setting(tmp_path, npz):
    quick = ["--cv", "2", "--set", "epochs=2", "--set", "hidden=4", "--no-baselines", "--quiet", "--gens", "1"]
    out = tmp_path / "r"
    assert main(["run", str(npz), "--out", str(out), "--set", "repeats=2", "--pop", "4", *quick]) == 0
    assert read_toml(out / "config.toml")["problem"]["cv"] == 2
    assert main(["run", "--out", str(out), "--resume", "--no-baselines", "--quiet"]) == 0


def test_generations_asked_for_replace_a_stored_budget_and_the_other_way_round(npz, tmp_path):
    quick = ["--cv", "2", "--set", "epochs=2", "--set", "hidden=4", "--no-baselines", "--quiet"]
    first = ["run", str(npz), "--out", str(tmp_path / "a"), "--pop", "4", "--set", "budget=8", *quick]
    assert main(first) == 0
    config = str(tmp_path / "a" / "config.toml")
    assert main(["run", config, "--out", str(tmp_path / "b"), "--gens", "1", "--quiet", "--no-baselines"]) == 0
    assert read_toml(tmp_path / "b" / "config.toml")["search"] == {"algorithm": "guided", "pop": 4, "gens": 1}
