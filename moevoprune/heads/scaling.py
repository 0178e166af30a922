"""Standardisation by training statistics: part of a head, and exported with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Scaling"]

Floats = npt.NDArray[np.float32]


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
    def fit(cls, features: Floats, targets: npt.NDArray[np.generic], standardise: bool) -> Scaling:
        """Measure the training part, or build the identity where nothing is to be standardised.

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


def _mean_and_scale(values: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    mean = values.mean(axis=0, dtype=np.float64)
    deviation = values.std(axis=0, dtype=np.float64)
    # a constant column comes out of float32 rounding with a deviation of about 1e-7 of its size, not 0
    constant = deviation <= 1e-6 * np.maximum(np.abs(mean), np.finfo(np.float32).tiny)
    return mean.astype(np.float32), np.where(constant, 1.0, deviation).astype(np.float32)
