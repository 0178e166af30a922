"""CKA as others report it, beside the debiased linear one: with an RBF kernel, and biased.

What EvoPruneDeepTL (arXiv 2202.03844) reports, RBF-kernel CKA between two networks' trained weight matrices, is
:func:`biased_rbf_cka` of the weights: shape (inputs, units), so that the inputs that both networks share are the
rows. Units of networks that were trained apart have no common order, and as columns they need none.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from moevoprune.errors import InputError
from moevoprune.objectives.cka import centred, check_pair, cosine_of_u_centred, products

__all__ = ["BANDWIDTH", "biased_linear_cka", "biased_rbf_cka", "debiased_rbf_cka"]

#: Width of the RBF kernel in median distances: of the three that Kornblith et al. (2019) compare the largest.
BANDWIDTH = 0.8

_MIN_ROWS_BIASED = 2
_MIN_ROWS_DEBIASED = 4
# as in cka: what rounding leaves of a matrix that should be zero
_ZERO_NORM = 1e-12


def debiased_rbf_cka(x: Tensor, y: Tensor, bandwidth: float = BANDWIDTH) -> Tensor:
    r"""Debiased CKA with an RBF kernel between two representations of the same rows.

    As :func:`~moevoprune.objectives.cka.debiased_linear_cka`, with the same unbiased estimator of HSIC, but of the
    kernel matrices

    .. math:: K_{ij} = \exp\left(-\frac{\lVert x_i - x_j \rVert^2}{2 (b\,m)^2}\right)

    where ``b`` is the bandwidth and ``m`` the median of the distances between rows that differ (of an even number
    of them the lower of the middle two), for each representation its own.

    Parameters
    ----------
    x : Tensor, shape (..., n, p)
        One representation per row; ``n >= 4``.
    y : Tensor, shape (..., n, q)
        The other representation of the same rows. Leading dimensions broadcast against those of ``x``.
    bandwidth
        In median distances, above 0. The wider the kernel, the nearer is the value to that of the linear one.

    Returns
    -------
    Tensor, shape (...), float64
        CKA in [-1, 1]: 1 for representations equal up to rotation, scale and shift; near 0, on either side, for
        unrelated ones. Clipped from above only. It is 0 by definition where a representation is dead (all its
        rows are equal up to the rounding of its type, all but one are, or the kernel is too narrow to see any two
        rows as alike) or holds a value that is not finite.

    Raises
    ------
    InputError
        If a tensor has fewer than two dimensions, the row counts differ, there are fewer than 4 rows, the leading
        dimensions do not broadcast, or the bandwidth is not a positive number.

    Notes
    -----
    Computed in float64 on the tensors' device; takes memory for a few float64 arrays of ``(..., n, n)``.

    References
    ----------
    L. Song, A. Smola, A. Gretton, J. Bedo, K. Borgwardt. Feature selection via dependence maximization.
    JMLR 13, 2012.

    S. Kornblith, M. Norouzi, H. Lee, G. Hinton. Similarity of neural network representations revisited.
    ICML 2019.
    """
    check_pair(x, y, _MIN_ROWS_DEBIASED)
    (k, varies_x), (other, varies_y) = _rbf_kernel(x, bandwidth), _rbf_kernel(y, bandwidth)
    return _where_alive(cosine_of_u_centred(k, other), varies_x & varies_y)


def biased_rbf_cka(x: Tensor, y: Tensor, bandwidth: float = BANDWIDTH) -> Tensor:
    r"""CKA with an RBF kernel from the usual, biased estimate of HSIC, ``tr(K H L H)`` with ``H = I - 1/n``.

    It tends to 1 for unrelated representations, too, as the number of features exceeds that of rows, and as the
    bandwidth falls: values are to be compared with those of other pairs of the same shapes only.

    Parameters
    ----------
    x : Tensor, shape (..., n, p)
        One representation per row; ``n >= 2``. Of a layer's weights: one row per input, one column per unit.
    y : Tensor, shape (..., n, q)
        The other representation of the same rows. Leading dimensions broadcast against those of ``x``.
    bandwidth
        In median distances, above 0; see :func:`debiased_rbf_cka`. Which one EvoPruneDeepTL took is not known; the
        default is ours.

    Returns
    -------
    Tensor, shape (...), float64
        CKA in [0, 1]; 0 where a representation is dead or holds a value that is not finite.

    Raises
    ------
    InputError
        As :func:`debiased_rbf_cka`, but 2 rows are enough.

    References
    ----------
    S. Kornblith, M. Norouzi, H. Lee, G. Hinton. Similarity of neural network representations revisited.
    ICML 2019.
    """
    check_pair(x, y, _MIN_ROWS_BIASED)
    (k, varies_x), (other, varies_y) = _rbf_kernel(x, bandwidth), _rbf_kernel(y, bandwidth)
    k, other = _doubly_centred(k), _doubly_centred(other)
    squares = (k.square().sum((-2, -1)), other.square().sum((-2, -1)))
    return _cosine((k * other).sum((-2, -1)), squares, varies_x & varies_y)


def biased_linear_cka(x: Tensor, y: Tensor) -> Tensor:
    r"""Linear CKA from the usual, biased estimate of HSIC.

    .. math:: \frac{\lVert X^\top Y \rVert_F^2}{\lVert X^\top X \rVert_F \lVert Y^\top Y \rVert_F}

    of centred representations. It tends to 1 for unrelated ones, too, as features outnumber rows.

    Parameters
    ----------
    x : Tensor, shape (..., n, p)
        One representation per row; ``n >= 2``.
    y : Tensor, shape (..., n, q)
        The other representation of the same rows. Leading dimensions broadcast against those of ``x``.

    Returns
    -------
    Tensor, shape (...), float64
        CKA in [0, 1]; 0 where a representation is dead or holds a value that is not finite.

    Raises
    ------
    InputError
        If a tensor has fewer than two dimensions, the row counts differ, there are fewer than 2 rows, or the
        leading dimensions do not broadcast.

    References
    ----------
    S. Kornblith, M. Norouzi, H. Lee, G. Hinton. Similarity of neural network representations revisited.
    ICML 2019.
    """
    check_pair(x, y, _MIN_ROWS_BIASED)
    (x, varies_x), (y, varies_y) = centred(x), centred(y)
    square_x, square_y, product = products(x, y)
    return _cosine(product, (square_x, square_y), varies_x & varies_y)


def _rbf_kernel(x: Tensor, bandwidth: float) -> tuple[Tensor, Tensor]:
    """RBF kernel matrix less 1, (..., n, n), and whether the rows differ (...).

    Centring of either kind ignores the 1 and, without it, a wide kernel is not all rounding.
    """
    if not (math.isfinite(bandwidth) and bandwidth > 0):
        raise InputError(f"CKA: bandwidth = {bandwidth}: use a number above 0, in median distances")
    x, varies = centred(x)
    # the short way by products would leave rounding where rows are equal
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    median = torch.where(distances > 0, distances, math.nan).flatten(-2).nanmedian(-1).values
    # the median is NaN where all rows are equal
    return torch.expm1(-0.5 * (distances / (bandwidth * median.nan_to_num(1.0)[..., None, None])).square()), varies


def _doubly_centred(kernel: Tensor) -> Tensor:
    """Kernel matrix (..., n, n) with rows and columns of mean 0; zero where only rounding is left of it."""
    rows = kernel.mean(-1, keepdim=True)
    result = kernel - rows - rows.mT + rows.mean(-2, keepdim=True)
    alive = result.square().sum((-2, -1)) > _ZERO_NORM**2 * kernel.square().sum((-2, -1))
    return torch.where(alive[..., None, None], result, 0.0)


def _cosine(product: Tensor, squares: tuple[Tensor, Tensor], alive: Tensor) -> Tensor:
    alive = alive & (squares[0] > 0) & (squares[1] > 0)
    norms = (torch.where(alive, square, 1.0).sqrt() for square in squares)
    value = product
    for norm in norms:
        value = value / norm
    return _where_alive(value, alive)


def _where_alive(value: Tensor, alive: Tensor) -> Tensor:
    return torch.where(alive, value, 0.0).clamp(max=1.0)
