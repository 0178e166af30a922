"""How important single bits look, before a search and by what the search finds out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moevoprune.baselines import combine
from moevoprune.errors import InputError

__all__ = ["BitScores"]

Bits = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]

# sizes that differ by less than this factor are compared with each other
_BAND = 2.0
_MOST_REMEMBERED = 2_000


class BitScores:
    """Importance of bits: a prior, and what is learned from which bits sit in good masks.

    A mask is good or bad by how far its loss lies from the mean of masks of about its size (within a factor of 2)
    that are known by then. Each bit of it is credited with that difference, less so in larger masks, where one bit
    explains less. A bit's credit is measured in its standard deviations under chance, so that bits that were
    tried often are trusted more.

    Parameters
    ----------
    prior
        Scores before the search, shape (n_bits,); only their order counts.
    weight
        How much one standard deviation of credit counts, in rank shares; 0 learns nothing.

    Attributes
    ----------
    values
        Current scores as rank shares in (0, 1], shape (n_bits,).

    Raises
    ------
    InputError
        The prior is not one number per bit, or the weight is negative.
    """

    def __init__(self, prior: npt.ArrayLike, weight: float = 0.1) -> None:
        array = np.asarray(prior, dtype=np.float64)
        if array.ndim != 1 or np.isnan(array).any():
            raise InputError(f"scores have shape {array.shape} or hold NaN; give one number a bit")
        if not weight >= 0:
            raise InputError(f"weight of learned scores is {weight!r}; give a number of at least 0")
        self._prior = combine([array])
        self._weight = weight
        self._credit = np.zeros(len(array))
        self._variance = np.zeros(len(array))
        self._known_sizes = np.zeros(0)
        self._known_losses = np.zeros(0)
        self.values = self._prior

    def learn(self, masks: Bits, losses: Values) -> None:
        """Learn from evaluated masks.

        Parameters
        ----------
        masks
            Shape (n, n_bits).
        losses
            What is minimised about them apart from their size, shape (n,).
        """
        if self._weight == 0 or len(masks) == 0:
            return
        sizes = np.log(np.maximum(masks.sum(axis=1), 1))
        self._known_sizes = np.concatenate([self._known_sizes, sizes])[-_MOST_REMEMBERED:]
        self._known_losses = np.concatenate([self._known_losses, losses])[-_MOST_REMEMBERED:]
        for mask, size, loss in zip(masks, sizes, losses, strict=True):
            alike = self._known_losses[np.abs(self._known_sizes - size) <= np.log(_BAND)]
            share = 1.0 / max(np.exp(size), 1.0)
            self._credit[mask] += (alike.mean() - loss) * np.sqrt(share)
            self._variance[mask] += alike.var() * share
        deviation = np.sqrt(self._variance)
        gain = np.divide(self._credit, deviation, out=np.zeros_like(deviation), where=deviation > 0)
        self.values = combine([self._prior + self._weight * gain])
