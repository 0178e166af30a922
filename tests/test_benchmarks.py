"""Every benchmark runs, and writes its cases, with tiny settings."""

from __future__ import annotations

import dataclasses
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


def _masks_of_all_sizes(n_bits: int, n_masks: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    rng = np.random.default_rng(5)
    masks = np.zeros((n_masks, n_bits), dtype=np.bool_)
    for mask, size in zip(masks, np.linspace(1, n_bits, n_masks).astype(int), strict=True):
        mask[rng.permutation(n_bits)[:size]] = True
    return masks


@pytest.mark.parametrize("rungs", [{"folds": (1, 2)}, {"epochs": (0.25, 0.5)}])
@pytest.mark.parametrize("form", ["dual", "gathered"])
def test_who_survives_a_race_has_the_fitness_it_has_without(scripts: None, rungs: Any, form: Any) -> None:
    common, racing = importlib.import_module("common"), importlib.import_module("racing")
    from moevoprune import HeadSettings, PruningProblem

    settings = {"head": HeadSettings(hidden=(8,), epochs=8, batch_size=32), "seed": 1}
    alone = PruningProblem(common.small_task(), device="cpu", **settings)
    race = racing.RacingProblem(common.small_task(), racing.Race(**rungs), **settings)
    for trainer in (alone.fitness.trainer, race.fitness.trainer):
        trainer.grouping = dataclasses.replace(trainer.grouping, form=form)
    masks = _masks_of_all_sizes(alone.n_var, 24)
    usual, raced = alone.values(masks), race.values(masks)
    survived = (race.violations(masks) <= 0).all(axis=1)
    assert race.n_dropped == (~survived).sum() > 0
    assert race.n_trained == survived.sum() >= 6
    if "epochs" in rungs:
        np.testing.assert_array_equal(raced[survived], usual[survived])
    else:
        np.testing.assert_allclose(raced[survived], usual[survived], rtol=0, atol=1e-5)


def test_who_drops_out_of_a_race_is_dominated_and_in_no_front(scripts: None) -> None:
    common, racing = importlib.import_module("common"), importlib.import_module("racing")
    from moevoprune import HeadSettings
    from moevoprune.search.loop import run_search

    head = HeadSettings(hidden=(8,), epochs=4)
    race = racing.Race(epochs=(0.5,), margin=0.03, by_quality=True)
    problem = racing.RacingProblem(common.small_task(), race, head=head, seed=1)
    found = run_search(problem, pop_size=16, n_gen=4, algorithm="nsga2")
    assert problem.n_dropped > 0
    assert (problem.violations(found.masks) <= 0).all()
    losses = np.array([[0.5, 0.1, 0.2], [0.52, 0.2, 0.2], [0.54, 0.2, 0.2], [0.4, 0.3, 0.2], [0.6, 0.05, 0.2]])
    nobody = np.zeros((0, 3))
    assert problem._drop_outs(losses, nobody).tolist() == [False, False, True, False, False]
    earlier = np.array([[0.1, 0.1, 0.2]])
    # all but the last are clearly dominated, but half may stay: the worst go
    assert problem._drop_outs(losses, earlier).tolist() == [False, True, True, False, False]


def test_the_confidence_interval_of_a_gain(scripts: None) -> None:
    from scipy.stats import ttest_1samp, ttest_ind

    interval = importlib.import_module("budget").interval
    values = np.array([0.1, 0.4, -0.2, 0.3])
    expected = ttest_1samp(values, 0.0).confidence_interval(0.95)
    centre, half = interval([values])
    assert (centre - half, centre + half) == pytest.approx((expected.low, expected.high))
    # of several sets the mean; the same spread on four sets halves the standard error
    centre, half = interval([values, values + 1, values + 2, values + 3])
    assert centre == pytest.approx(values.mean() + 1.5)
    assert half == pytest.approx(values.std(ddof=1) / 4 * 2.1788128296634177)
    # sets that vary differently: Welch, whose difference of one and minus the other is twice the mean of both
    wide = np.array([3.0, -4.0, 8.0])
    welch = ttest_ind(values, -wide, equal_var=False).confidence_interval(0.95)
    centre, half = interval([values, wide])
    assert (2 * (centre - half), 2 * (centre + half)) == pytest.approx((welch.low, welch.high))
    assert math.isnan(interval([values[:1]])[1])


def test_the_command_in_a_report_tells_no_places(scripts: None) -> None:
    command = importlib.import_module("common")._command
    argv = ["--json", "a.json", "--data", "/home/me/x.npz", "y.npz", "--save", "--seeds", "3", "--save", "there"]
    assert command("budget", argv) == "python benchmarks/budget.py --data x.npz y.npz --seeds 3"
