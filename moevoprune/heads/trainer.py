"""The population trainer: trains every masked head of a batch of individuals, on every fold."""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moevoprune.device import reproducible, resolve_device
from moevoprune.errors import RunWarning
from moevoprune.heads.batches import BatchPlan, Step, StepCache, n_steps
from moevoprune.heads.encodings import HeadMask, HeadShape
from moevoprune.heads.gpus import SlotTrainers
from moevoprune.heads.gram import GramMatrices
from moevoprune.heads.grouping import Form, Grouping
from moevoprune.heads.layers import DenseLayer, DualLayer, FirstLayer, GatheredLayer, GatheredWeights
from moevoprune.heads.row_sources import RowSource
from moevoprune.heads.settings import HeadSettings
from moevoprune.heads.slot_tensors import release_memory
from moevoprune.heads.stack import HeadStack, StackArrays
from moevoprune.heads.start import StartWeights
from moevoprune.heads.stopping import EarlyStop, monitor_split
from moevoprune.heads.streaming import StreamedLayer, StreamedRows, fit_streaming
from moevoprune.heads.training import EpochLoss, HeadsInTraining
from moevoprune.heads.workers import WorkerPool
from moevoprune.memory import Chunk

__all__ = ["TRAINER_VERSION", "Form", "HeadStack", "PopulationTrainer"]

# part of a fitness's identity: raise it with any change that alters trained weights
TRAINER_VERSION = 3

Rows = npt.NDArray[np.int64]
Kept = tuple[npt.NDArray[np.bool_], ...]
Task = tuple[list[HeadMask], list[Rows]]
# of a task: the heads of each individual, and how many could be trained at once where memory was refused
Trained = tuple[list[StackArrays], "int | None"]
Recipe = tuple[
    "npt.NDArray[np.floating] | RowSource",
    npt.NDArray[np.generic],
    HeadShape,
    HeadSettings,
    int,
    torch.dtype,
    Form,
]

# individuals that are looked at together to find those of equal size; bounds the heads kept in memory
_WINDOW = 64
# a process takes seconds to start: not before there has been as much to do
_SECONDS_ALONE = 2.0
# each process has its own copy of features in memory, of all together at most so much
_COPIED_BYTES = 4 * 2**30


class PopulationTrainer:
    """Trains masked heads of many individuals on fixed features.

    Every individual's heads are what :func:`moevoprune.heads.reference.train_reference_head` computes alone:
    same start, same batches, same stopping. They do not depend on the other individuals of the batch, nor on how
    many heads are trained side by side: that number is halved whenever memory is refused, which is said once.

    Parameters
    ----------
    features
        Prepared (standardised where asked for) features of the training part, shape (rows, features); or where to
        read them, batch by batch. Heads are then trained in the gathered form, to the same bits.
    targets
        Class labels, shape (rows,), integers; or prepared regression targets, shape (rows, outputs), floats.
    shape
        Widths of the dense head.
    settings
        How heads are trained.
    seed
        Seed of start weights and row order.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    dtype
        ``torch.float32`` or ``torch.float64``.
    form
        ``"auto"`` chooses per individual, by cost, between the exact ``"dual"`` form of the first layer and the
        ``"gathered"`` one (ordinary weights of the active columns). Weight decay, Adam and single-connection
        masks have no dual form here and are always gathered.
    jobs
        Processes that train heads side by side, or on CUDA GPUs, ``cuda:0`` and those after it; changes nothing
        but time.
    """

    def __init__(
        self,
        features: npt.NDArray[np.floating] | RowSource,
        targets: npt.NDArray[np.generic],
        shape: HeadShape,
        settings: HeadSettings,
        seed: int,
        device: str = "auto",
        dtype: torch.dtype = torch.float32,
        form: Form = "auto",
        jobs: int = 1,
    ) -> None:
        self._busy_seconds = 0.0
        self._slots: SlotTrainers | None = None
        self._pool: WorkerPool[Task, Trained] | None = None
        self.shape = shape
        self.settings = settings
        self.device = resolve_device(device)
        self._chunk = Chunk("train heads", self.free, self.relieve)
        self.dtype = dtype
        self._seed = seed
        self._start = StartWeights(shape, settings, seed)
        self.source = None if isinstance(features, np.ndarray) else features
        streamed = self.source is not None
        self.grouping = Grouping(shape, settings, len(targets), dtype, form, streamed, jobs)
        # of rows that are read when they are needed, none is here
        held = features if isinstance(features, np.ndarray) else np.empty((0, features.shape[1]))
        self._all_targets = targets
        targets = targets if self.source is None else targets[:0]
        self.features = torch.tensor(held, dtype=dtype, device=self.device)
        self.is_classification = np.issubdtype(targets.dtype, np.integer)
        if self.is_classification:
            labels = torch.tensor(targets, dtype=torch.int64, device=self.device)
            self._labels: npt.NDArray[np.generic] | None = self._all_targets
            # torch's one_hot would hold them as 64-bit integers first: 1.6 GB for 10,000 classes of 2 rows
            one_hot = torch.zeros(len(labels), shape.n_outputs, dtype=dtype, device=self.device)
            self._targets = one_hot.scatter_(1, labels[:, None], 1.0)
        else:
            self._labels = None
            self._targets = torch.tensor(targets, dtype=dtype, device=self.device)
        self._grams = GramMatrices(self.features)
        self._steps = StepCache()
        self._known_rates: dict[int, list[float]] = {}

    @property
    def n_rows(self) -> int:
        """Rows of the training part."""
        return len(self._all_targets)

    def fit(self, masks: Sequence[HeadMask], row_sets: Sequence[Rows]) -> Iterator[HeadStack]:
        """Train one head per mask and row set.

        Parameters
        ----------
        masks
            One per individual.
        row_sets
            Row numbers that a head trains on: one set per fold, at least one row each.

        Yields
        ------
        HeadStack
            Per mask, in order, as soon as it and those before it are trained; its heads follow ``row_sets``.

        Raises
        ------
        NotEnoughMemory
            Memory was refused for a single head.
        """
        # a GPU is only full with many
        length = _WINDOW if self.device.type == "cpu" else max(len(masks), 1)
        for start in range(0, len(masks), length):
            window = masks[start : start + length]
            done: dict[int, HeadStack] = {}
            following = 0
            for numbers, stacks in self._trained(window, row_sets):
                done.update(zip(numbers, stacks, strict=True))
                while following in done:
                    yield done.pop(following)
                    following += 1

    def close(self) -> None:
        """End the worker processes, if there are any; they start again when they are needed."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def free(self) -> None:
        """Give memory back that is kept for later."""
        if self.device.type == "cuda":
            release_memory()

    def relieve(self) -> bool:
        """Give up worker processes for the memory that they hold; returns whether there were any."""
        return self._pool is not None and self._pool.retreat()

    def _trained(
        self, masks: Sequence[HeadMask], row_sets: Sequence[Rows]
    ) -> Iterator[tuple[list[int], list[HeadStack]]]:
        """Groups of masks, by their numbers, with their heads, in the order in which they are done."""
        if self.device.type == "cuda" and self.source is None:
            yield from self._trained_on_cuda(masks, row_sets)
            return
        groups = deque(self.grouping.groups(masks, row_sets))
        while groups and not self._wants_workers(len(groups)):
            numbers = groups.popleft()
            yield numbers, self._fit_group([masks[number] for number in numbers], row_sets)
        if not groups:
            return
        if self._pool is None:
            self._pool = self._start_workers()
        # what takes longest goes first, so that nobody is left with much to do at the end
        remaining = sorted(groups, key=lambda numbers: -sum(len(masks[number].inputs) for number in numbers))
        tasks = [([masks[number] for number in numbers], list(row_sets)) for numbers in remaining]
        for place, (stacks, most) in self._pool.map(tasks, partial(_as_arrays, self)):
            self._chunk.adopt(most)
            trained = zip(remaining[place], stacks, strict=True)
            yield remaining[place], [HeadStack.from_arrays(masks[mask], arrays) for mask, arrays in trained]

    def _wants_workers(self, n_groups: int) -> bool:
        """Whether worker processes are worth their start."""
        if self.grouping.jobs == 1 or n_groups == 1 or self.device.type != "cpu":
            return False
        return self._pool is not None or self._busy_seconds >= _SECONDS_ALONE

    def _start_workers(self) -> WorkerPool[Task, Trained]:
        # on CPU a view, no copy
        features = self.features.numpy() if self.source is None else self.source
        n_copies = _COPIED_BYTES // max(self.features.nbytes, 1)
        form = self.grouping.form
        recipe = features, self._all_targets, self.shape, self.settings, self._seed, self.dtype, form
        return WorkerPool(min(self.grouping.jobs - 1, max(n_copies, 1)), partial(_make_worker, recipe))

    def _trained_on_cuda(
        self, masks: Sequence[HeadMask], row_sets: Sequence[Rows]
    ) -> Iterator[tuple[list[int], list[HeadStack]]]:
        """The dual form in slots, on as many GPUs as there are jobs; all else group by group on this one."""
        if self._slots is None:
            self._slots = SlotTrainers.on_gpus(
                self.grouping.jobs,
                self.features,
                self._targets,
                self._labels,
                self.shape,
                self.settings,
                self._start,
                self._seed,
            )
        in_slots: list[int] = []
        others: list[int] = []
        for number, mask in enumerate(masks):
            dual = self.grouping.form != "gathered" and self._slots.fits(mask)
            (in_slots if dual else others).append(number)
        for places, stacks in self._slots.fit([masks[number] for number in in_slots], row_sets):
            yield [in_slots[place] for place in places], stacks
        for group in self.grouping.groups([masks[number] for number in others], row_sets):
            numbers = [others[place] for place in group]
            yield numbers, self._fit_group([masks[number] for number in numbers], row_sets)

    def chosen_form(self, mask: HeadMask, n_heads: int, rows_per_head: int) -> Literal["dual", "gathered"]:
        """Cheaper exact form for a mask: see :meth:`moevoprune.heads.grouping.Grouping.chosen_form`."""
        return self.grouping.chosen_form(mask, n_heads, rows_per_head)

    def _fold_groups(self, row_sets: Sequence[Rows], together: int, n_individuals: int) -> list[_FoldGroup]:
        """Folds that take the same number of steps per epoch can share every step."""
        split = [self._training_rows(rows) for rows in row_sets]
        by_steps: dict[int, list[int]] = {}
        for fold, (rows, _) in enumerate(split):
            by_steps.setdefault(n_steps(len(rows), self.settings.batch_size), []).append(fold)
        groups = []
        for all_folds in by_steps.values():
            for start in range(0, len(all_folds), together):
                folds = all_folds[start : start + together]
                plan = BatchPlan(
                    [split[fold][0] for fold in folds],
                    self._targets,
                    self.settings.batch_size,
                    self._seed,
                    n_individuals,
                    self._steps,
                )
                groups.append(_FoldGroup(folds, plan, [split[fold][1] for fold in folds]))
        return groups

    def _training_rows(self, rows: Rows) -> tuple[Rows, Rows]:
        if self.settings.early_stop == "validation":
            return monitor_split(rows, self._labels, self._seed)
        return rows, rows[:0]

    def _fit_group(self, masks: Sequence[HeadMask], row_sets: Sequence[Rows]) -> list[HeadStack]:
        """Train individuals of equal padded size."""
        started = time.monotonic()
        # of each individual; where there are several, the folds of none are divided
        together = min(self.grouping.heads_together(masks[0], row_sets), len(row_sets))

        def train(most: int) -> list[HeadStack]:
            individuals = max(most // together, 1)
            parts = [masks[start : start + individuals] for start in range(0, len(masks), individuals)]
            return [stack for part in parts for stack in self._train_group(part, row_sets, min(together, most))]

        with reproducible(self.device):
            stacks = self._chunk.work(
                len(masks) * together, train, lambda: self._described(max(masks, key=self._n_weights))
            )
        self._busy_seconds += time.monotonic() - started
        return stacks

    def _n_weights(self, mask: HeadMask) -> int:
        return mask.n_parameters(self.shape.n_outputs, bias=True)

    def _described(self, mask: HeadMask) -> str:
        return (
            f"a single head of {self._n_weights(mask):,} weights ({len(mask.inputs):,} features) on "
            f"{self.n_rows:,} training rows: use fewer hidden units (e.g. --set hidden=64), features or rows"
        )

    def _train_group(self, masks: Sequence[HeadMask], row_sets: Sequence[Rows], together: int) -> list[HeadStack]:
        """Train individuals side by side, each on so many folds at once."""
        if self.source is not None:
            return self._stream_group(self.source, masks, row_sets, together)
        dual = self.grouping.form_of(masks[0], row_sets) == "dual"
        everything = len(masks[0].inputs) == self.shape.n_features
        numbers = [torch.from_numpy(mask.inputs).to(self.device) for mask in masks]
        columns = [self.features if everything else self.features.index_select(1, inputs) for inputs in numbers]
        gram = None
        if dual:
            grams = [self._grams.whole] if everything else list(map(self._grams.of, columns, numbers))
            gram = torch.cat(grams) if len(grams) > 1 else grams[0]
            if self.settings.bias or not masks[0].hidden:
                gram = gram + 1.0
        starts = [self._starts(mask) for mask in masks]
        parts: list[list[HeadStack]] = [[] for _ in masks]
        folds: list[int] = []
        for group in self._fold_groups(row_sets, together, len(masks)):
            heads = self._heads(masks, columns, gram, starts, len(group.folds))
            stop = self._train(heads, group, len(masks))
            folds += group.folds
            for individual, (mask, trained) in enumerate(zip(masks, parts, strict=True)):
                place = slice(individual * len(group.folds), (individual + 1) * len(group.folds))
                weights, biases = heads.weights(individual)
                losses, epochs = stop.train_loss[place], stop.epochs[place]
                trained.append(HeadStack(mask, tuple(weights), tuple(biases), losses, epochs))
        return [HeadStack.merged(trained, folds) for trained in parts]

    def _stream_group(
        self, source: RowSource, masks: Sequence[HeadMask], row_sets: Sequence[Rows], together: int
    ) -> list[HeadStack]:
        """Train individuals on rows that are read batch by batch, once for all of them."""
        settings = self.settings
        parts: list[list[HeadStack]] = [[] for _ in masks]
        folds: list[int] = []
        for group in self._fold_groups(row_sets, together, 1):
            rows = StreamedRows(
                source,
                self._all_targets,
                self.shape.n_outputs,
                group.plan.row_sets,
                group.monitor_rows,
                settings.batch_size,
                self._seed,
                self.device,
                self.dtype,
            )
            heads = [self._heads([mask], [], None, [self._starts(mask)], len(group.folds)) for mask in masks]
            stops = fit_streaming(rows, heads, settings, self._rates(rows.n_steps))
            folds += group.folds
            for mask, trained, of_mask, stop in zip(masks, parts, heads, stops, strict=True):
                weights, biases = of_mask.weights(0)
                trained.append(HeadStack(mask, tuple(weights), tuple(biases), stop.train_loss, stop.epochs))
        return [HeadStack.merged(trained, folds) for trained in parts]

    def _starts(self, mask: HeadMask) -> list[Tensor]:
        return [torch.tensor(layer, dtype=self.dtype, device=self.device) for layer in self._start.weights(mask)]

    def _heads(
        self,
        masks: Sequence[HeadMask],
        columns: list[Tensor],
        gram: Tensor | None,
        starts: list[list[Tensor]],
        n_folds: int,
    ) -> HeadsInTraining:
        settings = self.settings
        n_layers = len(starts[0])
        has_bias = [settings.bias] * (n_layers - 1) + [True]
        connections: list[list[Tensor] | None] = [None] * n_layers
        for layer in range(len(masks[0].connections or ())):
            connections[layer] = [
                torch.tensor(cast("Kept", mask.connections)[layer], dtype=self.dtype, device=self.device)
                for mask in masks
            ]
        by_layer = list(zip(*starts, strict=True))
        first: FirstLayer
        if gram is not None:
            first = DualLayer(columns, gram, by_layer[0], n_folds, has_bias[0], settings)
        elif not columns:
            weights = GatheredWeights(by_layer[0], n_folds, has_bias[0], settings, connections[0])
            inputs = torch.from_numpy(masks[0].inputs).to(self.device)
            first = StreamedLayer(weights, inputs, self.shape.n_features, has_bias[0])
        else:
            distinct = columns[:1] if all(part is columns[0] for part in columns) else columns
            first = GatheredLayer(distinct, by_layer[0], n_folds, has_bias[0], settings, connections[0])
        upper = [
            DenseLayer(
                by_layer[layer], n_folds, has_bias[layer], settings, layer == n_layers - 1, connections[layer]
            )
            for layer in range(1, n_layers)
        ]
        return HeadsInTraining(first, upper, self.is_classification)

    def _train(self, heads: HeadsInTraining, group: _FoldGroup, n_individuals: int) -> EarlyStop:
        """Run the epochs; the heads are left with the weights that early stopping says to keep."""
        settings, plan = self.settings, group.plan
        rates = self._rates(plan.n_steps)
        stop = EarlyStop(settings, len(group.folds) * n_individuals, heads.states)
        monitor = None
        if settings.early_stop == "validation":
            monitor = Step.side_by_side(group.monitor_rows, self._targets, n_individuals)
        for epoch in range(settings.epochs):
            # the running loss is wanted by early stopping, and as a figure of the last epoch
            track = settings.early_stop != "none" or epoch == settings.epochs - 1
            losses = EpochLoss(heads) if track else None
            for number, step in enumerate(plan.epoch(epoch)):
                heads.step(step, rates[epoch * plan.n_steps + number], losses)
            if losses is not None:
                loss = losses.mean()
                if stop.update(epoch, loss, loss if monitor is None else heads.loss(monitor)):
                    break
        stop.restore()
        return stop

    def _rates(self, n_steps: int) -> list[float]:
        if n_steps not in self._known_rates:
            self._known_rates[n_steps] = self.settings.learning_rates(n_steps)
        return self._known_rates[n_steps]


def _make_worker(recipe: Recipe) -> Callable[[Task], Trained]:
    """Make what trains groups in a worker process."""
    features, targets, shape, settings, seed, dtype, form = recipe
    trainer = PopulationTrainer(features, targets, shape, settings, seed, "cpu", dtype, form)
    # the main process says it for all
    warnings.simplefilter("ignore", RunWarning)
    return partial(_as_arrays, trainer)


def _as_arrays(trainer: PopulationTrainer, task: Task) -> Trained:
    stacks = [stack.to_arrays() for stack in trainer._fit_group(*task)]
    return stacks, trainer._chunk.most


@dataclass(frozen=True, eq=False)
class _FoldGroup:
    """Folds that share their steps: their numbers, their batches, and the rows that stop each."""

    folds: list[int]
    plan: BatchPlan
    monitor_rows: list[Rows]
