"""Layers of many heads side by side, with hand-written gradients: ordinary weights, and the exact dual form.

All layers hold one matrix per head, stacked along the first axis, and take plain gradient steps. They differ in
what they store: :class:`DenseLayer` and :class:`GatheredLayer` the weights themselves, :class:`DualLayer` one
coefficient per training row. The heads are those of one or more individuals, each with the same number of folds.

Widths are padded with zeros to multiples of eight: rows of matrices then start where a vector register can load
them, individuals of nearly the same size fit into one stack, and a product's last digits do not depend on how many
are stacked: with odd widths, MKL computes one product differently from several. Padded inputs are 0 and padded
units have no gradient, so that they change nothing; the padding depends on a head's own size alone.

A batch of one row makes vectors of matrices, for which MKL has ways of its own, which depend on the processor too:
it is multiplied element by element.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from moevoprune.heads.batches import Step
from moevoprune.heads.settings import HeadSettings

__all__ = ["DenseLayer", "DualLayer", "FirstLayer", "GatheredLayer", "padded_width"]

# the momentum of the dual form is stored divided by momentum**steps: brought back before float32 loses digits
_LARGEST_MOMENTUM_SCALE = 1e3
_ALIGNMENT = 8


def padded_width(n: int) -> int:
    """Width that a number of inputs or units is padded to: a multiple of eight, at least that."""
    return max(-(-n // _ALIGNMENT), 1) * _ALIGNMENT


class FirstLayer(Protocol):
    """What training asks of the layer that reads the features.

    ``state`` is the tensor that changes in training, one slice per head, so that the best epoch can be kept.
    """

    state: Tensor

    def forward(self, step: Step) -> Tensor:
        """Pre-activations of the rows of a step, shape (heads, batch, padded units), valid until the next call."""

    def descend(self, step: Step, gradient: Tensor, rate: float, scale: float) -> None:
        """Descend along ``scale`` times the gradient of the last pass forward, (heads, batch, padded units)."""

    def weights(self, individual: int) -> tuple[Tensor, Tensor | None]:
        """Weights (folds, inputs, units) of an individual, and biases (folds, units) or None."""


class _Weights:
    """Stacked weight matrices and their optimiser.

    ``values`` holds one matrix per head; a step descends along ``scale * left @ right``, shaped like one matrix.
    """

    def __init__(self, start: Tensor, settings: HeadSettings, connections: Tensor | None) -> None:
        self.values = start
        self._connections = connections
        self._settings = settings
        self._momentum = torch.zeros_like(start)
        self._square = torch.zeros_like(start) if settings.optimiser == "adam" else None
        self._n_steps = 0

    def descend(self, left: Tensor, right: Tensor, rate: float, scale: float) -> None:
        if self._square is None:
            self._sgd_step(left, right, rate, scale)
        else:
            self._adam_step(left, right, rate, scale, self._square)

    def _sgd_step(self, left: Tensor, right: Tensor, rate: float, scale: float) -> None:
        mu, decay = self._settings.momentum, self._settings.weight_decay
        velocity = self._momentum
        shrink = self.values * decay if decay else None
        if self._settings.nesterov:
            # rate * (g + mu v') = rate * ((1 + mu) v' - mu v), which needs no separate g
            self.values.add_(velocity, alpha=rate * mu)
        if right.shape[1] == 1:
            velocity.mul_(mu).addcmul_(left, right, value=scale)
        else:
            velocity.baddbmm_(left, right, beta=mu, alpha=scale)
        if shrink is not None:
            velocity.add_(shrink)
        if self._connections is not None:
            velocity.mul_(self._connections)
        self.values.add_(velocity, alpha=-rate * (1 + mu) if self._settings.nesterov else -rate)

    def _adam_step(self, left: Tensor, right: Tensor, rate: float, scale: float, square: Tensor) -> None:
        # constants and order of operations of torch.optim.Adam
        beta1, beta2, epsilon = 0.9, 0.999, 1e-8
        self._n_steps += 1
        slope = torch.bmm(left, right).mul_(scale)
        if self._settings.weight_decay:
            slope.add_(self.values, alpha=self._settings.weight_decay)
        if self._connections is not None:
            slope.mul_(self._connections)
        self._momentum.lerp_(slope, 1 - beta1)
        square.mul_(beta2).addcmul_(slope, slope, value=1 - beta2)
        correction1 = 1 - beta1**self._n_steps
        correction2 = 1 - beta2**self._n_steps
        denominator = square.sqrt().div_(math.sqrt(correction2)).add_(epsilon)
        self.values.addcdiv_(self._momentum, denominator, value=-rate / correction1)


class DenseLayer:
    """Layer above the first, with ordinary weights.

    The weights are held transposed, with the bias as a column after the inputs: with few outputs, products in
    this order are several times faster on CPU. The outputs of the last layer are transposed for the same reason.

    Parameters
    ----------
    starts
        For each individual its start weights, shape (inputs, units), without bias; the same for all its folds.
    n_folds
        Heads of an individual.
    bias
        Whether there is a bias.
    settings
        Optimiser and its constants.
    last
        Whether the layer makes the outputs.
    connections
        For each individual which weights exist, shaped like its start weights, 1 or 0; None for all.
    """

    def __init__(
        self,
        starts: Sequence[Tensor],
        n_folds: int,
        bias: bool,
        settings: HeadSettings,
        last: bool,
        connections: Sequence[Tensor] | None = None,
    ) -> None:
        self._sizes = [(start.shape[0], start.shape[1]) for start in starts]
        self._n_folds = n_folds
        self._bias = bias
        self._last = last
        self._n_inputs = padded_width(starts[0].shape[0])
        width = self._n_inputs + (_ALIGNMENT if bias else 0)
        units = starts[0].shape[1] if last else padded_width(starts[0].shape[1])

        def stacked(matrices: Sequence[Tensor], bias_column: float) -> Tensor:
            stack = starts[0].new_zeros(len(matrices), units, width)
            for place, matrix in zip(stack, matrices, strict=True):
                place[: matrix.shape[1], : matrix.shape[0]] = matrix.T
                if bias:
                    place[: matrix.shape[1], self._n_inputs] = bias_column
            return stack.repeat_interleave(n_folds, dim=0)

        exists = None if connections is None else stacked(connections, 1.0)
        self._weights = _Weights(stacked(starts, 0.0), settings, exists)
        self.state = self._weights.values
        self._transposed = self.state.mT
        # by batch length: inputs with their column of ones, the part of them that changes, and room for gradients
        self._buffers: dict[int, tuple[Tensor, Tensor, Tensor, Tensor, Tensor]] = {}

    def activate(self, below: Tensor) -> Tensor:
        """Apply the ReLU: inputs of this layer, shape (heads, batch, width), valid until the next call.

        Parameters
        ----------
        below
            Pre-activations of the layer below, shape (heads, batch, padded inputs).
        """
        inputs, part, *_ = self._room(below.shape[1])
        torch.clamp_min(below, 0.0, out=part)
        return inputs

    def forward(self, inputs: Tensor) -> Tensor:
        """(heads, batch, width) to (heads, outputs, batch) in the last layer, else (heads, batch, units)."""
        if self._last:
            if inputs.shape[1] == 1:
                return (self.state * inputs).sum(2, keepdim=True)
            return torch.bmm(self.state, inputs.mT)
        return torch.bmm(inputs, self._transposed)

    def backward(self, gradient: Tensor, inputs: Tensor) -> Tensor:
        """Gradient before the ReLU that made the inputs, shape (heads, batch, padded inputs)."""
        *_, product, through, part = self._room(inputs.shape[1])
        if self._last and inputs.shape[1] == 1:
            torch.sum(gradient * self.state, 1, keepdim=True, out=product)
        else:
            torch.bmm(gradient.mT if self._last else gradient, self.state, out=product)
        torch.ops.aten.threshold_backward.grad_input(product, inputs, 0.0, grad_input=through)
        return part

    def descend(self, inputs: Tensor, gradient: Tensor, rate: float, scale: float) -> None:
        """Take one optimiser step."""
        self._weights.descend(gradient if self._last else gradient.mT, inputs, rate, scale)

    def weights(self, individual: int) -> tuple[Tensor, Tensor | None]:
        """See :meth:`FirstLayer.weights`."""
        n_inputs, n_units = self._sizes[individual]
        heads = self.state[individual * self._n_folds : (individual + 1) * self._n_folds, :n_units]
        return heads[..., :n_inputs].mT, heads[..., self._n_inputs] if self._bias else None

    def _room(self, batch: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        if batch not in self._buffers:
            inputs = self.state.new_zeros(self.state.shape[0], batch, self.state.shape[2])
            if self._bias:
                inputs[..., self._n_inputs] = 1.0
            product, through = torch.empty_like(inputs), torch.empty_like(inputs)
            views = inputs[..., : self._n_inputs], product, through, through[..., : self._n_inputs]
            self._buffers[batch] = (inputs, *views)
        return self._buffers[batch]


class GatheredLayer:
    """First layer over the gathered active columns: its cost falls with the number of active features.

    Parameters
    ----------
    columns
        For each individual the active columns of the features, shape (rows, inputs); one entry where all
        individuals read the same.
    starts, n_folds, bias, settings, connections
        As in :class:`DenseLayer`.
    """

    def __init__(
        self,
        columns: Sequence[Tensor],
        starts: Sequence[Tensor],
        n_folds: int,
        bias: bool,
        settings: HeadSettings,
        connections: Sequence[Tensor] | None = None,
    ) -> None:
        self._shared = len(columns) == 1
        rows = columns[0].shape[0]
        width = padded_width(columns[0].shape[1] + bias)
        stack = columns[0].new_zeros(len(columns), rows, width)
        for place, matrix in zip(stack, columns, strict=True):
            place[:, : matrix.shape[1]] = matrix
            if bias:
                place[:, matrix.shape[1]] = 1.0
        self._columns = stack.flatten(0, 1)
        self.core = GatheredWeights(starts, n_folds, bias, settings, connections)
        self.state = self.core.state

    def forward(self, step: Step) -> Tensor:
        """See :meth:`FirstLayer.forward`."""
        batch = self._columns.index_select(0, step.rows if self._shared else step.stacked_rows)
        return self.core.forward(batch.view(*step.shape, -1))

    def descend(self, step: Step, gradient: Tensor, rate: float, scale: float) -> None:
        """See :meth:`FirstLayer.descend`."""
        self.core.descend(gradient, rate, scale)

    def weights(self, individual: int) -> tuple[Tensor, Tensor | None]:
        """See :meth:`FirstLayer.weights`."""
        return self.core.weights(individual)


class GatheredWeights:
    """Weights of a first layer in the gathered form, wherever the rows come from.

    Parameters
    ----------
    starts, n_folds, bias, settings, connections
        As in :class:`GatheredLayer`.
    """

    def __init__(
        self,
        starts: Sequence[Tensor],
        n_folds: int,
        bias: bool,
        settings: HeadSettings,
        connections: Sequence[Tensor] | None = None,
    ) -> None:
        self._sizes = [(start.shape[0], start.shape[1]) for start in starts]
        self._n_folds = n_folds
        self._bias = bias
        self.width = padded_width(starts[0].shape[0] + bias)
        units = padded_width(starts[0].shape[1])

        def stacked(matrices: Sequence[Tensor], bias_row: float) -> Tensor:
            stack = starts[0].new_zeros(len(matrices), self.width, units)
            for place, matrix in zip(stack, matrices, strict=True):
                n_inputs, n_units = matrix.shape
                place[:n_inputs, :n_units] = matrix
                if bias:
                    place[n_inputs, :n_units] = bias_row
            return stack.repeat_interleave(n_folds, dim=0)

        exists = None if connections is None else stacked(connections, 1.0)
        self._weights = _Weights(stacked(starts, 0.0), settings, exists)
        self.state = self._weights.values
        self._batch = self.state

    def forward(self, batch: Tensor) -> Tensor:
        """Pre-activations of prepared rows (heads, batch, width): active columns, ones for a bias, zeros."""
        self._batch = batch
        return torch.bmm(batch, self.state)

    def descend(self, gradient: Tensor, rate: float, scale: float) -> None:
        """Descend along ``scale`` times the gradient of the last forward pass, shape (heads, batch, units)."""
        self._weights.descend(self._batch.mT, gradient, rate, scale)

    def weights(self, individual: int) -> tuple[Tensor, Tensor | None]:
        """See :meth:`FirstLayer.weights`."""
        n_inputs, n_units = self._sizes[individual]
        heads = self.state[individual * self._n_folds : (individual + 1) * self._n_folds, :, :n_units]
        return heads[:, :n_inputs], heads[:, n_inputs] if self._bias else None


class DualLayer:
    """First layer as a combination of training rows: ``W = W0 + X^T A``, exactly what SGD computes.

    The features are fixed, so every gradient of the first layer is a combination of rows of X. Holding the
    coefficients A (rows x units) makes a step cost rows x units instead of features x units; the features enter
    through the Gram matrix K = X X^T once. The bias is the constant feature, +1 in K.

    Parameters
    ----------
    columns
        For each individual the active columns of the features, shape (rows, inputs).
    gram
        ``columns @ columns.T`` of each individual, +1 where there is a bias, below one another: shape
        (individuals * rows, rows); or (rows, rows) where all individuals read the same columns.
    starts, n_folds, bias
        As in :class:`GatheredLayer`.
    settings
        SGD without weight decay, the only optimiser that has this form here.
    """

    def __init__(
        self,
        columns: Sequence[Tensor],
        gram: Tensor,
        starts: Sequence[Tensor],
        n_folds: int,
        bias: bool,
        settings: HeadSettings,
    ) -> None:
        self._gram = gram
        self._shared = len(gram) == gram.shape[1]
        self._columns = columns
        self._starts = starts
        self._n_folds = n_folds
        self._bias = bias
        n_rows, n_heads = gram.shape[1], len(starts) * n_folds
        units = padded_width(starts[0].shape[1])
        base = gram.new_zeros(len(starts), n_rows, units)
        for place, matrix, start in zip(base, columns, starts, strict=True):
            place[:, : start.shape[1]] = matrix @ start
        self._base = base.flatten(0, 1)
        self.state = gram.new_zeros(n_heads, n_rows, units)
        self._momentum = torch.zeros_like(self.state)
        # the same memory with the heads' rows below one another
        self._flat_state, self._flat_momentum = self.state.flatten(0, 1), self._momentum.flatten(0, 1)
        self._mu = settings.momentum
        self._nesterov = settings.nesterov
        self._scale = 1.0
        self._buffers: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor, Tensor]] = {}

    def forward(self, step: Step) -> Tensor:
        """See :meth:`FirstLayer.forward`."""
        if step.shape not in self._buffers:
            gram = self._gram.new_empty(*step.shape, self._gram.shape[1])
            values = self._gram.new_empty(*step.shape, self.state.shape[2])
            self._buffers[step.shape] = gram, gram.flatten(0, 1), values, values.flatten(0, 1)
        gram, flat_gram, values, flat_values = self._buffers[step.shape]
        torch.index_select(self._gram, 0, step.rows if self._shared else step.stacked_rows, out=flat_gram)
        torch.index_select(self._base, 0, step.stacked_rows, out=flat_values)
        return values.baddbmm_(gram, self.state)

    def descend(self, step: Step, gradient: Tensor, rate: float, scale: float) -> None:
        """See :meth:`FirstLayer.descend`."""
        flat_gradient = gradient.flatten(0, 1)
        if self._mu == 0.0:
            self._flat_state.index_add_(0, step.head_rows, flat_gradient, alpha=-rate * scale)
            return
        self._scale *= self._mu
        self._flat_momentum.index_add_(0, step.head_rows, flat_gradient, alpha=scale / self._scale)
        if self._nesterov:
            self.state.add_(self._momentum, alpha=-rate * self._mu * self._scale)
            self._flat_state.index_add_(0, step.head_rows, flat_gradient, alpha=-rate * scale)
        else:
            self.state.add_(self._momentum, alpha=-rate * self._scale)
        if self._scale < 1.0 / _LARGEST_MOMENTUM_SCALE:
            self._momentum.mul_(self._scale)
            self._scale = 1.0

    def weights(self, individual: int) -> tuple[Tensor, Tensor | None]:
        """See :meth:`FirstLayer.weights`."""
        start, columns = self._starts[individual], self._columns[individual]
        heads = self.state[individual * self._n_folds : (individual + 1) * self._n_folds, :, : start.shape[1]]
        # the heads side by side are one product, which is faster than one for each
        changes = columns.T @ heads.transpose(0, 1).flatten(1)
        weights = start[None] + changes.view(len(start), len(heads), start.shape[1]).transpose(0, 1)
        return weights, heads.sum(dim=1) if self._bias else None
