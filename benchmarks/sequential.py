"""What the population trainer is measured against: the loops that users write."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from moevoprune.heads.encodings import HeadMask, HeadShape
from moevoprune.heads.settings import HeadSettings

SEQUENTIAL = "one nn.Module and one torch.optim.SGD per mask, mask times weight at each step, autograd"
STACKED = "torch.func: vmap of grad over the stacked parameters of some masks"


class MaskedHead(nn.Module):
    """The papers' head: hidden layers without bias under masks, ReLU, an output layer with bias."""

    def __init__(self, shape: HeadShape, mask: HeadMask) -> None:
        super().__init__()
        self.hidden = nn.ModuleList(
            nn.Linear(n_in, n_out, bias=False) for n_in, n_out in zip(shape.widths[:-2], shape.hidden, strict=True)
        )
        self.output = nn.Linear(shape.hidden[-1], shape.n_outputs)
        for layer in (*self.hidden, self.output):
            nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(self.output.bias)
        for number in range(len(shape.hidden)):
            self.register_buffer(f"mask{number}", _factor(shape, mask, number))

    def forward(self, rows: Tensor) -> Tensor:
        values = rows
        for number, layer in enumerate(self.hidden):
            assert isinstance(layer, nn.Linear)
            weight = layer.weight * self.get_buffer(f"mask{number}")
            values = torch.relu(nn.functional.linear(values, weight))
        logits: Tensor = self.output(values)
        return logits


def _factor(shape: HeadShape, mask: HeadMask, layer: int) -> Tensor:
    """What multiplies a layer's weight (units, inputs): a vector where that is enough, as it is cheaper."""
    n_in, n_out = shape.widths[layer], shape.widths[layer + 1]
    on_in = np.ones(n_in, np.float32)
    if layer == 0:
        on_in[:] = 0
        on_in[mask.inputs] = 1
    on_out = np.zeros(n_out, np.float32)
    on_out[mask.hidden[layer]] = 1
    if mask.connections is not None:
        kept = np.zeros((n_out, n_in), np.float32)
        kept[:, mask.inputs if layer == 0 else slice(None)] = mask.connections[layer].T
        return torch.from_numpy(kept)
    if on_out.all():
        return torch.from_numpy(on_in[None])
    if on_in.all():
        return torch.from_numpy(on_out[:, None])
    return torch.from_numpy(on_out[:, None] * on_in[None])


def train_in_a_loop(
    features: Tensor, labels: Tensor, shape: HeadShape, settings: HeadSettings, masks: Sequence[HeadMask]
) -> list[float]:
    """Train mask after mask as a user would; returns the last epoch's mean training loss of each.

    Early stopping and schedules are left out, as the timed settings have none.
    """
    losses = []
    for mask in masks:
        head = MaskedHead(shape, mask).to(features.device)
        optimiser = torch.optim.SGD(
            head.parameters(),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
        )
        loss_of = nn.CrossEntropyLoss()
        total = features.new_zeros(())
        for _ in range(settings.epochs):
            total = features.new_zeros(())
            for rows in torch.split(torch.randperm(len(features), device=features.device), settings.batch_size):
                optimiser.zero_grad()
                loss = loss_of(head(features[rows]), labels[rows])
                loss.backward()
                optimiser.step()
                total += loss.detach() * len(rows)
        losses.append(float(total) / len(features))
    return losses


def train_stacked(
    features: Tensor, labels: Tensor, shape: HeadShape, settings: HeadSettings, masks: Sequence[HeadMask]
) -> list[float]:
    """Train all masks at once on the same batches, with ``torch.func``; returns the final loss of each."""
    heads = [MaskedHead(shape, mask) for mask in masks]
    parameters, buffers = stack_module_state(heads)
    parameters = {name: value.detach() for name, value in parameters.items()}
    momentum = {name: torch.zeros_like(value) for name, value in parameters.items()}
    template = heads[0]

    def loss(own: dict[str, Tensor], fixed: dict[str, Tensor], rows: Tensor, answers: Tensor) -> Tensor:
        return nn.functional.cross_entropy(functional_call(template, (own, fixed), (rows,)), answers)

    gradients_of = vmap(grad(loss), in_dims=(0, 0, None, None))
    rate, decay = settings.learning_rate, settings.momentum
    for _ in range(settings.epochs):
        for rows in torch.split(torch.randperm(len(features)), settings.batch_size):
            gradients = gradients_of(parameters, buffers, features[rows], labels[rows])
            for name, gradient in gradients.items():
                velocity = momentum[name].mul_(decay).add_(gradient)
                parameters[name].sub_(gradient.add_(velocity, alpha=decay), alpha=rate)
    with torch.no_grad():
        final: list[float] = vmap(loss, in_dims=(0, 0, None, None))(parameters, buffers, features, labels).tolist()
    return final
