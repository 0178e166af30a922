"""How much two groups of fronts agree in the features that they read, against how much seeds agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError
from moevoprune.fronts.statistics import Interval, interval, t_test

__all__ = ["OverlapComparison", "compare_overlap", "seed_overlap", "weighted_jaccard"]

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class OverlapComparison:
    """The features of two groups of fronts, e.g. of two sets of data.

    Attributes
    ----------
    within
        Mean overlap of two fronts of the first group.
    across
        Mean overlap of a front of the first group with one of the second, of another seed.
    difference
        ``across`` less ``within``: below 0 where the groups read other features than seeds alone explain.
    p_value
        Of a two-sided test that this is 0; None where it cannot be tested.
    """

    within: Interval
    across: Interval
    difference: Interval
    p_value: float | None


def weighted_jaccard(first: Values, second: Values) -> float:
    """Overlap of two vectors of frequencies, the sum of the minima over the sum of the maxima.

    Parameters
    ----------
    first, second
        Shape (n,), at least 0; e.g. of :func:`moevoprune.fronts.explanation.feature_frequency`.

    Returns
    -------
    float
        In [0, 1]: 1 for equal vectors, 0 where nothing is shared. Of vectors of 0 and 1 it is the Jaccard index of
        the two sets. Two vectors of zeros are equal.

    Raises
    ------
    InputError
        The shapes differ, or a value is negative or not finite.

    References
    ----------
    M. Růžička. Anwendung mathematisch-statistischer Methoden in der Geobotanik. Biológia 13, 1958.
    """
    pair = np.stack(_checked([first, second]))
    larger = float(pair.max(axis=0).sum())
    return float(pair.min(axis=0).sum()) / larger if larger > 0 else 1.0


def seed_overlap(vectors: Sequence[Values]) -> Interval:
    """Mean overlap of two fronts of a group, which differ in their seeds.

    Parameters
    ----------
    vectors
        Frequencies of the features, one vector per seed, at least two; see :func:`weighted_jaccard`.

    Returns
    -------
    Interval
        Over the seeds, by the jackknife of :func:`compare_overlap`; without limits for two seeds.

    Raises
    ------
    InputError
        There are fewer than two, or they are no frequencies of the same features.
    """
    return _mean(_matrix(vectors, vectors))


def compare_overlap(first: Sequence[Values], second: Sequence[Values]) -> OverlapComparison:
    """Compare the overlap between two groups of fronts with that between seeds.

    That two fronts share few features says nothing by itself: so do two seeds on the same data. Only pairs of
    different seeds are compared, across the groups as within the first, because what a seed decides alike in both
    (folds, the start population) would make those of one seed more alike.

    Parameters
    ----------
    first, second
        Frequencies of the features, one vector per seed and in the order of the seeds, at least two of each; see
        :func:`weighted_jaccard`.

    Raises
    ------
    InputError
        The groups are not equally large or hold fewer than two, or they are no frequencies of the same features.

    Notes
    -----
    Every seed is in several pairs, so pairs are not independent. Intervals and test are Student's over the seeds'
    jackknife pseudo-values: ``n`` times the mean over all pairs less ``n - 1`` times that without the seed.

    References
    ----------
    J. N. Arvesen. Jackknifing U-statistics. Annals of Mathematical Statistics 40(6), 1969.
    """
    if len(first) != len(second):
        raise InputError(
            f"{len(first)} and {len(second)} fronts do not make pairs; give equally many, seed by seed"
        )
    within, across = _matrix(first, first), _matrix(first, second)
    # either group's front may be that of the one seed and of the other
    across = (across + across.T) / 2.0
    difference = across - within
    p_value = t_test(_pseudo_values(difference)) if len(first) > 2 else None
    return OverlapComparison(_mean(within), _mean(across), _mean(difference), p_value)


def _matrix(first: Sequence[Values], second: Sequence[Values]) -> Values:
    if len(first) < 2:
        raise InputError(f"overlap between seeds needs two of them, there is {len(first)}: run more seeds")
    _checked([*first, *second])
    return np.array([[weighted_jaccard(a, b) for b in second] for a in first])


def _mean(matrix: Values) -> Interval:
    """Mean of what is not on the diagonal of a symmetric matrix of seeds."""
    n = len(matrix)
    if n > 2:
        # their mean is that of the pairs
        return interval(_pseudo_values(matrix))
    return Interval(float(matrix[0, 1]), math.nan, math.nan, n)


def _pseudo_values(matrix: Values) -> Values:
    n = len(matrix)
    sums = matrix.sum(axis=1) - np.diag(matrix)
    total = float(sums.sum())
    without = (total - 2.0 * sums) / ((n - 1) * (n - 2))
    values: Values = n * total / (n * (n - 1)) - (n - 1) * without
    return values


def _checked(vectors: Sequence[Values]) -> list[Values]:
    known = [np.asarray(vector, dtype=np.float64) for vector in vectors]
    for vector in known:
        if vector.shape != known[0].shape or vector.ndim != 1:
            raise InputError(
                f"frequencies have shapes {known[0].shape} and {vector.shape}; give vectors of the same features"
            )
        if not (np.isfinite(vector).all() and (vector >= 0).all()):
            raise InputError("frequencies must be finite and at least 0")
    return known
