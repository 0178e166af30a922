"""From a problem to a front: search, retrain the members, score them once on the test part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moevoprune.features import FeatureSet
from moevoprune.fronts.front import Axis, Front
from moevoprune.heads.head import TrainedHead
from moevoprune.search.algorithms import DEFAULT_ALGORITHM
from moevoprune.search.fitness import pack
from moevoprune.search.loop import (
    Generation,
    SearchResult,
    run_search,
)
from moevoprune.search.problem import PruningProblem

__all__ = ["declare_front", "evolve", "score_on_test"]

Bits = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]

# of a head whose outputs are not finite, as the objectives score it
DIVERGED_TEST_SCORE = {"classification": 0.0, "regression": -1e3}

# what a repeated or resumed run has in common with the first; times are not
_HISTORY = ("number", "evaluations", "cache_hits", "archive_size", "hypervolume", "best", "smallest_close")


def evolve(
    problem: PruningProblem,
    pop_size: int | None = None,
    n_gen: int | None = None,
    budget: int | None = None,
    algorithm: Any = DEFAULT_ALGORITHM,
    seed: int = 0,
    journal: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[Generation], None] | None = None,
) -> Front:
    """Evolve a Pareto front of masked heads.

    Parameters
    ----------
    problem
        What to search.
    pop_size, n_gen, budget, algorithm, seed, journal, resume, progress
        As in :func:`moevoprune.search.loop.run_search`.

    Returns
    -------
    Front
        All non-dominated heads ever evaluated, retrained on the whole training part and, once, scored on the
        test part. After Ctrl-C: those found so far.

    Raises
    ------
    InputError
        An argument cannot be used.

    Examples
    --------
    >>> problem = PruningProblem("digits", objectives=["accuracy", "active_neurons"], seed=1)
    >>> front = evolve(problem, pop_size=4, n_gen=2, seed=1)
    >>> front.objectives
    ('accuracy', 'active_neurons')
    """
    return declare_front(
        problem, run_search(problem, pop_size, n_gen, budget, algorithm, seed, journal, resume, progress)
    )


def declare_front(problem: PruningProblem, result: SearchResult) -> Front:
    """Turn the outcome of a search into a front; this module is the only place that reads the test part.

    Parameters
    ----------
    problem
        The problem that was searched.
    result
        What the search found.
    """
    features = problem.features
    dense = problem.encoding.dense()[None]
    *heads, dense_head = problem.fitness.train_final(
        np.concatenate([result.masks.reshape(-1, problem.n_var), dense])
    )
    (dense_values, _), *_ = problem.fitness.evaluate(dense)
    return Front(
        axes=tuple(Axis(objective.name, objective.maximise) for objective in problem.objectives),
        encoding=problem.encoding.name,
        masks=result.masks.reshape(-1, problem.n_var),
        active=problem.encoding.count_active(result.masks),
        values=result.values,
        F=result.losses,
        ideal=result.ideal,
        corner=result.corner,
        heads=tuple(heads),
        test_metric=problem.quality,
        test=np.array([_test_score(head, features) for head in heads]),
        dense_values=dense_values,
        dense_test=_test_score(dense_head, features),
        dense_head=dense_head,
        history={
            key: np.array([getattr(generation, key) for generation in result.history], dtype=np.float64)
            for key in _HISTORY
        },
        class_names=features.class_names,
    )


def score_on_test(problem: PruningProblem, masks: Bits) -> Values:
    """Retrain masks on the whole training part and score them, once, on the test part.

    Parameters
    ----------
    problem
        The problem that the masks belong to.
    masks
        Shape (n, n_bits); a mask that is there several times is trained once.

    Returns
    -------
    ndarray, shape (n,)
        Accuracy or R² on the test rows.
    """
    keys = pack(masks)
    different = {key: row for row, key in enumerate(keys)}
    heads = problem.fitness.train_final(masks[list(different.values())])
    scores = {key: _test_score(head, problem.features) for key, head in zip(different, heads, strict=True)}
    return np.array([scores[key] for key in keys], dtype=np.float64)


def _test_score(head: TrainedHead, features: FeatureSet) -> float:
    """Accuracy or R² of a head on the test rows; :data:`DIVERGED_TEST_SCORE` where its outputs are not finite."""
    outputs = head.outputs(features.X_test)
    if not np.isfinite(outputs).all():
        return DIVERGED_TEST_SCORE[features.task]
    if features.task == "classification":
        return float(np.mean(outputs.argmax(axis=1) == features.y_test))
    from sklearn.metrics import r2_score

    return max(float(r2_score(features.y_test, outputs)), DIVERGED_TEST_SCORE["regression"])
