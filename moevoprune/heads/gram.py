"""Gram matrices of masked features: every product of two rows, once."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["GramMatrices"]

# rows of a block: large enough for a matrix product at full speed, small enough to skip nearly half of it
_BLOCK = 128


class GramMatrices:
    """Gram matrices ``X_S X_S^T`` of column subsets S of fixed features.

    The matrix of all columns is made once. A subset of more than half of the columns is what the others leave of
    it; which way is taken depends on the subset alone.

    Parameters
    ----------
    features
        Shape (rows, columns).
    """

    def __init__(self, features: Tensor) -> None:
        self._features = features
        self._whole: Tensor | None = None

    @property
    def whole(self) -> Tensor:
        """Gram matrix of all columns, shape (rows, rows); not to be changed."""
        if self._whole is None:
            self._whole = _symmetric_product(self._features)
        return self._whole

    def of(self, columns: Tensor, numbers: Tensor) -> Tensor:
        """Gram matrix of some columns, shape (rows, rows), a tensor of its own.

        Parameters
        ----------
        columns
            The columns' values, shape (rows, chosen).
        numbers
            Their numbers, shape (chosen,).
        """
        n_columns = self._features.shape[1]
        if 2 * len(numbers) <= n_columns:
            return _symmetric_product(columns)
        left_out = torch.ones(n_columns, dtype=torch.bool, device=numbers.device)
        left_out[numbers] = False
        return self.whole - _symmetric_product(self._features[:, left_out])


def _symmetric_product(columns: Tensor) -> Tensor:
    """``columns @ columns.T``, computing every block and not its mirror image."""
    n = len(columns)
    product = columns.new_empty(n, n)
    for start in range(0, n, _BLOCK):
        end = min(start + _BLOCK, n)
        torch.mm(columns[start:end], columns[:end].T, out=product[start:end, :end])
        product[:start, start:end] = product[start:end, :start].T
    return product
