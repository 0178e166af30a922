"""The population trainer against the oracle: one head at a time, plain autograd, torch.optim."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch

from moevoprune.errors import InputError
from moevoprune.heads.encodings import Encoding, HeadMask, HeadShape, make_encoding
from moevoprune.heads.reference import ReferenceHead, train_reference_head
from moevoprune.heads.settings import HeadSettings
from moevoprune.heads.trainer import HeadStack, PopulationTrainer, resolve_device

Array = npt.NDArray[Any]
FormName = Literal["auto", "dual", "gathered"]

N_ROWS, N_FEATURES, N_CLASSES = 48, 13, 3
BATCH = 20
# 44 rows are 3 steps with a last batch of 4, 40 are 2 whole steps, 37 are 2 steps with a last batch of 17: two
# folds share their steps although their lengths differ, and one stands alone
ROW_SETS = [np.arange(44), np.arange(8, 48), np.setdiff1d(np.arange(48), np.arange(0, 44, 4))]
ONE_LAYER, TWO_LAYERS = (8,), (8, 6)

ENCODINGS = [
    ((), "features"),
    ((), "connections"),
    (ONE_LAYER, "features"),
    (ONE_LAYER, "neurons"),
    (ONE_LAYER, "neurons:1"),
    (ONE_LAYER, "features+neurons"),
    (ONE_LAYER, "connections"),
    (TWO_LAYERS, "features"),
    (TWO_LAYERS, "neurons"),
    (TWO_LAYERS, "neurons:1"),
    (TWO_LAYERS, "neurons:2"),
    (TWO_LAYERS, "neurons:both"),
    (TWO_LAYERS, "features+neurons"),
    (TWO_LAYERS, "connections"),
]
FORMS: tuple[FormName, ...] = ("dual", "gathered")
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _task() -> tuple[Array, Array]:
    """Overlapping classes around their own centres, in correlated features."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(N_ROWS) % N_CLASSES)
    noise = rng.normal(size=(N_ROWS, N_FEATURES)) @ rng.normal(size=(N_FEATURES, N_FEATURES)) / 4
    return (0.7 * rng.normal(size=(N_CLASSES, N_FEATURES))[y] + noise).astype(np.float32), y


X, Y = _task()


def _regression_targets() -> Array:
    rng = np.random.default_rng(1)
    latent = np.tanh(X @ rng.normal(size=(N_FEATURES, 2)) / 3) @ rng.normal(size=(2, 2))
    return (latent + 0.1 * rng.normal(size=latent.shape)).astype(np.float32)


def head_settings(hidden: tuple[int, ...], **changes: Any) -> HeadSettings:
    """Settings written out in full, so that no change of a default moves these tests."""
    usual = {
        "hidden": hidden,
        "bias": True,
        "start": "active",
        "optimiser": "sgd",
        "learning_rate": 0.02,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 0.0,
        "learning_rate_decay": 0.0,
        "schedule": "constant",
        "epochs": 50,
        "batch_size": BATCH,
        "early_stop": "none",
    }
    return HeadSettings(**{**usual, **changes})


def mask_of(encoding: Encoding, n_active: int) -> HeadMask:
    bits = np.zeros(encoding.n_bits, dtype=np.bool_)
    bits[np.random.default_rng(n_active).permutation(encoding.n_bits)[:n_active]] = True
    return encoding.decode(bits)


def few(encoding: Encoding) -> int:
    """Some bits: a third, so that every kind of bit has some that are set and some that are not."""
    return max(encoding.n_bits // 3, 2)


def assert_matches_reference(
    shape: HeadShape,
    settings: HeadSettings,
    mask: HeadMask,
    dtype: torch.dtype,
    targets: Array = Y,
    row_sets: list[Array] = ROW_SETS,
    forms: tuple[FormName, ...] = FORMS,
) -> list[ReferenceHead]:
    """Train the mask's heads in each form and by the oracle; return the oracle's."""
    tolerance = TOLERANCE[dtype]
    references = [train_reference_head(X, targets, rows, mask, shape, settings, 3, dtype) for rows in row_sets]
    with torch.no_grad():
        expected = [reference.module(torch.tensor(X, dtype=dtype)) for reference in references]
    for form in forms:
        trainer = PopulationTrainer(X, targets, shape, settings, 3, "cpu", dtype, form)
        (stack,) = trainer.fit([mask], row_sets)
        inputs = trainer.features[:, torch.from_numpy(mask.inputs)]
        assert not stack.diverged.any()
        assert tuple(w.shape[1] for w in stack.weights) == mask.widths(shape.n_outputs)[:-1]
        for fold, (reference, (logits, hidden)) in enumerate(zip(references, expected, strict=True)):
            outputs, representation = stack.forward(inputs, fold)
            assert (outputs - logits).abs().max().item() < tolerance, (form, fold)
            if mask.hidden:
                kept = torch.from_numpy(mask.hidden[-1])
                assert representation.shape == (N_ROWS, len(kept))
                torch.testing.assert_close(representation, hidden[:, kept], rtol=0, atol=tolerance)
                gone = np.setdiff1d(np.arange(shape.hidden[-1]), mask.hidden[-1])
                assert not hidden[:, torch.from_numpy(gone)].any()
            else:
                torch.testing.assert_close(representation, outputs, rtol=0, atol=0)
            if np.issubdtype(targets.dtype, np.integer):
                top = logits.topk(2).values
                clear = top[:, 0] - top[:, 1] > 2 * tolerance
                assert torch.equal(outputs.argmax(1)[clear], logits.argmax(1)[clear])
            assert stack.epochs[fold] == reference.epochs
            assert stack.train_loss[fold] == pytest.approx(reference.train_loss, abs=tolerance)
    return references


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize(("hidden", "encoding"), ENCODINGS, ids=lambda value: str(value))
def test_matches_the_reference(hidden: tuple[int, ...], encoding: str, bias: bool) -> None:
    shape = HeadShape(N_FEATURES, hidden, N_CLASSES)
    encoded = make_encoding(encoding, shape)
    brief, whole = (head_settings(hidden, bias=bias, epochs=epochs) for epochs in (10, 50))
    for n_active in (0, 1):
        assert_matches_reference(shape, brief, mask_of(encoded, n_active), torch.float64)
    assert_matches_reference(shape, whole, mask_of(encoded, few(encoded)), torch.float64)
    for n_active in (few(encoded), encoded.n_bits):
        assert_matches_reference(shape, whole, mask_of(encoded, n_active), torch.float32)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    ("hidden", "encoding"),
    [((), "features"), (ONE_LAYER, "features+neurons"), (TWO_LAYERS, "connections")],
    ids=lambda value: str(value),
)
@pytest.mark.parametrize(
    "changes",
    [
        {"momentum": 0.0, "learning_rate": 0.1},
        {"nesterov": False},
        {"nesterov": False, "momentum": 0.5, "weight_decay": 0.03},
        {"weight_decay": 0.01},
        {"optimiser": "adam"},
        {"optimiser": "adam", "weight_decay": 0.01},
        {"learning_rate_decay": 0.05},
        {"schedule": "cosine"},
        {"schedule": "cosine", "learning_rate_decay": 0.01},
        {"start": "dense"},
        {"batch_size": 1000},
        {"batch_size": 1, "epochs": 3, "learning_rate": 0.005},
    ],
    ids=lambda changes: ", ".join(f"{key} {value}" for key, value in changes.items()),
)
def test_every_setting_matches_the_reference(
    changes: dict[str, Any], hidden: tuple[int, ...], encoding: str, dtype: torch.dtype
) -> None:
    shape = HeadShape(N_FEATURES, hidden, N_CLASSES)
    encoded = make_encoding(encoding, shape)
    settings = head_settings(hidden, **{"epochs": 12, **changes})
    assert_matches_reference(shape, settings, mask_of(encoded, few(encoded)), dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("watched", ["training", "validation"])
@pytest.mark.parametrize(
    ("hidden", "encoding", "targets"),
    [
        ((), "features", "classes"),
        (ONE_LAYER, "features", "classes"),
        (TWO_LAYERS, "connections", "classes"),
        (ONE_LAYER, "neurons", "numbers"),
    ],
    ids=str,
)
def test_early_stopping_matches_the_reference(
    hidden: tuple[int, ...], encoding: str, targets: str, watched: str, dtype: torch.dtype
) -> None:
    y = Y if targets == "classes" else _regression_targets()
    shape = HeadShape(N_FEATURES, hidden, N_CLASSES if y.ndim == 1 else y.shape[1])
    encoded = make_encoding(encoding, shape)
    # slow enough for the monitored losses, of different rows, to flatten at different epochs
    rate = 0.02 if targets == "classes" else 0.003
    settings = head_settings(
        hidden, early_stop=watched, patience=3, min_delta=0.003, epochs=60, learning_rate=rate
    )
    references = assert_matches_reference(shape, settings, mask_of(encoded, few(encoded)), dtype, y)
    epochs = {reference.epochs for reference in references}
    assert len(epochs) > 1, "the heads should stop at epochs of their own"
    assert min(epochs) < settings.epochs, "no head stopped early"


def test_early_stopping_that_never_stops_keeps_the_best_epoch() -> None:
    # so large a step that the loss goes up and down: the best epoch is not the last
    shape = HeadShape(N_FEATURES, ONE_LAYER, N_CLASSES)
    settings = head_settings(ONE_LAYER, early_stop="training", learning_rate=0.3, epochs=12, patience=50)
    encoded = make_encoding("features", shape)
    references = assert_matches_reference(shape, settings, mask_of(encoded, 7), torch.float64)
    assert {reference.epochs for reference in references} == {12}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    ("hidden", "encoding", "changes"),
    [
        ((), "features", {}),
        (ONE_LAYER, "features", {"schedule": "cosine"}),
        (ONE_LAYER, "connections", {"optimiser": "adam"}),
        (TWO_LAYERS, "features+neurons", {"weight_decay": 0.01}),
    ],
    ids=str,
)
def test_regression_matches_the_reference(
    hidden: tuple[int, ...], encoding: str, changes: dict[str, Any], dtype: torch.dtype
) -> None:
    y = _regression_targets()
    shape = HeadShape(N_FEATURES, hidden, y.shape[1])
    encoded = make_encoding(encoding, shape)
    for n_active in (0, few(encoded), encoded.n_bits):
        settings = head_settings(hidden, epochs=20, **changes)
        assert_matches_reference(shape, settings, mask_of(encoded, n_active), dtype, y)


@pytest.mark.parametrize("watched", ["none", "training", "validation"])
def test_tiny_row_sets_match_the_reference(watched: str) -> None:
    shape = HeadShape(N_FEATURES, ONE_LAYER, N_CLASSES)
    settings = head_settings(ONE_LAYER, epochs=6, early_stop=watched)
    mask = mask_of(make_encoding("features", shape), 5)
    rows = [np.array([7]), np.array([3, 30]), np.arange(5, 26)]
    assert_matches_reference(shape, settings, mask, torch.float64, row_sets=rows)


def bytes_of(stack: HeadStack) -> list[bytes]:
    tensors = [*stack.weights, *(bias for bias in stack.biases if bias is not None)]
    return [tensor.numpy().tobytes() for tensor in tensors] + [stack.train_loss.tobytes(), stack.epochs.tobytes()]


@pytest.mark.parametrize("form", ["auto", "dual", "gathered"])
@pytest.mark.parametrize("early_stop", ["none", "training"])
@pytest.mark.parametrize(
    ("hidden", "encoding"),
    [((), "features"), (ONE_LAYER, "features"), (TWO_LAYERS, "neurons"), (ONE_LAYER, "connections")],
    ids=lambda value: str(value),
)
def test_a_head_does_not_depend_on_the_others_in_the_batch(
    hidden: tuple[int, ...], encoding: str, early_stop: str, form: FormName
) -> None:
    shape = HeadShape(N_FEATURES, hidden, N_CLASSES)
    settings = head_settings(hidden, epochs=8, early_stop=early_stop, patience=2, min_delta=0.02)
    encoded = make_encoding(encoding, shape)
    masks = [mask_of(encoded, n) for n in (0, 1, 4, 5, 6, encoded.n_bits)]

    def fit(trainer: PopulationTrainer, order: list[int]) -> dict[int, list[bytes]]:
        stacks = trainer.fit([masks[i] for i in order], ROW_SETS)
        return {i: bytes_of(stack) for i, stack in zip(order, stacks, strict=True)}

    def fresh() -> PopulationTrainer:
        return PopulationTrainer(X, Y, shape, settings, 3, "cpu", form=form)

    trainer = fresh()
    together = fit(trainer, [0, 1, 2, 3, 4, 5])
    assert fit(trainer, [0, 1, 2, 3, 4, 5]) == together
    assert fit(trainer, [4, 2, 0, 5, 1, 3]) == together
    assert fit(fresh(), [5, 3, 1]) == {i: together[i] for i in (5, 3, 1)}
    for i in range(len(masks)):
        assert fit(fresh(), [i]) == {i: together[i]}


@pytest.mark.parametrize(
    ("hidden", "n_classes", "n_rows", "batch", "n_folds"),
    # widths that fill no vector; a last batch of one row; as many folds as just fit, or not, by a head's width
    [((), 5, 131, 33, 1), ((), 7, 120, 25, 3), ((40,), 9, 49, 8, 1), ((40,), 9, 41, 8, 5), ((9,), 3, 60, 1, 2)],
)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("task", ["classes", "numbers"])
def test_no_odd_size_lets_the_others_in_the_batch_matter(
    hidden: tuple[int, ...], n_classes: int, n_rows: int, batch: int, n_folds: int, form: FormName, task: str
) -> None:
    generator = np.random.default_rng(7)
    n_features = 83
    features = generator.normal(size=(140, n_features)).astype(np.float32)
    labels = generator.integers(0, n_classes, 140)
    targets = labels if task == "classes" else generator.normal(size=(140, n_classes)).astype(np.float32)
    shape = HeadShape(n_features, hidden, n_classes)
    encoded = make_encoding("features", shape)
    masks = [encoded.decode(generator.random(n_features) < share) for share in np.linspace(0.05, 0.9, 12)]
    row_sets = [np.sort(generator.permutation(140)[:n_rows]) for _ in range(n_folds)]
    settings = HeadSettings(hidden=hidden, epochs=3, batch_size=batch)
    trainer = PopulationTrainer(features, targets, shape, settings, 1, "cpu", form=form)
    together = [bytes_of(stack) for stack in trainer.fit(masks, row_sets)]
    alone = [bytes_of(stack) for mask in masks for stack in trainer.fit([mask], row_sets)]
    assert alone == together


def test_heads_of_equal_padded_size_have_their_folds_grouped_alike() -> None:
    shape = HeadShape(3, (16,), 2)
    encoded = make_encoding("neurons", shape)
    features = np.random.default_rng(0).normal(size=(5000, 3)).astype(np.float32)
    labels = np.arange(5000) % 2
    settings = HeadSettings(hidden=(16,), epochs=1)
    trainer = PopulationTrainer(features, labels, shape, settings, 1, "cpu", form="dual")
    row_sets = [np.arange(4000)] * 2
    together = {trainer.grouping.heads_together(mask_of(encoded, units), row_sets) for units in range(9, 17)}
    assert len(together) == 1


def test_heads_from_another_process_lie_in_memory_as_others_do() -> None:
    shape = HeadShape(N_FEATURES, ONE_LAYER, N_CLASSES)
    mask = mask_of(make_encoding("features", shape), 5)
    trainer = PopulationTrainer(X, Y, shape, head_settings(ONE_LAYER, epochs=1), 3, "cpu")
    (stack,) = trainer.fit([mask], ROW_SETS)
    weights, biases, train_loss, epochs = stack.to_arrays()
    # as NumPy may give them: no vector starts where these do
    askew = [np.concatenate([weight.ravel()[:1], weight.ravel()])[1:].reshape(weight.shape) for weight in weights]
    again = HeadStack.from_arrays(mask, (list(askew), biases, train_loss, epochs))
    assert bytes_of(again) == bytes_of(stack)
    assert all(weight.data_ptr() % 64 == 0 for weight in again.weights)


def test_equal_masks_give_equal_heads_and_stacks_follow_the_masks() -> None:
    shape = HeadShape(N_FEATURES, ONE_LAYER, N_CLASSES)
    encoded = make_encoding("features", shape)
    masks = [mask_of(encoded, 4), mask_of(encoded, 9), mask_of(encoded, 4)]
    trainer = PopulationTrainer(X, Y, shape, head_settings(ONE_LAYER, epochs=3), 3, "cpu")
    stacks = list(trainer.fit(masks, ROW_SETS))
    assert [len(stack.mask.inputs) for stack in stacks] == [4, 9, 4]
    assert bytes_of(stacks[0]) == bytes_of(stacks[2])
    assert list(trainer.fit([], ROW_SETS)) == []


def test_seeds_give_different_heads() -> None:
    shape = HeadShape(N_FEATURES, ONE_LAYER, N_CLASSES)
    mask = mask_of(make_encoding("features", shape), 4)
    settings = head_settings(ONE_LAYER, epochs=2)
    one, other = (next(PopulationTrainer(X, Y, shape, settings, s, "cpu").fit([mask], ROW_SETS)) for s in (3, 4))
    assert not torch.equal(one.weights[0], other.weights[0])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_global_state_is_left_alone(threads: int) -> None:
    shape = HeadShape(N_FEATURES, ONE_LAYER, N_CLASSES)
    masks = [mask_of(make_encoding("features", shape), n) for n in (3, 9)]
    expected = [
        bytes_of(stack)
        for stack in PopulationTrainer(X, Y, shape, head_settings(ONE_LAYER), 3, "cpu").fit(masks, ROW_SETS)
    ]
    torch.set_num_threads(threads)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    tf32 = torch.backends.cuda.matmul.allow_tf32
    trainer = PopulationTrainer(X, Y, shape, head_settings(ONE_LAYER), 3, "cpu")
    found = []
    for stack in trainer.fit(masks, ROW_SETS):
        # also while the caller works between two individuals
        assert torch.get_num_threads() == threads
        assert torch.is_grad_enabled()
        found.append(bytes_of(stack))
    assert found == expected, "the thread count changed the weights"
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()
    assert torch.backends.cuda.matmul.allow_tf32 == tf32
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("early_stop", ["none", "training", "validation"])
@pytest.mark.parametrize("hidden", [ONE_LAYER, TWO_LAYERS], ids=str)
def test_an_absurd_learning_rate_is_reported_as_divergence(
    hidden: tuple[int, ...], early_stop: str, form: FormName
) -> None:
    y = _regression_targets()
    shape = HeadShape(N_FEATURES, hidden, y.shape[1])
    settings = head_settings(hidden, learning_rate=1e6, momentum=0.5, early_stop=early_stop)
    encoded = make_encoding("features", shape)
    trainer = PopulationTrainer(X, y, shape, settings, 3, "cpu", form=form)
    sane, wild = (mask_of(encoded, n) for n in (0, encoded.n_bits))
    stacks = list(trainer.fit([wild, sane, wild], ROW_SETS))
    assert stacks[0].diverged.tolist() == [True, True, True]
    assert bytes_of(stacks[0]) == bytes_of(stacks[2])


def test_a_diverged_head_leaves_the_other_folds_alone() -> None:
    """One fold with an enormous feature blows up; the folds that share its steps train as if it were not there."""
    features = X.copy()
    features[45] = 1e18
    y = _regression_targets()
    shape = HeadShape(N_FEATURES, ONE_LAYER, y.shape[1])
    encoded = make_encoding("features", shape)
    settings = head_settings(ONE_LAYER, epochs=10)
    rows = [np.arange(40), np.arange(8, 48)]
    trainer = PopulationTrainer(features, y, shape, settings, 3, "cpu", form="gathered")
    (stack,) = trainer.fit([mask_of(encoded, 6)], rows)
    assert stack.diverged.tolist() == [False, True]
    reference = train_reference_head(features, y, rows[0], stack.mask, shape, settings, 3, dtype=torch.float32)
    inputs = trainer.features[:40, torch.from_numpy(stack.mask.inputs)]
    expected = reference.module(trainer.features[:40])[0]
    torch.testing.assert_close(stack.forward(inputs, 0)[0], expected, rtol=0, atol=1e-4)


def test_the_form_is_chosen_by_cost_and_only_where_there_is_a_choice() -> None:
    shape = HeadShape(2048, (512,), 4)
    features = np.zeros((480, 2048), dtype=np.float32)
    labels = np.arange(480) % 4

    def chosen(n_active: int, form: FormName = "auto", encoding: str = "features", **changes: Any) -> str:
        small = HeadShape(2048, (4,), 4) if encoding == "connections" else shape
        settings = HeadSettings.preset("paper", hidden=small.hidden, **changes)
        trainer = PopulationTrainer(features, labels, small, settings, 0, "cpu", form=form)
        return trainer.chosen_form(mask_of(make_encoding(encoding, small), n_active), 1, 480)

    assert chosen(2048) == chosen(1024) == "dual"
    assert chosen(0) == chosen(16) == "gathered"
    for form in FORMS:
        assert chosen(16, form) == chosen(2048, form) == form
    for forced in ("auto", "dual"):
        assert chosen(2048, forced, weight_decay=0.1) == "gathered"
        assert chosen(2048, forced, optimiser="adam") == "gathered"
        assert chosen(8192, forced, encoding="connections") == "gathered"


@pytest.mark.parametrize("device", ["nonsense", "meta", "cuda:99"])
def test_devices_that_are_not_there_are_refused_in_one_line(device: str) -> None:
    with pytest.raises(InputError, match=r"auto") as caught:
        resolve_device(device)
    assert "\n" not in str(caught.value)
    assert device in str(caught.value)
