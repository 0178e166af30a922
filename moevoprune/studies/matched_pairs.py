"""Masks of equal size in pairs: what it is worth to pick one of two by a score."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError

__all__ = ["equal_pairs", "gain_of_picking"]

Pairs = npt.NDArray[np.int64]


def equal_pairs(sizes: npt.ArrayLike, tolerance: float = 0.05, kinds: npt.ArrayLike | None = None) -> Pairs:
    """Pair neighbours in the order of size, each at most once.

    Parameters
    ----------
    sizes
        Shape (n,), 0 or larger.
    tolerance
        By how much the larger of two may exceed the smaller, as a share of that; 0 or larger.
    kinds
        Shape (n,), numbers or words: pairs are of one kind. None for all of one.

    Returns
    -------
    ndarray, shape (pairs, 2)
        Places of the smaller and of the larger one; of equals the earlier place comes first.

    Raises
    ------
    InputError
        A shape is another, a size is negative or not finite, or the tolerance is out of range.

    Examples
    --------
    >>> equal_pairs([7, 100, 3, 104, 7, 200]).tolist()
    [[0, 4], [1, 3]]
    """
    known = np.asarray(sizes, dtype=np.float64)
    if known.ndim != 1 or not (np.isfinite(known).all() and (known >= 0).all()):
        raise InputError(f"sizes have shape {known.shape}: give finite numbers of 0 or more, shape (n,)")
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise InputError(f"tolerance = {tolerance}: use a finite number of at least 0")
    kind = np.zeros(len(known)) if kinds is None else np.asarray(kinds)
    if kind.shape != known.shape:
        raise InputError(f"{len(known)} sizes and kinds of shape {kind.shape}: give one kind for each")
    order = np.lexsort((known, kind))
    pairs, place = [], 0
    while place + 1 < len(order):
        smaller, larger = order[place : place + 2]
        fits = bool(kind[smaller] == kind[larger] and known[larger] <= (1.0 + tolerance) * known[smaller])
        if fits:
            pairs.append((smaller, larger))
        place += 1 + fits
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def gain_of_picking(by: npt.ArrayLike, outcome: npt.ArrayLike, pairs: Pairs) -> float:
    """Mean over pairs of the outcome of the one with the higher score, less that of the other.

    Parameters
    ----------
    by
        Scores, shape (n,). A pair of equal scores gains 0: either is picked as often.
    outcome
        What comes of picking one, shape (n,).
    pairs
        Places, shape (pairs, 2).

    Returns
    -------
    float
        In the outcome's unit; NaN without pairs. Over picking at random it is half as much.
    """
    score, result = np.asarray(by, dtype=np.float64), np.asarray(outcome, dtype=np.float64)
    if not len(pairs):
        return math.nan
    one, other = pairs.T
    return float(np.mean(np.sign(score[one] - score[other]) * (result[one] - result[other])))
