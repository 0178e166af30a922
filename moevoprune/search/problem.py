"""Pruning as an ordinary pymoo problem over bits."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from moevoprune.baselines import combine, rank_bits, top_bits
from moevoprune.baselines.data import RankingData
from moevoprune.errors import InputError, whole_number
from moevoprune.features import FeatureSet, load_features
from moevoprune.heads.settings import HeadSettings
from moevoprune.objectives import Candidate, Objective, resolve_objectives
from moevoprune.search.bit_problem import BitProblem, Guidance
from moevoprune.search.engines import EngineMaker, make_engine
from moevoprune.search.fitness import DEFAULT_ODIN_EPSILON, FitnessEvaluator
from moevoprune.search.sampling import DensitySampling
from moevoprune.search.trust import trusted_rankings

__all__ = ["DEFAULT_OBJECTIVES", "DEFAULT_ODIN_EPSILON", "LARGEST_SEED", "SIZE_OBJECTIVE", "PruningProblem"]

SIZE_OBJECTIVE = "active_neurons"

# scikit-learn's splitters take no larger ones
LARGEST_SEED = 2**32 - 1
_LARGEST_NOISE = 1e6
_LARGEST_ODIN_EPSILON = 1e6

DEFAULT_OBJECTIVES = {
    "classification": ("accuracy", "active_neurons", "cka"),
    "regression": ("r2", "active_neurons", "cka"),
}

Bits = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]


class PruningProblem(BitProblem):
    """Which features, neurons or connections should the head keep?

    A vectorised pymoo problem: ``vtype=bool``, no bounds, ``F`` minimised. Any pymoo algorithm for binary
    variables works on it. A mask's fitness is trained and scored once and then remembered.

    Parameters
    ----------
    features
        A :class:`~moevoprune.FeatureSet`, the name of a built-in data set (``"digits"``) or the path of a
        features ``.npz``.
    encoding
        ``features``, ``neurons``, ``neurons:1``, ``neurons:2``, ``neurons:both``, ``features+neurons`` or
        ``connections``.
    objectives
        Names (``accuracy``, ``r2``, ``mse``, ``active_neurons``, ``cka``, ``cka:noise``, ``cka:dense``,
        ``ood_auroc``, ``ood_auroc:temperature``, ``ood_auroc:msp``, ``ood_auroc:odin``, ``ood_auroc:energy``),
        :class:`~moevoprune.Objective` instances or plain functions of a :class:`~moevoprune.Candidate`. None
        means accuracy (``r2`` for regression), active neurons and CKA under noise.
    head
        Head settings, or the name of a preset (``"default"``, ``"paper"``).
    cv
        Folds inside the training part; 1 for a hold-out; None chooses (see
        :func:`moevoprune.features.folds.make_folds`).
    seed
        Seed of folds, start weights, row order and noise; at least 0.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    min_active, max_active
        Bounds on the number of active bits, as constraints ``G <= 0``: masks outside them are evaluated like
        any other but are infeasible. ``max_active=None`` sets none.
    noise
        Standard deviation of the noise of ``cka:noise``, in training standard deviations; > 0.
    chunk
        Individuals handed to the trainer at once, at most; None for all of them. Changes nothing but memory. Of
        another engine than ``"local"`` this is its own business.
    repeats
        How often the rows are split into folds anew; a mask's fitness is measured over all of them.
    odin_epsilon
        Step of the perturbation of ``ood_auroc:odin``, in training standard deviations of each feature; 0 or more.
    engine
        Where masks are trained: ``"local"``, ``"ray"`` (actors on the cores or GPUs of the Ray that this process
        is connected to, or of one that is started on this machine), or a function that makes an
        :class:`~moevoprune.search.engines.Engine` of an evaluator. Changes nothing but time.
    jobs
        Processes that train heads side by side on this machine, at least 1; changes nothing but time.

    The problem is a context manager: ``with PruningProblem(...) as problem:`` ends with :meth:`close`.

    Attributes
    ----------
    objectives
        The resolved :class:`~moevoprune.Objective` instances.
    encoding
        The :class:`~moevoprune.heads.encodings.Encoding`.
    n_trained, n_requested, n_diverged
        Masks trained, masks asked for (also repeated ones), and masks whose training diverged.

    Raises
    ------
    InputError
        Any of these cannot be used; the message says which and why.

    Examples
    --------
    >>> from pymoo.algorithms.moo.nsga2 import NSGA2
    >>> from pymoo.operators.mutation.bitflip import BitflipMutation
    >>> from pymoo.optimize import minimize
    >>> problem = PruningProblem("digits", objectives=["accuracy", "active_neurons"])  # doctest: +SKIP
    >>> algorithm = NSGA2(30, sampling=DensitySampling("log"), mutation=BitflipMutation())  # doctest: +SKIP
    >>> minimize(problem, algorithm, ("n_gen", 20), seed=1)  # doctest: +SKIP
    """

    size_objective = SIZE_OBJECTIVE
    log_sizes = True

    def __init__(
        self,
        features: FeatureSet | str | Path,
        encoding: str = "features",
        objectives: Sequence[str | Objective | Callable[[Candidate], float]] | None = None,
        head: HeadSettings | str = "default",
        cv: int | None = None,
        seed: int = 0,
        device: str = "auto",
        min_active: int = 1,
        max_active: int | None = None,
        noise: float = 1.0,
        chunk: int | None = None,
        repeats: int = 1,
        odin_epsilon: float = DEFAULT_ODIN_EPSILON,
        engine: str | EngineMaker = "local",
        jobs: int = 1,
    ) -> None:
        if not isinstance(features, FeatureSet):
            features = load_features(features)
        if isinstance(head, str):
            head = HeadSettings.preset(head)
        seed = whole_number("seed", seed, 0, LARGEST_SEED)
        cv = None if cv is None else whole_number("cv", cv, 1)
        min_active = whole_number("min_active", min_active, 0)
        max_active = None if max_active is None else whole_number("max_active", max_active, 1)
        chunk = None if chunk is None else whole_number("chunk", chunk, 1)
        repeats = whole_number("repeats", repeats, 1)
        jobs = whole_number("jobs", jobs, 1, 1024)
        if not (isinstance(noise, int | float) and 0 < noise <= _LARGEST_NOISE):
            raise InputError(f"noise = {noise!r}: use a number of training standard deviations, above 0 and sane")
        if not (isinstance(odin_epsilon, int | float) and 0 <= odin_epsilon <= _LARGEST_ODIN_EPSILON):
            raise InputError(
                f"odin_epsilon = {odin_epsilon!r}: use a number of training standard deviations, at least 0 and "
                "sane"
            )
        if not isinstance(head, HeadSettings):
            raise InputError(f"head = {head!r}: use HeadSettings or the name of a preset")
        if features.task == "regression" and features.n_test < 2:
            raise InputError(f"{features.name}: R² needs at least 2 test rows, there is {features.n_test}")
        specs = DEFAULT_OBJECTIVES[features.task] if objectives is None else objectives
        resolved = resolve_objectives(specs, features.task)
        self.fitness = FitnessEvaluator(
            features, encoding, resolved, head, cv, seed, device, noise, repeats, float(odin_epsilon), jobs
        )
        self.features = features
        self.head = head
        self.encoding = self.fitness.encoding
        self.min_active = min_active
        self.max_active = max_active
        self._check_bounds()
        self.chunk = chunk
        super().__init__(self.encoding.n_bits, resolved, n_ieq_constr=1 if max_active is None else 2)
        # last: what it starts must not be left behind by bad input
        self._engine = make_engine(engine, self.fitness)

    def close(self) -> None:
        """Give back the processes and machines of the engine; masks that are known stay known."""
        self._engine.close()
        self.fitness.close()

    @property
    def quality(self) -> str:
        """Name of what says how good predictions are: ``"accuracy"``, for regression ``"r2"``."""
        return "accuracy" if self.features.task == "classification" else "r2"

    @property
    def quality_column(self) -> int:
        """Column of :attr:`quality`, or the first one where that is not an objective."""
        return self.column(self.quality) or 0

    def count_active(self, bits: Bits) -> npt.NDArray[np.int64]:
        """Number of active bits, shape (n,)."""
        return self.encoding.count_active(bits)

    def ranking_data(self) -> RankingData:
        """What rankings and baselines may look at: the training part, and scores of masks on the folds.

        The score is accuracy or R² where it is an objective, else the first objective, turned so that larger is
        better. Masks scored through it are trained and remembered like any other.
        """

        def evaluate(masks: Bits) -> Values:
            return -self.losses(self.values(masks))[:, self.quality_column]

        return self.fitness.ranking_data(evaluate)

    def blind_sampling(self) -> DensitySampling:
        """Draw masks of all sizes on a log scale."""
        return DensitySampling("log", low=max(self.min_active, 1), high=self.max_active)

    def guidance(self, n_seeds: int, rankings: Sequence[str] | None = None) -> Guidance:
        """What a guided search starts from: rankings' scores, and their own masks of all sizes on a log scale.

        Parameters
        ----------
        n_seeds
            Masks that the rankings may put into the start population, at least 0; one that they choose twice is
            dropped.
        rankings
            Keys of :data:`moevoprune.baselines.RANKINGS`, best first, combined by rank; None for those that nested
            cross-validation trusts (:func:`moevoprune.search.trust.trusted_rankings`).

        Raises
        ------
        InputError
            A ranking is unknown.
        """
        names = trusted_rankings(self) if rankings is None else rankings
        data = self.ranking_data()
        ranked = [rank_bits(data, name) for name in names]
        scores = combine(ranked)
        low, high = max(self.min_active, 1), self.max_active
        return Guidance(
            scores,
            _seeds(ranked, n_seeds, low, high or self.n_var),
            DensitySampling("log", low=low, high=high, scores=scores),
        )

    def identity(self) -> dict[str, object]:
        """Everything that fitness values depend on besides the mask, as plain values."""
        bounds = {"min_active": self.min_active, "max_active": self.max_active or "none"}
        return {**self.fitness.identity(), **bounds}

    def forget_details(self, but: Collection[bytes]) -> None:
        """Forget what heads predicted for validation rows; a front wants to know it of its members alone."""
        self.fitness.forget(but)

    def _measure(self, bits: Bits) -> Iterator[tuple[Values, bool]]:
        # an engine that has many workers needs all that there is to do
        chunk = (self.chunk if self._engine is self.fitness else None) or len(bits)
        for start in range(0, len(bits), chunk):
            yield from self._engine.evaluate(bits[start : start + chunk])

    def _check_bounds(self) -> None:
        n_bits, low, high = self.encoding.n_bits, self.min_active, self.max_active
        if not 0 <= low <= n_bits:
            raise InputError(f"min_active = {low}: use a number of bits between 0 and {n_bits}")
        if high is not None and not max(low, 1) <= high <= n_bits:
            raise InputError(f"max_active = {high}: use a number of bits between {max(low, 1)} and {n_bits}")


def _seeds(ranked: Sequence[Values], n: int, low: int, high: int) -> Bits:
    """Masks of the rankings' best bits, their sizes on a log scale from the largest to the smallest.

    The rankings, best first, take turns; the best takes every other one.
    """
    n_bits = len(ranked[0])
    if n == 0:
        return np.zeros((0, n_bits), dtype=np.bool_)
    # the largest first: all rankings agree on the dense head, which no start should be without
    sizes = np.rint(np.geomspace(high, low, n)).astype(int).tolist()
    masks: dict[bytes, Bits] = {}
    others = itertools.cycle(ranked[1:] or ranked)
    for turn, size in enumerate(sizes):
        (mask,) = top_bits(ranked[0] if turn % 2 == 0 else next(others), [size])
        masks.setdefault(mask.tobytes(), mask)
    return np.array(list(masks.values()))
