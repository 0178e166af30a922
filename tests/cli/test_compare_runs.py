"""``moevoprune compare-runs``: run folders in, tables and figures out."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from moevoprune import Front, HeadSettings, PruningProblem, evolve
from moevoprune.cli.building import build_problem
from moevoprune.cli.config import parse_config, to_toml
from moevoprune.cli.main import main

FILES = {"compare-runs.md", "runs.csv", "merged", "figures"}
TOML = '[problem]\ncv = {cv}\n[head]\nepochs = 4\n[search]\nalgorithm = "nsga2"\n'


@pytest.fixture(scope="module")
def runs(small_features, tmp_path_factory):
    """Run folders of three seeds, and one with other objectives."""
    root = tmp_path_factory.mktemp("runs")
    head = HeadSettings(hidden=(8,), epochs=4, batch_size=16)
    for name, seed, objectives in (
        ("one", 1, None),
        ("two", 2, None),
        ("three", 3, None),
        ("other", 1, ["accuracy", "active_neurons"]),
    ):
        problem = PruningProblem(small_features, objectives=objectives, head=head, cv=2, seed=seed)
        evolve(problem, pop_size=8, n_gen=2, seed=seed).save(root / name)
        record = {"seed": seed, "evaluations": 16, "data": {"sha256": "ab"}}
        (root / name / "run.json").write_text(json.dumps(record))
        (root / name / "config.toml").write_text(TOML.format(cv=2))
    return root


@pytest.fixture(scope="module")
def compared(small_features, tmp_path_factory):
    """A comparison of two runs that have data, made in an odd order of seeds."""
    root = tmp_path_factory.mktemp("compared")
    small_features.save(root / "small.npz")
    for seed in (2, 1):
        raw = {
            "seed": seed,
            "data": {"features": str(root / "small.npz")},
            "problem": {"cv": 3},
            "search": {"pop": 8, "gens": 2},
            "head": {"hidden": [8], "epochs": 4},
            "compute": {"device": "cpu"},
        }
        config, problem = build_problem(parse_config(raw, "settings"))
        folder = root / f"seed{seed}"
        evolve(problem, pop_size=8, n_gen=2, seed=seed).save(folder)
        (folder / "config.toml").write_text(to_toml(config))
        record = {
            "seed": seed,
            "evaluations": 16,
            "seconds": 2.5,
            "packages": {"torch": "1"},
            "data": {"name": "small", "sha256": problem.features.content_hash},
            "extraction": None,
        }
        (folder / "run.json").write_text(json.dumps(record))
    out = root / "out"
    assert main(["compare-runs", str(root / "seed2"), str(root / "seed1"), "--out", str(out), "--quiet"]) == 0
    return root


def said(capsys, *arguments):
    """Run a command that fails, and return its one line."""
    assert main(["compare-runs", *map(str, arguments)]) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("moevoprune: error: ")
    assert "\n" not in line
    return line


def test_runs_side_by_side(runs, tmp_path, capsys):
    folders = [runs / name for name in ("one", "two", "three")]
    out = tmp_path / "out"
    assert main(["compare-runs", *map(str, folders), "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == FILES
    assert {path.name for path in (out / "figures").iterdir()} == {"attainment.png", "front.png"}
    fronts = [Front.load(folder) for folder in folders]
    merged = Front.load(out / "merged")
    np.testing.assert_array_equal(merged.masks, Front.merge(fronts).masks)

    rows = list(csv.DictReader((out / "runs.csv").read_text().splitlines()))
    assert [row["run"] for row in rows] == ["one", "two", "three", "merged"]
    assert [row["seed"] for row in rows] == ["1", "2", "3", ""]
    assert [row["search"] for row in rows] == ["nsga2"] * 3 + [""]
    assert [row["evaluations"] for row in rows] == ["16"] * 3 + [""]
    for row, front in zip(rows, [*fronts, merged], strict=True):
        assert int(row["members"]) == len(front)
        assert float(row["knee_test"]) == pytest.approx(front.test[front.knee()], abs=1e-6)
        assert float(row["hypervolume"]) == pytest.approx(front.hypervolume(), abs=1e-6)
    assert sum(int(row["in_merged"]) for row in rows[:3]) == len(merged) == int(rows[3]["in_merged"])

    lines = capsys.readouterr().out.splitlines()
    table = {line.split()[0]: line.split() for line in lines if line.split()}
    assert lines[0].split()[:2] == ["run", "seed"]
    assert max(len(line) for line in lines[:8]) <= 120
    volumes = [float(row["test_hypervolume"]) for row in rows[:3]]
    assert float(table["mean"][-3]) == pytest.approx(np.mean(volumes), abs=1e-4)
    assert float(table["sd"][-3]) == pytest.approx(np.std(volumes, ddof=1), abs=1e-4)
    assert float(table["min"][-3]) == pytest.approx(min(volumes), abs=1e-4)
    assert float(table["max"][-3]) == pytest.approx(max(volumes), abs=1e-4)
    text = (out / "compare-runs.md").read_text()
    assert f"| two | 2 | nsga2 | {len(fronts[1])} |" in text
    assert "figures/attainment.png" in text
    assert "Jaccard" in text
    assert "measured alike" not in text


def test_merged_front_has_the_first_run_s_settings_and_data(compared):
    merged = compared / "out" / "merged"
    assert (merged / "config.toml").read_bytes() == (compared / "seed2" / "config.toml").read_bytes()
    first = json.loads((compared / "seed2" / "run.json").read_text())
    assert json.loads((merged / "run.json").read_text()) == {
        "data": first["data"],
        "extraction": None,
        "merged_from": ["seed2", "seed1"],
    }


def test_commands_take_the_merged_front_like_a_run(compared, tmp_path, capsys):
    merged = shutil.copytree(compared / "out" / "merged", tmp_path / "merged")
    front = Front.load(merged)
    assert main(["show", str(merged)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(front) + 4
    assert main(["ensemble", str(merged), "--quiet"]) == 0
    assert len(list(csv.DictReader((merged / "ensembles.csv").read_text().splitlines()))) > 5
    assert main(["robustness", str(merged), "--features-only", "--noise", "0,1", "--repeats", "1", "--quiet"]) == 0
    knee = next(csv.DictReader((merged / "robustness.csv").read_text().splitlines()))
    assert float(knee["accuracy"]) == pytest.approx(front.test[front.knee()], abs=1e-6)
    assert main(["export", str(merged), "--to", str(tmp_path / "knee.safetensors")]) == 0
    assert f"{front.active[front.knee()]} of 14 features" in (exported := capsys.readouterr().out)
    assert "45 test rows" in exported
    # `plot` draws the figure of the ensembles again as well
    before = (merged / "figures" / "windows.png").read_bytes()
    (merged / "figures" / "windows.png").unlink()
    assert main(["plot", str(merged)]) == 0
    assert (merged / "figures" / "windows.png").read_bytes() == before
    assert str(merged / "figures" / "windows.png") in capsys.readouterr().out
    # but there is no search in it to go on with
    assert main(["run", "--out", str(merged), "--resume"]) == 2
    assert "merged front of several runs" in capsys.readouterr().err


def test_report_of_a_merged_front_says_so(compared, tmp_path):
    merged = compared / "out" / "merged"
    for folder, path in ((merged, tmp_path / "merged.html"), (compared / "seed2", tmp_path / "one.html")):
        assert main(["report", str(folder), "--out", str(path), "--quiet"]) == 0
    page, single = ((tmp_path / name).read_text() for name in ("merged.html", "one.html"))
    assert f"The merged front of 2 runs: seed2, seed1. It holds the {len(Front.load(merged))} members" in page
    assert "<dt>Merged from</dt><dd>seed2, seed1</dd>" in page
    assert "Settings of the first of its runs" in page
    assert "merged front" not in single
    # what is true of the first run alone
    for about_one in ("<dt>Seed</dt>", "<dt>Budget</dt>", "<dt>Algorithm</dt>", "--out seed2-again"):
        assert about_one in single
        assert about_one.replace("seed2", "merged") not in page


def test_a_second_comparison_leaves_nothing_of_the_first(compared, tmp_path):
    out = shutil.copytree(compared / "out", tmp_path / "out")
    assert main(["ensemble", str(out / "merged"), "--quiet"]) == 0
    for name in ("seed1", "seed2"):
        Front.load(compared / name).save(tmp_path / name)
    assert main(["compare-runs", str(tmp_path / "seed1"), str(tmp_path / "seed2"), "--out", str(out)]) == 0
    files = {"front.csv", "front.npz", "heads.safetensors", "predictions.npz", "run.json"}
    assert {path.name for path in (out / "merged").iterdir() if path.is_file()} == files
    assert json.loads((out / "merged" / "run.json").read_text()) == {"merged_from": ["seed1", "seed2"]}


def test_quiet_into_a_new_folder(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["compare-runs", str(runs / "one"), str(runs / "two"), "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert sorted(path.name for path in (tmp_path / "comparisons").iterdir()) == [
        "one-and-1-more",
        "one-and-1-more-2",
    ]
    first, second = sorted((tmp_path / "comparisons").iterdir())
    for name in ("runs.csv", "compare-runs.md", "figures/attainment.png"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_fronts_saved_from_python_have_no_settings(runs, tmp_path):
    for name in ("one", "two"):
        Front.load(runs / name).save(tmp_path / name / "front")
    folders = [str(tmp_path / name / "front") for name in ("one", "two")]
    assert main(["compare-runs", *folders, "--out", str(tmp_path / "out")]) == 0
    rows = list(csv.DictReader((tmp_path / "out" / "runs.csv").read_text().splitlines()))
    # the folders have one name
    assert [row["run"] for row in rows] == [*folders, "merged"]
    assert {row["seed"] for row in rows} == {row["search"] for row in rows} == {""}


def test_names_of_others_are_harmless(runs, tmp_path, capsys):
    names = ["a|b<script>", "c\x1b[31m"]
    for run, name in zip(("one", "two"), names, strict=True):
        shutil.copytree(runs / run, tmp_path / name)
    assert main(["compare-runs", *(str(tmp_path / name) for name in names), "--out", str(tmp_path / "out")]) == 0
    assert "\x1b" not in capsys.readouterr().out
    text = (tmp_path / "out" / "compare-runs.md").read_text()
    assert "a\\|b&lt;script>" in text
    assert "\x1b" not in text


def test_other_folds_are_told(runs, tmp_path, capsys):
    shutil.copytree(runs / "two", tmp_path / "two")
    (tmp_path / "two" / "config.toml").write_text(TOML.format(cv=5))
    out = tmp_path / "out"
    assert main(["compare-runs", str(runs / "one"), str(tmp_path / "two"), "--out", str(out)]) == 0
    assert "the runs differ in problem.cv (2, 5)" in capsys.readouterr().out
    assert "problem.cv (2, 5)" in (out / "compare-runs.md").read_text()


def test_what_is_refused(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, two = runs / "one", runs / "two"
    assert "at least two" in said(capsys, one)
    assert f"e.g. {one}" in said(capsys, runs)
    assert "named twice" in said(capsys, one, two, runs / ".." / runs.name / "one")
    assert "is a run folder" in said(capsys, one, two, "--out", two)
    assert "--out is empty" in said(capsys, one, two, "--out", "")
    assert "not found" in said(capsys, one, tmp_path / "absent")
    line = said(capsys, one, runs / "other")
    assert "(accuracy, active_neurons)" in line
    assert "(accuracy, active_neurons, cka)" in line
    shutil.copytree(two, tmp_path / "two")
    (tmp_path / "two" / "run.json").write_text('{"data": {"sha256": "cd"}}')
    assert "other data" in said(capsys, one, tmp_path / "two")
    (tmp_path / "two" / "run.json").write_text("{")
    assert "damaged" in said(capsys, one, tmp_path / "two")
    (tmp_path / "file").touch()
    assert "cannot be made" in said(capsys, one, two, "--out", tmp_path / "file" / "out")
    assert not (tmp_path / "comparisons").exists()


def test_module_is_light():
    code = (
        "import sys, moevoprune.cli.compare_runs; print([m for m in ('torch', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
