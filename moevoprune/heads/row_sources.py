"""Prepared rows on demand: what training reads where the features are left on disk."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from moevoprune.features.feature_folder import MappedRows
from moevoprune.heads.scaling import Scaling

__all__ = ["PreparedRows", "RowSource", "is_large"]

# training rows in float32: sets beyond are not prepared as a whole
_LARGEST_PREPARED = 2**30
# with fewer rows a head may be trained in the dual form, which needs all of them
_FEWEST_ROWS = 20_000

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


def is_large(shape: tuple[int, int]) -> bool:
    """Whether rows of a training part are prepared when they are read, and not all at once.

    More than 1 GiB of float32 in 20,000 rows or more. It depends on the shape alone, not on where the rows are,
    and changes no bit of any result.

    Parameters
    ----------
    shape
        Rows and features.
    """
    return 4 * shape[0] * shape[1] > _LARGEST_PREPARED and shape[0] >= _FEWEST_ROWS


class RowSource(Protocol):
    """Rows of features, prepared as heads read them, that are made when they are asked for."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and features."""

    def rows(self, index: Indices) -> Floats:
        """Prepared rows in the order asked for, shape (n,) to (n, features); a new array."""


class PreparedRows:
    """Rows of mapped files, standardised when they are read.

    They are the same bits as :meth:`Scaling.apply` makes of the same rows in memory. Pickled, mapped files are
    their paths.

    Parameters
    ----------
    source
        Rows as the backbone gave them.
    scaling
        Standardisation of the training part.
    """

    def __init__(self, source: MappedRows, scaling: Scaling) -> None:
        self._source = source
        self._scaling = scaling

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and features."""
        return self._source.shape

    def rows(self, index: Indices) -> Floats:
        """See :meth:`RowSource.rows`."""
        return self._scaling.apply(self._source.take(index))
