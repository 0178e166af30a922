"""Physically smaller networks, cut by torch-pruning."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from moevoprune.errors import InputError, words_of
from moevoprune.filters.gates import Gates
from moevoprune.filters.graph import FilterGraph

__all__ = ["GATE_TOLERANCE", "check_cutting", "cut", "gate_difference", "trial_mask"]

Bits = npt.NDArray[np.bool_]

GATE_TOLERANCE = 1e-4
"""What gates and surgery may differ by, relative to the largest output."""

_SMALLEST_OUTPUT = 1e-12


def cut(graph: FilterGraph, network: nn.Module, mask: Bits) -> nn.Module:
    """Copy a network without the filters that a mask leaves out.

    Parameters
    ----------
    graph
        The filters of networks of this architecture.
    network
        The network; it is not changed.
    mask
        Filters that stay, shape (n_bits,); at least one of each layer.

    Returns
    -------
    nn.Module
        In evaluation mode; its parameters need gradients where the network's do.

    Raises
    ------
    InputError
        A layer would be empty, or the mask is not as long as this network has filters.
    """
    graph.check_masks(mask[None])
    traced = graph.trace(network)
    for group, bits in zip(traced.groups, graph.groups.values(), strict=True):
        gone = np.flatnonzero(~mask[bits]).tolist()
        if gone:
            _prune(traced.graph, group, gone)
    wanted = dict(network.named_parameters())
    for name, parameter in traced.network.named_parameters():
        parameter.requires_grad_(wanted[name].requires_grad)
        parameter.grad = None
    return traced.network


def _prune(graph: Any, group: Any, gone: list[int]) -> None:
    # by the group's first convolution: groups found before an earlier cut hold outdated indices
    root = group[0].dep
    graph.get_pruning_group(root.target.module, root.handler, gone).prune(record_history=False)


def trial_mask(graph: FilterGraph, seed: int = 0) -> Bits:
    """Draw a mask that keeps a third of each layer's filters, or half of every second layer's, at least one.

    Where all layers lost the same share, mistakes about which of them go together might not show.
    """
    rng = np.random.default_rng([seed, 0xC07])
    mask = np.zeros(graph.n_bits, np.bool_)
    for place, layer in enumerate(graph.layers):
        kept = rng.choice(layer.n_filters, size=max(layer.n_filters // (3 - place % 2), 1), replace=False)
        mask[layer.bits.start + kept] = True
    return mask


def check_cutting(graph: FilterGraph, network: nn.Module) -> nn.Module:
    """Make sure that networks without filters compute what gates say.

    Parameters
    ----------
    graph
        The filters of the network.
    network
        The network.

    Returns
    -------
    nn.Module
        The network without the filters that :func:`trial_mask` leaves out.

    Raises
    ------
    InputError
        They do not; the message names the first convolution whose filters cannot be cut. Or the network's outputs
        are not finite.
    """
    _check_finite(graph, network)
    mask = trial_mask(graph)
    smaller, problem = _attempt(graph, network, mask)
    if smaller is not None:
        return smaller
    for layer in graph.layers:
        alone = np.ones(graph.n_bits, np.bool_)
        alone[layer.bits] = mask[layer.bits]
        only, found = _attempt(graph, network, alone)
        if only is None:
            raise InputError(_unfit(layer.name, found))
    raise InputError(_unfit(", ".join(layer.name for layer in graph.layers[:3]), problem))


def gate_difference(
    graph: FilterGraph, network: nn.Module, smaller: nn.Module, mask: Bits, images: Tensor
) -> float:
    """How far the outputs of a cut network are from those of the whole one with gates shut.

    Parameters
    ----------
    graph
        The filters of the network.
    network
        The whole network; it is not changed.
    smaller
        The network that :func:`cut` made of it by `mask`, in evaluation mode.
    mask
        Filters that stay, shape (n_bits,).
    images
        What both are given, shape (n, channels, height, width), on the device of both.

    Returns
    -------
    float
        The largest difference, relative to the largest output.
    """
    gated = copy.deepcopy(network).eval()
    Gates(graph, gated, mask)
    with torch.no_grad():
        found, expected = smaller(images), gated(images)
    return float((found - expected).abs().max()) / max(float(expected.abs().max()), _SMALLEST_OUTPUT)


def _unfit(name: str, problem: str) -> str:
    return (
        f"torch-pruning cannot trace what depends on the filters of {name!r}: {problem}: keep that module whole, "
        "or write what reads it (padding, slicing, reshaping of channels) as a module with remove_inputs and "
        "remove_outputs"
    )


def _attempt(graph: FilterGraph, network: nn.Module, mask: Bits) -> tuple[nn.Module | None, str]:
    """The smaller network where it computes what gates say, else what is wrong."""
    example = _random_like(graph.example, next(network.parameters()).device)
    try:
        smaller = cut(graph, network, mask)
        difference = gate_difference(graph, network, smaller, mask, example)
    except Exception as error:  # whatever torch-pruning or the network's own code raises
        return None, f"without some of them it fails ({words_of(error)})"
    if not difference <= GATE_TOLERANCE:
        return None, f"without some of them its outputs differ by {difference:.2g} from those with gates shut"
    return smaller, ""


def _check_finite(graph: FilterGraph, network: nn.Module) -> None:
    with torch.no_grad():
        outputs = copy.deepcopy(network).eval()(_random_like(graph.example, next(network.parameters()).device))
    if not bool(outputs.isfinite().all()):
        raise InputError(
            "this network's outputs are not finite: its weights, or the running variances of its batch norms, are "
            "damaged: train it again, or give other weights"
        )


def _random_like(example: Tensor, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(example.shape, generator=generator).to(device)
