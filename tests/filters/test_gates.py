"""Gates against networks that were physically cut: outputs, statistics and gradients."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from moevoprune.filters.cutting import cut
from moevoprune.filters.gates import Gates
from moevoprune.filters.graph import FilterGraph
from moevoprune.filters.networks import build_network

FAMILIES = ("cnn", "resnet", "densenet", "resnet20")


def _close(one, other, tolerance=1e-4):
    return float((one - other).detach().abs().max()) <= tolerance * max(float(other.detach().abs().max()), 1e-6)


def _pair(network, graph, mask):
    """The network with gates shut, and the network cut."""
    gated = copy.deepcopy(network)
    return gated, Gates(graph, gated, mask), cut(graph, network, mask)


def _staying(graph, mask, name, tensor):
    """What the cut network has of a tensor of the whole one: rows and columns of channels that stay."""
    module, _, kind = name.rpartition(".")
    for layer in graph.layers:
        for site in layer.sites:
            if site.module != module:
                continue
            gone = site.channels[~mask[site.bits]]
            axis = 1 if site.side == "in" else 0
            if tensor.ndim > axis and (kind == "weight" or site.side != "in"):
                # marked, so that the numbers of later sites still count
                tensor = tensor.index_fill(axis, torch.from_numpy(gone), torch.nan)
    rows = ~tensor.flatten(1).isnan().all(dim=1) if tensor.ndim > 1 else ~tensor.isnan()
    tensor = tensor[rows]
    if tensor.ndim > 1:
        tensor = tensor[:, ~tensor.transpose(0, 1).flatten(1).isnan().any(dim=1)]
    return tensor


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_are_those_of_the_cut_network(family, seeded, randomised, random_masks, random_images):
    network = randomised(build_network(family, 4, 2, 8))
    images = random_images(3, 2, 8, 8)
    graph = FilterGraph(network, images[:1])
    for mask in random_masks(graph, 2):
        gated, _, smaller = _pair(network, graph, mask)
        with torch.no_grad():
            assert _close(gated(images), smaller(images))
            assert not _close(network(images), smaller(images))


@pytest.mark.parametrize("family", FAMILIES)
def test_training_is_that_of_the_cut_network(family, randomised, random_masks, random_images):
    """In training mode: outputs, and gradients and running statistics of everything that stays."""
    network = randomised(build_network(family, 4, 2, 8, seed=1)).train()
    images = random_images(8, 2, 8, 8)
    graph = FilterGraph(network, images[:1])
    (mask,) = random_masks(graph, 1, seed=3)
    gated, _, smaller = _pair(network, graph, mask)
    smaller.train()
    for model in (gated, smaller):
        functional.cross_entropy(model(images), torch.arange(8) % 4).backward()
    of_gated = {name: parameter.grad for name, parameter in gated.named_parameters()}
    largest = max(float(parameter.grad.abs().max()) for parameter in smaller.parameters())
    for name, parameter in smaller.named_parameters():
        found = _staying(graph, mask, name, of_gated[name])
        assert found.shape == parameter.grad.shape
        assert float((found - parameter.grad).abs().max()) <= 1e-4 * largest, name
    statistics = dict(gated.named_buffers())
    for name, buffer in smaller.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            assert _close(_staying(graph, mask, name, statistics[name]), buffer), name


def test_gradients_of_what_is_gone_are_zero(small_resnet, random_masks, random_images):
    graph = FilterGraph(small_resnet, torch.zeros(1, 1, 8, 8))
    (mask,) = random_masks(graph, 1)
    gated = copy.deepcopy(small_resnet).train()
    Gates(graph, gated, mask)
    gated(random_images(4, 1, 8, 8)).square().sum().backward()
    for layer in graph.layers:
        for site in layer.sites:
            module = gated.get_submodule(site.module)
            if site.side == "out":
                gone = torch.from_numpy(site.channels[~mask[site.bits]])
                assert module.weight.grad[gone].abs().sum() == 0, site.module


def test_apply_shuts_again_what_a_step_opened(small_resnet, random_masks, random_images):
    images = random_images(6, 1, 8, 8)
    graph = FilterGraph(small_resnet, images[:1])
    (mask,) = random_masks(graph, 1)
    gated, gates, smaller = _pair(small_resnet, graph, mask)
    for model in (gated, smaller):
        model.train()
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
        for _ in range(3):
            optimiser.zero_grad()
            functional.cross_entropy(model(images), torch.arange(6) % 3).backward()
            optimiser.step()
            if model is gated:
                gates.apply()
        model.eval()
    with torch.no_grad():
        assert _close(gated(images), smaller(images))


def test_a_whole_mask_changes_nothing(small_resnet):
    graph = FilterGraph(small_resnet, torch.zeros(1, 1, 8, 8))
    gated = copy.deepcopy(small_resnet)
    Gates(graph, gated, np.ones(graph.n_bits, np.bool_))
    before = small_resnet.state_dict()
    assert all(torch.equal(before[name], tensor) for name, tensor in gated.state_dict().items())


def test_release_takes_multipliers_away(randomised, random_masks):
    network = randomised(build_network("resnet20", 4, 1, 8))
    graph = FilterGraph(network, torch.zeros(1, 1, 8, 8))
    gated = copy.deepcopy(network)
    gates = Gates(graph, gated, random_masks(graph, 1)[0])
    assert sum(len(module._forward_pre_hooks) for module in gated.modules()) == 2
    gates.release()
    assert not any(module._forward_pre_hooks for module in gated.modules())


def test_transposed_convolutions_read_along_their_first_axis(wired, random_masks, random_images):
    network = wired(
        lambda net, x: net.fc(net.b(torch.relu(net.up(torch.relu(net.a(x))))).mean((2, 3))),
        a=nn.Conv2d(2, 5, 3),
        up=nn.ConvTranspose2d(5, 4, 2, stride=2),
        b=nn.Conv2d(4, 3, 1),
        fc=nn.Linear(3, 2),
    ).eval()
    images = random_images(3, 2, 8, 8)
    graph = FilterGraph(network, images[:1])
    (mask,) = random_masks(graph, 1)
    mask[:2] = False, True
    gated, _, smaller = _pair(network, graph, mask)
    with torch.no_grad():
        assert _close(gated(images), smaller(images))
    assert smaller.up.in_channels == mask[:5].sum()
