"""Mini-batches: the same for every individual, and the same for every trainer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["BatchPlan", "Step", "StepCache", "epoch_order", "n_steps"]

_CACHED_BYTES = 128 * 2**20


def n_steps(n_rows: int, batch_size: int) -> int:
    """Count the steps of one epoch; the last batch may be ragged."""
    return -(-n_rows // batch_size)


def epoch_order(n_rows: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Order in which an epoch visits the rows of one head: a permutation of ``range(n_rows)``.

    It depends on the seed, the epoch and the number of rows alone, never on the mask.
    """
    return np.random.default_rng([seed, 0xBA7C, epoch]).permutation(n_rows)


@dataclass(frozen=True, eq=False)
class Step:
    """Rows of several heads that are worked on side by side: one mini-batch of each.

    The heads are those of one or more individuals, fold after fold and individual after individual. Where a
    head's batch is shorter than the others', the surplus places repeat a row with weight 0.

    Attributes
    ----------
    shape
        (heads, batch).
    rows
        Row numbers in the training part, shape (heads * batch,).
    stacked_rows
        The same in a stack of all rows for every individual, shape (heads * batch,).
    head_rows
        The same in a stack of all rows for every head, shape (heads * batch,).
    targets
        Targets of the rows (one-hot for classes), shape (heads, outputs, batch).
    scale
        What a row's gradient counts: 1 / batch, or 1 where ``weight`` says it for each row.
    weight
        Where heads have batches of different lengths, 1 / batch length for real rows and 0 for surplus ones, shape
        (heads, 1, batch); else None.
    real
        1 for real rows and 0 for surplus ones, shape (heads, batch).
    """

    shape: tuple[int, int]
    rows: Tensor
    stacked_rows: Tensor
    head_rows: Tensor
    targets: Tensor
    scale: float
    weight: Tensor | None
    real: Tensor

    @classmethod
    def side_by_side(
        cls, batches: Sequence[npt.NDArray[np.int64]], targets: Tensor, n_individuals: int = 1
    ) -> Step:
        """Put one batch of row numbers per head together.

        Parameters
        ----------
        batches
            One array of row numbers per fold, each of at least one row.
        targets
            Targets of all rows, shape (rows, outputs); gives device and precision.
        n_individuals
            Individuals that take the step on these folds.
        """
        width = max(len(batch) for batch in batches)
        rows = np.stack([np.resize(batch, width) for batch in batches])
        real = np.tile([np.arange(width) < len(batch) for batch in batches], (n_individuals, 1))
        length = np.tile([[len(batch)] for batch in batches], (n_individuals, 1))
        equal = bool((length == width).all())
        numbers = _row_numbers(rows[None], len(targets), n_individuals)
        plain, stacked, of_heads = (torch.from_numpy(part[0]).to(targets.device) for part in numbers)
        return cls(
            shape=(len(real), width),
            rows=plain,
            stacked_rows=stacked,
            head_rows=of_heads,
            targets=targets.index_select(0, plain)
            .view(len(real), width, targets.shape[1])
            .transpose(1, 2)
            .contiguous(),
            scale=1.0 / width if equal else 1.0,
            weight=None if equal else torch.from_numpy(real / length)[:, None].to(targets),
            real=torch.from_numpy(real).to(targets),
        )


class StepCache:
    """Epochs that plans have prepared, in one budget of memory for all of them.

    Where room is needed, the plans used longest ago lose all of theirs. A plan never displaces its own epochs:
    they are used in turn, so that those kept first are wanted first.

    Parameters
    ----------
    limit_bytes
        The budget.
    """

    def __init__(self, limit_bytes: int = _CACHED_BYTES) -> None:
        self._limit = limit_bytes
        self._kept: OrderedDict[Hashable, dict[int, list[Step]]] = OrderedDict()
        self._bytes: dict[Hashable, int] = {}

    @property
    def used_bytes(self) -> int:
        """What all epochs kept take."""
        return sum(self._bytes.values())

    def find(self, plan: Hashable, epoch: int) -> list[Step] | None:
        """Steps of an epoch, if they are kept; the plan counts as used."""
        if plan not in self._kept:
            return None
        self._kept.move_to_end(plan)
        return self._kept[plan].get(epoch)

    def keep(self, plan: Hashable, epoch: int, steps: list[Step], n_bytes: int) -> None:
        """Keep the steps of an epoch, if there is room or other plans can make it."""
        if self._bytes.get(plan, 0) + n_bytes > self._limit:
            return
        self._kept.setdefault(plan, {})
        self._kept.move_to_end(plan)
        while self.used_bytes + n_bytes > self._limit:
            oldest, _ = self._kept.popitem(last=False)
            del self._bytes[oldest]
        self._kept[plan][epoch] = steps
        self._bytes[plan] = self._bytes.get(plan, 0) + n_bytes


class BatchPlan:
    """The mini-batches of heads that take the same number of steps per epoch.

    Parameters
    ----------
    row_sets
        For each fold, the numbers of its training rows; all must give the same number of steps per epoch.
    targets
        Targets of all rows, shape (rows, outputs).
    batch_size
        Rows per step.
    seed
        Seed of the row order.
    n_individuals
        Individuals that are trained side by side on these folds.
    cache
        Where prepared epochs are kept: one for all plans of the same targets, among which equal ones share theirs.
        By default the plan has its own.
    """

    def __init__(
        self,
        row_sets: Sequence[npt.NDArray[np.int64]],
        targets: Tensor,
        batch_size: int,
        seed: int,
        n_individuals: int = 1,
        cache: StepCache | None = None,
    ) -> None:
        counts = {n_steps(len(rows), batch_size) for rows in row_sets}
        if len(counts) != 1:
            raise ValueError("heads with different numbers of steps per epoch cannot share a plan")
        self.n_steps = counts.pop()
        self._row_sets = [np.asarray(rows, dtype=np.int64) for rows in row_sets]
        self._targets = targets
        self._batch_size = batch_size
        self._seed = seed
        self._n_individuals = n_individuals
        self._cache = StepCache() if cache is None else cache
        self._key = (batch_size, seed, n_individuals, *(rows.tobytes() for rows in self._row_sets))
        per_row = 24 + (targets.shape[1] + 2) * targets.element_size()
        self._epoch_bytes = per_row * n_individuals * sum(len(rows) for rows in self._row_sets)

    @property
    def row_sets(self) -> list[npt.NDArray[np.int64]]:
        """For each fold, the numbers of its training rows."""
        return self._row_sets

    def epoch(self, epoch: int) -> Iterable[Step]:
        """Mini-batches of one epoch, counted from 0; prepared one by one where all together take much memory."""
        if self._epoch_bytes > _CACHED_BYTES:
            return self._one_by_one(epoch)
        steps = self._cache.find(self._key, epoch)
        if steps is None:
            steps = self._build(epoch)
            self._cache.keep(self._key, epoch, steps, self._epoch_bytes)
        return steps

    def _one_by_one(self, epoch: int) -> Iterator[Step]:
        orders = self._orders(epoch)
        for start in range(0, self.n_steps * self._batch_size, self._batch_size):
            batches = [order[start : start + self._batch_size] for order in orders]
            yield Step.side_by_side(batches, self._targets, self._n_individuals)

    def _orders(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        return [rows[epoch_order(len(rows), self._seed, epoch)] for rows in self._row_sets]

    def _build(self, epoch: int) -> list[Step]:
        orders = self._orders(epoch)
        # every head's batches but the last are full, and are prepared together
        n_full = (self.n_steps - 1) * self._batch_size
        full = np.stack([order[:n_full] for order in orders]).reshape(
            len(orders), self.n_steps - 1, self._batch_size
        )
        last = Step.side_by_side([order[n_full:] for order in orders], self._targets, self._n_individuals)
        return [*self._full_steps(np.ascontiguousarray(full.swapaxes(0, 1))), last]

    def _full_steps(self, rows: npt.NDArray[np.int64]) -> list[Step]:
        """Steps without surplus places; rows of shape (steps, folds, batch)."""
        n_steps, n_folds, width = rows.shape
        targets, n_heads = self._targets, n_folds * self._n_individuals
        numbers = _row_numbers(rows, len(targets), self._n_individuals)
        plain, stacked, of_heads = (torch.from_numpy(part).to(targets.device) for part in numbers)
        chosen = targets.index_select(0, plain.flatten()).view(n_steps, n_heads, width, targets.shape[1])
        real = targets.new_ones(n_heads, width)
        return [
            Step((n_heads, width), *parts, 1.0 / width, None, real)
            for parts in zip(
                plain.unbind(),
                stacked.unbind(),
                of_heads.unbind(),
                chosen.transpose(2, 3).contiguous().unbind(),
                strict=True,
            )
        ]


def _row_numbers(
    rows: npt.NDArray[np.int64], n_rows: int, n_individuals: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows (steps, folds, batch) as numbers in the part, in a stack of parts, and in one part per head.

    Each of shape (steps, individuals * folds * batch).
    """
    n_steps, n_folds, _ = rows.shape
    individual = np.arange(n_individuals)[:, None, None]
    fold = np.arange(n_folds)[:, None]
    plain = np.repeat(rows[:, None], n_individuals, axis=1)
    stacked = plain + individual * n_rows
    of_heads = plain + (individual * n_folds + fold) * n_rows
    flat = n_steps, n_individuals * n_folds * rows.shape[2]
    return plain.reshape(flat), stacked.reshape(flat), of_heads.reshape(flat)
