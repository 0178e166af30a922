"""What all problems over bits have in common: a memory of masks, listeners, and what searches ask of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pymoo.core.problem import Problem
from pymoo.core.sampling import Sampling

from moevoprune.errors import InputError
from moevoprune.objectives import Objective
from moevoprune.search.mask_memory import MaskValues
from moevoprune.search.sampling import DensitySampling, as_masks

__all__ = ["BitProblem", "Guidance"]

Bits = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]
Listener = Callable[[Bits, Values], None]
_Same = TypeVar("_Same", bound="BitProblem")


@dataclass(frozen=True, eq=False)
class Guidance:
    """What a guided search starts from.

    Attributes
    ----------
    scores
        Importance of the bits, shape (n_bits,); larger is more important, and only the order counts.
    seeds
        Masks that the start population holds, the first ones first, shape (k, n_bits).
    sampling
        Draws the rest of the start population.
    """

    scores: Values
    seeds: Bits
    sampling: Sampling


class BitProblem(Problem):
    """A pymoo problem over bits whose masks are expensive to evaluate.

    Vectorised, ``vtype=bool``, no bounds, ``F`` minimised. A mask is measured once and then remembered; listeners
    are told what is measured and what is asked for. :func:`moevoprune.search.loop.run_search` and the searches of
    :mod:`moevoprune.search.algorithms` take every such problem. A subclass says how masks are measured
    (:meth:`_measure`), what their values depend on (:meth:`identity`), and what a guided search starts from
    (:meth:`guidance`), if it is to be searched by one.

    The problem is a context manager: ``with`` ends with :meth:`close`.

    Parameters
    ----------
    n_var
        Bits of a mask, at least 1.
    objectives
        At least one.
    n_ieq_constr
        Columns of :meth:`violations`: 2 where :attr:`max_active` is set, else 1.

    Attributes
    ----------
    objectives
        The :class:`~moevoprune.Objective` instances.
    n_trained, n_requested, n_diverged
        Masks measured, masks asked for (also repeated ones), and masks that diverged.
    min_active, max_active
        Bounds on the number of active bits, as constraints ``G <= 0``; ``max_active=None`` sets none.
    size_objective
        Name of the objective that is a share of the whole's size, in [0, 1]; None where there is none. It need not
        be among the objectives.
    log_sizes
        Whether sizes matter on a log scale, as those of heads do, of which a hundredth can be enough; otherwise
        on a linear one.
    """

    objectives: tuple[Objective, ...]
    n_trained: int
    n_requested: int
    n_diverged: int
    min_active: int = 1
    max_active: int | None = None
    size_objective: str | None = None
    log_sizes: bool = False

    def __init__(self, n_var: int, objectives: tuple[Objective, ...], n_ieq_constr: int = 1) -> None:
        self.objectives = objectives
        self.n_trained = 0
        self.n_requested = 0
        self.n_diverged = 0
        self._known = MaskValues(len(objectives))
        self._on_trained: list[Listener] = []
        self._on_requested: list[Listener] = []
        super().__init__(n_var=n_var, n_obj=len(objectives), n_ieq_constr=n_ieq_constr, vtype=bool)

    def __enter__(self: _Same) -> _Same:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __deepcopy__(self: _Same, memo: dict[int, Any]) -> _Same:
        # save_history copies the algorithm with its problem every generation; the problem is a pure function
        # with a memory, so all copies may share it
        return self

    # What a subclass says.

    def _measure(self, bits: Bits) -> Iterator[tuple[Values, bool]]:
        """Measure masks.

        Parameters
        ----------
        bits
            Repaired masks, all different, shape (n, n_var), n at least 1.

        Yields
        ------
        tuple
            For each mask in order, as soon as it is known: its objective values in natural direction and units,
            shape (n_obj,), and whether its training diverged.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how masks are measured")

    def identity(self) -> dict[str, object]:
        """Everything that values depend on besides the mask, as plain values that a journal can hold."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its values depend on")

    def guidance(self, n_seeds: int) -> Guidance:
        """What a guided search of this problem starts from.

        Parameters
        ----------
        n_seeds
            Masks of its own that the start population has room for, at least 0.

        Raises
        ------
        InputError
            Nothing is known about this problem's bits.
        """
        raise InputError(f"nothing can guide a search of a {type(self).__name__}: use the algorithm nsga2")

    def blind_sampling(self) -> Sampling:
        """Draw start populations without guidance: here densities uniform in (0, 1)."""
        return DensitySampling("uniform")

    def repair(self, bits: Bits) -> Bits:
        """Masks as they are evaluated: here as they are.

        What is repaired once must stay as it is when repaired again. The given array may be changed.
        """
        return bits

    def count_active(self, bits: Bits) -> npt.NDArray[np.int64]:
        """Number of active bits, shape (n,)."""
        active: npt.NDArray[np.int64] = bits.sum(axis=1, dtype=np.int64)
        return active

    def violations(self, bits: Bits) -> Values:
        """Constraint values, shape (n, n_ieq_constr); a mask is feasible where all are at most 0."""
        active = self.count_active(bits).astype(np.float64)
        columns = [self.min_active - active]
        if self.max_active is not None:
            columns.append(active - self.max_active)
        return np.stack(columns, axis=1)

    def forget_details(self, but: Collection[bytes]) -> None:
        """Give back memory that holds more of masks than their values; a search says so after every generation.

        Parameters
        ----------
        but
            Masks, as :func:`moevoprune.search.fitness.pack` packs them, of which more may be wanted: those that no
            other dominates.
        """

    def close(self) -> None:
        """Give back what the problem holds of the machine; masks that are known stay known."""

    @property
    def quality_column(self) -> int:
        """Column of the objective that says how good predictions are: here the first."""
        return 0

    # What every problem has.

    def values(self, masks: npt.ArrayLike) -> Values:
        """Objective values of masks in natural direction and units.

        Parameters
        ----------
        masks
            Shape (n, n_var); bool, or numbers that are all 0 or 1. They are repaired first.

        Returns
        -------
        ndarray, shape (n, n_obj)

        Raises
        ------
        InputError
            The masks have another shape or other values.
        """
        bits = self._repaired(masks)
        self._train(bits[self._known.unknown(bits)])
        values = self._known.get(bits)
        self.n_requested += len(bits)
        for listener in self._on_requested:
            listener(bits, values)
        return values

    def column(self, objective: str | None) -> int | None:
        """Column of an objective in values and losses, None where it is not among them."""
        names = [known.name for known in self.objectives]
        return names.index(objective) if objective in names else None

    def losses(self, values: Values) -> Values:
        """Turn natural objective values into the minimised form, shape (n, n_obj)."""
        columns = [objective.to_loss(values[:, i]) for i, objective in enumerate(self.objectives)]
        return np.stack(columns, axis=1)

    def remember(self, masks: Bits, values: Values) -> None:
        """Take values that are known already, e.g. from a journal; these masks are not measured again."""
        self._known.put(self._repaired(masks), np.asarray(values, dtype=np.float64))

    def listen(self, on_trained: Listener | None = None, on_requested: Listener | None = None) -> None:
        """Be told of masks and their natural values: once measured, and whenever an algorithm asks for them."""
        if on_trained is not None:
            self._on_trained.append(on_trained)
        if on_requested is not None:
            self._on_requested.append(on_requested)

    def unlisten(self, *listeners: Listener) -> None:
        """Stop telling these listeners."""
        self._on_trained = [known for known in self._on_trained if known not in listeners]
        self._on_requested = [known for known in self._on_requested if known not in listeners]

    def _evaluate(self, x: npt.ArrayLike, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        bits = self._repaired(x, "individuals")
        out["F"] = self.losses(self.values(bits))
        out["G"] = self.violations(bits)

    def _repaired(self, masks: npt.ArrayLike, what: str = "masks") -> Bits:
        bits = as_masks(masks, what)
        if bits.shape[1] != self.n_var:
            raise InputError(f"{what} have {bits.shape[1]} bits, but this problem has {self.n_var}")
        return self.repair(bits)

    def _train(self, bits: Bits) -> None:
        if len(bits) == 0:
            return
        for row, (values, diverged) in enumerate(self._measure(bits)):
            self._known.put(bits[row : row + 1], values[None])
            self.n_trained += 1
            self.n_diverged += diverged
            for listener in self._on_trained:
                listener(bits[row : row + 1], values[None])
