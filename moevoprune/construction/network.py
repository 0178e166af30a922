"""Feed-forward networks of any depth, and their training on the rows of a table.

A network is a :class:`~moevoprune.TrainedHead`: weights, biases, and the standardisation before and behind them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from moevoprune.heads.batches import epoch_order, n_steps
from moevoprune.heads.encodings import HeadMask, HeadShape
from moevoprune.heads.head import TrainedHead
from moevoprune.heads.scaling import Scaling
from moevoprune.heads.settings import HeadSettings
from moevoprune.heads.start import StartWeights

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Training", "hidden_widths", "n_parameters", "parameter_count", "start_network", "train_network"]

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Training:
    """How a network is trained: Adam with an L2 penalty, the step size falling to 0 along half a cosine.

    The penalty is added to the gradient, before Adam divides it by its running size (``torch.optim.Adam``, not
    ``AdamW``). A unit that the loss hardly needs has small gradients, so that the penalty shrinks its weights at
    nearly the full step size: that is what leaves a large network with units that hardly vary.

    Attributes
    ----------
    epochs
        Passes over the rows; 0 leaves the network as it is.
    learning_rate
        First step size.
    weight_decay
        L2 penalty on weights and biases.
    batch_size
        Rows per step; the last batch of an epoch may be smaller.
    """

    epochs: int
    learning_rate: float
    weight_decay: float
    batch_size: int


def start_network(rows: Floats, targets: Array, hidden: Sequence[int], n_outputs: int, seed: int) -> TrainedHead:
    """Make a network with Glorot-uniform start weights, as heads have them.

    Parameters
    ----------
    rows, targets
        The rows it will be trained on, for the standardisation: shape (rows, features), and class numbers (rows,)
        or targets (rows, outputs).
    hidden
        Widths of the hidden layers.
    n_outputs
        Classes, or targets.
    seed
        Seed of the start weights.
    """
    shape = HeadShape(rows.shape[1], tuple(hidden), n_outputs)
    everything = HeadMask(np.arange(shape.n_features), tuple(np.arange(width) for width in shape.hidden))
    weights = StartWeights(shape, HeadSettings(), seed).weights(everything)
    scaling = Scaling.fit(rows, targets, standardise=True)
    return TrainedHead(
        task="classification" if scaling.target_mean is None else "regression",
        n_features=shape.n_features,
        inputs=everything.inputs,
        weights=tuple(weight.astype(np.float32) for weight in weights),
        biases=tuple(np.zeros(width, dtype=np.float32) for width in shape.widths[1:]),
        mean=scaling.mean,
        scale=scaling.scale,
        target_mean=scaling.target_mean,
        target_scale=scaling.target_scale,
    )


def train_network(
    network: TrainedHead, rows: Floats, targets: Array, training: Training, seed: int
) -> TrainedHead:
    """Train a network further, from the weights that it has.

    Classes are learnt by cross-entropy, targets by the mean squared error of the standardised targets. float32 on
    one thread of the CPU: the same arguments give the same bits.

    Parameters
    ----------
    network
        Where to start; it stays as it is.
    rows, targets
        What to learn, as for :func:`start_network`.
    training
        How.
    seed
        Seed of the order of the rows.
    """
    import torch

    from moevoprune.device import reproducible

    with reproducible(torch.device("cpu")), torch.enable_grad():
        weights = [torch.tensor(weight, requires_grad=True) for weight in network.weights]
        biases = [torch.tensor(_bias(bias, weight), requires_grad=True) for weight, bias in _layers(network)]
        inputs, answers = torch.from_numpy(network.prepare(rows)), _answers(network, targets)
        loss_of = torch.nn.functional.cross_entropy if answers.ndim == 1 else torch.nn.functional.mse_loss
        optimiser = torch.optim.Adam(
            [*weights, *biases], training.learning_rate, weight_decay=training.weight_decay, fused=True
        )
        step, last = 0, training.epochs * n_steps(len(rows), training.batch_size)
        for epoch in range(training.epochs):
            order = torch.from_numpy(epoch_order(len(rows), seed, epoch))
            for batch in torch.split(order, training.batch_size):
                rate = 0.5 * training.learning_rate * (1 + math.cos(math.pi * step / last))
                optimiser.param_groups[0]["lr"] = rate
                optimiser.zero_grad()
                torch.autograd.backward(loss_of(_forward(weights, biases, inputs[batch]), answers[batch]))
                optimiser.step()
                step += 1
    return replace(
        network,
        weights=tuple(weight.detach().numpy() for weight in weights),
        biases=tuple(bias.detach().numpy() for bias in biases),
    )


def hidden_widths(network: TrainedHead) -> tuple[int, ...]:
    """Units of each hidden layer."""
    return network.widths[1:-1]


def n_parameters(network: TrainedHead) -> int:
    """Weights and biases, those that happen to be zero included."""
    return sum(weight.size for weight in network.weights) + sum(b.size for b in network.biases if b is not None)


def parameter_count(n_features: int, hidden: Sequence[int], n_outputs: int) -> int:
    """Weights and biases of a network of these widths."""
    widths = (n_features, *hidden, n_outputs)
    return sum((fan_in + 1) * fan_out for fan_in, fan_out in itertools.pairwise(widths))


def _layers(network: TrainedHead) -> list[tuple[Floats, Floats | None]]:
    return list(zip(network.weights, network.biases, strict=True))


def _bias(bias: Floats | None, weight: Floats) -> Floats:
    return np.zeros(weight.shape[1], dtype=np.float32) if bias is None else bias


def _answers(network: TrainedHead, targets: Array) -> Tensor:
    import torch

    if network.target_mean is None or network.target_scale is None:
        return torch.from_numpy(np.array(targets, dtype=np.int64))
    return torch.from_numpy((targets.astype(np.float32) - network.target_mean) / network.target_scale)


def _forward(weights: Sequence[Tensor], biases: Sequence[Tensor], values: Tensor) -> Tensor:
    import torch

    *hidden, (weight, bias) = zip(weights, biases, strict=True)
    for inner, shift in hidden:
        values = torch.relu(torch.addmm(shift, values, inner))
    return torch.addmm(bias, values, weight)
