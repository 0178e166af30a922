"""The order of removal against a plain loop, one filter at a time."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moevoprune.filters import removal
from moevoprune.filters.costs import NetworkCosts
from moevoprune.filters.cutting import cut
from moevoprune.filters.gates import Gates
from moevoprune.filters.graph import FilterGraph
from moevoprune.filters.importance import taylor
from moevoprune.filters.networks import CifarResNet, SmallResNet
from moevoprune.filters.removal import masks_along, removal_order
from moevoprune.filters.training import recalibrate

LABELS = torch.arange(12) % 3
NETWORK = SmallResNet(3, 1, (4, 6), (1, 1))
GRAPH = FilterGraph(NETWORK, torch.zeros(1, 1, 8, 8))
COSTS = NetworkCosts(GRAPH, NETWORK)


def _one_at_a_time(graph, network, costs, images, steps):
    mask, order = np.ones(graph.n_bits, np.bool_), []
    thin = np.zeros((1, graph.n_bits), np.bool_)
    thin[0, [layer.bits.start for layer in graph.layers]] = True
    least = costs(thin)[0, 0]
    for step in range(1, steps + 1):
        gated = copy.deepcopy(network)
        Gates(graph, gated, mask)
        if order:
            recalibrate([gated], images)
        scores = taylor(graph, gated, images, LABELS)
        goal = costs.flops - (costs.flops - least) * step / steps
        for bit in np.argsort(scores, kind="stable"):
            (layer,) = (layer for layer in graph.layers if layer.bits.start <= bit < layer.bits.stop)
            if not mask[bit] or mask[layer.bits].sum() == 1:
                continue
            if step < steps and costs(mask[None])[0, 0] <= goal:
                break
            mask[bit] = False
            order.append(bit)
    return order


@pytest.mark.parametrize("steps", [1, 4])
def test_the_order_is_that_of_a_plain_loop(steps, small_resnet, random_images):
    graph = FilterGraph(small_resnet, torch.zeros(1, 1, 8, 8))
    costs = NetworkCosts(graph, small_resnet)
    images = random_images(12, 1, 8, 8)
    order = removal_order(graph, small_resnet, costs, images, LABELS, images, steps)
    assert order.tolist() == _one_at_a_time(graph, small_resnet, costs, images, steps)
    assert order.dtype == np.int64


def test_each_layer_keeps_one_and_the_network_is_left_alone(randomised, random_images):
    network = randomised(CifarResNet(8, 3, 1))
    graph = FilterGraph(network, torch.zeros(1, 1, 8, 8))
    before = copy.deepcopy(network.state_dict())
    images = random_images(12, 1, 8, 8)
    costs = NetworkCosts(graph, network)
    order = removal_order(graph, network, costs, images, LABELS, images, 3)
    assert len(set(order.tolist())) == len(order) == graph.n_bits - len(graph.layers)
    left = np.ones(graph.n_bits, np.bool_)
    left[order] = False
    assert all(left[layer.bits].sum() == 1 for layer in graph.layers)
    cut(graph, network, left)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not any(module._forward_pre_hooks for module in network.modules())


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False), st.lists(st.floats(0, 1), max_size=4))
def test_masks_along_are_the_first_below_each_share(random, shares):
    order = [bit for layer in GRAPH.layers for bit in range(layer.bits.start + 1, layer.bits.stop)]
    random.shuffle(order)
    on_the_way = [np.ones(GRAPH.n_bits, np.bool_)]
    for bit in order:
        on_the_way.append(on_the_way[-1].copy())
        on_the_way[-1][bit] = False
    flops = COSTS(np.array(on_the_way))[:, 0]
    masks = masks_along(GRAPH, np.array(order, np.int64), COSTS, shares)
    assert masks.shape == (len(shares), GRAPH.n_bits)
    assert masks.dtype == np.bool_
    for mask, share in zip(masks, shares, strict=True):
        below = np.flatnonzero(flops <= share * COSTS.flops)
        assert np.array_equal(mask, on_the_way[below[0] if len(below) else -1])
    GRAPH.check_masks(masks)


def test_few_masks_are_counted(monkeypatch):
    """Each may have to be cut: the way is halved until the place is found."""
    counted = []

    def costs(masks):
        counted.append(len(masks))
        return COSTS(masks)

    costs.flops = COSTS.flops
    order = np.array(
        [bit for bit in range(GRAPH.n_bits) if bit not in {layer.bits.start for layer in GRAPH.layers}]
    )
    masks_along(GRAPH, order, costs, [0.9, 0.5])
    assert sum(counted) <= 2 * 6


def test_importance_is_measured_anew_at_each_step(small_resnet, random_images, monkeypatch):
    seen = []

    def watched(graph, network, *given):
        seen.append(copy.deepcopy(network.state_dict()))
        return taylor(graph, network, *given)

    monkeypatch.setattr(removal, "taylor", watched)
    graph = FilterGraph(small_resnet, torch.zeros(1, 1, 8, 8))
    images = random_images(12, 1, 8, 8)
    removal_order(graph, small_resnet, NetworkCosts(graph, small_resnet), images, LABELS, images, 3)
    assert len(seen) == 3
    assert all(torch.equal(seen[0][name], tensor) for name, tensor in small_resnet.state_dict().items())
    assert not torch.equal(seen[1]["bn1.running_mean"], seen[0]["bn1.running_mean"])
    assert (seen[2]["linear.weight"] == 0).any()
