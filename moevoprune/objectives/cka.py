"""Similarity of two representations of the same rows: debiased linear CKA."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from moevoprune.errors import InputError

__all__ = ["debiased_linear_cka", "debiased_linear_cka_of_folds"]

_MIN_ROWS = 4
# A column whose values differ by less than this many units of rounding of its own type is constant.
_ROUNDINGS = 8.0
# Float64 rounding leaves about 1e-15 of the Gram matrix's norm where the exact U-centred matrix is zero.
_ZERO_NORM = 1e-12
# Where less than this share of the Gram matrix's squared norm is left, the short form has lost half its digits.
_CANCELLED = 1e-7
_SMALLEST = 1e-300


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

    Of centred representations, with :math:`k_i = K_{ii}` and :math:`l_i = L_{ii}`, this is

    .. math:: n(n-3)\,\mathrm{HSIC}_u(K, L) = \lVert X^\top Y \rVert_F^2
        + \frac{\sum_i k_i \sum_i l_i}{(n-1)(n-2)} - \frac{n}{n-2} \sum_i k_i l_i

    which needs no matrix of rows by rows where there are fewer columns. Where most of that cancels out, as with
    one row far from all others, it is computed in the equal form :math:`\langle U(K), U(L) \rangle` instead, where
    ``U`` is U-centring (Székely & Rizzo, 2014): the norms are then sums of squares, which rounding cannot make
    negative.

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
    Computed in float64 on the tensors' device; takes memory for a few float64 arrays of ``(..., n, p)`` and of the
    smaller of ``(..., n, n)`` and ``(..., p, q)``.

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
    check_pair(x, y, _MIN_ROWS)
    return _cka(x, y, None)


def debiased_linear_cka_of_folds(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Debiased linear CKA of each fold's pair of representations, all at once.

    On few rows most of the time is that of calling each operation, and folds of one size are rare.

    Parameters
    ----------
    pairs
        For each fold two representations of its rows, shapes (n, p) and (n, q), n at least 4; p and q are the same
        for all folds.

    Returns
    -------
    Tensor, shape (folds,), float64
        What :func:`debiased_linear_cka` gives for each pair.
    """
    counts = [len(x) for x, _ in pairs]
    x, y = (torch.stack([_lengthened(part, max(counts)) for part in side]) for side in zip(*pairs, strict=True))
    if min(counts) == max(counts):
        return debiased_linear_cka(x, y)
    return _cka(x, y, torch.tensor(counts, device=x.device))


def check_pair(x: Tensor, y: Tensor, min_rows: int) -> None:
    """Check the shapes of two representations (..., n, p) and (..., n, q) of the same rows.

    Raises
    ------
    InputError
        A tensor has fewer than two dimensions, the row counts differ, there are fewer rows than ``min_rows``, or
        the leading dimensions do not broadcast.
    """
    for name, tensor in (("x", x), ("y", y)):
        if tensor.ndim < 2:
            raise InputError(
                f"CKA: {name} has shape {tuple(tensor.shape)}; give one row per sample, shape (..., n, features)"
            )
    n = x.shape[-2]
    if y.shape[-2] != n:
        raise InputError(f"CKA: x has {n} rows and y has {y.shape[-2]}; both must describe the same rows")
    if n < min_rows:
        raise InputError(f"CKA: {n} rows; the estimator needs at least {min_rows}, give more rows")
    try:
        np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    except ValueError:
        raise InputError(
            f"CKA: leading dimensions {tuple(x.shape[:-2])} and {tuple(y.shape[:-2])} do not broadcast; "
            "make them equal, or 1"
        ) from None


def _lengthened(x: Tensor, n_rows: int) -> Tensor:
    """Repeat the first row at the end: that changes no bound of the values, and is zero once it is taken off."""
    return x if len(x) == n_rows else torch.cat([x, x[:1].expand(n_rows - len(x), -1)])


def _cka(x: Tensor, y: Tensor, counts: Tensor | None) -> Tensor:
    """CKA of (..., n, p) and (..., n, q); with counts only so many rows, of what is of shape (folds, n, p)."""
    n = x.shape[-2] if counts is None else counts.to(torch.float64)
    x, varies_x = centred(x, counts)
    y, varies_y = centred(y, counts)
    sums = products(x, y)
    diagonals = x.square().sum(-1), y.square().sum(-1)
    pairs = ((0, 0), (1, 1), (0, 1))
    hsic_x, hsic_y, hsic = (
        _unbiased(product, diagonals[i], diagonals[j], n) for product, (i, j) in zip(sums, pairs, strict=True)
    )
    cancelled = (hsic_x < _CANCELLED * sums[0]) | (hsic_y < _CANCELLED * sums[1])
    cancelled &= varies_x & varies_y
    norms = (hsic_x.clamp_min(_SMALLEST).sqrt(), hsic_y.clamp_min(_SMALLEST).sqrt())
    value = hsic / norms[0] / norms[1]
    if bool(cancelled.any()):
        if counts is None:
            value = torch.where(cancelled, cosine_of_u_centred(x @ x.mT, y @ y.mT), value)
        else:
            for fold in cancelled.nonzero()[:, 0].tolist():
                one, two = x[fold, : counts[fold]], y[fold, : counts[fold]]
                value[fold] = cosine_of_u_centred(one @ one.mT, two @ two.mT)
    return torch.where(varies_x & varies_y, value, 0.0).clamp(max=1.0)


def centred(x: Tensor, counts: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Representation (..., n, p) in float64, centred and scaled, and whether its rows differ (...).

    It is all zeros where it is not finite, and in rows beyond the counts.
    """
    single = x.dtype in (torch.float32, torch.float16, torch.bfloat16)
    resolution = torch.finfo(x.dtype if x.is_floating_point() else torch.float64).eps
    x = x.to(torch.float64, copy=True)
    if x.shape[-1] == 0:
        return x, x.new_zeros(x.shape[:-2], dtype=torch.bool)
    # several times faster than torch.aminmax
    lowest, highest = x.amin(-2), x.amax(-2)
    peak = torch.maximum(-lowest, highest)
    finite = peak.isfinite().all(-1)
    if not bool(finite.all()):
        x = torch.where(finite[..., None, None], x, 0.0)
        lowest, highest, peak = (torch.where(finite[..., None], bound, 0.0) for bound in (lowest, highest, peak))
    if not single:
        # CKA is free of scale; without this, values beyond about 1e77 would overflow in the squared Gram matrix,
        # and as small ones vanish. Those of single precision cannot.
        largest = peak.amax(-1, keepdim=True)
        scale = torch.where(largest > 0, largest, 1.0)
        x.div_(scale[..., None, :])
        lowest, highest, peak = lowest / scale, highest / scale, peak / scale
    # HSIC_u ignores any constant added to a row and column of a kernel, so a shift of the features changes
    # nothing but rounding. The first row goes first, as equal rows are then exactly zero, which subtracting
    # a rounded mean does not promise.
    first = x[..., 0, :].clone()
    varies = (torch.maximum(highest - first, first - lowest) > _ROUNDINGS * resolution * peak).any(-1)
    x.sub_(first[..., None, :])
    if counts is None:
        return x.sub_(x.mean(-2, keepdim=True)), varies
    x.sub_(x.sum(-2, keepdim=True) / counts[:, None, None])
    return x.mul_(torch.arange(x.shape[1], device=x.device)[:, None] < counts[:, None, None]), varies


def products(x: Tensor, y: Tensor) -> list[Tensor]:
    """Sums over rows i, j of K_ij K_ij, L_ij L_ij and K_ij L_ij, shape (...), whichever way is shorter."""
    n, p, q = x.shape[-2], x.shape[-1], y.shape[-1]
    if n * (p + q) < p * p + q * q + p * q:
        k, other = x @ x.mT, y @ y.mT
        return [(one * two).sum((-2, -1)) for one, two in ((k, k), (other, other), (k, other))]
    return [(one.mT @ two).square().sum((-2, -1)) for one, two in ((x, x), (y, y), (x, y))]


def _unbiased(product: Tensor, k: Tensor, other: Tensor, n: int | Tensor) -> Tensor:
    """Unbiased HSIC times n (n - 3) from the product and the kernels' diagonals (..., n) of centred data."""
    return product + k.sum(-1) * other.sum(-1) / ((n - 1) * (n - 2)) - (k * other).sum(-1) * (n / (n - 2))


def cosine_of_u_centred(k: Tensor, other: Tensor) -> Tensor:
    """Debiased CKA of two kernel matrices (..., n, n); 0 where a U-centred one is zero."""
    k, square_k = _u_centred(k)
    other, square_other = _u_centred(other)
    alive = (square_k > 0) & (square_other > 0)
    norm = torch.where(alive, square_k * square_other, 1.0).sqrt()
    return torch.where(alive, (k * other).sum((-2, -1)) / norm, 0.0)


def _u_centred(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """U-centred kernel matrix (..., n, n), and its squared norm (...); both zero if it is zero."""
    n = kernel.shape[-1]
    total = kernel.square().sum((-2, -1))
    off_diagonal = ~torch.eye(n, dtype=torch.bool, device=kernel.device)
    kernel = kernel * off_diagonal
    rows = kernel.sum(-1, keepdim=True)
    grand = rows.sum(-2, keepdim=True)
    kernel = (kernel - (rows + rows.mT) / (n - 2) + grand / ((n - 1) * (n - 2))) * off_diagonal
    square = kernel.square().sum((-2, -1))
    alive = square > _ZERO_NORM**2 * total
    return torch.where(alive[..., None, None], kernel, 0.0), torch.where(alive, square, 0.0)
