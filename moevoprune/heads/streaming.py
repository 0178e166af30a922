"""Training on rows that are read batch by batch: for sets too large to be prepared as a whole.

The ordinary weights of the gathered form take the ordinary steps. What differs is where the rows come from: a few
mini-batches are read and prepared at a time, for all individuals that are trained together, and each takes its
columns of them. An individual's heads are the same bits as in memory, whoever else is trained beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moevoprune.heads.batches import Step, epoch_order, n_steps
from moevoprune.heads.encodings import HeadMask
from moevoprune.heads.layers import GatheredWeights
from moevoprune.heads.row_sources import RowSource
from moevoprune.heads.settings import HeadSettings
from moevoprune.heads.stopping import EarlyStop
from moevoprune.heads.training import HeadsInTraining, StepLoss

__all__ = ["StreamedLayer", "StreamedRows", "fit_streaming", "groups_that_fit"]

Rows = npt.NDArray[np.int64]

# prepared rows that are held at once, and weights (with momentum and kept copies) of individuals trained together
_CHUNK_BYTES = 16 * 2**20
_GROUP_BYTES = 256 * 2**20
# weights, momentum, Adam's squares, and what early stopping keeps
_COPIES = 4


class StreamedLayer:
    """First layer over columns of the rows that were read last; see :class:`~moevoprune.heads.layers.FirstLayer`.

    Parameters
    ----------
    weights
        Its weights, as of one individual.
    inputs
        Columns that it reads, shape (inputs,).
    n_features
        Columns there are: :meth:`read` is given one of ones and one of zeros behind them.
    bias
        Whether there is a bias.
    """

    def __init__(self, weights: GatheredWeights, inputs: Tensor, n_features: int, bias: bool) -> None:
        ones, zeros = n_features, n_features + 1
        columns = inputs.new_full((weights.width,), zeros)
        columns[: len(inputs)] = inputs
        if bias:
            columns[len(inputs)] = ones
        self._columns = columns
        self._core = weights
        self._rows = weights.state
        self.state = weights.state

    def read(self, prepared: Tensor) -> None:
        """Take the layer's columns of prepared rows, shape (rows, features + 2): those that steps now number."""
        self._rows = prepared.index_select(1, self._columns)

    def forward(self, step: Step) -> Tensor:
        """See :meth:`moevoprune.heads.layers.FirstLayer.forward`."""
        return self._core.forward(self._rows.index_select(0, step.rows).view(*step.shape, -1))

    def descend(self, step: Step, gradient: Tensor, rate: float, scale: float) -> None:
        """See :meth:`moevoprune.heads.layers.FirstLayer.descend`."""
        self._core.descend(gradient, rate, scale)

    def weights(self, individual: int) -> tuple[Tensor, Tensor | None]:
        """See :meth:`moevoprune.heads.layers.FirstLayer.weights`."""
        return self._core.weights(individual)


class StreamedRows:
    """Chunks of rows with their targets, for heads on folds that take the same number of steps per epoch.

    Parameters
    ----------
    source
        Prepared rows.
    targets
        Class labels, shape (rows,), integers; or prepared regression targets, shape (rows, outputs).
    n_outputs
        Classes, or regression targets.
    row_sets
        For each fold, the numbers of its training rows.
    monitor_rows
        For each fold, rows that stop it; empty ones where training is not stopped by them.
    batch_size
        Rows per step.
    seed
        Seed of the row order.
    device, dtype
        Where rows go, and as what.
    """

    def __init__(
        self,
        source: RowSource,
        targets: npt.NDArray[np.generic],
        n_outputs: int,
        row_sets: Sequence[Rows],
        monitor_rows: Sequence[Rows],
        batch_size: int,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._source = source
        self._targets = targets
        self._n_outputs = n_outputs
        self._row_sets = row_sets
        self._monitor_rows = monitor_rows
        self._batch_size = batch_size
        self._seed = seed
        self._device = device
        self._dtype = dtype
        counts = {n_steps(len(rows), batch_size) for rows in row_sets}
        if len(counts) != 1:
            raise ValueError("folds with different numbers of steps per epoch cannot share them")
        self.n_steps = counts.pop()

    @property
    def n_folds(self) -> int:
        """Folds that share the steps."""
        return len(self._row_sets)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, list[Step]]]:
        """Chunks of one epoch, counted from 0, in its order.

        Yields
        ------
        prepared, steps
            Prepared rows of some steps, shape (rows, features + 2), the last two columns ones and zeros; and the
            steps, which number these rows.
        """
        # one epoch's order at a time: a million numbers each
        orders = [rows[epoch_order(len(rows), self._seed, epoch)] for rows in self._row_sets]
        return self._chunks(orders, self._batch_size)

    def monitor(self) -> Iterator[tuple[Tensor, list[Step]]]:
        """Chunks of the rows that stop the folds; as :meth:`epoch`, with one step for each chunk."""
        return self._chunks(self._monitor_rows, self._rows_at_once())

    def _rows_at_once(self) -> int:
        width = (self._source.shape[1] + 2) * self._dtype.itemsize
        return max(_CHUNK_BYTES // (width * self.n_folds), 1)

    def _chunks(self, orders: Sequence[Rows], batch_size: int) -> Iterator[tuple[Tensor, list[Step]]]:
        steps_at_once = max(self._rows_at_once() // batch_size, 1)
        count = n_steps(max(len(order) for order in orders), batch_size)
        for first in range(0, count, steps_at_once):
            batches = [
                [order[step * batch_size : (step + 1) * batch_size] for order in orders]
                for step in range(first, min(first + steps_at_once, count))
            ]
            yield self._chunk(batches)

    def _chunk(self, batches: list[list[Rows]]) -> tuple[Tensor, list[Step]]:
        rows = np.concatenate([batch for of_folds in batches for batch in of_folds])
        prepared = torch.empty(len(rows), self._source.shape[1] + 2, dtype=self._dtype)
        prepared[:, :-2] = torch.from_numpy(self._source.rows(rows))
        prepared[:, -2], prepared[:, -1] = 1.0, 0.0
        targets = self._prepared_targets(rows)
        steps, start = [], 0
        for of_folds in batches:
            numbers = []
            for batch in of_folds:
                numbers.append(np.arange(start, start + len(batch)))
                start += len(batch)
            steps.append(Step.side_by_side(numbers, targets))
        return prepared.to(self._device), steps

    def _prepared_targets(self, rows: Rows) -> Tensor:
        targets = torch.from_numpy(self._targets[rows]).to(self._device)
        if np.issubdtype(self._targets.dtype, np.integer):
            targets = torch.nn.functional.one_hot(targets.long(), self._n_outputs)
        return targets.to(self._dtype)


def groups_that_fit(
    numbers: Sequence[int],
    masks: Sequence[HeadMask],
    n_outputs: int,
    n_heads: int,
    dtype: torch.dtype,
    most: int,
) -> list[list[int]]:
    """Divide individuals into groups, in order, whose heads fit in memory while they train; at least one in each.

    Parameters
    ----------
    numbers
        Numbers of the individuals.
    masks
        One per number there is.
    n_outputs
        Outputs of a head.
    n_heads
        Heads of an individual.
    dtype
        Number format of their weights.
    most
        Individuals in a group, at most.
    """
    groups: list[list[int]] = []
    used = 0
    for number in numbers:
        needed = _COPIES * dtype.itemsize * n_heads * masks[number].n_parameters(n_outputs, bias=True)
        if not groups or len(groups[-1]) == most or used + needed > _GROUP_BYTES:
            groups.append([])
            used = 0
        groups[-1].append(number)
        used += needed
    return groups


def fit_streaming(
    rows: StreamedRows, group: Sequence[HeadsInTraining], settings: HeadSettings, rates: Sequence[float]
) -> list[EarlyStop]:
    """Train the heads of a group of individuals, batch by batch; each stops for itself.

    Parameters
    ----------
    rows
        What they are trained on.
    group
        One entry per individual, with a :class:`StreamedLayer` first; left with the weights that early stopping
        says to keep.
    settings
        How heads are trained.
    rates
        Learning rates of all steps of all epochs.

    Returns
    -------
    list of EarlyStop
        One per individual, with its losses and epochs.
    """
    everyone = [_Individual(heads, EarlyStop(settings, rows.n_folds, heads.states)) for heads in group]
    running = everyone
    for epoch in range(settings.epochs):
        # the running loss is wanted by early stopping, and as a figure of the last epoch
        track = settings.early_stop != "none" or epoch == settings.epochs - 1
        number = epoch * rows.n_steps
        for prepared, steps in rows.epoch(epoch):
            for individual in running:
                individual.train(prepared, steps, rates[number : number + len(steps)], track)
            number += len(steps)
        if not track:
            continue
        losses = [individual.take_loss() for individual in running]
        watched = losses
        if settings.early_stop == "validation":
            for prepared, steps in rows.monitor():
                for individual in running:
                    individual.look(prepared, steps)
            watched = [individual.take_loss() for individual in running]
        seen = zip(running, losses, watched, strict=True)
        running = [one for one, loss, monitored in seen if not one.stop.update(epoch, loss, monitored)]
        if not running:
            break
    for individual in everyone:
        individual.stop.restore()
    return [individual.stop for individual in everyone]


class _Individual:
    """Heads in training, what stops them, and the losses of the rows that they have seen."""

    def __init__(self, heads: HeadsInTraining, stop: EarlyStop) -> None:
        if not isinstance(heads.first, StreamedLayer):
            raise TypeError("heads that are trained batch by batch need a StreamedLayer first")
        self.stop = stop
        self._heads = heads
        self._first = heads.first
        self._losses: list[tuple[Tensor, Tensor]] = []

    def train(self, prepared: Tensor, steps: list[Step], rates: Sequence[float], track: bool) -> None:
        self._first.read(prepared)
        outputs: list[StepLoss] | None = [] if track else None
        for step, rate in zip(steps, rates, strict=True):
            self._heads.step(step, rate, outputs)
        if outputs is not None:
            # one number a row: the outputs of an epoch would take much memory
            self._losses.append(self._heads.row_losses(outputs))

    def look(self, prepared: Tensor, steps: list[Step]) -> None:
        self._first.read(prepared)
        self._losses += [self._heads.row_losses([(self._heads.outputs(step), step)]) for step in steps]

    def take_loss(self) -> Tensor:
        """Mean loss of each head over the rows since the last call, shape (heads,)."""
        values, real = zip(*self._losses, strict=True)
        self._losses = []
        return HeadsInTraining.mean_of_rows(torch.cat(values, dim=1), torch.cat(real, dim=1))
