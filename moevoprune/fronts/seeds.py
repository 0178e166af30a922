"""Fronts of several seeds, or searches, on one problem: what they have in common and how far they spread."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError
from moevoprune.fronts.comparison import MethodResult, score, validation_hypervolume
from moevoprune.fronts.explanation import quality_objective
from moevoprune.fronts.front import Bits, Front, Values
from moevoprune.search.archive import hypervolume, non_dominated

__all__ = [
    "MEASURES",
    "Agreement",
    "Attainment",
    "RunScores",
    "SeedComparison",
    "Spread",
    "attainment",
    "compare_fronts",
    "front_attainment",
    "mask_agreement",
]

Counts = npt.NDArray[np.int64]
_Array = TypeVar("_Array", Bits, Values)

MEASURES = (
    "knee_active",
    "knee_validation",
    "knee_test",
    "validation_hypervolume",
    "test_hypervolume",
    "test_hypervolume_log",
    "hypervolume",
)


@dataclass(frozen=True, eq=False)
class Attainment:
    """Attainment surfaces of several runs in two objectives: number of active bits, and a quality.

    A run attains a quality at a size when it has a member that is as good and no larger. The surfaces are the
    levels of the empirical attainment function, the share of the runs that attain a point (Grunert da Fonseca,
    Fonseca and Hall, EMO 2001).

    Attributes
    ----------
    sizes
        Numbers of active bits at which a surface can have a step, rising, shape (n,).
    surfaces
        Row k: the best quality that at least k + 1 of the runs attain at each size; NaN where fewer attain any.
        Natural direction, shape (runs, n).
    measure
        What the quality is, e.g. ``"accuracy"``.
    part
        The rows it was measured on: ``"validation"`` or ``"test"``.
    maximise
        Whether larger is better.
    dense
        Mean quality of the runs' dense heads; NaN where that is not known.
    encoding
        Name of the encoding, which tells what a bit stands for.
    """

    sizes: Counts
    surfaces: Values
    measure: str
    part: str
    maximise: bool
    dense: float = math.nan
    encoding: str = ""

    @property
    def n_runs(self) -> int:
        """Number of runs."""
        return len(self.surfaces)

    @property
    def best(self) -> Values:
        """What at least one run attains, shape (n,)."""
        return self._row(0)

    @property
    def median(self) -> Values:
        """What at least half of the runs attain, shape (n,)."""
        return self._row((self.n_runs + 1) // 2 - 1)

    @property
    def worst(self) -> Values:
        """What all runs attain, shape (n,)."""
        return self._row(self.n_runs - 1)

    def _row(self, number: int) -> Values:
        row: Values = self.surfaces[number]
        return row


@dataclass(frozen=True)
class Spread:
    """How a number varies over runs.

    Attributes
    ----------
    mean, low, high
        Of the runs.
    deviation
        Sample standard deviation (of n - 1); NaN of a single run.
    """

    mean: float
    deviation: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Sum up at least one value."""
        array = np.asarray(values, dtype=np.float64)
        deviation = float(array.std(ddof=1)) if len(array) > 1 else math.nan
        return cls(float(array.mean()), deviation, float(array.min()), float(array.max()))


@dataclass(frozen=True)
class Agreement:
    """How far the masks of several runs are the same.

    Attributes
    ----------
    knees
        Jaccard index of the active bits of two runs' knees (bits in both over bits in either), mean over all pairs
        of runs; in [0, 1].
    knees_by_chance
        What random masks of the same sizes would have, about.
    frequency
        Spearman's rank correlation of the share of a run's members in which each bit is active, mean over all
        pairs of runs; NaN where in one of the runs every bit is active in equally many members.
    """

    knees: float
    knees_by_chance: float
    frequency: float


@dataclass(frozen=True)
class RunScores:
    """One run beside others.

    Attributes
    ----------
    members
        Members of its front.
    in_merged
        Those among them that no member of any run dominates, and so are members of the merged front.
    knee_active
        Active bits of its knee.
    knee_validation, knee_test
        The quality objective of the knee on the folds, and its test metric on the test rows.
    validation_hypervolume
        Of (validation error, share of active bits) up to (1, 1), as
        :func:`moevoprune.fronts.comparison.validation_hypervolume` has it; None where neither accuracy nor R² is
        an objective.
    test_hypervolume, test_hypervolume_log
        The same of test errors, and with the active bits on a log scale, as
        :func:`moevoprune.fronts.comparison.score` has them.
    hypervolume
        Of all objectives on validation values, as a share of the box that the runs have in common.
    """

    members: int
    in_merged: int
    knee_active: int
    knee_validation: float
    knee_test: float
    validation_hypervolume: float | None
    test_hypervolume: float
    test_hypervolume_log: float
    hypervolume: float


@dataclass(frozen=True, eq=False)
class SeedComparison:
    """Several runs on one problem side by side.

    Attributes
    ----------
    quality
        The objective that tells how good a head is.
    runs
        One entry per run, in the order given.
    merged
        All fronts as one, see :meth:`Front.merge`.
    merged_scores
        The merged front in the same terms.
    attainments
        On validation values and on the test rows.
    agreement
        Of the masks.
    """

    quality: str
    runs: tuple[RunScores, ...]
    merged: Front
    merged_scores: RunScores
    attainments: tuple[Attainment, Attainment]
    agreement: Agreement

    def spread(self, measure: str) -> Spread | None:
        """Spread of one of :data:`MEASURES` over the runs; None where the runs do not have it."""
        values = [getattr(run, measure) for run in self.runs]
        return None if None in values else Spread.of(values)


def compare_fronts(fronts: Sequence[Front]) -> SeedComparison:
    """Set the fronts of several runs side by side.

    Parameters
    ----------
    fronts
        At least two; all with the same encoding, objectives and number of bits, on the same data.

    Raises
    ------
    InputError
        There are fewer than two, one has no members, or they are fronts of different problems.
    """
    if len(fronts) < 2:
        raise InputError(f"a comparison needs the fronts of at least two runs, there are {len(fronts)}")
    for number, front in enumerate(fronts):
        if len(front) == 0:
            raise InputError(f"front {number} has no members, so there is nothing to compare")
    merged = Front.merge(fronts)
    origin = np.repeat(np.arange(len(fronts)), [len(front) for front in fronts])
    kept = origin[non_dominated(np.concatenate([front.F for front in fronts]))]
    shares = np.bincount(kept, minlength=len(fronts)).tolist()
    return SeedComparison(
        quality=quality_objective(merged),
        runs=tuple(_scores(front, count, merged) for front, count in zip(fronts, shares, strict=True)),
        merged=merged,
        merged_scores=_scores(merged, len(merged), merged),
        attainments=front_attainment(fronts),
        agreement=mask_agreement(fronts),
    )


def front_attainment(fronts: Sequence[Front]) -> tuple[Attainment, Attainment]:
    """Attainment surfaces of quality over active bits: on validation values, and on the test rows.

    Parameters
    ----------
    fronts
        At least one, all of the same problem. On validation values the quality is the objective of
        :func:`moevoprune.fronts.explanation.quality_objective`, on the test rows the test metric.

    Raises
    ------
    InputError
        There is none.
    """
    if not fronts:
        raise InputError("there is no front to draw attainment surfaces from: give at least one")
    first = fronts[0]
    quality = quality_objective(first)
    column = first.objectives.index(quality)
    maximise = first.axes[column].maximise
    active, end = [front.active for front in fronts], np.array([first.n_bits])
    on_folds = attainment(active, [front.values[:, column] for front in fronts], maximise, end)
    on_test = attainment(active, [front.test for front in fronts], True, end)
    dense = float(np.mean([front.dense_values[column] for front in fronts]))
    dense_test = float(np.mean([front.dense_test for front in fronts]))
    return (
        Attainment(*on_folds, quality, "validation", maximise, dense, first.encoding),
        Attainment(*on_test, first.test_metric, "test", True, dense_test, first.encoding),
    )


def attainment(
    active: Sequence[Counts], values: Sequence[Values], maximise: bool = True, further: Counts | None = None
) -> tuple[Counts, Values]:
    """Compute what at least 1, 2, ... of several runs attain at each size.

    A point (size, quality) is attained by k runs exactly when k of their staircases, the best quality with at most
    so many bits, are at least that good there. So the surfaces are the order statistics of the staircases.

    Parameters
    ----------
    active
        Per run the active bits of its members, shape (members,).
    values
        Per run their quality, shape (members,). A member whose quality is not finite attains nothing.
    maximise
        Whether larger is better.
    further
        Further sizes to evaluate the surfaces at.

    Returns
    -------
    sizes, surfaces
        As :class:`Attainment` has them.
    """
    sign = 1.0 if maximise else -1.0
    sizes = np.unique(np.concatenate([*active, np.zeros(0, np.int64) if further is None else further]))
    staircases = np.full((len(active), len(sizes)), -np.inf)
    for run, (counts, column) in enumerate(zip(active, values, strict=True)):
        goodness = np.where(np.isfinite(column), sign * column, -np.inf)
        np.maximum.at(staircases[run], np.searchsorted(sizes, counts), goodness)
    staircases = np.maximum.accumulate(staircases, axis=1)
    surfaces = -np.sort(-staircases, axis=0)
    return sizes, np.where(np.isfinite(surfaces), sign * surfaces, np.nan)


def mask_agreement(fronts: Sequence[Front]) -> Agreement:
    """Measure how far runs agree on the bits that matter.

    Parameters
    ----------
    fronts
        At least two, with members and with masks of one length. Bits mean the same in all of them where they stand
        for features; hidden units of runs with different seeds start from different weights.

    Raises
    ------
    InputError
        There are fewer than two.
    """
    if len(fronts) < 2:
        raise InputError(f"agreement is between runs: give at least two, not {len(fronts)}")
    knees = [front.masks[front.knee()] for front in fronts]
    frequencies = [front.masks.mean(axis=0) for front in fronts]
    return Agreement(
        knees=_mean_over_pairs(_jaccard, knees),
        knees_by_chance=_mean_over_pairs(_jaccard_by_chance, knees),
        frequency=_mean_over_pairs(_rank_correlation, frequencies),
    )


def _scores(front: Front, in_merged: int, merged: Front) -> RunScores:
    quality, knee = quality_objective(front), front.knee()
    known = np.isfinite(front.test)
    # the metric of the test decides: only of that objective are validation and test errors of the same kind
    validation = None
    if quality == front.test_metric:
        validation = validation_hypervolume(_as_result(front.active, front.column(quality), front.n_bits))
    on_test = score(_as_result(front.active[known], front.test[known], front.n_bits))
    # one box for all, else the shares could not be compared
    box = float(np.prod(merged.corner - merged.ideal))
    return RunScores(
        members=len(front),
        in_merged=in_merged,
        knee_active=int(front.active[knee]),
        knee_validation=float(front.column(quality)[knee]),
        knee_test=float(front.test[knee]),
        validation_hypervolume=validation,
        test_hypervolume=on_test["test_hypervolume"],
        test_hypervolume_log=on_test["test_hypervolume_log"],
        hypervolume=hypervolume(front.F, merged.corner) / box,
    )


def _as_result(active: Counts, values: Values, n_bits: int) -> MethodResult:
    return MethodResult("", "guided", 0, n_bits, active, values, values, 0, 0.0)


def _jaccard(one: Bits, other: Bits) -> float:
    either = int((one | other).sum())
    return int((one & other).sum()) / either if either else 1.0


def _jaccard_by_chance(one: Bits, other: Bits) -> float:
    a, b = int(one.sum()), int(other.sum())
    both = a * b / len(one)
    return both / (a + b - both) if a + b else 1.0


def _rank_correlation(one: Values, other: Values) -> float:
    from scipy.stats import spearmanr

    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return math.nan
    return float(spearmanr(one, other).statistic)


def _mean_over_pairs(measure: Callable[[_Array, _Array], float], items: Sequence[_Array]) -> float:
    return float(np.mean([measure(one, other) for one, other in itertools.combinations(items, 2)]))
