"""``moevoprune compare``, mostly in this process."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from moevoprune.cli import compare as module
from moevoprune.cli.main import main
from moevoprune.fronts.comparison import COLUMNS

QUICK = ["--cv", "3", "--set", "epochs=3", "--set", "hidden=8", "--budget", "40"]
METHODS = ["--methods", "dense,anova,guided"]
FILES = {"cells", "compare.csv", "compare.json", "compare.md", "figures", "members.csv"}


@pytest.fixture
def npz(small_features, tmp_path):
    path = tmp_path / "small.npz"
    small_features.save(path)
    return path


def run(*arguments):
    return main(["compare", *(str(argument) for argument in arguments)])


def error_of(capsys, *arguments):
    try:
        code = run(*arguments)
    except SystemExit as exit_:  # argparse
        code = exit_.code
    assert code == 2
    line = capsys.readouterr().err.strip()
    assert line
    assert "\n" not in line
    assert "Traceback" not in line
    return line


def rows_without_seconds(out):
    rows = list(csv.DictReader((out / "compare.csv").read_text().splitlines()))
    assert all(float(row.pop("seconds")) >= 0 for row in rows)
    return rows


def files(out):
    return {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(small_features, tmp_path_factory):
    """A finished comparison in one process; not to be changed."""
    folder = tmp_path_factory.mktemp("whole")
    small_features.save(folder / "small.npz")
    assert run(folder / "small.npz", "--out", folder / "out", "--seeds", 2, *METHODS, *QUICK, "--jobs", 1) == 0
    return folder / "out"


def test_what_is_written(whole):
    assert {path.name for path in whole.iterdir()} == FILES
    assert sorted(path.name for path in (whole / "cells").iterdir()) == [
        f"small-{method}-{seed}.json" for method in ("anova", "dense", "guided") for seed in (1, 2)
    ]
    assert (whole / "figures" / "small.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((whole / "compare.csv").read_text().splitlines()))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["method"], row["seed"]) for row in rows] == [
        (method, seed) for method in ("guided", "dense", "anova") for seed in ("1", "2")
    ]
    text = (whole / "compare.md").read_text()
    assert re.search(
        r"`moevoprune compare \S*small\.npz --methods guided,dense,anova --seeds 2 --budget 40 --cv 3", text
    )
    assert "## small" in text
    assert "torch" in text
    members = list(csv.DictReader((whole / "members.csv").read_text().splitlines()))
    assert {row["method"] for row in members} == {"guided", "dense", "anova"}
    settings = json.loads((whole / "compare.json").read_text())
    assert len(settings["data"][0]["sha256"]) == 64


def test_worker_processes_give_the_same(whole, npz, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(npz, "--out", out, "--seeds", 2, *METHODS, *QUICK, "--jobs", 2) == 0
    said = capsys.readouterr().out
    assert re.search(
        r"small guided seed [12]: test hypervolume \.\d{4}, \d+ s   \(\d/6, about \d+:\d\d left\)", said
    )
    assert "(6/6)" in said
    assert max(len(line) for line in said[said.index("test hv") :].splitlines()[:4]) <= 120
    assert rows_without_seconds(out) == rows_without_seconds(whole)
    assert (out / "members.csv").read_bytes() == (whole / "members.csv").read_bytes()
    assert not multiprocessing.active_children()


def test_resume_runs_what_is_missing_and_says_what_is_damaged(npz, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(npz, "--out", out, "--seeds", 1, *METHODS, *QUICK, "--jobs", 1) == 0
    before, kept = rows_without_seconds(out), (out / "cells" / "small-dense-1.json").read_bytes()
    (out / "cells" / "small-guided-1.json").unlink()
    (out / "cells" / "small-anova-1.json").write_bytes(b'{"data"')
    (out / "compare.csv").unlink()
    capsys.readouterr()
    assert run(npz, "--out", out, "--seeds", 1, *METHODS, *QUICK, "--jobs", 1, "--resume") == 0
    said = capsys.readouterr().out
    assert "small-anova-1.json: is damaged and will be run again" in said
    assert "2 of 3 cells to run" in said
    assert rows_without_seconds(out) == before
    assert (out / "cells" / "small-dense-1.json").read_bytes() == kept

    # methods and seeds may grow, and the rest need not be said again
    assert run("--out", out, "--resume", "--methods", "weight_magnitude", "--seeds", 2, "--jobs", 1) == 0
    said = capsys.readouterr().out
    assert "5 of 8 cells to run" in said
    rows = rows_without_seconds(out)
    assert [row for row in rows if row in before] == before
    assert {row["method"] for row in rows} == {"guided", "dense", "anova", "weight_magnitude"}
    assert run("--out", out, "--resume", "--quiet") == 0
    assert capsys.readouterr().out == ""
    assert len(rows_without_seconds(out)) == 8


def test_another_comparison_is_refused_and_untouched(whole, npz, tmp_path, capsys):
    before = files(whole)
    assert "holds another comparison" in error_of(capsys, npz, "--out", whole, *METHODS, *QUICK)
    resume = ["--out", whole, "--resume", "--jobs", 1]
    assert "budget: 40 → 50" in error_of(capsys, *resume, "--budget", 50)
    assert "head.epochs: 3 → 4" in error_of(capsys, *resume, "--set", "epochs=4")
    assert "objectives: " in error_of(capsys, *resume, "--objectives", "accuracy,active_neurons")
    assert "DATA: small → small digits" in error_of(capsys, npz, "digits", *resume, *QUICK)
    assert files(whole) == before


def test_other_data_of_the_same_name_are_refused(whole, small_features, tmp_path, capsys):
    type(small_features)(
        small_features.X_train + 1, small_features.y_train, small_features.X_test, small_features.y_test
    ).save(tmp_path / "small.npz")
    line = error_of(capsys, tmp_path / "small.npz", "--out", whole, "--resume", *METHODS, *QUICK)
    assert "small, data: " in line


def test_damaged_settings(whole, tmp_path, capsys):
    (tmp_path / "compare.json").write_text((whole / "compare.json").read_text()[:-20])
    assert "damaged" in error_of(capsys, "--out", tmp_path, "--resume")
    (tmp_path / "compare.json").write_text("[]")
    assert "damaged" in error_of(capsys, "--out", tmp_path, "--resume")
    assert "what to resume" in error_of(capsys, "--out", tmp_path / "no", "--resume")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--methods", "anov"], "did you mean 'anova'"),
        (["--methods", ""], "no method"),
        (["--seeds", "0"], "--seeds"),
        (["--seeds", "x"], "--seeds"),
        (["--budget", "0"], "--budget"),
        (["--jobs", "0"], "--jobs"),
        (["--objectives", "active_neurons,cka"], "accuracy"),
        (["--objectives", "acuracy"], "did you mean"),
        (["--device", "cuda:77"], "not available"),
        (["--set", "seed=3"], "--seeds"),
        (["--set", "pop=3"], "--budget"),
        (["--set", "epoch=3"], "did you mean"),
        (["--set", "epochs=many"], "epochs"),
        (["--resume"], "--out"),
        (["--out", ""], "--out is empty"),
        (["digit"], "did you mean 'digits'"),
        (["gone.npz"], "no such file"),
    ],
)
def test_bad_options_are_one_line_and_write_nothing(npz, tmp_path, capsys, monkeypatch, arguments, word):
    monkeypatch.chdir(tmp_path)
    assert word in error_of(capsys, npz, *arguments)
    assert not (tmp_path / "comparisons").exists()


def test_equal_names_are_told_apart_and_the_folder_is_new(npz, small_features, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    small_features.save(tmp_path / "other" / "Small.npz")
    (tmp_path / "mine.toml").write_text('[data]\nfeatures = "small.npz"\n[problem]\nencoding = "neurons"\n')
    monkeypatch.chdir(tmp_path)
    for folder in ("small-Small-2-mine", "small-Small-2-mine-2"):
        assert (
            run(npz, "other/Small.npz", "mine.toml", "--methods", "dense", "--seeds", 1, *QUICK, "--jobs", 1) == 0
        )
        out = tmp_path / "comparisons" / folder
        assert [row["data"] for row in rows_without_seconds(out)] == ["small", "Small-2", "mine"]
        assert {path.name for path in (out / "figures").iterdir()} == {"small.png", "Small-2.png", "mine.png"}


def test_the_longest_cells_come_first(npz, tmp_path, small_features, monkeypatch):
    rows = slice(0, 60)
    type(small_features)(
        small_features.X_train[rows], small_features.y_train[rows], small_features.X_test, small_features.y_test
    ).save(tmp_path / "fewer.npz")
    order = []
    run_cell = module._run_cell
    monkeypatch.setattr(module, "_run_cell", lambda cell: order.append(cell.key[:2]) or run_cell(cell))
    out = tmp_path / "out"
    data = [tmp_path / "fewer.npz", npz]
    assert run(*data, "--methods", "anova,guided", "--seeds", 1, "--out", out, *QUICK, "--jobs", 1) == 0
    assert order == [("small", "guided"), ("small", "anova"), ("fewer", "guided"), ("fewer", "anova")]


def test_ctrl_c_keeps_what_is_finished(npz, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    run_cell = module._run_cell

    def interrupted(cell):
        if cell.method == "anova":
            raise KeyboardInterrupt
        return run_cell(cell)

    monkeypatch.setattr(module, "_run_cell", interrupted)
    arguments = [npz, "--out", out, "--seeds", 1, *METHODS, *QUICK, "--jobs", 1]
    assert run(*arguments) == 130
    captured = capsys.readouterr()
    assert (
        f"interrupted: 2 of 3 cells are finished; to go on: moevoprune compare --out {out} --resume"
        in captured.out
    )
    assert captured.err == ""
    assert len(list((out / "cells").iterdir())) == 2
    monkeypatch.undo()
    assert run("--out", out, "--resume", "--jobs", 1) == 0
    assert len(rows_without_seconds(out)) == 3


def test_bad_input_in_a_worker_is_one_line(npz, tmp_path, capsys, monkeypatch):
    load = module._load

    def changed_afterwards(*arguments):
        data = load(*arguments)
        os.unlink(npz)
        return data

    monkeypatch.setattr(module, "_load", changed_afterwards)
    line = error_of(capsys, npz, "--out", tmp_path / "out", *METHODS, *QUICK, "--jobs", 2)
    assert "small.npz" in line
    assert not multiprocessing.active_children()


def start(npz, out, *more):
    """Start a comparison that takes long, in a process group of its own."""
    command = [
        sys.executable,
        "-m",
        "moevoprune",
        "compare",
        str(npz),
        "--out",
        str(out),
        "--methods",
        "dense,guided",
    ]
    command += ["--seeds", "2", "--cv", "3", "--set", "epochs=200", "--budget", "100000", "--jobs", "2", *more]
    pipe = subprocess.PIPE
    # tests that were started in the background of a script ignore Ctrl-C, and so would what they start
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True, preexec_fn=heard)


def wait_for_workers(process):
    """Wait until both workers are at work; returns the processes started by this one."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    for _ in range(600):
        found = children.read_text().split()
        workers = [pid for pid in found if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
        if len(workers) == 2:
            return workers
        time.sleep(0.1)
    raise AssertionError("no workers")


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


needs_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at processes in /proc")


@needs_proc
@pytest.mark.parametrize(("kill", "code"), [("group", 130), ("worker", 2), ("parent", -signal.SIGKILL)])
def test_no_process_is_left_behind(npz, tmp_path, kill, code):
    process = start(npz, tmp_path / "out")
    workers = wait_for_workers(process)
    # the workers are still loading their modules, or at work: neither may show
    time.sleep(1.0)
    if kill == "group":
        os.killpg(process.pid, signal.SIGINT)
    elif kill == "worker":
        os.kill(int(workers[0]), signal.SIGKILL)
    else:
        process.kill()
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err
    if kill == "group":
        assert "to go on: moevoprune compare --out" in out
        assert err == ""
    elif kill == "worker":
        assert "a worker process ended unexpectedly" in err
        assert err.count("\n") == 1
    deadline = time.monotonic() + 30
    while any(is_running(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_running(pid) for pid in workers)


def test_help(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["compare", "--help"])
    assert exit_.value.code == 0
    assert "recursive_elimination" in capsys.readouterr().out


def test_run_says_how_it_stands_against_baselines(npz, tmp_path, capsys):
    quick = ["--pop", "6", "--gens", "2", "--cv", "3", "--set", "epochs=3", "--set", "hidden=8"]
    assert main(["run", str(npz), "--out", str(tmp_path / "a"), *quick]) == 0
    assert "against the best of 4 baselines" in capsys.readouterr().out
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    assert record["baselines"]["best"] in record["baselines"]["tried"]
    assert main(["run", str(npz), "--out", str(tmp_path / "b"), *quick, "--no-baselines"]) == 0
    assert "baselines" not in capsys.readouterr().out
    assert "baselines" not in json.loads((tmp_path / "b" / "run.json").read_text())
    assert (tmp_path / "a" / "front.csv").read_bytes() == (tmp_path / "b" / "front.csv").read_bytes()
