"""Pruning as an ordinary pymoo problem over bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pymoo.core.problem import Problem

from moevoprune.baselines.data import RankingData
from moevoprune.errors import InputError, whole_number
from moevoprune.features import FeatureSet, load_features
from moevoprune.heads.settings import HeadSettings
from moevoprune.objectives import Candidate, Objective, resolve_objectives
from moevoprune.search.engines import EngineMaker, make_engine
from moevoprune.search.fitness import DEFAULT_ODIN_EPSILON, FitnessEvaluator, pack
from moevoprune.search.sampling import as_masks

__all__ = ["DEFAULT_OBJECTIVES", "DEFAULT_ODIN_EPSILON", "LARGEST_SEED", "PruningProblem"]

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
Listener = Callable[[Bits, Values], None]


class PruningProblem(Problem):
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
        self.objectives = resolve_objectives(specs, features.task)
        self.fitness = FitnessEvaluator(
            features, encoding, self.objectives, head, cv, seed, device, noise, repeats, float(odin_epsilon), jobs
        )
        self.features = features
        self.head = head
        self.encoding = self.fitness.encoding
        self.min_active = min_active
        self.max_active = max_active
        self._check_bounds()
        self.chunk = chunk
        self.n_trained = 0
        self.n_requested = 0
        self.n_diverged = 0
        self._known: dict[bytes, Values] = {}
        self._on_trained: list[Listener] = []
        self._on_requested: list[Listener] = []
        super().__init__(
            n_var=self.encoding.n_bits,
            n_obj=len(self.objectives),
            n_ieq_constr=1 if max_active is None else 2,
            vtype=bool,
        )
        # last: what it starts must not be left behind by bad input
        self._engine = make_engine(engine, self.fitness)

    def __enter__(self) -> PruningProblem:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back the processes and machines of the engine; masks that are known stay known."""
        self._engine.close()
        self.fitness.close()

    def __deepcopy__(self, memo: dict[int, Any]) -> PruningProblem:
        # save_history copies the algorithm with its problem every generation; the problem is a pure function
        # with a memory, so all copies may share it
        return self

    def values(self, masks: npt.ArrayLike) -> Values:
        """Objective values of masks in natural direction and units.

        Parameters
        ----------
        masks
            Shape (n, n_var); bool, or numbers that are all 0 or 1.

        Returns
        -------
        ndarray, shape (n, n_obj)

        Raises
        ------
        InputError
            The masks have another shape or other values.
        """
        bits = as_masks(masks)
        if bits.shape[1] != self.n_var:
            raise InputError(f"masks have {bits.shape[1]} bits, but this problem has {self.n_var}")
        keys = pack(bits)
        fresh: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            if key not in self._known:
                fresh.setdefault(key, row)
        self._train(bits[list(fresh.values())], list(fresh))
        values = np.array([self._known[key] for key in keys]).reshape(len(bits), self.n_obj)
        self.n_requested += len(bits)
        for listener in self._on_requested:
            listener(bits, values)
        return values

    @property
    def quality(self) -> str:
        """Name of what says how good predictions are: ``"accuracy"``, for regression ``"r2"``."""
        return "accuracy" if self.features.task == "classification" else "r2"

    def column(self, objective: str) -> int | None:
        """Column of an objective in values and losses, None where it is not among them."""
        names = [known.name for known in self.objectives]
        return names.index(objective) if objective in names else None

    def losses(self, values: Values) -> Values:
        """Turn natural objective values into the minimised form, shape (n, n_obj)."""
        columns = [objective.to_loss(values[:, i]) for i, objective in enumerate(self.objectives)]
        return np.stack(columns, axis=1)

    def violations(self, masks: Bits) -> Values:
        """Constraint values, shape (n, n_ieq_constr); a mask is feasible where all are at most 0."""
        active = self.encoding.count_active(masks).astype(np.float64)
        columns = [self.min_active - active]
        if self.max_active is not None:
            columns.append(active - self.max_active)
        return np.stack(columns, axis=1)

    def ranking_data(self) -> RankingData:
        """What rankings and baselines may look at: the training part, and scores of masks on the folds.

        The score is accuracy or R² where it is an objective, else the first objective, turned so that larger is
        better. Masks scored through it are trained and remembered like any other.
        """
        column = self.column(self.quality) or 0

        def evaluate(masks: Bits) -> Values:
            return -self.losses(self.values(masks))[:, column]

        return self.fitness.ranking_data(evaluate)

    def remember(self, masks: Bits, values: Values) -> None:
        """Take fitness values that are known already, e.g. from a journal; they are not trained again."""
        self._known.update(zip(pack(masks), np.array(values, dtype=np.float64), strict=True))

    def listen(self, on_trained: Listener | None = None, on_requested: Listener | None = None) -> None:
        """Be told of masks and their natural values: once trained, and whenever an algorithm asks for them."""
        if on_trained is not None:
            self._on_trained.append(on_trained)
        if on_requested is not None:
            self._on_requested.append(on_requested)

    def unlisten(self, *listeners: Listener) -> None:
        """Stop telling these listeners."""
        self._on_trained = [known for known in self._on_trained if known not in listeners]
        self._on_requested = [known for known in self._on_requested if known not in listeners]

    def identity(self) -> dict[str, object]:
        """Everything that fitness values depend on besides the mask, as plain values."""
        bounds = {"min_active": self.min_active, "max_active": self.max_active or "none"}
        return {**self.fitness.identity(), **bounds}

    def _evaluate(self, x: npt.ArrayLike, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        bits = as_masks(x, "individuals")
        out["F"] = self.losses(self.values(bits))
        out["G"] = self.violations(bits)

    def _train(self, bits: Bits, keys: list[bytes]) -> None:
        # an engine that has many workers needs all that there is to do
        chunk = (self.chunk if self._engine is self.fitness else None) or max(len(bits), 1)
        for start in range(0, len(bits), chunk):
            part = bits[start : start + chunk]
            for row, (values, diverged) in enumerate(self._engine.evaluate(part), start):
                self._known[keys[row]] = values
                self.n_trained += 1
                self.n_diverged += diverged
                for listener in self._on_trained:
                    listener(bits[row : row + 1], values[None])

    def _check_bounds(self) -> None:
        n_bits, low, high = self.encoding.n_bits, self.min_active, self.max_active
        if not 0 <= low <= n_bits:
            raise InputError(f"min_active = {low}: use a number of bits between 0 and {n_bits}")
        if high is not None and not max(low, 1) <= high <= n_bits:
            raise InputError(f"max_active = {high}: use a number of bits between {max(low, 1)} and {n_bits}")
