"""Folds: the rows that a mask is trained and scored on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moevoprune.errors import InputError
from moevoprune.features import FeatureSet
from moevoprune.features.folds import HOLD_OUT_SHARE, Folds, make_folds, training_part


def classification(labels: Any, val_labels: Any = None, **changes: Any) -> FeatureSet:
    labels = np.asarray(labels)
    extra: dict[str, Any] = {}
    if val_labels is not None:
        extra = {"X_val": numbered(len(val_labels), start=1e6), "y_val": np.asarray(val_labels)}
    classes = np.unique(labels)
    test = {"X_test": numbered(len(classes), start=2e6), "y_test": classes}
    return FeatureSet(X_train=numbered(len(labels)), y_train=labels, **{**test, **extra, **changes})


def regression(n_rows: int, **changes: Any) -> FeatureSet:
    targets = np.linspace(0, 1, n_rows)
    return FeatureSet(
        X_train=numbered(n_rows),
        y_train=targets,
        X_test=numbered(1),
        y_test=targets[:1],
        task="regression",
        **changes,
    )


def numbered(n_rows: int, start: float = 0.0) -> npt.NDArray[np.float32]:
    """Features that tell which row they are."""
    return np.arange(start, start + n_rows, dtype=np.float32)[:, None] * np.ones(2, dtype=np.float32)


def assert_partition(folds: Folds, n_rows: int, *, covers: bool) -> None:
    assert len(folds) == len(folds.train) == len(folds.validation)
    for train, validation in zip(folds.train, folds.validation, strict=True):
        assert len(train) > 0
        assert len(validation) > 0
        for rows in (train, validation):
            assert np.issubdtype(rows.dtype, np.integer)
            assert np.all(np.diff(rows) > 0)
        assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(n_rows))
    if covers:
        assert np.array_equal(np.sort(np.concatenate(folds.validation)), np.arange(n_rows))


def same(a: Folds, b: Folds) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a.validation, b.validation, strict=True))


@settings(deadline=None)
@given(
    counts=st.lists(st.integers(7, 30), min_size=2, max_size=4),
    cv=st.integers(2, 7),
    seed=st.integers(0, 2**32 - 1),
)
def test_folds_partition_the_rows_and_keep_the_class_shares(counts: list[int], cv: int, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    folds = make_folds(classification(labels), cv, seed)
    assert len(folds) == cv
    assert_partition(folds, len(labels), covers=True)
    for train, validation in zip(folds.train, folds.validation, strict=True):
        for label, count in enumerate(counts):
            assert count // cv <= np.count_nonzero(labels[validation] == label) <= -(-count // cv)
            assert np.any(labels[train] == label)


@settings(deadline=None)
@given(counts=st.lists(st.integers(4, 40), min_size=2, max_size=4), seed=st.integers(0, 2**32 - 1))
def test_a_hold_out_is_a_stratified_quarter(counts: list[int], seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    folds = make_folds(classification(labels), 1, seed)
    assert len(folds) == 1
    assert_partition(folds, len(labels), covers=False)
    assert len(folds.validation[0]) == int(np.ceil(HOLD_OUT_SHARE * len(labels)))
    for label, count in enumerate(counts):
        assert abs(np.count_nonzero(labels[folds.validation[0]] == label) - HOLD_OUT_SHARE * count) <= 1


@pytest.mark.parametrize(("n_rows", "cv"), [(2, 2), (11, 3), (11, 11), (2, 1), (40, 1)])
def test_regression_rows_are_partitioned(n_rows: int, cv: int) -> None:
    folds = make_folds(regression(n_rows), cv, 5)
    assert len(folds) == max(cv, 1)
    assert_partition(folds, n_rows, covers=cv > 1)
    if n_rows > 2:
        assert not same(folds, make_folds(regression(n_rows), cv, 6)) or cv == n_rows


@pytest.mark.parametrize("cv", [None, 1, 2, 5])
def test_the_seed_decides(cv: int | None) -> None:
    features = classification(np.arange(60) % 3)
    assert same(make_folds(features, cv, 7), make_folds(features, cv, 7))
    assert not same(make_folds(features, cv, 7), make_folds(features, cv, 8))


def test_the_global_generator_is_not_touched() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    make_folds(classification(np.arange(60) % 3), 5, 0)
    make_folds(regression(60), 1, 0)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize(("n_rows", "n_folds"), [(60, 5), (1999, 5), (2000, 1), (2400, 1)])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_without_cv_small_data_get_five_folds_and_large_data_a_hold_out(
    task: str, n_rows: int, n_folds: int
) -> None:
    features = classification(np.arange(n_rows) % 3) if task == "classification" else regression(n_rows)
    folds = make_folds(features, None, 0)
    assert len(folds) == n_folds
    assert_partition(folds, n_rows, covers=n_folds > 1)
    assert folds.description == ("5 folds" if n_folds == 5 else "a hold-out of 25%")
    if n_folds == 1:
        assert len(folds.validation[0]) == n_rows // 4
    assert same(folds, make_folds(features, n_folds, 0))


def test_the_data_s_own_validation_rows_are_used() -> None:
    features = classification(np.arange(10) % 2, np.arange(4) % 2)
    folds = make_folds(features, None, 0)
    assert len(folds) == 1
    assert np.array_equal(folds.train[0], np.arange(10))
    assert np.array_equal(folds.validation[0], np.arange(10, 14))
    assert "own validation rows" in folds.description
    part, labels = training_part(features)
    assert features.X_val is not None
    assert np.array_equal(part[folds.train[0]], features.X_train)
    assert np.array_equal(part[folds.validation[0]], features.X_val)
    assert np.array_equal(labels, np.concatenate([np.arange(10) % 2, np.arange(4) % 2]))


def test_own_validation_rows_need_not_hold_every_class() -> None:
    assert len(make_folds(classification([0, 1, 2], [0]), None, 0)) == 1


@pytest.mark.parametrize("cv", [1, 3])
def test_cv_draws_from_training_and_own_validation_rows_together(cv: int) -> None:
    features = classification(np.arange(10) % 2, np.arange(4) % 2)
    folds = make_folds(features, cv, 0)
    assert len(folds) == cv
    assert_partition(folds, 14, covers=cv > 1)


def test_without_own_validation_rows_the_training_part_is_the_training_rows() -> None:
    features = classification(np.arange(6) % 2)
    part, labels = training_part(features)
    assert np.array_equal(part, features.X_train)
    assert np.array_equal(labels, features.y_train)


def test_the_test_rows_are_never_in_a_fold() -> None:
    features = classification(np.arange(12) % 2)
    other = classification(np.arange(12) % 2, X_test=numbered(5, start=9e6), y_test=np.zeros(5, dtype=int))
    assert same(make_folds(features, None, 3), make_folds(other, None, 3))


@pytest.mark.parametrize("cv", [0, -1])
def test_cv_below_one_is_refused(cv: int) -> None:
    with pytest.raises(InputError, match=f"cv = {cv}: use 2 or more folds, or 1 for a hold-out of 25%"):
        make_folds(classification(np.arange(12) % 2), cv, 0)


@pytest.mark.parametrize(("cv", "parts"), [(None, 5), (4, 4), (1, 2)])
def test_a_class_with_fewer_rows_than_folds_is_named(cv: int | None, parts: int) -> None:
    rare = 1 if cv == 1 else 3
    labels = [0] * 20 + [1] * 20 + [2] * rare
    features = classification(labels, class_names=("cat", "dog", "okapi"), name="zoo")
    with pytest.raises(
        InputError, match=rf"zoo: class 'okapi' has {rare} training rows, fewer than {parts}"
    ) as error:
        make_folds(features, cv, 0)
    assert "\n" not in str(error.value)
    # fewer than two folds there are not
    assert ("--cv" in str(error.value)) == (parts > 2)
    if rare > 1:
        assert_partition(make_folds(features, rare, 0), len(labels), covers=True)


def test_too_few_rows_for_the_folds_are_refused() -> None:
    with pytest.raises(InputError, match="3 training rows cannot fill 4 folds"):
        make_folds(regression(3), 4, 0)
    with pytest.raises(InputError, match="1 training rows cannot fill 2 folds"):
        make_folds(regression(1), 1, 0)


def test_a_hold_out_smaller_than_the_number_of_classes_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="cannot hold out 25% of 10 rows") as error:
        make_folds(classification(np.arange(10) % 5), 1, 0)
    assert "\n" not in str(error.value)
    assert "--cv" in str(error.value)


@pytest.mark.parametrize("cv", [1, 3])
def test_repeats_split_the_rows_anew_and_begin_with_the_single_split(cv: int) -> None:
    features = classification(np.arange(60) % 3)
    once, thrice = make_folds(features, cv, 5), make_folds(features, cv, 5, repeats=3)
    assert len(thrice) == 3 * cv
    for part in ("train", "validation"):
        for rows, same in zip(getattr(once, part), getattr(thrice, part)[:cv], strict=True):
            np.testing.assert_array_equal(rows, same)
    assert len({rows.tobytes() for rows in thrice.validation}) == 3 * cv
    for repeat in range(3) if cv > 1 else ():
        rows = np.concatenate(thrice.validation[repeat * cv : (repeat + 1) * cv])
        np.testing.assert_array_equal(np.sort(rows), np.arange(60))
    assert thrice.description == f"3 x {once.description}"


def test_repeats_that_cannot_be() -> None:
    with pytest.raises(InputError, match="at least once"):
        make_folds(classification([0, 1] * 9), 3, 0, repeats=0)
    with pytest.raises(InputError, match="add cv"):
        make_folds(classification([0, 1] * 9, [0, 1]), None, 0, repeats=2)
