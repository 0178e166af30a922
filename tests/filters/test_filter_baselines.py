"""Baselines against norms computed in NumPy, and against torch-pruning's pruner used alone."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch_pruning as tp
from torch import nn

from moevoprune.errors import InputError
from moevoprune.filters.baselines import METHODS, magnitude_baseline, magnitude_mask
from moevoprune.filters.costs import NetworkCosts, count
from moevoprune.filters.graph import FilterGraph, own_pruners
from moevoprune.filters.networks import build_network


def _network(name: str) -> tuple[nn.Module, torch.Tensor]:
    channels, side = (3, 16) if name == "resnet20" else (1, 8)
    network = build_network(name, 10, channels, side, seed=3).eval()
    generator = torch.Generator().manual_seed(1)
    # fresh batch norms have scales of 1, which would hide whether they count
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
    return network, torch.zeros(1, channels, side, side)


@pytest.fixture(scope="module")
def plain():
    network, example = _network("cnn")
    graph = FilterGraph(network, example)
    return network, graph, NetworkCosts(graph, network)


def _norms(network: nn.Module) -> list[np.ndarray]:
    """L1 norms of all weights that go with each filter of a chain of convolutions and batch norms."""
    state = {name: value.double().numpy() for name, value in network.state_dict().items()}
    chain = [m for m in network.features if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    names = {module: name for name, module in network.named_modules()}
    makers = [state[f"{names[m]}.weight"] for m in chain if isinstance(m, nn.Conv2d)]
    scales = [state[f"{names[m]}.weight"] for m in chain if isinstance(m, nn.BatchNorm2d)]
    readers = [*makers[1:], state["classifier.weight"][:, :, None, None]]
    return [
        np.abs(maker).sum((1, 2, 3)) + np.abs(scale) + np.abs(reader).sum((0, 2, 3))
        for maker, scale, reader in zip(makers, scales, readers, strict=True)
    ]


@pytest.mark.parametrize("share", [0.8, 0.4, 0.05])
def test_uniform_keeps_the_largest_norms_of_each_layer(plain, share):
    network, graph, costs = plain
    mask = magnitude_mask(graph, network, costs, "uniform_l1", share * costs.flops)
    counts = []
    for layer, norms in zip(graph.layers, _norms(network), strict=True):
        kept = mask[layer.bits]
        assert set(np.flatnonzero(kept)) == set(np.argsort(-norms)[: kept.sum()])
        counts.append((kept.sum(), layer.n_filters))
    # one share of all layers, rounded down, but for the last hundredth
    assert max(kept / n for kept, n in counts) < min((kept + 1) / n for kept, n in counts) + 0.0101


@pytest.mark.parametrize("share", [0.8, 0.4])
def test_global_ranks_all_layers_relative_to_their_means(plain, share):
    network, graph, costs = plain
    mask = magnitude_mask(graph, network, costs, "global_magnitude", share * costs.flops)
    norms = np.concatenate([norms / norms.mean() for norms in _norms(network)])
    worst_kept = int((norms < norms[mask].min()).sum())
    best_gone = int((norms <= norms[~mask].max()).sum())
    # the ranking decides, but for filters of the last hundredth, of which some layers are given theirs back
    assert best_gone - worst_kept <= np.ceil(0.01 * graph.n_bits) + 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["cnn", "densenet", "resnet20"])
def test_equals_torch_pruning_alone(name, method):
    network, example = _network(name)
    alone = copy.deepcopy(network)
    pruner = tp.pruner.BasePruner(
        alone,
        example,
        tp.importance.MagnitudeImportance(p=1),
        global_pruning=METHODS[method].across_layers,
        pruning_ratio=0.43,
        ignored_layers=[alone.get_submodule("linear" if "resnet" in name else "classifier")],
        customized_pruners=own_pruners(alone),
        root_module_types=[nn.Conv2d],
    )
    pruner.step()
    baseline = magnitude_baseline(FilterGraph(network, example), network, method, count(alone, example)[0])
    expected = alone.state_dict()
    assert {key: value.shape for key, value in expected.items()} != {
        key: value.shape for key, value in network.state_dict().items()
    }
    assert baseline.state_dict().keys() == expected.keys()
    for key, value in baseline.state_dict().items():
        assert torch.equal(value, expected[key]), key
    assert torch.equal(baseline(example + 0.3), alone.eval()(example + 0.3))


@pytest.mark.parametrize("method", METHODS)
def test_flops_are_reached_and_no_layer_is_emptied(plain, method):
    network, graph, costs = plain
    for share in (0.6, 0.01):
        baseline = magnitude_baseline(graph, network, method, share * costs.flops)
        flops = count(baseline, graph.example)[0]
        assert (0.98 if share >= 0.1 else 0.8) * share * costs.flops <= flops <= share * costs.flops
        assert all(m.out_channels > 0 for m in baseline.modules() if isinstance(m, nn.Conv2d))


def test_whole_network_where_the_flops_allow_it(plain):
    network, graph, costs = plain
    assert magnitude_mask(graph, network, costs, "global_magnitude", costs.flops).all()


@pytest.mark.parametrize("method", METHODS)
def test_kept_modules_stay_whole_and_do_not_count(plain, method):
    network, whole, _ = plain
    graph = FilterGraph(network, whole.example, keep=["features.3"])
    assert "features.3" in graph.left_out
    costs = NetworkCosts(graph, network)
    mask = magnitude_mask(graph, network, costs, method, 0.5 * costs.flops)
    assert len(mask) == whole.n_bits - 24
    assert 0.98 * 0.5 < costs(mask[None])[0, 0] / costs.flops <= 0.5


def test_refuses_what_it_cannot_do(plain):
    network, graph, costs = plain
    with pytest.raises(InputError, match="did you mean 'uniform_l1'"):
        magnitude_mask(graph, network, costs, "uniform_l2", 1e5)
    with pytest.raises(InputError, match="does not get to 10 FLOPs"):
        magnitude_mask(graph, network, costs, "uniform_l1", 10)


def test_changes_nothing(plain):
    network, graph, costs = plain
    before = copy.deepcopy(network.state_dict())
    magnitude_baseline(graph, network, "global_magnitude", 0.5 * costs.flops)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
