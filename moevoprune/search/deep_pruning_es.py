"""DeepPruningES (arXiv 1912.11527): an evolution strategy that starts from the whole network."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pymoo.algorithms.base.genetic import GeneticAlgorithm
from pymoo.core.duplicate import DefaultDuplicateElimination
from pymoo.core.infill import InfillCriterion
from pymoo.core.population import Population
from pymoo.core.sampling import Sampling
from pymoo.operators.mutation.bitflip import BitflipMutation
from pymoo.util.display.multi import MultiObjectiveOutput

from moevoprune.errors import InputError
from moevoprune.search.choices import check_columns, three_choices
from moevoprune.search.sampling import DensitySampling

__all__ = ["PUBLISHED_FLIP", "PUBLISHED_GENERATIONS", "PUBLISHED_POP_SIZE", "DeepPruningES"]

Bits = npt.NDArray[np.bool_]

PUBLISHED_POP_SIZE = 30
PUBLISHED_GENERATIONS = 11
PUBLISHED_FLIP = 0.2

_N_ELITES = 3


class DeepPruningES(GeneticAlgorithm):
    """The evolution strategy of DeepPruningES, as a pymoo algorithm for bits and two or more objectives.

    Of a generation three individuals are kept: boundary heavy (least error), knee and boundary light (least cost),
    see :func:`moevoprune.search.choices.three_choices`. The others of the next one are mutants of these, each of
    a parent drawn anew, with every bit flipped with the same probability; nothing is recombined. The three are not
    evaluated again.

    Population, generations, flip probability, the three elites and the start from all ones are published. Ours is
    what exactly the start is (all ones, and mutants of it in which each bit is 0 with the flip probability); that
    one individual that is several of the three is kept once and is drawn as a parent as often as it is chosen;
    that a mutant which the generation holds already is drawn again; and that infeasible individuals are elites
    only where there is no feasible one with finite losses: then the three with the least violation are.

    Since every bit flips with the same probability, masks drift from all ones towards half density, and from there
    nowhere in particular. That is the published behaviour.

    Parameters
    ----------
    pop_size
        Individuals per generation, at least 4: three elites and their mutants. As many are evaluated at the start,
        and three fewer in every further generation.
    flip
        Chance of each bit to flip, in (0, 1].
    cost_column
        Objective that is the computational cost.
    quality_column
        Objective that is the error.
    sampling
        Another start population: a pymoo sampling, or masks of shape (n, n_var).
    **settings
        Of pymoo's GeneticAlgorithm; without a ``termination`` it ends after 11 generations.

    Attributes
    ----------
    elites
        Boundary heavy, knee and boundary light of what was evaluated last and the elites before; None before the
        first generation. (Where nothing is feasible: up to three, the least violation first.)

    Raises
    ------
    InputError
        A number is out of range; what does not suit the problem is found by ``setup``.

    Examples
    --------
    >>> from pymoo.optimize import minimize
    >>> result = minimize(problem, DeepPruningES(), seed=1)  # doctest: +SKIP
    >>> heavy, knee, light = result.algorithm.elites  # doctest: +SKIP
    """

    pop: Any

    def __init__(
        self,
        pop_size: int = PUBLISHED_POP_SIZE,
        flip: float = PUBLISHED_FLIP,
        cost_column: int = 1,
        quality_column: int = 0,
        sampling: Sampling | Bits | None = None,
        **settings: Any,
    ) -> None:
        if pop_size <= _N_ELITES:
            raise InputError(
                f"a population of {pop_size} leaves no room for mutants beside {_N_ELITES} elites: use at least "
                f"{_N_ELITES + 1} individuals (--pop)"
            )
        if not 0 < flip <= 1:
            raise InputError(f"flip = {flip!r}: use a probability above 0 and up to 1")
        duplicates = DefaultDuplicateElimination()
        super().__init__(
            pop_size=pop_size,
            n_offsprings=pop_size - _N_ELITES,
            sampling=_OnesAndMutants(flip) if sampling is None else sampling,
            mating=_EliteMutants(flip, repair=settings.get("repair"), eliminate_duplicates=duplicates),
            eliminate_duplicates=duplicates,
            **{
                "termination": ("n_gen", PUBLISHED_GENERATIONS),
                "output": MultiObjectiveOutput(),
                **settings,
            },
        )
        self.cost_column = cost_column
        self.quality_column = quality_column
        self.elites: Any = None

    def _setup(self, problem: Any, **kwargs: Any) -> None:
        check_columns(problem.n_obj, self.cost_column, self.quality_column)

    def _initialize_advance(self, infills: Any = None, **kwargs: Any) -> None:
        self.elites = self.pop[self._chosen()]

    def _advance(self, infills: Any = None, **kwargs: Any) -> None:
        if infills is None:
            return
        kept = self.pop[list(dict.fromkeys(self._chosen()))]
        self.pop = Population.merge(kept, infills)
        self.elites = self.pop[self._chosen()]

    def _chosen(self) -> list[int]:
        """Numbers of the elites in the population."""
        losses = self.pop.get("F").astype(np.float64)
        usable = np.flatnonzero(self.pop.get("FEAS").ravel() & np.isfinite(losses).all(axis=1))
        if len(usable) == 0:
            violation = self.pop.get("CV").ravel().astype(np.float64)
            return [int(row) for row in np.argsort(violation, kind="stable")[:_N_ELITES]]
        return [
            int(row) for row in usable[list(three_choices(losses[usable], self.cost_column, self.quality_column))]
        ]


class _OnesAndMutants(DensitySampling):
    """All ones, and masks in which each bit is 0 with the flip probability."""

    def __init__(self, flip: float) -> None:
        super().__init__("uniform", densities=(1.0 - flip, 1.0 - flip))

    def _do(self, *args: Any, **kwargs: Any) -> Bits:
        masks = super()._do(*args, **kwargs)
        masks[0] = True
        return masks


class _EliteMutants(InfillCriterion):
    """Mutants of elites drawn at random; pymoo draws those again that the population holds already."""

    def __init__(self, flip: float, **settings: Any) -> None:
        super().__init__(**settings)
        self.mutation = BitflipMutation(prob=1.0, prob_var=flip)

    def _do(self, problem: Any, pop: Any, n_offsprings: int, random_state: Any = None, **kwargs: Any) -> Any:
        elites = kwargs["algorithm"].elites.get("X").astype(np.bool_)
        parents = random_state.integers(len(elites), size=n_offsprings)
        return self.mutation.do(problem, Population.new(X=elites[parents]), random_state=random_state)
