"""Every benchmark runs, and writes its cases, with tiny settings."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SCRIPTS = ("trainer", "generation", "time_to_front", "scaling", "budget")

Run = Callable[..., tuple[list[dict[str, Any]], str]]


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The folder of the benchmarks as the place that modules come from, as it is where one is started."""
    threads, before = torch.get_num_threads(), set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]


@pytest.fixture
def run(scripts: None, tmp_path: Path) -> Run:
    """Run a benchmark quickly; returns its cases and its report."""

    def of(name: str, *options: str) -> tuple[list[dict[str, Any]], str]:
        script = importlib.import_module(name)
        cases = tmp_path / "cases.json"
        code = script.main(["--quick", "--json", str(cases), "--save", str(tmp_path), *options])
        assert code == 0
        return json.loads(cases.read_text(encoding="utf-8")), (tmp_path / f"{name}.md").read_text(encoding="utf-8")

    return of


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_writes_its_cases_and_its_report(name: str, run: Run, tmp_path: Path) -> None:
    options = ["--reference", str(tmp_path / "absent")] if name == "trainer" else []
    cases, report = run(name, *options)
    assert cases
    for case in cases:
        assert math.isfinite(case["ratio"])
        assert case["ratio"] >= 0
        assert case["baseline"]
        # a quick run judges nothing
        assert "met" not in case
    names = [case["name"] for case in cases]
    assert len(set(names)) == len(names)
    assert report.startswith("# ")
    assert f"`python benchmarks/{name}.py --quick" in report
    assert "|---|" in report
    assert str(tmp_path) not in report
    if name == "trainer":
        assert "Left out: no reference run in absent/" in report


def test_the_published_program_is_compared_by_processor_time_per_mask(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    rows = np.maximum(rng.normal(size=(40, 12)) + labels[:, None], 0).astype(np.float32)
    folder = tmp_path / "reference"
    folder.mkdir()
    np.savez(folder / "features.npz", X_train=rows[:30], y_train=labels[:30], X_test=rows[30:], y_test=labels[30:])
    np.save(folder / "masks.npy", np.ones((1, 12), dtype=np.uint8))
    recorded = {"accuracy": 0.5, "final_train_loss": 0.5, "cpu_seconds": 1000.0}
    only = {"mask": 0, "density": 1.0, "epochs": 600, "keras": recorded, "torch_sequential": recorded}
    (folder / "results.json").write_text(json.dumps({"runs": [only]}))
    (case,), report = run("trainer", "--parts", "keras", "--reference", str(folder))
    assert case["cpu_seconds_baseline"] == 1000.0
    assert case["ratio"] == pytest.approx(1000.0 / case["cpu_seconds_ours"])
    assert "(trained 2, scaled to 600)" in report


def test_both_loops_learn_what_they_are_timed_on(scripts: None) -> None:
    # a baseline that did not train would be no baseline
    common = importlib.import_module("common")
    sequential = importlib.import_module("sequential")
    from moevoprune.heads.encodings import HeadShape
    from moevoprune.heads.settings import HeadSettings

    features, labels = (torch.from_numpy(array) for array in common.make_task(96, 24, 3))
    settings = HeadSettings.preset("paper", hidden=(16,), epochs=60, learning_rate=0.05)
    shape = HeadShape(24, (16,), 3)
    masks = common.make_masks("features", 0.5, shape, 2)
    losses = sequential.train_in_a_loop(features, labels, shape, settings, masks)
    stacked = sequential.train_stacked(features, labels, shape, settings, masks)
    for loss in [*losses, *stacked]:
        assert loss < 0.7 * math.log(3)


def test_a_mask_of_the_loop_is_what_the_encoding_says(scripts: None) -> None:
    common = importlib.import_module("common")
    sequential = importlib.import_module("sequential")
    from moevoprune.heads.encodings import HeadShape

    shape = HeadShape(5, (4, 3), 2)
    for encoding in ("features", "neurons", "neurons:2", "features+neurons", "connections"):
        (mask,) = common.make_masks(encoding, 0.5, shape, 1)
        head = sequential.MaskedHead(shape, mask)
        inside = np.zeros((5, 4), dtype=bool)
        kept = np.ones((len(mask.inputs), 4), dtype=bool) if mask.connections is None else mask.connections[0]
        inside[mask.inputs] = kept
        inside[:, np.setdiff1d(np.arange(4), mask.hidden[0])] = False
        weights = head.hidden[0].weight * head.get_buffer("mask0")
        np.testing.assert_array_equal(weights.detach().numpy().T != 0, inside)


def test_a_target_is_met_or_not(scripts: None) -> None:
    case = importlib.import_module("common").Case
    assert case("a", 12.0, "b", at_least=12.0).verdict() == "≥ 12: met"
    assert case("a", 11.9, "b", at_least=12.0).verdict() == "≥ 12: not met"
    assert case("a", 0.06, "b", at_most=0.05).verdict("%") == "≤ 5 %: not met"
    assert case("a", 1.0, "b").verdict() == ""
    with pytest.raises(ValueError, match="the ratio is inf"):
        case("a", math.inf, "b").to_dict()


def test_the_command_in_a_report_tells_no_places(scripts: None) -> None:
    command = importlib.import_module("common")._command
    argv = ["--json", "a.json", "--data", "/home/me/x.npz", "y.npz", "--save", "--seeds", "3", "--save", "there"]
    assert command("budget", argv) == "python benchmarks/budget.py --data x.npz y.npz --seeds 3"
