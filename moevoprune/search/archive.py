"""Archive of all non-dominated masks of a search, and the hypervolume of a set of losses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pymoo.indicators.hv import HV

from moevoprune.errors import InputError
from moevoprune.search.mask_memory import MaskNumbers

__all__ = ["ParetoArchive", "SmallestClose", "hypervolume", "knee", "non_dominated"]

# Offers are taken in chunks, so that comparing a whole journal with itself needs little memory.
_CHUNK = 256


class ParetoArchive:
    """All non-dominated individuals ever offered, in order of arrival.

    A population forgets points of the front that its size or its crowding does not let it keep; the
    archive does not. What it holds depends on the sequence of offers only, not on how it is split into
    calls of :meth:`add`:

    - of a mask offered again only the first offer counts, also if the mask has left the archive since;
    - of equal loss vectors the first stays;
    - an individual is in the archive if no other one is at least as good everywhere and better somewhere.

    Parameters
    ----------
    n_obj : int
        Number of losses, at least 1.

    Raises
    ------
    InputError
        If ``n_obj`` is less than 1.
    """

    def __init__(self, n_obj: int) -> None:
        if n_obj < 1:
            raise InputError(f"an archive needs losses to compare, got n_obj={n_obj}; give at least 1")
        self.n_obj = n_obj
        self._n_bits: int | None = None
        self._packed = np.zeros((0, 0), dtype=np.uint8)
        self._losses = np.zeros((0, n_obj))
        self._values = np.zeros((0, n_obj))
        self._seen = MaskNumbers()
        self._volume: tuple[bytes, float] | None = None

    def __len__(self) -> int:
        return len(self._losses)

    @property
    def masks(self) -> npt.NDArray[np.bool_]:
        """Masks, bool of shape (n, n_bits); a copy. Shape (0, 0) before the first offer."""
        if self._n_bits is None:
            return np.zeros((0, 0), dtype=np.bool_)
        return np.unpackbits(self._packed, axis=1, count=self._n_bits).view(np.bool_)

    @property
    def packed(self) -> list[bytes]:
        """Masks packed into bytes, as :func:`moevoprune.search.fitness.pack` does it."""
        return [row.tobytes() for row in self._packed]

    @property
    def losses(self) -> npt.NDArray[np.float64]:
        """Losses, float64 of shape (n, n_obj), smaller is better; a copy."""
        return self._losses.copy()

    @property
    def values(self) -> npt.NDArray[np.float64]:
        """Objective values as offered, float64 of shape (n, n_values); a copy."""
        return self._values.copy()

    def add(
        self, masks: npt.NDArray[np.bool_], losses: npt.NDArray[np.float64], values: npt.NDArray[np.float64]
    ) -> None:
        """Offer individuals; give feasible ones only.

        Parameters
        ----------
        masks : bool array of shape (n, n_bits)
            The masks.
        losses : float array of shape (n, n_obj)
            What is minimised, finite.
        values : float array of shape (n, n_values)
            Kept along, for instance the objectives in their own units and directions.

        Raises
        ------
        InputError
            If a shape or type is not as described or differs from that of earlier offers, or a loss is
            not finite. The archive is then as before.
        """
        bits = np.asarray(masks)
        loss = np.asarray(losses, dtype=np.float64)
        value = np.asarray(values, dtype=np.float64)
        if bits.dtype != np.bool_ or bits.ndim != 2:
            raise InputError(
                f"archive masks are {bits.dtype} of shape {bits.shape}; give bool of shape (n, n_bits)"
            )
        if self._n_bits is not None and bits.shape[1] != self._n_bits:
            raise InputError(f"archive masks have {bits.shape[1]} bits, earlier ones {self._n_bits}; use one head")
        if loss.shape != (len(bits), self.n_obj):
            raise InputError(f"archive losses have shape {loss.shape}; give ({len(bits)}, {self.n_obj})")
        if value.ndim != 2 or len(value) != len(bits):
            raise InputError(f"archive values have shape {value.shape}; give ({len(bits)}, n_values)")
        if self._n_bits is not None and value.shape[1] != self._values.shape[1]:
            raise InputError(
                f"archive values have {value.shape[1]} columns, earlier ones {self._values.shape[1]}; "
                "give the same objectives"
            )
        if not np.isfinite(loss).all():
            row = int(np.argwhere(~np.isfinite(loss))[0, 0])
            raise InputError(f"archive losses of row {row} are {loss[row].tolist()}; give finite losses")
        packed = np.packbits(bits, axis=1)
        if self._n_bits is None:
            self._n_bits = bits.shape[1]
            self._packed = packed[:0]
            self._values = value[:0]
        new = self._first_seen(bits)
        for i in range(0, len(new), _CHUNK):
            part = new[i : i + _CHUNK]
            self._add_chunk(packed[part], loss[part], value[part])

    def hypervolume(self, corner: npt.NDArray[np.float64]) -> float:
        """:func:`hypervolume` of the losses, to the bit; not computed again while nothing enters the archive.

        Parameters
        ----------
        corner : float array of shape (n_obj,)
            Reference point, finite.

        Raises
        ------
        InputError
            The corner is not as described.
        """
        reference = _checked_corner(corner)
        if len(reference) != self.n_obj:
            raise InputError(f"the hypervolume corner has {len(reference)} numbers; give {self.n_obj}")
        key = reference.tobytes()
        if self._volume is None or self._volume[0] != key:
            # members do not dominate each other, so the costly search for those that do is spared
            inside = self._losses[(self._losses < reference).all(axis=1)]
            self._volume = key, _volume_of_front(inside, reference)
        return self._volume[1]

    def _first_seen(self, masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Mark the masks as seen and return the rows of those that were not."""
        before = len(self._seen)
        numbers = self._seen.add(masks)
        _, first = np.unique(numbers, return_index=True)
        rows = np.sort(first)
        new: npt.NDArray[np.int64] = rows[numbers[rows] >= before]
        return new

    def _add_chunk(
        self, packed: npt.NDArray[np.uint8], losses: npt.NDArray[np.float64], values: npt.NDArray[np.float64]
    ) -> None:
        staying, entering = _merge(self._losses, losses)
        if not entering.any():
            return
        self._volume = None
        self._packed = np.concatenate([self._packed[staying], packed[entering]])
        self._losses = np.concatenate([self._losses[staying], losses[entering]])
        self._values = np.concatenate([self._values[staying], values[entering]])


def _merge(
    front: npt.NDArray[np.float64], losses: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Mark the rows that stay in a non-dominated front and those that enter it."""
    # Losses equal to those of the front are dropped as well: the front came first.
    entering: npt.NDArray[np.bool_] = np.logical_not(_no_worse(front, losses).any(axis=0))
    candidates = losses[entering]
    beats = _no_worse(candidates, candidates)
    # A pair that is no worse both ways is equal: there only the earlier row beats the later one.
    beats &= ~beats.T | np.triu(np.ones_like(beats), k=1)
    entering[entering] = ~beats.any(axis=0)
    # Nothing in the front equals a row that enters, so "no worse" is dominance here.
    staying: npt.NDArray[np.bool_] = np.logical_not(_no_worse(losses[entering], front).any(axis=0))
    return staying, entering


def _no_worse(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return at [i, j] whether a[i] <= b[j] in every column."""
    result = np.ones((len(a), len(b)), dtype=np.bool_)
    for column_a, column_b in zip(a.T, b.T, strict=True):
        result &= column_a[:, None] <= column_b[None, :]
    return result


def non_dominated(losses: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Find the rows that no other row dominates; of equal rows the first.

    Parameters
    ----------
    losses : float array of shape (n, n_obj)
        Smaller is better.

    Returns
    -------
    int array of shape (n_front,)
        Row numbers, ascending.
    """
    archive = np.zeros(0, dtype=np.int64)
    for start in range(0, len(losses), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(losses)))
        staying, entering = _merge(losses[archive], losses[rows])
        archive = np.concatenate([archive[staying], rows[entering]])
    return archive


def hypervolume(losses: npt.NDArray[np.float64], corner: npt.NDArray[np.float64]) -> float:
    """Return the volume that losses dominate up to a corner, not normalised.

    Points that are not better than the corner in every loss, dominated points and duplicates add nothing.

    Parameters
    ----------
    losses : float array of shape (n, n_obj)
        Smaller is better; n may be 0. Not NaN and not minus infinity.
    corner : float array of shape (n_obj,)
        Reference point, finite.

    Returns
    -------
    float
        At least 0, in the product of the units of the losses.

    Raises
    ------
    InputError
        If a shape or a value is not as described.

    Notes
    -----
    Computed by moocore (Fonseca, Paquete & López-Ibáñez, CEC 2006; Guerreiro & Fonseca, IEEE TEVC 2018)
    through pymoo. It gets distinct non-dominated points inside the corner only: moocore before 0.3.2
    crashes on duplicates in more than three objectives.
    """
    points = np.asarray(losses, dtype=np.float64)
    reference = _checked_corner(corner)
    if points.shape == (0,):
        return 0.0
    if points.ndim != 2 or points.shape[1] != len(reference):
        raise InputError(f"hypervolume losses have shape {points.shape}; give (n, {len(reference)})")
    if np.isnan(points).any() or np.isneginf(points).any():
        raise InputError("hypervolume losses hold NaN or minus infinity; leave these points out")
    points = points[(points < reference).all(axis=1)]
    front = points[:0]
    for i in range(0, len(points), _CHUNK):
        part = points[i : i + _CHUNK]
        staying, entering = _merge(front, part)
        front = np.concatenate([front[staying], part[entering]])
    return _volume_of_front(front, reference)


def _checked_corner(corner: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    reference = np.asarray(corner, dtype=np.float64)
    if reference.ndim != 1 or reference.size == 0 or not np.isfinite(reference).all():
        raise InputError(f"the hypervolume corner is {reference.tolist()}; give one finite number a loss")
    return reference


def _volume_of_front(front: npt.NDArray[np.float64], reference: npt.NDArray[np.float64]) -> float:
    """Volume of distinct points inside the corner that do not dominate each other."""
    if len(front) == 0:
        return 0.0
    if len(reference) == 1:
        # Releases of moocore differ on whether they take one column.
        return float(reference[0] - front.min())
    return float(HV(ref_point=reference)(front))


class SmallestClose:
    """Fewest active bits among the masks whose loss lies close to the best so far.

    Only what may still be the answer is kept: what was too far from the best once stays so.

    Parameters
    ----------
    distance : float
        From the best loss, at most.

    Attributes
    ----------
    best : float
        Least loss so far; NaN where there is none.
    """

    def __init__(self, distance: float) -> None:
        self.best = float("nan")
        self._distance = distance
        # columns: loss, active bits
        self._candidates = np.zeros((0, 2))

    def add(self, losses: npt.NDArray[np.float64], active: npt.NDArray[np.int64]) -> None:
        """Take note of masks: their losses, shape (n,), and numbers of active bits, shape (n,)."""
        if len(losses) == 0:
            return
        candidates = np.concatenate([self._candidates, np.column_stack([losses, active])])
        self.best = float(candidates[:, 0].min())
        candidates = candidates[candidates[:, 0] <= self.best + self._distance]
        self._candidates = candidates[non_dominated(candidates)]

    @property
    def smallest(self) -> int:
        """Active bits of the smallest one close to the best; 0 where there is none."""
        return int(self._candidates[:, 1].min()) if len(self._candidates) else 0


def knee(losses: npt.NDArray[np.float64]) -> int:
    """Find the member of a front that lies nearest to the ideal point.

    The losses are scaled to [0, 1] over the front, and their sum (the normalised Manhattan distance of
    DeepPruningES, arXiv 1912.11527) is smallest at the knee. An objective that is the same for all does not count;
    of equals the first is taken.

    Parameters
    ----------
    losses
        Minimised objectives, shape (members, n_obj), at least one member.
    """
    low, span = losses.min(axis=0), np.ptp(losses, axis=0)
    scaled = (losses - low) / np.where(span > 0, span, 1.0)
    return int(np.argmin(scaled.sum(axis=1)))
