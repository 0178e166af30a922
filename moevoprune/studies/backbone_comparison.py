"""Evolved heads against the dense head on the features of several backbones, and these against one another.

Rows are those of :func:`backbone_row`, with all seeds of every data set and backbone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from moevoprune.cli.sweeping import SweepRun
from moevoprune.fronts.comparison import MethodResult, score
from moevoprune.fronts.statistics import interval
from moevoprune.fronts.tables import markdown_table
from moevoprune.studies.mean_tests import Row, by_data, per_seed
from moevoprune.studies.saying import number, paired_table, shown_higher, shown_lower, verdict

__all__ = ["HOW_JUDGED", "backbone_row", "backbones_of", "backbones_table", "claim_sections", "column"]

HOW_JUDGED = """Rule: a claim holds in a case (data set and backbone) where the mean difference over the seeds is
above 0 with p at most .05 in a paired t-test, corrected over all cases of the table (Holm); in part where that
is so in some cases."""

# of accuracy, fixed before anything was run
_MARGIN = 0.02
_SCORES = {
    "dense_test": "dense head",
    "best_test": "best member",
    "smallest_test": "smallest as good as dense",
    "test_hypervolume": "hypervolume",
    "test_hypervolume_log": "hypervolume, log",
}

_Pairs = dict[str, tuple[list[float], list[float]]]


def backbone_row(run: SweepRun) -> dict[str, Any]:
    """Sum a run up in a row: members picked by validation, as a user would, and how test rows score them.

    Parameters
    ----------
    run
        With accuracy among its objectives; its variant is the backbone.

    Returns
    -------
    dict
        The ``best`` member has the highest validation accuracy; the ``smallest`` is the one of fewest features
        that is as good as the dense head on validation, or the dense head where none is. Hypervolumes are of (test
        error, share of active features), also with the latter on a log scale.

    Raises
    ------
    InputError
        The front has no members, or accuracy is not among its objectives.
    """
    front = run.front()
    validation = front.column("accuracy")
    best = front.best("accuracy")
    as_good = np.flatnonzero(validation >= front.dense_values[front.objectives.index("accuracy")])
    # members rise in size
    smallest = int(as_good[0]) if len(as_good) else None
    tested = score(
        MethodResult(run.name, "guided", run.seed, front.n_bits, front.active, validation, front.test, 0, 0)
    )
    return {
        "data": run.name,
        "backbone": run.variant,
        "features": front.n_bits,
        "seed": run.seed,
        "members": len(front),
        "dense_test": front.dense_test,
        "best_validation": float(validation[best]),
        "best_test": float(front.test[best]),
        "best_active": int(front.active[best]),
        "smallest_active": front.n_bits if smallest is None else int(front.active[smallest]),
        "smallest_test": front.dense_test if smallest is None else float(front.test[smallest]),
        "test_hypervolume": tested["test_hypervolume"],
        "test_hypervolume_log": tested["test_hypervolume_log"],
    }


def backbones_of(rows: Sequence[Row]) -> list[str]:
    """Names of the backbones, in the order of the rows."""
    return list(dict.fromkeys(row["backbone"] for row in rows))


def column(rows: Sequence[Row], data: str, backbone: str, name: str) -> list[float]:
    """Values of one column on a data set and backbone, in the order of the seeds."""
    return per_seed(by_data(rows, backbone=backbone)[data], name)


def backbones_table(rows: Sequence[Row], data: str) -> str:
    """Markdown: a line per backbone of one data set, means over the seeds with intervals."""
    sizes = {"best_active": "features of the best", "smallest_active": "of the smallest"}
    table = [["backbone", "features", "members", *_SCORES.values(), *sizes.values()]]
    for backbone in backbones_of(rows):
        of = {name: column(rows, data, backbone, name) for name in ("features", "members", *_SCORES, *sizes)}
        table.append(
            [
                backbone,
                *(f"{np.mean(of[name]):.0f}" for name in ("features", "members")),
                *(interval(of[name]).text() for name in _SCORES),
                *(interval(of[name]).text(0) for name in sizes),
            ]
        )
    return "\n".join(markdown_table(table))


def claim_sections(rows: Sequence[Row], conclusive: bool = True) -> list[str]:
    """Markdown sections: a table of paired tests per claim, and whether it holds by :data:`HOW_JUDGED`.

    The claims: the best member is more accurate than the dense head; the smallest one that is as good on
    validation loses less than .02; one backbone's best members are more accurate than every other one's, which is
    left out where there is one backbone.

    Parameters
    ----------
    rows
        See above.
    conclusive
        False for a trial, of which it is said that it shows nothing.
    """
    best = "The evolved head that is best on validation is more accurate than the dense head"
    sections = [*_claim(best, _against_dense(rows, "best_test"), "dense", conclusive)]
    margin = number(_MARGIN, 2)
    smallest = f"The smallest one as good as the dense head on validation loses less than {margin} on test"
    less = {
        case: (ours, [value - _MARGIN for value in dense])
        for case, (ours, dense) in _against_dense(rows, "smallest_test").items()
    }
    sections += _claim(smallest, less, f"dense less {margin}", conclusive)
    if len(backbones_of(rows)) > 1:
        first = "The backbone that is best on validation gives more accurate evolved heads than each other one"
        sections += _claim(first, _first_against_others(rows), "other backbone", conclusive)
    return sections


def _claim(said: str, pairs: _Pairs, second: str, conclusive: bool) -> Iterator[str]:
    """Title, tests and verdict of a claim that the first column is above the second."""
    higher, lower = shown_higher(pairs), shown_lower(pairs)
    found = verdict(higher.values()) if conclusive else "nothing can be concluded"
    counts = f"shown in {sum(higher.values())} of {len(pairs)} cases, the opposite in {sum(lower.values())}"
    yield f"### {said}"
    yield paired_table(pairs, "evolved", second)
    yield f"{said}: **{found}** ({counts})."


def _against_dense(rows: Sequence[Row], name: str) -> _Pairs:
    """A column and the dense head's test accuracy, by data set and backbone."""
    return {
        f"{data}, {backbone}": (column(rows, data, backbone, name), column(rows, data, backbone, "dense_test"))
        for data in by_data(rows)
        for backbone in backbones_of(rows)
    }


def _first_against_others(rows: Sequence[Row]) -> _Pairs:
    """Test accuracy of best members on the backbone that is best by validation, and on every other one."""
    backbones = backbones_of(rows)
    pairs: _Pairs = {}
    for data in by_data(rows):
        validation = {of: np.mean(column(rows, data, of, "best_validation")) for of in backbones}
        first = max(backbones, key=lambda backbone: validation[backbone])
        for other in backbones:
            if other != first:
                ours, theirs = (column(rows, data, of, "best_test") for of in (first, other))
                pairs[f"{data}, {first} against {other}"] = ours, theirs
    return pairs
