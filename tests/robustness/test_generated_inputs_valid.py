"""Valid data of every form are read, and come back as they were written."""

from __future__ import annotations

import os

import numpy as np
import pytest
from generating import EXAMPLES, REPEATABLE, arrays_of_any_kind, in_time
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from readers import is_read

from moevoprune import FeatureSet, load_features
from moevoprune.cli.config import parse_config, read_toml, to_toml
from moevoprune.construction.tables import read_csv
from moevoprune.search.algorithms import ALGORITHMS
from moevoprune.search.journal import EvaluationJournal

_FLOATS = st.sampled_from(["<f4", "<f8", ">f8", "<f2", "<i4", ">i2", "|u1"])
_TEXT = st.text(max_size=12)


@pytest.fixture(autouse=True)
def _no_waiting_for_disks(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@st.composite
def _whole_sets(draw):
    """Arrays of a valid feature set, of any number format, and the classes they should have."""
    width, n_classes = draw(st.integers(1, 5)), draw(st.integers(2, 4))
    rows = [n_classes + draw(st.integers(0, 4)), draw(st.integers(1, 5))]
    kind = draw(_FLOATS)
    low = 0 if kind == "|u1" else -100
    numbers = st.integers(low, 100)
    arrays = {
        f"X_{part}": draw(hnp.arrays(kind, (n, width), elements=numbers))
        for part, n in zip(("train", "test"), rows, strict=True)
    }
    labels = np.arange(rows[0]) % n_classes
    arrays["y_train"] = labels.astype(draw(st.sampled_from(["<i8", "<u2", ">i4", "|i1"])))
    arrays["y_test"] = draw(hnp.arrays("<i8", rows[1], elements=st.integers(0, n_classes - 1)))
    if draw(st.booleans()):
        names = draw(st.lists(_TEXT.filter(lambda text: "\0" not in text), min_size=n_classes, max_size=n_classes))
        arrays["class_names"] = np.array(names, dtype=np.str_)
    return arrays


def test_features_come_back_as_they_were_written(tmp_path):
    tried = 0

    @settings(max_examples=EXAMPLES["features"], **REPEATABLE)
    @given(arrays=_whole_sets(), how=st.sampled_from(["npz", "packed", "folder"]))
    def write_and_read(arrays, how):
        nonlocal tried
        tried += 1
        path = tmp_path / f"{tried}.npz"
        with in_time():
            (np.savez_compressed if how == "packed" else np.savez)(path, **arrays)
            features = load_features(path)
            np.testing.assert_array_equal(features.X_train, arrays["X_train"].astype(np.float32))
            np.testing.assert_array_equal(features.y_test, arrays["y_test"])
            if how == "folder":
                features.save_folder(tmp_path / f"folder{tried}")
            else:
                features.save(path)
            again = load_features(tmp_path / f"folder{tried}" if how == "folder" else path)
            assert again.content_hash == features.content_hash
            assert again.class_names == features.class_names
        path.unlink()

    write_and_read()
    assert tried >= EXAMPLES["features"]


def test_arrays_of_any_form_make_features_or_are_refused(tmp_path):
    path = tmp_path / "any.npz"
    tried = 0

    @settings(max_examples=EXAMPLES["features"], **REPEATABLE)
    @given(
        name=st.sampled_from(["X_train", "y_train", "X_test", "y_test", "X_val", "task", "class_names"]),
        array=arrays_of_any_kind(),
    )
    def attack(name, array):
        nonlocal tried
        tried += 1
        sound = {"X_train": np.eye(3), "y_train": np.arange(3), "X_test": np.eye(3), "y_test": np.arange(3)}
        with in_time():
            np.savez(path, **{**sound, name: array}, allow_pickle=True)
            is_read(lambda: load_features(path).content_hash)
            if name in sound:
                is_read(lambda: FeatureSet(**{**sound, name: array}).content_hash)

    attack()
    assert tried >= EXAMPLES["features"]


_MAY_BE_LEFT_OUT = {
    "seed": st.integers(0, 2**32 - 1),
    "problem.encoding": st.sampled_from(["features", "neurons", "connections"]),
    "problem.cv": st.integers(1, 10),
    "problem.noise": st.floats(1e-6, 1e6),
    "head.hidden": st.lists(st.integers(1, 512), max_size=2),
    "head.epochs": st.integers(1, 500),
    "search.algorithm": st.sampled_from(sorted(ALGORITHMS)),
    "search.pop": st.integers(2, 1000),
    "search.gens": st.integers(1, 1000),
    "compute.chunk": st.integers(1, 100),
}


def test_valid_settings_are_written_and_read_as_they_are(tmp_path):
    tried = 0

    @settings(max_examples=EXAMPLES["settings"], **REPEATABLE)
    @given(st.fixed_dictionaries({}, optional=_MAY_BE_LEFT_OUT), st.sampled_from(["digits", "a b.npz", "ü/ö.npz"]))
    def write_and_read(chosen, source):
        nonlocal tried
        tried += 1
        raw = {"data": {"features": source}}
        for key, value in chosen.items():
            section, _, name = key.rpartition(".")
            (raw.setdefault(section, {}) if section else raw)[name] = value
        config = parse_config(raw, "settings")
        path = tmp_path / "settings.toml"
        path.write_text(to_toml(config), encoding="utf-8")
        again = parse_config(read_toml(path), str(path))
        update = {"data": again.data.model_copy(update={"features": source})}
        assert again.model_copy(update=update) == config

    write_and_read()
    assert tried >= EXAMPLES["settings"]


def test_tables_of_numbers_are_read_as_they_are(tmp_path):
    path = tmp_path / "table.csv"
    tried = 0

    @settings(max_examples=EXAMPLES["tables"], **REPEATABLE)
    @given(
        hnp.arrays(
            "<f8", hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=6), elements=st.floats(-1e9, 1e9)
        ),
        st.sampled_from(",;\t"),
    )
    def write_and_read(numbers, separator):
        nonlocal tried
        tried += 1
        header = separator.join(f"c{i}" for i in range(numbers.shape[1]))
        lines = [separator.join(map(repr, row)) for row in numbers.tolist()]
        path.write_text("\n".join([header, *lines]), encoding="utf-8")
        table = read_csv(path, ["c0"], task="regression")
        np.testing.assert_allclose(table.rows, numbers[:, 1:], rtol=1e-12)
        np.testing.assert_allclose(table.targets, numbers[:, :1], rtol=1e-12)

    write_and_read()
    assert tried >= EXAMPLES["tables"]


def test_journals_come_back_to_the_bit(tmp_path):
    path = tmp_path / "evaluations.journal"
    tried = 0

    @settings(max_examples=EXAMPLES["journals"], **REPEATABLE)
    @given(st.data(), st.integers(1, 70), st.integers(1, 4), st.integers(0, 6))
    def write_and_read(data, n_bits, n_obj, n):
        nonlocal tried
        tried += 1
        masks = data.draw(hnp.arrays(np.bool_, (n, n_bits)))
        values = data.draw(
            hnp.arrays("<f8", (n, n_obj), elements=st.floats(allow_nan=False, allow_infinity=False))
        )
        path.unlink(missing_ok=True)
        names = [f"o{i}" for i in range(n_obj)]
        with EvaluationJournal.create(path, {"name": data.draw(st.text(max_size=9))}, n_bits, names) as journal:
            journal.append(masks, values)
        _, found, numbers = EvaluationJournal.read(path)
        np.testing.assert_array_equal(found, masks)
        assert numbers.tobytes() == values.tobytes()

    write_and_read()
    assert tried >= EXAMPLES["journals"]
