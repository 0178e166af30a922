"""How well two searches find accuracy, few active neurons and out-of-distribution detection at once.

The measures are those of MO-EvoPruneDeepTL (arXiv 2302.10253), whose figures for LEAVES stand beside ours.
Members are chosen by validation rows; test rows score them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from moevoprune.fronts.front import Values
from moevoprune.fronts.statistics import interval, no_worse
from moevoprune.fronts.tables import markdown_table
from moevoprune.studies.saying import number, paired_table, shown_higher, verdict_where
from moevoprune.studies.two_searches import OURS, PUBLISHED, Runs
from moevoprune.studies.unit_volume import AUROC, Part, member_scores, unit_hypervolume

__all__ = ["best_table", "claims", "paired_tables", "rows_of", "volume_table"]

# a loss of accuracy that would matter, fixed before anything was run; the papers say "under 60 % of the neurons"
MARGIN, MOST_ACTIVE = 0.02, 0.6
# LEAVES, merged front of 10 runs, on the test rows that chose its members, ResNet-50
THEIR_MEMBERS, THEIR_VOLUME, THEIR_BEST = 74, 0.850, ".941@.328/.904"

_VOLUMES: dict[str, Callable[[Runs], list[float]]] = {
    "Hypervolume, validation": lambda runs: _volumes(runs, "validation"),
    "Hypervolume, test": lambda runs: _volumes(runs, "test"),
}
_MEASURES: dict[str, Callable[[Runs], list[float]]] = {
    **_VOLUMES,
    "Test accuracy of the most accurate member": lambda runs: _of_best(runs, "test")[:, 0].tolist(),
    "Its test AUROC": lambda runs: _of_best(runs, "test")[:, 2].tolist(),
}


def rows_of(runs: Runs, seeds: Iterable[int]) -> list[dict[str, Any]]:
    """Lines of the CSV file: one per run, and one of the merged front.

    Parameters
    ----------
    runs
        Of one search on one data set.
    seeds
        Of its runs, in their order.

    Returns
    -------
    list of dict
        Members, hypervolumes, what the most accurate member by validation scores, and what the dense head does.
    """
    lines = []
    for seed, front in zip([*seeds, "merged"], [*runs.fronts, runs.merged], strict=True):
        best = front.best("accuracy")
        line: dict[str, Any] = {"data": runs.data, "search": runs.variant, "seed": seed, "members": len(front)}
        parts: tuple[Part, ...] = ("validation", "test")
        for part in parts:
            line[f"hypervolume_{part}"] = unit_hypervolume(front, part)
            names = f"best_accuracy_{part}", "best_active", f"best_auroc_{part}"
            line.update(zip(names, member_scores(front, part)[best].tolist(), strict=True))
        line.update(dense_accuracy_test=front.dense_test, dense_auroc_test=front.dense_test_columns[AUROC])
        lines.append(line)
    return lines


def volume_table(all_runs: Sequence[Runs]) -> str:
    """Markdown: hypervolumes of single runs, mean [95 % interval], and of merged fronts.

    Parameters
    ----------
    all_runs
        Of each data set and search; where one is about leaves, the published figures stand below.
    """
    table = [["", "search", "members", "validation", "test", "merged: members", "validation", "test"]]
    for runs in all_runs:
        table.append(
            [
                runs.data,
                runs.variant,
                f"{np.mean([len(front) for front in runs.fronts]):.0f}",
                interval(_volumes(runs, "validation")).text(),
                interval(_volumes(runs, "test")).text(),
                str(len(runs.merged)),
                number(unit_hypervolume(runs.merged, "validation")),
                number(unit_hypervolume(runs.merged, "test")),
            ]
        )
    if any(_is_leaves(runs) for runs in all_runs):
        table.append(["LEAVES, the paper", "", "", "", "", str(THEIR_MEMBERS), "", number(THEIR_VOLUME)])
    return "\n".join(markdown_table(table))


def best_table(all_runs: Sequence[Runs]) -> str:
    """Markdown: the most accurate member by validation, of the runs and of the merged front.

    Each cell is accuracy @ share of active neurons / AUROC, the form of the paper.

    Parameters
    ----------
    all_runs
        As of :func:`volume_table`.
    """
    heads = ["mean of the runs, test", "merged, validation", "merged, test", "dense head, test"]
    table = [["", "search", *heads]]
    for runs in all_runs:
        best, merged = runs.merged.best("accuracy"), runs.merged
        table.append(
            [
                runs.data,
                runs.variant,
                _text_of(_of_best(runs, "test").mean(axis=0)),
                _text_of(member_scores(merged, "validation")[best]),
                _text_of(member_scores(merged, "test")[best]),
                _text_of([merged.dense_test, 1.0, merged.dense_test_columns[AUROC]]),
            ]
        )
    if any(_is_leaves(runs) for runs in all_runs):
        table.append(["LEAVES, the paper", "", "", "", THEIR_BEST, ""])
    return "\n".join(markdown_table(table))


def paired_tables(all_runs: Sequence[Runs]) -> str:
    """Markdown: a table per measure, our search against the published one, paired by seed.

    Parameters
    ----------
    all_runs
        Of each data set, both searches with the same seeds.
    """
    return "\n\n".join(
        f"{name}:\n\n{paired_table(_values_of_both(all_runs, measure), OURS, PUBLISHED)}"
        for name, measure in _MEASURES.items()
    )


def claims(all_runs: Sequence[Runs]) -> str:
    """Markdown: a sentence per claim, by rules that were fixed beforehand and are stated in it.

    Parameters
    ----------
    all_runs
        As of :func:`paired_tables`.
    """
    return "\n".join(
        [
            *(_small_and_accurate(all_runs, variant) for variant in (PUBLISHED, OURS)),
            _ours_is_larger(all_runs),
            *(_reaches_the_published(runs) for runs in all_runs if _is_leaves(runs)),
        ]
    )


def _small_and_accurate(all_runs: Sequence[Runs], variant: str) -> str:
    """The claim that a search loses no accuracy with a part of the neurons."""
    held = {}
    for runs in all_runs:
        if runs.variant == variant:
            accuracy, active, _ = _of_best(runs, "test").T
            dense = [front.dense_test for front in runs.fronts]
            held[runs.data] = bool(active.mean() < MOST_ACTIVE) and no_worse(accuracy, dense, MARGIN).shown
    return (
        "* The most accurate member is no less accurate than the dense head (paired test accuracies of the "
        f"runs, non-inferior by a margin of {number(MARGIN, 2)} at one-sided 95 %), with under "
        f"{100 * MOST_ACTIVE:.0f} % of the neurons on average; search: {variant}. **{verdict_where(held)}**"
    )


def _ours_is_larger(all_runs: Sequence[Runs]) -> str:
    """The claim that our search's fronts have the larger hypervolume."""
    shown = [shown_higher(_values_of_both(all_runs, measure)) for measure in _VOLUMES.values()]
    better = {data: all(of[data] for of in shown) for data in shown[0]}
    return (
        "* Our search finds fronts of a larger hypervolume at the same number of evaluations (on validation and "
        f"on test rows, p < .05 after Holm's correction). **{verdict_where(better)}**"
    )


def _reaches_the_published(runs: Runs) -> str:
    """The claim that a merged front has the published hypervolume."""
    here = unit_hypervolume(runs.merged, "test")
    said = verdict_where({runs.data: here >= THEIR_VOLUME})
    return (
        f"* The merged front reaches the hypervolume published for LEAVES, {number(THEIR_VOLUME)}: it has "
        f"{number(here)}; search: {runs.variant}. **{said}**, as far as other images, another backbone, other "
        "out-of-distribution rows and a choice without test rows can be compared"
    )


def _values_of_both(
    all_runs: Sequence[Runs], measure: Callable[[Runs], list[float]]
) -> dict[str, tuple[list[float], list[float]]]:
    """By data set: a measure of our search and of the published one, run by run."""
    found = {(runs.data, runs.variant): measure(runs) for runs in all_runs}
    names = dict.fromkeys(runs.data for runs in all_runs)
    return {name: (found[name, OURS], found[name, PUBLISHED]) for name in names}


def _volumes(runs: Runs, part: Part) -> list[float]:
    """Hypervolume of each run."""
    return [unit_hypervolume(front, part) for front in runs.fronts]


def _of_best(runs: Runs, part: Part) -> Values:
    """Accuracy, active share and AUROC of each run's most accurate member by validation, shape (runs, 3)."""
    return np.array([member_scores(front, part)[front.best("accuracy")] for front in runs.fronts])


def _is_leaves(runs: Runs) -> bool:
    """Whether the data are about what the paper's LEAVES are about."""
    return runs.data.casefold().startswith("leaves")


def _text_of(scores: Sequence[float] | Values) -> str:
    """Accuracy, active share and AUROC in the form of the paper."""
    accuracy, active, auroc = (number(value) for value in scores)
    return f"{accuracy}@{active}/{auroc}"
