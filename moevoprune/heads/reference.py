"""The oracle: one masked head trained alone, with torch.nn modules, autograd and torch.optim.

Slow and plain on purpose. It shares with the population trainer only what defines the training: start weights,
row order, step sizes and the rule of stopping's split.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from moevoprune.heads.batches import epoch_order, n_steps
from moevoprune.heads.encodings import HeadMask, HeadShape
from moevoprune.heads.settings import HeadSettings
from moevoprune.heads.start import StartWeights
from moevoprune.heads.stopping import monitor_split

__all__ = ["ReferenceHead", "train_reference_head"]


class _MaskedLinear(nn.Module):
    """Dense layer whose weight is multiplied by a mask in every forward pass."""

    def __init__(self, start: Tensor, mask: Tensor, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(start)
        self.bias = nn.Parameter(start.new_zeros(start.shape[1])) if bias else None
        self.register_buffer("mask", mask)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = inputs @ (self.weight * self.get_buffer("mask"))
        return outputs if self.bias is None else outputs + self.bias


class _Head(nn.Module):
    """Dense head under a mask; units that are gone are multiplied by 0 after the ReLU."""

    def __init__(
        self, mask: HeadMask, shape: HeadShape, settings: HeadSettings, seed: int, dtype: torch.dtype
    ) -> None:
        super().__init__()
        widths = shape.widths
        kept = [mask.inputs, *mask.hidden, np.arange(shape.n_outputs)]
        layers = []
        for layer, small in enumerate(StartWeights(shape, settings, seed).weights(mask)):
            grid = np.ix_(kept[layer], kept[layer + 1])
            start = np.zeros((widths[layer], widths[layer + 1]))
            start[grid] = small
            active = np.zeros((widths[layer], widths[layer + 1]))
            active[grid] = 1.0
            if mask.connections is not None and layer < len(mask.connections):
                active[grid] = mask.connections[layer]
            bias = settings.bias or layer == len(widths) - 2
            layers.append(_MaskedLinear(torch.tensor(start, dtype=dtype), torch.tensor(active, dtype=dtype), bias))
        self.layers = nn.ModuleList(layers)
        for layer, units in enumerate(mask.hidden):
            gate = torch.zeros(widths[layer + 1], dtype=dtype)
            gate[torch.from_numpy(units)] = 1.0
            self.register_buffer(f"gate{layer}", gate)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        values = inputs
        hidden = inputs
        for layer, module in enumerate(self.layers):
            hidden = values
            values = module(values)
            if layer < len(self.layers) - 1:
                values = torch.relu(values) * self.get_buffer(f"gate{layer}")
        return values, hidden if len(self.layers) > 1 else values


@dataclass(frozen=True, eq=False)
class ReferenceHead:
    """What the oracle trained.

    Attributes
    ----------
    module
        Called with features (rows, features), returns outputs and the last hidden representation, of the
        dense head's width.
    train_loss
        Mean training loss over the last epoch trained.
    epochs
        Epochs trained.
    """

    module: nn.Module
    train_loss: float
    epochs: int


def train_reference_head(
    features: npt.NDArray[np.floating],
    targets: npt.NDArray[np.generic],
    rows: npt.NDArray[np.int64],
    mask: HeadMask,
    shape: HeadShape,
    settings: HeadSettings,
    seed: int,
    dtype: torch.dtype = torch.float64,
) -> ReferenceHead:
    """Train one masked head the way anyone would write it.

    Parameters
    ----------
    features, targets, shape, settings, seed
        As for :class:`moevoprune.heads.trainer.PopulationTrainer`.
    rows
        Row numbers to train on.
    mask
        What the head keeps.
    dtype
        Precision of all arithmetic.
    """
    inputs = torch.tensor(features, dtype=dtype)
    is_classification = np.issubdtype(targets.dtype, np.integer)
    answers = torch.tensor(targets, dtype=torch.int64 if is_classification else dtype)
    labels = targets if is_classification else None
    loss_of = nn.functional.cross_entropy if is_classification else nn.functional.mse_loss
    monitor = rows[:0]
    if settings.early_stop == "validation":
        rows, monitor = monitor_split(rows, labels, seed)

    head = _Head(mask, shape, settings, seed, dtype)
    if settings.optimiser == "sgd":
        optimiser: torch.optim.Optimizer = torch.optim.SGD(
            head.parameters(),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            nesterov=settings.nesterov and settings.momentum > 0,
            weight_decay=settings.weight_decay,
        )
    else:
        optimiser = torch.optim.Adam(
            head.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
    rates = iter(settings.learning_rates(n_steps(len(rows), settings.batch_size)))

    best, best_state, waited, train_loss, epoch = float("inf"), copy.deepcopy(head.state_dict()), 0, 0.0, 0
    for epoch in range(settings.epochs):
        order = torch.from_numpy(rows[epoch_order(len(rows), seed, epoch)])
        total = 0.0
        for batch in torch.split(order, settings.batch_size):
            optimiser.param_groups[0]["lr"] = next(rates)
            optimiser.zero_grad()
            loss = loss_of(head(inputs[batch])[0], answers[batch])
            torch.autograd.backward(loss)
            optimiser.step()
            total += loss.item() * len(batch)
        train_loss = total / len(rows)
        if settings.early_stop == "none":
            continue
        watched = train_loss
        if settings.early_stop == "validation":
            with torch.no_grad():
                at = torch.from_numpy(monitor)
                watched = float(loss_of(head(inputs[at])[0], answers[at]))
        if watched < best - settings.min_delta:
            best, waited, best_state = watched, 0, copy.deepcopy(head.state_dict())
        else:
            waited += 1
        if waited >= settings.patience:
            break
    if settings.early_stop != "none":
        head.load_state_dict(best_state)
    return ReferenceHead(head.requires_grad_(False), train_loss, epoch + 1)
