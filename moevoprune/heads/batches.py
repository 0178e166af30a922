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


@dataclass(frozen=True)
class Step:
    """One mini-batch of several heads that train side by side.

    Attributes
    ----------
    rows
        Row numbers in the training part, shape (heads, batch). Where a head's batch is shorter than the
        others', the surplus places repeat a row with weight 0.
    weight
        1 / batch length for real rows and 0 for surplus ones, shape (heads, batch, 1).
    real
        1 for real rows and 0 for surplus ones, shape (heads, batch).
    """

    rows: Tensor
    weight: Tensor
    real: Tensor


class BatchPlan:
    """The mini-batches of heads that take the same number of steps per epoch.

    Parameters
    ----------
    row_sets
        For each head, the numbers of its training rows; all must give the same number of steps per epoch.
    batch_size
        Rows per step.
    seed
        Seed of the row order.
    device, dtype
        Where the index and weight tensors live.
    """

    def __init__(
        self,
        row_sets: Sequence[npt.NDArray[np.int64]],
        batch_size: int,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        counts = {n_steps(len(rows), batch_size) for rows in row_sets}
        if len(counts) != 1:
            raise ValueError("heads with different numbers of steps per epoch cannot share a plan")
        self.n_steps = counts.pop()
        self._row_sets = [np.asarray(rows, dtype=np.int64) for rows in row_sets]
        self._batch_size = batch_size
        self._seed = seed
        self._device = device
        self._dtype = dtype
        self._cache: dict[int, list[Step]] = {}
        self._epoch_bytes = 24 * sum(len(rows) for rows in self._row_sets)

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
        steps = []
        for start in range(0, self.n_steps * self._batch_size, self._batch_size):
            batches = [order[start : start + self._batch_size] for order in orders]
            width = max(len(batch) for batch in batches)
            rows = np.stack([np.resize(batch, width) for batch in batches])
            real = np.stack([np.arange(width) < len(batch) for batch in batches])
            length = np.array([[len(batch)] for batch in batches])
            steps.append(
                Step(
                    rows=torch.from_numpy(rows).to(self._device),
                    weight=torch.from_numpy(real / length)[..., None].to(self._device, self._dtype),
                    real=torch.from_numpy(real).to(self._device, self._dtype),
                )
            )
        return steps
