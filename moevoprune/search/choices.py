"""The three networks that DeepPruningES returns: boundary heavy, knee and boundary light."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError, whole_number
from moevoprune.search.archive import knee, non_dominated

__all__ = ["ThreeChoices", "check_columns", "three_choices"]


class ThreeChoices(NamedTuple):
    """Row numbers of three members; one member can be several.

    Attributes
    ----------
    heavy
        The one with the least error.
    knee
        The one nearest to the ideal point.
    light
        The one with the least cost.
    """

    heavy: int
    knee: int
    light: int


def three_choices(losses: npt.ArrayLike, cost_column: int = 1, quality_column: int = 0) -> ThreeChoices:
    """Choose the three members of DeepPruningES (arXiv 1912.11527).

    Chosen is among the non-dominated rows. The boundary members have the least error and the least cost; of equals
    the one that is better in the other of the two, then the first. The knee is
    :func:`moevoprune.search.archive.knee`. How ties are broken, that distances are scaled by the ranges of the
    non-dominated rows, and that the knee counts further objectives, where there are some, is ours.

    Parameters
    ----------
    losses
        Minimised objectives, shape (n, n_obj), at least two columns. Rows that are not finite are passed over.
    cost_column
        Column of the computational cost, in 0 .. n_obj - 1.
    quality_column
        Column of the error, another one.

    Raises
    ------
    InputError
        There is no finite row, or a column is not there.

    Examples
    --------
    >>> three_choices([[0.05, 1.0], [0.07, 0.4], [0.30, 0.1], [0.30, 0.9]])
    ThreeChoices(heavy=0, knee=1, light=2)
    """
    array = np.asarray(losses, dtype=np.float64)
    if array.ndim != 2:
        raise InputError(f"losses have shape {array.shape}; give one row a member, one column an objective")
    check_columns(array.shape[1], cost_column, quality_column)
    finite = np.flatnonzero(np.isfinite(array).all(axis=1))
    if len(finite) == 0:
        raise InputError(f"no network to choose: of {len(array)} rows of losses none is finite")
    front = finite[non_dominated(array[finite])]
    members = array[front]
    error, cost = members[:, quality_column], members[:, cost_column]
    heavy, light = np.lexsort((cost, error))[0], np.lexsort((error, cost))[0]
    return ThreeChoices(int(front[heavy]), int(front[knee(members)]), int(front[light]))


def check_columns(n_obj: int, cost_column: int, quality_column: int) -> None:
    """Check that two columns are different ones of so many objectives.

    Raises
    ------
    InputError
        They are not.
    """
    if n_obj < 2:
        raise InputError(f"choosing between error and cost takes two objectives, there is {n_obj}: add one")
    whole_number("cost_column", cost_column, 0, n_obj - 1)
    whole_number("quality_column", quality_column, 0, n_obj - 1)
    if cost_column == quality_column:
        raise InputError(f"quality_column and cost_column are both {cost_column!r}: use two different columns")
