"""Building the small network: layer by layer, of the units that vary."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from moevoprune.construction.variability import DEFAULT_MEASURE, variability
from moevoprune.heads.head import TrainedHead

__all__ = ["Construction", "construct", "take_units"]

Floats = npt.NDArray[np.float32]
Values = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Construction:
    """A small network made of a large one.

    Attributes
    ----------
    network
        The small network, with the large one's weights; not retrained.
    kept
        For each hidden layer, the sorted numbers of the large network's units that it has.
    """

    network: TrainedHead
    kept: tuple[Indices, ...]


def construct(network: TrainedHead, rows: Floats, epsilon: float, measure: str = DEFAULT_MEASURE) -> Construction:
    """Keep the units whose output varies enough over the rows (after ODF2NNA, arXiv 2312.10560).

    Layers are taken from the inputs on; a layer is judged by what its units put out behind the layers that are
    built already. A unit goes where its variability is below ``epsilon``: its mean output times its outgoing
    weights is added to the biases of the next layer, so that a network that loses constant units only computes
    what it computed before. A layer keeps its most varying unit at least.

    Parameters
    ----------
    network
        The large network, trained.
    rows
        Training rows, shape (rows, features).
    epsilon
        Threshold of the variability, at least 0; with 0 all units are kept.
    measure
        What is compared with it, see :data:`moevoprune.construction.variability.MEASURES`.
    """
    layers = _Layers(network, rows)
    for _ in range(layers.n_hidden):
        varying = variability(layers.outputs, layers.outgoing, measure)
        kept = np.flatnonzero(varying >= epsilon)
        layers.keep(kept if len(kept) else np.array([int(varying.argmax())]))
    return layers.construction()


def take_units(network: TrainedHead, kept: Sequence[npt.ArrayLike]) -> TrainedHead:
    """Take some units of each hidden layer out of a network, with the weights between them and nothing folded.

    Parameters
    ----------
    network
        The large network.
    kept
        For each hidden layer, the numbers of the units to take.
    """
    units = [np.asarray(numbers, dtype=np.int64) for numbers in kept]
    places = [np.arange(len(network.inputs)), *units, np.arange(network.widths[-1])]
    return replace(
        network,
        weights=tuple(
            weight[np.ix_(*ends)] for weight, ends in zip(network.weights, itertools.pairwise(places), strict=True)
        ),
        biases=tuple(
            None if bias is None else bias[place] for bias, place in zip(network.biases, places[1:], strict=True)
        ),
    )


class _Layers:
    """A network that is being built, up to some hidden layer; sums are made in float64.

    Attributes
    ----------
    outputs
        What the units of the layer in hand put out, shape (rows, units).
    """

    def __init__(self, network: TrainedHead, rows: Floats) -> None:
        self._network = network
        self._weights: list[Values] = [weight.astype(np.float64) for weight in network.weights]
        self._biases: list[Values] = [
            np.zeros(weight.shape[1]) if bias is None else bias.astype(np.float64)
            for weight, bias in zip(network.weights, network.biases, strict=True)
        ]
        self._kept: list[Indices] = []
        self._inputs: Values = network.prepare(rows).astype(np.float64)
        self.outputs: Values = self._forward()

    @property
    def n_hidden(self) -> int:
        return len(self._weights) - 1

    @property
    def outgoing(self) -> Values:
        """Weights from the units of the layer in hand to the next layer."""
        return self._weights[len(self._kept) + 1]

    def keep(self, units: Indices) -> None:
        """Leave only these units in the layer in hand, and go on to the next one."""
        layer, units = len(self._kept), np.sort(units)
        dropped = np.setdiff1d(np.arange(self.outputs.shape[1]), units)
        self._biases[layer + 1] += self.outputs[:, dropped].mean(axis=0) @ self.outgoing[dropped]
        self._weights[layer + 1] = self.outgoing[units]
        self._weights[layer] = self._weights[layer][:, units]
        self._biases[layer] = self._biases[layer][units]
        self._inputs = self.outputs[:, units]
        self._kept.append(units)
        if len(self._kept) < self.n_hidden:
            self.outputs = self._forward()

    def construction(self) -> Construction:
        network = replace(
            self._network,
            weights=tuple(weight.astype(np.float32) for weight in self._weights),
            biases=tuple(bias.astype(np.float32) for bias in self._biases),
        )
        return Construction(network, tuple(self._kept))

    def _forward(self) -> Values:
        layer = len(self._kept)
        return np.maximum(self._inputs @ self._weights[layer] + self._biases[layer], 0.0)
