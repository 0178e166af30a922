"""Numbers that misbehave, the fast part: every data set once, some through the commands, and what they give."""

from __future__ import annotations

import json
import math
import re
import warnings

import numpy as np
import pytest
import torch
from misbehaving_numbers import (
    CLASSIFICATION,
    DATA,
    REGRESSION,
    Combination,
    attempt,
    classes,
    compare_on,
    construct_from,
    filters_from,
    guarded,
    targets,
    with_features,
)

from moevoprune import FeatureSet, HeadSettings, InputError, PruningProblem, evolve
from moevoprune.baselines import RANKINGS, rank_bits
from moevoprune.cli.table import front_table
from moevoprune.fronts import statistics
from moevoprune.fronts.evolve import score_on_test
from moevoprune.fronts.export.modules import HeadModule
from moevoprune.fronts.plots import style
from moevoprune.fronts.tables import csv_text
from moevoprune.fronts.wording import short_number
from moevoprune.heads import batches, training
from moevoprune.heads.encodings import HeadMask, HeadShape
from moevoprune.heads.scaling import Scaling
from moevoprune.heads.trainer import PopulationTrainer

QUICK = HeadSettings(hidden=(5,), epochs=4, batch_size=16)

# data in which nothing can be searched, and what the one line says
REFUSED = {
    "2 rows": r"fewer than 2 folds|cannot fill",
    "one class": r"only one class",
    "one-row class": r"class '3' has 1 training rows, fewer than",
    "twelve classes of three rows": r"cannot hold out 25%",
    "features of 1e38": r"holds -?\d\.?\d*e\+3\d at row \d+, column \d .*scale it down",
    "largest of float32, both signs": r"holds -?3\.40282e\+38 .*scale it down",
    "largest of float32, mostly negative": r"scale it down",
    "one outlier of 1e38": r"holds 1e\+38 at row 3, column 2 .*scale it down",
    "regression, largest of float32": r"X_train holds -?3\.40282e\+38 .*scale it down",
    "largest of float32 as targets": r"y_train holds -?3\.40282e\+38 .*scale it down",
}


@pytest.fixture(autouse=True)
def rough_figures(monkeypatch):
    monkeypatch.setattr(style, "DPI", 30)


def chosen_for(data: str, number: int, **changes) -> Combination:
    """Settings that differ from data set to data set, so that each is met somewhere."""
    regression = data in REGRESSION
    objectives = (
        ("r2,active_neurons", "mse,active_neurons,cka:noise", "r2,cka:dense,active_neurons")
        if regression
        else (
            "accuracy,active_neurons",
            "accuracy,active_neurons,cka:noise,cka:dense",
            "accuracy,active_neurons,ood_auroc,ood_auroc:energy",
        )
    )
    # equal rows are no rows from elsewhere
    alone = data in ("all features constant", "all features zero", "all rows equal", "smallest subnormal features")
    settings = {
        "number_format": "float64",
        "encoding": ("features", "neurons", "features+neurons", "connections")[number % 4],
        "objectives": objectives[0 if alone else number % 3],
        "algorithm": ("guided", "nsga2", "random")[number % 3],
        "head": ("default", "rate 100", "raw features", "rate 1e6")[(number // 2) % 4],
        "cv": {"twelve classes of three rows": 1, "one-row class, own validation rows": None}.get(data, 2),
        "commands": False,
    }
    return Combination(data, **{**settings, **changes})


@pytest.mark.parametrize("data", DATA)
def test_every_data_set_gives_a_front_or_one_line(data, tmp_path):
    outcome = attempt(chosen_for(data, list(DATA).index(data)), 1, tmp_path / "attempt")
    if data in REFUSED:
        assert outcome.kind == "refused", outcome.text
        assert re.search(REFUSED[data], outcome.text), outcome.text
    elif "X_ood" in outcome.text and outcome.kind == "refused":
        assert re.search(r"X_ood has only one different row", outcome.text)
    else:
        assert outcome.kind == "finished", outcome.text


@pytest.mark.parametrize("head", ["rate 1", "rate 1e6, adam", "stopped by validation", "paper", "no hidden layer"])
@pytest.mark.parametrize("data", ["features of 1e30 and 1e-30", "exactly linear targets"])
def test_heads_that_diverge_are_scored_worst(data, head, tmp_path):
    outcome = attempt(chosen_for(data, 0, head=head, algorithm="guided"), 1, tmp_path / "attempt")
    assert outcome.kind == "finished", outcome.text


@pytest.mark.parametrize(
    ("data", "changes"),
    [
        # products of such numbers overflow float32: R² of test rows, spread of the target, labels of the figures
        ("targets of 1e30", {"objectives": "r2,mse", "algorithm": "nsga2", "head": "default"}),
        # the standardisation does not go into the first weights
        ("subnormal features", {"encoding": "neurons", "objectives": "accuracy,active_neurons", "head": "adam"}),
        # the unpruned head nearly diverges, and its units overflow in the rankings of the baselines
        (
            "ordinary",
            {
                "encoding": "neurons",
                "objectives": "accuracy,active_neurons",
                "head": "rate 1e6",
                "algorithm": "nsga2",
            },
        ),
    ],
)
def test_all_pages_of_a_run(data, changes, tmp_path):
    outcome = attempt(chosen_for(data, 0, commands=True, **changes), 1, tmp_path / "attempt")
    assert outcome.kind == "finished", outcome.text


@pytest.mark.parametrize("name", ["one class", "constant target", "2 rows", "columns of 1e30 and 1e-30"])
def test_networks_constructed_from_misbehaving_tables(name, tmp_path):
    outcome = guarded(lambda: construct_from(name, tmp_path / "attempt", 1))
    assert outcome.kind == ("finished" if "1e30" in name else "refused"), outcome.text


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("black images", ""),
        ("one class", "only one class"),
        ("one-row class", "class '2' has one training image, but training and validation need one each"),
    ],
)
def test_filters_of_misbehaving_images(name, line, tmp_path):
    outcome = guarded(lambda: filters_from(name, tmp_path / "attempt", 1))
    assert outcome.kind == ("refused" if line else "finished"), outcome.text
    assert line in outcome.text


@pytest.mark.parametrize("name", ["targets of 1e30", "all features zero"])
def test_methods_that_differ_by_nothing_are_compared(name, tmp_path):
    outcome = guarded(lambda: compare_on(name, tmp_path / "attempt", 1))
    assert outcome.kind == "finished", outcome.text


# --- what they should give -------------------------------------------------------------------------


def test_without_a_feature_that_varies_the_smallest_mask_wins_with_the_share_of_the_majority():
    data = with_features(classes(np.random.default_rng(0), 2), np.zeros_like)
    data["y_train"] = np.where(np.arange(36) < 24, 1, 0)
    with PruningProblem(
        FeatureSet(**data), objectives=["accuracy", "active_neurons"], head=QUICK, cv=3
    ) as problem:
        front = evolve(problem, 6, 3, seed=1)
    assert front.active.tolist() == [1]
    assert front.values[0].tolist() == [24 / 36, 1 / 6]
    assert front.test[0] == np.mean(data["y_test"] == 1)


def test_copies_of_a_column_are_worth_no_more_than_one():
    data = with_features(classes(np.random.default_rng(1)), lambda rows: np.repeat(rows[:, :1], 6, axis=1))
    with PruningProblem(FeatureSet(**data), head=QUICK) as problem:
        scores = {name: rank_bits(problem.ranking_data(), name) for name in ("anova_f", "mutual_information")}
    for name, score in scores.items():
        np.testing.assert_allclose(score, score[0], rtol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    "data", ["features of 1e30 and 1e-30", "one outlier of 1e20", "huge offset, tiny variance"]
)
def test_standardised_features_are_those_of_float64(data):
    rows = CLASSIFICATION[data](np.random.default_rng(2))["X_train"].astype(np.float32)
    exact = rows.astype(np.float64)
    spread = exact.std(axis=0)
    constant = spread <= 1e-6 * np.abs(exact.mean(axis=0))
    scaling = Scaling.fit(rows, np.zeros(len(rows), np.int64), standardise=True)
    np.testing.assert_array_equal(scaling.scale[constant], 1.0)
    wanted = (exact - exact.mean(axis=0))[:, ~constant] / spread[~constant]
    np.testing.assert_allclose(scaling.apply(rows)[:, ~constant], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_r2_on_test_rows_knows_no_unit(scale):
    data = targets(np.random.default_rng(3))
    scores = []
    for factor in (1.0, scale):
        scaled = {**data, "y_train": data["y_train"] * factor, "y_test": data["y_test"] * factor}
        with PruningProblem(FeatureSet(**scaled), objectives=["r2", "mse"], head=QUICK, cv=2) as problem:
            mask = np.ones((1, 6), bool)
            scores.append((score_on_test(problem, mask)[0], *problem.values(mask)[0]))
    (test, r2, mse), (test_scaled, r2_scaled, mse_scaled) = scores
    assert test_scaled == pytest.approx(test, abs=1e-4)
    assert r2_scaled == pytest.approx(r2, abs=1e-4)
    assert mse_scaled / scale / scale == pytest.approx(mse, rel=1e-3)


def test_constant_targets_are_explained_in_full_or_not_at_all():
    data = REGRESSION["constant targets of 1e30"](np.random.default_rng(4))
    with PruningProblem(FeatureSet(**data), objectives=["r2", "active_neurons"], head=QUICK, cv=2) as problem:
        assert problem.values(np.ones((1, 6), bool))[0, 0] in (0.0, 1.0)
        assert score_on_test(problem, np.ones((1, 6), bool))[0] in (0.0, 1.0)


def test_an_exported_head_of_tiny_features_gives_what_the_head_gives():
    data = with_features(classes(np.random.default_rng(5)), lambda rows: rows * 1e-41)
    features = FeatureSet(**data)
    with PruningProblem(features, objectives=["accuracy", "active_neurons"], head=QUICK, cv=2) as problem:
        (head,) = problem.fitness.train_final(np.ones((1, 6), bool))
    module = HeadModule(head)
    assert not module.folded
    with torch.no_grad():
        exported = module(torch.from_numpy(np.array(features.X_test))).numpy()
    np.testing.assert_allclose(exported, head.predict_proba(features.X_test), atol=1e-6)


@pytest.mark.parametrize("name", RANKINGS)
@pytest.mark.parametrize("encoding", ["neurons", "connections"])
def test_rankings_by_a_head_that_nearly_diverged_are_finite(name, encoding):
    features = FeatureSet(**classes(np.random.default_rng(6)))
    with PruningProblem(features, encoding, ["accuracy", "active_neurons"], QUICK, cv=2) as problem:
        data = problem.ranking_data()
        huge = tuple(np.sign(weights) * 3e38 for weights in data.dense_weights)
        data.__dict__["dense_weights"] = huge
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            scores = rank_bits(data, name)
    assert np.isfinite(scores).all()


def test_an_objective_of_the_user_that_gives_nan_is_named_in_one_line():
    def broken(candidate):
        return float("nan")

    features = FeatureSet(**classes(np.random.default_rng(7)))
    with (
        PruningProblem(features, objectives=["accuracy", broken], head=QUICK, cv=2) as problem,
        pytest.raises(InputError, match=r"^objective 'broken' returned nan; return a finite number"),
    ):
        evolve(problem, 4, 1)


def test_a_regression_whose_heads_diverge_says_so_once_with_what_helps(tmp_path, capsys):
    from moevoprune.cli.main import main

    generator = np.random.default_rng(8)
    rows = generator.normal(size=(500, 256)).astype(np.float32)
    values = rows @ generator.normal(size=256)
    path = tmp_path / "line.npz"
    np.savez(
        path, X_train=rows[:400], y_train=values[:400], X_test=rows[400:], y_test=values[400:], task="regression"
    )
    out = tmp_path / "run"
    quick = [
        "--objectives",
        "r2,active_neurons",
        "--algorithm",
        "random",
        "--pop",
        "4",
        "--gens",
        "1",
        "--cv",
        "2",
    ]
    assert main(["run", str(path), "--out", str(out), *quick, "--jobs", "1", "--no-baselines"]) == 0
    said = capsys.readouterr().out
    assert said.count("the unpruned head has diverged: a lower head.learning_rate helps") == 1
    slow = ["run", str(path), "--out", str(tmp_path / "slow"), "--set", "learning_rate=0.01", *quick]
    assert main([*slow, "--jobs", "1", "--no-baselines"]) == 0
    assert "diverged" not in capsys.readouterr().out
    record = json.loads((tmp_path / "slow" / "run.json").read_text(encoding="utf-8"))
    assert record["diverged"] == 0


# --- memory, tables and statistics -----------------------------------------------------------------


def test_many_classes_are_trained_in_pieces_to_the_same_bits(monkeypatch):
    generator = np.random.default_rng(9)
    n_classes, per_class = 300, 2
    rows = generator.normal(size=(n_classes * per_class, 8)).astype(np.float32)
    labels = np.repeat(np.arange(n_classes), per_class)
    settings = HeadSettings(hidden=(6,), epochs=3, batch_size=64, early_stop="training")
    mask = HeadMask(np.arange(8), (np.arange(6),))
    folds = [np.arange(0, 600, 2), np.arange(1, 600, 2)]

    def trained():
        trainer = PopulationTrainer(rows, labels, HeadShape(8, (6,), n_classes), settings, 1, "cpu")
        (stack,) = trainer.fit([mask], folds)
        return stack.to_arrays()

    whole = trained()
    held = []
    one_by_one = batches.BatchPlan._one_by_one
    monkeypatch.setattr(
        batches.BatchPlan, "_one_by_one", lambda plan, epoch: (held.append(epoch), one_by_one(plan, epoch))[1]
    )
    monkeypatch.setattr(batches, "_CACHED_BYTES", 1000)
    monkeypatch.setattr(training, "_MOST_OUTPUTS", 1000)
    pieces = trained()
    assert held == [0, 1, 2]
    np.testing.assert_equal(pieces, whole)


def test_numbers_of_all_sizes_keep_their_digits_in_tables():
    values = [0.0, 1.25, 2.5e-31, -3.5e60, 0.123456789, 123456.75]
    cells = csv_text(["value"], [[value] for value in values]).splitlines()[1:]
    assert cells == ["0.000000", "1.250000", "2.500000e-31", "-3.500000e+60", "0.123457", "123456.750000"]
    assert [short_number(value) for value in (5e60, 12345.0, 2.5e-31, -1e9)] == [
        "5.0e+60",
        "12,345",
        "2.5e-31",
        "-1.0e+09",
    ]


def test_a_table_of_a_front_with_errors_of_1e60_is_narrow():
    data = REGRESSION["targets of 1e30"](np.random.default_rng(10))
    with PruningProblem(FeatureSet(**data), objectives=["mse", "active_neurons"], head=QUICK, cv=2) as problem:
        front = evolve(problem, 4, 1, seed=1)
    assert max(map(len, front_table(front).splitlines())) < 120


def test_statistics_of_values_without_spread():
    same = statistics.interval([0.9, 0.9, 0.9])
    assert (same.mean, same.low, same.high) == pytest.approx((0.9, 0.9, 0.9))
    equal = statistics.paired_test([0.9] * 5, [0.9] * 5)
    assert (equal.p_value, equal.wilcoxon_p_value, equal.difference.mean) == (1.0, 1.0, 0.0)
    shifted = statistics.paired_test([0.9] * 5, [0.8] * 5)
    assert shifted.p_value is None
    assert shifted.wilcoxon_p_value == pytest.approx(2 / 2**5)
    assert statistics.no_worse([0.9] * 5, [0.9] * 5, 0.01).p_value is None
    assert statistics.p_text(None) == "p n/a"
    huge = statistics.paired_test([1e30, 1e30, 3e30], [1e30, 2e30, 1e30])
    from scipy.stats import ttest_rel

    assert huge.p_value == pytest.approx(ttest_rel([1.0, 1.0, 3.0], [1.0, 2.0, 1.0]).pvalue)
    assert math.isfinite(huge.difference.low)
