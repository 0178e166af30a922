"""``moevoprune sweep``: every run as ``moevoprune run`` writes it."""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
import statistics
from types import SimpleNamespace

import pytest

from moevoprune import Front, InputError
from moevoprune.cli import run as run_module
from moevoprune.cli import sweeping as module
from moevoprune.cli.main import main
from moevoprune.fronts.plots import style

QUICK = ["--pop", "6", "--gens", "2", "--cv", "3", "--set", "epochs=3", "--set", "hidden=8", "--no-baselines"]
SAME = ("config.toml", "evaluations.journal", "front.csv", "front.npz", "heads.safetensors", "predictions.npz")


@pytest.fixture
def problems(small_features, small_regression, tmp_path, monkeypatch):
    # nobody looks at the pictures
    monkeypatch.setattr(style, "DPI", 30)
    paths = [tmp_path / "small.npz", tmp_path / "line.toml"]
    small_features.save(paths[0])
    small_regression.save(tmp_path / "line.npz")
    paths[1].write_text('[data]\nfeatures = "line.npz"\ntask = "regression"\n')
    return [str(path) for path in paths]


def sweep(*arguments):
    return main(["sweep", *(str(argument) for argument in arguments)])


def error_of(capsys, *arguments):
    assert sweep(*arguments) == 2
    line = capsys.readouterr().err.strip()
    assert line
    assert "\n" not in line
    assert "Traceback" not in line
    return line


def rows_of(out):
    return list(csv.DictReader((out / "sweep.csv").read_text().splitlines()))


def test_runs_in_processes_are_those_of_run_and_are_summed_up(problems, tmp_path, capsys):
    out = tmp_path / "out"
    assert sweep(*problems, "--seeds", "2", "--out", out, *QUICK, "--jobs", 2) == 0
    assert not multiprocessing.active_children()
    said = capsys.readouterr().out
    folders = [f"{name}-seed{seed}" for name in ("small", "line") for seed in (1, 2)]
    assert sorted(path.name for path in out.iterdir()) == sorted([*folders, "sweep.csv"])
    assert main(["run", problems[0], "--seed", "2", "--out", str(tmp_path / "one"), "--quiet", *QUICK]) == 0
    assert {path.name for path in (tmp_path / "one").iterdir()} == {
        path.name for path in (out / "small-seed2").iterdir()
    }
    for name in SAME:
        assert (out / "small-seed2" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name

    rows = rows_of(out)
    assert [(row["problem"], row["seed"]) for row in rows] == [
        (name, seed) for name in ("small", "line") for seed in ("1", "2", "mean", "sd")
    ]
    front = Front.load(out / "small-seed1")
    assert int(rows[0]["members"]) == len(front)
    assert float(rows[0]["hypervolume"]) == pytest.approx(front.hypervolume(), abs=1e-6)
    assert float(rows[0]["dense_test"]) == pytest.approx(front.dense_test, abs=1e-6)
    best = max(range(len(front)), key=lambda member: front.column("accuracy")[member])
    assert float(rows[0]["best_test"]) == pytest.approx(front.test[best], abs=1e-6)
    pair = [float(row["hypervolume"]) for row in rows[4:6]]
    assert float(rows[6]["hypervolume"]) == pytest.approx(statistics.mean(pair), abs=1e-6)
    assert float(rows[7]["hypervolume"]) == pytest.approx(statistics.stdev(pair), abs=1e-6)
    assert f"moevoprune compare-runs {out / 'small-seed1'} {out / 'small-seed2'}" in said
    assert "(4/4)" in said


def test_resume_runs_what_is_missing(problems, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    arguments = [problems[0], "--seeds", "1,4", "--out", out, *QUICK]
    search = run_module.run_search
    calls = []

    def interrupted_in_the_second(*given, **named):
        calls.append(None)
        if len(calls) == 2:

            def stop(_):
                raise KeyboardInterrupt

            named["progress"] = stop
        return search(*given, **named)

    monkeypatch.setattr(run_module, "run_search", interrupted_in_the_second)
    assert sweep(*arguments, "--jobs", 1) == 130
    said = capsys.readouterr().out
    assert "1 of 2 runs are finished; to go on: moevoprune sweep" in said
    assert "--jobs 1" in said
    assert said.strip().endswith("--no-baselines --resume")
    monkeypatch.setattr(run_module, "run_search", search)
    assert not (out / "sweep.csv").exists()
    finished = (out / "small-seed1" / "run.json").read_bytes()
    assert "holds another run" in error_of(capsys, *arguments)
    assert "head.epochs: 3 → 5" in error_of(capsys, *arguments, "--resume", "--set", "epochs=5")
    assert sweep(*arguments, "--jobs", 2, "--resume") == 0
    assert "1 of 2 to run" in capsys.readouterr().out
    assert (out / "small-seed1" / "run.json").read_bytes() == finished
    assert [row["seed"] for row in rows_of(out)] == ["1", "4", "mean", "sd"]
    assert main(["run", problems[0], "--seed", "4", "--out", str(tmp_path / "one"), "--quiet", *QUICK]) == 0
    for name in SAME:
        assert (out / "small-seed4" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name


def test_a_run_that_fails_stops_no_other(problems, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    search = module.search_into

    def failing(config, *rest, **named):
        if config.seed == 1:
            raise ZeroDivisionError("by chance")
        return search(config, *rest, **named)

    monkeypatch.setattr(module, "search_into", failing)
    arguments = [problems[0], "--seeds", "2", "--out", out, *QUICK, "--jobs", 1]
    assert sweep(*arguments) == 1
    said = capsys.readouterr().out
    assert "failed, 1 of 2:" in said
    assert f"{out / 'small-seed1'}: ZeroDivisionError: by chance" in said
    assert [row["seed"] for row in rows_of(out)] == ["2", "mean"]


def _die_with_seed_1(task):
    if task.run.seed == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return f"seed {task.run.seed} was reached"


def test_a_process_that_is_killed_takes_no_other_run_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_carry_out", _die_with_seed_1)

    runs = [module.SweepRun("a", SimpleNamespace(seed=seed), tmp_path / str(seed), "", 1) for seed in (1, 2, 3)]
    outcomes = {run.seed: why for run, why in module.run_locally(runs, 2, module.FRONTS_ONLY)}
    assert outcomes[2] == "seed 2 was reached"
    assert outcomes[3] == "seed 3 was reached"
    assert "ended unexpectedly" in outcomes[1]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--seeds", "0"], "--seeds"),
        (["--seeds", "one"], "--seeds"),
        (["--seeds", ""], "--seeds"),
        (["--seeds", "1,-2"], "--seeds"),
        (["--jobs", "0"], "--jobs"),
        (["--set", "seed=3"], "--seeds"),
        (["--set", "jobs=3"], "--jobs"),
        (["--set", "epoch=3"], "did you mean"),
        (["--address", "auto"], "--engine ray"),
        (["--engine", "ray", "--jobs", "2"], "--jobs"),
        (["--resume"], "--out"),
        (["gone.npz"], "no such file"),
    ],
)
def test_bad_options_are_one_line_and_write_nothing(problems, tmp_path, capsys, monkeypatch, arguments, word):
    monkeypatch.chdir(tmp_path)
    assert word in error_of(capsys, problems[0], *arguments)
    assert not (tmp_path / "sweeps").exists()


def test_variants_go_into_folders_of_their_own_and_go_on(problems, tmp_path):
    settings = {"search.pop": 4, "search.gens": 2, "problem.cv": 3, "head.epochs": 2, "head.hidden": [8]}
    wanted = [
        module.WantedRun(problems[0], seed, variant, {**settings, "search.algorithm": variant})
        for variant in ("nsga2", "guided")
        for seed in (1, 2)
    ]
    said = []
    runs = module.run_wanted(wanted, tmp_path / "out", jobs=1, say=said.append)
    assert [run.out for run in runs] == [
        tmp_path / "out" / variant / f"small-seed{seed}" for variant in ("nsga2", "guided") for seed in (1, 2)
    ]
    assert said[-1].endswith("(4/4)")
    assert not list((tmp_path / "out").rglob("*.png"))
    assert not list((tmp_path / "out").rglob("report.html"))
    arguments = ["--pop", "4", "--gens", "2", "--cv", "3", "--set", "epochs=2", "--set", "hidden=[8]"]
    arguments += ["--algorithm", "nsga2", "--quiet"]
    assert main(["run", problems[0], "--seed", "2", "--out", str(tmp_path / "one"), *arguments]) == 0
    for name in SAME:
        assert (runs[1].out / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name

    # the finished ones stay, and another setting is refused
    before = (runs[0].out / "run.json").stat().st_mtime_ns
    (runs[3].out / "run.json").unlink()
    said.clear()
    module.run_wanted(wanted, tmp_path / "out", jobs=1, say=said.append)
    assert said == ["guided, small, seed 2: finished   (4/4)"]
    assert (runs[0].out / "run.json").stat().st_mtime_ns == before
    changed = module.WantedRun(problems[0], 1, "nsga2", {**wanted[0].settings, "head.epochs": 3})
    with pytest.raises(InputError, match=r"head\.epochs: 2 → 3"):
        module.run_wanted([changed], tmp_path / "out", jobs=1)


def test_fronts_only_leaves_the_pages_out(problems, tmp_path):
    out = tmp_path / "out"
    assert sweep(problems[0], "--seeds", "1,", "--out", out, *QUICK, "--fronts-only", "--jobs", 1) == 0
    files = {path.name for path in (out / "small-seed1").iterdir()}
    assert files == {*SAME, "run.json"}
    record = (out / "small-seed1" / "run.json").read_bytes()
    assert sweep(problems[0], "--seeds", "1,", "--out", out, *QUICK, "--fronts-only", "--resume") == 0
    assert (out / "small-seed1" / "run.json").read_bytes() == record
    # who wants the pages after all gets them
    assert sweep(problems[0], "--seeds", "1,", "--out", out, *QUICK, "--resume", "--jobs", 1) == 0
    assert (out / "small-seed1" / "report.html").exists()
