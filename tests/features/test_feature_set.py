"""FeatureSet: validation, conversion, files."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from moevoprune.errors import InputError
from moevoprune.features import FeatureSet, load_features


def arrays(**changes: Any) -> dict[str, Any]:
    """A valid classification task of 3 classes; `changes` replace or (None) remove arrays."""
    rng = np.random.default_rng(0)
    made: dict[str, Any] = {
        "X_train": rng.normal(size=(9, 4)).astype(np.float32),
        "y_train": np.arange(9) % 3,
        "X_test": rng.normal(size=(6, 4)).astype(np.float32),
        "y_test": np.arange(6) % 3,
        **changes,
    }
    return {key: value for key, value in made.items() if value is not None}


def regression(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return arrays(**{"y_train": rng.normal(size=9), "y_test": rng.normal(size=6), **changes})


def poked(array: Any, spot: tuple[int, ...], value: Any) -> Any:
    out = np.array(array, dtype=np.float64)
    out[spot] = value
    return out


def assert_one_line(message: str, *words: str) -> None:
    assert "\n" not in message
    for word in words:
        assert word in message, f"{word!r} not in {message!r}"


def assert_same(a: FeatureSet, b: FeatureSet) -> None:
    assert a.task == b.task
    assert a.class_names == b.class_names
    for key in ("X_train", "y_train", "X_test", "y_test", "X_val", "y_val", "X_ood", "X_ood_test"):
        x, y = getattr(a, key), getattr(b, key)
        if x is None:
            assert y is None
        else:
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)
    assert a.extraction == b.extraction
    assert a.content_hash == b.content_hash


# --- what a set holds ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int8, np.int64, np.uint8, ">f4"])
def test_features_become_frozen_float32(kind: Any) -> None:
    x = np.asfortranarray((np.arange(36).reshape(9, 4) % 7).astype(kind))
    made = FeatureSet(**arrays(X_train=x, y_train=(np.arange(9) % 3).astype(np.uint8)))
    assert made.X_train.dtype == np.float32
    assert made.X_train.flags.c_contiguous
    assert made.y_train.dtype == np.int64
    np.testing.assert_array_equal(made.X_train, x.astype(np.float32))
    with pytest.raises(ValueError, match="read-only"):
        made.X_train[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        made.y_test[0] = 1


def test_input_stays_writable_and_apart() -> None:
    given_arrays = arrays()
    view = given_arrays["X_test"][:]
    view.flags.writeable = False
    made = FeatureSet(**{**given_arrays, "X_test": view})
    before = made.X_train.copy(), made.X_test.copy()
    given_arrays["X_train"][:] = 0
    given_arrays["X_test"][:] = 0
    np.testing.assert_array_equal(made.X_train, before[0])
    np.testing.assert_array_equal(made.X_test, before[1])


def test_replace_does_not_copy_frozen_arrays() -> None:
    made = FeatureSet(**arrays())
    assert replace(made, name="other").X_train is made.X_train


def test_properties() -> None:
    made = FeatureSet(**arrays())
    assert (made.n_train, made.n_test, made.n_features) == (9, 6, 4)
    assert (made.n_classes, made.n_outputs) == (3, 3)
    assert made.class_names == ("0", "1", "2")
    assert made.name == "features"
    assert "array" not in repr(made)


def test_regression_targets_are_columns() -> None:
    one = FeatureSet(**regression(), task="regression")
    assert one.y_train.shape == (9, 1)
    assert one.y_train.dtype == np.float32
    assert (one.n_classes, one.n_outputs, one.class_names) == (0, 1, ())
    two = FeatureSet(**regression(y_train=np.ones((9, 2)), y_test=np.ones((6, 2), int)), task="regression")
    assert two.n_outputs == 2


def test_class_names_are_made_printable() -> None:
    names = ("a\x1b[2J", "b\nc", "d\u202ee\ud800")
    made = FeatureSet(**arrays(), class_names=names, name="x\ty")
    assert made.class_names == ("a?[2J", "b?c", "d?e?")
    assert made.name == "x?y"
    assert FeatureSet(**arrays(), class_names=np.array(["ä", "β", "猫"])).class_names == ("ä", "β", "猫")


def test_content_hash_sees_content_only() -> None:
    base = FeatureSet(**arrays())
    assert len(base.content_hash) == 64
    assert base.content_hash == FeatureSet(**arrays(), name="other").content_hash
    assert base.content_hash == FeatureSet(**arrays(), class_names=("0", "1", "2")).content_hash
    x = arrays()["X_train"]
    others = [
        FeatureSet(**arrays(X_train=poked(x, (8, 3), 9.0))),
        FeatureSet(**arrays(), class_names=("a", "b", "c")),
        FeatureSet(**arrays(X_ood=x)),
        FeatureSet(**arrays(X_val=x, y_val=np.arange(9) % 3)),
        FeatureSet(**arrays(), task="regression"),
        FeatureSet(**arrays(X_ood=x, X_ood_test=x)),
        FeatureSet(**arrays(X_ood=x, X_ood_test=-x)),
    ]
    assert len({base.content_hash, *(other.content_hash for other in others)}) == 8
    assert base.content_hash == FeatureSet(**arrays(), extraction="{}").content_hash


def test_content_hash_is_what_journals_and_caches_were_made_with() -> None:
    """Recorded before X_ood_test came: another hash would make a finished run look like one of other data."""
    x = np.arange(12, dtype=np.float32).reshape(6, 2)
    y = np.arange(6) % 2
    assert FeatureSet(x, y, x, y).content_hash.startswith("7327a19920a2d74c")
    assert FeatureSet(x, y, x, y, X_val=x, y_val=y, X_ood=-x).content_hash.startswith("b06780f7acbb0a1b")


# --- files -----------------------------------------------------------------------------------------


def test_round_trip(tmp_path: Path) -> None:
    x = arrays()["X_train"]
    made = FeatureSet(
        **arrays(X_val=x[:5], y_val=np.zeros(5, int), X_ood=-x), class_names=("a", "b", "ç"), name="set"
    )
    made.save(tmp_path / "set.npz")
    back = FeatureSet.load(tmp_path / "set.npz")
    assert_same(made, back)
    assert back.name == "set"
    assert not back.X_train.flags.writeable
    assert [f.name for f in tmp_path.iterdir()] == ["set.npz"]
    assert_same(made, load_features(str(tmp_path / "set.npz")))
    with np.load(tmp_path / "set.npz", allow_pickle=False) as plain:
        assert str(plain["task"]) == "classification"
        assert "extraction" not in plain.files
        np.testing.assert_array_equal(plain["X_ood"], -x)


def test_round_trip_of_held_back_rows_and_of_how_features_were_made(tmp_path: Path) -> None:
    x = arrays()["X_train"]
    text = '{"backbone": "réseau", "size": 224}'
    made = FeatureSet(**arrays(X_ood=-x, X_ood_test=x[:2] / 2), extraction=text)
    for dtype in ("float32", "float16"):
        made.save(tmp_path / "set.npz", dtype=dtype)  # type: ignore[arg-type]
        back = FeatureSet.load(tmp_path / "set.npz")
        assert back.extraction == text
        assert back.X_ood_test is not None
        np.testing.assert_allclose(back.X_ood_test, x[:2] / 2, rtol=1e-3)
        assert not back.X_ood_test.flags.writeable
    made.save(tmp_path / "set.npz")
    assert_same(made, FeatureSet.load(tmp_path / "set.npz"))


@pytest.mark.parametrize("stored", [np.array(["a"]), np.array(3), np.array(b"{}"), np.array("x" * (2**20 + 1))])
def test_a_stored_extraction_that_is_no_short_string_is_refused(tmp_path: Path, stored: Any) -> None:
    np.savez(tmp_path / "a.npz", **arrays(), extraction=stored)
    with pytest.raises(InputError, match="extraction") as caught:
        FeatureSet.load(tmp_path / "a.npz")
    assert_one_line(str(caught.value), "a.npz")


def test_a_huge_extraction_is_refused_before_it_is_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", **arrays(), extraction=np.array("x" * 2**23))
    with pytest.raises(InputError, match="longer than 1 MiB"):
        FeatureSet.load(tmp_path / "a.npz")


@pytest.mark.parametrize("text", [None, b"{}", 3, "x" * (2**20 + 1), "é" * (2**19 + 1)])
def test_bad_extraction_is_refused(text: Any) -> None:
    with pytest.raises(InputError, match="extraction is"):
        FeatureSet(**arrays(), extraction=text)


def test_save_is_reproducible_and_replaces(tmp_path: Path) -> None:
    made = FeatureSet(**arrays())
    made.save(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(b"old")
    made.save(str(tmp_path / "b.npz"))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_saved_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    FeatureSet(**arrays()).save(tmp_path / "a.npz")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "a.npz")]
    assert modes[0] == modes[1]


def test_regression_round_trip(tmp_path: Path) -> None:
    made = FeatureSet(**regression(), task="regression")
    made.save(tmp_path / "r.npz")
    assert_same(made, FeatureSet.load(tmp_path / "r.npz"))


def test_float16_file_has_the_same_hash(tmp_path: Path) -> None:
    halves = {key: arrays()[key].astype(np.float16) for key in ("X_train", "X_test")}
    made = FeatureSet(**arrays(**halves))
    made.save(tmp_path / "a.npz")
    made.save(tmp_path / "b.npz", dtype="float16")
    with np.load(tmp_path / "b.npz", allow_pickle=False) as plain:
        assert plain["X_train"].dtype == np.float16
        assert plain["y_train"].dtype == np.int64
    assert_same(FeatureSet.load(tmp_path / "a.npz"), FeatureSet.load(tmp_path / "b.npz"))


def test_task_argument_overrides_the_file(tmp_path: Path) -> None:
    FeatureSet(**arrays(), class_names=("a", "b", "c")).save(tmp_path / "a.npz")
    assert FeatureSet.load(tmp_path / "a.npz", task="regression").n_outputs == 1
    assert load_features(tmp_path / "a.npz", task="regression").task == "regression"


def test_plain_numpy_file_with_other_arrays(tmp_path: Path) -> None:
    other = np.array([{"never": "read"}], dtype=object)
    np.savez(tmp_path / "a.npz", **arrays(), comment=other)
    assert FeatureSet.load(tmp_path / "a.npz").class_names == ("0", "1", "2")


finite = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_round_trip_of_any_set(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    d = data.draw(st.integers(1, 4))
    c = data.draw(st.integers(2, 4))

    def part(least: int) -> tuple[Any, Any]:
        n = data.draw(st.integers(least, least + 4))
        x = data.draw(hnp.arrays(np.float32, (n, d), elements=finite))
        return x, data.draw(hnp.arrays(np.int32, n, elements=st.integers(0, c - 1)))

    (x_train, y_train), (x_test, y_test) = part(c), part(1)
    y_train[:c] = np.arange(c)
    names = data.draw(st.just(()) | st.lists(st.text(max_size=5), min_size=c, max_size=c).map(tuple))
    x_ood = data.draw(st.none() | st.just(-x_test))
    made = FeatureSet(x_train, y_train, x_test, y_test, X_ood=x_ood, class_names=names)
    path = tmp_path_factory.mktemp("any") / "a.npz"
    made.save(path)
    assert_same(made, FeatureSet.load(path))


# --- refused arrays --------------------------------------------------------------------------------

X = arrays()["X_train"]
BAD_ARRAYS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "1-D features": ({"X_train": X[:, 0]}, ("X_train", "1-D", "2-D")),
    "3-D features": ({"X_test": np.ones((6, 2, 2))}, ("X_test", "3-D")),
    "strings": ({"X_train": X.astype(str)}, ("X_train", "strings")),
    "complex": ({"X_train": X.astype(complex)}, ("X_train", "complex")),
    "bool": ({"X_train": X > 0}, ("X_train", "bool")),
    "bool labels": ({"y_train": np.arange(9) > 3}, ("y_train", "bool", "integers")),
    "string labels": ({"y_test": np.array(["a"] * 6)}, ("y_test", "strings", "class_names")),
    "dates": ({"X_train": np.zeros((9, 4), "M8[s]")}, ("X_train", "datetime64")),
    "rows train": ({"y_train": np.arange(8) % 3}, ("X_train has 9 rows", "y_train has 8")),
    "rows test": ({"X_test": np.ones((7, 4))}, ("X_test has 7 rows", "y_test has 6")),
    "rows val": ({"X_val": X, "y_val": np.zeros(2, int)}, ("X_val has 9 rows", "y_val has 2")),
    "width test": ({"X_test": np.ones((6, 5))}, ("X_test has 5 features", "X_train has 4")),
    "width ood": ({"X_ood": np.ones((6, 3))}, ("X_ood has 3 features", "X_train has 4")),
    "nan": ({"X_train": poked(X, (5, 2), np.nan)}, ("X_train", "NaN", "row 5, column 2")),
    "infinity": ({"X_ood": poked(X, (3, 1), -np.inf)}, ("X_ood", "infinity", "row 3, column 1")),
    "overflow": ({"X_train": poked(X, (4, 0), 1e39)}, ("overflows float32", "row 4, column 0", "1e+39")),
    "ood test alone": ({"X_ood_test": X}, ("X_ood_test", "without X_ood")),
    "width ood test": (
        {"X_ood": X, "X_ood_test": np.ones((6, 3))},
        ("X_ood_test has 3 features", "X_train has 4"),
    ),
    "nan ood test": (
        {"X_ood": X, "X_ood_test": poked(X, (2, 1), np.nan)},
        ("X_ood_test", "NaN", "row 2, column 1"),
    ),
    "zero rows": ({"X_train": X[:0], "y_train": np.zeros(0, int)}, ("X_train", "zero rows")),
    "zero ood rows": ({"X_ood": X[:0]}, ("X_ood", "zero rows")),
    "zero columns": ({"X_train": X[:, :0]}, ("X_train", "zero columns")),
    "one class": ({"y_train": np.full(9, 2)}, ("y_train", "only one class")),
    "float labels": (
        {"y_train": (np.arange(9) % 3).astype(float)},
        (
            "y_train",
            "float64",
            "convert labels to integers 0..C-1, or, for regression, use task='regression'"
            " (in the file, or on the command line: --set task=regression)",
        ),
    ),
    "negative": ({"y_train": np.arange(9) % 3 - 1}, ("y_train", "negative", "row 0")),
    "negative test": ({"y_test": np.array([0, 1, -7, 0, 0, 0])}, ("y_test", "-7", "row 2")),
    "from one": ({"y_train": np.arange(9) % 3 + 1}, ("y_train", "do not start at 0", "smallest is 1")),
    "gap": ({"y_train": np.arange(9) % 3 * 2}, ("y_train", "no row of class 1", "1 other")),
    "huge label": ({"y_train": np.array([0, 1] * 4 + [10**12])}, ("no row of class 2", "other classes")),
    "beyond int64": ({"y_train": np.full(9, 2**63, np.uint64)}, ("y_train", "label 9223372036854775808")),
    "test label": ({"y_test": np.array([0, 1, 2, 3, 0, 0])}, ("y_test", "label 3", "row 3", "0..2")),
    "val label": ({"X_val": X[:2], "y_val": np.array([0, 9])}, ("y_val", "label 9", "row 1")),
    "one-hot": ({"y_train": np.eye(3, dtype=int)[np.arange(9) % 3]}, ("y_train", "2-D", "1-D")),
    "only X_val": ({"X_val": X}, ("X_val", "without y_val")),
    "only y_val": ({"y_val": np.zeros(3, int)}, ("y_val", "without X_val")),
    "few names": ({"class_names": np.array(["a", "b"])}, ("class_names has 2 names", "up to 2", "3 names")),
    "gap by name": ({"class_names": np.array(list("abcd"))}, ("no row of class 3 (d)",)),
    "names no strings": ({"class_names": np.arange(3)}, ("class_names", "string")),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays_are_refused(case: str, tmp_path: Path) -> None:
    changes, words = BAD_ARRAYS[case]
    with pytest.raises(InputError) as caught:
        FeatureSet(**arrays(**changes))
    assert_one_line(str(caught.value), *words)
    np.savez(tmp_path / "bad.npz", **arrays(**changes))
    with pytest.raises(InputError) as caught:
        FeatureSet.load(tmp_path / "bad.npz")
    assert_one_line(str(caught.value), *words)
    assert str(caught.value).startswith(f"{tmp_path / 'bad.npz'}: ")


BAD_TARGETS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "nan": ({"y_train": poked(np.ones(9), (3,), np.nan)}, ("y_train", "NaN", "row 3")),
    "infinity": ({"y_test": poked(np.ones((6, 1)), (2, 0), np.inf)}, ("y_test", "infinity", "row 2")),
    "overflow": ({"y_test": poked(np.ones(6), (1,), -1e300)}, ("y_test", "overflows float32", "row 1")),
    "3-D": ({"y_train": np.ones((9, 1, 1))}, ("y_train", "shape")),
    "no target": ({"y_train": np.ones((9, 0))}, ("y_train", "shape")),
    "widths": ({"y_test": np.ones((6, 2))}, ("y_test has 2 targets", "y_train has 1")),
    "bool": ({"y_train": np.ones(9, bool)}, ("y_train", "bool")),
}


@pytest.mark.parametrize("case", BAD_TARGETS)
def test_bad_regression_targets_are_refused(case: str) -> None:
    changes, words = BAD_TARGETS[case]
    with pytest.raises(InputError) as caught:
        FeatureSet(**regression(**changes), task="regression")
    assert_one_line(str(caught.value), *words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "ranking"}, ("task", "ranking", "classification")),
        ({"task": ["regression"]}, ("task", "regression")),
        ({"class_names": "abc"}, ("class_names", "sequence of strings")),
        ({"class_names": ("a", 1, "c")}, ("class_names[1]", "int")),
        ({"X_train": [[1.0], [1.0, 2.0]]}, ("X_train", "not an array")),
        ({"X_train": np.array([[object()]])}, ("X_train", "object array")),
        ({"task": "regression", "class_names": ("a",)}, ("class_names", "regression")),
    ],
)
def test_bad_arguments_are_refused(changes: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        FeatureSet(**arrays(**changes))
    assert_one_line(str(caught.value), *words)


def test_none_is_refused() -> None:
    with pytest.raises(InputError, match="X_train is None"):
        FeatureSet(**{**arrays(), "X_train": None})


# --- refused files ---------------------------------------------------------------------------------


def refused(path: Path, *words: str, **options: Any) -> None:
    with pytest.raises(InputError) as caught:
        FeatureSet.load(path, **options)
    assert_one_line(str(caught.value), path.name, *words)


def npz_bytes(**changes: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays(**changes))
    return buffer.getvalue()


def test_missing_file_and_directory(tmp_path: Path) -> None:
    refused(tmp_path / "none.npz", "no such file")
    refused(tmp_path, "directory")
    with pytest.raises(InputError) as caught:
        FeatureSet.load(f"{tmp_path}/a\0b")
    assert_one_line(str(caught.value), "a?b", "check the path")


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "not a regular file")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04N.", b"PK\x03\x04" + b"\0" * 50])
def test_not_an_npz(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.npz").write_bytes(content)
    refused(tmp_path / "bad.npz", "not an .npz file")


def test_single_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "bad.npy", X)
    refused(tmp_path / "bad.npy", "single .npy array", "np.savez")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = npz_bytes()
    for length in range(0, len(whole), 97):
        (tmp_path / "bad.npz").write_bytes(whole[:length])
        refused(tmp_path / "bad.npz", "np.savez")


@pytest.mark.parametrize("compressed", [False, True])
def test_a_flipped_bit_is_noticed(tmp_path: Path, compressed: bool) -> None:
    good, bad = tmp_path / "good.npz", tmp_path / "bad.npz"
    (np.savez_compressed if compressed else np.savez)(good, **arrays())
    whole, expected = good.read_bytes(), FeatureSet.load(good).content_hash
    with zipfile.ZipFile(good) as archive:
        info = archive.getinfo("X_train.npy")
    lengths = np.frombuffer(whole, "<u2", count=2, offset=info.header_offset + 26)
    start = info.header_offset + 30 + int(lengths.sum())
    for offset in range(start, start + info.compress_size - 4, 3):
        damaged = bytearray(whole)
        damaged[offset] ^= 4
        bad.write_bytes(damaged)
        refused(bad, "X_train", "damaged")
    # the last bits of a deflate stream may be padding: no harm if they are not noticed
    for offset in range(start + info.compress_size - 4, start + info.compress_size):
        damaged = bytearray(whole)
        damaged[offset] ^= 128
        bad.write_bytes(damaged)
        with contextlib.suppress(InputError):
            assert FeatureSet.load(bad).content_hash == expected


def test_array_that_claims_too_much(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (2**45, 4)}
    np.lib.format.write_array_header_1_0(buffer, header)
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        for key in ("X_train", "y_train", "X_test", "y_test"):
            archive.writestr(f"{key}.npy", buffer.getvalue() + b"\0" * 64)
    refused(tmp_path / "bad.npz", "X_train")


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (self.path,))


@pytest.mark.parametrize("key", ["X_train", "y_test", "X_ood", "class_names", "task"])
def test_pickles_are_never_read(tmp_path: Path, key: str) -> None:
    np.savez(tmp_path / "bad.npz", **arrays(**{key: np.array([Bomb(tmp_path / "boom")], dtype=object)}))
    refused(tmp_path / "bad.npz", key, "holds pickled objects, which are never read; save plain arrays")
    assert not (tmp_path / "boom").exists()
    # the bomb is a live one
    with np.load(tmp_path / "bad.npz", allow_pickle=True) as trusting:
        trusting[key]
    assert (tmp_path / "boom").exists()


@pytest.mark.parametrize("key", ["X_train", "y_train", "X_test", "y_test"])
def test_missing_array(tmp_path: Path, key: str) -> None:
    np.savez(tmp_path / "bad.npz", **arrays(**{key: None}), other=X)
    present = [name for name in ("X_train", "y_train", "X_test", "y_test") if name != key]
    refused(tmp_path / "bad.npz", f"no array '{key}'", ", ".join(present), "other")


def test_missing_array_of_an_ordinary_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        archive.writestr("readme.txt", "no arrays")
    refused(tmp_path / "bad.npz", "X_train", "no arrays")
    np.savez(tmp_path / "many.npz", **{f"a{i}": X for i in range(20)})
    refused(tmp_path / "many.npz", "a11 and 8 more")


def test_bad_task_and_names_in_a_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays(task="ranking\n"))
    refused(tmp_path / "a.npz", "task", "ranking")
    np.savez(tmp_path / "b.npz", **arrays(task=np.array(["regression"])))
    refused(tmp_path / "b.npz", "'task'", "shape (1,)")
    np.savez(tmp_path / "c.npz", **arrays(class_names=np.array([["a", "b", "c"]])))
    refused(tmp_path / "c.npz", "class_names", "shape (1, 3)")
    refused(tmp_path / "c.npz", "task", task="other")


def test_file_name_with_a_line_break(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        FeatureSet.load(tmp_path / "a\n\x1b[2Jb.npz")
    assert_one_line(str(caught.value), "a??[2Jb.npz", "no such file")


# --- refused saves ---------------------------------------------------------------------------------


def test_float16_overflow_is_refused(tmp_path: Path) -> None:
    made = FeatureSet(**arrays(X_test=poked(arrays()["X_test"], (1, 2), 7e4)))
    with pytest.raises(InputError) as caught:
        made.save(tmp_path / "a.npz", dtype="float16")
    assert_one_line(str(caught.value), "a.npz", "X_test", "float16", "row 1, column 2", "70000")
    with pytest.raises(InputError, match="use 'float32' or 'float16'"):
        made.save(tmp_path / "a.npz", dtype="float64")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_failed_save_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = FeatureSet(**arrays())
    with pytest.raises(InputError, match="cannot be written"):
        made.save(tmp_path / "none" / "a.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        made.save(tmp_path / "folder.npz")
    (tmp_path / "a.npz").write_bytes(b"old")

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        made.save(tmp_path / "a.npz")
    assert (tmp_path / "a.npz").read_bytes() == b"old"
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a.npz", "folder.npz"]


# --- load_features ---------------------------------------------------------------------------------


def test_unknown_source(tmp_path: Path) -> None:
    for source, words in {
        "Digit": (
            "neither",
            "built-in feature set (digits)",
            "nor an existing file",
            "did you mean 'digits'?",
        ),
        str(tmp_path / "no.npz"): ("neither", "no.npz", ".npz file"),
        "a\nb": ("neither",),
    }.items():
        with pytest.raises(InputError) as caught:
            load_features(source)
        assert_one_line(str(caught.value), *words)
    with pytest.raises(InputError, match="directory"):
        load_features(tmp_path)
    with pytest.raises(InputError, match="digits is a classification set"):
        load_features("digits", task="regression")
