"""Feature sets with some classes or part of one: which rows stay, what they are called, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moevoprune import FeatureSet
from moevoprune.errors import InputError
from moevoprune.features.class_subsets import with_classes, with_share_of_class, without_class

NAMES = ("rust", "canker", "black spot", "healthy")


@pytest.fixture
def leaves() -> FeatureSet:
    """Each row holds its own number, so that rows can be told apart; the labels of the parts are shuffled."""
    generator = np.random.default_rng(1)
    parts = {}
    for start, (part, count) in zip((0, 1000, 2000), (("train", 21), ("test", 9), ("val", 8)), strict=True):
        labels = generator.permutation(np.repeat(np.arange(4), count))
        parts[f"X_{part}"] = start + np.arange(4.0 * count)[:, np.newaxis] * np.ones((1, 3))
        parts[f"y_{part}"] = labels
    ood = {"X_ood": np.full((5, 3), -1.0), "X_ood_test": np.full((4, 3), -2.0)}
    return FeatureSet(**parts, **ood, class_names=NAMES, name="leaves", extraction='{"tool": "x"}')


def rows(features: FeatureSet, part: str, label: int | None = None) -> list[float]:
    x, y = getattr(features, f"X_{part}"), getattr(features, f"y_{part}")
    return (x if label is None else x[y == label])[:, 0].tolist()


def test_rows_of_the_classes_stay_in_order_with_labels_from_nought(leaves: FeatureSet) -> None:
    kept = with_classes(leaves, ["healthy", 1])
    assert kept.class_names == ("canker", "healthy")
    for part in ("train", "test", "val"):
        assert rows(kept, part, 0) == rows(leaves, part, 1)
        assert rows(kept, part, 1) == rows(leaves, part, 3)
        assert rows(kept, part) == sorted(rows(leaves, part, 1) + rows(leaves, part, 3))
    assert np.array_equal(kept.X_ood, leaves.X_ood)
    assert np.array_equal(kept.X_ood_test, leaves.X_ood_test)
    assert kept.extraction == leaves.extraction


def test_leaving_one_out_is_keeping_the_others(leaves: FeatureSet) -> None:
    without = without_class(leaves, "canker")
    assert without.class_names == ("rust", "black spot", "healthy")
    assert without.content_hash == with_classes(leaves, [0, 2, 3]).content_hash
    assert without_class(leaves, 1).content_hash == without.content_hash
    assert not set(rows(without, "train")) & set(rows(leaves, "train", 1))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda f: without_class(f, "canker"), "leaves-without-canker"),
        (lambda f: without_class(f, "black spot"), "leaves-without-black_spot"),
        (lambda f: with_classes(f, [3, 2, 0]), "leaves-without-canker"),
        (lambda f: with_classes(f, [0, 1]), "leaves-without-black_spot-healthy"),
        (lambda f: with_classes(f, range(4)), "leaves"),
        (lambda f: with_share_of_class(f, "canker", 0.4, 1), "leaves-canker40"),
        (lambda f: with_share_of_class(f, "canker", 3 * 0.2, 1), "leaves-canker60"),
        (lambda f: with_share_of_class(f, "canker", 1, 1), "leaves-canker100"),
        (lambda f: with_share_of_class(f, "canker", 0, 1), "leaves-without-canker"),
        (lambda f: with_share_of_class(replace(f, class_names=()), "3", 0.2, 1), "leaves-3-20"),
    ],
)
def test_the_name_says_what_was_done(leaves: FeatureSet, make, name: str) -> None:
    assert make(leaves).name == name


def test_names_of_many_classes_are_cut_and_still_differ() -> None:
    labels = np.repeat(np.arange(60), 2)
    many = FeatureSet(
        np.eye(120), labels, np.eye(120), labels, class_names=tuple(f"a/kind:{i}" for i in range(60))
    )
    first, other = with_classes(many, range(29)), with_classes(many, [*range(28), 40])
    assert first.name.startswith("features-only-a_kind_0-a_kind_1-")
    assert max(len(first.name), len(other.name)) <= 89
    assert first.name != other.name


def test_a_share_is_nested_and_touches_no_other_class_nor_test_rows(leaves: FeatureSet) -> None:
    earlier: set[float] = set()
    for share, n_train, n_val in ((0.01, 1, 1), (0.2, 4, 2), (0.5, 11, 4), (0.8, 17, 6), (1.0, 21, 8)):
        part = with_share_of_class(leaves, "canker", share, seed=3)
        kept = rows(part, "train", 1) + rows(part, "val", 1)
        assert (len(rows(part, "train", 1)), len(rows(part, "val", 1))) == (n_train, n_val)
        assert earlier <= set(kept) <= set(rows(leaves, "train", 1) + rows(leaves, "val", 1))
        earlier = set(kept)
        for label in (0, 2, 3):
            assert rows(part, "train", label) == rows(leaves, "train", label)
            assert rows(part, "val", label) == rows(leaves, "val", label)
        assert rows(part, "train") == sorted(rows(part, "train"))
        assert rows(part, "test") == rows(leaves, "test")
        assert part.class_names == NAMES
    assert part.content_hash == leaves.content_hash


def test_the_seed_draws_the_rows(leaves: FeatureSet) -> None:
    drawn = [with_share_of_class(leaves, "canker", 0.4, seed).content_hash for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_share_of_nought_is_leaving_the_class_out(leaves: FeatureSet) -> None:
    assert with_share_of_class(leaves, 2, 0.0, 5).content_hash == without_class(leaves, 2).content_hash


@pytest.mark.parametrize(
    "make", [lambda f: without_class(f, "black spot"), lambda f: with_share_of_class(f, "canker", 0.4, 1)]
)
def test_it_is_saved_and_loaded(leaves: FeatureSet, tmp_path: Path, make) -> None:
    made = make(leaves)
    made.save(tmp_path / f"{made.name}.npz")
    loaded = FeatureSet.load(tmp_path / f"{made.name}.npz")
    assert (loaded.name, loaded.content_hash, loaded.class_names) == (
        made.name,
        made.content_hash,
        made.class_names,
    )


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_mapped_set_gives_the_same_in_memory(leaves: FeatureSet, tmp_path: Path, dtype: str) -> None:
    leaves.save_folder(tmp_path / "leaves", dtype)
    mapped = FeatureSet.load(tmp_path / "leaves")
    assert mapped.is_mapped
    made = with_classes(mapped, ["rust", "healthy"])
    assert not made.is_mapped
    # whole numbers up to 2048 are exact in float16
    assert made.content_hash == with_classes(leaves, ["rust", "healthy"]).content_hash
    made.save(tmp_path / "made.npz")
    assert FeatureSet.load(tmp_path / "made.npz").content_hash == made.content_hash


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: without_class(f, "kanker"), "leaves has no class 'kanker'; did you mean 'canker'"),
        (lambda f: without_class(f, "zzz"), "use one of rust, canker"),
        (lambda f: without_class(f, 4), "class = 4: use a whole number of at least 0 and at most 3"),
        (lambda f: with_classes(f, ["rust"]), "1 of 4 classes would be left: keep at least two"),
        (lambda f: with_classes(f, []), "0 of 4 classes"),
        (lambda f: with_classes(f, ["rust", 0]), "'rust' is there twice"),
        (lambda f: with_share_of_class(f, "canker", 1.1, 1), "share = 1.1"),
        (lambda f: with_share_of_class(f, "canker", -0.1, 1), "share = -0.1"),
        (lambda f: with_share_of_class(f, "canker", float("nan"), 1), "share = nan"),
        (lambda f: with_share_of_class(f, "canker", 0.5, -1), "seed = -1"),
        (lambda f: without_class(with_classes(f, [0, 1]), "rust"), "1 of 2 classes would be left"),
    ],
)
def test_bad_input_is_one_clear_line(leaves: FeatureSet, call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(leaves)


def test_regression_has_no_classes(small_regression: FeatureSet) -> None:
    for call in (
        lambda: without_class(small_regression, "a"),
        lambda: with_share_of_class(small_regression, 0, 1, 1),
    ):
        with pytest.raises(InputError, match="regression task has no classes"):
            call()


def test_a_part_without_any_row_of_the_classes_is_refused(leaves: FeatureSet) -> None:
    only_first = leaves.y_test == 0
    lacking = replace(leaves, X_test=leaves.X_test[only_first], y_test=leaves.y_test[only_first])
    with pytest.raises(InputError, match="leaves: X_test has no row of canker, black spot, healthy"):
        without_class(lacking, "rust")
