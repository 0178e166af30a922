"""Gates: a network with some channels shut, which computes what it would without them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from moevoprune.filters.graph import FilterGraph, prunes_itself

__all__ = ["Gates"]

Bits = npt.NDArray[np.bool_]


class Gates:
    """Shuts channels of a network in place.

    A channel is shut where it is read: the weights that read it become 0. What it still computes then reaches
    nothing, so that outputs, in training mode too, and the gradients of all other weights are those of the network
    without the channel. An optimiser moves shut weights: call :meth:`apply` after each of its steps.

    Modules that read channels without weights of their own, see
    :func:`moevoprune.filters.graph.prunes_itself`, have their inputs multiplied.

    Parameters
    ----------
    graph
        The filters of networks of this architecture.
    network
        The network to shut channels of.
    mask
        Filters that stay, shape (n_bits,).
    """

    def __init__(self, graph: FilterGraph, network: nn.Module, mask: Bits) -> None:
        self._shut: list[tuple[Tensor, int, Tensor]] = []
        self._hooks: list[Any] = []
        for layer in graph.layers:
            for site in layer.sites:
                if site.side != "in":
                    continue
                gone = torch.from_numpy(site.channels[~mask[site.bits]])
                if len(gone) == 0:
                    continue
                module = network.get_submodule(site.module)
                if prunes_itself(module):
                    self._hooks.append(module.register_forward_pre_hook(_Multiplier(gone)))
                else:
                    # the weights of a transposed convolution have their inputs first
                    axis = 0 if getattr(module, "transposed", False) else 1
                    weight = module.get_parameter("weight")
                    self._shut.append((weight, axis, gone.to(weight.device)))
        self.apply()

    def apply(self) -> None:
        """Shut the channels again."""
        with torch.no_grad():
            for weight, axis, gone in self._shut:
                weight.index_fill_(axis, gone, 0.0)

    def release(self) -> None:
        """Take the multipliers away; weights stay 0."""
        for hook in self._hooks:
            hook.remove()


class _Multiplier:
    """Multiplies what a module reads by 0 or 1 for each channel."""

    def __init__(self, gone: Tensor) -> None:
        self._gone = gone

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        first, *others = inputs
        return first.index_fill(1, self._gone.to(first.device), 0.0), *others
