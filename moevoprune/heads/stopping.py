"""Early stopping of heads that train side by side: each stops for itself."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moevoprune.heads.settings import HeadSettings

__all__ = ["MONITOR_SHARE", "EarlyStop", "monitor_split"]

MONITOR_SHARE = 0.1


def monitor_split(
    rows: npt.NDArray[np.int64], labels: npt.NDArray[np.generic] | None, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Take a tenth of a head's training rows aside, to stop its training by.

    Parameters
    ----------
    rows
        Row numbers that the head may train on.
    labels
        Class labels of all rows, for a stratified share; None in regression.
    seed
        Seed of the choice.

    Returns
    -------
    training rows, monitor rows
        At least one row each where there are two or more; a class keeps at least one training row.
    """
    generator = np.random.default_rng([seed, 0x5709])
    if len(rows) < 2:
        return rows, rows
    groups = [rows] if labels is None else [rows[labels[rows] == c] for c in np.unique(labels[rows])]
    monitor = []
    for group in groups:
        n_monitor = min(round(MONITOR_SHARE * len(group)), len(group) - 1)
        monitor.append(generator.permutation(group)[:n_monitor])
    taken = np.sort(np.concatenate(monitor))
    if len(taken) == 0:
        largest = max(groups, key=len)
        taken = largest[-1:] if len(largest) > 1 else rows[-1:]
    return np.setdiff1d(rows, taken, assume_unique=True), taken


class EarlyStop:
    """Watches the loss of each head, keeps its best epoch and says when all have stopped.

    As Keras' callback: a head stops after ``patience`` epochs in a row without a gain of ``min_delta`` over its
    best loss, and gets its best epoch's weights back.

    Parameters
    ----------
    settings
        ``early_stop``, ``patience`` and ``min_delta``.
    n_heads
        Number of heads.
    states
        Tensors that training changes, one slice per head.
    """

    def __init__(self, settings: HeadSettings, n_heads: int, states: list[Tensor]) -> None:
        self._active = settings.early_stop != "none"
        self._patience = settings.patience
        self._min_delta = settings.min_delta
        self._states = states if self._active else []
        self._kept = [state.clone() for state in states] if self._active else []
        self._best = np.full(n_heads, np.inf)
        self._waited = np.zeros(n_heads, dtype=np.int64)
        self._stopped = np.zeros(n_heads, dtype=np.bool_)
        self.train_loss = np.full(n_heads, np.nan)
        self.epochs = np.zeros(n_heads, dtype=np.int64)

    def update(self, epoch: int, losses: Tensor, monitored: Tensor) -> bool:
        """Take note of an epoch; returns whether every head has stopped.

        Parameters
        ----------
        epoch
            Number of the epoch, from 0.
        losses, monitored
            Training loss and watched loss of each head, shape (heads,).
        """
        running = ~self._stopped
        self.epochs[running] = epoch + 1
        self.train_loss[running] = losses.double().cpu().numpy()[running]
        if not self._active:
            return False
        values = monitored.double().cpu().numpy()
        better = running & (values < self._best - self._min_delta)
        self._best[better] = values[better]
        self._waited = np.where(better, 0, self._waited + 1)
        self._stopped |= self._waited >= self._patience
        if better.all():
            for kept, state in zip(self._kept, self._states, strict=True):
                kept.copy_(state)
        elif better.any():
            heads = torch.from_numpy(np.flatnonzero(better)).to(monitored.device)
            for kept, state in zip(self._kept, self._states, strict=True):
                kept.index_copy_(0, heads, state.index_select(0, heads))
        return bool(self._stopped.all())

    def restore(self) -> None:
        """Give every head the weights of its best epoch."""
        for kept, state in zip(self._kept, self._states, strict=True):
            state.copy_(kept)
