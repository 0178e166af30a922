"""Which rankings deserve trust on the data at hand, found out by nested cross-validation.

A ranking that follows the training rows closely, as an L1 path does, chooses masks from the very rows that
score them: on a few hundred rows their score on the folds flatters them by up to .1, and in a search they drive
out masks that are better. Whether such a ranking is worth that is a question about the data. Ranking anew inside
every fold, without its validation rows, answers it honestly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from moevoprune.baselines import rank_bits, top_bits
from moevoprune.baselines.data import MOST_ROWS

if TYPE_CHECKING:
    from moevoprune.search.problem import PruningProblem

__all__ = ["BASE_RANKING", "CANDIDATE_RANKINGS", "nested_scores", "trusted_rankings"]

Values = npt.NDArray[np.float64]

# looks at bits one by one, and flatters itself least
BASE_RANKING = "anova_f"
CANDIDATE_RANKINGS = ("minimum_redundancy", "forward_selection", "l1_path", "recursive_elimination")
_N_SIZES = 6
# rankings differ below a quarter of the bits; beyond, all do about as well
_LARGEST_SHARE = 0.25
_STANDARD_ERRORS = 2.0
# single connections: asking would take longer than it could gain
_MOST_BITS = 20_000
# 1.6 GB of float64, which forward selection works on
_MOST_NUMBERS = 200_000_000


def nested_scores(problem: PruningProblem, rankings: Sequence[str]) -> Values:
    """Score rankings by masks that are chosen without the rows that score them.

    In every fold, bits are ranked by its training rows; heads on the best few to the best quarter of the bits are
    trained on those rows and scored on its validation rows.

    Parameters
    ----------
    problem
        The problem; its test part is not read.
    rankings
        Keys of :data:`moevoprune.baselines.RANKINGS`.

    Returns
    -------
    ndarray, shape (rankings, validation rows of all folds)
        Mean score over the sizes: share of heads that are right about a row, or minus its mean squared error in
        variances of the targets.

    Raises
    ------
    InputError
        A ranking is unknown.
    """
    largest = max(round(_LARGEST_SHARE * problem.n_var), 1)
    sizes = np.unique(np.rint(np.geomspace(min(2, largest), largest, _N_SIZES)).astype(int)).tolist()
    fitness = problem.fitness
    scores = []
    for fold, rows in enumerate(fitness.folds.train):
        data = fitness.ranking_data(rows=rows)
        masks = np.concatenate([top_bits(rank_bits(data, name), sizes) for name in rankings])
        of_rows = fitness.row_scores(masks, fold)
        scores.append(of_rows.reshape(len(rankings), len(sizes), -1).mean(axis=1))
    return np.concatenate(scores, axis=1)


def trusted_rankings(
    problem: PruningProblem, candidates: Sequence[str] = CANDIDATE_RANKINGS, base: str = BASE_RANKING
) -> tuple[str, ...]:
    """Choose the rankings that guide a search: a base, and whatever is clearly better on these data.

    A candidate is trusted where its nested score is better than the base's by two standard errors of the
    difference over the rows.

    Parameters
    ----------
    problem
        The problem; its test part is not read.
    candidates
        Rankings that have to show it. They are not asked above 20,000 bits, or where the rows that are ranked by
        hold more than 200 million numbers.
    base
        The ranking that is always among them.

    Returns
    -------
    tuple of str
        The best first.

    Raises
    ------
    InputError
        A ranking is unknown.
    """
    others = [name for name in candidates if name != base]
    n_ranked_by = min(len(problem.fitness.folds.train[0]), MOST_ROWS)
    if not others or problem.n_var > _MOST_BITS or n_ranked_by * problem.n_var > _MOST_NUMBERS:
        return (base,)
    scores = nested_scores(problem, [base, *others])
    differences = scores[1:] - scores[0]
    gains = differences.mean(axis=1)
    # a row that is split off again with every repeat is no further row
    n_rows = len(np.unique(np.concatenate(problem.fitness.folds.validation)))
    errors = differences.std(axis=1) / np.sqrt(n_rows)
    needed = _STANDARD_ERRORS * errors
    better = [(gain, name) for gain, least, name in zip(gains, needed, others, strict=True) if gain > least]
    return (*(name for _, name in sorted(better, key=lambda pair: -pair[0])), base)
