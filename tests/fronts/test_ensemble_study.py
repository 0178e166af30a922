"""Ensembles on the test rows: every number against scikit-learn and loops, files there and back."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, r2_score, roc_auc_score, roc_curve

from moevoprune import HeadSettings, InputError, PruningProblem, evolve
from moevoprune.fronts import ensemble_study as module
from moevoprune.fronts.ensemble_study import study_ensembles
from moevoprune.fronts.ensemble_tables import BEST_MEMBER, DENSE, KNEE_MEMBER, load_study
from moevoprune.fronts.ensemble_ways import WINDOWS
from moevoprune.fronts.ensembles import WAYS, Chosen, choose_members
from moevoprune.heads.ensemble import HeadEnsemble
from moevoprune.objectives import ood_score
from moevoprune.objectives.calibration import expected_calibration_error


@pytest.fixture(scope="module")
def features(small_features):
    rows = np.random.default_rng(3).normal(size=(60, 14)) * 2
    return replace(small_features, X_ood=rows[:30], X_ood_test=rows[30:])


@pytest.fixture(scope="module")
def front(features, quick_head):
    objectives = ["accuracy", "active_neurons", "ood_auroc:energy"]
    problem = PruningProblem(features, objectives=objectives, head=quick_head, cv=3, seed=1)
    return evolve(problem, pop_size=14, n_gen=6, seed=1)


@pytest.fixture(scope="module")
def study(front, features):
    return study_ensembles(front, features)


@pytest.fixture(scope="module")
def regression(small_regression):
    problem = PruningProblem(small_regression, head=HeadSettings(hidden=(4,), epochs=8), cv=3)
    return evolve(problem, pop_size=10, n_gen=4, seed=1)


def test_rows_are_every_way_and_the_single_heads(study):
    assert [(row.name, row.voting) for row in study.ensembles] == [
        ("default", "soft"),
        ("default", "hard"),
        *((how, "soft") for how in WAYS if how != "default"),
        (BEST_MEMBER, None),
        (KNEE_MEMBER, None),
        (DENSE, None),
    ]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("voting", ["soft", "hard"])
def test_an_ensemble_is_scored_as_the_module_that_it_becomes(front, features, study, how, voting):
    if voting == "hard" and how != "default":
        study = study_ensembles(front, features, [("mine", choose_members(front, how), voting)])
        row = study.ensembles[0]
        assert (row.name, row.voting) == ("mine", "hard")
    else:
        row = study.row(how, voting)
    ensemble = front.ensemble(how, voting)
    assert row.test == ensemble.score(features.X_test, features.y_test)
    assert row.members == ensemble.n_members == len(row.numbers)
    assert row.union_features == len(ensemble.inputs)
    assert row.union_fraction == len(ensemble.inputs) / 14
    assert row.parameters == ensemble.n_parameters
    if voting == "soft":
        probabilities = ensemble.predict_proba(features.X_test)
        assert row.ece == pytest.approx(expected_calibration_error(probabilities, features.y_test), abs=1e-5)
    np.testing.assert_allclose(row.weights, ensemble.weights)
    # the validation rows, from the stored outputs
    outputs = torch.from_numpy(front.predictions.validation_outputs[list(row.numbers)])
    says = np.tensordot(row.weights, outputs.softmax(-1).numpy(), axes=1)
    if voting == "hard":
        # the mean probability, below any difference of votes, decides ties
        says = np.round(np.tensordot(row.weights, np.eye(3)[outputs.argmax(-1)], axes=1), 9) + 1e-10 * says
    assert row.validation == accuracy_score(front.predictions.validation_targets, says.argmax(axis=1))
    best = max(row.numbers, key=lambda member: (front.column("accuracy")[member], -member))
    assert row.best_member == best
    assert row.best_member_test == front.test[best]


@pytest.mark.parametrize("counts", [[1] * 3, [1] * 5, [1, 1, 3], [1, 2, 5, 7], [1] * 15])
def test_calibration_of_a_majority_counts_votes(front, features, counts):
    # shares of votes lie on edges of the 15 bins: a millionth more, or a rounding, puts them into the next bin
    members = np.arange(len(counts)) % len(front)
    chosen = Chosen(members, np.array(counts) / sum(counts), "by hand")
    row = study_ensembles(front, features, [("mine", chosen, "hard")]).ensembles[0]
    guesses = np.array([front.heads[member].predict(features.X_test) for member in members])
    labels = HeadEnsemble([front.heads[member] for member in members], counts, "hard").predict(features.X_test)
    gaps, shared = dict.fromkeys(range(15), Fraction(0)), 0
    for of_row, label, truth in zip(guesses.T, labels, features.y_test, strict=True):
        votes = sum(count for count, guess in zip(counts, of_row, strict=True) if guess == label)
        share = Fraction(votes, sum(counts))
        shared += (15 * share).denominator == 1 and share < 1
        gaps[math.ceil(15 * share) - 1] += int(label == truth) - share
    assert shared > 0
    assert row.ece == pytest.approx(float(sum(map(abs, gaps.values())) / len(labels)), abs=1e-12)


def test_single_heads_are_those_of_the_front(front, study):
    best, knee, dense = (study.row(name) for name in (BEST_MEMBER, KNEE_MEMBER, DENSE))
    assert best.numbers == (front.best("accuracy"),)
    assert knee.numbers == (front.knee(),)
    assert dense.numbers == ()
    assert dense.best_member is None
    columns = front.test_columns, front.dense_test_columns
    for row, test, auroc, fpr95 in (
        *(
            (row, front.test[row.numbers[0]], *(columns[0][name][row.numbers[0]] for name in columns[0]))
            for row in (best, knee)
        ),
        (dense, front.dense_test, *columns[1].values()),
    ):
        assert (row.test, row.ood_auroc, row.ood_fpr95) == (test, auroc, fpr95)
    assert study.ood_score == "energy"
    assert dense.validation == pytest.approx(front.dense_values[0])
    assert (dense.union_features, dense.union_fraction) == (14, 1)


def test_the_score_of_an_ensemble_is_the_weighted_mean_of_its_members(front, features, study):
    for row in study.ensembles[:4]:
        inside, outside = (
            sum(
                weight * ood_score(torch.from_numpy(front.heads[member].outputs(rows)).double(), "energy").numpy()
                for member, weight in zip(row.numbers, row.weights, strict=True)
            )
            for rows in (features.X_test, features.X_ood_test)
        )
        truth, sure = np.repeat([0, 1], [len(inside), len(outside)]), np.concatenate([inside, outside])
        assert row.ood_auroc == pytest.approx(roc_auc_score(truth, -sure), abs=1e-9)
        flagged, found, _ = roc_curve(truth, -sure, drop_intermediate=False)
        assert row.ood_fpr95 == flagged[np.argmax(found >= 0.95)]


def test_odin_steps_as_the_run_did(features, quick_head):
    problem = PruningProblem(
        features, objectives=["accuracy", "ood_auroc:odin"], head=quick_head, cv=3, seed=1, odin_epsilon=0.4
    )
    front = evolve(problem, pop_size=6, n_gen=2, seed=1)
    right = study_ensembles(front, features, odin_epsilon=0.4).row(DENSE)
    assert right.ood_auroc == front.dense_test_columns["ood_auroc"]
    assert study_ensembles(front, features, odin_epsilon=3.0).row(DENSE).ood_auroc != right.ood_auroc


def test_without_out_of_distribution_rows(front, small_features):
    study = study_ensembles(front, small_features)
    assert study.ood_score is None
    assert all(row.ood_auroc is None for row in study.ensembles)
    assert "ood_auroc" not in study.to_csv()
    assert "OoD" not in study.to_markdown()


def test_windows(front, features, study):
    for window, (low, high) in zip(study.windows, WINDOWS, strict=True):
        assert (window.low, window.high) == (low, high)
        members = choose_members(front, "window", low=low, high=high).members
        assert window.members == len(members)
        for voting in ("soft", "hard"):
            ensemble = front.ensemble("window", voting, low=low, high=high)
            assert getattr(window, voting) == ensemble.score(features.X_test, features.y_test)
        assert window.best_member == max(front.test[members])
        honest = max(members, key=lambda member: (front.column("accuracy")[member], -member))
        assert window.best_by_validation == front.test[honest]
        assert window.mean_member == pytest.approx(np.mean(front.test[members]))


def test_windows_tell_out_of_distribution_rows_by_the_mean_score(front, features, study):
    column, searched = front.test_columns["ood_auroc"], front.column("ood_auroc:energy")
    for window, (low, high) in zip(study.windows, WINDOWS, strict=True):
        members = choose_members(front, "window", low=low, high=high).members
        inside, outside = (
            ood_score(
                torch.from_numpy(np.stack([front.heads[m].outputs(rows) for m in members])).double(), "energy"
            ).mean(dim=0)
            for rows in (features.X_test, features.X_ood_test)
        )
        truth = np.repeat([1, 0], [len(inside), len(outside)])
        assert window.ood_auroc == pytest.approx(roc_auc_score(truth, np.concatenate([inside, outside])), abs=1e-9)
        assert window.ood_best_member == max(column[members])
        assert window.ood_mean_member == pytest.approx(np.mean(column[members]))
        picked = max(members, key=lambda member: (searched[member], -front.active[member]))
        assert window.ood_best_by_selection == column[picked]


def test_files_there_and_back(study, tmp_path):
    written = study.save(tmp_path)
    assert sorted(path.name for path in written) == sorted(path.name for path in tmp_path.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ensembles.csv", "ensembles.json", "windows.csv"]
    assert load_study(tmp_path) == study
    table = list(csv.DictReader(io.StringIO((tmp_path / "ensembles.csv").read_text())))
    assert list(table[0]) == [
        "name", "how", "voting", "members", "union_features", "union_fraction", "parameters",
        "validation_accuracy", "test_accuracy", "ece", "ood_auroc", "ood_fpr95",
        "best_member", "best_member_test_accuracy",
    ]  # fmt: skip
    for line, row in zip(table, study.ensembles, strict=True):
        assert line["name"] == row.name
        assert int(line["union_features"]) == row.union_features
        assert float(line["test_accuracy"]) == pytest.approx(row.test, abs=1e-6)
    windows = list(csv.DictReader(io.StringIO((tmp_path / "windows.csv").read_text())))
    assert [(int(line["low"]), int(line["high"])) for line in windows] == list(WINDOWS)
    assert float(windows[0]["hard"]) == pytest.approx(study.windows[0].hard, abs=1e-6)
    content = json.loads((tmp_path / "ensembles.json").read_text())
    assert list(content) == ["format", "metric", "n_features", "ood_score", "ensembles", "windows"]
    assert content["ensembles"][0]["numbers"] == list(study.ensembles[0].numbers)


def test_tables_for_people(study):
    lines = study.to_markdown().splitlines()
    assert len(lines) == len(study.ensembles) + 2
    assert {line.count("|") for line in lines} == {11}
    assert f"| {100 * study.row('default').test:.1f} |" in lines[2]
    assert f"{study.row('default').test:.3f}".removeprefix("0") in study.headline()
    assert f"the dense head {study.row('dense head').test:.3f}".replace(" 0.", " .") in study.headline()
    text = study.to_text().splitlines()
    assert len(text) == len(study.ensembles) + 1
    assert text[-1].startswith(DENSE)


def test_damaged_files_are_refused(study, tmp_path):
    with pytest.raises(InputError, match="not found"):
        load_study(tmp_path)
    study.save(tmp_path)
    path = tmp_path / "ensembles.json"
    good = json.loads(path.read_text())
    for name, value in [
        ("windows", None), ("windows", [3]), ("ensembles", [{}]), ("ensembles", 5), ("n_features", "many"),
    ]:  # fmt: skip
        path.write_text(json.dumps({**good, name: value}))
        with pytest.raises(InputError, match="is damaged"):
            load_study(tmp_path)
    for text in ("", "[]", "3", "{", "[" * 100_000, json.dumps({k: v for k, v in good.items() if k != "format"})):
        path.write_text(text)
        with pytest.raises(InputError, match="is damaged"):
            load_study(tmp_path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is damaged"):
        load_study(tmp_path)
    path.write_text(json.dumps({**good, "format": 2}))
    with pytest.raises(InputError, match="another format"):
        load_study(tmp_path)


def test_members_stacked_in_groups_are_the_same(front, features, study, monkeypatch):
    monkeypatch.setattr(module, "_MOST_WEIGHTS", 14 * 8 * 2)
    assert study_ensembles(front, features).to_csv() == study.to_csv()


def test_rows_in_pieces_are_the_same(front, features, study, monkeypatch):
    # 7 rows at a time, which neither 45 test rows nor 96 validation rows are a multiple of
    monkeypatch.setattr(module, "_MOST_OUTPUTS", (len(front) + 1) * 3 * 7)
    held = []
    outputs = module._outputs
    monkeypatch.setattr(module, "_outputs", lambda *given: held.append(outputs(*given)) or held[-1])
    pieces = study_ensembles(front, features)
    assert [len(part[0]) for part in held] == [7] * 6 + [3]
    for ours, whole in zip(pieces.ensembles, study.ensembles, strict=True):
        assert replace(ours, ece=0) == replace(whole, ece=0)
        assert ours.ece == pytest.approx(whole.ece, abs=1e-6)
    assert pieces.windows == study.windows


def test_a_row_without_finite_outputs_is_wrong(front, features, study):
    steep = tuple(
        replace(head, weights=(head.weights[0] * np.float32(1e9), *head.weights[1:])) for head in front.heads
    )
    changed = replace(front, heads=steep)
    rows = features.X_test.copy()
    # the class that the largest of numbers that are none would give
    far = int(np.flatnonzero(features.y_test == 0)[0])
    rows[far] = 3e38
    near = np.arange(len(rows)) != far
    scored = study_ensembles(changed, replace(features, X_test=rows))
    for voting in ("soft", "hard"):
        row = scored.row("default", voting)
        ensemble = changed.ensemble("default", voting)
        assert np.isnan(ensemble.predict_proba(rows[far : far + 1])).all()
        right = (ensemble.predict(rows[near]) == features.y_test[near]).sum()
        assert row.test == right / len(rows)
        assert row.ece is None
        assert row.validation == study.row("default", voting).validation


def test_diverged_members_are_left_out(front, features):
    best = front.best("accuracy")
    heads = list(front.heads)
    heads[best] = replace(heads[best], weights=tuple(w * np.float32(np.nan) for w in heads[best].weights))
    outputs = front.predictions.validation_outputs.copy()
    outputs[best] = np.nan
    broken = replace(front, heads=tuple(heads), predictions=replace(front.predictions, validation_outputs=outputs))
    rows = study_ensembles(broken, features).ensembles
    assert all(best not in row.numbers for row in rows if row.name != KNEE_MEMBER)
    assert rows[-3].best_member != best
    # as a knee it is shown for what it is
    knee = replace(
        broken, F=np.where(np.arange(len(front))[:, None] == best, 0.0, front.F + 1), test=front.test * 0
    )
    row = study_ensembles(knee, features).row(KNEE_MEMBER)
    assert row.numbers == (best,)
    assert (row.test, row.validation, row.ece, row.ood_auroc) == (0, 0, None, None)


def test_regression(regression, small_regression, tmp_path):
    study = study_ensembles(regression, small_regression)
    study.save(tmp_path)
    assert study.metric == "r2"
    assert ("default", "hard") not in [(row.name, row.voting) for row in study.ensembles]
    for how in WAYS:
        predicted = regression.ensemble(how).predict(small_regression.X_test)
        assert study.row(how).test == pytest.approx(r2_score(small_regression.y_test, predicted), abs=1e-5)
        assert study.row(how).ece is None
    assert study.row(DENSE).test == regression.dense_test
    assert all(math.isnan(window.hard) for window in study.windows)
    assert "test_r2" in study.to_csv().splitlines()[0]
    assert "test R²" in study.to_markdown()
    assert "nan" not in (tmp_path / "windows.csv").read_text()
    loaded = load_study(tmp_path)
    assert loaded.ensembles == study.ensembles
    assert math.isnan(loaded.windows[0].hard)
    assert loaded.windows[0].soft == study.windows[0].soft


def test_other_data_and_fronts_without_predictions_are_refused(front, features, small_regression):
    with pytest.raises(InputError, match="is other data"):
        study_ensembles(front, replace(features, y_test=features.y_test[::-1]))
    with pytest.raises(InputError, match="is other data"):
        study_ensembles(front, small_regression)
    with pytest.raises(InputError, match="no validation predictions"):
        study_ensembles(replace(front, predictions=None), features)


def test_a_name_that_is_not_there(study):
    with pytest.raises(KeyError):
        study.row("nobody")
