"""Means, intervals and paired tests: what comparisons over seeds and data sets rest on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError, whole_number
from moevoprune.fronts.wording import bare

__all__ = [
    "Interval",
    "NonInferiority",
    "PairedTest",
    "bootstrap_interval",
    "holm",
    "interval",
    "jackknife_interval",
    "no_worse",
    "p_text",
    "paired_test",
    "t_test",
]

Values = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Statistic = Callable[[Indices], float]

# the same to within the error of adding floats up
_EQUAL = 1e-12
_FEWEST_RESAMPLES = 20


@dataclass(frozen=True)
class Interval:
    """An estimate with its two-sided confidence interval.

    Attributes
    ----------
    mean
        The mean of the values; of :func:`bootstrap_interval` and :func:`jackknife_interval` the statistic of all
        rows.
    low, high
        Limits of the interval; NaN where there are none, as of one value.
    n
        How many values, or rows, it is of.
    confidence
        Share of such intervals that hold the true value, between 0 and 1.
    """

    mean: float
    low: float
    high: float
    n: int
    confidence: float = 0.95

    def text(self, digits: int = 3, sign: bool = False) -> str:
        """Write it as ".913 [.905, .921]"; without limits as ".913", and without a value as "n/a".

        Parameters
        ----------
        digits
            Digits after the point.
        sign
            Write a plus before what is not negative, as of a difference.
        """

        def number(value: float) -> str:
            # adding nought turns the -0.0 of a rounded value into 0.0
            rounded = round(value, digits) + 0.0
            return bare(f"{rounded:+.{digits}f}" if sign else f"{rounded:.{digits}f}")

        if math.isnan(self.mean):
            return "n/a"
        if math.isnan(self.low) or math.isnan(self.high):
            return number(self.mean)
        return f"{number(self.mean)} [{number(self.low)}, {number(self.high)}]"

    def __str__(self) -> str:
        return self.text()


@dataclass(frozen=True)
class PairedTest:
    """Two methods compared over the same seeds.

    Attributes
    ----------
    difference
        Mean of the first method's values less the second's, with Student's interval.
    p_value
        Of a two-sided paired t-test; 1 where all pairs are equal, None with one pair or where all differ by the
        same other than 0, when there is no spread to judge by.
    wilcoxon_p_value
        Of a two-sided exact signed-rank test, which asks for no normal differences. With n pairs it cannot fall
        below ``2 / 2**n``: .0625 with 5, .002 with 10. With 5 seeds it can therefore never reject at .05.
    """

    difference: Interval
    p_value: float | None
    wilcoxon_p_value: float

    def text(self, digits: int = 3) -> str:
        """Write it as "+.012 [+.003, +.021], p = .013"."""
        return f"{self.difference.text(digits, sign=True)}, {p_text(self.p_value)}"

    def __str__(self) -> str:
        return self.text()


@dataclass(frozen=True)
class NonInferiority:
    """Whether one method is no worse than another by a margin or more.

    Attributes
    ----------
    difference
        Mean of the first method's values less the second's, with Student's two-sided interval.
    margin
        The loss that would matter, in the values' unit, at least 0.
    lower
        One-sided lower confidence limit of the mean difference, at the confidence asked for; NaN with one pair. It
        is above the lower end of the two-sided interval of the same confidence.
    p_value
        Of a one-sided paired t-test of the hypothesis that the mean difference is at most ``-margin``; None with
        one pair, or where all pairs differ by the same.
    """

    difference: Interval
    margin: float
    lower: float
    p_value: float | None

    @property
    def shown(self) -> bool:
        """Whether the data show it: the lower limit is above ``-margin``. False does not mean worse."""
        return self.lower > -self.margin

    def text(self, digits: int = 3) -> str:
        """Write it as "-.002, at least -.008 (margin .010), p = .004"."""
        mean = Interval(self.difference.mean, math.nan, math.nan, 1).text(digits, sign=True)
        lower = Interval(self.lower, math.nan, math.nan, 1).text(digits, sign=True)
        return f"{mean}, at least {lower} (margin {bare(f'{self.margin:.{digits}f}')}), {p_text(self.p_value)}"

    def __str__(self) -> str:
        return self.text()


def interval(values: Sequence[float] | Values, confidence: float = 0.95) -> Interval:
    """Mean of independent values, e.g. one per seed, with Student's t confidence interval.

    Parameters
    ----------
    values
        At least one, finite.
    confidence
        Between 0 and 1.

    Returns
    -------
    Interval
        Without limits for one value.

    Raises
    ------
    InputError
        There is no value, one is not finite, or ``confidence`` is out of range.

    Notes
    -----
    The interval is symmetric, and takes no notice of the range that values may have: that of accuracies near 1 may
    end above 1.

    Examples
    --------
    >>> str(interval([0.90, 0.91, 0.93]))
    '.913 [.875, .951]'
    """
    known = _finite("values", values)
    _check_confidence(confidence)
    mean, n = float(known.mean()), len(known)
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1, confidence)
    half = _t_quantile((1.0 + confidence) / 2.0, n - 1) * _standard_error(known)
    return Interval(mean, mean - half, mean + half, n, confidence)


def t_test(differences: Sequence[float] | Values) -> float | None:
    """P-value of a two-sided t-test of a mean of 0; of the differences of pairs it is the paired t-test.

    Parameters
    ----------
    differences
        Any number, finite.

    Returns
    -------
    float or None
        None with fewer than two, or where all are the same to within rounding: without spread there is no
        statistic.

    Raises
    ------
    InputError
        A difference is not finite.
    """
    from scipy.stats import ttest_1samp

    if len(differences) < 2:
        return None
    known = _finite("differences", differences)
    return None if _without_spread(known) else float(ttest_1samp(known, 0.0).pvalue)


def paired_test(a: Sequence[float] | Values, b: Sequence[float] | Values, confidence: float = 0.95) -> PairedTest:
    """Compare two methods whose values belong together in pairs, e.g. of one seed and its splits.

    Parameters
    ----------
    a, b
        Values of the two methods, pair by pair; finite, equally many, at least one.
    confidence
        Of the difference's interval, between 0 and 1.

    Raises
    ------
    InputError
        The lengths differ, there is no pair, a value is not finite, or ``confidence`` is out of range.

    Notes
    -----
    Seeds of one data set share its rows, test rows above all. The test is about other seeds on the same data, not
    about other data; for these, look at several data sets, with :func:`holm`.

    References
    ----------
    F. Wilcoxon. Individual comparisons by ranking methods. Biometrics Bulletin 1(6), 1945. Pairs without a
    difference are left out as there; of ties, ranks are averaged. The distribution is that of all ``2**n`` signs
    of these ranks, so that it is exact with ties as well.
    """
    differences = _differences(a, b)
    p_value = 1.0 if np.abs(differences).max() <= _EQUAL else t_test(differences)
    return PairedTest(interval(differences, confidence), p_value, _signed_rank_p_value(differences))


def no_worse(
    a: Sequence[float] | Values, b: Sequence[float] | Values, margin: float, confidence: float = 0.95
) -> NonInferiority:
    """Test whether a method is no worse than another: a paired test of non-inferiority.

    That a difference is not significant does not show that there is none. Here the burden of proof is the other
    way round: the hypothesis to reject is that the first method is worse by the margin or more. The margin is to
    be chosen before looking at the values.

    Parameters
    ----------
    a, b
        Values of the two methods, pair by pair, higher being better; finite, equally many, at least one.
    margin
        Loss that would matter, in the values' unit, at least 0. With 0 it is a test of superiority.
    confidence
        Of the one-sided lower limit and of the two-sided interval, between 0 and 1.

    Raises
    ------
    InputError
        As :func:`paired_test`, or the margin is negative or not finite.

    Examples
    --------
    >>> str(no_worse([0.91, 0.90, 0.93, 0.92], [0.91, 0.91, 0.93, 0.91], margin=0.01))
    '+.000, at least -.010 (margin .010), p = .046'
    """
    from scipy.stats import ttest_1samp

    if not (math.isfinite(margin) and margin >= 0):
        raise InputError(f"margin = {margin}: use a finite number of at least 0")
    differences = _differences(a, b)
    difference, n = interval(differences, confidence), len(differences)
    if n == 1:
        return NonInferiority(difference, margin, math.nan, None)
    lower = difference.mean - _t_quantile(confidence, n - 1) * _standard_error(differences)
    if _without_spread(differences):
        return NonInferiority(difference, margin, lower, None)
    p_value = float(ttest_1samp(differences, -margin, alternative="greater").pvalue)
    return NonInferiority(difference, margin, lower, p_value)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p-values for being several, e.g. one per data set, by Holm's step-down method.

    With ``m`` of them in rising order, the adjusted ``i``-th (from 1) is the largest of
    ``min(1, (m - j + 1) p_j)`` over ``j <= i``. Rejecting what is at most alpha then keeps the chance of any false
    rejection at alpha or below, however the tests depend on one another.

    Parameters
    ----------
    p_values
        Each between 0 and 1, or None where there was no test.

    Returns
    -------
    list of float or None
        Adjusted, in the order given. None stays None, and does not count.

    Raises
    ------
    InputError
        A p-value is not between 0 and 1.

    References
    ----------
    S. Holm. A simple sequentially rejective multiple test procedure. Scandinavian Journal of Statistics 6, 1979.
    """
    known = [(p, place) for place, p in enumerate(p_values) if p is not None]
    for p, place in known:
        if not 0.0 <= p <= 1.0:
            raise InputError(f"p-value {place} (counted from 0) is {p}: it must lie between 0 and 1")
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(sorted(known)):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[place] = largest
    return adjusted


def p_text(p_value: float | None) -> str:
    """Write a p-value as "p = .013", or "p n/a" where there is none."""
    return "p n/a" if p_value is None else f"p = {bare(f'{p_value:.2g}')}"


def bootstrap_interval(
    statistic: Statistic,
    n_rows: int,
    generator: np.random.Generator,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Interval:
    """Percentile bootstrap interval of a function of rows, e.g. a difference of accuracies over test rows.

    Parameters
    ----------
    statistic
        Takes row numbers, shape (n_rows,), int64, in which rows may be repeated; its value is a number, or NaN
        where it has none.
    n_rows
        Number of rows, at least 1.
    generator
        Draws the rows.
    resamples
        How many samples of rows to draw, at least 20.
    confidence
        Between 0 and 1.

    Returns
    -------
    Interval
        ``mean`` is the statistic of all rows, each once; ``n`` is the number of rows. Resamples on which the
        statistic is NaN are left out; without limits where that is half of them or more, or where the statistic
        of all rows is NaN.

    Raises
    ------
    InputError
        A number is out of range.

    Notes
    -----
    Only for statistics that make nothing of a row being there twice, such as means over rows. Debiased CKA does:
    the debiasing leaves out each row's similarity with itself, and a repeated row brings it back. Take
    :func:`jackknife_interval` for it.

    References
    ----------
    B. Efron, R. Tibshirani. An Introduction to the Bootstrap, chapter 13. Chapman & Hall, 1993.
    """
    n_rows = whole_number("n_rows", n_rows, 1)
    resamples = whole_number("resamples", resamples, _FEWEST_RESAMPLES)
    _check_confidence(confidence)
    whole = float(statistic(np.arange(n_rows)))
    values = np.array([statistic(generator.integers(n_rows, size=n_rows)) for _ in range(resamples)], np.float64)
    known = values[~np.isnan(values)]
    low = high = math.nan
    if not math.isnan(whole) and 2 * len(known) > resamples:
        tail = (1.0 - confidence) / 2.0
        low, high = (float(limit) for limit in np.quantile(known, [tail, 1.0 - tail]))
    return Interval(whole, low, high, n_rows, confidence)


def jackknife_interval(
    statistic: Statistic,
    n_rows: int,
    generator: np.random.Generator,
    groups: int = 20,
    confidence: float = 0.95,
) -> Interval:
    """Grouped jackknife interval of a function of rows that are not to be repeated, e.g. debiased CKA.

    Rows are dealt to groups of equal size (but for one row) by chance, and the statistic is computed without each
    group in turn. Of ``g`` such values the standard error is
    ``sqrt((g - 1) / g * sum((value - mean) ** 2))``; the interval is Student's with ``g - 1`` degrees of freedom
    about the statistic of all rows.

    Parameters
    ----------
    statistic
        Takes row numbers, int64, rising, each at most once; its value is a number, or NaN where it has none.
    n_rows
        Number of rows, at least 2.
    generator
        Deals the rows.
    groups
        At least 2; as many as rows where there are fewer of these.
    confidence
        Between 0 and 1.

    Returns
    -------
    Interval
        ``mean`` is the statistic of all rows; ``n`` is the number of rows. Without limits where any value is NaN.

    Raises
    ------
    InputError
        A number is out of range.

    Notes
    -----
    For smooth statistics: not for quantiles.

    References
    ----------
    J. Shao, D. Tu. The Jackknife and Bootstrap. Springer, 1995.
    """
    n_rows = whole_number("n_rows", n_rows, 2)
    groups = min(whole_number("groups", groups, 2), n_rows)
    _check_confidence(confidence)
    whole = float(statistic(np.arange(n_rows)))
    dealt = np.array_split(generator.permutation(n_rows), groups)
    values = np.array([statistic(np.setdiff1d(np.arange(n_rows), group)) for group in dealt], np.float64)
    # the variance of a mean of independent values, times (g - 1) ** 2: the values overlap that much
    half = _t_quantile((1.0 + confidence) / 2.0, groups - 1) * _standard_error(values) * (groups - 1)
    if math.isnan(whole) or math.isnan(half):
        return Interval(whole, math.nan, math.nan, n_rows, confidence)
    return Interval(whole, whole - half, whole + half, n_rows, confidence)


def _finite(name: str, values: Sequence[float] | Values) -> Values:
    known = np.asarray(values, dtype=np.float64)
    if known.ndim != 1 or not len(known):
        raise InputError(f"{name} have shape {known.shape}; give at least one number, shape (n,)")
    if not np.isfinite(known).all():
        place = int(np.flatnonzero(~np.isfinite(known))[0])
        raise InputError(f"{name}: number {place} (counted from 0) is {known[place]}; leave out what has no value")
    return known


def _differences(a: Sequence[float] | Values, b: Sequence[float] | Values) -> Values:
    if len(a) != len(b):
        raise InputError(f"{len(a)} and {len(b)} values do not make pairs; give equally many, seed by seed")
    return _finite("the first values", a) - _finite("the second values", b)


def _check_confidence(confidence: float) -> None:
    if not 0.0 < confidence < 1.0:
        raise InputError(f"confidence = {confidence}: use a number between 0 and 1, e.g. .95")


def _without_spread(differences: Values) -> bool:
    return bool(np.ptp(differences) <= _EQUAL)


def _standard_error(values: Values) -> float:
    return float(values.std(ddof=1)) / math.sqrt(len(values))


def _t_quantile(share: float, degrees: int) -> float:
    from scipy.stats import t

    return float(t.ppf(share, degrees))


def _signed_rank_p_value(differences: Values) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test from the distribution of all signs of the ranks at hand."""
    from scipy.stats import rankdata

    # differences that only rounding tells apart are ties
    differences = differences.round(12)
    differences = differences[differences != 0]
    # averaged ranks are whole or half numbers
    doubled = np.rint(2.0 * rankdata(np.abs(differences))).astype(np.int64)
    share = np.ones(1)
    for rank in doubled.tolist():
        share = np.pad(share, (0, rank)) / 2.0 + np.pad(share, (rank, 0)) / 2.0
    positive = int(doubled[differences > 0].sum())
    tail = min(share[: positive + 1].sum(), share[positive:].sum())
    return float(min(1.0, 2.0 * tail))
