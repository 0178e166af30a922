"""From a problem to a front: search, retrain the members, score them once on the test part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from moevoprune.features import FeatureSet
from moevoprune.features.folds import training_targets
from moevoprune.fronts.front import Axis, Front
from moevoprune.fronts.ood_scoring import OodTest
from moevoprune.fronts.predictions import Predictions
from moevoprune.heads.head import TrainedHead
from moevoprune.objectives import r2_score
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
    """Turn the outcome of a search into a front: retrain its members, and score them once on the test part.

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
    tested = [_tested(head, features) for head in (*heads, dense_head)]
    *scores, dense_score = (score for score, _ in tested)
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
        predictions=_predictions(problem, np.concatenate([masks, dense]), [answers for _, answers in tested]),
    )


def _predictions(problem: PruningProblem, masks: Bits, tested: Sequence[npt.NDArray[Any]]) -> Predictions:
    """What heads predict for validation rows, beside their answers for the test rows."""
    features, fitness = problem.features, problem.fitness
    rows = np.concatenate(fitness.folds.validation)[fitness.predicted]
    validation = np.empty((len(masks), len(rows), features.n_outputs), dtype=np.float32)
    for entry, outputs in zip(validation, fitness.predict_validation(masks), strict=True):
        entry[:] = outputs
    targets = training_targets(features)[rows]
    return Predictions(features.task, rows, targets, validation, features.y_test, np.stack(tested))


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
    scores = {key: _tested(head, features)[0] for key, head in zip(different, heads, strict=True)}
    return np.array([scores[key] for key in keys], dtype=np.float64)


def _tested(head: TrainedHead, features: FeatureSet) -> tuple[float, npt.NDArray[Any]]:
    """Accuracy or R² of a head on the test rows, and its answers: labels, -1 where it diverged, or targets.

    Where an output is not finite the score is :data:`DIVERGED_TEST_SCORE`.
    """
    outputs = head.outputs(features.X_test)
    finite = np.isfinite(outputs)
    if features.task == "classification":
        labels = np.where(finite.all(axis=1), outputs.argmax(axis=1), -1).astype(np.int32)
        score = float(np.mean(labels == features.y_test)) if finite.all() else DIVERGED_TEST_SCORE[features.task]
        return score, labels
    if not finite.all():
        return DIVERGED_TEST_SCORE[features.task], outputs
    r2 = r2_score(torch.from_numpy(outputs), torch.from_numpy(np.array(features.y_test))).item()
    return max(r2, DIVERGED_TEST_SCORE[features.task]), outputs
