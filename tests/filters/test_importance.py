"""Importance of filters against loops over their weights and gradients."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from moevoprune.filters.graph import FilterGraph
from moevoprune.filters.importance import magnitude, taylor


@pytest.fixture
def plain(seeded):
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3, bias=False),
            nn.ReLU(),
            nn.Conv2d(4, 5, 3, bias=False),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(5, 3),
        )
    ).eval()


@pytest.fixture
def graph(plain):
    return FilterGraph(plain, torch.zeros(1, 1, 8, 8))


def _weights_of_filters(network):
    """For each filter what makes it and what reads it, in the order of the bits."""
    layers = [network[0], network[2], network[5]]
    for first, second in pairwise(layers):
        for number in range(first.out_channels):
            yield (first.weight, number, 0), (second.weight, number, 1)


def _by_hand(network, value):
    found = [[value(*made), value(*read)] for made, read in _weights_of_filters(network)]
    return np.array(found)


def test_magnitude_is_relative_to_the_layers_mean(plain, graph):
    def length(weight, number, axis):
        return float(weight.detach().select(axis, number).abs().sum())

    sums = _by_hand(plain, length).mean(axis=1)
    expected = np.concatenate([sums[:4] / sums[:4].mean(), sums[4:] / sums[4:].mean()])
    assert np.allclose(magnitude(graph, plain), expected, rtol=1e-5)


def test_magnitude_counts_all_that_go_together(small_resnet):
    graph = FilterGraph(small_resnet, torch.zeros(1, 1, 8, 8))
    before = magnitude(graph, small_resnet)
    with torch.no_grad():
        small_resnet.layer2[0].shortcut[0].weight[2] *= 50
    after = magnitude(graph, small_resnet)
    layer = next(layer for layer in graph.layers if "layer2.0.shortcut.0" in layer.members)
    assert np.argmax(after[layer.bits]) == 2
    assert after[layer.bits].mean() == pytest.approx(1)
    others = np.ones(graph.n_bits, np.bool_)
    others[layer.bits] = False
    # what reads the first stage is longer now, but only for its own layer
    first = next(layer for layer in graph.layers if "conv1" in layer.members)
    others[first.bits] = False
    assert np.array_equal(before[others], after[others])


def test_taylor_is_weight_times_gradient(plain, graph, random_images):
    images, labels = random_images(10, 1, 8, 8), torch.arange(10) % 3
    expected = np.zeros(9)
    for rows in (slice(0, 6), slice(6, 10)):
        plain.zero_grad()
        functional.cross_entropy(plain(images[rows]), labels[rows]).backward()

        def product(weight, number, axis):
            return float((weight.detach() * weight.grad).select(axis, number).abs().sum())

        expected += _by_hand(plain, product).mean(axis=1)
    plain.zero_grad(set_to_none=True)
    found = taylor(graph, plain, images, labels, batch_size=6)
    assert found.shape == (9,)
    assert (found >= 0).all()
    assert np.allclose(found, expected, rtol=1e-4)
    assert all(parameter.grad is None for parameter in plain.parameters())


def test_a_filter_without_effect_is_worth_nothing(plain, graph, random_images):
    with torch.no_grad():
        plain[2].weight[:, 1] = 0
        plain[0].weight[1] = 0
    found = taylor(graph, plain, random_images(6, 1, 8, 8), torch.arange(6) % 3)
    assert found[1] == 0
    assert (np.delete(found, 1) > 0).all()
