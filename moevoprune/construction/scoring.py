"""Scores of networks, as means over rows: accuracy, or the coefficient of determination R²."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError
from moevoprune.features import FeatureSet

__all__ = ["metric_of", "row_scores", "score_on_test", "target_variance"]

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]
Values = npt.NDArray[np.float64]

# a network that has diverged is this bad, and no worse: means stay finite
_WORST = -1e6


def metric_of(task: str) -> str:
    """``"accuracy"``, or for regression ``"r2"``."""
    return "accuracy" if task == "classification" else "r2"


def row_scores(outputs: Floats, targets: Array, variance: Values | None) -> Values:
    """What each row adds to the score, whose mean over the rows is the score.

    Parameters
    ----------
    outputs
        Logits, shape (rows, classes), or predicted targets, shape (rows, outputs).
    targets
        Class numbers, shape (rows,), or targets, shape (rows, outputs).
    variance
        Variance of each target over all rows that are scored, shape (outputs,); None for classification.

    Returns
    -------
    ndarray, shape (rows,)
        1 where the class is right, else 0. In regression 1 less the squared error over the variance, averaged over
        the outputs: its mean is the mean of the outputs' R² (scikit-learn's ``uniform_average``).
    """
    if variance is None:
        right: Values = ((outputs.argmax(axis=1) == targets) & np.isfinite(outputs).all(axis=1)).astype(np.float64)
        return right
    errors = (np.asarray(outputs, dtype=np.float64) - np.asarray(targets, dtype=np.float64)) ** 2
    explained: Values = 1.0 - (errors / variance).mean(axis=1)
    return np.maximum(np.nan_to_num(explained, nan=_WORST), _WORST)


def target_variance(features: FeatureSet, targets: Array) -> Values | None:
    """Variance of each target over rows; None for classification.

    Raises
    ------
    InputError
        A target is constant, so that there is no R².
    """
    if features.task == "classification":
        return None
    variance: Values = np.asarray(targets, dtype=np.float64).var(axis=0)
    if not (variance > 0).all():
        raise InputError(
            f"{features.name}: target {int(variance.argmin())} (counted from 0) is constant over the "
            f"{len(targets)} rows to be scored: it has no R²"
        )
    return variance


def score_on_test(outputs: Floats, features: FeatureSet) -> float:
    """Accuracy or R² (mean over the outputs) on the test part.

    Parameters
    ----------
    outputs
        Of the test rows: logits or probabilities, or predicted targets, shape (rows, outputs).
    features
        The data.
    """
    return float(row_scores(outputs, features.y_test, target_variance(features, features.y_test)).mean())
