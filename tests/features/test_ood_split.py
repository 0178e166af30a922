"""Out-of-distribution rows: balanced, apart, repeatable."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moevoprune import FeatureSet, InputError
from moevoprune.features.ood import (
    OodRows,
    choose_ood,
    ood_parts,
    ood_selection,
    ood_test,
    rows_of,
    with_ood,
)


def source(*sizes: int, number: int = 0, width: int = 3) -> OodRows:
    """Rows that name their source, group and place, so that they can be told apart."""
    groups = np.repeat(np.arange(len(sizes)), sizes)
    rows = np.zeros((len(groups), width), np.float32)
    rows[:, 0], rows[:, 1], rows[:, 2] = number, groups, np.arange(len(groups))
    return OodRows(rows, groups, tuple(f"g{i}" for i in range(len(sizes))))


def counts(part: np.ndarray) -> dict[tuple[int, int], int]:
    """Rows by source and group."""
    keys, number = np.unique(part[:, :2].astype(int), axis=0, return_counts=True)
    return {tuple(key): int(n) for key, n in zip(keys.tolist(), number, strict=True)}


def as_set(part: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in part}


def test_sources_and_their_groups_have_equal_shares() -> None:
    sources = [source(50, 50, number=0), source(40, 40, 40, 40, number=1), source(300, number=2)]
    selection, test = choose_ood(sources, 120, 30, seed=3)
    assert counts(selection) == {(0, 0): 20, (0, 1): 20, **{(1, g): 10 for g in range(4)}, (2, 0): 40}
    by_source = [sum(n for (s, _), n in counts(test).items() if s == number) for number in range(3)]
    assert by_source == [10, 10, 10]
    assert sorted(n for (s, _), n in counts(test).items() if s == 1) == [2, 2, 3, 3]
    assert not as_set(selection) & as_set(test)
    assert selection.dtype == test.dtype == np.float32


def test_others_make_up_for_what_one_cannot_give() -> None:
    sources = [source(6, number=0), source(2, 400, number=1), source(400, number=2)]
    selection, test = choose_ood(sources, 80, 40, seed=0)
    # the small ones give two thirds to the search and one to the test, as the parts are in size
    assert counts(selection) == {(0, 0): 4, (1, 0): 1, (1, 1): 37, (2, 0): 38}
    assert counts(test) == {(0, 0): 2, (1, 0): 1, (1, 1): 18, (2, 0): 19}


def test_too_few_rows_shrink_both_parts_in_proportion() -> None:
    selection, test = choose_ood([source(20, 20)], 300, 100, seed=0)
    assert (len(selection), len(test)) == (30, 10)
    assert counts(selection) == {(0, 0): 15, (0, 1): 15}
    assert [len(part) for part in choose_ood([source(2)], 1000, 1, seed=0)] == [1, 1]
    assert [len(part) for part in choose_ood([source(2)], 1, 1000, seed=0)] == [1, 1]
    many = [source(*[1] * 60)]
    assert [len(part) for part in choose_ood(many, 40, 20, seed=0)] == [40, 20]
    assert [len(part) for part in choose_ood(many, 400, 200, seed=0)] == [40, 20]


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=4), min_size=1, max_size=4),
    n_selection=st.integers(1, 40),
    n_test=st.integers(1, 40),
    seed=st.integers(0, 5),
)
def test_what_every_choice_keeps_to(sizes: list[list[int]], n_selection: int, n_test: int, seed: int) -> None:
    sources = [source(*groups, number=i) for i, groups in enumerate(sizes) if sum(groups)]
    total = sum(map(sum, sizes))
    if total < 2:
        if sources:
            with pytest.raises(InputError, match="differ from one another"):
                choose_ood(sources, n_selection, n_test, seed)
        return
    selection, test = choose_ood(sources, n_selection, n_test, seed)
    together = len(selection) + len(test)
    assert together == min(total, n_selection + n_test)
    share = together * n_selection / (n_selection + n_test)
    assert abs(len(selection) - share) <= 0.5 or min(len(selection), len(test)) == 1
    # nothing twice, nothing invented
    assert len(as_set(selection) | as_set(test)) == together
    assert as_set(selection) | as_set(test) <= set().union(*(as_set(s.rows) for s in sources))
    # a group that gives more than one above another of its source: the other has no more to give
    for part in (selection, test):
        found = counts(part)
        for number, groups in enumerate(sizes):
            given_rows = [found.get((number, g), 0) for g in range(len(groups))]
            for few, size in zip(given_rows, groups, strict=True):
                if few < max(given_rows) - 1:
                    ratio = len(part) / together
                    assert few >= np.floor(size * ratio) - 1
    again = choose_ood(sources, n_selection, n_test, seed)
    np.testing.assert_array_equal(again[0], selection)
    np.testing.assert_array_equal(again[1], test)


def test_equal_rows_are_chosen_once() -> None:
    twins = replace(source(10, number=0), rows=np.repeat(source(5).rows, 2, axis=0))
    selection, test = choose_ood([twins, twins], 50, 50, seed=1)
    assert len(selection) + len(test) == 5
    assert not as_set(selection) & as_set(test)
    with pytest.raises(InputError, match="differ from one another"):
        choose_ood([replace(source(4), rows=np.ones((4, 3)))], 2, 2, seed=0)


def test_the_seed_chooses_the_rows() -> None:
    parts = [choose_ood([source(100, 100)], 20, 10, seed)[0] for seed in (0, 1)]
    assert as_set(parts[0]) != as_set(parts[1])
    # nor does a part that is smaller than the number of groups always hold the first ones
    first = {tuple(counts(choose_ood([source(*[9] * 8)], 4, 2, seed)[1])) for seed in range(10)}
    assert len(first) > 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 1, 1, 0), "no source"),
        (([source(3), source(3, width=4)], 1, 1, 0), "3 and 4 features"),
        (([source(3)], 0, 1, 0), "n_selection = 0"),
        (([source(3)], 1, 1.5, 0), "n_test = 1.5"),
        (([source(3)], 1, 1, -1), "seed = -1"),
    ],
)
def test_bad_choices_are_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        choose_ood(*arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "groups", "names", "message"),
    [
        (np.ones(3), np.zeros(3, int), ("a",), "shape \\(3,\\)"),
        (np.ones((0, 3)), np.zeros(0, int), ("a",), "at least one row"),
        (np.ones((3, 2)).astype(str), np.zeros(3, int), ("a",), "give numbers"),
        (np.ones((3, 2)), np.zeros(2, int), ("a",), "whole number for each row"),
        (np.ones((3, 2)), np.zeros(3), ("a",), "whole number for each row"),
        (np.ones((3, 2)), np.array([0, 1, 2]), ("a", "b"), "numbered 0 to 2"),
        (np.ones((3, 2)), np.array([0, -1, 0]), ("a", "b"), "numbered -1 to 0"),
        (np.array([[1.0], [np.nan]]), np.zeros(2, int), ("a",), "row 1 .*not finite"),
        (np.array([[1e39], [1.0]]), np.zeros(2, int), ("a",), "row 0 .*not finite"),
    ],
)
def test_bad_sources_are_refused(
    rows: np.ndarray, groups: np.ndarray, names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        OodRows(rows, groups, names)


def test_with_ood_takes_as_many_rows_as_score_and_as_test(small_features: FeatureSet) -> None:
    made = with_ood(small_features, [source(200, 200, width=14)], seed=0)
    assert made.X_ood is not None
    assert made.X_ood_test is not None
    assert (len(made.X_ood), len(made.X_ood_test)) == (96, 45)
    np.testing.assert_array_equal(ood_parts(made)[0], made.X_ood)
    np.testing.assert_array_equal(ood_parts(made)[1], made.X_ood_test)
    more = replace(small_features, X_val=small_features.X_test, y_val=small_features.y_test)
    assert [len(part) for part in ood_parts(with_ood(more, [source(300, width=14)], 0))] == [141, 45]
    with pytest.raises(InputError, match="3 features but small has 14"):
        with_ood(small_features, [source(9)], seed=0)


def test_x_ood_alone_is_split_in_the_proportion_of_the_rows(small_features: FeatureSet) -> None:
    rows = np.random.default_rng(0).normal(size=(47, 14)).astype(np.float32)
    features = replace(small_features, X_ood=np.concatenate([rows, rows[:5]]))
    selection, test = ood_parts(features)
    assert (len(selection), len(test)) == (32, 15)
    assert as_set(selection) | as_set(test) == as_set(rows)
    np.testing.assert_array_equal(ood_selection(features), selection)
    np.testing.assert_array_equal(ood_test(features), test)
    # a property of the rows: whatever the task calls itself
    np.testing.assert_array_equal(ood_selection(replace(features, name="other")), selection)


def test_data_without_enough_rows_say_so(small_features: FeatureSet) -> None:
    with pytest.raises(
        InputError, match="small: the data have no out-of-distribution rows: add --ood PATH, or an"
    ):
        ood_parts(small_features)
    one = replace(small_features, X_ood=np.ones((4, 14)))
    with pytest.raises(InputError, match="only one different row"):
        ood_parts(one)
    # with a part of its own for the test, one row will do
    both = replace(one, X_ood_test=np.ones((1, 14)))
    assert [len(part) for part in ood_parts(both)] == [4, 1]


def test_rows_of_a_data_set_are_balanced_over_its_classes(
    small_features: FeatureSet, small_regression: FeatureSet
) -> None:
    found = rows_of(replace(small_features, X_val=small_features.X_test, y_val=small_features.y_test))
    assert found.rows.shape == (96 + 45 + 45, 14)
    assert found.group_names == ("a", "b", "c")
    np.testing.assert_array_equal(found.groups[:96], small_features.y_train)
    one = rows_of(small_regression)
    assert one.group_names == ("line",)
    assert len(one.rows) == 120
