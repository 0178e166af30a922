"""How important single filters look: their weights' size, or what the loss would lose with them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn import functional

from moevoprune.device import single_threaded
from moevoprune.filters.graph import FilterGraph, Trace

__all__ = ["magnitude", "taylor"]

Values = npt.NDArray[np.float64]


def magnitude(graph: FilterGraph, network: nn.Module) -> Values:
    """L1 norm of the weights that go with each filter, relative to the mean of its layer.

    Li et al. 2017, "Pruning filters for efficient ConvNets", in torch-pruning's form for filters that go together.

    Parameters
    ----------
    graph
        The filters of the network.
    network
        The network.

    Returns
    -------
    ndarray, shape (n_bits,)
    """
    importance = tp.importance.MagnitudeImportance(p=1, normalizer="mean")
    return _of_groups(graph.trace(network), importance)


def taylor(
    graph: FilterGraph, network: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 100
) -> Values:
    """What the loss would change by without each filter, to first order.

    Molchanov et al. 2019, "Importance estimation for neural network pruning": weight times gradient, in
    torch-pruning's form for filters that go together; absolute values are averaged over batches.

    Parameters
    ----------
    graph
        The filters of the network.
    network
        The network.
    images, labels
        Training images, shape (n, channels, height, width), and their classes, shape (n,).
    batch_size
        Images whose gradients are summed up before the absolute value is taken.

    Returns
    -------
    ndarray, shape (n_bits,)
    """
    traced = graph.trace(network)
    importance = tp.importance.TaylorImportance(normalizer=None)
    total = np.zeros(graph.n_bits)
    with single_threaded():
        for batch, classes in zip(torch.split(images, batch_size), torch.split(labels, batch_size), strict=True):
            traced.network.zero_grad()
            with torch.enable_grad():
                torch.autograd.backward(functional.cross_entropy(traced.network(batch), classes))
            total += np.abs(_of_groups(traced, importance))
    return total


def _of_groups(traced: Trace, importance: tp.importance.Importance) -> Values:
    with torch.no_grad():
        scores = [importance(group) for group in traced.groups]
    return torch.cat(scores).double().cpu().numpy()
