"""Hypervolumes of fronts that searches with different fitness have found, by scores that are the same for all."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from common import Bits

from moevoprune import HeadSettings, PruningProblem
from moevoprune.features import FeatureSet
from moevoprune.features.folds import fresh_seed
from moevoprune.fronts.evolve import score_on_test
from moevoprune.search.archive import hypervolume

SEEN, ANEW, TEST = "as the search saw it", "folds drawn anew", "test rows"
SCORINGS = (SEEN, ANEW, TEST)

Values = npt.NDArray[np.float64]


def plane(problem: PruningProblem, masks: Bits, accuracy: Values) -> Values:
    """Errors and shares of active bits, shape (masks, 2)."""
    return np.column_stack([1.0 - accuracy, problem.encoding.count_active(masks) / problem.n_var])


class Judge:
    """Scores the masks of any search with one and the same head.

    Parameters
    ----------
    data
        What was searched on.
    head
        The head that all masks are retrained with.
    seed
        Seed of the searches: the judge's folds and start weights are others.
    """

    def __init__(self, data: FeatureSet, head: HeadSettings, seed: int) -> None:
        self._problem = PruningProblem(
            data, objectives=["accuracy", "active_neurons"], head=head, seed=fresh_seed(seed, 1), device="cpu"
        )
        self._test: dict[bytes, float] = {}

    def volumes(self, masks: Bits, accuracy: Values) -> dict[str, float]:
        """Hypervolume of (error, share of active bits) up to (1, 1).

        By the accuracy that the search saw, by that of the judge's heads on folds drawn anew, and by that of the
        judge's heads on the test rows after retraining on all training rows.
        """
        scores = {SEEN: accuracy, ANEW: self._problem.values(masks)[:, 0], TEST: self._on_test(masks)}
        return {
            name: hypervolume(plane(self._problem, masks, score), np.ones(2)) for name, score in scores.items()
        }

    def _on_test(self, masks: Bits) -> Values:
        unknown = [mask for mask in masks if mask.tobytes() not in self._test]
        if unknown:
            scores = score_on_test(self._problem, np.array(unknown))
            self._test.update((mask.tobytes(), float(score)) for mask, score in zip(unknown, scores, strict=True))
        return np.array([self._test[mask.tobytes()] for mask in masks])
