"""The published search and this package's own on the same data: settings, and the fronts that their runs found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moevoprune.cli.sweeping import SweepRun
from moevoprune.errors import whole_number
from moevoprune.fronts.front import Front
from moevoprune.studies.study import MOST_EVALUATIONS
from moevoprune.studies.unit_volume import AUROC

__all__ = ["BUDGET", "OURS", "PUBLISHED", "SEEDS", "Runs", "grouped", "variants"]

PUBLISHED, OURS = "published", "ours"
# evaluations of a search, and runs of each; ours
BUDGET, SEEDS = 200, 10


@dataclass(frozen=True)
class Runs:
    """The fronts of one search on one data set.

    Attributes
    ----------
    data, variant
        The data set, and the search: ``PUBLISHED`` or ``OURS``.
    fronts
        One per run, in the order of the seeds.
    merged
        All of them as one: the "super Pareto front" of MO-EvoPruneDeepTL (arXiv 2302.10253).
    """

    data: str
    variant: str
    fronts: tuple[Front, ...]
    merged: Front


def variants(budget: int) -> dict[str, dict[str, Any]]:
    """Settings of both searches for accuracy, active neurons and AUROC, at equally many evaluations.

    ``PUBLISHED`` is MO-EvoPruneDeepTL's (NSGA-II with a population of 30 and two offspring per generation),
    ``OURS`` the guided search with its own defaults.

    Parameters
    ----------
    budget
        Evaluations of a run.

    Raises
    ------
    InputError
        The budget is none.
    """
    whole_number("--budget", budget, 1, MOST_EVALUATIONS)
    common = {
        "problem.encoding": "features",
        "problem.objectives": ["accuracy", "active_neurons", AUROC],
        "search.budget": budget,
    }
    return {
        PUBLISHED: {**common, "search.algorithm": "reference"},
        OURS: {**common, "search.algorithm": "guided"},
    }


def grouped(swept: Sequence[SweepRun]) -> list[Runs]:
    """Load the fronts of a sweep, and merge those of each data set and search.

    Parameters
    ----------
    swept
        Finished runs of :func:`variants`, those of a data set and search in the order of the seeds.
    """
    keys = dict.fromkeys((run.name, run.variant) for run in swept)
    found = []
    for name, variant in keys:
        fronts = tuple(run.front() for run in swept if (run.name, run.variant) == (name, variant))
        found.append(Runs(name, variant, fronts, Front.merge(fronts)))
    return found
