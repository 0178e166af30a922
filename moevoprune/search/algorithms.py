"""The searches that can be asked for by name: guided (the default), the published ones, and standard ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.population import Population
from pymoo.operators.crossover.ux import UniformCrossover
from pymoo.operators.mutation.bitflip import BitflipMutation
from pymoo.operators.survival.rank_and_crowding import RankAndCrowding

from moevoprune.errors import InputError, nearest
from moevoprune.search.archive import knee, non_dominated
from moevoprune.search.bit_problem import BitProblem, Guidance
from moevoprune.search.deep_pruning_es import PUBLISHED_POP_SIZE, DeepPruningES
from moevoprune.search.evo_prune_deeptl import PUBLISHED_POP_SIZE as STEADY_STATE_POP_SIZE
from moevoprune.search.evo_prune_deeptl import EvoPruneDeepTL
from moevoprune.search.problem import PruningProblem
from moevoprune.search.sampling import DensitySampling, MaskSampling
from moevoprune.search.scores import BitScores
from moevoprune.search.standard_searches import (
    DEFAULT_POP_SIZE,
    age_moea,
    blind_operators,
    checked_pop_size,
    nsga3,
    random_search,
    sms_emoa,
    spea2,
)
from moevoprune.search.survival import crowding_measure, survival_for
from moevoprune.search.variation import GuidedMutation, SizeCrossover

__all__ = [
    "ALGORITHMS",
    "DEFAULT_ALGORITHM",
    "DEFAULT_POP_SIZES",
    "GUIDED_PARTS",
    "GuidedNSGA2",
    "checked_parts",
    "deep_pruning_es",
    "evo_prune_deeptl",
    "guided",
    "make_algorithm",
    "nsga2",
    "reference",
]

Bits = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]

DEFAULT_ALGORITHM = "guided"
DEFAULT_POP_SIZES = {
    "guided": DEFAULT_POP_SIZE,
    "nsga2": DEFAULT_POP_SIZE,
    "reference": 30,
    "deep_pruning_es": PUBLISHED_POP_SIZE,
    "evo_prune_deeptl": STEADY_STATE_POP_SIZE,
    "nsga3": DEFAULT_POP_SIZE,
    "sms_emoa": DEFAULT_POP_SIZE,
    "age_moea": DEFAULT_POP_SIZE,
    "spea2": DEFAULT_POP_SIZE,
    "random": DEFAULT_POP_SIZE,
}

# what guided has beyond nsga2
GUIDED_PARTS = ("seeds", "scores", "start", "crossover", "mutation", "survival", "polish")

_SEEDED_SHARE = 0.75
_POLISHED_SHARE = 0.1
# members on either side of the knee that are polished with it
_KNEE_REACH = 2

_PUBLISHED_OFFSPRING = 2


class GuidedNSGA2(NSGA2):
    """NSGA-II that learns scores of bits as it goes, and polishes the knee at the end.

    Learning: every evaluated mask credits its bits (:class:`~moevoprune.search.scores.BitScores`), which the
    mutation asks. Polish: in the last generations the children are the knee's and its neighbours' single-bit
    removals and exchanges. Needs a search that ends after a number of generations or evaluations to know which
    those are; otherwise, and where a search is too short for a generation to lie in its last part, nothing is
    polished.

    Parameters
    ----------
    scores
        What mutation asks and the search teaches.
    size_column
        Column of the objectives that holds the fraction of active bits, which teaches nothing about bits; None
        where there is none.
    polished_share
        Share of the search, at its end, that polishes; in [0, 1).
    **settings
        Of pymoo's NSGA2.
    """

    def __init__(
        self,
        scores: BitScores,
        size_column: int | None = None,
        polished_share: float = _POLISHED_SHARE,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.scores = scores
        self.size_column = size_column
        self.polished_share = polished_share

    def _initialize_advance(self, infills: Any = None, **kwargs: Any) -> None:
        super()._initialize_advance(infills=infills, **kwargs)
        self._learn(infills)

    def _advance(self, infills: Any = None, **kwargs: Any) -> None:
        self._learn(infills)
        super()._advance(infills=infills, **kwargs)

    def _learn(self, infills: Any) -> None:
        if infills is None or len(infills) == 0:
            return
        losses = infills.get("F").astype(np.float64)
        first = 1 if self.size_column == 0 and losses.shape[1] > 1 else 0
        self.scores.learn(infills.get("X").astype(np.bool_), losses[:, first])

    def _infill(self) -> Any:
        if self._share_done() >= 1.0 - self.polished_share:
            polished = self._polish()
            if len(polished) == self.n_offsprings:
                return polished
        return super()._infill()

    def _share_done(self) -> float:
        """Share of generations or evaluations that is spent; 0 where the search ends by something else."""
        generations = getattr(self.termination, "n_max_gen", None)
        evaluations = getattr(self.termination, "n_max_evals", None)
        if generations and np.isfinite(generations):
            return float(self.n_iter / (generations + 1))
        if evaluations and np.isfinite(evaluations):
            return float((self.evaluator.n_eval + self.n_offsprings) / (evaluations + self.n_offsprings))
        return 0.0

    def _polish(self) -> Any:
        """Single-bit removals and exchanges of the knee and its neighbours that the population does not hold."""
        feasible = self.pop.get("FEAS").ravel()
        candidates = self.pop[feasible]
        if len(candidates) == 0:
            return Population.empty()
        losses = candidates.get("F").astype(np.float64)
        kept = non_dominated(losses)
        masks = candidates[kept].get("X").astype(np.bool_)
        order = np.argsort(masks.sum(axis=1), kind="stable")
        centre = int(np.flatnonzero(order == knee(losses[kept]))[0])
        around = order[max(centre - _KNEE_REACH, 0) : centre + _KNEE_REACH + 1]
        known = {mask.tobytes() for mask in self.pop.get("X").astype(np.bool_)}
        low = max(int(getattr(self.problem, "min_active", 1)), 1)
        children: list[Bits] = []
        for _ in range(20 * self.n_offsprings):
            if len(children) == self.n_offsprings:
                break
            child = masks[self.random_state.choice(around)].copy()
            exchange = self.random_state.random() < 0.5
            if not exchange and child.sum() <= low:
                continue
            _flip_one(child, True, self.scores.values, self.random_state)
            if exchange:
                _flip_one(child, False, self.scores.values, self.random_state)
            if child.tobytes() not in known:
                known.add(child.tobytes())
                children.append(child)
        return Population.new(X=np.array(children)) if children else Population.empty()


def _flip_one(mask: Bits, active: bool, scores: Values, rng: np.random.Generator) -> None:
    """Remove a low-scored active bit, or add a high-scored inactive one, by a tournament of two."""
    bits = np.flatnonzero(mask == active)
    if len(bits) == 0:
        return
    drawn = bits[rng.integers(len(bits), size=2)]
    mask[drawn[np.argmin(scores[drawn]) if active else np.argmax(scores[drawn])]] = not active


def guided(
    problem: BitProblem,
    pop_size: int | None = None,
    rankings: Sequence[str] | None = None,
    seeded_share: float = _SEEDED_SHARE,
    learning: float = 0.0,
    polished_share: float = _POLISHED_SHARE,
    leave_out: Sequence[str] = (),
) -> GuidedNSGA2:
    """Build the default search: NSGA-II guided by scores of bits.

    The start population holds the masks that the problem's guidance suggests (for heads the rankings' own, of all
    sizes on a log scale) and masks drawn by score tournaments; one that it would hold twice is dropped.
    :class:`~moevoprune.search.variation.SizeCrossover` and
    :class:`~moevoprune.search.variation.GuidedMutation` vary them,
    :func:`~moevoprune.search.survival.survival_for` selects, and the knee is polished at the end.

    Parameters
    ----------
    problem
        What it will search; the bits are scored here, by its training part
        (:meth:`~moevoprune.search.bit_problem.BitProblem.guidance`). Its bounds on active bits are kept.
    pop_size
        Individuals per generation, at least 2; default 40.
    rankings
        For heads, keys of :data:`moevoprune.baselines.RANKINGS`, best first, combined by rank; None for what the
        problem trusts.
    seeded_share
        Share of the start population that are the guidance's masks, in [0, 1].
    learning
        Weight of what is learned during the run, see :class:`~moevoprune.search.scores.BitScores`.
    polished_share
        Share of the search that polishes the knee, in [0, 1).
    leave_out
        Parts to do without, of :data:`GUIDED_PARTS`, to find out what they are worth; each gives way to what
        :func:`nsga2` has, which is what remains without all of them:

        - ``"seeds"``: no mask of the start is the guidance's own;
        - ``"scores"``: mutation and polish take all bits for equal, and the start's other masks are drawn blindly;
        - ``"start"``: the whole start is drawn blindly;
        - ``"crossover"``: uniform crossover;
        - ``"mutation"``: bit-flip mutation;
        - ``"survival"``: crowding by the problem's own sizes, not their logarithm;
        - ``"polish"``: the last generations are like the others.

    Raises
    ------
    InputError
        The population is too small, a share is out of range, a ranking or part is unknown, or there is nothing
        that could guide.
    """
    without = checked_parts(leave_out)
    pop_size = _checked("guided", pop_size)
    if not 0 <= seeded_share <= 1:
        raise InputError(f"seeded_share = {seeded_share!r}: use a share between 0 and 1")
    if not 0 <= polished_share < 1:
        raise InputError(f"polished_share = {polished_share!r}: use a share from 0 to below 1")
    guidance = _guidance(problem, 0 if "seeds" in without else round(seeded_share * pop_size), rankings)
    blind = blind_operators(problem)
    scores = (
        BitScores(np.zeros(problem.n_var), 0.0) if "scores" in without else BitScores(guidance.scores, learning)
    )
    drawn = blind["sampling"] if "scores" in without else guidance.sampling
    guiding = {
        "sampling": ("start", MaskSampling(guidance.seeds, drawn)),
        "crossover": ("crossover", SizeCrossover(scale="log" if problem.log_sizes else "uniform")),
        "mutation": ("mutation", GuidedMutation(scores)),
    }
    operators = {what: blind[what] if part in without else ours for what, (part, ours) in guiding.items()}
    return GuidedNSGA2(
        scores=scores,
        size_column=problem.column(problem.size_objective),
        polished_share=0.0 if "polish" in without else polished_share,
        pop_size=pop_size,
        survival=_plain_survival(problem) if "survival" in without else survival_for(problem),
        **operators,
    )


def checked_parts(parts: Sequence[str]) -> tuple[str, ...]:
    """Parts of the guided search that are to be left out, each once, in the order of :data:`GUIDED_PARTS`.

    Raises
    ------
    InputError
        There is no such part.
    """
    parts = (parts,) if isinstance(parts, str) else parts
    for part in parts:
        if part not in GUIDED_PARTS:
            raise InputError(
                f"leave_out: the guided search has no part {part!r}{nearest(part, GUIDED_PARTS)}: use some of "
                f"{', '.join(GUIDED_PARTS)}"
            )
    return tuple(part for part in GUIDED_PARTS if part in parts)


def nsga2(problem: BitProblem, pop_size: int | None = None) -> NSGA2:
    """Build the plain choice: NSGA-II with uniform crossover and bit-flip mutation.

    The start population is drawn blindly, of all sizes (for heads, on a log scale). From three objectives on
    survival breaks ties by the nearest neighbours in objective space instead of the crowding distance.

    Parameters
    ----------
    problem
        What it will search; its
        :meth:`~moevoprune.search.bit_problem.BitProblem.blind_sampling` draws the start.
    pop_size
        Individuals per generation, at least 2; default 40.

    Raises
    ------
    InputError
        The population is too small to evolve.
    """
    return NSGA2(
        pop_size=_checked("nsga2", pop_size), survival=_plain_survival(problem), **blind_operators(problem)
    )


def _plain_survival(problem: BitProblem) -> RankAndCrowding:
    return RankAndCrowding(crowding_func=crowding_measure(problem))


def reference(problem: BitProblem, pop_size: int | None = None) -> NSGA2:
    """Build the search of MO-EvoPruneDeepTL (arXiv 2302.10253), in its settings.

    NSGA-II with a population of 30 and two offspring per generation, uniform crossover with probability 1,
    bit-flip mutation with probability 1/n per bit, crowding distance for any number of objectives, and a start
    whose densities are uniform in (0, 1). Repeated masks are allowed, and count as evaluations. What differs from
    the paper is the fitness (theirs is test accuracy; ours never is), the archive of all evaluated masks, and that
    200 evaluations are only the default. Its tie-breaking inside selection is pymoo's.

    Parameters
    ----------
    problem
        What it will search.
    pop_size
        Individuals, at least 2; default the published 30.

    Raises
    ------
    InputError
        The population is too small to evolve.
    """
    return NSGA2(
        pop_size=_checked("reference", pop_size),
        n_offsprings=_PUBLISHED_OFFSPRING,
        sampling=DensitySampling("uniform"),
        crossover=UniformCrossover(prob=1.0),
        mutation=BitflipMutation(),
        survival=RankAndCrowding(crowding_func="cd"),
        eliminate_duplicates=False,
    )


def deep_pruning_es(problem: BitProblem, pop_size: int | None = None) -> DeepPruningES:
    """Build the search of DeepPruningES (arXiv 1912.11527), see there for what is published and what is ours.

    The error is the problem's measure of quality; the cost its measure of size, or where that is not among the
    objectives the first other one.

    Parameters
    ----------
    problem
        What it will search, with at least two objectives.
    pop_size
        Individuals per generation, at least 4; default the published 30.

    Raises
    ------
    InputError
        The population is too small, or there is nothing to weigh quality against.
    """
    quality, size = problem.quality_column, problem.column(problem.size_objective)
    if problem.n_obj < 2:
        raise InputError("deep_pruning_es weighs error against cost: give a second objective, or use nsga2")
    cost = size if size is not None and size != quality else int(quality == 0)
    return DeepPruningES(_checked("deep_pruning_es", pop_size), cost_column=cost, quality_column=quality)


def evo_prune_deeptl(problem: BitProblem, pop_size: int | None = None) -> EvoPruneDeepTL:
    """Build the search of EvoPruneDeepTL (arXiv 2202.03844), see there for what is published and what is ours.

    It looks for the best quality alone, of equals for the fewest active bits. The archive of a run gives a front
    all the same, and ``front.best("accuracy")`` is the winner: where the share of active bits is an objective too
    (otherwise the archive holds the first one found of equals).

    Parameters
    ----------
    problem
        What it will search.
    pop_size
        Individuals, at least 2; default the published 30.

    Raises
    ------
    InputError
        The population is too small to evolve.
    """
    return EvoPruneDeepTL(_checked("evo_prune_deeptl", pop_size), quality_column=problem.quality_column)


ALGORITHMS: dict[str, Callable[[BitProblem, int | None], Any]] = {
    "guided": guided,
    "nsga2": nsga2,
    "reference": reference,
    "deep_pruning_es": deep_pruning_es,
    "evo_prune_deeptl": evo_prune_deeptl,
    "nsga3": nsga3,
    "sms_emoa": sms_emoa,
    "age_moea": age_moea,
    "spea2": spea2,
    "random": random_search,
}


def make_algorithm(
    name: str, problem: BitProblem, pop_size: int | None = None, leave_out: Sequence[str] = ()
) -> Any:
    """Build a search by name.

    Parameters
    ----------
    name
        A key of :data:`ALGORITHMS`.
    problem
        What it will search.
    pop_size
        Individuals per generation; None for the search's own default.
    leave_out
        For ``"guided"`` alone: parts to do without, see :func:`guided`.

    Raises
    ------
    InputError
        The name is unknown, the population is too small, or the search does not suit the problem or has no parts
        to leave out.
    """
    if name not in ALGORITHMS:
        raise InputError(
            f"unknown algorithm {name!r}{nearest(name, ALGORITHMS)}: use one of {', '.join(ALGORITHMS)}, or an "
            "instance of a pymoo algorithm"
        )
    if not leave_out:
        return ALGORITHMS[name](problem, pop_size)
    if name != DEFAULT_ALGORITHM:
        raise InputError(
            f"leave_out is about the parts of the algorithm {DEFAULT_ALGORITHM}, not of {name}: give one of the "
            "two alone"
        )
    return guided(problem, pop_size, leave_out=leave_out)


def _guidance(problem: BitProblem, n_seeds: int, rankings: Sequence[str] | None) -> Guidance:
    if rankings is None:
        return problem.guidance(n_seeds)
    if not isinstance(problem, PruningProblem):
        raise InputError(
            f"rankings = {rankings!r}: they are for heads, leave them out for {type(problem).__name__}"
        )
    return problem.guidance(n_seeds, rankings)


def _checked(name: str, pop_size: int | None) -> int:
    return checked_pop_size(pop_size, DEFAULT_POP_SIZES[name])
