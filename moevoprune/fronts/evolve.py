"""From a problem to a front: search, retrain the members, score them once on the test part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moevoprune.features import FeatureSet
from moevoprune.features.folds import training_part
from moevoprune.fronts.front import Axis, Front
from moevoprune.fronts.ood_test import OodTest
from moevoprune.fronts.predictions import Predictions, evenly
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
# numbers of outputs for validation rows, 128 MB
_MOST_PREDICTED = 2**25

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

    In classification with out-of-distribution rows, the front's further test measures are ``ood_auroc`` and
    ``ood_fpr95``: area under the ROC curve and false positive rate at 95 % of the OoD rows found, of the retrained
    head, between the test rows and the OoD rows held back for the test (see
    :func:`moevoprune.features.ood.ood_parts`). The score is that of the first ``ood_auroc`` objective, without one
    the temperature-scaled softmax; further objectives' scores follow as ``ood_auroc:SCORE`` and
    ``ood_fpr95:SCORE``. A head whose outputs are not finite has 0 and 1.

    Parameters
    ----------
    problem
        The problem that was searched.
    result
        What the search found.
    """
    features = problem.features
    dense = problem.encoding.dense()[None]
    masks = result.masks.reshape(-1, problem.n_var)
    *heads, dense_head = problem.fitness.train_final(np.concatenate([masks, dense]))
    (dense_values, _), *_ = problem.fitness.evaluate(dense)
    outputs = [head.outputs(features.X_test) for head in (*heads, dense_head)]
    *scores, dense_score = (_test_score(of_head, features) for of_head in outputs)
    ood = OodTest.of(problem)
    return Front(
        axes=tuple(Axis(objective.name, objective.maximise) for objective in problem.objectives),
        encoding=problem.encoding.name,
        masks=masks,
        active=problem.encoding.count_active(result.masks),
        values=result.values,
        F=result.losses,
        ideal=result.ideal,
        corner=result.corner,
        heads=tuple(heads),
        test_metric=problem.quality,
        test=np.array(scores),
        dense_values=dense_values,
        dense_test=dense_score,
        dense_head=dense_head,
        history={
            key: np.array([getattr(generation, key) for generation in result.history], dtype=np.float64)
            for key in _HISTORY
        },
        class_names=features.class_names,
        test_columns={} if ood is None else ood.columns(heads),
        dense_test_columns={}
        if ood is None
        else {name: float(column[0]) for name, column in ood.columns([dense_head]).items()},
        predictions=_predictions(problem, np.concatenate([masks, dense]), outputs),
    )


def _predictions(problem: PruningProblem, masks: Bits, test_outputs: Sequence[npt.NDArray[Any]]) -> Predictions:
    """What heads predict for validation rows, and for the test rows."""
    features, folds = problem.features, problem.fitness.folds
    rows = np.concatenate(folds.validation)
    _, targets = training_part(features)
    # rising rows are the same for every seed of the folds, so that fronts can be merged
    order = np.argsort(rows, kind="stable")
    most = max(_MOST_PREDICTED // (len(masks) * features.n_outputs), 1)
    order = order[evenly(len(order), most)]
    validation = np.empty((len(masks), len(order), features.n_outputs), dtype=np.float32)
    for entry, outputs in zip(validation, problem.fitness.predict_validation(masks), strict=True):
        entry[:] = outputs[order]
    if features.task == "classification":
        tested = np.stack([np.where(np.isfinite(o).all(axis=1), o.argmax(axis=1), -1) for o in test_outputs])
        tested = tested.astype(np.int16 if features.n_outputs < 2**15 else np.int32)
    else:
        tested = np.stack(test_outputs)
    return Predictions(features.task, rows[order], targets[rows[order]], validation, features.y_test, tested)


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
    features = problem.features
    scores = {
        key: _test_score(head.outputs(features.X_test), features)
        for key, head in zip(different, heads, strict=True)
    }
    return np.array([scores[key] for key in keys], dtype=np.float64)


def _test_score(outputs: npt.NDArray[np.floating], features: FeatureSet) -> float:
    """Accuracy or R² of outputs for the test rows; :data:`DIVERGED_TEST_SCORE` where they are not finite."""
    if not np.isfinite(outputs).all():
        return DIVERGED_TEST_SCORE[features.task]
    if features.task == "classification":
        return float(np.mean(outputs.argmax(axis=1) == features.y_test))
    from sklearn.metrics import r2_score

    return max(float(r2_score(features.y_test, outputs)), DIVERGED_TEST_SCORE["regression"])
