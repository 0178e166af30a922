"""Single heads read off the fronts of several seeds, and such heads beside one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError
from moevoprune.fronts.front import Front
from moevoprune.fronts.predictions import check_present
from moevoprune.fronts.statistics import Interval, NonInferiority, bootstrap_interval, holm, no_worse

__all__ = [
    "DENSE",
    "PruningVerdict",
    "Readings",
    "compare_readings",
    "judge_pruning",
    "read_fronts",
    "smallest_at_least",
]

Values = npt.NDArray[np.float64]

DENSE = -1
"""Number of the dense head among the heads of a front."""

_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Readings:
    """Heads of several seeds on the same test rows.

    Attributes
    ----------
    share
        Active bits as a share of all, in [0, 1], shape (seeds,).
    correct
        Which test rows each head classifies right, shape (seeds, test rows).
    """

    share: Values
    correct: npt.NDArray[np.bool_]

    @property
    def accuracy(self) -> Values:
        """Accuracy on the test rows, shape (seeds,)."""
        accuracy: Values = self.correct.mean(axis=1)
        return accuracy


def smallest_at_least(front: Front, objective: str, level: float) -> int:
    """Member with the fewest active bits among those whose objective is at least a level; the best where none is.

    Two searches can be compared so: whose head is smaller at the same accuracy?

    Parameters
    ----------
    front
        With at least one member.
    objective
        One that is maximised; its values are those on validation rows.
    level
        In the objective's unit. Differences of rounding, below 1e-9, do not count.

    Raises
    ------
    InputError
        The front has no such objective, no members, or the objective is minimised.
    """
    best = front.best(objective)
    if not front.axes[front.objectives.index(objective)].maximise:
        raise InputError(f"{objective} is minimised: at least a level of it is no reading of a front")
    reached = np.flatnonzero(front.column(objective) >= level - _ROUNDING)
    # stable: of equally small ones the first
    return int(reached[np.argsort(front.active[reached], kind="stable")[0]]) if len(reached) else best


def read_fronts(fronts: Sequence[Front], members: Sequence[int]) -> Readings:
    """Read one head off each front.

    Parameters
    ----------
    fronts
        One per seed, of the same test rows, with predictions.
    members
        Number of the head to read off each, -1 for the dense head; not to be chosen by test scores.

    Raises
    ------
    InputError
        There is no front, or not as many members; a front has no predictions or is of a regression; or their test
        rows differ.
    """
    if not fronts or len(fronts) != len(members):
        raise InputError(
            f"{len(members)} members to read off {len(fronts)} fronts: give one for each, at least one"
        )
    share = [
        1.0 if member == DENSE else front.active[member] / front.n_bits
        for front, member in zip(fronts, members, strict=True)
    ]
    return Readings(np.array(share, dtype=np.float64), _correct(fronts, members))


def compare_readings(
    a: Readings,
    b: Readings,
    margin: float,
    generator: np.random.Generator,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> tuple[NonInferiority, Interval]:
    """Compare the accuracies of heads that are paired by seed.

    Parameters
    ----------
    a, b
        Of the same seeds, in the same order, and test rows.
    margin
        Loss of accuracy that would matter, at least 0.
    generator
        Draws the test rows of the bootstrap.
    resamples
        Of the bootstrap, at least 20.
    confidence
        Between 0 and 1.

    Returns
    -------
    over_seeds
        Whether ``a`` is no less accurate than ``b``, with the seeds as the sample: what other seeds on these test
        rows would give.
    over_rows
        The same difference, with a bootstrap interval over test rows of its mean over the seeds: what these seeds
        would give on other test rows. With few test rows it is the wider one.

    Raises
    ------
    InputError
        Seeds or test rows of the two differ, or a number is out of range.
    """
    if a.correct.shape != b.correct.shape:
        raise InputError(
            f"heads of {a.correct.shape} and {b.correct.shape} seeds and test rows cannot be paired: give the same"
        )
    # with how many seeds more a row is right
    gain = (a.correct.astype(np.float64) - b.correct).mean(axis=0)
    over_rows = bootstrap_interval(
        lambda rows: float(gain[rows].mean()), len(gain), generator, resamples, confidence
    )
    return no_worse(a.accuracy, b.accuracy, margin, confidence), over_rows


@dataclass(frozen=True)
class PruningVerdict:
    """Whether pruned heads are as accurate as others on a data set, and small enough.

    Attributes
    ----------
    share
        Mean share of active bits.
    over_seeds, over_rows
        See :func:`compare_readings`.
    p_value
        Of the test of non-inferiority, corrected over the data sets; None where the seeds have no spread.
    word
        ``"reached"`` where non-inferiority is shown and the share is below the largest; else ``"less accurate"``
        where the two-sided interval over the seeds lies below 0; else ``"too large"`` where the share is not below
        the largest; else ``"not shown"``.
    """

    share: float
    over_seeds: NonInferiority
    over_rows: Interval
    p_value: float | None
    word: str


def judge_pruning(
    pairs: Mapping[str, tuple[Readings, Readings]],
    margin: float,
    largest_share: float,
    alpha: float = 0.05,
    seed: int = 0,
) -> dict[str, PruningVerdict]:
    """Judge by one rule, on several data sets, whether pruned heads are no less accurate than others and smaller.

    Parameters
    ----------
    pairs
        By data set: the pruned heads, and those to measure up to, paired by seed.
    margin
        Loss of accuracy that would matter, at least 0.
    largest_share
        The mean share of active bits is to be below this.
    alpha
        Level of the tests of non-inferiority; their p-values are corrected over the data sets by Holm's method.
    seed
        Of the bootstrap over test rows.

    Raises
    ------
    InputError
        As :func:`compare_readings`.
    """
    compared = [
        compare_readings(pruned, others, margin, np.random.default_rng(seed), confidence=1 - alpha)
        for pruned, others in pairs.values()
    ]
    # without spread over the seeds there is no p-value, and no doubt either
    raw = [float(not seeds.shown) if seeds.p_value is None else seeds.p_value for seeds, _ in compared]
    verdicts = {}
    for (name, (pruned, _)), (seeds, rows), p_value in zip(pairs.items(), compared, holm(raw), strict=True):
        share = float(pruned.share.mean())
        if p_value is not None and p_value <= alpha and share < largest_share:
            word = "reached"
        elif seeds.difference.high < 0:
            word = "less accurate"
        else:
            word = "too large" if share >= largest_share else "not shown"
        verdicts[name] = PruningVerdict(share, seeds, rows, None if seeds.p_value is None else p_value, word)
    return verdicts


def _correct(fronts: Sequence[Front], members: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Which test rows a member of each front, or its dense head, classifies right."""
    predictions = [check_present(front.predictions) for front in fronts]
    first = predictions[0]
    for one in predictions:
        if one.task != "classification":
            raise InputError("rows are right or wrong in classification alone: these are heads of a regression")
        if not np.array_equal(one.test_targets, first.test_targets):
            raise InputError("the fronts have different test rows: give runs of one data set")
    return np.stack(
        [
            one.test_predictions[member] == one.test_targets
            for one, member in zip(predictions, members, strict=True)
        ]
    )
