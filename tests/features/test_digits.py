"""The built-in digits set: what it is, and that it is the same each time."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.feature_selection import f_classif
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from moevoprune.features import FeatureSet, load_digits_features, load_features

ARRAYS = ("X_train", "y_train", "X_test", "y_test", "X_ood")


def assert_identical(a: FeatureSet, b: FeatureSet) -> None:
    for key in ARRAYS:
        assert getattr(a, key).tobytes() == getattr(b, key).tobytes()
    assert a.content_hash == b.content_hash
    assert a.name == b.name == "digits"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("digits") / "made" / "here"


@pytest.fixture(scope="module")
def digits(cache: Path) -> FeatureSet:
    return load_digits_features(cache)


def test_shapes_and_range(digits: FeatureSet) -> None:
    assert digits.class_names == ("5", "6", "7", "8", "9")
    assert digits.task == "classification"
    assert digits.X_val is None
    assert (digits.n_train, digits.n_test, digits.n_features, digits.n_outputs) == (671, 225, 128, 5)
    assert digits.X_ood is not None
    assert digits.X_ood.shape == (540, 128)
    for x in (digits.X_train, digits.X_test, digits.X_ood):
        assert x.min() >= 0
    shares = np.bincount(digits.y_test) / (np.bincount(digits.y_train) + np.bincount(digits.y_test))
    np.testing.assert_allclose(shares, 0.25, atol=0.01)


def test_few_features_do_clearly_worse(digits: FeatureSet) -> None:
    assert np.ptp(digits.X_train, axis=0).min() > 0
    best = np.argsort(-f_classif(digits.X_train, digits.y_train)[0])

    def accuracy(k: int) -> float:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        model.fit(digits.X_train[:, best[:k]], digits.y_train)
        return float(model.score(digits.X_test[:, best[:k]], digits.y_test))

    assert accuracy(128) >= 0.93
    assert accuracy(8) <= accuracy(128) - 0.06


def test_cache_gives_the_same_bits(digits: FeatureSet, cache: Path) -> None:
    assert [f.suffix for f in cache.iterdir()] == [".npz"]
    assert_identical(digits, load_digits_features(cache))


def test_second_computation_is_identical_and_leaves_global_state(
    digits: FeatureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOEVOPRUNE_CACHE", str(tmp_path / "other"))
    threads = torch.get_num_threads()
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    try:
        torch.set_num_threads(2)
        with torch.no_grad():
            again = load_features("digits")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert_identical(digits, again)
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
    assert before[2] == random.getstate()
    assert not torch.are_deterministic_algorithms_enabled()
    assert len(list((tmp_path / "other").iterdir())) == 1


def test_damaged_cache_is_rebuilt(digits: FeatureSet, cache: Path, tmp_path: Path) -> None:
    good = next(cache.iterdir())
    damaged = tmp_path / good.name
    damaged.write_bytes(good.read_bytes()[:1000])
    assert_identical(digits, load_digits_features(tmp_path))
    assert_identical(digits, FeatureSet.load(shutil.copy(damaged, tmp_path / "digits.npz")))


def test_cache_folder_that_cannot_be_made(digits: FeatureSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert_identical(digits, load_digits_features(tmp_path / "file" / "folder"))
    assert [f.name for f in tmp_path.iterdir()] == ["file"]
