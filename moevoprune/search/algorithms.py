"""The search that runs when no pymoo algorithm is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError
from moevoprune.search.problem import PruningProblem
from moevoprune.search.sampling import DensitySampling

__all__ = ["nsga2"]


def nsga2(pop_size: int, problem: PruningProblem, scores: npt.NDArray[np.float64] | None = None) -> Any:
    """NSGA-II with a start population of all sizes on a log scale, uniform crossover and bit-flip mutation.

    Only the start is guided: with scores, its masks are drawn by score tournaments.

    Parameters
    ----------
    pop_size
        Individuals per generation, at least 2.
    problem
        What it will search: the start population keeps to its bounds on the number of active bits. From three
        objectives on, survival breaks ties by the distance to the nearest neighbours in objective space ("mnn",
        Kukkonen & Deb 2006) instead of the crowding distance, which is unsuited there.
    scores
        Importance of the bits, shape (n_var,), e.g. from :func:`moevoprune.search.scores.anova_scores`.

    Raises
    ------
    InputError
        The population is too small to evolve.
    """
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.operators.crossover.ux import UniformCrossover
    from pymoo.operators.mutation.bitflip import BitflipMutation
    from pymoo.operators.survival.rank_and_crowding import RankAndCrowding

    if pop_size < 2:
        raise InputError(f"a population of {pop_size} cannot evolve: use at least 2 individuals (--pop)")
    return NSGA2(
        pop_size=pop_size,
        sampling=DensitySampling("log", low=max(problem.min_active, 1), high=problem.max_active, scores=scores),
        crossover=UniformCrossover(),
        mutation=BitflipMutation(),
        survival=RankAndCrowding(crowding_func="mnn" if problem.n_obj > 2 else "cd"),
    )
