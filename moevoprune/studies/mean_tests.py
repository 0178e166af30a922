"""Means over seeds, held against 0: a test per data set, corrected over the data sets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from moevoprune.fronts.statistics import Interval, holm, interval, t_test
from moevoprune.studies.saying import LEVEL

__all__ = ["MeanTest", "by_data", "column_tests", "mean_tests", "per_seed"]


Row = Mapping[str, Any]


@dataclass(frozen=True)
class MeanTest:
    """Whether a mean over seeds differs from 0.

    Attributes
    ----------
    mean
        The mean with its interval; all NaN where there are no values.
    p_value
        Of a two-sided t-test of a mean of 0, after Holm's correction; None where there is nothing to judge by.
    """

    mean: Interval
    p_value: float | None

    @property
    def differs(self) -> bool:
        """Whether the mean differs from 0: p is at most .05."""
        return self.p_value is not None and self.p_value <= LEVEL

    @property
    def above_zero(self) -> bool:
        """Whether the mean differs from 0, and is above it."""
        return self.differs and self.mean.mean > 0

    def text(self, digits: int = 2) -> str:
        """Write it as ``+.41 [+.22, +.60] *``, with a star where it differs from 0."""
        return self.mean.text(digits, sign=True) + (" *" if self.differs else "")


def mean_tests(samples: Mapping[str, Sequence[float]]) -> dict[str, MeanTest]:
    """Test a mean of 0 for each data set, with Holm's correction over the data sets.

    Parameters
    ----------
    samples
        By data set, a value per seed. What is not finite is left out.
    """
    known = {name: [value for value in sample if math.isfinite(value)] for name, sample in samples.items()}
    adjusted = holm([t_test(sample) for sample in known.values()])
    nothing = Interval(math.nan, math.nan, math.nan, 0)
    return {
        name: MeanTest(interval(sample) if sample else nothing, p_value)
        for (name, sample), p_value in zip(known.items(), adjusted, strict=True)
    }


def column_tests(rows: Mapping[str, Sequence[Row]], key: str) -> dict[str, MeanTest]:
    """Test a column's mean over the seeds against 0, see :func:`mean_tests`.

    Parameters
    ----------
    rows
        By data set, see :func:`by_data`.
    key
        The column.
    """
    return mean_tests({name: per_seed(of, key) for name, of in rows.items()})


def by_data(rows: Sequence[Row], **wanted: Any) -> dict[str, list[Row]]:
    """Sort rows by their data set.

    Parameters
    ----------
    rows
        With ``data`` in each.
    **wanted
        Values that a row must have to stay.

    Returns
    -------
    dict
        All data sets in the order of the rows, also those of which no row stays.
    """
    names = dict.fromkeys(row["data"] for row in rows)
    chosen = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return {name: [row for row in chosen if row["data"] == name] for name in names}


def per_seed(rows: Sequence[Row], key: str) -> list[float]:
    """Mean of a column for every seed, in the order of the seeds.

    Parameters
    ----------
    rows
        With ``seed`` in each.
    key
        The column.
    """
    seeds = sorted({row["seed"] for row in rows})
    return [float(np.mean([row[key] for row in rows if row["seed"] == seed])) for seed in seeds]
