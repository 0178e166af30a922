"""NSGA-III, SMS-EMOA, AGE-MOEA, SPEA2 and random search: what a search over bits is compared with.

They start and vary masks as plain NSGA-II does, so that they differ in selection alone: the problem's blind
sampling, uniform crossover, bit-flip mutation, a population of 40, no mask in it twice. They are pymoo's, mended
where a front is degenerate (of one point, or constant in an objective), where warnings are switched off for the
whole process, where runs share a memory of ranges, and where random draws do not come from the seed.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
from pymoo.algorithms.base.genetic import GeneticAlgorithm
from pymoo.algorithms.moo.nsga3 import NSGA3, HyperplaneNormalization, ReferenceDirectionSurvival
from pymoo.algorithms.moo.sms import SMSEMOA
from pymoo.algorithms.moo.spea2 import SPEA2, SPEA2Survival
from pymoo.core.duplicate import DefaultDuplicateElimination
from pymoo.core.infill import InfillCriterion
from pymoo.core.population import Population
from pymoo.core.sampling import Sampling
from pymoo.operators.crossover.ux import UniformCrossover
from pymoo.operators.mutation.bitflip import BitflipMutation
from pymoo.operators.selection.tournament import TournamentSelection
from pymoo.util.display.multi import MultiObjectiveOutput
from pymoo.util.optimum import filter_optimum
from pymoo.util.ref_dirs import get_reference_directions
from pymoo.util.reference_direction import get_partition_closest_to_points

from moevoprune.errors import InputError
from moevoprune.search.bit_problem import BitProblem

__all__ = [
    "DEFAULT_POP_SIZE",
    "RandomSearch",
    "age_moea",
    "blind_operators",
    "checked_pop_size",
    "nsga3",
    "random_search",
    "sms_emoa",
    "spea2",
]

Values = npt.NDArray[np.float64]

DEFAULT_POP_SIZE = 40

# a range of losses below which an objective counts as constant
_CONSTANT = 1e-9


def checked_pop_size(pop_size: int | None, default: int = DEFAULT_POP_SIZE) -> int:
    """Population to use: the default for None.

    Raises
    ------
    InputError
        It is too small to evolve.
    """
    if pop_size is None:
        return default
    if pop_size < 2:
        raise InputError(f"a population of {pop_size} cannot evolve: use at least 2 individuals (--pop)")
    return pop_size


def blind_operators(problem: BitProblem) -> dict[str, Any]:
    """Start and variation that know nothing about the bits, as keyword arguments of a pymoo algorithm.

    The problem's :meth:`~moevoprune.search.bit_problem.BitProblem.blind_sampling`, uniform crossover and bit-flip
    mutation.
    """
    return {
        "sampling": problem.blind_sampling(),
        "crossover": UniformCrossover(),
        "mutation": BitflipMutation(),
    }


def nsga3(problem: BitProblem, pop_size: int | None = None) -> NSGA3:
    """Build NSGA-III (Deb & Jain, IEEE TEVC 2014).

    Its reference directions are those of Das and Dennis, with as many partitions as give no more directions than
    individuals: of 40 individuals 40 for two objectives, 36 for three, 35 for four.

    Parameters
    ----------
    problem
        What it will search.
    pop_size
        Individuals per generation, at least 2; default 40.

    Raises
    ------
    InputError
        The population is too small to evolve.
    """
    pop_size = checked_pop_size(pop_size)
    partitions = get_partition_closest_to_points(pop_size, problem.n_obj)
    directions = get_reference_directions("das-dennis", problem.n_obj, n_partitions=partitions)
    survival = ReferenceDirectionSurvival(directions)
    survival.norm = _Normalization(problem.n_obj)
    return NSGA3(
        directions,
        pop_size=pop_size,
        selection=TournamentSelection(func_comp=_less_violation),
        survival=survival,
        **blind_operators(problem),
    )


def sms_emoa(problem: BitProblem, pop_size: int | None = None) -> SMSEMOA:
    """Build SMS-EMOA (Beume, Naujoks & Emmerich, EJOR 2007): survival by contributions to the hypervolume.

    As in pymoo a generation has as many children as individuals, of which those that contribute least are dropped
    one by one; as published it has one child.

    Parameters
    ----------
    problem
        What it will search, with at least two objectives.
    pop_size
        Individuals per generation, at least 2; default 40.

    Raises
    ------
    InputError
        The population is too small to evolve, or there is but one objective.
    """
    if problem.n_obj < 2:
        raise InputError("sms_emoa measures hypervolumes: give a second objective, or use nsga2")
    return SMSEMOA(pop_size=checked_pop_size(pop_size), **blind_operators(problem))


def age_moea(problem: BitProblem, pop_size: int | None = None) -> Any:
    """Build AGE-MOEA (Panichella, GECCO 2019): survival by diversity and proximity in the front's own geometry.

    It needs the package numba, which is in the extra ``age``. As in pymoo, of the last front that fits in part
    those that survive are not chosen by their score, unless that is the first front.

    Parameters
    ----------
    problem
        What it will search.
    pop_size
        Individuals per generation, at least 2; default 40.

    Raises
    ------
    InputError
        The population is too small to evolve, or numba is missing.
    """
    pop_size = checked_pop_size(pop_size)
    try:
        import_module("numba")
    except ImportError:
        raise InputError("age_moea needs numba: pip install 'moevoprune[age]'") from None
    from pymoo.algorithms.moo.age import AGEMOEA

    algorithm = AGEMOEA(pop_size=pop_size, **blind_operators(problem))
    algorithm.survival = _QuietSurvival(algorithm.survival)
    return algorithm


def spea2(problem: BitProblem, pop_size: int | None = None) -> SPEA2:
    """Build SPEA2 (Zitzler, Laumanns & Thiele, 2001), with objectives scaled by the ranges found so far.

    Parameters
    ----------
    problem
        What it will search.
    pop_size
        Individuals per generation, at least 2; default 40.

    Raises
    ------
    InputError
        The population is too small to evolve.
    """
    # pymoo's default survival is one object for all runs of a process, and remembers ranges
    survival = SPEA2Survival(normalize=True)
    survival.norm = _Normalization(problem.n_obj)
    return SPEA2(pop_size=checked_pop_size(pop_size), survival=survival, **blind_operators(problem))


def random_search(problem: BitProblem, pop_size: int | None = None) -> RandomSearch:
    """Build random search: every generation is drawn by the problem's blind sampling.

    Parameters
    ----------
    problem
        What it will search.
    pop_size
        Masks per generation, at least 2; default 40.

    Raises
    ------
    InputError
        There are fewer than 2 masks per generation.
    """
    return RandomSearch(checked_pop_size(pop_size), problem.blind_sampling())


class RandomSearch(GeneticAlgorithm):
    """Draw masks afresh every generation, whatever was found before; a pymoo algorithm.

    What is drawn depends on the seed alone. The population is the generation drawn last; a mask is drawn again
    only where that holds it already.

    Parameters
    ----------
    pop_size
        Masks per generation.
    sampling
        Draws the masks.

    Attributes
    ----------
    opt
        All non-dominated individuals so far.
    """

    pop: Any

    def __init__(self, pop_size: int, sampling: Sampling) -> None:
        duplicates = DefaultDuplicateElimination()
        super().__init__(
            pop_size=pop_size,
            sampling=sampling,
            mating=_FreshMasks(sampling, eliminate_duplicates=duplicates),
            eliminate_duplicates=duplicates,
            output=MultiObjectiveOutput(),
        )
        self.opt: Any = None

    def _advance(self, infills: Any = None, **kwargs: Any) -> None:
        if infills is not None:
            self.pop = infills

    def _set_optimum(self, **kwargs: Any) -> None:
        known = Population.empty() if self.opt is None else self.opt
        self.opt = filter_optimum(Population.merge(known, self.pop), least_infeasible=True)


class _FreshMasks(InfillCriterion):
    """Children that have no parents."""

    def __init__(self, sampling: Sampling, **settings: Any) -> None:
        super().__init__(**settings)
        self.sampling = sampling

    def _do(self, problem: Any, pop: Any, n_offsprings: int, random_state: Any = None, **kwargs: Any) -> Any:
        return self.sampling.do(problem, n_offsprings, random_state=random_state)


class _Normalization(HyperplaneNormalization):
    """pymoo's ranges of the objectives, of which none is empty."""

    ideal_point: Values
    nadir_point: Values

    def update(self, f: Values, nds: Any = None) -> None:
        # inside, pymoo switches all warnings of the process off
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            super().update(f, nds=nds)
        extent = self.nadir_point - self.ideal_point
        self.nadir_point = np.where(extent > _CONSTANT, self.nadir_point, self.ideal_point + 1.0)


class _QuietSurvival:
    """A survival whose divisions by zero on degenerate fronts are not worth a warning, nor is its compilation."""

    def __init__(self, survival: Any) -> None:
        self._survival = survival

    def do(self, *args: Any, **kwargs: Any) -> Any:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return self._survival.do(*args, **kwargs)


def _less_violation(pop: Any, pairs: npt.NDArray[np.int64], random_state: Any, **_: Any) -> npt.NDArray[np.int64]:
    """Of each pair the one that violates less; of equals one at random, which pymoo's own draws without a seed."""
    violation = pop.get("CV").ravel()[pairs].astype(np.float64)
    by_chance = random_state.integers(2, size=len(pairs))
    winner = np.where(violation[:, 0] == violation[:, 1], by_chance, violation.argmin(axis=1))
    winners: npt.NDArray[np.int64] = np.take_along_axis(pairs, winner[:, None], axis=1)
    return winners
