"""Heads evolved in several encodings, by a single-objective search and as fronts, and their baselines.

EvoPruneDeepTL (arXiv 2202.03844) compares these heads. They are chosen by validation rows; test rows score them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moevoprune.cli.sweeping import SweepRun
from moevoprune.fronts.comparison import MethodResult
from moevoprune.fronts.front import Front
from moevoprune.studies.readings import DENSE, Readings, read_fronts, smallest_at_least
from moevoprune.studies.run_baselines import WantedBaseline, run_baselines

__all__ = [
    "BASELINES",
    "BaselineResults",
    "Cell",
    "Cells",
    "baselines_at_winners_size",
    "cell_rows",
    "read_cells",
    "variant_name",
]

Values = npt.NDArray[np.float64]

BASELINES = {
    "weight_magnitude": "weight pruning",
    "gradual_magnitude": "polynomial decay",
    "neuron_norm": "neuron pruning",
    "best_fixed": "best fixed",
}
"""Titles of the paper's comparators, by their names in :data:`moevoprune.baselines.BASELINES`."""

_MEASURED = ("active_share", "validation_accuracy", "test_accuracy")

BaselineResults = Mapping[tuple[Path, str], MethodResult]
"""By the folder of the run and the baseline's title."""


@dataclass(frozen=True, eq=False)
class Cell:
    """An encoding on a data set.

    Attributes
    ----------
    seeds
        Of the runs, in the order of all that follows.
    heads
        Heads of all seeds by what they are: "dense"; "evolved", the GA's winner; and of the front "best", and the
        smallest that is as accurate as the evolved ("same") or the dense one ("as dense") on validation rows; the
        best, where there is none.
    validation
        Their validation accuracies.
    baselines
        Share of active bits, validation and test accuracy of all seeds, shape (3, seeds), by the baseline's title.
    """

    seeds: tuple[int, ...]
    heads: Mapping[str, Readings]
    validation: Mapping[str, Sequence[float]]
    baselines: Mapping[str, Values]

    @property
    def reached(self) -> int:
        """Seeds whose front has a head as accurate as the evolved one on validation rows."""
        pairs = zip(self.validation["best"], self.validation["evolved"], strict=True)
        return sum(best >= evolved for best, evolved in pairs)


Cells = Mapping[str, Mapping[str, Cell]]
"""By data set and encoding; all data sets have the same encodings."""


def variant_name(search: str, encoding: str) -> str:
    """Name the runs of a search ("ga" or "guided") in an encoding, as their folders go."""
    return f"{search}-{encoding.replace(' ', '_')}"


def baselines_at_winners_size(
    runs: Sequence[SweepRun], jobs: int | None = None, say: Callable[[str], None] | None = None
) -> BaselineResults:
    """Carry out the baselines at the sizes of the winners of the GA's runs.

    Parameters
    ----------
    runs
        Named by :func:`variant_name`; those of other searches are passed over.
    jobs, say
        As of :func:`moevoprune.studies.run_baselines.run_baselines`.

    Raises
    ------
    InputError
        As of the same.
    """
    wanted = []
    for run in runs:
        if run.variant.startswith(variant_name("ga", "")):
            front = run.front()
            size = int(front.active[front.best("accuracy")])
            wanted += [WantedBaseline(run, method, size) for method in BASELINES]
    results = run_baselines(wanted, jobs, say)
    return {(one.run.out, BASELINES[one.method]): result for one, result in zip(wanted, results, strict=True)}


def read_cells(runs: Sequence[SweepRun], encodings: Iterable[str], results: BaselineResults) -> Cells:
    """Choose heads by validation rows, on every data set and in every encoding, and score them.

    Parameters
    ----------
    runs
        Of both searches ("ga" and "guided"), named by :func:`variant_name`; with the same seeds in the same order.
    encodings
        Their titles.
    results
        Of :func:`baselines_at_winners_size`.

    Raises
    ------
    InputError
        A front has no predictions or no members, or data sets of one name have different test rows.
    """
    titles = tuple(encodings)
    return {
        name: {title: _read_cell([run for run in runs if run.name == name], title, results) for title in titles}
        for name in dict.fromkeys(run.name for run in runs)
    }


def _read_cell(runs: Sequence[SweepRun], encoding: str, results: BaselineResults) -> Cell:
    ga_runs = [run for run in runs if run.variant == variant_name("ga", encoding)]
    ga = [run.front() for run in ga_runs]
    guided = [run.front() for run in runs if run.variant == variant_name("guided", encoding)]
    winners, best = ([front.best("accuracy") for front in fronts] for fronts in (ga, guided))
    no_mask = [DENSE] * len(ga)
    chosen = {
        "dense": (ga, no_mask),
        "evolved": (ga, winners),
        "same": (guided, _smallest(guided, _accuracies(ga, winners))),
        "best": (guided, best),
        "as dense": (guided, _smallest(guided, _accuracies(ga, no_mask))),
    }
    baselines = {}
    for title in BASELINES.values():
        of_seeds = [results[run.out, title] for run in ga_runs]
        shares = [r.active[0] / r.n_bits for r in of_seeds]
        baselines[title] = np.array([shares, [r.validation[0] for r in of_seeds], [r.test[0] for r in of_seeds]])
    return Cell(
        tuple(run.seed for run in ga_runs),
        {what: read_fronts(*those) for what, those in chosen.items()},
        {what: _accuracies(*those) for what, those in chosen.items()},
        baselines,
    )


def _smallest(fronts: Sequence[Front], levels: Sequence[float]) -> list[int]:
    return [smallest_at_least(front, "accuracy", level) for front, level in zip(fronts, levels, strict=True)]


def _accuracies(fronts: Sequence[Front], members: Sequence[int]) -> list[float]:
    """Validation accuracies of a member of each front."""
    columns = (np.append(f.column("accuracy"), f.dense_values[f.objectives.index("accuracy")]) for f in fronts)
    return [float(column[member]) for column, member in zip(columns, members, strict=True)]


def cell_rows(cells: Cells) -> list[dict[str, Any]]:
    """Share of active bits, validation and test accuracy of every head: a row each, for a CSV file."""
    rows = []
    for name, of in cells.items():
        for encoding, cell in of.items():
            heads = {
                what: np.array([r.share, cell.validation[what], r.accuracy]) for what, r in cell.heads.items()
            }
            for what, columns in {**heads, **cell.baselines}.items():
                for seed, values in zip(cell.seeds, columns.T, strict=True):
                    row = {"data": name, "encoding": encoding, "seed": seed, "head": what}
                    rows.append({**row, **dict(zip(_MEASURED, values.tolist(), strict=True))})
    return rows
