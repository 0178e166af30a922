"""What filters torch-pruning itself would remove: uniform L1 and global magnitude pruning, at wanted FLOPs."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch_pruning as tp
from torch import nn

from moevoprune.errors import InputError, nearest
from moevoprune.filters.costs import NetworkCosts
from moevoprune.filters.cutting import cut
from moevoprune.filters.graph import CONVOLUTIONS, FilterGraph, own_pruners

__all__ = ["METHODS", "Method", "magnitude_baseline", "magnitude_mask"]

Bits = npt.NDArray[np.bool_]

# shares of the filters that torch-pruning is asked to remove: hundredths, looked for in tens first
_STEPS, _STRIDE = 100, 10


class Method(NamedTuple):
    """A way to prune by magnitude.

    Attributes
    ----------
    role
        What a table calls the network.
    across_layers
        Whether filters of all layers are ranked together; otherwise each layer loses the same share.
    """

    role: str
    across_layers: bool


METHODS = {"uniform_l1": Method("uniform L1", False), "global_magnitude": Method("global magnitude", True)}
"""By name. Uniform: Li et al. 2017, "Pruning filters for efficient ConvNets", with one share for all layers."""


def magnitude_baseline(graph: FilterGraph, network: nn.Module, method: str, flops: float) -> nn.Module:
    """Copy a network without the filters that :func:`magnitude_mask` leaves out, physically cut.

    Parameters
    ----------
    graph
        The filters of the network.
    network
        The network; it is not changed.
    method
        A key of :data:`METHODS`.
    flops
        For one image, at most; in torch-pruning's count.

    Raises
    ------
    InputError
        As :func:`magnitude_mask`.
    """
    mask = magnitude_mask(graph, network, NetworkCosts(graph, network), method, flops)
    return cut(graph, network, mask)


def magnitude_mask(graph: FilterGraph, network: nn.Module, costs: NetworkCosts, method: str, flops: float) -> Bits:
    """Filters that torch-pruning's own pruner keeps, as many as the FLOPs allow.

    ``tp.pruner.BasePruner`` ranks the filters of the whole network once, by ``MagnitudeImportance(p=1)``: the L1
    norm of all weights that go with a filter, in the global ranking relative to its layer's mean. The share that
    it is asked to remove grows by hundredths until the FLOPs are reached; then each layer, from the input on, is
    given back what the last hundredth took, where the FLOPs allow it: so the result is near to them also where
    layers are narrow. A layer that would be emptied keeps the filters that it had at the share before, as
    torch-pruning refuses to empty it.

    Parameters
    ----------
    graph, network, costs
        The network, its filters and what they cost.
    method
        A key of :data:`METHODS`.
    flops
        For one image, at most; in torch-pruning's count.

    Returns
    -------
    ndarray, shape (n_bits,)

    Raises
    ------
    InputError
        The method is unknown, or torch-pruning does not get to so few FLOPs.
    """
    if method not in METHODS:
        raise InputError(f"unknown baseline {method!r}{nearest(method, METHODS)}: use one of {', '.join(METHODS)}")
    whole = np.ones(graph.n_bits, np.bool_)
    if costs.flops <= flops:
        return whole
    choices = _Choices(graph, network, METHODS[method].across_layers)
    reached, larger, _ = _descend(choices, costs, whole, range(_STRIDE, _STEPS + 1, _STRIDE), flops)
    _, larger, smaller = _descend(choices, costs, larger, range(reached - _STRIDE + 1, reached + 1), flops)
    if _flops(costs, smaller) > flops:
        raise InputError(
            f"{method} does not get to {flops:.4g} FLOPs: the least is {_flops(costs, smaller):.4g} of"
            f" {costs.flops:.4g}; ask for at least so many"
        )
    return _filled(graph, costs, larger, smaller, flops)


class _Choices:
    """What torch-pruning's pruner would remove of a whole network, without removing it."""

    def __init__(self, graph: FilterGraph, network: nn.Module, across_layers: bool) -> None:
        traced = graph.trace(network).network
        self._layers = graph.layers
        self._groups = {traced.get_submodule(root): bits for root, bits in graph.groups.items()}
        prunable = {name for layer in graph.layers for name in layer.members}
        kept = [m for name, m in traced.named_modules() if isinstance(m, CONVOLUTIONS) and name not in prunable]
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._pruner = tp.pruner.BasePruner(
                traced,
                graph.example.to(next(traced.parameters()).device),
                tp.importance.MagnitudeImportance(p=1),
                global_pruning=across_layers,
                pruning_ratio=1.0,
                iterative_steps=_STEPS,
                ignored_layers=kept,
                # its defaults are dictionaries that all pruners share
                in_channel_groups={},
                out_channel_groups={},
                customized_pruners=own_pruners(traced),
                root_module_types=list(CONVOLUTIONS),
            )

    def after(self, mask: Bits, step: int) -> Bits:
        """Mask without so many hundredths of the filters; `mask` is that of a smaller share."""
        self._pruner.current_step = step - 1
        smaller = mask.copy()
        for group in self._pruner.step(interactive=True):
            bits = self._groups[group[0].dep.target.module]
            trial = smaller.copy()
            trial[bits] = True
            trial[bits.start + np.array(group[0].idxs, np.int64)] = False
            if all(trial[layer.bits].any() for layer in self._layers):
                smaller = trial
        return smaller


def _descend(
    choices: _Choices, costs: NetworkCosts, mask: Bits, steps: range, flops: float
) -> tuple[int, Bits, Bits]:
    """The first step with no more than these FLOPs, else the last one; the masks before and after it."""
    larger = smaller = mask
    step = steps.start
    for step in steps:
        larger, smaller = smaller, choices.after(smaller, step)
        if _flops(costs, smaller) <= flops:
            break
    return step, larger, smaller


def _filled(graph: FilterGraph, costs: NetworkCosts, larger: Bits, smaller: Bits, flops: float) -> Bits:
    """Give layers back what the last step took, as far as the FLOPs allow."""
    mask = smaller
    for layer in graph.layers:
        trial = mask.copy()
        trial[layer.bits] = larger[layer.bits]
        if _flops(costs, trial) <= flops:
            mask = trial
    return mask


def _flops(costs: NetworkCosts, mask: Bits) -> float:
    return float(costs(mask[None])[0, 0])
