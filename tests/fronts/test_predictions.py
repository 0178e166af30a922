"""What members predict: the same numbers that the search scored, for rows they were not trained on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, r2_score

from moevoprune import HeadSettings, InputError, PruningProblem, evolve
from moevoprune.fronts.front import Front
from moevoprune.fronts.predictions import check_present
from moevoprune.search import fitness as fitness_module


def small_front(features, head, seed=1, **options):
    problem = PruningProblem(features, head=head, cv=3, seed=seed, **options)
    return problem, evolve(problem, pop_size=6, n_gen=2, seed=seed, algorithm="nsga2")


@pytest.fixture(scope="module")
def found(small_features, quick_head):
    return small_front(small_features, quick_head)


def test_validation_outputs_are_what_the_search_scored(found, small_features):
    _, front = found
    predictions = front.predictions
    assert predictions.validation_rows.tolist() == list(range(96))
    np.testing.assert_array_equal(predictions.validation_targets, small_features.y_train)
    for member in range(len(front)):
        guesses = predictions.validation_outputs[member].argmax(axis=1)
        assert accuracy_score(small_features.y_train, guesses) == pytest.approx(front.values[member, 0])
    dense = predictions.validation_outputs[-1].argmax(axis=1)
    assert accuracy_score(small_features.y_train, dense) == pytest.approx(front.dense_values[0])


def test_test_predictions_are_the_retrained_heads(found, small_features):
    _, front = found
    for guesses, head in zip(front.predictions.test_predictions, [*front.heads, front.dense_head], strict=True):
        np.testing.assert_array_equal(guesses, head.predict(small_features.X_test))


@pytest.mark.parametrize("memory", [0, 4 * 96 * 3])
def test_a_small_memory_gives_the_same(found, small_features, quick_head, monkeypatch, memory):
    _, front = found
    monkeypatch.setattr("moevoprune.search.fitness._MOST_REMEMBERED", memory)
    problem, again = small_front(small_features, quick_head)
    assert len(problem.fitness._outputs) * 96 * 3 <= memory
    np.testing.assert_array_equal(again.predictions.validation_outputs, front.predictions.validation_outputs)


def test_a_resumed_run_gives_the_same(small_features, quick_head, tmp_path):
    generator = np.random.default_rng(2)
    features = replace(small_features, X_ood=generator.normal(size=(40, 14)).astype(np.float32) + 1)
    options = {"objectives": ["accuracy", "active_neurons", "ood_auroc"], "cv": 3, "head": quick_head}
    fronts = []
    for resume in (False, True):
        problem = PruningProblem(features, **options)
        front = evolve(problem, 6, 2, algorithm="nsga2", journal=tmp_path / "evaluations.journal", resume=resume)
        fronts.append(front)
    np.testing.assert_array_equal(
        fronts[0].predictions.validation_outputs, fronts[1].predictions.validation_outputs
    )
    for member in range(len(front)):
        guesses = front.predictions.validation_outputs[member].argmax(axis=1)
        assert accuracy_score(features.y_train, guesses) == pytest.approx(front.values[member, 0])


def test_large_sets_are_thinned_out(found, small_features, quick_head, monkeypatch):
    _, front = found
    monkeypatch.setattr(fitness_module, "_MOST_PREDICTED", 3 * 10)
    monkeypatch.setattr(fitness_module, "_FEWEST_PREDICTED", 2)
    _, thin = small_front(small_features, quick_head)
    _, other = small_front(small_features, quick_head, seed=2)
    rows = thin.predictions.validation_rows
    assert len(rows) == 10
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(
        thin.predictions.validation_outputs, front.predictions.validation_outputs[:, rows]
    )
    np.testing.assert_array_equal(thin.predictions.validation_targets, small_features.y_train[rows])
    # whatever their sizes, fronts on the same data can be merged
    assert len(thin) != len(other)
    assert Front.merge([thin, other]).predictions is not None


def test_merged_hold_outs_have_none_and_the_message_says_why(small_features, quick_head):
    fronts = []
    for seed in (1, 2):
        problem = PruningProblem(small_features, head=quick_head, cv=1, seed=seed, objectives=["accuracy"])
        fronts.append(evolve(problem, pop_size=4, n_gen=1, seed=seed, algorithm="nsga2"))
    merged = Front.merge(fronts)
    with pytest.raises(InputError, match="--cv 5"):
        check_present(merged.predictions)


def test_repeated_folds_have_a_row_several_times(small_features, quick_head):
    _, front = small_front(small_features, quick_head, repeats=2)
    assert front.predictions.validation_rows.tolist() == np.repeat(range(96), 2).tolist()


def test_confusion_is_scikit_learn_s(found, small_features):
    _, front = found
    guesses = front.heads[0].predict(small_features.X_test)
    expected = confusion_matrix(small_features.y_test, guesses, labels=[0, 1, 2])
    np.testing.assert_array_equal(front.predictions.confusion(0, "test", 3), expected)
    guesses = front.predictions.validation_outputs[-1].argmax(axis=1)
    expected = confusion_matrix(small_features.y_train, guesses, labels=[0, 1, 2])
    np.testing.assert_array_equal(front.predictions.confusion(-1, "validation", 3), expected)


def test_a_diverged_head_is_marked(small_features):
    head = HeadSettings(hidden=(8,), epochs=4, batch_size=16, learning_rate=1e20)
    _, front = small_front(small_features, head)
    predictions = front.predictions
    assert np.isnan(predictions.validation_outputs).all()
    assert (predictions.test_predictions == -1).all()
    assert predictions.confusion(0, "validation", 3).sum() == predictions.confusion(0, "test", 3).sum() == 0


def test_regression(small_regression, quick_head, tmp_path):
    _, front = small_front(small_regression, quick_head)
    front.save(tmp_path)
    predictions = Front.load(tmp_path).predictions
    assert predictions.task == "regression"
    for member in range(len(front)):
        pooled = r2_score(small_regression.y_train, predictions.validation_outputs[member])
        assert pooled == pytest.approx(front.values[member, 0], abs=0.05)
        np.testing.assert_array_equal(
            predictions.test_predictions[member], front.heads[member].outputs(small_regression.X_test)
        )


def test_saved_and_loaded(found, tmp_path):
    _, front = found
    front.save(tmp_path)
    loaded = Front.load(tmp_path).predictions
    for name in (
        "validation_rows",
        "validation_targets",
        "validation_outputs",
        "test_targets",
        "test_predictions",
    ):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(front.predictions, name))
    # a front without predictions must not find those of another
    replace(front, predictions=None).save(tmp_path)
    assert Front.load(tmp_path).predictions is None
    with pytest.raises(InputError, match="no validation predictions"):
        check_present(Front.load(tmp_path).predictions)


@pytest.mark.parametrize(
    "change",
    [
        {"validation_outputs": lambda a: a[:-1]},
        {"validation_targets": lambda a: a + 3},
        {"test_predictions": lambda a: a[:, :-1]},
        {"test_targets": lambda a: a.astype(float)},
        {"task": lambda a: "other"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_damaged_predictions_are_refused(found, tmp_path, change):
    _, front = found
    front.save(tmp_path)
    ((name, damage),) = change.items()
    broken = replace(front.predictions, **{name: damage(getattr(front.predictions, name))})
    broken.save(tmp_path / "predictions.npz", front.fingerprint)
    with pytest.raises(InputError, match="damaged"):
        Front.load(tmp_path)
    (tmp_path / "predictions.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(InputError, match=r"predictions\.npz: is damaged"):
        Front.load(tmp_path)


def test_predictions_of_another_front_are_refused(found, tmp_path):
    _, front = found
    front.save(tmp_path)
    front.predictions.save(tmp_path / "predictions.npz", replace(front, F=front.F + 1).fingerprint)
    with pytest.raises(InputError, match="belongs to another front"):
        Front.load(tmp_path)


def test_merged_fronts_keep_predictions_where_rows_agree(found, small_features, quick_head):
    _, one = found
    _, two = small_front(small_features, quick_head, seed=2)
    merged = Front.merge([one, two])
    assert merged.predictions.n_members == len(merged)
    for member in range(len(merged)):
        guesses = merged.heads[member].predict(small_features.X_test)
        np.testing.assert_array_equal(merged.predictions.test_predictions[member], guesses)
        outputs = merged.predictions.validation_outputs[member]
        assert accuracy_score(small_features.y_train, outputs.argmax(axis=1)) == pytest.approx(
            merged.values[member, 0]
        )
    assert Front.merge([one, replace(two, predictions=None)]).predictions is None
    other = replace(two.predictions, validation_rows=two.predictions.validation_rows + 1)
    assert Front.merge([one, replace(two, predictions=other)]).predictions is None


@pytest.mark.gpu
def test_on_cuda_they_are_what_the_search_scored(small_features, quick_head):
    _, front = small_front(small_features, quick_head, device="cuda")
    for member in range(len(front)):
        guesses = front.predictions.validation_outputs[member].argmax(axis=1)
        assert accuracy_score(small_features.y_train, guesses) == pytest.approx(front.values[member, 0])
