"""How important single bits look before any search, judged by the training part alone."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

from moevoprune.features.folds import training_part
from moevoprune.search.problem import PruningProblem

__all__ = ["anova_scores"]

# enough for a ranking, and little memory for a million rows
_MOST_ROWS = 20_000


def anova_scores(problem: PruningProblem) -> npt.NDArray[np.float64] | None:
    """Rank bits by the ANOVA F statistic of the feature that they let in.

    Parameters
    ----------
    problem
        The problem; its test part is not read. For regression the F statistic of a linear fit is taken, the
        largest over the targets.

    Returns
    -------
    ndarray, shape (n_var,), or None
        Rank share of each bit in [0, 1], .5 for bits that are about units alone; None where no bit is about a
        feature.
    """
    from scipy.stats import rankdata
    from sklearn.feature_selection import f_classif, f_regression

    feature = problem.encoding.feature_of_bit()
    if (feature < 0).all():
        return None
    rows, targets = training_part(problem.features)
    if len(rows) > _MOST_ROWS:
        chosen = np.random.default_rng(0).permutation(len(rows))[:_MOST_ROWS]
        rows, targets = rows[chosen], targets[chosen]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # constant features: their statistic is not a number, which is dealt with below
        warnings.simplefilter("ignore")
        if problem.features.task == "classification":
            statistics = f_classif(rows, targets)[0]
        else:
            statistics = np.max([f_regression(rows, column)[0] for column in targets.T], axis=0)
    ranks = rankdata(np.nan_to_num(statistics, nan=0.0)) / len(statistics)
    return np.where(feature >= 0, ranks[feature], 0.5)
