"""Layers of many heads side by side, with hand-written gradients: ordinary weights, and the exact dual form.

All layers hold one matrix per head, stacked along the first axis, and take plain gradient steps. They differ in
what they store: :class:`DenseLayer` the weights themselves, :class:`DualLayer` one coefficient per training row.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from moevoprune.heads.batches import Step
from moevoprune.heads.settings import HeadSettings

__all__ = ["DenseLayer", "DualLayer", "FirstLayer", "GatheredLayer"]

# the momentum of the dual form is stored divided by momentum**steps: brought back before float32 loses digits
_LARGEST_MOMENTUM_SCALE = 1e3


class FirstLayer(Protocol):
    """What the trainer asks of the layer that reads the features.

    ``state`` is the tensor that changes in training, one slice per head, so that the best epoch can be kept.
    """

    state: Tensor

    def forward(self, step: Step) -> Tensor:
        """Pre-activations of the rows of a step, shape (heads, batch, units)."""

    def descend(self, step: Step, gradient: Tensor, rate: float) -> None:
        """Descend along the gradient of the last forward pass, shape (heads, batch, units)."""

    def weights(self) -> tuple[Tensor, Tensor | None]:
        """Weights (heads, inputs, units) and biases (heads, units) or None."""


class _Weights:
    """Stacked weight matrices and their optimiser.

    ``values`` holds one matrix per head; a step descends along ``left.mT @ right``, shaped like one matrix.
    """

    def __init__(self, start: Tensor, settings: HeadSettings, connections: Tensor | None) -> None:
        self.values = start
        self._connections = connections
        self._settings = settings
        self._momentum = torch.zeros_like(start)
        self._square = torch.zeros_like(start) if settings.optimiser == "adam" else None
        self._n_steps = 0

    def descend(self, left: Tensor, right: Tensor, rate: float) -> None:
        if self._square is None:
            self._sgd_step(left, right, rate)
        else:
            self._adam_step(left, right, rate, self._square)

    def _sgd_step(self, left: Tensor, right: Tensor, rate: float) -> None:
        mu, decay = self._settings.momentum, self._settings.weight_decay
        velocity = self._momentum
        shrink = self.values * decay if decay else None
        if self._settings.nesterov:
            # rate * (g + mu v') = rate * ((1 + mu) v' - mu v), which needs no separate g
            self.values.add_(velocity, alpha=rate * mu)
        velocity.baddbmm_(left.mT, right, beta=mu)
        if shrink is not None:
            velocity.add_(shrink)
        if self._connections is not None:
            velocity.mul_(self._connections)
        self.values.add_(velocity, alpha=-rate * (1 + mu) if self._settings.nesterov else -rate)

    def _adam_step(self, left: Tensor, right: Tensor, rate: float, square: Tensor) -> None:
        # constants and order of operations of torch.optim.Adam
        beta1, beta2, epsilon = 0.9, 0.999, 1e-8
        self._n_steps += 1
        slope = torch.bmm(left.mT, right)
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

    The weights are held transposed, with the bias as their last column: with few outputs, products in this
    order are several times faster on CPU.

    Parameters
    ----------
    start
        Start weights, shape (inputs, units), without bias; the same for all heads.
    n_heads
        Number of heads.
    bias
        Whether there is a bias; inputs then carry a last column of ones.
    settings
        Optimiser and its constants.
    connections
        Which weights exist, shape like ``start``, 1 or 0; None for all.
    """

    def __init__(
        self,
        start: Tensor,
        n_heads: int,
        bias: bool,
        settings: HeadSettings,
        connections: Tensor | None = None,
    ) -> None:
        self.n_inputs = start.shape[0]
        self.width = self.n_inputs + bias
        self._bias = bias
        if connections is not None:
            connections = _with_bias_row(connections, 1.0 if bias else None).T.contiguous()
        stacked = _with_bias_row(start, 0.0 if bias else None).T.repeat(n_heads, 1, 1)
        self._weights = _Weights(stacked, settings, connections)
        self.state = self._weights.values
        self._transposed = self.state.mT
        # inputs with their column of ones, and the view of them without it, by batch length
        self._buffers: dict[int, tuple[Tensor, Tensor]] = {}

    def activate(self, below: Tensor) -> Tensor:
        """Apply the ReLU: inputs of this layer, shape (heads, batch, inputs[+1]), valid until the next call.

        Parameters
        ----------
        below
            Pre-activations of the layer below, shape (heads, batch, inputs).
        """
        batch = below.shape[1]
        if batch not in self._buffers:
            inputs = self.state.new_ones(self.state.shape[0], batch, self.width)
            self._buffers[batch] = inputs, inputs[..., : self.n_inputs]
        inputs, part = self._buffers[batch]
        torch.clamp_min(below, 0.0, out=part)
        return inputs

    def forward(self, inputs: Tensor) -> Tensor:
        """(heads, batch, inputs[+1]) to (heads, batch, units)."""
        return torch.bmm(inputs, self._transposed)

    def backward(self, gradient: Tensor, inputs: Tensor) -> Tensor:
        """Gradient before the ReLU that made the inputs, without the column of ones."""
        below = torch.bmm(gradient, self.state)
        through: Tensor = torch.ops.aten.threshold_backward.default(below, inputs, 0.0)
        return through[..., : self.n_inputs]

    def descend(self, inputs: Tensor, gradient: Tensor, rate: float) -> None:
        """Take one optimiser step."""
        self._weights.descend(gradient, inputs, rate)

    def weights(self) -> tuple[Tensor, Tensor | None]:
        """See :meth:`FirstLayer.weights`."""
        bias = self.state[..., self.n_inputs] if self._bias else None
        return self.state[..., : self.n_inputs].mT, bias


class GatheredLayer:
    """First layer over the gathered active columns: its cost falls with the number of active features.

    Parameters
    ----------
    columns
        Active columns of the features, shape (rows, inputs).
    start, n_heads, bias, settings, connections
        As in :class:`DenseLayer`.
    """

    def __init__(
        self,
        columns: Tensor,
        start: Tensor,
        n_heads: int,
        bias: bool,
        settings: HeadSettings,
        connections: Tensor | None = None,
    ) -> None:
        self._n_inputs = columns.shape[1]
        self._bias = bias
        if connections is not None:
            connections = _with_bias_row(connections, 1.0 if bias else None)
        self._weights = _Weights(
            _with_bias_row(start, 0.0 if bias else None).repeat(n_heads, 1, 1), settings, connections
        )
        self.state = self._weights.values
        self._columns = torch.cat([columns, columns.new_ones(len(columns), 1)], dim=1) if bias else columns
        self._batch = self._columns[:0]

    def forward(self, step: Step) -> Tensor:
        """See :meth:`FirstLayer.forward`."""
        self._batch = self._columns.index_select(0, step.rows).view(*step.shape, self._columns.shape[1])
        return torch.bmm(self._batch, self.state)

    def descend(self, step: Step, gradient: Tensor, rate: float) -> None:
        """See :meth:`FirstLayer.descend`."""
        self._weights.descend(self._batch, gradient, rate)

    def weights(self) -> tuple[Tensor, Tensor | None]:
        """See :meth:`FirstLayer.weights`."""
        return self.state[:, : self._n_inputs], self.state[:, self._n_inputs] if self._bias else None


class DualLayer:
    """First layer as a combination of training rows: ``W = W0 + X^T A``, exactly what SGD computes.

    The features are fixed, so every gradient of the first layer is a combination of rows of X. Holding the
    coefficients A (rows x units) makes a step cost rows x units instead of features x units; the features enter
    through the Gram matrix K = X X^T once. The bias is the constant feature, +1 in K.

    Parameters
    ----------
    columns
        Active columns of the features, shape (rows, inputs).
    gram
        ``columns @ columns.T``, shape (rows, rows).
    start, n_heads, bias
        As in :class:`DenseLayer`.
    settings
        SGD without weight decay, the only optimiser that has this form here.
    """

    def __init__(
        self,
        columns: Tensor,
        gram: Tensor,
        start: Tensor,
        n_heads: int,
        bias: bool,
        settings: HeadSettings,
    ) -> None:
        self._gram = gram + 1.0 if bias else gram
        self._columns = columns
        self._start = start
        self._bias = bias
        self._base = columns @ start
        self.state = columns.new_zeros(n_heads, len(columns), start.shape[1])
        self._momentum = torch.zeros_like(self.state)
        # the same memory with the heads' rows below one another
        self._flat_state, self._flat_momentum = self.state.flatten(0, 1), self._momentum.flatten(0, 1)
        self._mu = settings.momentum
        self._nesterov = settings.nesterov
        self._scale = 1.0

    def forward(self, step: Step) -> Tensor:
        """See :meth:`FirstLayer.forward`."""
        gram = self._gram.index_select(0, step.rows).view(*step.shape, self._gram.shape[1])
        base = self._base.index_select(0, step.rows).view(*step.shape, self._base.shape[1])
        return base.baddbmm_(gram, self.state)

    def descend(self, step: Step, gradient: Tensor, rate: float) -> None:
        """See :meth:`FirstLayer.descend`."""
        flat_gradient = gradient.flatten(0, 1)
        if self._mu == 0.0:
            self._flat_state.index_add_(0, step.head_rows, flat_gradient, alpha=-rate)
            return
        self._scale *= self._mu
        self._flat_momentum.index_add_(0, step.head_rows, flat_gradient, alpha=1.0 / self._scale)
        if self._nesterov:
            self.state.add_(self._momentum, alpha=-rate * self._mu * self._scale)
            self._flat_state.index_add_(0, step.head_rows, flat_gradient, alpha=-rate)
        else:
            self.state.add_(self._momentum, alpha=-rate * self._scale)
        if self._scale < 1.0 / _LARGEST_MOMENTUM_SCALE:
            self._momentum.mul_(self._scale)
            self._scale = 1.0

    def weights(self) -> tuple[Tensor, Tensor | None]:
        """See :meth:`FirstLayer.weights`."""
        weights = torch.stack([torch.addmm(self._start, self._columns.T, head) for head in self.state])
        return weights, self.state.sum(dim=1) if self._bias else None


def _with_bias_row(weights: Tensor, value: float | None) -> Tensor:
    """Weights (inputs, units), with one more row of a value unless that is None."""
    return weights if value is None else torch.cat([weights, weights.new_full((1, weights.shape[1]), value)])
