"""What the ways to choose an ensemble's members see: validation predictions of a front, and no test row."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError
from moevoprune.fronts.front import Front
from moevoprune.fronts.predictions import check_present
from moevoprune.heads.ensemble import head_is_sound

__all__ = ["FeatureUnion", "Pool", "Votes"]

Array = npt.NDArray[Any]
Bits = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

#: Votes of every member of a pool, at least 0, shape (k,).
Votes = npt.NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Pool:
    """What the ways to choose see: the members that have not diverged, and no test row.

    Attributes
    ----------
    task
        ``"classification"`` or ``"regression"``.
    members
        Numbers in the front, rising and so from fewest bits to most, shape (k,), k >= 1.
    predictions
        Of the heads that were trained without a row's fold: class probabilities, or targets in units of their
        standard deviations; shape (k, rows, outputs).
    targets
        Class labels, shape (rows,), or targets in the same units, shape (rows, outputs).
    reads
        Which features each member reads, shape (k, n_features).
    losses
        Minimised objectives, shape (k, n_obj).
    """

    task: Literal["classification", "regression"]
    members: Indices
    predictions: Array
    targets: Array
    reads: Bits
    losses: Values

    @classmethod
    def of(cls, front: Front) -> Pool:
        """Take what is needed from a front.

        Raises
        ------
        InputError
            The front has no predictions, no members, or only diverged ones.
        """
        predicted = check_present(front.predictions)
        outputs, targets = predicted.validation_outputs[:-1], predicted.validation_targets
        sound: Bits = np.asarray(np.isfinite(outputs).all(axis=(1, 2)))
        for member, head in enumerate(front.heads):
            sound[member] &= head_is_sound(head)
        members: Indices = np.flatnonzero(sound).astype(np.int64)
        if len(members) == 0 or len(targets) == 0:
            raise InputError("the front has no members that could vote: all have diverged, or there are none")
        values = outputs[members].astype(np.float64)
        if predicted.task == "classification":
            values = np.exp(values - values.max(axis=2, keepdims=True))
            values /= values.sum(axis=2, keepdims=True)
        else:
            scale = targets.std(axis=0, dtype=np.float64)
            scale = np.where(scale > 0, scale, 1.0)
            values, targets = values / scale, targets / scale
        reads = np.zeros((len(members), front.dense_head.n_features), dtype=np.bool_)
        for row, member in zip(reads, members, strict=True):
            row[front.heads[member].inputs] = True
        return cls(predicted.task, members, values, targets, reads, front.F[members])

    @cached_property
    def quality(self) -> Values:
        """Accuracy, or R² averaged over the targets, of each member on the validation rows, shape (k,)."""
        if self.task == "classification":
            accuracy: Values = np.mean(self.labels == self.targets, axis=1)
            return accuracy
        spread = self.targets - self.targets.mean(axis=0)
        total = (spread**2).sum(axis=0)
        # a constant target cannot be explained: the members' errors in it count for nothing
        left = ((self.predictions - self.targets) ** 2).sum(axis=1) / np.where(total > 0, total, np.inf)
        r2: Values = 1 - left.mean(axis=1)
        return r2

    @cached_property
    def labels(self) -> Indices:
        """Predicted classes, shape (k, rows)."""
        labels: Indices = self.predictions.argmax(axis=2)
        return labels

    @cached_property
    def by_quality(self) -> Indices:
        """Places of the members in the pool, the best first, of equals the one with fewest bits; shape (k,)."""
        return np.argsort(-self.quality, kind="stable")

    @cached_property
    def error_products(self) -> Values:
        """Mean over the rows of the products of every two members' errors, shape (k, k)."""
        known = np.eye(self.predictions.shape[2])[self.targets] if self.task == "classification" else self.targets
        errors = (self.predictions - known).reshape(len(self.members), -1)
        products: Values = errors @ errors.T / len(self.targets)
        return products

    @property
    def metric(self) -> str:
        """What :attr:`quality` is, for people."""
        return "accuracy" if self.task == "classification" else "R²"

    @property
    def n_features(self) -> int:
        """Features that the dense head reads."""
        return int(self.reads.shape[1])


class FeatureUnion:
    """Features that the members chosen so far read together, and who may join them.

    Parameters
    ----------
    pool
        The members.
    limit
        Most features that the chosen ones may read together.
    """

    def __init__(self, pool: Pool, limit: int) -> None:
        self._reads = pool.reads
        self._limit = limit
        self._read = np.zeros(pool.n_features, dtype=np.bool_)

    def new(self) -> Indices:
        """Features that each member would bring, shape (k,)."""
        counts: Indices = self._reads[:, ~self._read].sum(axis=1)
        return counts

    def fits(self) -> Bits:
        """Members that may join, shape (k,)."""
        fitting: Bits = self.new() + int(self._read.sum()) <= self._limit
        return fitting

    def add(self, place: int | np.integer[Any]) -> None:
        """Let the member at a place of the pool join."""
        self._read |= self._reads[place]
