"""Memories of masks, held against dicts."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from moevoprune.search import mask_memory
from moevoprune.search.mask_memory import MaskNumbers, MaskValues


@pytest.fixture(params=[3, 10_000])
def most_recent(request, monkeypatch):
    """Masks that are sorted in at once, and masks that are all still recent."""
    monkeypatch.setattr(mask_memory, "_MOST_RECENT", request.param)


def batches(n_bits, seed):
    """Batches of masks with many repetitions, also within a batch and of empty ones."""
    generator = np.random.default_rng(seed)
    for _ in range(60):
        masks = generator.random((generator.integers(0, 9), n_bits)) < 0.5
        yield np.concatenate([masks, masks[:2]])


@pytest.mark.parametrize("n_bits", [5, 8, 200])
def test_masks_are_numbered_as_a_dict_would(most_recent, n_bits):
    numbers, wanted = MaskNumbers(), {}
    for masks in batches(n_bits, seed=1):
        keys = [mask.tobytes() for mask in masks]
        assert numbers.find(masks).tolist() == [wanted.get(key, -1) for key in keys]
        assert numbers.add(masks).tolist() == [wanted.setdefault(key, len(wanted)) for key in keys]
        assert len(numbers) == len(wanted)


@pytest.mark.parametrize("n_bits", [5, 200])
def test_values_are_kept_as_a_dict_would(most_recent, n_bits):
    generator = np.random.default_rng(2)
    kept, wanted = MaskValues(2), {}
    for masks in batches(n_bits, seed=3):
        keys = [mask.tobytes() for mask in masks]
        fresh = [row for row, key in enumerate(keys) if key not in wanted and key not in keys[:row]]
        assert kept.unknown(masks).tolist() == fresh
        if fresh:
            with pytest.raises(KeyError, match=f"mask {fresh[0]} has no values"):
                kept.get(masks)
        values = generator.normal(size=(len(masks), 2))
        kept.put(masks, values)
        wanted.update(zip(keys, values, strict=True))
        np.testing.assert_array_equal(kept.get(masks), np.array([wanted[key] for key in keys]).reshape(-1, 2))
        assert len(kept) == len(wanted)


def test_what_comes_back_is_a_copy():
    kept, mask = MaskValues(1), np.ones((1, 3), dtype=bool)
    kept.put(mask, np.array([[1.0]]))
    kept.get(mask)[:] = 2.0
    assert kept.get(mask) == 1.0


def test_a_digest_that_ends_in_zeros_is_found_again(monkeypatch):
    # numpy drops zeros at the end of such strings
    monkeypatch.setattr(mask_memory, "_MOST_RECENT", 1)
    digests = [bytes(16), b"\1" + bytes(15), bytes(15) + b"\1", b"\1" * 15 + b"\0"]
    monkeypatch.setattr(mask_memory, "_digests", lambda masks: [digests[int(mask.sum())] for mask in masks])
    numbers, masks = MaskNumbers(), np.tril(np.ones((4, 3), dtype=bool), k=-1)
    assert numbers.add(masks).tolist() == [0, 1, 2, 3]
    assert numbers.find(masks[::-1]).tolist() == [3, 2, 1, 0]


def test_a_mask_takes_few_bytes_however_long_it_is():
    generator = np.random.default_rng(4)
    kept = MaskValues(3)
    for _ in range(20):
        kept.put(generator.random((1000, 1280)) < 0.5, generator.random((1000, 3)))
    numbers = kept._numbers
    held = sum(array.nbytes for array in (numbers._sorted, numbers._numbers, kept._values))
    recent = sys.getsizeof(numbers._recent) + len(numbers._recent) * (sys.getsizeof(bytes(16)) + 32)
    assert len(kept) == 20_000
    assert (held + recent) / len(kept) < 120, "packed they would take 160 each, before any values"
