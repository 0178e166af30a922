"""FLOPs and parameters of masks against torch-pruning's counts, and against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from moevoprune.filters import costs as costs_module
from moevoprune.filters.costs import NetworkCosts, count
from moevoprune.filters.cutting import check_cutting, cut
from moevoprune.filters.graph import FilterGraph
from moevoprune.filters.networks import build_network


@pytest.mark.parametrize("family", ["cnn", "resnet", "densenet", "resnet20"])
def test_counts_are_torch_prunings_own(family, random_masks):
    network = build_network(family, 4, 2, 8)
    example = torch.zeros(1, 2, 8, 8)
    graph = FilterGraph(network, example)
    costs = NetworkCosts(graph, network)
    masks = random_masks(graph, 3)
    assert costs.closed
    assert costs(masks).tolist() == [list(count(cut(graph, network, mask), example)) for mask in masks]
    assert costs(np.ones_like(masks[:1])).tolist() == [[costs.flops, costs.parameters]]


def test_counts_by_hand():
    """3x3 convolutions with and without bias and a linear layer: products of channels, positions and kernel."""
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.Conv2d(3, 5, 3, stride=2, bias=False), nn.Flatten(), nn.Linear(45, 4)
    )
    graph = FilterGraph(network, torch.zeros(1, 2, 9, 9))
    costs = NetworkCosts(graph, network)
    mask = np.array([1, 0, 1, 1, 1, 0, 0, 0], np.bool_)
    for one, two, bits in ((3, 5, np.ones(8, np.bool_)), (2, 2, mask)):
        flops = 49 * one * (2 * 9 + 1) + 9 * two * one * 9 + (two * 9 * 4 + 4)
        parameters = one * (2 * 9 + 1) + two * one * 9 + (two * 9 * 4 + 4)
        assert costs(bits[None]).tolist() == [[flops, parameters]]


def test_one_image_is_counted_whatever_the_batch():
    network = build_network("cnn", 4, 2, 8)
    assert count(network, torch.zeros(5, 2, 8, 8)) == count(network, torch.zeros(1, 2, 8, 8))


def test_masks_whose_costs_follow_no_product_are_cut(wired, random_masks, monkeypatch):
    network = wired(
        lambda net, x: net.fc(net.b(net.act(net.a(x))).mean((2, 3))),
        a=nn.Conv2d(1, 5, 3),
        act=nn.PReLU(5),
        b=nn.Conv2d(5, 4, 1),
        fc=nn.Linear(4, 2),
    )
    example = torch.zeros(1, 1, 8, 8)
    graph = FilterGraph(network, example)
    costs = NetworkCosts(graph, network)
    assert not costs.closed
    masks = random_masks(graph, 3)
    cuts = []
    monkeypatch.setattr(costs_module, "cut", lambda *given: cuts.append(given) or cut(*given))
    assert costs(masks).tolist() == [list(count(cut(graph, network, mask), example)) for mask in masks]
    assert len(cuts) == 3
    assert costs(masks[:0]).shape == (0, 2)


def test_a_network_that_was_cut_already_is_not_cut_again(small_resnet, monkeypatch):
    graph = FilterGraph(small_resnet, torch.zeros(1, 1, 8, 8))
    smaller = check_cutting(graph, small_resnet)
    monkeypatch.setattr(costs_module, "check_cutting", None)
    assert NetworkCosts(graph, small_resnet, smaller).closed
