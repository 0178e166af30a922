"""Survival for masks: non-dominated sorting, with crowding that suits objectives and sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pymoo.operators.survival.rank_and_crowding import RankAndCrowding
from pymoo.operators.survival.rank_and_crowding.metrics import CrowdingDiversity, get_crowding_function

from moevoprune.search.bit_problem import BitProblem

__all__ = ["LogSizeCrowding", "crowding_measure", "survival_for"]

Values = npt.NDArray[np.float64]


class LogSizeCrowding(CrowdingDiversity):
    """A pymoo crowding measure, with the active fraction on a log scale.

    As a share of 1,280 bits, masks of 1 and of 12 bits lie within .01 of each other, and NSGA-II's crowding would
    thin out what is the most interesting end of the front. Dominance does not change.

    Parameters
    ----------
    column
        Column of the objectives that holds the fraction of active bits.
    n_bits
        Length of a mask.
    measure
        pymoo's crowding measure: ``"cd"`` for two objectives, ``"mnn"`` (Kukkonen & Deb 2006) for more.
    """

    def __init__(self, column: int, n_bits: int, measure: str) -> None:
        super().__init__()
        self.column = column
        self.n_bits = n_bits
        self._measure = get_crowding_function(measure)

    def _do(self, f: Values, n_remove: Any = None) -> Values:
        scaled = f.copy()
        scaled[:, self.column] = np.log(np.maximum(f[:, self.column] * self.n_bits, 0.5))
        crowding: Values = self._measure.do(scaled, n_remove=n_remove)
        return crowding


def crowding_measure(problem: BitProblem) -> str:
    """Name of pymoo's crowding measure for so many objectives: ``"cd"`` for two, ``"mnn"`` from three on."""
    return "mnn" if problem.n_obj > 2 else "cd"


def survival_for(problem: BitProblem) -> Any:
    """Rank and crowding suited to a problem's objectives.

    From three objectives on the distance to the nearest neighbours ("mnn") replaces NSGA-II's crowding distance,
    which is unsuited there. Sizes are spread on a log scale where the problem's ``size_objective`` is among the
    objectives and its ``log_sizes`` asks for it.
    """
    measure = crowding_measure(problem)
    column = problem.column(problem.size_objective)
    if column is not None and problem.log_sizes:
        return RankAndCrowding(crowding_func=LogSizeCrowding(column, problem.n_var, measure))
    return RankAndCrowding(crowding_func=measure)
