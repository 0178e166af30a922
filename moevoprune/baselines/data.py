"""What the cheap ways to choose masks may look at: the training rows, and the dense head trained on them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError
from moevoprune.heads.encodings import Encoding
from moevoprune.heads.row_sources import RowSource
from moevoprune.heads.settings import HeadSettings
from moevoprune.heads.trainer import HeadStack, PopulationTrainer

__all__ = ["MOST_ROWS", "RankingData", "standardise"]

Bits = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Values = npt.NDArray[np.float64]

# enough for a ranking, and little memory and time for a million rows
MOST_ROWS = 20_000
# float32 rounding gives a constant column a standard deviation of about 1e-7 of its size
_CONSTANT = 1e-6


@dataclass(frozen=True, eq=False)
class RankingData:
    """The training part of a problem, as baselines see it; there is no test part in it.

    Whatever is expensive is computed when first asked for, and kept.

    Parameters
    ----------
    features
        Prepared (standardised where the head asks for it) training rows, shape (rows, n_features), float32; or
        where to read them.
    targets
        Class labels, shape (rows,), int64; or prepared regression targets, shape (rows, outputs), float32.
    task
        ``"classification"`` or ``"regression"``.
    encoding
        What the bits mean.
    head
        How heads are trained.
    seed
        Seed of all that is drawn.
    trainer
        Trainer of these rows; it trains the dense head.
    evaluate
        Validation score of masks, shape (n, n_bits) to (n,), larger is better, NaN for a mask without a score.
        None where masks cannot be scored: baselines that search then raise an InputError.
    rows
        Row numbers to keep to, e.g. the training rows of a fold; None for all.

    Raises
    ------
    InputError
        Features, targets and encoding do not fit together.
    """

    features: Floats | RowSource
    targets: npt.NDArray[np.generic]
    task: Literal["classification", "regression"]
    encoding: Encoding
    head: HeadSettings
    seed: int
    trainer: PopulationTrainer
    evaluate: Callable[[Bits], Values] | None = None
    rows: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        wanted = (len(self.targets), self.encoding.shape.n_features)
        if self.features.shape != wanted:
            raise InputError(
                f"features of shape {self.features.shape} do not fit {wanted[0]} targets and an encoding "
                f"of {wanted[1]} features"
            )

    @property
    def is_connections(self) -> bool:
        """Whether bits are about single weights."""
        return self.encoding.decode(self.encoding.dense()).connections is not None

    @functools.cached_property
    def sample(self) -> tuple[Floats, npt.NDArray[np.generic]]:
        """Features and targets of at most :data:`MOST_ROWS` rows, drawn by the seed; all where they are fewer."""
        small = self.rows is None and len(self.targets) <= MOST_ROWS
        if small and isinstance(self.features, np.ndarray):
            return self.features, self.targets
        chosen = self.all_rows
        if len(chosen) > MOST_ROWS:
            chosen = np.random.default_rng(self.seed).choice(chosen, MOST_ROWS, replace=False)
            chosen.sort()
        rows = self.features[chosen] if isinstance(self.features, np.ndarray) else self.features.rows(chosen)
        return rows, self.targets[chosen]

    @property
    def all_rows(self) -> npt.NDArray[np.int64]:
        """Numbers of the rows that may be learned from."""
        return np.arange(len(self.targets)) if self.rows is None else self.rows

    @functools.cached_property
    def dense_stack(self) -> HeadStack:
        """The dense head, trained on the rows: a stack of one."""
        mask = self.encoding.decode(self.encoding.dense())
        (stack,) = self.trainer.fit([mask], [self.all_rows])
        return stack

    @functools.cached_property
    def dense_weights(self) -> tuple[Values, ...]:
        """Weights of the dense head, one array (inputs, units) per layer; 0 where training diverged."""
        return tuple(_finite(weights[0].double().cpu().numpy()) for weights in self.dense_stack.weights)

    @functools.cached_property
    def dense_biases(self) -> tuple[Values | None, ...]:
        """Biases of the dense head, one array (units,) per layer, or None."""
        return tuple(
            None if biases is None else _finite(biases[0].double().cpu().numpy())
            for biases in self.dense_stack.biases
        )

    @functools.cached_property
    def hidden(self) -> tuple[Floats, ...]:
        """Activations of each hidden layer of the dense head on the rows of :attr:`sample`, after the ReLU.

        A unit that overflows float32 for any row is 0 for all of them.
        """
        activations = []
        values = self.sample[0]
        for weights, biases in zip(self.dense_weights[:-1], self.dense_biases[:-1], strict=True):
            # a head that has nearly diverged overflows: such units tell nothing
            with np.errstate(over="ignore", invalid="ignore"):
                values = values @ weights.astype(np.float32)
                if biases is not None:
                    values = values + biases.astype(np.float32)
            values = np.where(
                np.isfinite(values).all(axis=0), np.maximum(values, np.float32(0.0)), np.float32(0.0)
            )
            activations.append(values)
        return tuple(activations)

    @functools.cached_property
    def signals(self) -> Floats | None:
        """What each bit lets through: the feature, or the activation of the unit in the dense head.

        Shape (sample rows, n_bits), each column with mean 0 and variance 1, or 0 throughout where it is
        constant. None for single connections, which have no signal of their own.
        """
        if self.is_connections:
            return None
        widths = self.encoding.shape.widths[:-1]
        numbers = np.split(np.arange(sum(widths), dtype=np.float64), np.cumsum(widths)[:-1])
        order = self.encoding.arrange(numbers[0], numbers[1:], ()).astype(np.int64)
        columns = self.sample[0]
        if order.max(initial=0) >= widths[0]:
            # only bits about units need the dense head trained
            columns = np.concatenate([columns, *self.hidden], axis=1)
        return standardise(columns[:, order])


def standardise(columns: Floats) -> Floats:
    """Give each column mean 0 and variance 1; a constant one becomes 0.

    Parameters
    ----------
    columns
        Shape (rows, columns).
    """
    mean = columns.mean(axis=0, dtype=np.float64)
    deviation = columns.std(axis=0, dtype=np.float64)
    size = np.maximum(np.abs(mean), deviation.max(initial=0.0))
    constant = deviation <= _CONSTANT * size
    scaled: Floats = (columns - mean.astype(np.float32)) / np.where(constant, 1.0, deviation).astype(np.float32)
    scaled[:, constant] = 0.0
    return scaled


def _finite(weights: Values) -> Values:
    return np.nan_to_num(weights, nan=0.0, posinf=0.0, neginf=0.0)
