"""Training on rows read batch by batch: the same bits as in memory, whoever else is trained."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from moevoprune.features import feature_folder
from moevoprune.features.feature_folder import MappedRows
from moevoprune.heads import streaming
from moevoprune.heads.encodings import HeadShape, make_encoding
from moevoprune.heads.row_sources import PreparedRows, is_large
from moevoprune.heads.scaling import Scaling
from moevoprune.heads.settings import HeadSettings
from moevoprune.heads.trainer import PopulationTrainer

N_ROWS, N_FEATURES, N_CLASSES = 150, 11, 3
ENCODINGS = ["features", "neurons", "features+neurons", "connections"]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Twenty rows are read at once, so that several chunks and blocks occur."""
    monkeypatch.setattr(streaming, "_CHUNK_BYTES", 20 * 4 * (N_FEATURES + 2))
    monkeypatch.setattr(feature_folder, "BLOCK_BYTES", 13 * 4 * N_FEATURES)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Float16 features, mapped, and labels."""
    rng = np.random.default_rng(4)
    labels = rng.integers(0, N_CLASSES, size=N_ROWS)
    rows = rng.normal(size=(N_ROWS, N_FEATURES)) * 3 + 5
    rows[:, :3] += labels[:, None]
    path = tmp_path_factory.mktemp("rows") / "X.npy"
    np.save(path, rows.astype(np.float16))
    return np.load(path, mmap_mode="r"), labels


@pytest.fixture(scope="module")
def prepared(raw):
    """The same rows, prepared in memory and on demand."""
    rows, labels = raw
    in_memory = rows.astype(np.float32)
    scaling = Scaling.fit(in_memory, labels, True)
    source = PreparedRows(MappedRows([rows]), Scaling.fit(MappedRows([rows]), labels, True))
    return scaling.apply(in_memory), source, labels


def masks_of(encoding: str, settings: HeadSettings, n: int = 7):
    made = make_encoding(encoding, HeadShape(N_FEATURES, settings.hidden, N_CLASSES))
    rng = np.random.default_rng(5)
    bits = rng.random((n, made.n_bits)) < rng.random((n, 1))
    bits[1], bits[2] = True, False
    return [made.decode(row) for row in bits], made.shape


def trained(features, targets, settings, masks, shape, row_sets, **options):
    trainer = PopulationTrainer(features, targets, shape, settings, 3, "cpu", form="gathered", **options)
    return list(trainer.fit(masks, row_sets))


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        for x, y in zip((*a.weights, *a.biases), (*b.weights, *b.biases), strict=True):
            assert (x is None) == (y is None)
            if x is not None:
                assert torch.equal(x, y)
        np.testing.assert_array_equal(a.epochs, b.epochs)
        np.testing.assert_array_equal(a.train_loss, b.train_loss)


def thirds(n_rows: int = N_ROWS):
    """Three folds: training rows of different numbers, the last batch ragged, one with fewer steps."""
    rows = np.arange(n_rows)
    return [rows[50:], rows[: n_rows - 48], rows[rows % 3 != 0][:70]]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"early_stop": "training", "patience": 1, "min_delta": 0.02, "epochs": 8},
        {"early_stop": "validation", "patience": 1, "min_delta": 0.01, "epochs": 8},
        {"optimiser": "adam", "learning_rate": 0.01, "weight_decay": 0.01},
        {"bias": False, "start": "active", "nesterov": False, "hidden": (6, 5)},
    ],
    ids=["default", "training stop", "validation stop", "adam", "two layers"],
)
def test_streamed_heads_are_the_gathered_ones(prepared, encoding, changes):
    settings = HeadSettings(**{"hidden": (9,), "epochs": 3, "batch_size": 16, **changes})
    in_memory, source, labels = prepared
    masks, shape = masks_of(encoding, settings)
    row_sets = thirds()
    ours = trained(source, labels, settings, masks, shape, row_sets)
    theirs = trained(in_memory, labels, settings, masks, shape, row_sets)
    assert_same(ours, theirs)
    if "patience" in changes:
        epochs = np.concatenate([stack.epochs for stack in ours])
        assert epochs.min() < epochs.max()


@pytest.mark.parametrize("batch_size", [7, 16, 50, 1000])
def test_any_batch_size_and_a_head_without_hidden_layers(prepared, batch_size):
    settings = HeadSettings(hidden=(), epochs=2, batch_size=batch_size)
    in_memory, source, labels = prepared
    masks, shape = masks_of("features", settings)
    row_sets = [np.arange(1, N_ROWS)]
    assert_same(
        trained(source, labels, settings, masks, shape, row_sets),
        trained(in_memory, labels, settings, masks, shape, row_sets),
    )


def test_float64_and_regression(prepared):
    settings = HeadSettings(hidden=(6,), epochs=2, batch_size=32)
    in_memory, source, _ = prepared
    targets = np.random.default_rng(6).normal(size=(N_ROWS, N_CLASSES)).astype(np.float32)
    masks, shape = masks_of("features+neurons", settings)
    for dtype in (torch.float32, torch.float64):
        assert_same(
            trained(source, targets, settings, masks, shape, thirds(), dtype=dtype),
            trained(in_memory, targets, settings, masks, shape, thirds(), dtype=dtype),
        )


@pytest.mark.parametrize("group_bytes", [0, 30_000, 2**30])
def test_heads_do_not_depend_on_who_is_trained_beside_them(prepared, monkeypatch, group_bytes):
    monkeypatch.setattr(streaming, "_GROUP_BYTES", group_bytes)
    settings = HeadSettings(hidden=(9,), epochs=3, batch_size=16, early_stop="training", patience=1)
    _, source, labels = prepared
    masks, shape = masks_of("features+neurons", settings)
    together = trained(source, labels, settings, masks, shape, thirds())
    alone = [trained(source, labels, settings, [mask], shape, thirds())[0] for mask in masks]
    assert_same(together, alone)


def test_rows_are_read_once_for_all_individuals(prepared):
    _, source, labels = prepared

    class Counting:
        shape = source.shape
        n_read = 0

        def rows(self, index):
            self.n_read += len(index)
            return source.rows(index)

    settings = HeadSettings(hidden=(4,), epochs=3, batch_size=16)
    masks, shape = masks_of("features", settings)
    counting = Counting()
    trained(counting, labels, settings, masks, shape, [np.arange(N_ROWS)])
    assert counting.n_read == 3 * N_ROWS


def test_the_groups_keep_order_and_fit():
    settings = HeadSettings(hidden=(9,))
    masks, _ = masks_of("features", settings, n=9)
    groups = streaming.groups_that_fit([0, 2, 3, 5, 8], masks, N_CLASSES, 2, torch.float32, 2)
    assert groups == [[0, 2], [3, 5], [8]]


def test_prepared_rows_are_those_of_scaling_and_cheap_to_send(raw, prepared):
    rows, _ = raw
    in_memory, source, _ = prepared
    index = np.random.default_rng(7).permutation(N_ROWS)
    np.testing.assert_array_equal(source.rows(index), in_memory[index])
    assert source.rows(index).dtype == np.float32
    sent = pickle.dumps(source)
    assert rows.tobytes() not in sent
    np.testing.assert_array_equal(pickle.loads(sent).rows(index), in_memory[index])


@pytest.mark.parametrize("block", [1, 4 * 7 * 5, 2**20])
@pytest.mark.parametrize("shape", [(200, 5), (1, 3), (77, 1), (500, 40)])
@pytest.mark.parametrize("kind", ["float16", "float32"])
def test_means_and_deviations_are_numpys(monkeypatch, block, shape, kind):
    monkeypatch.setattr(feature_folder, "BLOCK_BYTES", block)
    values = (np.random.default_rng(8).normal(size=shape) * 3 + 50).astype(kind)
    values[:, -1] = 7.1
    targets = np.zeros(shape[0], dtype=np.int64)
    mean = values.mean(axis=0, dtype=np.float64).astype(np.float32)
    deviation = values.std(axis=0, dtype=np.float64)
    deviation[deviation <= 1e-6 * np.abs(mean)] = 1.0
    for given in (values, MappedRows([values]), MappedRows([values[:1], values[1:]])):
        scaling = Scaling.fit(given, targets, True)
        np.testing.assert_array_equal(scaling.mean, mean)
        np.testing.assert_array_equal(scaling.scale, deviation.astype(np.float32))


def test_what_is_large():
    assert is_large((1_000_000, 1280))
    assert not is_large((100_000, 1280))
    # few rows may be trained in the dual form
    assert not is_large((10_000, 100_000))
