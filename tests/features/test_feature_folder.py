"""Feature folders: mapped arrays, what is refused, and that nothing depends on where rows are."""

from __future__ import annotations

import io
import os
import pickle
import struct
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moevoprune.errors import InputError
from moevoprune.features import FeatureSet, load_features
from moevoprune.features import feature_folder as folders
from moevoprune.features.feature_folder import MappedRows, is_feature_folder, is_mapped
from moevoprune.features.folds import make_folds, training_part


def features(**changes: Any) -> FeatureSet:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "X_train": rng.normal(size=(30, 4)).astype(np.float16),
        "y_train": np.arange(30) % 3,
        "X_test": rng.normal(size=(12, 4)).astype(np.float16),
        "y_test": np.arange(12) % 3,
        "class_names": ("a", "b", "ü"),
        "extraction": '{"by": "hand"}',
        "name": "set",
    }
    return FeatureSet(**{**arrays, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    features().save_folder(tmp_path / "set", "float16")
    return tmp_path / "set"


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Seven rows of four features."""
    monkeypatch.setattr(folders, "BLOCK_BYTES", 7 * 16)


def refused(path: Path, *words: str) -> None:
    with pytest.raises(InputError) as error:
        FeatureSet.load(path)
    message = str(error.value)
    assert "\n" not in message
    for word in (str(path), *words):
        assert word in message


def header(shape: tuple[int, ...], descr: str = "<f2", fortran: bool = False) -> bytes:
    text = repr({"descr": descr, "fortran_order": fortran, "shape": shape}).encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_folder_holds_what_an_npz_holds(tmp_path, dtype):
    rng = np.random.default_rng(1)
    given = features(
        X_val=rng.normal(size=(9, 4)).astype(np.float16),
        y_val=np.arange(9) % 3,
        X_ood=rng.normal(size=(8, 4)).astype(np.float16),
        X_ood_test=rng.normal(size=(5, 4)).astype(np.float16),
    )
    given.save(tmp_path / "set.npz", dtype)
    given.save_folder(tmp_path / "set", dtype)
    packed, mapped = FeatureSet.load(tmp_path / "set.npz"), load_features(tmp_path / "set")
    assert mapped.content_hash == packed.content_hash == given.content_hash
    assert mapped.name == packed.name == "set"
    assert mapped.class_names == ("a", "b", "ü")
    assert mapped.extraction == '{"by": "hand"}'
    for part in ("X_train", "X_test", "X_val"):
        array = getattr(mapped, part)
        assert isinstance(array, np.memmap)
        assert array.dtype == dtype
        assert not array.flags.writeable
        np.testing.assert_array_equal(array.astype(np.float32), getattr(packed, part))
    assert mapped.is_mapped
    assert not packed.is_mapped
    assert mapped.X_ood.dtype == np.float32
    # a mapped set can be written again, in either form and number format
    mapped.save(tmp_path / "again.npz", "float32")
    mapped.save_folder(tmp_path / "again", "float32")
    assert FeatureSet.load(tmp_path / "again.npz").content_hash == given.content_hash
    assert FeatureSet.load(tmp_path / "again").content_hash == given.content_hash
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "again.npz", "set", "set.npz"]


def test_regression_and_an_overridden_task(tmp_path):
    rng = np.random.default_rng(2)
    given = features(
        y_train=rng.normal(size=(30, 2)), y_test=rng.normal(size=(12, 2)), task="regression", class_names=()
    )
    given.save_folder(tmp_path / "line")
    assert FeatureSet.load(tmp_path / "line").content_hash == given.content_hash
    features().save_folder(tmp_path / "classes")
    assert FeatureSet.load(tmp_path / "classes", "regression").task == "regression"


def test_mapped_arrays_travel_as_paths(folder):
    mapped = FeatureSet.load(folder)
    sent = pickle.dumps(mapped)
    assert mapped.X_train.tobytes() not in sent
    for copied in (pickle.loads(sent), deepcopy(mapped), replace(mapped, name="other")):
        assert is_mapped(copied.X_train)
        assert copied.content_hash == mapped.content_hash
    rows, _ = training_part(mapped)
    again = pickle.loads(pickle.dumps(rows))
    np.testing.assert_array_equal(again.take(np.array([3, 29])), rows.take(np.array([3, 29])))
    os.utime(folder / "X_train.npy", ns=(0, 0))
    with pytest.raises(InputError, match="changed"):
        pickle.loads(sent)
    (folder / "X_train.npy").unlink()
    with pytest.raises(InputError, match="X_train"):
        pickle.dumps(mapped)


def test_a_set_made_of_mapped_arrays_keeps_them(folder):
    array = np.load(folder / "X_train.npy", mmap_mode="r")
    assert features(X_train=array).X_train is array
    # a part of one, or one that can be written to, is copied as any array is
    part = features(X_train=array[:9], y_train=np.arange(9) % 3).X_train
    assert type(part) is np.ndarray
    assert part.dtype == np.float32
    assert not is_mapped(np.load(folder / "X_train.npy", mmap_mode="c"))


def test_rows_of_several_parts_are_those_of_one_array():
    rng = np.random.default_rng(3)
    parts = [rng.normal(size=(n, 3)).astype(kind) for n, kind in ((5, "f2"), (1, "f4"), (20, "f2"))]
    whole = np.concatenate([part.astype(np.float32) for part in parts])
    rows = MappedRows(parts)
    assert rows.shape == whole.shape
    index = rng.integers(0, 26, size=60)
    np.testing.assert_array_equal(rows.take(index), whole[index])
    np.testing.assert_array_equal(np.concatenate(list(rows.blocks())), whole)
    assert rows.take(np.array([], dtype=np.int64)).shape == (0, 3)
    for wrong in (-1, 26):
        with pytest.raises(IndexError):
            rows.take(np.array([0, wrong]))


def test_folds_of_a_mapped_set_are_those_of_the_same_set_in_memory(folder):
    mapped, given = FeatureSet.load(folder), features()
    for cv in (None, 1, 3):
        for a, b in zip(make_folds(mapped, cv, 1).train, make_folds(given, cv, 1).train, strict=True):
            np.testing.assert_array_equal(a, b)


def test_what_is_a_feature_folder(folder, tmp_path):
    assert is_feature_folder(folder)
    for name in ("nothing", "a\0b"):
        assert not is_feature_folder(tmp_path / name)
    (tmp_path / "images" / "cat").mkdir(parents=True)
    assert not is_feature_folder(tmp_path / "images")
    refused(tmp_path / "images", "directory", "X_train.npy")
    # one that is not whole is not taken for images
    (folder / "X_train.npy").unlink()
    assert is_feature_folder(folder)
    refused(folder, "no array 'X_train'", "add")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_bad_numbers_are_found_in_any_block(folder, value, dtype):
    array = np.ones((30, 4), dtype=dtype)
    array[17, 2] = value
    np.save(folder / "X_train.npy", array)
    refused(folder, "X_train", "row 17, column 2")


def test_what_is_wrong_with_a_file_is_said(folder):
    good = (folder / "X_train.npy").read_bytes()

    def spoilt(content: bytes, *words: str, name: str = "X_train") -> None:
        before = (folder / f"{name}.npy").read_bytes()
        (folder / f"{name}.npy").write_bytes(content)
        refused(folder, f"{name}.npy", *words)
        (folder / f"{name}.npy").write_bytes(before)

    spoilt(good[:-1], "not written to its end")
    spoilt(good + b"x", "header")
    spoilt(b"", "np.save")
    spoilt(b"PK\x03\x04" + good, "np.save")
    spoilt(b"\x93NUMPY\x07\x00" + good[8:], "version")
    spoilt(header((2**62, 2**62)), "bytes")
    spoilt(header((2**63, 2)), "bytes")
    spoilt(header((-1, 4)), "shape")
    spoilt(header((True, 4)) + bytes(8), "shape")
    spoilt(header((30, 4), fortran=True) + bytes(240), "Fortran", "ascontiguousarray")
    spoilt(header((30, 4), ">f2") + bytes(240), ">f2", "float16 or float32")
    spoilt(header((30, 4), "<f8") + bytes(960), "float64", "float16 or float32")
    spoilt(header((3,), "|O") + bytes(24), "pickled")
    spoilt(header((2**40,), "<i8"), "bytes", name="y_train")
    (folder / "X_train.npy").write_bytes(header((0, 4)))
    refused(folder, "zero rows")
    (folder / "X_train.npy").write_bytes(header((120,)) + bytes(240))
    refused(folder, "1-D")


def test_pickles_are_not_read(folder):
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    for name in ("y_train", "class_names", "X_test"):
        before = (folder / f"{name}.npy").read_bytes()
        (folder / f"{name}.npy").write_bytes(buffer.getvalue())
        refused(folder, "pickled")
        (folder / f"{name}.npy").write_bytes(before)


def test_a_lacking_file_is_named(folder):
    (folder / "y_test.npy").unlink()
    refused(folder, "'y_test'")


def test_files_that_are_no_plain_files(folder, tmp_path):
    # a link to the array is as good as the array
    (folder / "X_train.npy").rename(tmp_path / "elsewhere.npy")
    (folder / "X_train.npy").symlink_to(tmp_path / "elsewhere.npy")
    assert FeatureSet.load(folder).content_hash == features().content_hash
    (tmp_path / "elsewhere.npy").unlink()
    refused(folder, "X_train.npy", "no regular file")
    (folder / "X_train.npy").unlink()
    os.mkfifo(folder / "X_train.npy")
    refused(folder, "X_train.npy", "no regular file")


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("keep")
    with pytest.raises(InputError, match="not empty"):
        features().save_folder(tmp_path / "full")
    array = np.ones((30, 4))
    array[20, 1] = 1e6
    too_large = features(X_train=array)
    with pytest.raises(InputError, match="overflows float16 at row 20, column 1"):
        too_large.save_folder(tmp_path / "new", "float16")
    with pytest.raises(InputError, match="cannot be written"):
        features().save_folder(tmp_path / "absent" / "new")
    with pytest.raises(InputError, match="float64"):
        features().save_folder(tmp_path / "new", "float64")  # type: ignore[arg-type]

    def full_disk(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(InputError, match="free some space"):
        features().save_folder(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    assert (tmp_path / "full" / "mine").read_text() == "keep"


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "new").mkdir()
    features().save_folder(tmp_path / "new")
    assert FeatureSet.load(tmp_path / "new").content_hash == features().content_hash


def test_a_file_that_was_replaced_since_is_noticed_by_processes_that_start_later(folder: Path) -> None:
    rows = MappedRows([FeatureSet.load(folder).X_train])
    np.save(folder / "new.npy", np.zeros((31, 4), np.float16))
    os.replace(folder / "new.npy", folder / "X_train.npy")
    with pytest.raises(InputError, match="has changed while it was in use"):
        pickle.loads(pickle.dumps(rows))
