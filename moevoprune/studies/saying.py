"""How the results of experiments are said: numbers, tables of paired tests, and whether a claim holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from moevoprune.features import FeatureSet
from moevoprune.fronts.statistics import holm, paired_test
from moevoprune.fronts.tables import markdown_table
from moevoprune.fronts.wording import bare

__all__ = [
    "LEVEL",
    "describe",
    "number",
    "p_cell",
    "paired_table",
    "shown_higher",
    "shown_lower",
    "verdict",
    "verdict_counted",
    "verdict_where",
]

LEVEL = 0.05
"""Significance level of the studies: what a corrected p-value is at most."""


def describe(name: str, features: FeatureSet) -> str:
    """One line about a data set."""
    return (
        f"{name}: {features.n_train:,} training and {features.n_test:,} test rows, {features.n_features:,} "
        f"features, {features.n_classes} classes"
    )


def number(value: float, digits: int = 3, sign: bool = False) -> str:
    """Write a number without the zero before the point; nothing where there is none."""
    return "" if np.isnan(value) else bare(f"{value:{'+' if sign else ''}.{digits}f}")


def paired_table(
    pairs: Mapping[str, tuple[Sequence[float], Sequence[float]]], first: str, second: str, digits: int = 3
) -> str:
    """Markdown: two columns of numbers, paired by seed, per data set, with tests corrected over the data sets.

    Parameters
    ----------
    pairs
        By data set (or data set and setting): the values of both, in the order of the seeds.
    first, second
        What the two are.
    digits
        After the point.
    """
    tests = {name: paired_test(a, b) for name, (a, b) in pairs.items()}
    adjusted = holm([test.p_value for test in tests.values()])
    table = [["", first, second, "difference [95 % interval]", "p", "p, Holm"]]
    for (name, test), corrected in zip(tests.items(), adjusted, strict=True):
        table.append(
            [
                name,
                number(float(np.mean(pairs[name][0])), digits),
                number(float(np.mean(pairs[name][1])), digits),
                test.difference.text(digits, sign=True),
                p_cell(test.p_value),
                p_cell(corrected),
            ]
        )
    return "\n".join(markdown_table(table))


def shown_higher(
    pairs: Mapping[str, tuple[Sequence[float], Sequence[float]]], level: float = LEVEL
) -> dict[str, bool]:
    """By data set, whether the first column is shown to be higher: a paired test, corrected over the data sets.

    Parameters
    ----------
    pairs
        As for :func:`paired_table`.
    level
        What a corrected p-value is at most.
    """
    tests = [paired_test(a, b) for a, b in pairs.values()]
    adjusted = holm([test.p_value for test in tests])
    return {
        name: test.difference.mean > 0 and corrected is not None and corrected <= level
        for name, test, corrected in zip(pairs, tests, adjusted, strict=True)
    }


def shown_lower(
    pairs: Mapping[str, tuple[Sequence[float], Sequence[float]]], level: float = LEVEL
) -> dict[str, bool]:
    """By data set, whether the first column is shown to be lower: see :func:`shown_higher`.

    Parameters
    ----------
    pairs, level
        As for :func:`shown_higher`.
    """
    return shown_higher({name: (second, first) for name, (first, second) in pairs.items()}, level)


def verdict(held: Iterable[bool]) -> str:
    """Say whether a claim holds: everywhere, somewhere or nowhere."""
    found = set(held)
    return "does not hold" if True not in found else "holds" if False not in found else "holds in part"


def verdict_where(held: Mapping[str, bool]) -> str:
    """Say as a sentence whether a claim holds, and where if only in part.

    Parameters
    ----------
    held
        By data set, at least one.
    """
    said = verdict(held.values()).capitalize()
    where = [name for name, here in held.items() if here]
    return f"{said} ({', '.join(where)})" if 0 < len(where) < len(held) else said


def verdict_counted(held: Sequence[bool]) -> str:
    """Say as Markdown whether a claim holds, and in how many data sets.

    Parameters
    ----------
    held
        Of every data set, at least one.
    """
    return f"**{verdict(held)}** ({sum(held)} of {len(held)} data sets)"


def p_cell(value: float | None) -> str:
    """Write a p-value for a table; nothing where there is none."""
    if value is None or np.isnan(value):
        return ""
    return "< .001" if value < 0.001 else bare(f"{value:.3f}")
