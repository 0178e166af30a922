"""Mini-batches: the same for every individual, and the same for every trainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["BatchPlan", "Step", "epoch_order", "n_steps"]

_CACHE_LIMIT_BYTES = 128 * 2**20


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

    Where a head's batch is shorter than the others', the surplus places repeat a row with weight 0.

    Attributes
    ----------
    shape
        (heads, batch).
    rows
        Row numbers in the training part, shape (heads * batch,).
    head_rows
        The same in a stack of all rows for every head, shape (heads * batch,).
    targets
        Targets of the rows (one-hot for classes), shape (heads, batch, outputs).
    weight
        1 / batch length for real rows and 0 for surplus ones, shape (heads, batch, 1).
    real
        1 for real rows and 0 for surplus ones, shape (heads, batch).
    """

    shape: tuple[int, int]
    rows: Tensor
    head_rows: Tensor
    targets: Tensor
    weight: Tensor
    real: Tensor

    @classmethod
    def side_by_side(cls, batches: Sequence[npt.NDArray[np.int64]], targets: Tensor) -> Step:
        """Put one batch of row numbers per head together.

        Parameters
        ----------
        batches
            One array of row numbers per head, each of at least one row.
        targets
            Targets of all rows, shape (rows, outputs); gives device and precision.
        """
        width = max(len(batch) for batch in batches)
        shape = (len(batches), width)
        rows = np.stack([np.resize(batch, width) for batch in batches])
        real = np.stack([np.arange(width) < len(batch) for batch in batches])
        length = np.array([[len(batch)] for batch in batches])
        offset = np.arange(len(batches))[:, None] * len(targets)
        flat = torch.from_numpy(rows.ravel()).to(targets.device)
        return cls(
            shape=shape,
            rows=flat,
            head_rows=torch.from_numpy((rows + offset).ravel()).to(targets.device),
            targets=targets.index_select(0, flat).view(*shape, targets.shape[1]),
            weight=torch.from_numpy(real / length)[..., None].to(targets),
            real=torch.from_numpy(real).to(targets),
        )


class BatchPlan:
    """The mini-batches of heads that take the same number of steps per epoch.

    Parameters
    ----------
    row_sets
        For each head, the numbers of its training rows; all must give the same number of steps per epoch.
    targets
        Targets of all rows, shape (rows, outputs).
    batch_size
        Rows per step.
    seed
        Seed of the row order.
    """

    def __init__(
        self,
        row_sets: Sequence[npt.NDArray[np.int64]],
        targets: Tensor,
        batch_size: int,
        seed: int,
    ) -> None:
        counts = {n_steps(len(rows), batch_size) for rows in row_sets}
        if len(counts) != 1:
            raise ValueError("heads with different numbers of steps per epoch cannot share a plan")
        self.n_steps = counts.pop()
        self._row_sets = [np.asarray(rows, dtype=np.int64) for rows in row_sets]
        self._targets = targets
        self._batch_size = batch_size
        self._seed = seed
        self._cache: dict[int, list[Step]] = {}
        per_row = 16 + (targets.shape[1] + 2) * targets.element_size()
        self._epoch_bytes = per_row * sum(len(rows) for rows in self._row_sets)

    def epoch(self, epoch: int) -> list[Step]:
        """Mini-batches of one epoch, counted from 0."""
        steps = self._cache.get(epoch)
        if steps is None:
            steps = self._build(epoch)
            if (len(self._cache) + 1) * self._epoch_bytes <= _CACHE_LIMIT_BYTES:
                self._cache[epoch] = steps
        return steps

    def _build(self, epoch: int) -> list[Step]:
        orders = [rows[epoch_order(len(rows), self._seed, epoch)] for rows in self._row_sets]
        # every head's batches but the last are full, and are prepared together
        n_full = (self.n_steps - 1) * self._batch_size
        full = np.stack([order[:n_full] for order in orders]).reshape(
            len(orders), self.n_steps - 1, self._batch_size
        )
        last = Step.side_by_side([order[n_full:] for order in orders], self._targets)
        return [*self._full_steps(np.ascontiguousarray(full.swapaxes(0, 1))), last]

    def _full_steps(self, rows: npt.NDArray[np.int64]) -> list[Step]:
        """Steps without surplus places; rows of shape (steps, heads, batch)."""
        n_steps, n_heads, width = rows.shape
        targets = self._targets
        offset = np.arange(n_heads)[:, None] * len(targets)
        flat = torch.from_numpy(rows.reshape(n_steps, n_heads * width)).to(targets.device)
        head_flat = torch.from_numpy((rows + offset).reshape(n_steps, n_heads * width)).to(targets.device)
        chosen = targets.index_select(0, flat.flatten()).view(n_steps, n_heads, width, targets.shape[1])
        real = targets.new_ones(n_heads, width)
        weight = targets.new_full((n_heads, width, 1), 1.0 / width)
        return [
            Step((n_heads, width), *parts, weight, real)
            for parts in zip(flat.unbind(), head_flat.unbind(), chosen.unbind(), strict=True)
        ]
