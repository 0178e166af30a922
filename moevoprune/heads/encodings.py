"""Encodings: what the bits of an individual mean for a head.

To add an encoding, write a subclass of :class:`Encoding` and enter it in :data:`ENCODINGS`.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError, nearest

__all__ = ["ENCODINGS", "Encoding", "HeadMask", "HeadShape", "make_encoding"]

Indices = npt.NDArray[np.int64]
Bits = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class HeadShape:
    """Widths of a dense head: ``n_features`` inputs, hidden layers, ``n_outputs`` outputs."""

    n_features: int
    hidden: tuple[int, ...]
    n_outputs: int

    @property
    def widths(self) -> tuple[int, ...]:
        """All widths from the input to the output."""
        return (self.n_features, *self.hidden, self.n_outputs)


@dataclass(frozen=True, eq=False)
class HeadMask:
    """What is left of a dense head.

    Attributes
    ----------
    inputs
        Sorted indices of the features that the head reads.
    hidden
        For each hidden layer, the sorted indices of the units that are kept.
    connections
        For the ``connections`` encoding: for each pruned layer, which of the weights between the kept inputs
        and the kept units exist (bool, kept inputs x kept units). None where layers stay dense.
    """

    inputs: Indices
    hidden: tuple[Indices, ...]
    connections: tuple[Bits, ...] | None = None

    def widths(self, n_outputs: int) -> tuple[int, ...]:
        """Widths of the physically small head, from the inputs to the outputs."""
        return (len(self.inputs), *(len(units) for units in self.hidden), n_outputs)

    def n_parameters(self, n_outputs: int, bias: bool) -> int:
        """Weights and biases of the physically small head."""
        widths = self.widths(n_outputs)
        layers = list(itertools.pairwise(widths))
        counts = [fan_in * fan_out for fan_in, fan_out in layers]
        for layer, kept in enumerate(self.connections or ()):
            counts[layer] = int(kept.sum())
        biases = sum(widths[1:-1]) if bias else 0
        return sum(counts) + biases + n_outputs


class Encoding(ABC):
    """Meaning of the bits of an individual.

    Parameters
    ----------
    shape
        Widths of the dense head.

    Attributes
    ----------
    name
        The word that users select the encoding by.
    n_bits
        Length of an individual.
    """

    name: str
    n_bits: int

    def __init__(self, shape: HeadShape) -> None:
        self.shape = shape

    @abstractmethod
    def decode(self, bits: Bits) -> HeadMask:
        """Turn the bits of one individual, shape (n_bits,), into a mask."""

    @abstractmethod
    def arrange(self, inputs: Values, units: Sequence[Values], connections: Sequence[Values]) -> Values:
        """Put values about the parts of the dense head into the order of the bits.

        Parameters
        ----------
        inputs
            One value per input feature, shape (n_features,).
        units
            For each hidden layer, one value per unit, shape (units,).
        connections
            For each layer, one value per weight, shape (inputs, units).

        Returns
        -------
        ndarray, shape (n_bits,)
            The value of the part that each bit stands for; the other values are not read.
        """

    def dense(self) -> Bits:
        """Bits of the unpruned head, shape (n_bits,)."""
        return np.ones(self.n_bits, dtype=np.bool_)

    def count_active(self, bits: Bits) -> npt.NDArray[np.int64]:
        """Count the active bits; shape (..., n_bits) to (...)."""
        counts: npt.NDArray[np.int64] = np.asarray(np.count_nonzero(bits, axis=-1), dtype=np.int64)
        return counts

    def shrunk_shape(self, bits: Bits) -> tuple[int, ...]:
        """Widths of the head that is physically left, from the inputs to the outputs."""
        return self.decode(bits).widths(self.shape.n_outputs)

    def _all_inputs(self) -> Indices:
        return np.arange(self.shape.n_features)

    def _all_hidden(self) -> tuple[Indices, ...]:
        return tuple(np.arange(width) for width in self.shape.hidden)


class FeatureEncoding(Encoding):
    """One bit per input feature: may the head read it? (EvoPruneDeepTL's "feature selection".)"""

    name = "features"

    def __init__(self, shape: HeadShape) -> None:
        super().__init__(shape)
        self.n_bits = shape.n_features

    def decode(self, bits: Bits) -> HeadMask:
        """See :meth:`Encoding.decode`."""
        return HeadMask(np.flatnonzero(bits), self._all_hidden())

    def arrange(self, inputs: Values, units: Sequence[Values], connections: Sequence[Values]) -> Values:
        """See :meth:`Encoding.arrange`."""
        return np.asarray(inputs, dtype=np.float64)


class NeuronEncoding(Encoding):
    """One bit per hidden unit of some of the hidden layers; a unit without its bit is gone, bias and all."""

    def __init__(self, shape: HeadShape, layers: tuple[int, ...], name: str) -> None:
        super().__init__(shape)
        self.name = name
        self.layers = layers
        self.n_bits = sum(shape.hidden[layer] for layer in layers)

    def decode(self, bits: Bits) -> HeadMask:
        """See :meth:`Encoding.decode`."""
        hidden = list(self._all_hidden())
        start = 0
        for layer in self.layers:
            stop = start + self.shape.hidden[layer]
            hidden[layer] = np.flatnonzero(bits[start:stop])
            start = stop
        return HeadMask(self._all_inputs(), tuple(hidden))

    def arrange(self, inputs: Values, units: Sequence[Values], connections: Sequence[Values]) -> Values:
        """See :meth:`Encoding.arrange`."""
        chosen = [np.asarray(units[layer], dtype=np.float64) for layer in self.layers]
        # a head without hidden layers has no unit bits, and nothing cannot be concatenated
        return np.concatenate(chosen) if chosen else np.zeros(0)


class FeatureNeuronEncoding(Encoding):
    """First one bit per input feature, then one per unit of every hidden layer."""

    name = "features+neurons"

    def __init__(self, shape: HeadShape) -> None:
        super().__init__(shape)
        self._features = FeatureEncoding(shape)
        self._neurons = NeuronEncoding(shape, tuple(range(len(shape.hidden))), "neurons")
        self.n_bits = self._features.n_bits + self._neurons.n_bits

    def decode(self, bits: Bits) -> HeadMask:
        """See :meth:`Encoding.decode`."""
        split = self._features.n_bits
        return HeadMask(self._features.decode(bits[:split]).inputs, self._neurons.decode(bits[split:]).hidden)

    def arrange(self, inputs: Values, units: Sequence[Values], connections: Sequence[Values]) -> Values:
        """See :meth:`Encoding.arrange`."""
        parts = [part.arrange(inputs, units, connections) for part in (self._features, self._neurons)]
        return np.concatenate(parts)


class ConnectionEncoding(Encoding):
    """One bit per single weight, row by row (inputs x units), layer by layer.

    Pruned are the weights into every hidden layer; in a head without hidden layers, those into the output.
    """

    name = "connections"

    def __init__(self, shape: HeadShape) -> None:
        super().__init__(shape)
        widths = shape.widths
        n_layers = max(len(shape.hidden), 1)
        self._layers = [(widths[i], widths[i + 1]) for i in range(n_layers)]
        self.n_bits = sum(rows * columns for rows, columns in self._layers)

    def decode(self, bits: Bits) -> HeadMask:
        """See :meth:`Encoding.decode`."""
        kept: list[Bits] = []
        start = 0
        for rows, columns in self._layers:
            kept.append(np.asarray(bits[start : start + rows * columns], dtype=np.bool_).reshape(rows, columns))
            start += rows * columns
        # a feature without any connection is not read at all, so the head is small where it can be
        inputs = np.flatnonzero(kept[0].any(axis=1))
        kept[0] = kept[0][inputs]
        return HeadMask(inputs, self._all_hidden(), tuple(kept))

    def arrange(self, inputs: Values, units: Sequence[Values], connections: Sequence[Values]) -> Values:
        """See :meth:`Encoding.arrange`."""
        pruned = connections[: len(self._layers)]
        return np.concatenate([np.asarray(matrix, dtype=np.float64).ravel() for matrix in pruned])


def _neurons(layer: str | None) -> Callable[[HeadShape], Encoding]:
    def build(shape: HeadShape) -> Encoding:
        name = "neurons" if layer is None else f"neurons:{layer}"
        depth = len(shape.hidden)
        if depth == 0:
            raise InputError(f"encoding {name!r} needs a hidden layer: set head.hidden, e.g. hidden = [64]")
        if layer in ("2", "both") and depth < 2:
            raise InputError(f"encoding {name!r} needs two hidden layers: set head.hidden, e.g. [64, 64]")
        layers = {None: tuple(range(depth)), "1": (0,), "2": (1,), "both": (0, 1)}[layer]
        return NeuronEncoding(shape, layers, name)

    return build


ENCODINGS: dict[str, Callable[[HeadShape], Encoding]] = {
    "features": FeatureEncoding,
    "neurons": _neurons(None),
    "neurons:1": _neurons("1"),
    "neurons:2": _neurons("2"),
    "neurons:both": _neurons("both"),
    "features+neurons": FeatureNeuronEncoding,
    "connections": ConnectionEncoding,
}


def make_encoding(name: str, shape: HeadShape) -> Encoding:
    """Build an encoding by name.

    Parameters
    ----------
    name
        A key of :data:`ENCODINGS`. ``neurons`` means the units of all hidden layers.
    shape
        Widths of the dense head.

    Raises
    ------
    InputError
        The name is unknown, or the head has too few hidden layers for it.
    """
    if name not in ENCODINGS:
        raise InputError(f"unknown encoding {name!r}{nearest(name, ENCODINGS)}: use one of {', '.join(ENCODINGS)}")
    return ENCODINGS[name](shape)
