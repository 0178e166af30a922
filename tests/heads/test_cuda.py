"""The population trainer on a CUDA device. What needs no device is in test_slots.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moevoprune import HeadSettings, PruningProblem
from moevoprune.errors import RunWarning
from moevoprune.heads.encodings import HeadShape, make_encoding
from moevoprune.heads.reference import train_reference_head
from moevoprune.heads.slots import SlotTrainer
from moevoprune.heads.start import StartWeights
from moevoprune.heads.trainer import PopulationTrainer

DEVICE = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize("form", ["dual", "gathered"])
@pytest.mark.parametrize(
    ("encoding", "hidden"), [("features", ()), ("features", (8,)), ("neurons:both", (8, 6)), ("connections", (5,))]
)
def test_same_heads_as_the_reference(encoding, hidden, form, dtype, tolerance):
    generator = np.random.default_rng(3)
    features = generator.normal(size=(61, 17)).astype(np.float32)
    labels = generator.integers(0, 3, 61)
    shape = HeadShape(17, hidden, 3)
    settings = HeadSettings(
        hidden=hidden, epochs=50, batch_size=16, learning_rate=0.01, schedule="constant", start="active"
    )
    chosen = make_encoding(encoding, shape)
    rows = [np.arange(0, 50), np.arange(11, 61)]
    trainer = PopulationTrainer(features, labels, shape, settings, 1, DEVICE, dtype, form)
    for n_active in (0, 1, 5, chosen.n_bits):
        bits = np.zeros(chosen.n_bits, dtype=bool)
        bits[generator.permutation(chosen.n_bits)[:n_active]] = True
        mask = chosen.decode(bits)
        (stack,) = trainer.fit([mask], rows)
        for fold, train in enumerate(rows):
            outputs, _ = stack.forward(trainer.features[:, torch.from_numpy(mask.inputs).to(DEVICE)], fold)
            oracle = train_reference_head(features, labels, train, mask, shape, settings, 1, dtype)
            expected, _ = oracle.module(torch.tensor(features, dtype=dtype))
            torch.testing.assert_close(outputs.cpu(), expected, atol=tolerance, rtol=0)


def test_fitness_does_not_depend_on_the_batch(small_features, quick_head):
    masks = np.random.default_rng(0).random((7, 14)) < 0.5
    together = PruningProblem(small_features, head=quick_head, cv=3, device=DEVICE).values(masks)
    for mask, values in zip(masks, together, strict=True):
        alone = PruningProblem(small_features, head=quick_head, cv=3, device=DEVICE).values(mask[None])
        np.testing.assert_array_equal(alone[0], values)


def test_values_are_close_to_the_cpu(small_features, quick_head):
    masks = np.random.default_rng(0).random((5, 14)) < 0.5
    cuda = PruningProblem(small_features, head=quick_head, cv=3, device=DEVICE).values(masks)
    cpu = PruningProblem(small_features, head=quick_head, cv=3, device="cpu").values(masks)
    np.testing.assert_allclose(cuda, cpu, atol=0.03)


# ---- in the sizes of the papers, where a GPU's library has several kernels to choose from


def wide_task():
    """480 rows of 512 features with class structure, 512 hidden units, 4 classes; and ten masks."""
    generator = np.random.default_rng(5)
    labels = generator.permutation(np.arange(480) % 4)
    centres = 0.15 * generator.normal(size=(4, 512))
    features = np.maximum(0.25 + centres[labels] + 0.65 * generator.normal(size=(480, 512)), 0).astype(np.float32)
    shape = HeadShape(512, (512,), 4)
    encoding = make_encoding("features+neurons", shape)
    masks = [encoding.decode(generator.random(encoding.n_bits) < share) for share in np.linspace(0.05, 1.0, 10)]
    return features, labels, shape, masks


def wide_trainer(epochs, dtype=torch.float32, **options):
    features, labels, shape, _ = wide_task()
    settings = HeadSettings.preset("paper", epochs=epochs)
    values = torch.tensor(features, dtype=dtype, device=DEVICE)
    targets = torch.nn.functional.one_hot(torch.tensor(labels, device=DEVICE), 4).to(dtype)
    return SlotTrainer(values, targets, labels, shape, settings, StartWeights(shape, settings, 1), 1, **options)


def folds_of(n_rows):
    return [np.flatnonzero(np.arange(n_rows) % 3 != fold) for fold in range(3)]


def parts_of(stack):
    tensors = [*stack.weights, *(bias for bias in stack.biases if bias is not None)]
    return [tensor.cpu().numpy().tobytes() for tensor in tensors]


def test_wide_heads_do_not_depend_on_their_company_or_their_slot():
    masks, folds = wide_task()[3], folds_of(480)
    trainer = wide_trainer(6, n_slots=16)
    together = [parts_of(stack) for stack in trainer.fit(masks, folds)]
    order = [7, 2, 9, 0, 5, 1]
    for number, stack in zip(order, trainer.fit([masks[i] for i in order], folds), strict=True):
        assert parts_of(stack) == together[number]
    for number in (0, 4, 9):
        (stack,) = wide_trainer(6, n_slots=16).fit([masks[number]], folds)
        assert parts_of(stack) == together[number]


def test_wide_heads_in_single_precision_are_those_in_double_precision():
    features, _, _, masks = wide_task()
    # few epochs: later, units that switch at other steps make small differences large
    single = wide_trainer(10, n_slots=8).fit(masks[::4], folds_of(480))
    double = wide_trainer(10, torch.float64, n_slots=8).fit(masks[::4], folds_of(480))
    for ours, exact in zip(single, double, strict=True):
        inputs = torch.tensor(features[:, ours.mask.inputs], dtype=torch.float64, device=DEVICE)
        for fold in range(3):
            found, expected = ours.to(torch.float64).forward(inputs, fold)[0], exact.forward(inputs, fold)[0]
            # float32 differs by less than 1e-6 on a CPU; tf32 would by a hundred times as much
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_single_precision_is_full_whatever_the_caller_allows():
    masks, folds = wide_task()[3][:4], folds_of(480)
    expected = [parts_of(stack) for stack in wide_trainer(3, n_slots=8).fit(masks, folds)]
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        assert [parts_of(stack) for stack in wide_trainer(3, n_slots=8).fit(masks, folds)] == expected
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def test_the_slots_follow_free_memory_and_a_full_device_gets_fewer():
    masks, folds = wide_task()[3][:4], folds_of(480)
    roomy = wide_trainer(2)
    expected = [parts_of(stack) for stack in wide_trainer(2, n_slots=2).fit(masks, folds)]
    tight = wide_trainer(2, memory_bytes=1)
    assert roomy.n_slots(folds) > tight.n_slots(folds) == 2
    assert [parts_of(stack) for stack in tight.fit(masks, folds)] == expected


def test_memory_that_runs_out_halves_the_slots():
    masks, folds = wide_task()[3][:4], folds_of(480)
    _, total = torch.cuda.mem_get_info()
    # 2**17 slots of some megabytes each are more than any device has
    trainer = wide_trainer(2, n_slots=2**17)
    with pytest.warns(RunWarning, match="not enough memory to train heads"):
        stacks = list(trainer.fit(masks, folds))
    assert [len(stack.mask.inputs) for stack in stacks] == [len(mask.inputs) for mask in masks]
    assert not any(stack.diverged.any() for stack in stacks)
    assert trainer.n_slots(folds) * 480 * 512 * 4 < total
