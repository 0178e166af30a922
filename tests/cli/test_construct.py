"""``moevoprune construct``: from data to tables, a figure and a network."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from moevoprune import FeatureSet
from moevoprune.cli.main import main
from moevoprune.construction.storing import StoredNetwork
from moevoprune.construction.tables import open_table, split_table
from moevoprune.fronts.plots import style

LITTLE = [
    "--hidden",
    "10,8",
    "--epochs",
    "4",
    "--cv",
    "2",
    "--weight-decay",
    "0.01",
    "--epsilon",
    "0,1",
    "--jobs",
    "1",
]


@pytest.fixture(autouse=True)
def rough_figures(monkeypatch):
    monkeypatch.setattr(style, "DPI", 30)


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_tables_figure_and_network_are_written(tmp_path, capsys):
    out = tmp_path / "out"
    command = ["construct", "wine", "linnerud", "--seeds", "2", "--seed", "3", "--budget", "0", "--out", str(out)]
    assert main([*command, *LITTLE]) == 0
    printed = capsys.readouterr().out
    assert "linnerud: regression, 20 rows, 3 features, 3 targets" in printed
    assert "constructed of it, and retrained" in printed
    rows = read(out / "construct.csv")
    assert {(row["data"], row["seed"]) for row in rows} == {
        (d, s) for d in ("wine", "linnerud") for s in ("3", "4")
    }
    assert len(rows) == 4 * 6
    swept = [row for row in read(out / "sweep.csv") if row["data"] == "wine" and row["seed"] == "3"]
    assert [row["epsilon"] for row in swept] == ["", "0.000000", "1.000000"]
    assert sum(int(row["chosen"]) for row in swept) == 1
    for name in ("wine", "linnerud"):
        assert (out / "figures" / f"{name}.png").stat().st_size > 1000
    text = (out / "construct.md").read_text(encoding="utf-8")
    assert "seeds 3 to 4" in text
    assert str(tmp_path) not in text
    # the network that was saved is the one that was scored
    (refined,) = (row for row in rows if (row["data"], row["seed"], row["method"]) == ("wine", "3", "refined"))
    features = split_table(open_table("wine"), 3)
    stored = StoredNetwork.load(out / "wine.safetensors")
    right = stored.predict(features.X_test) == np.array(features.class_names)[features.y_test]
    assert float(refined["test"]) == pytest.approx(right.mean(), abs=1e-6)
    assert "-".join(str(width) for width in stored.network.widths[1:-1]) == refined["units"]
    # nothing is written over
    assert main([*command, *LITTLE]) == 2
    assert "holds other constructed networks" in capsys.readouterr().err


def test_a_csv_file_and_its_export(tmp_path, capsys):
    generator = np.random.default_rng(0)
    lines = [f"{x:.3f},{'ab'[int(x > 0)]},{3 * x + 1:.3f},{-x:.3f}" for x in generator.normal(size=40)]
    path = tmp_path / "line.csv"
    path.write_text("\n".join(["x,sign,y,z", *lines]), encoding="utf-8")
    out, exported = tmp_path / "out", tmp_path / "network.safetensors"
    words = ["construct", str(path), "--target", "y,z", "--budget", "0", "--out", str(out), "--to", str(exported)]
    assert main([*words, *LITTLE]) == 0
    printed = capsys.readouterr().out
    assert "line: regression, 40 rows, 3 features, 2 targets" in printed
    assert "evolutionary" not in printed
    assert exported.exists()
    assert StoredNetwork.load(out / "line.safetensors").predict(path).shape == (40, 2)


def test_features_of_a_file(tmp_path, small_features, capsys):
    path = tmp_path / "small.npz"
    small_features.save(path)
    out = tmp_path / "out"
    assert main(["construct", str(path), "--budget", "0", "--out", str(out), "--quiet", *LITTLE]) == 0
    assert capsys.readouterr().out == ""
    assert StoredNetwork.load(out / "small.safetensors").class_names == small_features.class_names


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "is no bundled set"),
        (["absent.csv", "--target", "a"], "cannot be read"),
        (["wine", "--target", "a"], "name columns of a CSV file"),
        (["wine", "--hidden", "a"], "--hidden a: use whole numbers"),
        (["wine", "--hidden", "0"], "between 1 and"),
        (["wine", "--epsilon", "1,0"], "rising"),
        (["wine", "--epsilon", "-1"], "at least 0"),
        (["wine", "--measure", "deviaton"], "did you mean 'deviation'"),
        (["wine", "--seeds", "0"], "--seeds = 0"),
        (["wine", "--test-fraction", "1"], "between 0 and 1"),
        (["wine", "--test-fraction", "0.99"], "99%"),
        (["wine", "--task", "regression"], "wine is a classification set"),
        (["wine", "--out", ""], "--out is empty"),
        (["wine", "--to", "x.pkl"], "the ending chooses the format"),
        (["wine", "digits", "--to", "x.pt2"], "one file holds one network"),
        (["wine", "--budget", "-1"], "--budget = -1"),
    ],
)
def test_bad_input_ends_with_2_and_one_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["construct", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_files_with_test_rows_of_their_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    FeatureSet(np.eye(6), np.arange(6.0), np.eye(6), np.ones(6), task="regression").save("level.npz")
    assert main(["construct", "level.npz", "--test-fraction", "0.3"]) == 2
    assert "has test rows of its own" in capsys.readouterr().err
    assert main(["construct", "level.npz", "--jobs", "1"]) == 2
    assert "target 0 (counted from 0) is constant over the 6 rows" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["level.npz"]


def test_too_few_rows_of_a_class_for_the_folds(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    features = FeatureSet(np.eye(6), [0, 0, 0, 0, 0, 1], np.eye(6), [0, 1, 0, 0, 0, 0])
    features.save(tmp_path / "few.npz")
    assert main(["construct", "few.npz", "--jobs", "1"]) == 2
    assert "class '1' has 1 training rows" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["few.npz"]


def test_folders_and_files_are_tried_before_the_training(tmp_path, capsys):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "wine.safetensors").write_text("mine", encoding="utf-8")
    out = str(tmp_path / "out")
    for words, message in (
        (["--out", str(tmp_path / "file")], "no folder that can be written to"),
        (["--out", str(tmp_path / "file" / "out")], "no folder that can be written to"),
        (["--out", str(tmp_path / "full")], "is there already"),
        (["--out", out, "--to", str(tmp_path / "file" / "a.safetensors")], "no folder that can be written to"),
        (["--out", out, "--to", f"{out}/wine.safetensors"], "is a file of the --out folder"),
        (["--out", out, "--batch-size", "1" + 20 * "0"], "batch_size"),
    ):
        assert main(["construct", "wine", *LITTLE, *words]) == 2
        printed = capsys.readouterr()
        assert message in printed.err
        # nothing was trained
        assert printed.out == ""
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "full" / "wine.safetensors").read_text(encoding="utf-8") == "mine"
