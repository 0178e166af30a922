"""Rank correlation, also of what is left of two variables when others are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError

__all__ = ["rank_correlation"]

Values = npt.NDArray[np.float64]

# of the ranks' own spread: less is left by rounding alone
_NOTHING_LEFT = 1e-9


def rank_correlation(x: npt.ArrayLike, y: npt.ArrayLike, given: Sequence[npt.ArrayLike] = ()) -> float:
    """Spearman's rank correlation, or the partial one given other variables.

    The partial one is Pearson's correlation of the residuals that a linear regression of the ranks of ``x`` and of
    ``y`` on the ranks of the variables given leaves. What these variables explain other than linearly in the ranks
    stays in.

    Parameters
    ----------
    x, y
        Values, shape (n,), finite.
    given
        Variables to hold constant, each of shape (n,), finite.

    Returns
    -------
    float
        In [-1, 1]; NaN where there are fewer than three values more than variables given, or where nothing is left
        of ``x`` or ``y``: one is constant, or its ranks follow from those given.

    Raises
    ------
    InputError
        The shapes differ, or a value is not finite.

    References
    ----------
    M. G. Kendall. Partial rank correlation. Biometrika 32, 1942 (of tau; with Spearman's ranks as in
    S. Kim. ppcor. Communications for Statistical Applications and Methods 22(6), 2015).
    """
    from scipy.stats import rankdata

    columns = [np.asarray(values, dtype=np.float64) for values in (x, y, *given)]
    n = columns[0].size
    if any(column.shape != (n,) for column in columns):
        shapes = ", ".join(str(column.shape) for column in columns)
        raise InputError(f"rank correlation: shapes {shapes}; give as many values of each variable, shape (n,)")
    if not all(np.isfinite(column).all() for column in columns):
        raise InputError("rank correlation: a value is not finite; leave out what has no value")
    if n < 3 + len(given):
        return math.nan
    ranks = np.column_stack([rankdata(column) for column in columns])
    ranks -= ranks.mean(axis=0)
    wanted, known = ranks[:, :2], ranks[:, 2:]
    left = wanted - known @ np.linalg.lstsq(known, wanted, rcond=None)[0] if given else wanted
    norms = np.linalg.norm(left, axis=0)
    # without ranks that differ both sides are 0
    if (norms <= _NOTHING_LEFT * np.linalg.norm(wanted, axis=0)).any():
        return math.nan
    return float(np.clip(left[:, 0] @ left[:, 1] / norms.prod(), -1.0, 1.0))
