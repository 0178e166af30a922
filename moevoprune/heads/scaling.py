"""Standardisation by training statistics: part of a head, and exported with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from moevoprune.features.feature_folder import MappedRows, row_blocks

__all__ = ["Scaling"]

Floats = npt.NDArray[np.float32]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scaling:
    """Means and standard deviations of the training part.

    Attributes
    ----------
    mean, scale
        Per feature, shape (features,), float32; ``scale`` is 1 where a feature is constant.
    target_mean, target_scale
        Per regression target, shape (outputs,), float32; None for classification.
    """

    mean: Floats
    scale: Floats
    target_mean: Floats | None = None
    target_scale: Floats | None = None

    @classmethod
    def fit(cls, features: Floats | MappedRows, targets: npt.NDArray[np.generic], standardise: bool) -> Scaling:
        """Measure the training part, or build the identity where nothing is to be standardised.

        Rows are read in blocks, and added up in float64 one after the other: results are the same bits whether
        they come from memory or from a file.

        Parameters
        ----------
        features
            Shape (rows, features).
        targets
            Class labels (integers) or regression targets, shape (rows, outputs).
        standardise
            Whether to standardise at all.
        """
        is_regression = not np.issubdtype(targets.dtype, np.integer)
        if not standardise:
            identity = (np.zeros(features.shape[1], np.float32), np.ones(features.shape[1], np.float32))
            if not is_regression:
                return cls(*identity)
            width = targets.shape[1]
            return cls(*identity, np.zeros(width, np.float32), np.ones(width, np.float32))
        statistics = _mean_and_scale(features)
        return cls(*statistics, *_mean_and_scale(targets)) if is_regression else cls(*statistics)

    def apply(self, features: Floats) -> Floats:
        """Standardise features, shape (rows, features)."""
        prepared: Floats = (features - self.mean) / self.scale
        return prepared

    def apply_to_targets(self, targets: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Standardise regression targets; class labels pass unchanged."""
        if self.target_mean is None or self.target_scale is None:
            return targets
        prepared: Floats = (targets.astype(np.float32) - self.target_mean) / self.target_scale
        return prepared


def _mean_and_scale(values: npt.NDArray[Any] | MappedRows) -> tuple[Floats, Floats]:
    n_rows = values.shape[0]

    def column_sums(change: Callable[[Values], object]) -> Values:
        """Sum over the rows, changed in place; what there is so far is the first row of every block but the first.

        So rows are added one after the other, as NumPy does with a whole array.
        """
        total: Values | None = None
        room = np.empty((1, values.shape[1]))
        for block in _blocks_of(values):
            if len(room) <= len(block):
                room = np.empty((len(block) + 1, values.shape[1]))
            changed = room[1 : len(block) + 1]
            changed[:] = block
            change(changed)
            if total is None:
                total = changed.sum(axis=0)
            else:
                room[0] = total
                total = room[: len(block) + 1].sum(axis=0)
        return np.zeros(values.shape[1]) if total is None else total

    def squared_distances(rows: Values) -> None:
        np.subtract(rows, mean, out=rows)
        np.square(rows, out=rows)

    mean = column_sums(lambda rows: None) / n_rows
    # the definition, as NumPy's: a mean of squares less a squared mean would lose digits
    deviation = np.sqrt(column_sums(squared_distances) / n_rows)
    # a constant column comes out of float32 rounding with a deviation of about 1e-7 of its size, not 0
    constant = deviation <= 1e-6 * np.maximum(np.abs(mean), np.finfo(np.float32).tiny)
    return mean.astype(np.float32), np.where(constant, 1.0, deviation).astype(np.float32)


def _blocks_of(values: npt.NDArray[Any] | MappedRows) -> Iterator[npt.NDArray[Any]]:
    if values.shape[1] == 1:
        # NumPy adds a single column up in pairs: here it is always whole
        yield values.take(np.arange(len(values))) if isinstance(values, MappedRows) else values
    elif isinstance(values, MappedRows):
        yield from values.blocks()
    else:
        yield from (values[piece] for piece in row_blocks(values))
