"""The order in which filters go when those that matter least go first, little by little."""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from moevoprune.filters.costs import NetworkCosts
from moevoprune.filters.gates import Gates
from moevoprune.filters.graph import FilterGraph
from moevoprune.filters.importance import taylor
from moevoprune.filters.training import recalibrate

__all__ = ["masks_along", "removal_order"]

Bits = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]


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
    mask = np.ones(graph.n_bits, np.bool_)
    order: list[int] = []
    layer_of = np.concatenate([np.full(layer.n_filters, place) for place, layer in enumerate(graph.layers)])
    left = np.array([layer.n_filters for layer in graph.layers])
    least = costs(_skeleton(graph)[None])[0, 0]
    for step in range(1, steps + 1):
        gated = copy.deepcopy(network)
        gates = Gates(graph, gated, mask)
        if order:
            recalibrate([gated], recalibration)
        scores = np.where(mask, taylor(graph, gated, images, labels), np.inf)
        gates.release()
        goal = costs.flops - (costs.flops - least) * step / steps
        for bit in np.argsort(scores, kind="stable"):
            if mask[bit] and left[layer_of[bit]] > 1:
                if step < steps and costs(mask[None])[0, 0] <= goal:
                    break
                mask[bit] = False
                left[layer_of[bit]] -= 1
                order.append(int(bit))
    return np.array(order, np.int64)


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
    masks = np.ones((len(order) + 1, graph.n_bits), np.bool_)
    for place, bit in enumerate(order, 1):
        masks[place:, bit] = False
    flops = costs(masks)[:, 0]
    places = [np.flatnonzero(flops <= share * costs.flops) for share in np.atleast_1d(shares)]
    return masks[[int(found[0]) if len(found) else len(order) for found in places]]


def _skeleton(graph: FilterGraph) -> Bits:
    """One filter of each layer."""
    mask = np.zeros(graph.n_bits, np.bool_)
    mask[[layer.bits.start for layer in graph.layers]] = True
    return mask
