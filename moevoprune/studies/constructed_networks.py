"""Constructed networks beside others, over the seeds: rows, pairs and the table of all methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from moevoprune.construction.comparison import METHODS
from moevoprune.construction.records import BEST_SCORING
from moevoprune.fronts.statistics import interval
from moevoprune.fronts.tables import markdown_table
from moevoprune.studies.constructed_networks_runs import Records

__all__ = ["UNITS", "comparison_rows", "methods_table", "score_pairs"]

UNITS = {"accuracy": "accuracy", "r2": "R²"}
"""Names of the metrics: what they are called."""

_WORDS = {**METHODS, BEST_SCORING: "as constructed and retrained, with the best-scoring threshold"}


def comparison_rows(records: Records, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """One row per data set, seed and method.

    Parameters
    ----------
    records
        Of all data sets.
    seeds
        Those of the records, in their order.
    """
    return [
        {
            "data": name,
            "seed": seed,
            "method": score.method,
            "units": "-".join(map(str, score.widths)),
            "parameters": score.parameters,
            "gone": record.gone(score.method),
            "metric": record.metric,
            "test": score.test,
            "epsilon": record.epsilon,
            "best_epsilon": record.best_epsilon,
        }
        for name, of in records.items()
        for seed, record in zip(seeds, of, strict=True)
        for score in record.scores
    ]


def methods_table(records: Records) -> str:
    """Markdown: one row per data set and method, with 95 % intervals over the seeds."""
    table = [["data", "method", "units", "parameters gone, % [95 % interval]", "score", "test [95 % interval]"]]
    for name, seeds in records.items():
        for method in sorted(seeds[0].methods, key=list(_WORDS).index):
            units = np.mean([record[method].widths for record in seeds], axis=0)
            gone = interval([100 * record.gone(method) for record in seeds])
            test = interval([record[method].test for record in seeds])
            gone_text = "0" if method == "large" else gone.text(1)
            cells = ["-".join(f"{width:.0f}" for width in units), gone_text, UNITS[seeds[0].metric], test.text()]
            table.append([name, _WORDS[method], *cells])
    return "\n".join(markdown_table(table))


def score_pairs(records: Records, first: str, second: str) -> dict[str, tuple[list[float], list[float]]]:
    """Test scores of two methods by data set, in the order of the seeds.

    Parameters
    ----------
    records
        Of all data sets.
    first, second
        Methods that all records have: keys of :data:`~moevoprune.construction.comparison.METHODS`, or
        :data:`~moevoprune.construction.records.BEST_SCORING`.
    """
    return {
        name: ([record[first].test for record in seeds], [record[second].test for record in seeds])
        for name, seeds in records.items()
    }
