"""Slot trainers on one GPU or on several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moevoprune.device import reproducible
from moevoprune.heads.encodings import HeadMask, HeadShape
from moevoprune.heads.settings import HeadSettings
from moevoprune.heads.slots import SlotTrainer
from moevoprune.heads.stack import HeadStack
from moevoprune.heads.start import StartWeights

__all__ = ["SlotTrainers"]

Rows = npt.NDArray[np.int64]


class SlotTrainers:
    """A slot trainer per device, among which individuals are dealt out.

    Parameters
    ----------
    trainers
        At least one, all of the same data, settings and seed.
    device
        Where trained heads are handed out.
    """

    def __init__(self, trainers: Sequence[SlotTrainer], device: torch.device) -> None:
        self._trainers = list(trainers)
        self._device = device

    @classmethod
    def on_gpus(
        cls,
        jobs: int,
        features: Tensor,
        targets: Tensor,
        labels: npt.NDArray[np.generic] | None,
        shape: HeadShape,
        settings: HeadSettings,
        start: StartWeights,
        seed: int,
    ) -> SlotTrainers:
        """Put a slot trainer on the features' GPU and on those after it.

        Parameters
        ----------
        jobs
            GPUs to use; fewer if there are fewer.
        features, targets, labels, shape, settings, start, seed
            As for :class:`moevoprune.heads.slots.SlotTrainer`.
        """
        first = features.device.index or 0
        n_gpus = min(jobs, torch.cuda.device_count() - first) if jobs > 1 else 1
        devices = [features.device, *(torch.device("cuda", first + gpu) for gpu in range(1, n_gpus))]
        trainers = [
            SlotTrainer(features.to(on), targets.to(on), labels, shape, settings, start, seed) for on in devices
        ]
        return cls(trainers, features.device)

    def fits(self, mask: HeadMask) -> bool:
        """Whether heads of this mask can be trained in slots: see :meth:`SlotTrainer.fits`."""
        return self._trainers[0].fits(mask)

    def fit(
        self, masks: Sequence[HeadMask], row_sets: Sequence[Rows]
    ) -> Iterator[tuple[list[int], list[HeadStack]]]:
        """Train one head per mask and row set.

        Parameters
        ----------
        masks
            One per individual, each of which :meth:`fits`.
        row_sets
            Row numbers that a head trains on: one set per fold, at least one row each.

        Yields
        ------
        numbers, stacks
            Numbers of individuals and their heads. One GPU hands out every individual as soon as it can; several
            do so when all are done.
        """
        if len(self._trainers) == 1:
            for number, stack in enumerate(self._trainers[0].fit(masks, row_sets)):
                yield [number], [stack]
            return
        n_trainers = len(self._trainers)
        shares = [list(range(first, len(masks), n_trainers)) for first in range(n_trainers)]

        def train(trainer: SlotTrainer, share: list[int]) -> list[HeadStack]:
            stacks = trainer.fit([masks[number] for number in share], row_sets)
            return [stack.on(self._device) for stack in stacks]

        # Threads: an epoch is one call on each GPU, so that they seldom wait for the interpreter. The precision of
        # products is a setting of the whole process, which one thread must not give back while others train: that
        # is why nothing is handed out before the last is done.
        with reproducible(self._device), ThreadPoolExecutor(n_trainers) as threads:
            trained = list(threads.map(train, self._trainers, shares))
        yield from zip(shares, trained, strict=True)
