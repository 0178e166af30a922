"""What the trainer in slots computes with: tables of all epochs, tensors of all slots, one epoch of them.

Nothing here looks at the value of a tensor while an epoch runs, so that the epoch can be captured as a CUDA graph.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moevoprune.heads.batches import epoch_order, n_steps
from moevoprune.heads.encodings import HeadMask, HeadShape
from moevoprune.heads.settings import HeadSettings
from moevoprune.heads.start import StartWeights

__all__ = ["MaskedStart", "SlotHead", "SlotPlan", "SlotTensors", "bytes_needed", "pad_rows", "release_memory"]

# tables of row orders larger than this stay in the memory of the host
_LARGEST_DEVICE_TABLE = 256 * 2**20
# the momentum of the dual form is stored divided by momentum**steps: brought back before float32 loses digits
_LARGEST_MOMENTUM_SCALE = 1e3
# A capture empties PyTorch's cache of memory on all GPUs, which is an error while another thread captures.
_CAPTURING = threading.Lock()
# rows of matrices start where the GPU reads fastest
_ALIGNMENT = 8

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SlotPlan:
    """Tables of everything that the row sets and the settings say about every epoch of every fold.

    A *visit* is one epoch of one fold, number ``fold * epochs + epoch``; the last one is that of an empty slot.
    Tables with one row per fold end with the row of an empty slot, too. Surplus places, where a batch is shorter
    than the others and where a fold has fewer steps, repeat a row of the fold.

    Attributes
    ----------
    n_folds, n_epochs, n_steps, batch
        Folds; epochs of a head at most; steps of an epoch and rows of a step, where they are most.
    orders
        Row numbers, shape (visits, steps * batch), on the device or in the memory of the host.
    rates
        Learning rates, shape (visits, steps); 0 in surplus steps.
    weight, surplus
        1 / batch length for real rows and 0 for surplus ones, and whether a place is surplus, shape
        (folds + 1, steps, batch).
    momentum
        What the momentum is multiplied by in a step, shape (folds + 1, steps); 1 in surplus steps.
    renewal
        Steps between two renewals of the dual form's momentum. The first step of an epoch is one, too.
    decay
        What the dual form's momentum is multiplied by in a renewal, shape (folds + 1, renewals).
    n_rows
        Rows of a fold, shape (folds + 1,).
    monitor, monitor_surplus, n_monitor
        Rows that stop a fold's training, which places are surplus, and their number; None without any.
    """

    n_folds: int
    n_epochs: int
    n_steps: int
    batch: int
    orders: Tensor
    rates: Tensor
    weight: Tensor
    surplus: Tensor
    momentum: Tensor
    renewal: int
    decay: Tensor
    n_rows: Tensor
    monitor: Tensor | None
    monitor_surplus: Tensor
    n_monitor: Tensor

    @classmethod
    def of(
        cls, row_sets: Sequence[tuple[Rows, Rows]], settings: HeadSettings, seed: int, like: Tensor
    ) -> SlotPlan:
        """Make the tables of some folds, each with its training rows and its monitor rows."""
        lengths = [len(rows) for rows, _ in row_sets]
        batch = min(settings.batch_size, max(lengths))
        steps_of = [n_steps(length, settings.batch_size) for length in lengths]
        steps, folds, epochs, mu = max(steps_of), len(row_sets), settings.epochs, settings.momentum
        renewal = 1 + math.floor(math.log(1 / _LARGEST_MOMENTUM_SCALE) / math.log(mu)) if mu > 0 else 1

        places = np.arange(steps * batch)
        orders = np.zeros((folds * epochs + 1, steps * batch), dtype=np.int32)
        rates = np.zeros((folds * epochs + 1, steps))
        weight = np.zeros((folds + 1, steps * batch))
        momentum = np.ones((folds + 1, steps))
        decay = np.ones((folds + 1, -(-steps // renewal)))
        for fold, (rows, _) in enumerate(row_sets):
            length, own_steps = lengths[fold], steps_of[fold]
            first_of_batch = places // batch * batch
            # the row that a surplus place repeats: the first of its batch, or of the epoch in a surplus step
            source = np.where(places < length, places, np.where(first_of_batch < length, first_of_batch, 0))
            visits = slice(fold * epochs, (fold + 1) * epochs)
            for epoch, order in enumerate(orders[visits]):
                order[:] = rows[epoch_order(length, seed, epoch)][source]
            rates[visits, :own_steps] = np.reshape(settings.learning_rates(own_steps), (epochs, own_steps))
            weight[fold, :length] = 1.0 / np.minimum(batch, length - first_of_batch[:length])
            momentum[fold, :own_steps] = mu
            decay[fold, : -(-own_steps // renewal)] = mu**renewal
            decay[fold, 0] = mu ** ((own_steps - 1) % renewal + 1)

        table = torch.from_numpy(orders)
        monitors = [monitor for _, monitor in row_sets]
        width = max(len(monitor) for monitor in monitors)
        monitor_rows = np.zeros((folds + 1, width), dtype=np.int64)
        for fold, monitor in enumerate(monitors):
            monitor_rows[fold] = np.resize(monitor, width)
        counts = np.array([*(len(monitor) for monitor in monitors), 0])
        on_device = like.device
        return cls(
            n_folds=folds,
            n_epochs=epochs,
            n_steps=steps,
            batch=batch,
            orders=table.to(on_device) if orders.nbytes <= _LARGEST_DEVICE_TABLE else table,
            rates=torch.from_numpy(rates).to(like),
            weight=torch.from_numpy(weight).view(-1, steps, batch).to(like),
            surplus=torch.from_numpy(weight == 0).view(-1, steps, batch).to(on_device),
            momentum=torch.from_numpy(momentum).to(like),
            renewal=renewal,
            decay=torch.from_numpy(decay).to(like),
            n_rows=torch.tensor([*lengths, 1]).to(like),
            monitor=torch.from_numpy(monitor_rows).to(on_device) if width else None,
            monitor_surplus=torch.from_numpy(np.arange(width) >= counts[:, None]).to(on_device),
            n_monitor=torch.from_numpy(np.maximum(counts, 1)).to(like),
        )

    @property
    def idle_visit(self) -> int:
        """Visit of an empty slot."""
        return self.n_folds * self.n_epochs


class MaskedStart:
    """A masked head before training, as it enters a slot and as its weights are made when it leaves."""

    def __init__(self, mask: HeadMask, features: Tensor, draws: list[Tensor], start: StartWeights) -> None:
        self.mask = mask
        outputs = np.arange(draws[-1].shape[1])
        kept = [torch.from_numpy(part).to(features.device) for part in (mask.inputs, *mask.hidden, outputs)]
        self.units = kept[1:]
        # all inputs, the commonest mask, need no copy
        everything = len(mask.inputs) == features.shape[1]
        self.columns = features if everything else features.index_select(1, kept[0])
        self.weights = [
            (draw.index_select(0, rows).index_select(1, columns) * start.limit(layer, len(rows), len(columns))).to(
                features.dtype
            )
            for layer, (draw, rows, columns) in enumerate(zip(draws, kept[:-1], kept[1:], strict=True))
        ]

    @cached_property
    def base(self) -> Tensor:
        """Pre-activations of the first layer at the start, without bias, shape (rows, kept units)."""
        return self.columns @ self.weights[0]

    def gram(self, bias: bool) -> Tensor:
        """Gram matrix of the kept inputs, where there is a bias with a column of ones, shape (rows, rows)."""
        gram = self.columns @ self.columns.T
        return gram.add_(1.0) if bias else gram


@dataclass(frozen=True, eq=False)
class SlotHead:
    """Weights (kept inputs, kept units) and biases (kept units,) or None of one head, layer by layer."""

    weights: list[Tensor]
    biases: list[Tensor | None]


class _UpperLayer:
    """Layer above the first of every slot: weights transposed, with the bias as a further column.

    Parameters
    ----------
    n_slots, n_inputs, n_units
        Slots, and the (padded) widths below and above.
    bias
        Whether there is a bias; inputs then carry a column of ones.
    widths
        Row counts that the layer is applied to.
    like
        Gives device and precision.
    """

    def __init__(
        self, n_slots: int, n_inputs: int, n_units: int, bias: bool, widths: set[int], like: Tensor
    ) -> None:
        self._n_inputs = n_inputs
        self._bias = bias
        self.state = like.new_zeros(n_slots, n_units, n_inputs + (_ALIGNMENT if bias else 0))
        self._velocity = torch.zeros_like(self.state)
        self._inputs = {width: like.new_zeros(n_slots, width, self.state.shape[2]) for width in widths}
        if bias:
            for inputs in self._inputs.values():
                inputs[..., n_inputs] = 1.0

    def place(self, slot: int, weights: Tensor, inputs: Tensor, units: Tensor) -> None:
        """Put start weights (kept inputs, kept units) into a slot."""
        self.state[slot].zero_()
        self.state[slot].index_put_((units[:, None], inputs[None]), weights.T)
        self._velocity[slot].zero_()

    def weights(self, state: Tensor, inputs: Tensor, units: Tensor) -> tuple[Tensor, Tensor | None]:
        """Kept weights (inputs, units), and biases or None, of one slot's state."""
        kept = state.index_select(0, units)
        bias = kept[:, self._n_inputs].contiguous() if self._bias else None
        return kept.index_select(1, inputs).T.contiguous(), bias

    def activate(self, below: Tensor) -> Tensor:
        """Apply the ReLU to pre-activations (slots, rows, inputs); valid until the next call."""
        inputs = self._inputs[below.shape[1]]
        torch.clamp_min(below, 0.0, out=inputs[..., : self._n_inputs])
        return inputs

    def forward(self, inputs: Tensor) -> Tensor:
        """Activated inputs to outputs, shape (slots, rows, units)."""
        return torch.bmm(inputs, self.state.mT)

    def backward(self, gradient: Tensor, below: Tensor) -> Tensor:
        """Gradient of the pre-activations below."""
        passed = torch.bmm(gradient, self.state[..., : self._n_inputs])
        through: Tensor = torch.ops.aten.threshold_backward.default(passed, below, 0.0)
        return through

    def descend(
        self, inputs: Tensor, gradient: Tensor, momentum: Tensor, ahead: Tensor, back: Tensor | None = None
    ) -> None:
        """Take a step with factors of every slot's own, each of shape (slots, 1, 1).

        The weights move by ``ahead`` times the momentum after the step, and by ``back`` times that before it:
        Nesterov's step ``-rate * (g + mu v')`` is ``-rate * (1 + mu) * v' + rate * mu * v``, which needs no ``g``.
        """
        if back is not None:
            self.state.addcmul_(self._velocity, back)
        self._velocity.mul_(momentum).baddbmm_(gradient.mT, inputs)
        self.state.addcmul_(self._velocity, ahead)


class _GramPlaces:
    """Which Gram matrix lies where: heads with the same inputs share one."""

    def __init__(self, n_places: int) -> None:
        self._place_of: dict[bytes, int] = {}
        self._users = [0] * n_places

    def enter(self, inputs: bytes) -> tuple[int, bool] | None:
        """Place of a Gram matrix, and whether it must still be filled; None while all places are taken."""
        known = self._place_of.get(inputs)
        place = known
        if place is None:
            free = [place for place, users in enumerate(self._users) if users == 0]
            if not free:
                return None
            # what lies there may be of use again, so an unused place is better
            held = set(self._place_of.values())
            place = min(free, key=lambda place: (place in held, place))
            self._place_of = {key: at for key, at in self._place_of.items() if at != place}
            self._place_of[inputs] = place
        self._users[place] += 1
        return place, known is None

    def leave(self, place: int) -> None:
        """A head that used a matrix is finished."""
        self._users[place] -= 1


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of a step, or of all: numbers in the training part, in all slots' rows, in all Gram matrices."""

    plain: Tensor
    of_slots: Tensor
    of_grams: Tensor


class SlotTensors:
    """Tensors of all slots, and one epoch of them.

    Parameters
    ----------
    features, targets
        Rows padded with zeros, shape (padded rows, ...).
    classification
        Whether outputs are logits, trained with the cross-entropy; else targets, with the squared error.
    shape, settings
        As of :class:`SlotTrainer`.
    plan
        Tables of the row sets.
    n_slots
        How many.
    """

    def __init__(
        self,
        features: Tensor,
        targets: Tensor,
        classification: bool,
        shape: HeadShape,
        settings: HeadSettings,
        plan: SlotPlan,
        n_slots: int,
    ) -> None:
        self.plan = plan
        self.n_slots = n_slots
        self._targets = targets
        self._classification = classification
        self._mu, self._nesterov = settings.momentum, settings.nesterov
        device, new = features.device, features.new_zeros
        n_rows = len(features)
        widths = _padded_widths(shape)
        self._first_bias = settings.bias or not shape.hidden

        # the first layer: coefficients of the rows, their momentum, pre-activations of the start, Gram matrices
        self._state = new(n_slots, n_rows, widths[0])
        self._velocity = torch.zeros_like(self._state) if self._mu > 0 else None
        self._base = torch.zeros_like(self._state)
        n_grams = _n_grams(n_slots, plan.n_folds)
        self._grams = new(n_grams, n_rows, n_rows)
        self._gram_places = _GramPlaces(n_grams)
        self._gram_of = np.zeros(n_slots, dtype=np.int64)

        n_monitor = 0 if plan.monitor is None else plan.monitor.shape[1]
        row_counts = {plan.batch, n_monitor} - {0}
        self._upper = [
            # the outputs always have a bias
            _UpperLayer(n_slots, below, above, settings.bias or layer == len(shape.hidden), row_counts, features)
            for layer, (below, above) in enumerate(itertools.pairwise(widths), start=1)
        ]
        self._live = [self._state, *(layer.state for layer in self._upper)]
        early = settings.early_stop != "none"
        self._kept = [state.clone() for state in self._live] if early else self._live

        # what an epoch reads and writes, at constant addresses: a graph remembers addresses
        inputs = torch.zeros(2, n_slots, dtype=torch.int64, device=device)
        self._epoch_inputs, self._visit, self._gram_start = inputs, inputs[0], inputs[1, :, None]
        self._visit.fill_(plan.idle_visit)
        self._order = torch.zeros(n_slots, plan.n_steps * plan.batch, dtype=torch.int32, device=device)
        self._slot_start = torch.arange(n_slots, device=device)[:, None] * n_rows
        exponents = torch.arange(plan.n_steps, dtype=torch.float64) % plan.renewal
        scales = self._mu**exponents * (self._mu if self._nesterov else 1.0)
        self._velocity_scales = scales.to(features)[:, None, None, None]
        self._losses = new(2, n_slots)
        self._graph: torch.cuda.CUDAGraph | None = None

    def capture(self) -> None:
        """Capture an epoch as a CUDA graph; all slots must be empty."""
        # as PyTorch's documentation asks: a warm-up on a side stream, then the capture
        stream = torch.cuda.Stream(self._state.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._epoch()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with _CAPTURING, torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            self._epoch()
        self._graph = graph

    def place(self, slot: int, start: MaskedStart) -> bool:
        """Put a head into an empty slot; False where it must wait for a Gram matrix to become free."""
        found = self._gram_places.enter(start.mask.inputs.tobytes())
        if found is None:
            return False
        place, missing = found
        if missing:
            self._grams[place].copy_(start.gram(self._first_bias))
        self._gram_of[slot] = place
        # written, not multiplied by 0: the last head may have left anything, NaN too
        self._base[slot].zero_()
        self._base[slot].index_copy_(1, start.units[0], start.base)
        self._state[slot].zero_()
        if self._velocity is not None:
            self._velocity[slot].zero_()
        for layer, weights, inputs, units in zip(
            self._upper, start.weights[1:], start.units[:-1], start.units[1:], strict=True
        ):
            layer.place(slot, weights, inputs, units)
        if self._kept is not self._live:
            for kept, state in zip(self._kept, self._live, strict=True):
                kept[slot].copy_(state[slot])
        return True

    def take_out(self, slot: int, start: MaskedStart) -> SlotHead:
        """Weights of the head in a slot, which is empty then: of the best epoch where one is kept."""
        self._gram_places.leave(int(self._gram_of[slot]))
        rows = self._kept[0][slot].index_select(1, start.units[0])
        weights = [torch.addmm(start.weights[0], start.columns.T, rows)]
        biases: list[Tensor | None] = [rows.sum(0) if self._first_bias else None]
        for layer, state, inputs, units in zip(
            self._upper, self._kept[1:], start.units[:-1], start.units[1:], strict=True
        ):
            layer_weights, bias = layer.weights(state[slot], inputs, units)
            weights.append(layer_weights)
            biases.append(bias)
        return SlotHead(weights, biases)

    def keep(self, better: npt.NDArray[np.bool_]) -> None:
        """Keep the present weights of some slots as their best."""
        if self._kept is self._live or not better.any():
            return
        chosen = torch.from_numpy(better).to(self._state.device, non_blocking=True)[:, None, None]
        for kept, state in zip(self._kept, self._live, strict=True):
            torch.where(chosen, state, kept, out=kept)

    def train(self, fold: Rows, epoch: Rows) -> None:
        """Train an epoch of every slot: which one of which fold, shape (slots,), fold -1 for an empty slot."""
        plan = self.plan
        visit = np.where(fold < 0, plan.idle_visit, fold * plan.n_epochs + epoch)
        inputs = torch.from_numpy(np.stack([visit, self._gram_of * self._grams.shape[1]]))
        # the host need not wait for the epoch before, which may still be under way
        self._epoch_inputs.copy_(inputs, non_blocking=True)
        where = self._visit if plan.orders.device == self._visit.device else inputs[0]
        self._order.copy_(plan.orders.index_select(0, where))
        if self._graph is None:
            self._epoch()
        else:
            self._graph.replay()

    def read_losses(self) -> tuple[Floats, Floats]:
        """Mean training loss and watched loss of the last epoch, shape (slots,) each: waits for the device."""
        train_loss, watched = self._losses.cpu().double().numpy()
        return train_loss, watched

    def _epoch(self) -> None:
        """All steps of an epoch of all slots: static shapes, no look at any value."""
        plan = self.plan
        fold = self._visit // plan.n_epochs
        # everything that has the steps as its first axis is prepared for all of them at once
        rows = self._rows(self._order.view(self.n_slots, plan.n_steps, plan.batch).transpose(0, 1).long())
        weight = plan.weight.index_select(0, fold).transpose(0, 1)[..., None]
        surplus = plan.surplus.index_select(0, fold).transpose(0, 1)
        rates = plan.rates.index_select(0, self._visit).T[..., None, None]
        momentum = plan.momentum.index_select(0, fold).T.contiguous()[..., None, None]
        decay = plan.decay.index_select(0, fold).T.contiguous()[..., None, None]
        descent, pull = -rates, -rates * self._velocity_scales
        if self._nesterov:
            back, ahead = rates * momentum, -rates * (1.0 + momentum)
        losses = []
        for step in range(plan.n_steps):
            slot_rows = rows.of_slots[step]
            below, inputs, outputs = self._forward(slot_rows, rows.of_grams[step])
            targets = self._targets.index_select(0, rows.plain[step]).view(outputs.shape)
            loss, gradient = self._loss(outputs, targets)
            losses.append(loss)
            # filled, not multiplied: a surplus row must not count even where its outputs are not finite
            gradient = gradient.mul_(weight[step]).masked_fill_(surplus[step][..., None], 0.0)
            for layer, below_layer, layer_inputs in zip(
                reversed(self._upper), reversed(below), reversed(inputs), strict=True
            ):
                passed = layer.backward(gradient, below_layer)
                if self._nesterov:
                    layer.descend(layer_inputs, gradient, momentum[step], ahead[step], back[step])
                else:
                    layer.descend(layer_inputs, gradient, momentum[step], descent[step])
                gradient = passed
            if self._velocity is not None:
                place = step % plan.renewal
                if place == 0:
                    self._velocity.mul_(decay[step // plan.renewal])
                # stored divided by momentum**place, so that it needs no pass of its own to decay
                scale = self._mu**place
                self._velocity.flatten(0, 1).index_add_(0, slot_rows, gradient.flatten(0, 1), alpha=1.0 / scale)
                self._state.addcmul_(self._velocity, pull[step])
            if self._nesterov or self._velocity is None:
                direct = (gradient * descent[step]).flatten(0, 1)
                self._state.flatten(0, 1).index_add_(0, slot_rows, direct)
        by_row = torch.stack(losses).masked_fill_(surplus, 0.0)
        train_loss = by_row.sum((0, 2)) / plan.n_rows.index_select(0, fold)
        watched = train_loss if plan.monitor is None else self._monitor(plan.monitor, fold)
        torch.stack([train_loss, watched], out=self._losses)

    def _rows(self, numbers: Tensor) -> _Rows:
        """Row numbers (..., slots, width), and where these rows lie in the tensors of all slots."""
        return _Rows(
            numbers.flatten(-2), (numbers + self._slot_start).flatten(-2), (numbers + self._gram_start).flatten(-2)
        )

    def _forward(self, slot_rows: Tensor, gram_rows: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Rows through every slot's head.

        Returns, per hidden layer, the pre-activations and what the next layer reads; and the outputs, shape
        (slots, width, outputs).
        """
        gram = self._grams.flatten(0, 1).index_select(0, gram_rows).view(self.n_slots, -1, self._grams.shape[1])
        values = self._base.flatten(0, 1).index_select(0, slot_rows).view(*gram.shape[:2], -1)
        values.baddbmm_(gram, self._state)
        below, inputs = [], []
        for layer in self._upper:
            below.append(values)
            inputs.append(layer.activate(values))
            values = layer.forward(inputs[-1])
        return below, inputs, values

    def _loss(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of each row, shape (slots, width), and its gradient with respect to the outputs."""
        if self._classification:
            log_probabilities = outputs.log_softmax(2)
            return -(log_probabilities * targets).sum(2), log_probabilities.exp().sub_(targets)
        difference = outputs - targets
        return difference.square().mean(2), difference * (2.0 / outputs.shape[2])

    def _monitor(self, monitor: Tensor, fold: Tensor) -> Tensor:
        """Mean loss of each slot on the rows that stop its training."""
        rows = self._rows(monitor.index_select(0, fold))
        _, _, outputs = self._forward(rows.of_slots, rows.of_grams)
        targets = self._targets.index_select(0, rows.plain).view(outputs.shape)
        loss, _ = self._loss(outputs, targets)
        surplus = self.plan.monitor_surplus.index_select(0, fold)
        return loss.masked_fill_(surplus, 0.0).sum(1) / self.plan.n_monitor.index_select(0, fold)


def _aligned(n: int) -> int:
    return -(-n // _ALIGNMENT) * _ALIGNMENT


def pad_rows(values: Tensor) -> Tensor:
    """Append rows of zeros up to a length that the GPU reads well; no head ever visits them."""
    missing = _aligned(len(values)) - len(values)
    return torch.cat([values, values.new_zeros(missing, values.shape[1])]) if missing else values


def release_memory() -> None:
    """Give memory that PyTorch keeps for later back to the GPUs."""
    with _CAPTURING:
        torch.cuda.empty_cache()


def _padded_widths(shape: HeadShape) -> tuple[int, ...]:
    """Widths above the input, hidden ones aligned."""
    return (*(_aligned(width) for width in shape.hidden), shape.n_outputs)


def _n_grams(n_slots: int, n_folds: int) -> int:
    """Gram matrices beside one another: twice what full slots need, since folds stop at different times."""
    return min(n_slots, 2 * -(-n_slots // n_folds))


def bytes_needed(
    plan: SlotPlan, shape: HeadShape, settings: HeadSettings, n_rows: int, n_slots: int, item: int
) -> int:
    """Estimate of the memory of all slots, the tables on the device and what a step works on."""
    widths = _padded_widths(shape)
    kept = settings.early_stop != "none"
    monitor = 0 if plan.monitor is None else plan.monitor.shape[1]
    batch = max(plan.batch, monitor)
    first = n_rows * widths[0] * (2 + (settings.momentum > 0) + kept)
    upper = sum((below + _ALIGNMENT) * above for below, above in itertools.pairwise(widths))
    # gathered rows of the Gram matrix, and about six arrays for every width
    step = batch * (n_rows + 6 * sum(widths)) + plan.n_steps * plan.batch * 8
    slots = n_slots * (first + upper * (2 + kept) + step) + _n_grams(n_slots, plan.n_folds) * n_rows**2
    return slots * item + n_slots * plan.n_steps * plan.batch * 24
