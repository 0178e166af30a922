"""Similarity of two representations of the same rows: debiased linear CKA."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from moevoprune.errors import InputError

__all__ = ["debiased_linear_cka"]

_MIN_ROWS = 4
# A column whose values differ by less than this many units of rounding of its own type is constant.
_ROUNDINGS = 8.0
# Float64 rounding leaves about 1e-15 of the Gram matrix's norm where the exact U-centred matrix is zero.
_ZERO_NORM = 1e-12


def debiased_linear_cka(x: Tensor, y: Tensor) -> Tensor:
    r"""Debiased linear centred kernel alignment between two representations of the same rows.

    .. math:: \mathrm{CKA}(X, Y) =
        \frac{\mathrm{HSIC}_u(K, L)}{\sqrt{\mathrm{HSIC}_u(K, K)\,\mathrm{HSIC}_u(L, L)}},
        \qquad K = XX^\top,\; L = YY^\top

    with the unbiased estimator of Song et al. (2012, eq. 5), for kernel matrices
    :math:`\tilde K, \tilde L` whose diagonals are zeroed:

    .. math:: \mathrm{HSIC}_u(K, L) = \frac{1}{n(n-3)} \left[ \mathrm{tr}(\tilde K \tilde L)
        + \frac{1^\top \tilde K 1 \; 1^\top \tilde L 1}{(n-1)(n-2)}
        - \frac{2}{n-2} 1^\top \tilde K \tilde L 1 \right]

    It is computed in the equal form :math:`\langle U(K), U(L) \rangle / (n(n-3))`, where ``U`` is
    U-centring (Székely & Rizzo, 2014): the norms are then sums of squares, which rounding cannot
    make negative, and the result is a cosine, within [-1, 1].

    Parameters
    ----------
    x : Tensor, shape (..., n, p)
        One representation per row; ``n >= 4``.
    y : Tensor, shape (..., n, q)
        The other representation of the same rows. Leading dimensions broadcast against those of ``x``.

    Returns
    -------
    Tensor, shape (...), float64
        CKA in [-1, 1]: 1 for representations equal up to rotation, scale and shift; near 0, on either side,
        for unrelated ones (the usual biased estimate tends to 1 when ``p`` exceeds ``n``). Clipped from
        above only. It is 0 by definition where a representation is dead (all its rows are equal up to the
        rounding of its type, or its :math:`\mathrm{HSIC}_u` with itself is not positive, as when all rows
        but one are equal) or holds a value that is not finite.

    Raises
    ------
    InputError
        If a tensor has fewer than two dimensions, the row counts differ, there are fewer than 4 rows, or
        the leading dimensions do not broadcast.

    Notes
    -----
    Computed in float64 on the tensors' device; takes a few ``(..., n, n)`` float64 arrays of memory.

    References
    ----------
    L. Song, A. Smola, A. Gretton, J. Bedo, K. Borgwardt. Feature selection via dependence maximization.
    JMLR 13, 2012.

    S. Kornblith, M. Norouzi, H. Lee, G. Hinton. Similarity of neural network representations revisited.
    ICML 2019.

    T. Nguyen, M. Raghu, S. Kornblith. Do wide and deep networks learn the same things? ICLR 2021.

    G. Székely, M. Rizzo. Partial distance correlation with methods for dissimilarities. Annals of Statistics
    42(6), 2014.
    """
    for name, tensor in (("x", x), ("y", y)):
        if tensor.ndim < 2:
            raise InputError(
                f"CKA: {name} has shape {tuple(tensor.shape)}; give one row per sample, shape (..., n, features)"
            )
    n = x.shape[-2]
    if y.shape[-2] != n:
        raise InputError(f"CKA: x has {n} rows and y has {y.shape[-2]}; both must describe the same rows")
    if n < _MIN_ROWS:
        raise InputError(f"CKA: {n} rows; the unbiased estimator needs at least {_MIN_ROWS}, give more rows")
    try:
        np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    except ValueError:
        raise InputError(
            f"CKA: leading dimensions {tuple(x.shape[:-2])} and {tuple(y.shape[:-2])} do not broadcast; "
            "make them equal, or 1"
        ) from None

    gram_x, square_x = _u_centred_gram(x)
    gram_y, square_y = _u_centred_gram(y)
    alive = (square_x > 0) & (square_y > 0)
    norm = torch.where(alive, square_x * square_y, 1.0).sqrt()
    value = (gram_x * gram_y).sum((-2, -1)) / norm
    return torch.where(alive, value, 0.0).clamp(max=1.0)


def _u_centred_gram(x: Tensor) -> tuple[Tensor, Tensor]:
    """U-centred linear Gram matrix (..., n, n) of x (..., n, p), up to scale, and its squared norm (...).

    Both are zero for a representation that is dead or not finite.
    """
    n, width = x.shape[-2:]
    resolution = torch.finfo(x.dtype if x.is_floating_point() else torch.float64).eps
    x = x.to(torch.float64)
    if width == 0:
        zeros = x.new_zeros(x.shape[:-2])
        return zeros[..., None, None].expand(*x.shape[:-2], n, n), zeros

    finite = x.isfinite().flatten(-2).all(-1)
    x = torch.where(finite[..., None, None], x, 0.0)
    # CKA is free of scale; without this, values beyond about 1e77 would overflow in the squared Gram matrix,
    # and as small ones vanish.
    largest = x.abs().amax((-2, -1), keepdim=True)
    x = x / torch.where(largest > 0, largest, 1.0)
    peak = x.abs().amax(-2)
    # HSIC_u ignores any constant added to a row and column of a kernel, so a shift of the features changes
    # nothing but rounding. The first row goes first, as equal rows are then exactly zero, which subtracting
    # a rounded mean does not promise.
    x = x - x[..., :1, :]
    varies = (x.abs().amax(-2) > _ROUNDINGS * resolution * peak).any(-1)
    x = x - x.mean(-2, keepdim=True)

    gram = x @ x.mT
    total = gram.square().sum((-2, -1))
    off_diagonal = ~torch.eye(n, dtype=torch.bool, device=x.device)
    gram = gram * off_diagonal
    rows = gram.sum(-1, keepdim=True)
    grand = rows.sum(-2, keepdim=True)
    gram = (gram - (rows + rows.mT) / (n - 2) + grand / ((n - 1) * (n - 2))) * off_diagonal
    square = gram.square().sum((-2, -1))
    alive = varies & (square > _ZERO_NORM**2 * total)
    return torch.where(alive[..., None, None], gram, 0.0), torch.where(alive, square, 0.0)
