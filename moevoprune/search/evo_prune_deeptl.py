"""EvoPruneDeepTL (arXiv 2202.03844): a steady-state genetic algorithm for quality alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pymoo.algorithms.base.genetic import GeneticAlgorithm
from pymoo.core.mutation import Mutation
from pymoo.core.repair import Repair
from pymoo.core.sampling import Sampling
from pymoo.core.selection import Selection
from pymoo.core.survival import Survival
from pymoo.operators.crossover.ux import UniformCrossover
from pymoo.util.display.multi import MultiObjectiveOutput

from moevoprune.errors import InputError, whole_number
from moevoprune.search.sampling import DensitySampling

__all__ = [
    "PUBLISHED_BUDGET",
    "PUBLISHED_CANDIDATES",
    "PUBLISHED_MUTATION",
    "PUBLISHED_OFFSPRING",
    "PUBLISHED_POP_SIZE",
    "EvoPruneDeepTL",
    "NegativeAssortativeMating",
    "OneBitMutation",
    "QualityThenSize",
]

Bits = npt.NDArray[np.bool_]

PUBLISHED_POP_SIZE = 30
PUBLISHED_OFFSPRING = 2
PUBLISHED_CANDIDATES = 3
PUBLISHED_MUTATION = 0.07
PUBLISHED_BUDGET = 200


class EvoPruneDeepTL(GeneticAlgorithm):
    """The steady-state genetic algorithm of EvoPruneDeepTL, as a pymoo algorithm for bits.

    It looks at one objective, the quality, and between equals at the number of active bits; further objectives of
    the problem do not steer it. Every step, one pair of parents has two children, which compete with the
    population.

    Population, two offspring per step, negative assortative mating with three candidates by Hamming distance,
    uniform crossover, the mutation of one bit with probability .07, that offspring replace the two worst, that
    ties go to fewer active neurons, the start with densities uniform in (0, 1), and 200 evaluations (300 for both
    layers) are published. Not known, and so ours, is: that the second parent's candidates are three different
    individuals other than the first; that a pair is always crossed and has both children; that "replace" means
    that the best of population and offspring survive, so that a child which is worse than all is dropped; that of
    exact ties the older one stays; and that infeasible individuals come last, by their violation. The published
    fitness is test accuracy; ours never is.

    One thing is described and not copied. In the public code the replacement step can let the same individual
    enter again and again, until the population has collapsed into copies of it. Here a child that the
    population holds already is drawn again before it is evaluated, so that all individuals stay different. (The
    search ends early where 100 draws give no new child.)

    Parameters
    ----------
    pop_size
        Individuals, at least 2.
    quality_column
        Objective that is minimised.
    sampling
        Another start population: a pymoo sampling, or masks of shape (n, n_var).
    **settings
        Of pymoo's GeneticAlgorithm; without a ``termination`` it ends after 200 evaluations.

    Attributes
    ----------
    opt
        A population of one: the winner so far, with the best quality and of equals the fewest active bits.

    Raises
    ------
    InputError
        The population is too small; a column that the problem has not is found by ``setup``.

    Examples
    --------
    >>> from pymoo.optimize import minimize
    >>> result = minimize(problem, EvoPruneDeepTL(), seed=1)  # doctest: +SKIP
    >>> (winner,) = result.opt  # doctest: +SKIP
    """

    pop: Any

    def __init__(
        self,
        pop_size: int = PUBLISHED_POP_SIZE,
        quality_column: int = 0,
        sampling: Sampling | Bits | None = None,
        **settings: Any,
    ) -> None:
        if pop_size < 2:
            raise InputError(f"a population of {pop_size} cannot evolve: use at least 2 individuals (--pop)")
        super().__init__(
            pop_size=pop_size,
            n_offsprings=PUBLISHED_OFFSPRING,
            sampling=DensitySampling("uniform") if sampling is None else sampling,
            selection=NegativeAssortativeMating(),
            crossover=UniformCrossover(prob=1.0),
            mutation=OneBitMutation(),
            survival=QualityThenSize(quality_column),
            repair=_AsEvaluated(),
            advance_after_initial_infill=True,
            **{
                "termination": ("n_eval", PUBLISHED_BUDGET),
                "output": MultiObjectiveOutput(),
                **settings,
            },
        )
        self.quality_column = quality_column

    def _setup(self, problem: Any, **kwargs: Any) -> None:
        whole_number("quality_column", self.quality_column, 0, problem.n_obj - 1)

    def _set_optimum(self, **kwargs: Any) -> None:
        # the survival sorts, best first
        self.opt = self.pop[:1]


class _AsEvaluated(Repair):
    """Masks as the problem evaluates them: two that it takes for the same are the same."""

    def _do(self, problem: Any, x: Bits, **kwargs: Any) -> Any:
        return problem.repair(x.astype(np.bool_, copy=True))


class NegativeAssortativeMating(Selection):
    """Pair parents that are unlike each other.

    The first parent is drawn at random; the second is, of some other random individuals, the one that differs from
    it in most bits (the first drawn of equals).

    Parameters
    ----------
    candidates
        How many are drawn for the second parent, at least 1; fewer where the population has fewer.

    Raises
    ------
    InputError
        There are no candidates.
    """

    def __init__(self, candidates: int = PUBLISHED_CANDIDATES) -> None:
        super().__init__()
        self.candidates = whole_number("candidates", candidates, 1)

    def _do(
        self,
        problem: Any,
        pop: Any,
        n_select: int,
        n_parents: int = 2,
        *args: Any,
        random_state: Any = None,
        **kwargs: Any,
    ) -> npt.NDArray[np.int64]:
        """Choose pairs: rows of the population, shape (n_select, 2)."""
        if n_parents != 2:
            raise InputError(
                f"negative assortative mating pairs two parents, not {n_parents}: use such a crossover"
            )
        masks: Bits = pop.get("X").astype(np.bool_)
        pairs = np.zeros((n_select, 2), dtype=np.int64)
        for pair in pairs:
            first, *others = random_state.permutation(len(masks))[: self.candidates + 1]
            distances = (masks[others] != masks[first]).sum(axis=1)
            # an individual that is alone mates with itself
            pair[:] = first, others[int(distances.argmax())] if others else first
        return pairs


class OneBitMutation(Mutation):
    """Flip one random bit of some individuals.

    Parameters
    ----------
    prob
        Chance of an individual to be mutated, in [0, 1].
    """

    def __init__(self, prob: float = PUBLISHED_MUTATION) -> None:
        super().__init__(prob=prob)

    def _do(self, problem: Any, x: Bits, *args: Any, random_state: Any = None, **kwargs: Any) -> Bits:
        """Flip a bit of every mask, shape (n, n_var); pymoo keeps those that it mutates."""
        masks = x.astype(np.bool_, copy=True)
        masks[np.arange(len(masks)), random_state.integers(masks.shape[1], size=len(masks))] ^= True
        return masks


class QualityThenSize(Survival):
    """The best survive by one objective, of equals those with fewer active bits; sorted, best first.

    Infeasible individuals come after all feasible ones, by their violation.

    Parameters
    ----------
    quality_column
        Objective that is minimised.
    """

    def __init__(self, quality_column: int = 0) -> None:
        super().__init__(filter_infeasible=False)
        self.quality_column = quality_column

    def _do(self, problem: Any, pop: Any, *args: Any, n_survive: int | None = None, **kwargs: Any) -> Any:
        active = problem.count_active(pop.get("X").astype(np.bool_))
        quality = pop.get("F")[:, self.quality_column].astype(np.float64)
        violation = pop.get("CV").ravel().astype(np.float64)
        # stable: of exact ties the older one stays
        order = np.lexsort((active, quality, violation))
        return pop[order[:n_survive]]
