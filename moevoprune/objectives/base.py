"""What an objective is given, and what it is."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moevoprune.errors import InputError

__all__ = ["MOST_REPRESENTED", "NEEDS", "TASKS", "Candidate", "FoldPrediction", "Objective", "evenly"]

# rows that hidden representations are compared on: noisy ones are held in memory, whatever the number of rows
MOST_REPRESENTED = 5000

TASKS: frozenset[str] = frozenset({"classification", "regression"})
NEEDS: frozenset[str] = frozenset({"noise", "dense", "ood", "odin"})

# Stands in for "worse than anything" where an objective states neither a worst nor a diverged value.
_DIVERGED = 1e6


def evenly(count: int, most: int) -> npt.NDArray[np.int64]:
    """At most so many of ``count`` indices, spread evenly, from the middle of equal parts."""
    chosen = min(count, most)
    return (np.arange(chosen, dtype=np.int64) * 2 + 1) * count // max(2 * chosen, 1)


@dataclass(frozen=True, eq=False)
class FoldPrediction:
    """What one trained head says of its validation rows.

    Attributes
    ----------
    targets : Tensor, shape (n,) int64 or (n, T) float
        Class labels, or real-valued targets; ``n >= 1``.
    outputs : Tensor, shape (n, C) or (n, T)
        The head's logits, or its predictions.
    hidden : Tensor, shape (m, H)
        Its last hidden representation (the outputs if the head has no hidden layer) of the rows
        :attr:`represented`: of all, ``m = n``, or of :data:`MOST_REPRESENTED` where there are more.
    hidden_noisy : Tensor, shape (m, H'), or None
        The same for the same rows with noise added to their inputs.
    hidden_dense : Tensor, shape (m, H'), or None
        The unpruned head's last hidden representation of the same rows.
    ood_outputs : Tensor, shape (n_ood, C), or None
        The head's outputs on out-of-distribution rows, the same rows for every fold; ``n_ood >= 1``.
    odin_outputs, odin_ood_outputs : Tensor, shapes (n, C) and (n_ood, C), or None
        Its logits on the same rows, perturbed as ODIN does it
        (:func:`moevoprune.objectives.ood.odin_perturb`).

    Raises
    ------
    InputError
        If there are no rows, or the tensors disagree on the number of rows, of classes or on ``T``.
    """

    targets: Tensor
    outputs: Tensor
    hidden: Tensor
    hidden_noisy: Tensor | None = None
    hidden_dense: Tensor | None = None
    ood_outputs: Tensor | None = None
    odin_outputs: Tensor | None = None
    odin_ood_outputs: Tensor | None = None

    def __post_init__(self) -> None:
        n = self.n_rows
        if n == 0:
            raise InputError("fold prediction: the targets hold no rows; give at least one validation row")
        if self.targets.is_floating_point():
            if self.targets.ndim != 2 or self.outputs.shape != self.targets.shape:
                raise InputError(
                    f"fold prediction: real-valued targets have shape {tuple(self.targets.shape)} and "
                    f"outputs {tuple(self.outputs.shape)}; both must be (n, T)"
                )
        elif self.targets.ndim != 1:
            raise InputError(
                f"fold prediction: class labels have shape {tuple(self.targets.shape)}; give shape (n,)"
            )
        m = min(n, MOST_REPRESENTED)
        rows = {"outputs": n, "hidden": m, "hidden_noisy": m, "hidden_dense": m, "odin_outputs": n}
        for name, n_wanted in rows.items():
            value = getattr(self, name)
            if value is not None and (value.ndim != 2 or value.shape[0] != n_wanted):
                raise InputError(
                    f"fold prediction: {name} has shape {tuple(value.shape)} but there are {n} targets; "
                    f"give shape ({n_wanted}, width)"
                )
        width = self.outputs.shape[1]
        for name in ("ood_outputs", "odin_outputs", "odin_ood_outputs"):
            value = getattr(self, name)
            if value is not None and (value.ndim != 2 or value.shape[0] == 0 or value.shape[1] != width):
                raise InputError(
                    f"fold prediction: {name} has shape {tuple(value.shape)} but outputs has {width} columns; "
                    f"give shape (rows, {width}) with at least one row"
                )

    @property
    def n_rows(self) -> int:
        """Number of validation rows, n."""
        return int(self.targets.shape[0]) if self.targets.ndim else 0

    @property
    def represented(self) -> npt.NDArray[np.int64]:
        """Numbers of the rows that hidden representations are about, shape (m,): evenly spread where m < n."""
        return evenly(self.n_rows, MOST_REPRESENTED)


@dataclass(frozen=True, eq=False)
class Candidate:
    """One pruned head as the objectives see it: what it predicts on each fold, and how much of it is left.

    Attributes
    ----------
    folds : tuple of FoldPrediction
        One per fold, at least one.
    active : int
        Number of bits of its mask that are set, in ``0 .. n_bits``.
    n_bits : int
        Length of the mask, at least 1.

    Raises
    ------
    InputError
        If there are no folds or the counts are out of range.
    """

    folds: tuple[FoldPrediction, ...]
    active: int
    n_bits: int

    def __post_init__(self) -> None:
        if not self.folds:
            raise InputError("candidate: no folds; give at least one fold's predictions")
        if self.n_bits < 1 or not 0 <= self.active <= self.n_bits:
            raise InputError(
                f"candidate: {self.active} active of {self.n_bits} bits; the counts must satisfy "
                "0 <= active <= n_bits and n_bits >= 1"
            )

    @property
    def active_fraction(self) -> float:
        """Share of mask bits that are set, in [0, 1]."""
        return self.active / self.n_bits

    @cached_property
    def finite(self) -> bool:
        """Whether all outputs, on whatever rows, and hidden values are finite; False means training diverged."""
        checks = [
            tensor.isfinite().all()
            for fold in self.folds
            for tensor in (fold.outputs, fold.hidden, fold.ood_outputs, fold.odin_outputs, fold.odin_ood_outputs)
            if tensor is not None
        ]
        # Stacked so that a GPU is waited for once, not once per fold.
        return bool(torch.stack(checks).all())


@dataclass(frozen=True)
class Objective:
    """A number to maximise or minimise over candidates.

    Attributes
    ----------
    name : str
        How it is called in settings, results and messages.
    function : callable, Candidate -> float
        Gives the value, in natural units. It may return a Python or NumPy number or a one-element tensor or
        array. It is not called for a candidate that is not finite.
    maximise : bool
        Whether larger is better.
    best, worst : float or None
        Corners of the box in which the hypervolume is measured, in natural units; None is unknown.
    tasks : frozenset of str
        Subset of ``{"classification", "regression"}``: where it makes sense.
    needs : frozenset of str
        Subset of ``{"noise", "dense", "ood", "odin"}``: which optional tensors it reads
        (:attr:`FoldPrediction.hidden_noisy`, :attr:`FoldPrediction.hidden_dense`,
        :attr:`FoldPrediction.ood_outputs`, :attr:`FoldPrediction.odin_outputs` and
        :attr:`FoldPrediction.odin_ood_outputs`).
    diverged_value : float, callable Candidate -> float, or None
        The value of a candidate whose outputs or hidden values are not finite. None takes ``worst``, and
        where that is unknown -1e6 if ``maximise`` else 1e6: set it if ordinary values come near that.

    Raises
    ------
    InputError
        If a field is out of its range, or ``best`` is not better than ``worst``.
    """

    name: str
    function: Callable[[Candidate], float]
    maximise: bool = True
    best: float | None = None
    worst: float | None = None
    tasks: frozenset[str] = TASKS
    needs: frozenset[str] = frozenset()
    diverged_value: float | Callable[[Candidate], float] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise InputError(f"objective: the name is {self.name!r}; give a non-empty string")
        if not callable(self.function):
            raise InputError(
                f"objective {self.name!r}: function is a {type(self.function).__name__}; "
                "give a function of a Candidate"
            )
        for field, allowed in (("tasks", TASKS), ("needs", NEEDS)):
            value = getattr(self, field)
            if isinstance(value, str) or not frozenset(value) <= allowed:
                raise InputError(
                    f"objective {self.name!r}: {field} is {value!r}; give a set of names among "
                    f"{', '.join(sorted(allowed))}"
                )
            object.__setattr__(self, field, frozenset(value))
        if not self.tasks:
            raise InputError(f"objective {self.name!r}: tasks is empty; name at least one task")
        for field in ("best", "worst", "diverged_value"):
            value = getattr(self, field)
            if value is None or (field == "diverged_value" and callable(value)):
                continue
            if not isinstance(value, numbers.Real) or not math.isfinite(value):
                raise InputError(
                    f"objective {self.name!r}: {field} is {value!r}; give a finite number, or None if unknown"
                )
        if self.best is not None and self.worst is not None and self.best == self.worst:
            raise InputError(f"objective {self.name!r}: best and worst are both {self.best}; they must differ")
        if self.best is not None and self.worst is not None and (self.best > self.worst) != self.maximise:
            raise InputError(
                f"objective {self.name!r}: best {self.best} and worst {self.worst} do not fit "
                f"maximise={self.maximise}; swap them or change the direction"
            )

    def __call__(self, candidate: Candidate) -> float:
        """Value of a candidate, always a finite float.

        Parameters
        ----------
        candidate : Candidate
            What the trained folds predict.

        Returns
        -------
        float
            The function's value; ``diverged_value`` for a candidate that is not finite.

        Raises
        ------
        InputError
            If the function returns something that is not a finite number.
        """
        with torch.no_grad():
            if candidate.finite:
                value: Any = self.function(candidate)
            elif callable(self.diverged_value):
                value = self.diverged_value(candidate)
            elif self.diverged_value is not None:
                value = self.diverged_value
            elif self.worst is not None:
                value = self.worst
            else:
                value = -_DIVERGED if self.maximise else _DIVERGED
            return self._number(value)

    def _number(self, value: Any) -> float:
        if isinstance(value, (Tensor, np.ndarray)) and math.prod(value.shape) == 1:
            value = value.item()
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise InputError(
                f"objective {self.name!r} returned a {type(value).__name__}, not a number; return one float"
            )
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise InputError(
                f"objective {self.name!r} returned {number}; return a finite number, for example a bound"
            )
        return number

    def to_loss(self, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Turn natural values into the minimised form.

        Parameters
        ----------
        values : array of any shape
            Values in natural units.

        Returns
        -------
        ndarray of the same shape, float64
            ``1 - v`` for an objective to maximise whose best is 1, ``-v`` for any other one to maximise, and
            ``v`` for one to minimise.
        """
        array = np.array(values, dtype=np.float64)
        if not self.maximise:
            return array
        return np.asarray(1.0 - array if self.best == 1 else -array)

    def from_loss(self, losses: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Turn the minimised form back into natural values: the inverse of :meth:`to_loss`.

        Parameters
        ----------
        losses : array of any shape
            Values in the minimised form.

        Returns
        -------
        ndarray of the same shape, float64
            Values in natural units.
        """
        # 1 - v, -v and v are each their own inverse.
        return self.to_loss(losses)
