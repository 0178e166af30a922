"""Methods beside one another on the same data, folds, trainer and test rows: how each is run and scored."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from moevoprune.baselines import BASELINES, GradualMagnitude, default_sizes, make_baseline
from moevoprune.errors import InputError, nearest
from moevoprune.fronts.evolve import score_on_test
from moevoprune.fronts.front import Front
from moevoprune.search.archive import hypervolume
from moevoprune.search.loop import run_search
from moevoprune.search.problem import PruningProblem

__all__ = [
    "COLUMNS",
    "DEFAULT_METHODS",
    "METHODS",
    "QUALITY",
    "SEARCHES",
    "MethodResult",
    "Standing",
    "check_methods",
    "curve",
    "picked",
    "run_method",
    "score",
    "standing",
    "validation_hypervolume",
]

Bits = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

SEARCHES = ("guided", "reference", "nsga2")
METHODS = (*SEARCHES, "dense", *BASELINES)
DEFAULT_METHODS = tuple(method for method in METHODS if method != "nsga2")

PERCENTAGES = (2, 5, 10, 25)
QUALITY = (
    "test_hypervolume",
    "test_hypervolume_log",
    "best_test_accuracy",
    *(f"accuracy_at_{percent}" for percent in PERCENTAGES),
)
COLUMNS = ("data", "method", "seed", *QUALITY, "trainings", "seconds")

# fast, and they search nothing: for the one line at the end of a run
_QUICK_BASELINES = ("anova", "l1_path", "recursive_elimination", "weight_magnitude")


@dataclass(frozen=True, eq=False)
class MethodResult:
    """What one method found on one data set with one seed.

    Attributes
    ----------
    data, method, seed
        What was run.
    n_bits
        Length of a mask.
    active
        Active bits of each member, shape (members,).
    validation
        Accuracy or R² of each member on the folds of the training part, shape (members,).
    test
        The same of the member's head, retrained on the whole training part, on the test rows, shape (members,).
    trainings
        Heads trained: one per mask and fold, one per member on the whole training part, those by which a search
        chooses its rankings, the dense head beside a search's front, and what a baseline itself trains: the dense
        head where its ranking looks at that, and one per size for gradual pruning. Not counted are the dense heads
        that the rankings inside a search look at, where bits are about units or connections.
    seconds
        Wall time of the method, without the loading of the data.
    """

    data: str
    method: str
    seed: int
    n_bits: int
    active: Counts
    validation: Values
    test: Values
    trainings: int
    seconds: float

    def to_json(self) -> str:
        """Plain values as JSON text; :meth:`from_json` gives exactly the same numbers back."""
        plain = {
            "data": self.data,
            "method": self.method,
            "seed": self.seed,
            "n_bits": self.n_bits,
            "active": self.active.tolist(),
            "validation": self.validation.tolist(),
            "test": self.test.tolist(),
            "trainings": self.trainings,
            "seconds": self.seconds,
        }
        return json.dumps(plain, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> MethodResult:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        InputError
            It is something else, or damaged.
        """
        try:
            raw = json.loads(text)
            result = cls(
                data=raw["data"],
                method=raw["method"],
                seed=raw["seed"],
                n_bits=raw["n_bits"],
                active=np.array(raw["active"], dtype=np.int64),
                validation=np.array(raw["validation"], dtype=np.float64),
                test=np.array(raw["test"], dtype=np.float64),
                trainings=raw["trainings"],
                seconds=float(raw["seconds"]),
            )
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            raise InputError("is not the result of a method, or damaged") from None
        if not result._fits_together():
            raise InputError("holds a result whose parts do not fit together: it is damaged")
        return result

    def _fits_together(self) -> bool:
        n = self.active.shape
        return (
            isinstance(self.data, str)
            and self.method in METHODS
            and all(type(number) is int and number >= 0 for number in (self.seed, self.n_bits, self.trainings))
            and len(n) == 1
            and self.validation.shape == self.test.shape == n
            and bool(((self.active >= 0) & (self.active <= self.n_bits)).all())
            and bool(np.isfinite(self.validation).all() and np.isfinite(self.test).all())
            and math.isfinite(self.seconds)
        )


def check_methods(names: Sequence[str]) -> tuple[str, ...]:
    """Put names of methods into their fixed order, each once.

    Raises
    ------
    InputError
        There is none, or one is unknown.
    """
    for name in names:
        if name not in METHODS:
            raise InputError(f"unknown method {name!r}{nearest(name, METHODS)}: use some of {', '.join(METHODS)}")
    if not names:
        raise InputError(f"no method to compare: use some of {', '.join(METHODS)}")
    return tuple(method for method in METHODS if method in names)


def run_method(
    problem: PruningProblem, method: str, seed: int, budget: int, sizes: Sequence[int] | None = None
) -> MethodResult:
    """Run one method on a problem.

    Parameters
    ----------
    problem
        What to prune; a fresh one, as what it remembers would cost nothing any more.
    method
        One of :data:`METHODS`.
    seed
        Seed of a search; that of everything else is the problem's.
    budget
        Evaluations of a search, at least 1; baselines have their own cost.
    sizes
        Active bits of each mask of a baseline; None for the default sizes within the problem's bounds.

    Raises
    ------
    InputError
        The method is unknown, a size is out of range, or the problem has neither accuracy nor R² among its
        objectives.
    KeyboardInterrupt
        The search was stopped by Ctrl-C: what it had found is no result to compare.
    """
    check_methods([method])
    column = _quality_column(problem)
    started, before = time.perf_counter(), problem.fitness.n_heads
    own_trainings = 0
    if method in SEARCHES:
        result = run_search(problem, algorithm=method, budget=budget, seed=seed)
        if result.interrupted:
            raise KeyboardInterrupt
        masks = result.masks.reshape(-1, problem.n_var)
    elif method == "dense":
        masks = problem.encoding.dense()[None]
    else:
        masks, own_trainings = _baseline_masks(problem, method, _sizes(problem) if sizes is None else sizes)
    validation, test = problem.values(masks)[:, column], score_on_test(problem, masks)
    seconds = time.perf_counter() - started
    return MethodResult(
        data=problem.features.name,
        method=method,
        seed=seed,
        n_bits=problem.n_var,
        active=problem.encoding.count_active(masks).astype(np.int64),
        validation=np.array(validation, dtype=np.float64),
        test=np.array(test, dtype=np.float64),
        trainings=problem.fitness.n_heads - before + own_trainings,
        seconds=seconds,
    )


def _baseline_masks(problem: PruningProblem, name: str, sizes: Sequence[int]) -> tuple[Bits, int]:
    """Masks of some sizes, and how many heads the baseline trained besides those it scored."""
    data, baseline = problem.ranking_data(), make_baseline(name)
    masks = baseline.masks(data, sizes)
    # best fixed asks for no sizes
    masks = masks[(problem.violations(masks) <= 0).all(axis=1)]
    # the dense head is trained when a ranking first looks at it
    trained = int("dense_stack" in vars(data)) + (len(sizes) if isinstance(baseline, GradualMagnitude) else 0)
    return masks, trained


def _sizes(problem: PruningProblem) -> list[int]:
    """Sizes to ask baselines for, within the problem's bounds."""
    return default_sizes(problem.n_var, problem.min_active, problem.max_active)


def _quality_column(problem: PruningProblem) -> int:
    column = problem.column(problem.quality)
    if column is None:
        names = ", ".join(objective.name for objective in problem.objectives)
        raise InputError(
            f"methods are compared by {problem.quality}, which is not among the objectives ({names}): add it"
        )
    return column


def score(result: MethodResult) -> dict[str, Any]:
    """Sum a result up in one row.

    Returns
    -------
    dict
        Keys as :data:`COLUMNS`. An accuracy is None where no member is small enough to have it. R² counts as
        accuracy, or 0 where it is negative.
    """
    accuracy = _accuracy(result.test)
    row: dict[str, Any] = {
        "data": result.data,
        "method": result.method,
        "seed": result.seed,
        "test_hypervolume": _volume(accuracy, _share(result)),
        "test_hypervolume_log": _volume(accuracy, _log_share(result)),
        "best_test_accuracy": _best(accuracy),
    }
    for percent in PERCENTAGES:
        row[f"accuracy_at_{percent}"] = _best(accuracy[_at_most(result, percent)])
    return {**row, "trainings": result.trainings, "seconds": result.seconds}


def validation_hypervolume(result: MethodResult) -> float:
    """Hypervolume of the members' (validation error, share of active bits) up to (1, 1)."""
    return _volume(_accuracy(result.validation), _share(result))


def picked(result: MethodResult, share: float) -> tuple[float, float] | None:
    """What somebody gets who chooses without the test rows.

    Parameters
    ----------
    result
        What to choose from.
    share
        Active bits of the member, at most, as a share of all; in [0, 1].

    Returns
    -------
    validation, test
        Accuracies of the member with the best validation accuracy among those so small; of equals that with the
        fewest active bits. None where no member is so small.
    """
    small = np.flatnonzero(_at_most(result, 100 * share))
    if not len(small):
        return None
    validation, test = _accuracy(result.validation), _accuracy(result.test)
    first = small[np.lexsort((result.active[small], -validation[small]))[0]]
    return float(validation[first]), float(test[first])


def curve(result: MethodResult, sizes: npt.NDArray[np.int64]) -> Values:
    """Best test accuracy among the members with at most so many active bits; NaN where there is none.

    Parameters
    ----------
    result
        Whose members.
    sizes
        Numbers of bits, shape (n,).

    Returns
    -------
    ndarray, shape (n,)
    """
    order = np.argsort(result.active, kind="stable")
    best = np.concatenate([[np.nan], np.maximum.accumulate(_accuracy(result.test)[order])])
    chosen: Values = best[np.searchsorted(result.active[order], sizes, side="right")]
    return chosen


def _accuracy(scores: Values) -> Values:
    # R² has no lower end, and an accuracy is never below 0
    clipped: Values = np.maximum(scores, 0.0)
    return clipped


def _share(result: MethodResult) -> Values:
    share: Values = result.active / result.n_bits
    return share


def _log_share(result: MethodResult) -> Values:
    if result.n_bits == 1:
        return np.ones(len(result.active))
    share: Values = np.log(np.maximum(result.active, 1)) / math.log(result.n_bits)
    return share


def _volume(accuracy: Values, share: Values) -> float:
    return hypervolume(np.column_stack([1.0 - accuracy, share]), np.ones(2))


def _best(accuracy: Values) -> float | None:
    return float(accuracy.max()) if len(accuracy) else None


def _at_most(result: MethodResult, percent: float) -> Bits:
    # 5 % of 20 bits is 1 bit, whatever rounding makes of it
    small: Bits = 100 * result.active <= percent * result.n_bits + 1e-9 * result.n_bits
    return small


@dataclass(frozen=True)
class Standing:
    """How a front stands against the best of a few baselines; its text is one line.

    Attributes
    ----------
    baselines
        Those tried.
    best
        The one with the largest test hypervolume.
    front, baseline
        Test hypervolume of the front and of that baseline, each also with the active bits on a log scale.
    """

    baselines: tuple[str, ...]
    best: str
    front: tuple[float, float]
    baseline: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        keys = ("test_hypervolume", "test_hypervolume_log")
        return {
            "tried": list(self.baselines),
            "best": self.best,
            "front": dict(zip(keys, self.front, strict=True)),
            "baseline": dict(zip(keys, self.baseline, strict=True)),
        }

    def __str__(self) -> str:
        ours, theirs = ([f"{v:.3f}".removeprefix("0") for v in pair] for pair in (self.front, self.baseline))
        return (
            f"against the best of {len(self.baselines)} baselines ({self.best}): test hypervolume {ours[0]} vs "
            f"{theirs[0]} (active bits on a log scale: {ours[1]} vs {theirs[1]})"
        )


def standing(front: Front, problem: PruningProblem) -> Standing:
    """Set a front beside the best of four quick rankings, at their default sizes and on the test rows.

    Parameters
    ----------
    front
        A front of this problem.
    problem
        What was searched.
    """
    data, sizes = problem.ranking_data(), _sizes(problem)
    masks = [make_baseline(name).masks(data, sizes) for name in _QUICK_BASELINES]
    # in one go, as rankings often agree on a mask
    tests = np.split(score_on_test(problem, np.concatenate(masks)), len(masks))
    volumes = {
        name: _test_volumes(problem.n_var, np.array(sizes), test)
        for name, test in zip(_QUICK_BASELINES, tests, strict=True)
    }
    best = max(volumes, key=lambda name: volumes[name][0])
    return Standing(_QUICK_BASELINES, best, _test_volumes(front.n_bits, front.active, front.test), volumes[best])


def _test_volumes(n_bits: int, active: Counts, test: Values) -> tuple[float, float]:
    row = score(MethodResult("", "", 0, n_bits, active, test, test, 0, 0.0))
    return row["test_hypervolume"], row["test_hypervolume_log"]
