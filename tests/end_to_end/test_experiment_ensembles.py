"""The experiment on ensembles, on two small data sets that are each other's out-of-distribution rows."""

from __future__ import annotations

import csv
import runpy
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import ttest_rel
from sklearn.metrics import roc_auc_score

from moevoprune import Front, load_features
from moevoprune.cli.config import parse_config, read_toml
from moevoprune.cli.data import load_data
from moevoprune.studies.study import Study

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SETTINGS = "[problem]\ncv = 1\n[head]\nhidden = [8]\nepochs = 2\n"


@pytest.fixture
def call(monkeypatch, tmp_path, small_features):
    shifted = replace(small_features, X_train=small_features.X_train + 2, X_test=small_features.X_test + 2)
    for name, features in (("one", small_features), ("other", shifted)):
        features.save(tmp_path / f"{name}.npz")
        (tmp_path / f"{name}.toml").write_text(f'[data]\nfeatures = "{name}.npz"\n{SETTINGS}')

    def run(*sources):
        folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "results")]
        files = [str(tmp_path / source) for source in sources]
        settings = ["--seeds", "2", "--budget", "32", "--jobs", "1"]
        monkeypatch.setattr(sys, "argv", ["ensembles.py", *files, *settings, *folders])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(EXPERIMENTS / "ensembles.py"), run_name="__main__")
        return ended.value.code

    return run


def window_of(front, features, low, high):
    """Test accuracy of the majority (ties by mean probability) and AUROC of the mean score, from the outputs."""
    validation = front.column("accuracy")
    bottom, top = np.percentile(validation, [low, high], method="nearest")
    members = np.flatnonzero((validation >= bottom) & (validation <= top))
    outputs = np.stack([front.heads[member].outputs(features.X_test) for member in members]).astype(np.float64)
    votes = np.stack([np.bincount(row, minlength=3) for row in outputs.argmax(axis=2).T])
    labels = (votes + softmax(outputs, axis=2).mean(axis=0) / 2).argmax(axis=1)
    outside = np.stack([front.heads[member].outputs(features.X_ood_test) for member in members])
    scores = [softmax(z.astype(np.float64) / 1000, axis=2).max(axis=2).mean(axis=0) for z in (outputs, outside)]
    truth = np.repeat([1, 0], [len(part) for part in scores])
    return np.mean(labels == features.y_test), roc_auc_score(truth, np.concatenate(scores))


def test_windows_are_those_of_the_outputs_and_a_second_call_searches_nothing(call, tmp_path):
    assert call("one.toml", "other.toml") == 0
    rows = list(csv.DictReader((tmp_path / "results" / "ensembles.csv").read_text().splitlines()))
    windows = [row for row in rows if row["ensemble"] == "window" and row["low"]]
    assert len(windows) == 2 * 2 * 8
    for row in windows[::5]:
        # the runs of the experiment on three objectives
        folder = tmp_path / "work" / "ours" / f"{row['data']}-seed{row['seed']}"
        features = load_data(parse_config(read_toml(folder / "config.toml"), "config.toml"))
        hard, auroc = window_of(Front.load(folder), features, int(row["low"]), int(row["high"]))
        assert float(row["hard"]) == pytest.approx(hard, abs=1e-6)
        # scores differ in the sixth digit, where float32 may order a pair of rows otherwise
        assert float(row["ood_auroc"]) == pytest.approx(auroc, abs=2e-3)

    text = (tmp_path / "results" / "ensembles.md").read_text()
    assert str(tmp_path) not in text
    assert "`python experiments/ensembles.py one.toml other.toml --seeds 2 --budget 32`" in text
    pairs = [
        [
            np.mean([float(r[name]) for r in windows if (r["data"], r["seed"]) == ("one", seed)])
            for seed in ("1", "2")
        ]
        for name in ("soft", "best_member")
    ]
    difference = np.mean(np.subtract(*pairs))
    p_value = ttest_rel(*pairs).pvalue
    table = text.split("soft vote against the member best on test")[0].rsplit("|  |", 1)[1]
    (line,) = (line for line in table.splitlines() if line.startswith("| one |"))
    assert f"{difference:+.3f}".replace("0.", ".") in line
    assert f"{p_value:.3f}".lstrip("0") in line

    fronts = sorted((tmp_path / "work").rglob("front.npz"))
    before = [(path, path.stat().st_mtime_ns) for path in fronts]
    assert call("one.toml", "other.toml") == 0
    assert [(path, path.stat().st_mtime_ns) for path in fronts] == before
    assert (tmp_path / "results" / "ensembles.md").read_text() == text


def test_of_a_data_set_that_is_alone_the_last_class_is_out_of_distribution(call, tmp_path, small_features):
    study = Study("trial", Namespace(data=[str(tmp_path / "one.npz")], work=tmp_path / "work"))
    ((source, settings),) = study.with_others_as_ood().items()
    assert source == study.arguments.data[0]
    found = load_features(settings["data.features"])
    assert found.class_names == ("a", "b")
    np.testing.assert_array_equal(found.X_train, small_features.X_train[small_features.y_train < 2])
    np.testing.assert_array_equal(found.X_ood, small_features.X_train[small_features.y_train == 2])
    np.testing.assert_array_equal(found.X_ood_test, small_features.X_test[small_features.y_test == 2])


def test_bad_input(call, tmp_path, capsys):
    assert call("one.toml", "absent.npz") == 2
    error = capsys.readouterr().err
    assert error.startswith("ensembles: error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "results").exists()
