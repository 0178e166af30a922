"""The population trainer on a CUDA device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moevoprune import HeadSettings, PruningProblem
from moevoprune.heads.encodings import HeadShape, make_encoding
from moevoprune.heads.reference import train_reference_head
from moevoprune.heads.trainer import PopulationTrainer

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
    trainer = PopulationTrainer(features, labels, shape, settings, 1, "cuda", dtype, form)
    for n_active in (0, 1, 5, chosen.n_bits):
        bits = np.zeros(chosen.n_bits, dtype=bool)
        bits[generator.permutation(chosen.n_bits)[:n_active]] = True
        mask = chosen.decode(bits)
        (stack,) = trainer.fit([mask], rows)
        for fold, train in enumerate(rows):
            outputs, _ = stack.forward(trainer.features[:, torch.from_numpy(mask.inputs).cuda()], fold)
            oracle = train_reference_head(features, labels, train, mask, shape, settings, 1, dtype)
            expected, _ = oracle.module(torch.tensor(features, dtype=dtype))
            torch.testing.assert_close(outputs.cpu(), expected, atol=tolerance, rtol=0)


def test_fitness_does_not_depend_on_the_batch(small_features, quick_head):
    masks = np.random.default_rng(0).random((7, 14)) < 0.5
    together = PruningProblem(small_features, head=quick_head, cv=3, device="cuda").values(masks)
    for mask, values in zip(masks, together, strict=True):
        alone = PruningProblem(small_features, head=quick_head, cv=3, device="cuda").values(mask[None])
        np.testing.assert_array_equal(alone[0], values)


def test_values_are_close_to_the_cpu(small_features, quick_head):
    masks = np.random.default_rng(0).random((5, 14)) < 0.5
    cuda = PruningProblem(small_features, head=quick_head, cv=3, device="cuda").values(masks)
    cpu = PruningProblem(small_features, head=quick_head, cv=3, device="cpu").values(masks)
    np.testing.assert_allclose(cuda, cpu, atol=0.03)
