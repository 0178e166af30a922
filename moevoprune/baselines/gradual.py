"""Gradual magnitude pruning: a head that loses its smallest weights while it trains."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moevoprune.baselines.data import Bits, RankingData
from moevoprune.device import reproducible
from moevoprune.heads.batches import epoch_order, n_steps
from moevoprune.heads.encodings import HeadMask
from moevoprune.heads.start import StartWeights

__all__ = ["prune_gradually", "pruning_schedule"]

Values = npt.NDArray[np.float64]

_INITIAL_SPARSITY = 0.1
_EXPONENT = 3
# the rest of the epochs would train what is left, which no longer changes what that is
_PRUNED_BY = 0.75


def pruning_schedule(n_bits: int, size: int, epochs: int) -> list[int]:
    """Bits left after each epoch, by the polynomial decay of Zhu & Gupta (2017).

    The sparsity rises from .1 after the first epoch (or from the final one, where that is less) to the final one
    after three quarters of the epochs: ``s = s_f + (s_i - s_f) (1 - t)^3``, ``t`` from 0 to 1.

    Parameters
    ----------
    n_bits
        Bits of the dense head.
    size
        Bits left in the end.
    epochs
        Epochs of a full training.

    Returns
    -------
    list of int
        Falling, the last one is ``size``; as long as the pruning takes.
    """
    final = 1.0 - size / n_bits
    initial = min(_INITIAL_SPARSITY, final)
    length = max(1, round(_PRUNED_BY * epochs))
    if length == 1:
        return [size]
    progress = np.arange(length) / (length - 1)
    sparsity = final + (initial - final) * (1.0 - progress) ** _EXPONENT
    return [max(size, round(n_bits * (1.0 - s))) for s in sparsity.tolist()]


def prune_gradually(data: RankingData, size: int) -> Bits:
    """Train one head and prune it after every epoch, until ``size`` bits are left.

    The smallest bits go, by the Euclidean norm of the weights that they gate: those that leave an input, those
    that enter a unit, or the weight itself. What is gone stays gone. Optimiser, learning rates, batches and start
    are those of the dense head. There is no early stopping, as the schedule needs to know its end: training is as
    long as the dense head's was.

    Parameters
    ----------
    data
        The training part.
    size
        Bits to keep, within 1..n_bits.

    Returns
    -------
    ndarray of bool, shape (n_bits,)
    """
    encoding, head = data.encoding, data.head
    rows = data.all_rows
    n_rows = len(rows)
    steps_per_epoch = n_steps(n_rows, head.batch_size)
    rates = iter(head.learning_rates(steps_per_epoch))
    bits = encoding.dense()
    device = data.trainer.device
    with reproducible(device), torch.enable_grad():
        training = _Training(data)
        for epoch, count in enumerate(pruning_schedule(encoding.n_bits, size, int(data.dense_stack.epochs[0]))):
            order = torch.from_numpy(rows[epoch_order(n_rows, data.seed, epoch)]).to(device)
            for batch in torch.split(order, head.batch_size):
                training.step(batch, next(rates))
            norms = np.where(bits, np.nan_to_num(training.norms(), nan=0.0), -np.inf)
            bits = np.zeros_like(bits)
            bits[np.argsort(-norms, kind="stable")[:count]] = True
            training.prune(encoding.decode(bits))
    return bits


class _Training:
    """A head in training, of which parts can be taken away; inputs that are gone are no longer computed with."""

    def __init__(self, data: RankingData) -> None:
        self._data = data
        head, shape = data.head, data.encoding.shape
        trainer = data.trainer
        self._columns = trainer.features
        self._source = trainer.source
        targets = torch.tensor(data.targets, device=trainer.device)
        self._targets = targets if data.task == "classification" else targets.to(trainer.dtype)
        self._inputs = np.arange(shape.n_features)
        start = StartWeights(shape, head, data.seed).weights(data.encoding.decode(data.encoding.dense()))
        self._weights = [
            torch.tensor(weights, dtype=trainer.dtype, device=trainer.device).requires_grad_() for weights in start
        ]
        self._biases: list[Tensor | None] = [
            weights.new_zeros(weights.shape[1]).requires_grad_()
            if head.bias or weights is self._weights[-1]
            else None
            for weights in self._weights
        ]
        # 1 where a weight or bias may still change
        self._gates: list[tuple[Tensor, Tensor]] = []
        parameters = [*self._weights, *(bias for bias in self._biases if bias is not None)]
        self._optimiser: torch.optim.Optimizer
        if head.optimiser == "adam":
            self._optimiser = torch.optim.Adam(parameters, lr=head.learning_rate, weight_decay=head.weight_decay)
        else:
            self._optimiser = torch.optim.SGD(
                parameters,
                lr=head.learning_rate,
                momentum=head.momentum,
                nesterov=head.nesterov and head.momentum > 0,
                weight_decay=head.weight_decay,
            )

    def step(self, batch: Tensor, rate: float) -> None:
        """Take one optimiser step on the rows of a batch."""
        values = self._rows(batch)
        for layer, (weights, biases) in enumerate(zip(self._weights, self._biases, strict=True)):
            values = values @ weights if biases is None else torch.addmm(biases, values, weights)
            if layer < len(self._weights) - 1:
                values = values.relu()
        targets = self._targets.index_select(0, batch)
        if self._data.task == "classification":
            loss = torch.nn.functional.cross_entropy(values, targets)
        else:
            loss = torch.nn.functional.mse_loss(values, targets)
        self._optimiser.zero_grad()
        torch.autograd.backward(loss)
        for tensor, gate in self._gates:
            if tensor.grad is not None:
                tensor.grad.mul_(gate)
        self._optimiser.param_groups[0]["lr"] = rate
        self._optimiser.step()

    def _rows(self, batch: Tensor) -> Tensor:
        if self._source is None:
            return self._columns.index_select(0, batch)
        rows = self._source.rows(batch.cpu().numpy())[:, self._inputs]
        return torch.from_numpy(rows).to(self._columns)

    def norms(self) -> Values:
        """Euclidean norm of the weights that each bit gates, shape (n_bits,); 0 for what is gone."""
        matrices = [weights.detach().double().cpu().numpy() for weights in self._weights]
        first = np.zeros(self._data.encoding.shape.widths[:2])
        first[self._inputs] = matrices[0]
        matrices[0] = first
        return self._data.encoding.arrange(
            np.linalg.norm(first, axis=1),
            [np.linalg.norm(matrix, axis=0) for matrix in matrices[:-1]],
            [np.abs(matrix) for matrix in matrices],
        )

    def prune(self, mask: HeadMask) -> None:
        """Take away all that the mask lacks."""
        left = np.searchsorted(self._inputs, mask.inputs)
        if len(left) < len(self._inputs):
            self._keep_inputs(torch.from_numpy(left).to(self._columns.device))
            self._inputs = mask.inputs
        widths = (len(mask.inputs), *self._data.encoding.shape.widths[1:])
        kept = [np.arange(len(mask.inputs)), *mask.hidden, np.arange(widths[-1])]
        self._gates = []
        for layer, (weights, biases) in enumerate(zip(self._weights, self._biases, strict=True)):
            gate = np.zeros(widths[layer : layer + 2])
            grid = np.ix_(kept[layer], kept[layer + 1])
            gate[grid] = 1.0
            if mask.connections is not None and layer < len(mask.connections):
                gate[grid] = mask.connections[layer]
            self._close(weights, gate)
            if biases is not None:
                unit_gate = np.zeros(widths[layer + 1])
                unit_gate[kept[layer + 1]] = 1.0
                self._close(biases, unit_gate)

    def _close(self, tensor: Tensor, gate: Values) -> None:
        """Set a parameter and its optimiser's memory to 0 where the gate is, and keep them there."""
        if gate.all():
            return
        on_device = torch.from_numpy(gate).to(tensor)
        self._gates.append((tensor, on_device))
        memory = [v for v in self._optimiser.state[tensor].values() if _is_like(v, tensor)]
        with torch.no_grad():
            for changed in (tensor, *memory):
                changed.mul_(on_device)

    def _keep_inputs(self, index: Tensor) -> None:
        """Shrink the features, the first layer and its optimiser's memory to some of the inputs."""
        old = self._weights[0]
        new = old.detach().index_select(0, index).requires_grad_()
        self._columns = self._columns.index_select(1, index)
        self._weights[0] = new
        memory = self._optimiser.state.pop(old, {})
        self._optimiser.state[new] = {
            key: value.index_select(0, index) if _is_like(value, old) else value for key, value in memory.items()
        }
        group = self._optimiser.param_groups[0]
        group["params"] = [new if parameter is old else parameter for parameter in group["params"]]


def _is_like(value: object, tensor: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == tensor.shape
