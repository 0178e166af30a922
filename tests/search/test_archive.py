import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moevoprune.errors import InputError
from moevoprune.search import archive as archive_module
from moevoprune.search.archive import ParetoArchive, hypervolume

N_BITS = 3


def oracle(masks, losses):
    """Rows that the archive should hold, straight from its definition."""
    first = {}
    for i, mask in enumerate(masks):
        first.setdefault(tuple(mask), i)
    offered = sorted(first.values())

    def beaten(i):
        for j in offered:
            no_worse = all(a <= b for a, b in zip(losses[j], losses[i], strict=True))
            equal = all(a == b for a, b in zip(losses[j], losses[i], strict=True))
            if (no_worse and not equal) or (equal and j < i):
                return True
        return False

    return [i for i in offered if not beaten(i)]


@st.composite
def offers(draw):
    n_obj = draw(st.integers(1, 4))
    n = draw(st.integers(0, 25))
    n_bits = draw(st.sampled_from([N_BITS, 12]))
    levels = draw(st.sampled_from([2, 4, 1000]))
    masks = draw(st.lists(st.lists(st.booleans(), min_size=n_bits, max_size=n_bits), min_size=n, max_size=n))
    losses = draw(
        st.lists(st.lists(st.integers(-levels, levels), min_size=n_obj, max_size=n_obj), min_size=n, max_size=n)
    )
    cuts = draw(st.lists(st.integers(0, n), max_size=6))
    return (
        np.array(masks, dtype=bool).reshape(n, n_bits),
        np.array(losses, dtype=float).reshape(n, n_obj) / 7,
        sorted({0, n, *cuts}),
    )


@pytest.mark.parametrize("chunk", [3, 256])
@settings(max_examples=120, deadline=None)
@given(offered=offers())
def test_holds_what_the_definition_says_however_offers_are_split(chunk, offered):
    masks, losses, cuts = offered
    values = np.column_stack([np.arange(len(masks)), -losses])
    rows = oracle(masks, losses)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive_module, "_CHUNK", chunk)
        whole, split, single = (ParetoArchive(losses.shape[1]) for _ in range(3))
        whole.add(masks, losses, values)
        for a, b in itertools.pairwise(cuts):
            split.add(masks[a:b], losses[a:b], values[a:b])
        for i in range(len(masks)):
            single.add(masks[i : i + 1], losses[i : i + 1], values[i : i + 1])
    for archive in (whole, split, single):
        assert len(archive) == len(rows)
        if len(masks):
            np.testing.assert_array_equal(archive.values, values[rows])
            np.testing.assert_array_equal(archive.masks, masks[rows])
            np.testing.assert_array_equal(archive.losses, losses[rows])


def test_empty_archive_has_empty_arrays():
    archive = ParetoArchive(2)
    assert len(archive) == 0
    assert archive.masks.shape == (0, 0)
    assert archive.losses.shape == (0, 2)
    archive.add(np.zeros((0, 5), bool), np.zeros((0, 2)), np.zeros((0, 3)))
    assert archive.masks.shape == (0, 5)
    assert archive.masks.dtype == np.bool_
    assert archive.values.shape == (0, 3)


def test_arrays_are_copies():
    archive = ParetoArchive(1)
    masks, losses = np.ones((1, 4), bool), np.ones((1, 1))
    archive.add(masks, losses, losses)
    masks[:] = False
    losses[:] = 9
    archive.masks[:] = False
    archive.losses[:] = 9
    archive.values[:] = 9
    assert archive.masks.all()
    assert archive.losses == 1
    assert archive.values == 1


def test_first_offer_of_a_mask_counts():
    archive = ParetoArchive(2)
    mask, other = np.eye(2, dtype=bool)
    archive.add(np.array([mask]), np.array([[2.0, 2.0]]), np.array([[0.0]]))
    archive.add(np.array([other, mask]), np.array([[1.0, 1.0], [0.0, 0.0]]), np.array([[1.0], [2.0]]))
    np.testing.assert_array_equal(archive.values, [[1.0]])


@pytest.mark.parametrize(
    ("masks", "losses", "values", "match"),
    [
        (np.zeros((1, 4), int), np.zeros((1, 2)), np.zeros((1, 2)), "bool"),
        (np.zeros(4, bool), np.zeros((1, 2)), np.zeros((1, 2)), "bool of shape"),
        (np.zeros((1, 5), bool), np.zeros((1, 2)), np.zeros((1, 2)), "5 bits, earlier ones 4"),
        (np.zeros((1, 4), bool), np.zeros((1, 3)), np.zeros((1, 2)), "losses have shape"),
        (np.zeros((1, 4), bool), np.zeros((1, 2)), np.zeros((2, 2)), "values have shape"),
        (np.zeros((1, 4), bool), np.zeros((1, 2)), np.zeros((1, 3)), "3 columns, earlier ones 2"),
        (np.zeros((1, 4), bool), np.array([[0, np.nan]]), np.zeros((1, 2)), "finite"),
    ],
)
def test_bad_offers_are_refused_and_leave_the_archive_alone(masks, losses, values, match):
    archive = ParetoArchive(2)
    archive.add(np.ones((1, 4), bool), np.ones((1, 2)), np.ones((1, 2)))
    with pytest.raises(InputError, match=match):
        archive.add(masks, losses, values)
    assert len(archive) == 1
    archive.add(np.zeros((1, 4), bool), np.zeros((1, 2)), np.zeros((1, 2)))
    assert not archive.masks.any()


def test_no_losses_are_refused():
    with pytest.raises(InputError):
        ParetoArchive(0)


def test_populations_of_100_against_1000_archived_are_fast():
    rng = np.random.default_rng(0)
    angle = rng.random(2000) * np.pi / 2
    losses = np.column_stack([1 - np.sin(angle), 1 - np.cos(angle), rng.random(2000)])
    masks = rng.random((2000, 1000)) < 0.5
    archive = ParetoArchive(3)
    start = time.perf_counter()
    for i in range(0, 2000, 100):
        archive.add(masks[i : i + 100], losses[i : i + 100], losses[i : i + 100])
    # Takes 0.05 s; a loop over pairs in Python takes far more.
    assert time.perf_counter() - start < 2
    assert len(archive) > 1000


def inclusion_exclusion(losses, corner):
    total = 0.0
    for size in range(1, len(losses) + 1):
        for subset in itertools.combinations(losses, size):
            sides = np.clip(corner - np.max(subset, axis=0), 0, None)
            total += (-1) ** (size + 1) * np.prod(sides)
    return total


@settings(max_examples=150, deadline=None)
@given(data=st.data(), n_obj=st.integers(1, 4), n=st.integers(0, 7))
def test_hypervolume_against_inclusion_exclusion(data, n_obj, n):
    # Few levels: duplicates, dominated points and points on and beyond the corner are common.
    number = st.integers(-2, 6) | st.integers(-2000, 6000).map(lambda x: x / 1000)
    row = st.lists(number, min_size=n_obj, max_size=n_obj)
    losses = np.array(data.draw(st.lists(row, min_size=n, max_size=n)), dtype=float).reshape(n, n_obj)
    corner = np.array(data.draw(row), dtype=float)
    volume = hypervolume(losses, corner)
    assert isinstance(volume, float)
    assert volume == pytest.approx(inclusion_exclusion(losses, corner), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("n_obj", [1, 2, 3, 4])
def test_hypervolume_counts_cells_of_large_sets_with_duplicates(n_obj):
    rng = np.random.default_rng(n_obj)
    losses = rng.integers(0, 9, (600, n_obj))
    losses = losses[losses.sum(axis=1) >= 4 * n_obj - 2]
    cells = np.stack(np.meshgrid(*[np.arange(7)] * n_obj, indexing="ij"), axis=-1).reshape(-1, n_obj)
    dominated = (losses[:, None, :] <= cells[None, :, :]).all(axis=2).any(axis=0).sum()
    assert hypervolume(losses, np.full(n_obj, 7)) == dominated


def test_hypervolume_of_nothing_is_zero():
    assert hypervolume(np.zeros((0, 3)), np.ones(3)) == 0
    assert hypervolume(np.array([]), np.ones(3)) == 0
    assert hypervolume(np.array([[1.0, 0.0], [np.inf, 0.0]]), np.ones(2)) == 0


@pytest.mark.parametrize(
    ("losses", "corner"),
    [
        (np.zeros((1, 2)), np.ones(3)),
        (np.zeros(2), np.ones(2)),
        (np.zeros((1, 2)), np.array([1, np.inf])),
        (np.zeros((1, 2)), np.ones((1, 2))),
        (np.zeros((1, 0)), np.ones(0)),
        (np.array([[np.nan, 0]]), np.ones(2)),
        (np.array([[-np.inf, 0]]), np.ones(2)),
    ],
)
def test_bad_hypervolume_input_is_refused(losses, corner):
    with pytest.raises(InputError):
        hypervolume(losses, corner)
