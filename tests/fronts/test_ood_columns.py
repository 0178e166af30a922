"""Further test measures of a front: how its heads tell test rows from out-of-distribution rows."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax
from sklearn.metrics import roc_auc_score, roc_curve

from moevoprune import Front, HeadSettings, InputError, PruningProblem, evolve
from moevoprune.features.ood import ood_parts
from moevoprune.fronts.comparison import run_method, score
from moevoprune.fronts.evolve import declare_front
from moevoprune.fronts.plots import plot_parallel, save_figures
from moevoprune.search.loop import run_search

OBJECTIVES = ("accuracy", "active_neurons", "ood_auroc")


@pytest.fixture(scope="module")
def features(small_features):
    generator = np.random.default_rng(5)
    rows = generator.normal(scale=1.4, size=(80, 14)) + 0.5
    return replace(small_features, X_ood=rows[:50], X_ood_test=rows[50:])


@pytest.fixture(scope="module")
def front(features, quick_head):
    problem = PruningProblem(features, objectives=OBJECTIVES, head=quick_head, cv=3, seed=1)
    return evolve(problem, pop_size=10, n_gen=4, seed=1)


def measured(logits_in, logits_out, name):
    if name == "energy":
        confidence = logsumexp(np.r_[logits_in, logits_out].astype(np.float64), axis=1)
    else:
        temperature = 1.0 if name == "msp" else 1000.0
        confidence = softmax(np.r_[logits_in, logits_out].astype(np.float64) / temperature, axis=1).max(axis=1)
    truth = np.r_[np.zeros(len(logits_in)), np.ones(len(logits_out))]
    fpr, tpr, _ = roc_curve(truth, -confidence, drop_intermediate=False)
    return roc_auc_score(truth, -confidence), fpr[np.argmax(tpr >= 0.95)]


def perturbed(head, rows, epsilon):
    module = head.to_module().double()
    active = torch.from_numpy(rows[:, head.inputs].astype(np.float64)).requires_grad_()
    logits = module(active)
    loss = torch.nn.functional.cross_entropy(logits / 1000.0, logits.argmax(1), reduction="sum")
    (gradient,) = torch.autograd.grad(loss, active)
    # a step in standard deviations is one of that many units of a feature
    moved = active.detach() - epsilon * torch.from_numpy(head.scale).double() * gradient.sign()
    return module(moved).detach().numpy()


def test_columns_are_measured_on_test_rows_with_the_retrained_heads(front, features):
    assert tuple(front.test_columns) == tuple(front.dense_test_columns) == ("ood_auroc", "ood_fpr95")
    for member, head in enumerate([*front.heads, front.dense_head]):
        logits = head.outputs(features.X_test), head.outputs(features.X_ood_test)
        of = [front.dense_test_columns[name] for name in front.test_columns]
        if member < len(front):
            of = [column[member] for column in front.test_columns.values()]
        assert of == pytest.approx(measured(*logits, "temperature"), abs=1e-6)


def test_every_score_in_use_has_its_columns(features, quick_head):
    names = ["accuracy", "ood_auroc:odin", "ood_auroc:energy", "ood_auroc:msp"]
    problem = PruningProblem(features, objectives=names, head=quick_head, cv=3, odin_epsilon=0.3, device="cpu")
    front = evolve(problem, pop_size=6, n_gen=2, seed=1)
    assert list(front.test_columns) == [
        "ood_auroc", "ood_fpr95", "ood_auroc:energy", "ood_fpr95:energy", "ood_auroc:msp", "ood_fpr95:msp",
    ]  # fmt: skip
    for member, head in enumerate(front.heads):
        row = [column[member] for column in front.test_columns.values()]
        moved = [perturbed(head, rows, 0.3) for rows in (features.X_test, features.X_ood_test)]
        logits = head.outputs(features.X_test), head.outputs(features.X_ood_test)
        expected = [*measured(*moved, "odin"), *measured(*logits, "energy"), *measured(*logits, "msp")]
        # float32 perturbs and adds: a pair may change its order
        pair = 1 / (len(features.X_test) * len(features.X_ood_test))
        assert row[0] == pytest.approx(expected[0], abs=2 * pair)
        assert row[1] == pytest.approx(expected[1], abs=2 / len(features.X_test))
        assert row[2:] == pytest.approx(expected[2:], abs=1e-6)


def test_odin_of_raw_features_steps_in_standard_deviations(features):
    head = HeadSettings(hidden=(8,), epochs=4, batch_size=16, standardise=False)
    scaled = replace(features, X_train=features.X_train * np.linspace(1, 9, 14, dtype=np.float32))
    problem = PruningProblem(scaled, objectives=["ood_auroc:odin"], head=head, cv=3, odin_epsilon=0.3)
    np.testing.assert_allclose(problem.fitness.odin_step, 0.3 * scaled.X_train.std(axis=0), rtol=1e-5)


def test_columns_come_with_the_rows_not_with_the_objective(small_features, quick_head):
    rows = np.random.default_rng(0).normal(size=(40, 14))
    features = replace(small_features, X_ood=rows)
    problem = PruningProblem(features, head=quick_head, cv=3, seed=1)
    front = evolve(problem, pop_size=6, n_gen=2, seed=1)
    outside = ood_parts(features)[1]
    logits = front.heads[0].outputs(features.X_test), front.heads[0].outputs(outside)
    assert front.test_columns["ood_auroc"][0] == pytest.approx(measured(*logits, "temperature")[0], abs=1e-6)
    # too few to be split are no reason to fail at the end of a search
    single = replace(small_features, X_ood=np.ones((3, 14)))
    assert not evolve(PruningProblem(single, head=quick_head, cv=3), pop_size=4, n_gen=1).test_columns
    none = evolve(PruningProblem(small_features, head=quick_head, cv=3), pop_size=4, n_gen=1)
    assert not none.test_columns
    assert list(none.to_rows()[0])[-1] == "test_accuracy"


def test_regression_has_none(small_regression):
    features = replace(small_regression, X_ood=small_regression.X_train)
    front = evolve(PruningProblem(features, head=HeadSettings(epochs=3), cv=3), pop_size=4, n_gen=1)
    assert not front.test_columns


def test_rows_and_csv(front):
    rows = list(csv.DictReader(io.StringIO(front.to_csv())))
    assert list(rows[0])[-3:] == ["test_accuracy", "test_ood_auroc", "test_ood_fpr95"]
    assert [float(row["test_ood_auroc"]) for row in rows[:-1]] == pytest.approx(
        front.test_columns["ood_auroc"].tolist(), abs=1e-6
    )
    assert float(rows[-1]["test_ood_fpr95"]) == pytest.approx(front.dense_test_columns["ood_fpr95"], abs=1e-6)


def test_save_load_and_files_of_before(front, tmp_path):
    front.save(tmp_path)
    loaded = Front.load(tmp_path)
    assert loaded.to_csv() == front.to_csv()
    for name, column in front.test_columns.items():
        np.testing.assert_array_equal(loaded.test_columns[name], column)
    assert loaded.dense_test_columns == front.dense_test_columns
    with np.load(tmp_path / "front.npz") as archive:
        arrays = dict(archive)
    assert {"test_ood_auroc", "test_ood_fpr95", "dense_test_ood_auroc", "dense_test_ood_fpr95"} <= set(arrays)
    old = {key: array for key, array in arrays.items() if "ood" not in key}
    np.savez(tmp_path / "front.npz", **old)
    assert Front.load(tmp_path).test_columns == {}
    np.testing.assert_array_equal(Front.load(tmp_path).test, front.test)


@pytest.mark.parametrize(
    "change",
    [
        {"test_ood_auroc": np.ones(1)},
        {"test_ood_auroc": np.array(["a"])},
        {"test_ood_auroc": None},
        {"dense_test_ood_auroc": None},
        {"dense_test_ood_auroc": np.ones(3)},
        {"test_other": np.ones(2)},
    ],
)
def test_columns_that_do_not_fit_are_refused(front, tmp_path, change):
    front.save(tmp_path)
    with np.load(tmp_path / "front.npz") as archive:
        arrays = {key: array for key, array in {**archive, **change}.items() if array is not None}
    np.savez(tmp_path / "front.npz", **arrays)
    with pytest.raises(InputError, match="damaged"):
        Front.load(tmp_path)


def test_merge_keeps_what_all_have(front, features, quick_head):
    problem = PruningProblem(features, objectives=OBJECTIVES, head=quick_head, cv=3, seed=2)
    other = evolve(problem, pop_size=8, n_gen=2, seed=2)
    merged = Front.merge([front, other])
    for member, head in enumerate(merged.heads):
        logits = head.outputs(features.X_test), head.outputs(features.X_ood_test)
        row = [merged.test_columns[name][member] for name in ("ood_auroc", "ood_fpr95")]
        assert row == pytest.approx(measured(*logits, "temperature"), abs=1e-6)
    both = [one.dense_test_columns["ood_auroc"] for one in (front, other)]
    assert merged.dense_test_columns["ood_auroc"] == pytest.approx(np.mean(both))
    without = replace(other, test_columns={}, dense_test_columns={})
    assert Front.merge([front, without]).test_columns == {}
    assert Front.merge([without, front]).test_columns == {}


def test_heads_that_diverged_have_the_worst(features):
    head = HeadSettings(hidden=(8,), epochs=4, learning_rate=1e9)
    problem = PruningProblem(features, objectives=["accuracy", "ood_auroc", "ood_auroc:odin"], head=head, cv=3)
    front = evolve(problem, pop_size=4, n_gen=1)
    for name, value in front.dense_test_columns.items():
        worst = 0.0 if "auroc" in name else 1.0
        assert value == worst
        np.testing.assert_array_equal(front.test_columns[name], worst)


def test_rows_too_large_for_a_head_are_no_crash(small_features, quick_head):
    rows = np.full((4, 14), 3e38)
    features = replace(small_features, X_train=small_features.X_train / 10, X_ood=rows, X_ood_test=rows)
    front = evolve(PruningProblem(features, head=quick_head, cv=3), pop_size=4, n_gen=1)
    assert front.dense_test_columns == {"ood_auroc": 0.0, "ood_fpr95": 1.0}


def test_only_the_front_reads_rows_held_back(features, quick_head):
    def found(X_ood_test):
        changed = replace(features, X_ood_test=X_ood_test)
        problem = PruningProblem(changed, objectives=OBJECTIVES, head=quick_head, cv=3, seed=1)
        return declare_front(problem, run_search(problem, pop_size=6, n_gen=2, seed=1))

    ours, other = found(features.X_ood_test), found(features.X_ood_test * 4)
    np.testing.assert_array_equal(ours.masks, other.masks)
    np.testing.assert_array_equal(ours.values, other.values)
    np.testing.assert_array_equal(ours.test, other.test)
    assert not np.array_equal(ours.test_columns["ood_auroc"], other.test_columns["ood_auroc"])


def test_an_empty_front_has_empty_columns(features, quick_head, tmp_path):
    problem = PruningProblem(features, objectives=OBJECTIVES, head=quick_head, cv=3, seed=1)
    result = run_search(problem, pop_size=4, n_gen=1, seed=1)
    nothing = {"masks": result.masks[:0], "values": result.values[:0], "losses": result.losses[:0]}
    front = declare_front(problem, replace(result, **nothing))
    assert {name: column.shape for name, column in front.test_columns.items()} == {
        "ood_auroc": (0,),
        "ood_fpr95": (0,),
    }
    front.save(tmp_path)
    assert Front.load(tmp_path).to_csv() == front.to_csv()


def test_figures_and_comparisons_take_the_objective(front, features, quick_head, tmp_path):
    labels = [label.get_text() for label in plot_parallel(front).get_xticklabels()]
    assert any(label.startswith("OoD AUROC") for label in labels)
    assert len(save_figures(front, tmp_path)) == 5
    problem = PruningProblem(features, objectives=OBJECTIVES, head=quick_head, cv=3, seed=1)
    for method in ("guided", "anova", "dense"):
        assert 0 <= score(run_method(problem, method, seed=1, budget=12))["test_hypervolume"] <= 1
