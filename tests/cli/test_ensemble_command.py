"""``moevoprune ensemble``, and run folders as all commands read them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest

from moevoprune import Front, InputError, evolve
from moevoprune.cli.building import build_problem
from moevoprune.cli.config import parse_config, to_toml
from moevoprune.cli.main import main
from moevoprune.cli.runs import load_front, member_of, read_record, run_features, run_settings
from moevoprune.fronts.ensemble_tables import load_study

FILES = ["ensembles.csv", "ensembles.json", "windows.csv"]


def save_run(folder, source, seed=1, **data):
    """What ``run`` leaves of a run on a file of features, without its figures and its page."""
    raw = {
        "seed": seed,
        "data": {"features": str(source), **data},
        "problem": {"cv": 3},
        "search": {"pop": 8, "gens": 2},
        "head": {"hidden": [8], "epochs": 4},
        "compute": {"device": "cpu"},
    }
    config, problem = build_problem(parse_config(raw, "settings"))
    evolve(problem, pop_size=8, n_gen=2, seed=seed).save(folder)
    (folder / "config.toml").write_text(to_toml(config))
    record = {"seed": seed, "data": {"name": problem.features.name, "sha256": problem.features.content_hash}}
    (folder / "run.json").write_text(json.dumps(record))


@pytest.fixture(scope="module")
def made(tmp_path_factory, small_features):
    """Two runs of one problem, and the file they are about."""
    root = tmp_path_factory.mktemp("runs")
    small_features.save(root / "small.npz")
    for seed in (1, 2):
        save_run(root / str(seed), root / "small.npz", seed)
    return root


@pytest.fixture
def root(made, tmp_path):
    """A copy to write into; its settings still name the file of the original."""
    return shutil.copytree(made, tmp_path / "runs")


def ensemble(*arguments):
    return main(["ensemble", *(str(argument) for argument in arguments)])


def test_it_prints_the_table_and_writes_the_files(root, capsys, small_features):
    assert ensemble(root / "1") == 0
    said = capsys.readouterr().out
    study = load_study(root / "1")
    assert study.to_text() in said
    front = Front.load(root / "1")
    assert study.row("default").test == front.ensemble().score(small_features.X_test, small_features.y_test)
    assert (root / "1" / "ensembles.csv").read_text() == study.to_csv()
    assert (root / "1" / "windows.csv").read_text().startswith("low,high,members,hard,soft,")
    assert matplotlib.image.imread(root / "1" / "figures" / "windows.png").ndim == 3
    # twice is the same
    before = [(root / "1" / name).read_bytes() for name in FILES]
    assert ensemble(root / "1", "--quiet") == 0
    assert capsys.readouterr().out == ""
    assert [(root / "1" / name).read_bytes() for name in FILES] == before


def test_options_add_an_ensemble(root, small_features):
    assert ensemble(root / "1", "--how", "knee", "--members", 2, "--voting", "hard", "--quiet") == 0
    first = load_study(root / "1").ensembles[0]
    assert (first.name, first.voting, first.members) == ("knee (as asked)", "hard", 2)
    expected = Front.load(root / "1").ensemble("knee", "hard", members=2)
    assert first.test == expected.score(small_features.X_test, small_features.y_test)
    assert ensemble(root / "1", "--max-features", 6, "--quiet") == 0
    first = load_study(root / "1").ensembles[0]
    assert (first.name, first.voting) == ("default (as asked)", "soft")
    assert first.union_features <= 6


def test_several_runs_are_merged(root, monkeypatch):
    monkeypatch.chdir(root)
    assert ensemble("1", "2", "--quiet") == 0
    assert not (root / "1" / "ensembles.json").exists()
    study = load_study(root / "ensembles" / "1")
    merged = load_front([root / "1", root / "2"])
    assert study.row("all").members == len(merged)
    assert ensemble("1", "2", "--out", "there", "--quiet") == 0
    assert load_study(root / "there") == study


def test_data_that_have_moved(root, capsys):
    moved = root / "moved.npz"
    settings = (root / "1" / "config.toml").read_text()
    (root / "1" / "config.toml").write_text(settings.replace("small.npz", "gone.npz"))
    shutil.move(root / "small.npz", moved)
    assert ensemble(root / "1") == 2
    assert "if they have moved, add --data FILE.npz" in capsys.readouterr().err
    assert not (root / "1" / "ensembles.json").exists()
    assert ensemble(root / "1", "--data", moved, "--quiet") == 0


def test_other_data_are_refused(root, small_features, capsys):
    replace(small_features, X_train=small_features.X_train * 2).save(root / "other.npz")
    assert ensemble(root / "1", "--data", root / "other.npz") == 2
    assert "are not those of the run" in capsys.readouterr().err
    assert not (root / "1" / "ensembles.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--how", "gredy"], "did you mean 'greedy'"),
        (["--members", "0"], "--members = 0"),
        (["--max-features", "-1"], "--max-features = -1"),
        (["--out", ""], "--out is empty"),
        (["--data", "nowhere.npz"], "nowhere.npz"),
    ],
)
def test_bad_input_is_one_line(root, capsys, arguments, said):
    assert ensemble(root / "1", *arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (root / "1" / "ensembles.json").exists()


def test_a_folder_that_is_no_run(tmp_path, capsys):
    assert ensemble(tmp_path) == 2
    assert "a finished run?" in capsys.readouterr().err


def test_runs_without_predictions_are_told_what_to_do(root, capsys):
    (root / "1" / "predictions.npz").unlink()
    assert ensemble(root / "1") == 2
    assert "no validation predictions" in capsys.readouterr().err


def test_a_regression_run(tmp_path, small_regression, capsys):
    small_regression.save(tmp_path / "line.npz")
    run = tmp_path / "run"
    save_run(run, tmp_path / "line.npz")
    assert ensemble(run, "--voting", "hard") == 2
    assert "use soft" in capsys.readouterr().err
    assert ensemble(run) == 0
    assert "test R²" in capsys.readouterr().out
    assert load_study(run).metric == "r2"


def test_the_command_is_known_without_heavy_imports():
    code = (
        "import sys; import moevoprune.cli.ensemble, moevoprune.cli.runs; "
        "print([m for m in ('torch', 'matplotlib', 'pymoo', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_records(root, tmp_path):
    record = read_record(root / "1")
    assert record["seed"] == 1
    assert read_record(tmp_path) == {}
    for content in ("{", "", "[" * 100_000):
        (root / "1" / "run.json").write_text(content)
        with pytest.raises(InputError, match="is damaged"):
            read_record(root / "1")
    (root / "1" / "run.json").write_text("[1]")
    assert read_record(root / "1") == {}


def test_data_of_a_run(root, small_features):
    features = run_features(root / "1")
    assert features.content_hash == small_features.content_hash
    assert run_features(root / "1", root / "small.npz").content_hash == small_features.content_hash
    # a front saved from Python has neither settings nor record
    Front.load(root / "1").save(root / "bare")
    assert run_settings(root / "bare") is None
    with pytest.raises(InputError, match="add --data"):
        run_features(root / "bare")
    assert run_features(root / "bare", root / "small.npz").n_train == small_features.n_train
    assert ensemble(root / "bare", "--data", root / "small.npz", "--quiet") == 0


def test_data_with_added_out_of_distribution_rows(root, tmp_path, small_features):
    rows = np.random.default_rng(0).normal(size=(90, 14))
    labels = np.arange(90) % 3
    replace(small_features, X_train=rows[:50], y_train=labels[:50], X_test=rows[50:], y_test=labels[50:]).save(
        tmp_path / "ood.npz"
    )
    run = tmp_path / "run"
    save_run(run, root / "small.npz", ood=[str(tmp_path / "ood.npz")])
    shutil.move(root / "small.npz", root / "moved.npz")
    with pytest.raises(InputError, match="if they have moved"):
        run_features(run)
    features = run_features(run, root / "moved.npz")
    assert features.content_hash == read_record(run)["data"]["sha256"]
    assert features.X_ood_test is not None
    assert ensemble(run, "--data", root / "moved.npz", "--quiet") == 0
    assert load_study(run).ood_score == "temperature"


def test_fronts_of_runs(root):
    first, both = load_front([root / "1"]), load_front([root / "1", root / "2"])
    assert len(first) == len(Front.load(root / "1"))
    expected = Front.merge([Front.load(root / "1"), Front.load(root / "2")])
    np.testing.assert_array_equal(both.masks, expected.masks)
    record = json.loads((root / "2" / "run.json").read_text())
    record["data"]["sha256"] = "0" * 64
    (root / "2" / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="is about other data"):
        load_front([root / "1", root / "2"])


def test_members_by_name(root):
    front = Front.load(root / "1")
    assert member_of(front, "knee") == front.knee()
    assert member_of(front, "best") == front.best("accuracy")
    assert member_of(front, "0") == 0
    for wanted in ("last", "-1", "999", "1.5", "", "²"):
        with pytest.raises(InputError, match="use knee, best or a number"):
            member_of(front, wanted)
