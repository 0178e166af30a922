"""The search loop: any pymoo algorithm, an archive, progress, and exact resume by replaying the journal."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pymoo.core.algorithm import Algorithm

from moevoprune.errors import InputError, whole_number
from moevoprune.search.algorithms import DEFAULT_ALGORITHM, make_algorithm
from moevoprune.search.archive import ParetoArchive, SmallestClose
from moevoprune.search.bit_problem import BitProblem
from moevoprune.search.deep_pruning_es import PUBLISHED_GENERATIONS
from moevoprune.search.evo_prune_deeptl import PUBLISHED_BUDGET
from moevoprune.search.journal import EvaluationJournal
from moevoprune.search.mask_memory import MaskNumbers

__all__ = ["Generation", "SearchResult", "check_journal", "default_end", "run_search"]

DEFAULT_N_GEN = 25
# from the best value of the first objective
_CLOSE = 0.01
# as published, for both papers' searches
_PUBLISHED_BUDGETS = {"reference": 200, "evo_prune_deeptl": PUBLISHED_BUDGET}

Bits = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Generation:
    """What is known after a generation.

    Attributes
    ----------
    number
        Generation, from 1.
    of
        Generations that the search is to take, or None where something else ends it.
    evaluations
        Masks that the algorithm asked for so far, repeated ones included.
    cache_hits
        Those among them whose fitness was known already, within this search.
    diverged
        Masks trained so far in this process whose training diverged.
    archive_size
        Members of the archive of non-dominated masks.
    hypervolume
        Of the archive, as a share of the box between the objectives' best and worst values; validation scores.
    objective
        Name of the first objective.
    best
        Its best value among feasible masks so far.
    smallest_close
        Fewest active bits within .01 of ``best``, of all feasible masks so far.
    seconds
        Time since the search started.
    share_done
        Estimated share of the whole search that is done, in [0, 1], or None where nobody can tell.
    """

    number: int
    of: int | None
    evaluations: int
    cache_hits: int
    diverged: int
    archive_size: int
    hypervolume: float
    objective: str
    best: float
    smallest_close: int
    seconds: float
    share_done: float | None

    def __str__(self) -> str:
        left = ""
        if self.share_done:
            seconds = int(self.seconds * (1 / self.share_done - 1))
            left = f"  {seconds // 60}:{seconds % 60:02d} left"
        total = "" if self.of is None else f"/{self.of}"
        return (
            f"generation {self.number:>3}{total}  "
            f"{self.evaluations:>5} evaluations ({self.cache_hits} cached)  "
            f"hypervolume {self.hypervolume:.4f}  best {self.objective} {self.best:.4f}  "
            f"smallest within .01: {self.smallest_close}{left}"
        )


@dataclass(frozen=True, eq=False)
class SearchResult:
    """Outcome of a search.

    Attributes
    ----------
    masks
        All non-dominated feasible masks ever evaluated, shape (members, n_bits), fewest active bits first.
    values
        Their objective values in natural direction, shape (members, n_obj).
    losses
        The same, minimised, shape (members, n_obj).
    ideal, corner
        Best and worst losses that span the hypervolume's box, shape (n_obj,).
    history
        One entry per finished generation.
    interrupted
        Whether the search was stopped by Ctrl-C.
    """

    masks: Bits
    values: Values
    losses: Values
    ideal: Values
    corner: Values
    history: tuple[Generation, ...]
    interrupted: bool


class _Observer:
    """Collects what the algorithm asks for: the archive, the counts and the best values."""

    def __init__(self, problem: BitProblem) -> None:
        self._problem = problem
        self.archive = ParetoArchive(problem.n_obj)
        self.evaluations = 0
        self._seen = MaskNumbers()
        self._box: tuple[Values, Values] | None = None
        self._close = SmallestClose(_CLOSE)

    @property
    def cache_hits(self) -> int:
        return self.evaluations - len(self._seen)

    def __call__(self, masks: Bits, values: Values) -> None:
        problem = self._problem
        self.evaluations += len(masks)
        self._seen.add(masks)
        losses = problem.losses(values)
        self._box = self._box or _box(problem, losses)
        feasible = (problem.violations(masks) <= 0).all(axis=1)
        self.archive.add(masks[feasible], losses[feasible], values[feasible])
        self._close.add(losses[feasible, 0], problem.count_active(masks[feasible]))

    @property
    def box(self) -> tuple[Values, Values]:
        """Ideal and corner of the hypervolume's box."""
        if self._box is None:
            raise RuntimeError("nothing has been evaluated yet")
        return self._box

    def hypervolume(self) -> float:
        if self._box is None or len(self.archive) == 0:
            return 0.0
        ideal, corner = self._box
        return self.archive.hypervolume(corner) / float(np.prod(corner - ideal))

    def best_and_smallest(self) -> tuple[float, int]:
        natural = self._problem.objectives[0].from_loss(np.array([self._close.best]))
        return float(natural[0]), self._close.smallest


def run_search(
    problem: BitProblem,
    pop_size: int | None = None,
    n_gen: int | None = None,
    budget: int | None = None,
    algorithm: Any = DEFAULT_ALGORITHM,
    seed: int = 0,
    journal: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[Generation], None] | None = None,
    leave_out: Sequence[str] = (),
) -> SearchResult:
    """Run a pymoo algorithm on a problem over bits and keep every non-dominated mask.

    Parameters
    ----------
    problem
        What to search.
    pop_size
        Individuals per generation of a search given by name; None for its own default (40, published ones 30).
    n_gen
        Generations; default 25 where ``budget`` is not given either (for ``"reference"`` and
        ``"evo_prune_deeptl"`` 200 evaluations, for ``"deep_pruning_es"`` 11).
    budget
        Evaluations instead of generations; the generation in which it is reached is finished.
    algorithm
        A name of :data:`moevoprune.search.algorithms.ALGORITHMS`: ``"guided"``, ``"nsga2"`` (plain), the published
        searches ``"reference"``, ``"deep_pruning_es"`` and ``"evo_prune_deeptl"``, or ``"nsga3"``, ``"sms_emoa"``,
        ``"age_moea"``, ``"spea2"`` and ``"random"``; or any pymoo algorithm for binary variables (it is copied).
        None for ``"guided"``.
    seed
        Seed of the algorithm.
    journal
        File that every evaluated mask is appended to.
    resume
        Continue the search of ``journal``: the algorithm starts again from its seed and finds the journal's
        masks evaluated already, so that the result is that of an undisturbed run. A missing journal is created.
    progress
        Called after every generation, e.g. with ``print``.
    leave_out
        For ``"guided"`` by name: parts to do without, see :func:`moevoprune.search.algorithms.guided`.

    Raises
    ------
    InputError
        A number is out of range, the journal exists (without ``resume``) or is another run's.
    """
    if not isinstance(problem, BitProblem):
        raise InputError(f"problem is a {type(problem).__name__}: make a PruningProblem, or another BitProblem")
    n_gen, budget = default_end(algorithm, n_gen, budget)
    termination = _termination(n_gen, budget)
    seed = whole_number("seed", seed, 0)
    if resume and journal is None:
        raise InputError("resume needs the journal of the run to continue: give journal=FILE")
    if journal is not None and resume:
        # before the bits are ranked, which takes a while
        check_journal(problem, Path(journal), seed)
    if isinstance(algorithm, Algorithm):
        if leave_out:
            raise InputError("leave_out is for a search given by name: leave it out, or build it with guided(...)")
        algorithm = copy.deepcopy(algorithm)
    elif algorithm is None or isinstance(algorithm, str):
        pop_size = None if pop_size is None else whole_number("pop_size", pop_size, 0)
        algorithm = make_algorithm(algorithm or DEFAULT_ALGORITHM, problem, pop_size, leave_out)
    else:
        raise InputError(f"algorithm = {algorithm!r}: give the name or an instance of a pymoo algorithm")
    opened = _open_journal(problem, Path(journal), seed, resume) if journal is not None else None
    observer = _Observer(problem)

    def record(masks: Bits, values: Values) -> None:
        if opened is not None:
            opened.append(masks, values)

    history: list[Generation] = []
    interrupted = False
    started = time.monotonic()
    problem.listen(on_trained=record, on_requested=observer)
    with opened or nullcontext():
        try:
            algorithm.setup(problem, termination=termination, seed=seed, verbose=False)
            while algorithm.has_next():
                algorithm.next()
                if opened is not None:
                    opened.sync()
                problem.forget_details(but=observer.archive.packed)
                history.append(_generation(algorithm, problem, observer, started))
                if progress is not None:
                    progress(history[-1])
        except KeyboardInterrupt:
            interrupted = True
        finally:
            problem.unlisten(record, observer)
    if observer.evaluations == 0:
        raise KeyboardInterrupt
    order = _by_size(problem, observer.archive.masks)
    ideal, corner = observer.box
    return SearchResult(
        observer.archive.masks[order],
        observer.archive.values[order],
        observer.archive.losses[order],
        ideal,
        corner,
        tuple(history),
        interrupted,
    )


def default_end(algorithm: Any, n_gen: int | None, budget: int | None) -> tuple[int | None, int | None]:
    """Generations or evaluations after which a search ends that was told neither.

    Parameters
    ----------
    algorithm
        Name or instance of the algorithm; the published ones have their published end.
    n_gen, budget
        What was asked for; returned as they are where one is given.
    """
    if n_gen is not None or budget is not None:
        return n_gen, budget
    if isinstance(algorithm, str) and algorithm in _PUBLISHED_BUDGETS:
        return None, _PUBLISHED_BUDGETS[algorithm]
    return (PUBLISHED_GENERATIONS if algorithm == "deep_pruning_es" else DEFAULT_N_GEN), None


def _termination(n_gen: int | None, budget: int | None) -> Any:
    from pymoo.termination import get_termination

    if n_gen is not None and budget is not None:
        raise InputError("n_gen and budget both end the search: give one of them")
    if budget is not None:
        return get_termination("n_eval", whole_number("budget", budget, 1))
    return get_termination("n_gen", whole_number("n_gen", n_gen, 1))


def _open_journal(problem: BitProblem, path: Path, seed: int, resume: bool) -> EvaluationJournal:
    belonging = _belonging(problem, seed)
    if not resume or not path.exists():
        return EvaluationJournal.create(path, *belonging)
    opened = EvaluationJournal.resume(path, *belonging)
    for masks, values in opened.iter_blocks():
        problem.remember(masks, values)
    opened.forget_entries()
    return opened


def _belonging(problem: BitProblem, seed: int) -> tuple[dict[str, object], int, list[str]]:
    """What tells whether a journal is of this search: its identity, the bits of a mask and the objectives."""
    names = [objective.name for objective in problem.objectives]
    return {**problem.identity(), "search.seed": seed}, problem.n_var, names


def check_journal(problem: BitProblem, path: Path, seed: int) -> None:
    """Check that a journal belongs to a search of this problem with this seed.

    Raises
    ------
    InputError
        It belongs to another one; the message says what differs.
    """
    if path.exists():
        EvaluationJournal.check(path, *_belonging(problem, seed))


def _generation(algorithm: Any, problem: BitProblem, observer: _Observer, started: float) -> Generation:
    best, smallest = observer.best_and_smallest()
    share = getattr(algorithm.termination, "perc", None)
    return Generation(
        number=algorithm.n_iter - 1,
        of=getattr(algorithm.termination, "n_max_gen", None),
        evaluations=observer.evaluations,
        cache_hits=observer.cache_hits,
        diverged=problem.n_diverged,
        archive_size=len(observer.archive),
        hypervolume=observer.hypervolume(),
        objective=problem.objectives[0].name,
        best=best,
        smallest_close=smallest,
        seconds=time.monotonic() - started,
        share_done=None if share is None else min(float(share), 1.0),
    )


def _box(problem: BitProblem, losses: Values) -> tuple[Values, Values]:
    """Ideal and corner: the objectives' own, or where they state none, of the first masks evaluated."""
    ideal, corner = losses.min(axis=0), losses.max(axis=0)
    for i, objective in enumerate(problem.objectives):
        if objective.best is not None:
            ideal[i] = objective.to_loss(objective.best)
        if objective.worst is not None:
            corner[i] = objective.to_loss(objective.worst)
    # a box without extent has no volume to take a share of
    return ideal, np.where(corner > ideal, corner, ideal + 1.0)


def _by_size(problem: BitProblem, masks: Bits) -> npt.NDArray[np.int64]:
    if len(masks) == 0:
        return np.zeros(0, dtype=np.int64)
    return np.argsort(problem.count_active(masks), kind="stable")
