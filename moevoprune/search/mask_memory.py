"""Memories of masks that take the same few bytes for each, however long it is and however many there are."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

__all__ = ["MaskNumbers", "MaskValues"]

Bits = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

_DIGEST_BYTES = 16
# a Python dict takes ten times the memory of sorted arrays, but grows by one without copying all
_MOST_RECENT = 4096


class MaskNumbers:
    """Masks numbered from 0 in the order in which they first came.

    A mask is kept as a digest of 128 bits with its number, 24 bytes; the masks themselves would take most of the
    memory of a long search. That two of a billion masks share a digest has a chance of 1 in 10²⁰.
    """

    def __init__(self) -> None:
        self._sorted = np.zeros(0, dtype=f"S{_DIGEST_BYTES}")
        self._numbers = np.zeros(0, dtype=np.int64)
        self._recent: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent)

    def find(self, masks: Bits) -> Numbers:
        """Numbers of masks, shape (n, n_bits): shape (n,), -1 for one that never came."""
        return self._find(_digests(masks))

    def add(self, masks: Bits) -> Numbers:
        """Numbers of masks, shape (n, n_bits), of which those that never came get the next ones: shape (n,)."""
        digests = _digests(masks)
        numbers = self._find(digests)
        for row in np.flatnonzero(numbers < 0):
            numbers[row] = self._recent.setdefault(digests[row], len(self))
        if len(self._recent) > _MOST_RECENT:
            self._sort_in()
        return numbers

    def _find(self, digests: list[bytes]) -> Numbers:
        numbers = np.array([self._recent.get(digest, -1) for digest in digests], dtype=np.int64)
        if len(self._sorted) and len(digests):
            wanted = np.array(digests, dtype=self._sorted.dtype)
            places = np.minimum(np.searchsorted(self._sorted, wanted), len(self._sorted) - 1)
            found = self._sorted[places] == wanted
            numbers[found] = self._numbers[places[found]]
        return numbers

    def _sort_in(self) -> None:
        digests = np.array(list(self._recent), dtype=self._sorted.dtype)
        numbers = np.array(list(self._recent.values()), dtype=np.int64)
        order = np.argsort(digests)
        places = np.searchsorted(self._sorted, digests[order])
        self._sorted = np.insert(self._sorted, places, digests[order])
        self._numbers = np.insert(self._numbers, places, numbers[order])
        self._recent = {}


class MaskValues:
    """Values of masks: 24 bytes for each mask, and 8 for each value.

    Parameters
    ----------
    n_values
        Numbers that belong to a mask.
    """

    def __init__(self, n_values: int) -> None:
        self._numbers = MaskNumbers()
        # has room for more rows than there are, so that few additions copy
        self._values = np.zeros((64, n_values))

    def __len__(self) -> int:
        return len(self._numbers)

    def unknown(self, masks: Bits) -> Numbers:
        """Rows of masks, shape (n, n_bits), whose values are not known; of equal ones the first."""
        rows = np.flatnonzero(self._numbers.find(masks) < 0)
        first: dict[bytes, int] = {}
        for row, digest in zip(rows.tolist(), _digests(masks[rows]), strict=True):
            first.setdefault(digest, row)
        return np.array(list(first.values()), dtype=np.int64)

    def get(self, masks: Bits) -> Values:
        """Values of masks, shape (n, n_bits): shape (n, n_values), a copy.

        Raises
        ------
        KeyError
            One is not known.
        """
        numbers = self._numbers.find(masks)
        if (numbers < 0).any():
            raise KeyError(f"mask {int(np.argmin(numbers))} has no values yet")
        values: Values = self._values[numbers]
        return values

    def put(self, masks: Bits, values: Values) -> None:
        """Keep the values, shape (n, n_values), of masks, shape (n, n_bits); new for old where they are known."""
        numbers = self._numbers.add(masks)
        if len(self) > len(self._values):
            room = np.zeros((max(len(self), 3 * len(self._values) // 2), self._values.shape[1]))
            room[: len(self._values)] = self._values
            self._values = room
        self._values[numbers] = values


def _digests(masks: Bits) -> list[bytes]:
    packed = np.packbits(masks, axis=1)
    return [hashlib.blake2b(row.tobytes(), digest_size=_DIGEST_BYTES).digest() for row in packed]
