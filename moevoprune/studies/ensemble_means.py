"""Ensembles of fronts and single heads beside them: tables of means over seeds, and the lines of the CSV file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from moevoprune.fronts.ensemble_tables import EnsembleStudy
from moevoprune.fronts.statistics import interval
from moevoprune.fronts.tables import markdown_table
from moevoprune.studies.saying import number

__all__ = ["ACCURACY", "AUROC", "ensemble_rows", "ways_table", "windows_table"]

# attributes of a window, and what they are called
ACCURACY = {
    "soft": "soft vote",
    "hard": "majority vote",
    "best_by_validation": "member best on validation",
    "best_member": "member best on test",
    "mean_member": "mean of members",
}
AUROC = {
    "ood_auroc": "mean score",
    "ood_best_by_selection": "member best in the search",
    "ood_best_member": "member best on test",
    "ood_mean_member": "mean of members",
}


def ways_table(seeds: Sequence[EnsembleStudy]) -> str:
    """Markdown: one line per ensemble and single head.

    Parameters
    ----------
    seeds
        Of one data set, at least one.
    """
    table = [["", "members", "share of features", "test accuracy", "its best member", "ECE", "OoD AUROC"]]
    for first in seeds[0].ensembles:
        rows = [study.row(first.name, first.voting) for study in seeds]
        table.append(
            [
                first.name if first.voting is None else f"{first.name}, {first.voting}",
                f"{np.mean([row.members for row in rows]):.0f}",
                number(float(np.mean([row.union_fraction for row in rows])), 2),
                _estimate([row.test for row in rows]),
                _estimate([row.best_member_test for row in rows]),
                _estimate([row.ece for row in rows]),
                _estimate([row.ood_auroc for row in rows]),
            ]
        )
    return "\n".join(markdown_table(table))


def windows_table(seeds: Sequence[EnsembleStudy], columns: Mapping[str, str]) -> str:
    """Markdown: one line per window of validation accuracy.

    Parameters
    ----------
    seeds
        Of one data set, at least one.
    columns
        :data:`ACCURACY` or :data:`AUROC`.
    """
    table = [["window", "members", *columns.values()]]
    for windows in zip(*(study.windows for study in seeds), strict=True):
        cells = [_estimate([getattr(window, column) for window in windows]) for column in columns]
        members = f"{np.mean([window.members for window in windows]):.0f}"
        table.append([f"{windows[0].low}\N{EN DASH}{windows[0].high}", members, *cells])
    return "\n".join(markdown_table(table))


def ensemble_rows(data: str, seed: int, study: EnsembleStudy) -> list[dict[str, Any]]:
    """Lines of the CSV file for one run: ensembles and single heads, then windows.

    Parameters
    ----------
    data, seed
        What the run is of.
    study
        Its ensembles.
    """
    run = {"data": data, "seed": seed}
    heads = [
        {
            **run,
            "ensemble": row.name,
            "voting": row.voting,
            "members": row.members,
            "share_of_features": row.union_fraction,
            "test": row.test,
            "best_member_test": row.best_member_test,
            "ece": row.ece,
            "ood_auroc": row.ood_auroc,
            "ood_fpr95": row.ood_fpr95,
        }
        for row in study.ensembles
    ]
    return [*heads, *({**run, "ensemble": "window", **asdict(window)} for window in study.windows)]


def _estimate(values: Sequence[float | None]) -> str:
    """Mean and interval; nothing where a value is missing."""
    known = [value for value in values if value is not None and not np.isnan(value)]
    return interval(known).text() if len(known) == len(values) else ""
