"""The benchmark of large data measures what it says."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from moevoprune import FeatureSet

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    threads, before = torch.get_num_threads(), set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("large_data")
    torch.set_num_threads(threads)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]


def test_it_writes_the_same_set_whatever_is_written_at_once(script, tmp_path, monkeypatch):
    script.write_folder(tmp_path / "a", 300, 12)
    features = FeatureSet.load(tmp_path / "a")
    assert features.X_train.dtype == np.float16
    assert (features.n_train, features.n_test, features.n_features, features.n_classes) == (300, 30, 12, 10)
    assert 0.2 < np.mean(features.X_train == 0) < 0.5
    monkeypatch.setattr(script, "_ROWS_AT_ONCE", 77)
    script.write_folder(tmp_path / "b", 300, 12)
    assert FeatureSet.load(tmp_path / "b").content_hash == features.content_hash


def test_cases_and_report(script, tmp_path, monkeypatch):
    monkeypatch.setattr(
        script, "measure", lambda folder, given: script.generation(folder, given.epochs, given.masks)
    )
    options = ["--json", str(tmp_path / "cases.json"), "--save", str(tmp_path), "--folder", str(tmp_path)]
    assert script.main(["--quick", *options]) == 0
    cases = json.loads((tmp_path / "cases.json").read_text())
    assert [case["name"] for case in cases] == [
        "1,000 rows, peak memory",
        "2,000 rows, peak memory",
        "2,000 rows, time per row",
    ]
    assert all(case["ratio"] > 0 and case["peak_bytes"] > 1e7 for case in cases)
    assert "| 2,000 |" in (tmp_path / "large_data.md").read_text()
    # what it has written is gone
    assert {path.name for path in tmp_path.iterdir()} == {"cases.json", "large_data.md"}
