"""Heads that train side by side, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from moevoprune.heads.batches import Step
from moevoprune.heads.layers import DenseLayer, FirstLayer, padded_width

__all__ = ["EpochLoss", "HeadsInTraining", "StepLoss"]

# numbers of outputs whose losses are computed together, 64 MB
_MOST_OUTPUTS = 2**24

# outputs of a step, shape (heads, outputs, batch), and the step: its loss is computed once an epoch is over
StepLoss = tuple[Tensor, Step]


class StepLosses(Protocol):
    """What takes note of the losses of steps."""

    def append(self, loss: StepLoss, /) -> None:
        """Take note of one more step."""


class HeadsInTraining:
    """Heads of one or more individuals on folds that share their steps.

    Parameters
    ----------
    first
        Layer that reads the features.
    upper
        Layers above it.
    classification
        Whether outputs are logits, trained with the cross-entropy; else targets, trained with the squared error.
    """

    def __init__(self, first: FirstLayer, upper: Sequence[DenseLayer], classification: bool) -> None:
        self._first = first
        self._upper = upper
        self._classification = classification

    @property
    def first(self) -> FirstLayer:
        """Layer that reads the features."""
        return self._first

    @property
    def states(self) -> list[Tensor]:
        """Tensors that training changes, one slice per head."""
        return [self._first.state, *(layer.state for layer in self._upper)]

    def weights(self, individual: int) -> tuple[list[Tensor], list[Tensor | None]]:
        """Weights (folds, inputs, units) and biases (folds, units) or None of an individual, layer after layer."""
        pairs = [self._first.weights(individual), *(layer.weights(individual) for layer in self._upper)]
        return [weights for weights, _ in pairs], [bias for _, bias in pairs]

    def step(self, step: Step, rate: float, losses: StepLosses | None = None) -> None:
        """Train one mini-batch.

        Parameters
        ----------
        step
            The rows.
        rate
            Learning rate.
        losses
            Where given, what the loss of this step is computed from is appended.
        """
        activations, outputs = self._forward(step)
        if losses is not None:
            # computed once per epoch: per step it would cost as much as the small products
            losses.append((outputs if self._upper else outputs.clone(), step))
        scale = step.scale
        if self._classification:
            gradient = outputs.softmax(1).sub_(step.targets)
        else:
            gradient = outputs - step.targets
            scale *= 2.0 / outputs.shape[1]
        if step.weight is not None:
            gradient.mul_(step.weight)
        for layer, inputs in zip(reversed(self._upper), reversed(activations), strict=True):
            below = layer.backward(gradient, inputs)
            layer.descend(inputs, gradient, rate, scale)
            gradient = below
        if not self._upper:
            n_outputs = gradient.shape[1]
            gradient = pad(gradient.mT, (0, padded_width(n_outputs) - n_outputs))
        self._first.descend(step, gradient, rate, scale)

    def loss(self, step: Step) -> Tensor:
        """Mean loss of each head on the rows of a step, shape (heads,); trains nothing."""
        return self.mean_loss([(self.outputs(step), step)])

    def outputs(self, step: Step) -> Tensor:
        """Outputs for the rows of a step, shape (heads, outputs, batch); trains nothing."""
        return self._forward(step)[1]

    def mean_loss(self, losses: Sequence[StepLoss]) -> Tensor:
        """Mean loss of each head over the rows of steps, shape (heads,)."""
        return self.mean_of_rows(*self.row_losses(losses))

    @staticmethod
    def mean_of_rows(values: Tensor, real: Tensor) -> Tensor:
        """Mean of rows' losses over the real ones, shape (heads, rows) each to (heads,)."""
        return (values * real).sum(1) / real.sum(1)

    def row_losses(self, losses: Sequence[StepLoss]) -> tuple[Tensor, Tensor]:
        """Loss of each row of steps, and which rows are real, shape (heads, rows) each."""
        outputs = torch.cat([outputs for outputs, _ in losses], dim=2)
        targets = torch.cat([step.targets for _, step in losses], dim=2)
        real = torch.cat([step.real for _, step in losses], dim=1)
        if self._classification:
            values = -(outputs.log_softmax(1) * targets).sum(1)
        else:
            values = (outputs - targets).square().mean(1)
        return values, real

    def _forward(self, step: Step) -> tuple[list[Tensor], Tensor]:
        """Inputs of the upper layers, and outputs (heads, outputs, batch)."""
        values = self._first.forward(step)
        activations = []
        for layer in self._upper:
            inputs = layer.activate(values)
            activations.append(inputs)
            values = layer.forward(inputs)
        return activations, values if self._upper else values[..., : step.targets.shape[1]].mT


class EpochLoss:
    """Mean loss over the steps of an epoch, computed once it is over, or whenever outputs fill some memory.

    Parameters
    ----------
    heads
        Whose outputs they are.
    """

    def __init__(self, heads: HeadsInTraining) -> None:
        self._heads = heads
        self._waiting: list[StepLoss] = []
        self._n_outputs = 0
        self._rows: list[tuple[Tensor, Tensor]] = []

    def append(self, loss: StepLoss) -> None:
        """Take note of the outputs of one more step."""
        self._waiting.append(loss)
        self._n_outputs += loss[0].numel()
        if self._n_outputs >= _MOST_OUTPUTS:
            self._settle()

    def mean(self) -> Tensor:
        """Mean loss of each head over the rows of all steps, shape (heads,)."""
        if self._waiting:
            self._settle()
        values, real = zip(*self._rows, strict=True)
        return self._heads.mean_of_rows(torch.cat(values, dim=1), torch.cat(real, dim=1))

    def _settle(self) -> None:
        self._rows.append(self._heads.row_losses(self._waiting))
        self._waiting = []
        self._n_outputs = 0
