"""Tests of no loss: that values are less than a margin below others, corrected over the data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moevoprune.fronts.statistics import NonInferiority, holm, no_worse
from moevoprune.studies.saying import LEVEL, number, p_cell

__all__ = ["LossTest", "loss_tests"]


@dataclass(frozen=True)
class LossTest:
    """Whether one data set shows that no more than a margin is lost.

    Attributes
    ----------
    test
        Of this data set alone.
    p_value
        Its p-value after Holm's correction over the data sets; None where there is none.
    """

    test: NonInferiority
    p_value: float | None

    @property
    def shown(self) -> bool:
        """Whether it is shown: the lower limit is above the margin, and the corrected p-value at most .05."""
        # without any spread there is no p-value, and the limit decides
        return self.test.shown and (self.p_value is None or self.p_value <= LEVEL)

    def difference_cells(self, digits: int) -> list[str]:
        """Cells of a table: the mean difference with its interval, and its lower limit."""
        return [self.test.difference.text(digits, sign=True), number(self.test.lower, digits, sign=True)]

    def p_cells(self) -> list[str]:
        """Cells of a table: the p-value, and the corrected one."""
        return [p_cell(self.test.p_value), p_cell(self.p_value)]


def loss_tests(
    pairs: Mapping[str, tuple[Sequence[float], Sequence[float]]], margins: Mapping[str, float]
) -> dict[str, LossTest]:
    """Test on each data set that the first column is less than a margin below the second.

    Parameters
    ----------
    pairs
        By data set: the values of both in the order of the seeds, higher being better.
    margins
        By data set: the loss that would matter, in the values' unit, at least 0.

    Raises
    ------
    InputError
        As :func:`~moevoprune.fronts.statistics.no_worse`.
    """
    tests = {name: no_worse(*values, margins[name]) for name, values in pairs.items()}
    adjusted = holm([test.p_value for test in tests.values()])
    return {name: LossTest(test, p) for (name, test), p in zip(tests.items(), adjusted, strict=True)}
