"""The order in which filters go when those that matter least go first, little by little."""

from __future__ import annotations

import copy
from bisect import bisect_left

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from moevoprune.filters.costs import NetworkCosts
from moevoprune.filters.gates import Gates
from moevoprune.filters.graph import FilterGraph
from moevoprune.filters.importance import taylor
from moevoprune.filters.training import recalibrate

__all__ = ["masks_along", "removal_order", "weakest_first"]

Bits = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


def removal_order(
    graph: FilterGraph,
    network: nn.Module,
    costs: NetworkCosts,
    images: Tensor,
    labels: Tensor,
    recalibration: Tensor,
    steps: int,
) -> Indices:
    """Remove filters step by step, each time those whose loss to first order is least.

    After each step gates are shut, batch-norm statistics are taken anew, and the importance of what is left is
    measured again: what a filter is worth depends on which others are there. (Iterative pruning by Taylor
    expansion, Molchanov et al. 2017, without the training between its steps.)

    Parameters
    ----------
    graph, network, costs
        The network and its filters.
    images, labels
        Training images that importance is measured on, and their classes.
    recalibration
        Training images that batch-norm statistics are taken from.
    steps
        At least 1; each takes the same share of the FLOPs.

    Returns
    -------
    ndarray of int64
        Numbers of the bits in the order of their removal; each layer's last one is missing.
    """
    order = np.zeros(0, np.int64)
    least = costs(_skeleton(graph)[None])[0, 0]
    for step in range(1, steps + 1):
        mask = _without(graph, order)
        gated = copy.deepcopy(network)
        Gates(graph, gated, mask)
        if len(order):
            recalibrate([gated], recalibration)
        onwards = np.append(order, weakest_first(graph, mask, taylor(graph, gated, images, labels)))
        goal = costs.flops - (costs.flops - least) * step / steps
        order = onwards if step == steps else onwards[: _first_within(graph, onwards, costs, goal, len(order))]
    return order


def weakest_first(graph: FilterGraph, mask: Bits, scores: Values) -> Indices:
    """Filters of a mask in the order of their scores, smallest first, without each layer's best one.

    Parameters
    ----------
    graph
        The filters.
    mask
        Those to put in order, shape (n_bits,), at least one of each layer.
    scores
        Larger is more important, shape (n_bits,).

    Returns
    -------
    ndarray of int64
        Numbers of bits.
    """
    going = mask.copy()
    for layer in graph.layers:
        left = layer.bits.start + np.flatnonzero(mask[layer.bits])
        # of equal ones, the last
        going[left[len(left) - 1 - int(np.argmax(scores[left][::-1]))]] = False
    bits = np.flatnonzero(going)
    return bits[np.argsort(scores[bits], kind="stable")]


def _first_within(graph: FilterGraph, order: Indices, costs: NetworkCosts, flops: float, start: int = 0) -> int:
    """How many filters of an order have to go, at least ``start``, to get down to these FLOPs; all, if none do."""

    def saved(count: int) -> float:
        return -float(costs(_without(graph, order[:count])[None])[0, 0])

    # FLOPs only fall on the way: few masks have to be counted, each of which may have to be cut
    counts = range(start, len(order) + 1)
    return min(counts[0] + bisect_left(counts, -flops, key=saved), len(order))


def _without(graph: FilterGraph, bits: Indices) -> Bits:
    mask = np.ones(graph.n_bits, np.bool_)
    mask[bits] = False
    return mask


def masks_along(graph: FilterGraph, order: Indices, costs: NetworkCosts, shares: npt.ArrayLike) -> Bits:
    """Masks on the way of a removal, each the first one below a share of the FLOPs.

    Parameters
    ----------
    graph, costs
        The network's filters and their costs.
    order
        See :func:`removal_order`.
    shares
        Shares of the whole network's FLOPs, in [0, 1].

    Returns
    -------
    ndarray, shape (shares, n_bits)
        The last mask of the way where a share is never reached.
    """
    wanted = [float(share) * costs.flops for share in np.atleast_1d(shares)]
    masks = [_without(graph, order[: _first_within(graph, order, costs, flops)]) for flops in wanted]
    return np.array(masks, np.bool_).reshape(-1, graph.n_bits)


def _skeleton(graph: FilterGraph) -> Bits:
    """One filter of each layer."""
    mask = np.zeros(graph.n_bits, np.bool_)
    mask[[layer.bits.start for layer in graph.layers]] = True
    return mask
