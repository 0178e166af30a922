"""The trainer in slots against the oracle: one head at a time, plain autograd, torch.optim.

On CPU an epoch is called, on CUDA it is captured as a graph and replayed; everything else is the same code.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from moevoprune.errors import InputError, RunWarning
from moevoprune.heads import slot_tensors
from moevoprune.heads.encodings import Encoding, HeadMask, HeadShape, make_encoding
from moevoprune.heads.gpus import SlotTrainers
from moevoprune.heads.reference import ReferenceHead, train_reference_head
from moevoprune.heads.settings import HeadSettings
from moevoprune.heads.slots import SLOT_COUNTS, SlotTrainer
from moevoprune.heads.stack import HeadStack
from moevoprune.heads.start import StartWeights

Array = npt.NDArray[Any]

N_ROWS, N_FEATURES, N_CLASSES, SEED = 45, 11, 3, 3
# with batches of 16: 3 steps with a last batch of 8, 2 whole steps, 2 steps with a last batch of 11, 1 step
ROW_SETS = [np.arange(40), np.arange(13, 45), np.arange(1, 28), np.arange(30, 40)]
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}

CUDA = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
)
on_every_device = pytest.mark.parametrize("device", ["cpu", CUDA])


def _task() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(N_ROWS) % N_CLASSES)
    noise = rng.normal(size=(N_ROWS, N_FEATURES)) @ rng.normal(size=(N_FEATURES, N_FEATURES)) / 4
    return (0.7 * rng.normal(size=(N_CLASSES, N_FEATURES))[y] + noise).astype(np.float32), y


X, Y = _task()
NUMBERS = np.tanh(X[:, :4] @ np.random.default_rng(1).normal(size=(4, 2))).astype(np.float32)


def head_settings(hidden: tuple[int, ...], **changes: Any) -> HeadSettings:
    """Settings written out in full, so that no change of a default moves these tests."""
    usual = {
        "hidden": hidden,
        "bias": True,
        "start": "active",
        "optimiser": "sgd",
        "learning_rate": 0.03,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 0.0,
        "learning_rate_decay": 0.0,
        "schedule": "constant",
        "epochs": 8,
        "batch_size": 16,
        "early_stop": "none",
    }
    return HeadSettings(**{**usual, **changes})


def mask_of(encoding: Encoding, n_active: int) -> HeadMask:
    bits = np.zeros(encoding.n_bits, dtype=np.bool_)
    bits[np.random.default_rng(n_active).permutation(encoding.n_bits)[:n_active]] = True
    return encoding.decode(bits)


def masks_of(shape: HeadShape, encoding: str, counts: tuple[int, ...] = (0, 5, 99)) -> list[HeadMask]:
    encoded = make_encoding(encoding, shape)
    return [mask_of(encoded, min(count, encoded.n_bits)) for count in counts]


def trainer_of(
    settings: HeadSettings,
    targets: Array = Y,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
    features: Array = X,
    **options: Any,
) -> SlotTrainer:
    """Trainer over the features and targets as the population trainer prepares them."""
    values = torch.tensor(features, dtype=dtype, device=device)
    if targets.ndim == 1:
        prepared = torch.nn.functional.one_hot(torch.tensor(targets), N_CLASSES).to(values)
    else:
        prepared = torch.tensor(targets).to(values)
    shape = HeadShape(features.shape[1], settings.hidden, prepared.shape[1])
    labels = targets if targets.ndim == 1 else None
    start = StartWeights(shape, settings, SEED)
    return SlotTrainer(values, prepared, labels, shape, settings, start, SEED, **options)


def assert_matches_reference(
    settings: HeadSettings,
    masks: list[HeadMask],
    targets: Array = Y,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
    row_sets: list[Array] = ROW_SETS,
) -> list[ReferenceHead]:
    """Train the masks' heads, more than there are slots, and compare each with the oracle's."""
    trainer = trainer_of(settings, targets, dtype, device, n_slots=6)
    stacks = list(trainer.fit(masks, row_sets))
    assert [stack.mask for stack in stacks] == masks
    n_outputs = N_CLASSES if targets.ndim == 1 else targets.shape[1]
    shape = HeadShape(N_FEATURES, settings.hidden, n_outputs)
    tolerance, references = TOLERANCE[dtype], []
    for stack in stacks:
        inputs = torch.tensor(X, dtype=dtype)[:, torch.from_numpy(stack.mask.inputs)].to(device)
        assert not stack.diverged.any()
        for fold, rows in enumerate(row_sets):
            reference = train_reference_head(X, targets, rows, stack.mask, shape, settings, SEED, dtype)
            references.append(reference)
            expected, hidden = reference.module(torch.tensor(X, dtype=dtype))
            outputs, representation = stack.forward(inputs, fold)
            torch.testing.assert_close(outputs.cpu(), expected, rtol=0, atol=tolerance)
            if stack.mask.hidden:
                kept = hidden[:, torch.from_numpy(stack.mask.hidden[-1])]
                torch.testing.assert_close(representation.cpu(), kept, rtol=0, atol=tolerance)
            assert stack.epochs[fold] == reference.epochs
            assert stack.train_loss[fold] == pytest.approx(reference.train_loss, abs=tolerance)
            widths = stack.mask.widths(n_outputs)
            assert [tuple(w.shape[1:]) for w in stack.weights] == list(itertools.pairwise(widths))
    return references


@on_every_device
@pytest.mark.parametrize(
    ("bias", "dtype"),
    [(True, torch.float64), (False, torch.float64), (True, torch.float32)],
    ids=["bias", "no bias", "float32"],
)
@pytest.mark.parametrize(
    ("hidden", "encoding"),
    [
        ((), "features"),
        ((7,), "features"),
        ((7,), "neurons"),
        ((7,), "features+neurons"),
        ((7, 5), "features"),
        ((7, 5), "neurons:1"),
        ((7, 5), "neurons:2"),
        ((7, 5), "features+neurons"),
    ],
    ids=str,
)
def test_heads_match_the_reference(
    hidden: tuple[int, ...], encoding: str, bias: bool, dtype: torch.dtype, device: str
) -> None:
    settings = head_settings(hidden, bias=bias)
    masks = masks_of(HeadShape(N_FEATURES, hidden, N_CLASSES), encoding)
    assert_matches_reference(settings, masks, dtype=dtype, device=device)


@on_every_device
@pytest.mark.parametrize(
    ("hidden", "targets"),
    [((), NUMBERS), ((7,), Y), ((7,), NUMBERS), ((7, 5), Y)],
    ids=["0", "1", "1 numbers", "2"],
)
@pytest.mark.parametrize(
    "changes",
    [
        {"momentum": 0.0},
        {"momentum": 0.0, "nesterov": False},
        {"nesterov": False},
        {"nesterov": False, "schedule": "cosine"},
        {"learning_rate_decay": 0.05, "schedule": "cosine"},
        {"start": "dense", "learning_rate_decay": 0.01},
        {"batch_size": 1000},
        # the momentum is renewed within an epoch, at other steps than its last, and at every step
        {"batch_size": 1, "epochs": 3, "learning_rate": 0.003, "momentum": 0.7},
        {"batch_size": 2, "epochs": 3, "momentum": 0.4, "nesterov": False},
        {"batch_size": 5, "epochs": 4, "momentum": 1e-40},
    ],
    ids=lambda changes: ", ".join(f"{key} {value}" for key, value in changes.items()),
)
def test_every_setting_matches_the_reference(
    changes: dict[str, Any], hidden: tuple[int, ...], targets: Array, device: str
) -> None:
    encoding = "features+neurons" if hidden else "features"
    masks = masks_of(HeadShape(N_FEATURES, hidden, 2), encoding, (4, 12))
    assert_matches_reference(head_settings(hidden, **changes), masks, targets, device=device)


@on_every_device
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("watched", ["training", "validation"])
@pytest.mark.parametrize(("hidden", "targets"), [((), Y), ((7,), Y), ((7, 5), NUMBERS)], ids=["0", "1", "2"])
def test_early_stopping_matches_the_reference(
    hidden: tuple[int, ...], targets: Array, watched: str, dtype: torch.dtype, device: str
) -> None:
    settings = head_settings(
        hidden, early_stop=watched, patience=2, min_delta=0.004, epochs=30, learning_rate=0.1, momentum=0.8
    )
    masks = masks_of(HeadShape(N_FEATURES, hidden, 2), "features", (3, 11, 7))
    references = assert_matches_reference(settings, masks, targets, dtype, device)
    epochs = {reference.epochs for reference in references}
    assert len(epochs) > 3, "the heads should stop at epochs of their own"
    assert min(epochs) < settings.epochs, "no head stopped early"


@on_every_device
def test_a_head_that_never_stops_gets_its_best_epoch(device: str) -> None:
    # so large a step that the loss goes up and down: the best epoch is not the last
    settings = head_settings((7,), early_stop="training", learning_rate=0.4, patience=50, min_delta=0.0)
    masks = masks_of(HeadShape(N_FEATURES, (7,), N_CLASSES), "features", (7, 4))
    references = assert_matches_reference(settings, masks, device=device)
    assert {reference.epochs for reference in references} == {settings.epochs}


@on_every_device
@pytest.mark.parametrize("watched", ["none", "training", "validation"])
def test_tiny_row_sets_match_the_reference(watched: str, device: str) -> None:
    settings = head_settings((7,), early_stop=watched)
    masks = masks_of(HeadShape(N_FEATURES, (7,), N_CLASSES), "features", (5, 2))
    rows = [np.array([7]), np.array([3, 30]), np.arange(5, 26)]
    assert_matches_reference(settings, masks, device=device, row_sets=rows)


def bytes_of(stack: HeadStack) -> list[bytes]:
    tensors = [*stack.weights, *(bias for bias in stack.biases if bias is not None)]
    parts = [tensor.cpu().contiguous().numpy().tobytes() for tensor in tensors]
    return [*parts, stack.train_loss.tobytes(), stack.epochs.tobytes()]


@on_every_device
@pytest.mark.parametrize("early_stop", ["none", "training", "validation"])
@pytest.mark.parametrize(
    ("hidden", "encoding"), [((), "features"), ((7,), "features+neurons"), ((7, 5), "neurons")], ids=str
)
def test_a_head_does_not_depend_on_its_company_or_its_slot(
    hidden: tuple[int, ...], encoding: str, early_stop: str, device: str
) -> None:
    settings = head_settings(hidden, early_stop=early_stop, patience=2, min_delta=0.02, learning_rate=0.1)
    masks = masks_of(HeadShape(N_FEATURES, hidden, N_CLASSES), encoding, (0, 1, 4, 5, 6, 99))

    def fit(trainer: SlotTrainer, order: list[int], row_sets: list[Array] = ROW_SETS) -> dict[int, list[bytes]]:
        stacks = trainer.fit([masks[i] for i in order], row_sets)
        return {i: bytes_of(stack) for i, stack in zip(order, stacks, strict=True)}

    def fresh() -> SlotTrainer:
        return trainer_of(settings, dtype=torch.float32, device=device, n_slots=8)

    trainer = fresh()
    together = fit(trainer, [0, 1, 2, 3, 4, 5])
    assert fit(trainer, [0, 1, 2, 3, 4, 5]) == together
    assert fit(trainer, [4, 2, 0, 5, 1, 3]) == together
    assert fit(trainer, [5, 3, 5, 5, 1])[1] == together[1]
    for i in (0, 3, 5):
        assert fit(fresh(), [i]) == {i: together[i]}
    # other row sets between two calls
    assert fit(trainer, [2, 1], ROW_SETS[2:]) == fit(fresh(), [1, 2], ROW_SETS[2:])
    assert fit(trainer, [1, 2]) == {i: together[i] for i in (1, 2)}


@on_every_device
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("hidden", [(), (7,)], ids=str)
def test_surplus_steps_and_places_change_nothing_at_all(
    hidden: tuple[int, ...], nesterov: bool, device: str
) -> None:
    """A fold with fewer steps per epoch, or a shorter last batch, trains as if it were alone, to the last bit."""
    settings = head_settings(hidden, nesterov=nesterov, batch_size=4, momentum=0.5)
    (mask,) = masks_of(HeadShape(N_FEATURES, hidden, N_CLASSES), "features", (6,))
    short, long = np.arange(5, 23), np.arange(45)

    def first_head(row_sets: list[Array]) -> list[bytes]:
        trainer = trainer_of(settings, dtype=torch.float32, device=device, n_slots=4)
        (stack,) = trainer.fit([mask], row_sets)
        return [part[0].cpu().contiguous().numpy().tobytes() for part in (*stack.weights, *stack.biases)]

    assert first_head([short]) == first_head([short, long])


@on_every_device
def test_a_surplus_step_does_not_spoil_a_head_whose_outputs_overflow(device: str) -> None:
    """After its only step the head's weights are finite and its output on the row is not; surplus steps see it."""
    features = X.copy()
    features[44] *= 1e10
    settings = head_settings((), momentum=0.0, learning_rate=1e9, epochs=1, batch_size=4)
    (mask,) = masks_of(HeadShape(N_FEATURES, (), 2), "features", (6,))
    trainer = trainer_of(settings, NUMBERS, torch.float32, device, features, n_slots=4)
    (alone,) = trainer.fit([mask], [np.array([44])])
    (beside,) = trainer.fit([mask], [np.array([44]), np.arange(20)])
    row = trainer._features[44:45, torch.from_numpy(mask.inputs).to(device)]
    assert not alone.forward(row, 0)[0].isfinite().any()
    assert not alone.diverged.any()
    for ours, theirs in zip((*alone.weights, *alone.biases), (*beside.weights, *beside.biases), strict=True):
        assert torch.equal(ours[0], theirs[0])


@on_every_device
@pytest.mark.parametrize("early_stop", ["none", "training", "validation"])
@pytest.mark.parametrize("hidden", [(), (7,), (7, 5)], ids=str)
def test_a_diverging_head_leaves_its_neighbours_alone(
    hidden: tuple[int, ...], early_stop: str, device: str
) -> None:
    features = X.copy()
    features[44] *= 1e18  # the second row set has this row, the others do not
    settings = head_settings(hidden, early_stop=early_stop, patience=3)
    masks = masks_of(HeadShape(N_FEATURES, hidden, 2), "features", (6, 11, 3, 0))
    spoilt = trainer_of(settings, NUMBERS, torch.float32, device, features, n_slots=4)
    sound = trainer_of(settings, NUMBERS, torch.float32, device, n_slots=4)
    rows = [np.arange(40), np.arange(44), np.arange(1, 28)]
    with_it = [np.arange(40), np.arange(13, 45), np.arange(1, 28)]
    for found, expected in zip(spoilt.fit(masks, with_it), sound.fit(masks, rows), strict=True):
        assert found.diverged.tolist() == [False, len(found.mask.inputs) > 0, False]
        for ours, theirs in zip(
            (*found.weights, *found.biases), (*expected.weights, *expected.biases), strict=True
        ):
            assert torch.equal(ours[[0, 2]], theirs[[0, 2]])
        assert found.train_loss[[0, 2]].tolist() == expected.train_loss[[0, 2]].tolist()


@on_every_device
@pytest.mark.parametrize("early_stop", ["none", "training"])
def test_a_slot_is_as_new_after_a_head_that_diverged(early_stop: str, device: str) -> None:
    features = X.copy()
    features[:, 0] *= 1e30
    encoded = make_encoding("features", HeadShape(N_FEATURES, (7,), 2))
    bits = np.eye(N_FEATURES, dtype=np.bool_)
    wild, sane = encoded.decode(bits[0]), encoded.decode(bits[1] | bits[4])
    settings = head_settings((7,), early_stop=early_stop, patience=3)

    def fit(masks: list[HeadMask]) -> list[HeadStack]:
        trainer = trainer_of(settings, NUMBERS, torch.float32, device, features, n_slots=2)
        return list(trainer.fit(masks, ROW_SETS))

    stacks = fit([wild, wild, sane, wild, sane])
    assert [bool(stack.diverged.all()) for stack in stacks] == [True, True, False, True, False]
    (alone,) = fit([sane])
    assert bytes_of(stacks[2]) == bytes_of(stacks[4]) == bytes_of(alone)
    if early_stop != "none":
        # never at its best, so it keeps its start weights, not those of the head before it
        assert bytes_of(stacks[3])[:-2] == bytes_of(stacks[0])[:-2]
        assert stacks[3].epochs.tolist() == stacks[0].epochs.tolist() == [3] * len(ROW_SETS)
        assert all(weights.isfinite().all() for weights in stacks[3].weights)


def test_heads_come_as_soon_as_they_are_trained_and_two_calls_may_take_turns() -> None:
    masks = masks_of(HeadShape(N_FEATURES, (7,), N_CLASSES), "features", (2, 5, 9))
    trainer = trainer_of(head_settings((7,)), n_slots=4)
    expected = [bytes_of(stack) for stack in trainer.fit(masks, ROW_SETS)]
    turns = zip(trainer.fit(masks, ROW_SETS), trainer.fit(masks[::-1], ROW_SETS), strict=True)
    found = [(bytes_of(one), bytes_of(other)) for one, other in turns]
    assert [one for one, _ in found] == expected
    assert [other for _, other in found] == expected[::-1]
    next(trainer.fit(masks, ROW_SETS))  # given up after its first head
    assert [bytes_of(stack) for stack in trainer.fit(masks, ROW_SETS)] == expected
    assert list(trainer.fit([], ROW_SETS)) == []


def test_global_state_is_left_alone() -> None:
    masks = masks_of(HeadShape(N_FEATURES, (7,), N_CLASSES), "features", (2, 5))
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(2)
    try:
        for _ in trainer_of(head_settings((7,))).fit(masks, ROW_SETS):
            # also while the caller works between two individuals
            assert torch.get_num_threads() == 2
            assert torch.is_grad_enabled()
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("failures", [1, 2])
def test_out_of_memory_halves_the_slots_and_starts_unfinished_heads_again(
    failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = head_settings((7,), early_stop="training", patience=2, min_delta=0.02, learning_rate=0.1)
    masks = masks_of(HeadShape(N_FEATURES, (7,), N_CLASSES), "features", (0, 4, 7, 11))
    expected = [bytes_of(stack) for stack in trainer_of(settings, n_slots=8).fit(masks, ROW_SETS)]
    trainer = trainer_of(settings, n_slots=8)
    assert trainer.n_slots(ROW_SETS) == 8
    train, calls = slot_tensors.SlotTensors.train, []

    def sometimes(self: Any, *arguments: Any) -> None:
        calls.append(self.n_slots)
        if len(calls) % 6 == 5 and len(calls) < 6 * failures:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        train(self, *arguments)

    monkeypatch.setattr(slot_tensors.SlotTensors, "train", sometimes)
    with pytest.warns(RunWarning, match="not enough memory to train heads side by side") as said:
        found = [bytes_of(stack) for stack in trainer.fit(masks, ROW_SETS)]
    assert len(said) == 1
    assert len(calls) > 6 * failures
    assert sorted(set(calls), reverse=True) == [8, 4, 2][: failures + 1]
    assert trainer.n_slots(ROW_SETS) == 8 // 2**failures
    assert found == expected


def test_one_slot_that_does_not_fit_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(slot_tensors.SlotTensors, "train", never)
    masks = masks_of(HeadShape(N_FEATURES, (7,), N_CLASSES), "features", (4,))
    with pytest.raises(InputError, match="out of memory on cpu") as caught:
        list(trainer_of(head_settings((7,)), n_slots=2).fit(masks, ROW_SETS))
    assert "\n" not in str(caught.value)


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(slot_tensors.SlotTensors, "train", broken)
    masks = masks_of(HeadShape(N_FEATURES, (7,), N_CLASSES), "features", (4,))
    with pytest.raises(RuntimeError, match="illegal"):
        list(trainer_of(head_settings((7,))).fit(masks, ROW_SETS))


def test_slots_follow_the_memory_in_few_sizes() -> None:
    settings = head_settings((7,))
    found = []
    for memory in np.geomspace(1, 1e9, 60):
        trainer = trainer_of(settings, memory_bytes=int(memory))
        found.append(trainer.n_slots(ROW_SETS))
        assert len(list(trainer.fit([], ROW_SETS))) == 0
    assert found == sorted(found)
    assert set(found) == {count for count in SLOT_COUNTS if count <= 8}
    assert trainer_of(settings, n_slots=5).n_slots(ROW_SETS) == 5


def test_only_masks_and_settings_with_a_dual_form_fit() -> None:
    shape = HeadShape(N_FEATURES, (7,), N_CLASSES)
    (mask,) = masks_of(shape, "features", (4,))
    (connections,) = masks_of(shape, "connections", (9,))
    assert trainer_of(head_settings((7,))).fits(mask)
    assert not trainer_of(head_settings((7,))).fits(connections)
    assert not trainer_of(head_settings((7,), weight_decay=0.1)).fits(mask)
    assert not trainer_of(head_settings((7,), optimiser="adam")).fits(mask)
    with pytest.raises(ValueError, match="fits"):
        next(trainer_of(head_settings((7,))).fit([mask, connections], ROW_SETS))
    many = np.zeros((11_586, 1), dtype=np.float32)
    labels = np.arange(len(many)) % N_CLASSES
    narrow = head_settings((), epochs=1)
    whole = HeadMask(np.arange(1), ())
    assert not trainer_of(narrow, labels, torch.float32, features=many).fits(whole)
    assert trainer_of(narrow, labels[:-1], torch.float32, features=many[:-1]).fits(whole)


def test_impossible_options_are_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="n_slots = 1: use at least 2"):
        trainer_of(head_settings((7,)), n_slots=1)
    with pytest.raises(InputError, match="CUDA device"):
        trainer_of(head_settings((7,)), use_graph=True)


def test_few_gram_matrices_make_heads_wait_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = head_settings((7,), early_stop="training", patience=2, min_delta=0.02, learning_rate=0.1)
    masks = masks_of(HeadShape(N_FEATURES, (7,), N_CLASSES), "features", (0, 4, 7, 11, 4))
    expected = [bytes_of(stack) for stack in trainer_of(settings, n_slots=6).fit(masks, ROW_SETS)]
    monkeypatch.setattr(slot_tensors, "_n_grams", lambda n_slots, n_folds: 1)
    assert [bytes_of(stack) for stack in trainer_of(settings, n_slots=6).fit(masks, ROW_SETS)] == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("early_stop", ["none", "training", "validation"])
def test_a_replayed_graph_is_the_called_epoch_to_the_last_bit(
    early_stop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = head_settings((7, 5), early_stop=early_stop, patience=2, min_delta=0.02, learning_rate=0.1)
    masks = masks_of(HeadShape(N_FEATURES, (7, 5), N_CLASSES), "features+neurons", (0, 4, 7, 11, 20))

    def fit(use_graph: bool) -> list[list[bytes]]:
        trainer = trainer_of(settings, dtype=torch.float32, device="cuda", n_slots=8, use_graph=use_graph)
        return [bytes_of(stack) for stack in trainer.fit(masks, ROW_SETS)]

    called = fit(False)
    assert fit(True) == called
    # the table of row orders in the memory of the host
    monkeypatch.setattr(slot_tensors, "_LARGEST_DEVICE_TABLE", 0)
    assert fit(True) == called


@pytest.mark.parametrize("n_masks", [1, 5])
def test_heads_do_not_depend_on_the_number_of_slot_trainers(n_masks: int) -> None:
    settings = head_settings((6,), early_stop="training", patience=2)
    masks = masks_of(HeadShape(N_FEATURES, (6,), N_CLASSES), "features", (3, 5, 7, 9, 11)[:n_masks])
    threads = torch.get_num_threads()

    def fit(n_trainers: int) -> dict[int, HeadStack]:
        trainers = SlotTrainers([trainer_of(settings, n_slots=4) for _ in range(n_trainers)], torch.device("cpu"))
        assert all(trainers.fits(mask) for mask in masks)
        parts = list(trainers.fit(masks, ROW_SETS))
        numbers = [number for part, _ in parts for number in part]
        assert sorted(numbers) == list(range(n_masks))
        return dict(zip(numbers, (stack for _, stacks in parts for stack in stacks), strict=True))

    alone, three = fit(1), fit(3)
    assert torch.get_num_threads() == threads
    for number, mask in enumerate(masks):
        assert three[number].mask is alone[number].mask is mask
        for ours, theirs in zip(three[number].weights, alone[number].weights, strict=True):
            assert torch.equal(ours, theirs)
        np.testing.assert_array_equal(three[number].epochs, alone[number].epochs)
