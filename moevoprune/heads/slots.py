"""The population trainer for a GPU: a constant number of slots, each training one head, side by side.

A slot holds one head, that is one mask on one set of rows, with its first layer in the exact dual form of
:mod:`moevoprune.heads.layers`. All tensors have shapes that follow from the settings and the row sets alone:
masked hidden units are columns of zeros, which stay zero without further care (a ReLU at 0 passes no gradient),
and masked inputs are left out of the Gram matrix and the start. Every slot has its own mask, epoch, row order and
learning rate. When a head is finished or stops early, the next one takes its slot; slots without a head do the
same arithmetic with learning rate 0. So a head meets the same operations on the same shapes whoever is beside
it, and one epoch of all slots is one CUDA graph.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moevoprune.device import reproducible
from moevoprune.errors import InputError
from moevoprune.heads.encodings import HeadMask, HeadShape
from moevoprune.heads.settings import HeadSettings
from moevoprune.heads.slot_tensors import (
    MaskedStart,
    SlotHead,
    SlotPlan,
    SlotTensors,
    bytes_needed,
    pad_rows,
    release_memory,
)
from moevoprune.heads.stack import HeadStack
from moevoprune.heads.start import StartWeights
from moevoprune.heads.stopping import monitor_split
from moevoprune.memory import NotEnoughMemory, is_out_of_memory, say_fewer

__all__ = ["LARGEST_GRAM_BYTES", "SLOT_COUNTS", "SlotTrainer"]

# The last digits of a batched product may depend on how many it does at once, so that there are few choices; a
# batch of one takes another way in PyTorch, also on CPU, and is none of them.
SLOT_COUNTS = (128, 64, 32, 16, 8, 4, 2)
# in double precision, whatever is computed in: the rule must not depend on the device or its free memory
LARGEST_GRAM_BYTES = 2**30

_CPU_SLOTS = 8
_SHARE_OF_FREE_MEMORY = 0.6
# beyond this a captured epoch takes longer to build than launching its kernels one by one does
_LARGEST_GRAPH_STEPS = 1024

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class SlotTrainer:
    """Trains masked heads of many individuals on fixed features, in a constant number of slots.

    Every head is what :func:`moevoprune.heads.reference.train_reference_head` computes alone: same start, same
    batches, same stopping. It does not depend on the other heads, on its slot or on when it got it.

    Parameters
    ----------
    features
        Prepared features of the training part, shape (rows, features); gives device and precision.
    targets
        One-hot classes or prepared regression targets, shape (rows, outputs), like the features.
    labels
        Class labels, shape (rows,); None in regression.
    shape
        Widths of the dense head.
    settings
        How heads are trained.
    start
        Start weights of this shape, these settings and this seed.
    seed
        Seed of the row order and of the rows that stop the training.
    n_slots
        Heads side by side. By default the largest of ``SLOT_COUNTS`` that fits into ``memory_bytes``, on CPU 8
        at most.
    memory_bytes
        Memory to plan with: by default 60 % of what is free on the GPU at construction. Where it proves too
        little, the slots are halved, and the heads that were in them start again.
    use_graph
        Whether an epoch is captured as a CUDA graph: by default on CUDA devices.

    Raises
    ------
    InputError
        ``n_slots`` is below 2, or a graph is asked for on a device that has none.
    """

    def __init__(
        self,
        features: Tensor,
        targets: Tensor,
        labels: npt.NDArray[np.generic] | None,
        shape: HeadShape,
        settings: HeadSettings,
        start: StartWeights,
        seed: int,
        n_slots: int | None = None,
        memory_bytes: int | None = None,
        use_graph: bool | None = None,
    ) -> None:
        on_cuda = features.is_cuda
        if n_slots is not None and n_slots < SLOT_COUNTS[-1]:
            raise InputError(f"n_slots = {n_slots}: use at least {SLOT_COUNTS[-1]}")
        if use_graph and not on_cuda:
            raise InputError(f"CUDA graphs need a CUDA device, not {features.device}")
        self._device = features.device
        self._n_rows = len(features)
        self._features, self._targets = pad_rows(features), pad_rows(targets)
        self._labels = labels
        self._shape = shape
        self._settings = settings
        self._seed = seed
        self._start = start
        # in double precision, so that start weights are those of all other trainers to the last bit
        self._draws = [torch.from_numpy(draw).to(self._device) for draw in start.draws]
        self._use_graph = on_cuda if use_graph is None else use_graph
        self._largest_n_slots = n_slots or (SLOT_COUNTS[0] if on_cuda else _CPU_SLOTS)
        self._fixed_n_slots = n_slots
        if memory_bytes is None and on_cuda:
            memory_bytes = int(torch.cuda.mem_get_info(self._device)[0] * _SHARE_OF_FREE_MEMORY)
        self._memory_bytes = memory_bytes
        self._said = False
        self._last_start: MaskedStart | None = None
        # plan and slots of the last row sets, unless a generator is using the slots
        self._last_plan: tuple[tuple[bytes, ...], SlotPlan] | None = None
        self._idle_slots: SlotTensors | None = None

    def fits(self, mask: HeadMask) -> bool:
        """Whether heads of this mask can be trained here; a function of data size, settings and mask alone.

        The dual form is for SGD without weight decay, for masks of inputs and units, and for a number of rows
        whose Gram matrix is at most a gigabyte in double precision (11,585 rows).
        """
        settings = self._settings
        plain_sgd = settings.optimiser == "sgd" and not settings.weight_decay
        return plain_sgd and mask.connections is None and self._n_rows**2 * 8 <= LARGEST_GRAM_BYTES

    def n_slots(self, row_sets: Sequence[Rows]) -> int:
        """Heads that are trained side by side on these row sets."""
        if self._fixed_n_slots is not None or self._memory_bytes is None:
            return self._largest_n_slots
        plan, item = self._plan(row_sets), self._features.element_size()
        for count in SLOT_COUNTS:
            if count <= self._largest_n_slots:
                needed = bytes_needed(plan, self._shape, self._settings, len(self._features), count, item)
                if needed <= self._memory_bytes:
                    return count
        return SLOT_COUNTS[-1]

    def fit(self, masks: Sequence[HeadMask], row_sets: Sequence[Rows]) -> Iterator[HeadStack]:
        """Train one head per mask and row set.

        Parameters
        ----------
        masks
            One per individual, each of which :meth:`fits`.
        row_sets
            Row numbers that a head trains on: one set per fold, at least one row each.

        Yields
        ------
        HeadStack
            Per mask, in order, as soon as it and those before it are trained; its heads follow ``row_sets``.

        Raises
        ------
        ValueError
            A mask has no dual form.
        InputError
            The device's memory does not hold two heads.
        """
        if not all(self.fits(mask) for mask in masks):
            raise ValueError("a mask or the settings have no dual form: ask fits() first")
        if not masks:
            return
        plan = self._plan(row_sets)
        queue = _Queue(masks, len(row_sets), self._settings)
        slots: SlotTensors | None = None
        for number in range(len(masks)):
            # not around the yield: the caller's state is its own
            with reproducible(self._device), self._current_device():
                while not queue.is_finished(number):
                    try:
                        if slots is None:
                            slots = self._take_slots(plan, row_sets)
                            queue.occupy(slots.n_slots)
                        self._train_epoch(queue, slots)
                        continue
                    except (MemoryError, RuntimeError) as error:
                        if not is_out_of_memory(error):
                            raise
                    # after the except clause, whose exception keeps the tensors of its frames alive
                    slots = None
                    queue.give_up()
                    self._halve_slots(row_sets)
                stack = queue.pop(number)
            if number == len(masks) - 1:
                # all are empty now: for the next call, and before the last stack, after which the caller may leave
                self._idle_slots = slots
            yield stack

    def _train_epoch(self, queue: _Queue, slots: SlotTensors) -> None:
        """Fill empty slots, train one epoch of all, and take out the heads that are finished."""
        for slot in queue.empty_slots():
            head = queue.waiting[0] if queue.waiting else None
            if head is None or not slots.place(int(slot), self._start_of(queue.masks[head[0]])):
                break
            queue.enter(int(slot))
        slots.train(queue.fold, queue.epoch)
        if not queue.needs_losses():
            queue.pass_epoch(None, None)
            return
        train_loss, watched = slots.read_losses()
        slots.keep(queue.pass_epoch(train_loss, watched))
        for slot in queue.finished_slots():
            start = self._start_of(queue.masks[queue.mask[slot]])
            queue.leave(int(slot), slots.take_out(int(slot), start))

    def _start_of(self, mask: HeadMask) -> MaskedStart:
        # the folds of an individual enter one after another, and often leave so
        if self._last_start is None or self._last_start.mask is not mask:
            self._last_start = MaskedStart(mask, self._features, self._draws, self._start)
        return self._last_start

    def _plan(self, row_sets: Sequence[Rows]) -> SlotPlan:
        key = tuple(np.asarray(rows, dtype=np.int64).tobytes() for rows in row_sets)
        if self._last_plan is None or self._last_plan[0] != key:
            split = [(rows, rows[:0]) for rows in row_sets]
            if self._settings.early_stop == "validation":
                split = [monitor_split(rows, self._labels, self._seed) for rows in row_sets]
            self._last_plan = key, SlotPlan.of(split, self._settings, self._seed, self._features)
        return self._last_plan[1]

    def _take_slots(self, plan: SlotPlan, row_sets: Sequence[Rows]) -> SlotTensors:
        slots, self._idle_slots = self._idle_slots, None
        n_slots = self.n_slots(row_sets)
        if slots is not None and slots.plan is plan and slots.n_slots == n_slots:
            return slots
        del slots
        classification = self._labels is not None
        slots = SlotTensors(
            self._features, self._targets, classification, self._shape, self._settings, plan, n_slots
        )
        if self._use_graph and plan.n_steps <= _LARGEST_GRAPH_STEPS:
            slots.capture()
        return slots

    def _halve_slots(self, row_sets: Sequence[Rows]) -> None:
        gc.collect()
        n_slots = self.n_slots(row_sets)
        self._last_start = None
        if self._features.is_cuda:
            release_memory()
        if n_slots == SLOT_COUNTS[-1]:
            raise NotEnoughMemory(
                f"out of memory on {self._device}: it does not hold {n_slots} heads on {self._n_rows} rows; "
                "use device cpu, fewer rows, or narrower hidden layers"
            )
        self._largest_n_slots = max(n_slots // 2, SLOT_COUNTS[-1])
        self._fixed_n_slots = None if self._fixed_n_slots is None else self._largest_n_slots
        if not self._said:
            self._said = True
            say_fewer(
                "train heads", "changes last digits at most" if self._features.is_cuda else "changes nothing else"
            )

    def _current_device(self) -> AbstractContextManager[object]:
        return torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext()


class _Queue:
    """Which heads wait, train and are finished, and what early stopping knows about those that train.

    Attributes
    ----------
    masks
        One per individual.
    waiting
        Heads that no slot has had yet: individual and fold.
    mask, fold, epoch
        For each slot, the individual (-1 for none), the fold (-1 for none) and the epochs trained.
    """

    def __init__(self, masks: Sequence[HeadMask], n_folds: int, settings: HeadSettings) -> None:
        self.masks = masks
        self.waiting = deque((number, fold) for number in range(len(masks)) for fold in range(n_folds))
        self._n_folds = n_folds
        self._settings = settings
        self._early = settings.early_stop != "none"
        self._finished: dict[int, dict[int, tuple[SlotHead, float, int]]] = {}
        self.occupy(0)

    def occupy(self, n_slots: int) -> None:
        """Work with so many empty slots."""
        self.mask = np.full(n_slots, -1)
        self.fold = np.full(n_slots, -1)
        self.epoch = np.zeros(n_slots, dtype=np.int64)
        self._best = np.full(n_slots, np.inf)
        self._waited = np.zeros(n_slots, dtype=np.int64)
        self._loss = np.full(n_slots, np.nan)

    def give_up(self) -> None:
        """Let the heads in the slots start again."""
        heads = [(int(self.mask[slot]), int(self.fold[slot])) for slot in np.flatnonzero(self.mask >= 0)]
        self.waiting.extendleft(sorted(heads, reverse=True))
        self.occupy(0)

    def empty_slots(self) -> Rows:
        """Slots without a head."""
        return np.flatnonzero(self.mask < 0)

    def enter(self, slot: int) -> None:
        """Move the first head that waits into a slot."""
        self.mask[slot], self.fold[slot] = self.waiting.popleft()
        self.epoch[slot] = self._waited[slot] = 0
        self._best[slot], self._loss[slot] = np.inf, np.nan

    def needs_losses(self) -> bool:
        """Whether the losses of the epoch that is under way must be known."""
        return self._early or bool((self.epoch[self.mask >= 0] == self._settings.epochs - 1).any())

    def pass_epoch(self, train_loss: Floats | None, watched: Floats | None) -> npt.NDArray[np.bool_]:
        """Take note of an epoch; returns which slots have just been at their best, shape (slots,)."""
        running = self.mask >= 0
        self.epoch[running] += 1
        better = np.zeros(len(running), dtype=np.bool_)
        if train_loss is not None and watched is not None:
            self._loss = train_loss
            if self._early:
                better = running & (watched < self._best - self._settings.min_delta)
                self._best[better] = watched[better]
                self._waited = np.where(better, 0, self._waited + 1)
        return better

    def finished_slots(self) -> Rows:
        """Slots whose head is finished."""
        finished = self.epoch >= self._settings.epochs
        if self._early:
            finished |= self._waited >= self._settings.patience
        return np.flatnonzero(finished & (self.mask >= 0))

    def leave(self, slot: int, head: SlotHead) -> None:
        """Move the trained head of a slot to the finished ones."""
        folds = self._finished.setdefault(int(self.mask[slot]), {})
        folds[int(self.fold[slot])] = head, float(self._loss[slot]), int(self.epoch[slot])
        self.mask[slot] = self.fold[slot] = -1

    def is_finished(self, number: int) -> bool:
        """Whether all heads of an individual are finished."""
        return len(self._finished.get(number, ())) == self._n_folds

    def pop(self, number: int) -> HeadStack:
        """Hand out the heads of an individual."""
        folds = [fold for _, fold in sorted(self._finished.pop(number).items())]
        heads = [head for head, _, _ in folds]
        biases = []
        for layer in zip(*(head.biases for head in heads), strict=True):
            present = [bias for bias in layer if bias is not None]
            biases.append(torch.stack(present) if present else None)
        return HeadStack(
            self.masks[number],
            tuple(torch.stack(layer) for layer in zip(*(head.weights for head in heads), strict=True)),
            tuple(biases),
            np.array([loss for _, loss, _ in folds]),
            np.array([epochs for _, _, epochs in folds], dtype=np.int64),
        )
