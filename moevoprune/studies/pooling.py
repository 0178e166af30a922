"""Paired differences of several data sets together: what holds in the mean over them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError
from moevoprune.fronts.statistics import Interval, interval

__all__ = ["PooledTest", "pooled_test"]

# a standard error that is no more than the error of adding floats up
_NONE = 1e-12


@dataclass(frozen=True)
class PooledTest:
    """A mean difference over data sets.

    Attributes
    ----------
    difference
        Mean over the data sets of the means over their seeds, with Student's interval; ``n`` counts all values.
        Without limits where a data set has but one value.
    p_value
        Of a two-sided t-test of a mean of 0; 1 where all differences are 0, None where there is no spread to judge
        by.
    """

    difference: Interval
    p_value: float | None


def pooled_test(
    differences: Sequence[Sequence[float] | npt.NDArray[np.float64]], confidence: float = 0.95
) -> PooledTest:
    """Test a mean difference over data sets, each with seeds of its own.

    Every data set weighs the same, however many seeds it has, and has a spread of its own: the squared standard
    errors of the data sets' means add up, with Welch and Satterthwaite's degrees of freedom. For one data set it
    is the paired t-test, for two it is Welch's test of the differences of one against those of the other, negated.

    Parameters
    ----------
    differences
        By data set the paired differences, one per seed; finite.
    confidence
        Of the interval, between 0 and 1.

    Raises
    ------
    InputError
        There is no data set or one has no value, a value is not finite, or ``confidence`` is out of range.

    Notes
    -----
    The data sets are taken as they are: the test is about other seeds on them, not about other data sets. Chosen
    instead of a test of the seeds' means over the data sets, which has fewer degrees of freedom, and sees pairs
    where there are none: seed 1 of one data set has nothing to do with seed 1 of another.

    References
    ----------
    B. L. Welch. The generalization of "Student's" problem when several different population variances are
    involved. Biometrika 34, 1947.
    """
    from scipy.stats import t

    if not differences:
        raise InputError("there is no data set to pool: give the differences of at least one")
    known = [np.asarray(values, dtype=np.float64) for values in differences]
    means = [interval(values, confidence).mean for values in known]
    mean, n = float(np.mean(means)), sum(map(len, known))
    if min(map(len, known)) < 2:
        return PooledTest(Interval(mean, math.nan, math.nan, n, confidence), None)
    parts = np.array([values.var(ddof=1) / len(values) for values in known]) / len(known) ** 2
    error = math.sqrt(parts.sum())
    if error <= _NONE:
        return PooledTest(Interval(mean, mean, mean, n, confidence), 1.0 if abs(mean) <= _NONE else None)
    degrees = float(parts.sum() ** 2 / (parts**2 / [len(values) - 1 for values in known]).sum())
    half = float(t.ppf((1.0 + confidence) / 2.0, degrees)) * error
    p_value = float(2.0 * t.sf(abs(mean) / error, degrees))
    return PooledTest(Interval(mean, mean - half, mean + half, n, confidence), p_value)
