"""Networks cut by torch-pruning: torchvision's and those of users, and what cannot be cut."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from moevoprune.errors import InputError
from moevoprune.filters.costs import NetworkCosts, count
from moevoprune.filters.cutting import GATE_TOLERANCE, check_cutting, cut, gate_difference, trial_mask
from moevoprune.filters.graph import FilterGraph
from moevoprune.filters.networks import CifarResNet, SmallCNN, SmallResNet


def _thin_vgg(models):
    """torchvision's vgg11_bn with an eighth of the filters and few hidden neurons: it has 133 million weights."""
    with torch.device("meta"):
        network = models.vgg11_bn(weights=None)
    widths = [width if width == "M" else width // 8 for width in models.vgg.cfgs["A"]]
    network.features = models.vgg.make_layers(widths, batch_norm=True)
    network.classifier = nn.Sequential(nn.Linear(64 * 49, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 5))
    return network


SHORT = {
    "resnet18": lambda models: models.resnet18(weights=None, num_classes=5),
    "vgg11_bn": _thin_vgg,
    "densenet": lambda models: models.DenseNet(8, (2, 2, 1, 1), 16, 2, num_classes=5),
    "mobilenet_v2": lambda models: models.mobilenet_v2(weights=None, width_mult=0.25, num_classes=5),
}
LONG = (
    "vgg11_bn",
    "densenet121",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "squeezenet1_1",
    "googlenet",
    "mnasnet0_5",
    "resnet50",
)


def _agree(network, images, masks_of, count_masks):
    graph = FilterGraph(network, images[:1])
    costs = NetworkCosts(graph, network)
    masks = masks_of(graph, count_masks)
    for mask, (flops, parameters) in zip(masks, costs(masks), strict=True):
        smaller = cut(graph, network, mask)
        assert gate_difference(graph, network, smaller, mask, images) <= 1e-4
        assert (flops, parameters) == count(smaller, images)
        assert parameters == sum(parameter.numel() for parameter in smaller.parameters())
        assert parameters < costs.parameters or mask.all()
    return costs


@pytest.mark.parametrize("name", SHORT)
def test_networks_of_torchvision(name, seeded, randomised, random_masks, random_images):
    models = pytest.importorskip("torchvision.models")
    network = randomised(seeded(lambda: SHORT[name](models)))
    assert _agree(network, random_images(2, 3, 32, 32), random_masks, 1).closed


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_whole_networks_of_torchvision(name, seeded, randomised, random_masks, random_images):
    models = pytest.importorskip("torchvision.models")
    extra = {"init_weights": False} if name == "googlenet" else {}
    network = randomised(seeded(lambda: getattr(models, name)(weights=None, **extra)))
    assert _agree(network, random_images(2, 3, 64, 64), random_masks, 3).closed


class _Block(nn.Module):
    """A user's block: two branches put side by side, squeezed and excited, added to a projected shortcut."""

    def __init__(self, before, after):
        super().__init__()
        self.left = nn.Sequential(
            nn.Conv2d(before, after // 2, 3, padding=1), nn.BatchNorm2d(after // 2), nn.ReLU()
        )
        self.right = nn.Sequential(nn.Conv2d(before, after // 2, 1, bias=False), nn.BatchNorm2d(after // 2))
        self.mix = nn.Conv2d(after, after, 1)
        self.squeeze = nn.Linear(after, 3)
        self.excite = nn.Linear(3, after)
        self.shortcut = nn.Conv2d(before, after, 1)

    def forward(self, maps):
        inner = self.mix(torch.cat([self.left(maps), self.right(maps)], dim=1))
        weights = torch.sigmoid(self.excite(torch.relu(self.squeeze(inner.mean((2, 3))))))
        return functional.relu(inner * weights[:, :, None, None] + self.shortcut(maps))


def _own_network():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.Hardswish(),
        _Block(6, 8),
        nn.MaxPool2d(2),
        nn.Dropout2d(0.3),
        _Block(8, 10),
        nn.Flatten(),
        nn.Linear(10 * 16, 7),
        nn.ReLU(),
        nn.Linear(7, 3),
    )


def test_a_network_of_ones_own(seeded, randomised, random_masks, random_images):
    assert _agree(randomised(seeded(_own_network)), random_images(2, 1, 8, 8), random_masks, 4).closed


ODD = {
    "called twice": lambda wired: wired(
        lambda net, x: net.fc(net.b(torch.relu(net.b(torch.relu(net.a(x))))).mean((2, 3))),
        a=nn.Conv2d(1, 6, 3),
        b=nn.Conv2d(6, 6, 3, padding=1),
        fc=nn.Linear(6, 3),
    ),
    "shared by two branches": lambda wired: wired(
        lambda net, x: net.fc((net.c(net.a(x)) + net.c(net.b(x))).mean((2, 3))),
        a=nn.Conv2d(1, 6, 3),
        b=nn.Conv2d(1, 6, 3),
        c=nn.Conv2d(6, 5, 3),
        fc=nn.Linear(5, 3),
    ),
    "parts of a sum": lambda wired: wired(
        lambda net, x: net.fc((net.c(x) + torch.cat([net.a(x), net.b(x)], 1)).mean((2, 3))),
        a=nn.Conv2d(1, 4, 1),
        b=nn.Conv2d(1, 5, 1),
        c=nn.Conv2d(1, 9, 1),
        fc=nn.Linear(9, 3),
    ),
    "normed after flattening": lambda wired: wired(
        lambda net, x: net.fc(net.bn(net.a(x).flatten(1))),
        a=nn.Conv2d(1, 4, 3, stride=2),
        bn=nn.BatchNorm1d(36),
        fc=nn.Linear(36, 3),
    ),
    "depthwise first": lambda wired: wired(
        lambda net, x: net.fc(net.b(net.a(x)).mean((2, 3))),
        a=nn.Conv2d(2, 2, 3, groups=2),
        b=nn.Conv2d(2, 5, 1),
        fc=nn.Linear(5, 3),
    ),
    "one dimension": lambda wired: wired(
        lambda net, x: net.fc(net.b(torch.relu(net.a(x.flatten(2)))).mean(2)),
        a=nn.Conv1d(1, 6, 3),
        b=nn.Conv1d(6, 5, 3),
        fc=nn.Linear(5, 3),
    ),
    "filters scaled by bare parameters": lambda wired: wired(
        lambda net, x: net.fc((net.a(x) * net.scale).mean((2, 3))),
        a=nn.Conv2d(1, 6, 3),
        scale=nn.Parameter(torch.randn(6, 1, 1)),
        fc=nn.Linear(6, 3),
    ),
    "activations with weights": lambda wired: wired(
        lambda net, x: net.fc(net.norm(net.act(net.a(x))).mean((2, 3))),
        a=nn.Conv2d(1, 6, 3),
        act=nn.PReLU(6),
        norm=nn.InstanceNorm2d(6, affine=True),
        fc=nn.Linear(6, 3),
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_networks(kind, wired, seeded, randomised, random_masks, random_images):
    network = randomised(seeded(lambda: ODD[kind](wired)))
    images = random_images(2, 2 if kind == "depthwise first" else 1, 8, 8)
    costs = _agree(network, images, random_masks, 3)
    assert costs.closed == (kind not in ("filters scaled by bare parameters", "activations with weights"))


def test_padded_shortcuts_lose_channels_on_both_sides(randomised, random_masks, random_images):
    network = randomised(CifarResNet(20))
    graph = FilterGraph(network, torch.zeros(1, 3, 8, 8))
    before, after = (
        next(layer for layer in graph.layers if name in layer.members)
        for name in ("layer1.0.conv2", "layer2.0.conv2")
    )
    for sides in ([before], [after], [before, after]):
        mask = np.ones(graph.n_bits, np.bool_)
        for layer in sides:
            mask[layer.bits] = random_masks(graph, 1)[0, layer.bits]
        smaller = cut(graph, network, mask)
        assert smaller.layer2[0].shortcut.in_channels == mask[before.bits].sum()
        assert smaller.layer2[0].shortcut.out_channels == mask[after.bits].sum()
        assert gate_difference(graph, network, smaller, mask, random_images(2, 3, 8, 8)) <= 1e-4


def test_weights_are_those_of_the_filters_that_stay(seeded):
    """By hand: rows of the convolution, columns of what reads it, pixel by pixel behind a flattened map."""
    network = seeded(lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)))
    mask = np.array([True, False, False, True])
    smaller = cut(FilterGraph(network, torch.zeros(1, 1, 4, 4)), network, mask)
    assert torch.equal(smaller[0].weight, network[0].weight[mask])
    assert torch.equal(smaller[0].bias, network[0].bias[mask])
    assert torch.equal(smaller[3].weight, network[3].weight[:, np.repeat(mask, 4)])
    assert torch.equal(smaller[3].bias, network[3].bias)


def test_cutting_leaves_the_network_alone(small_resnet, random_masks):
    graph = FilterGraph(small_resnet, torch.zeros(1, 1, 8, 8))
    small_resnet.conv1.weight.requires_grad_(False)
    small_resnet.train()
    before = copy.deepcopy(small_resnet.state_dict())
    smaller = cut(graph, small_resnet, random_masks(graph, 1)[0])
    assert small_resnet.training
    assert not smaller.training
    assert all(torch.equal(before[name], tensor) for name, tensor in small_resnet.state_dict().items())
    assert not smaller.conv1.weight.requires_grad
    assert smaller.linear.weight.requires_grad
    assert all(parameter.grad is None for parameter in smaller.parameters())


def test_one_filter_of_each_layer_is_a_network(small_resnet, random_images):
    graph = FilterGraph(small_resnet, torch.zeros(1, 1, 8, 8))
    mask = np.zeros(graph.n_bits, np.bool_)
    mask[[layer.bits.start for layer in graph.layers]] = True
    smaller = cut(graph, small_resnet, mask)
    images = random_images(2, 1, 8, 8)
    assert smaller(images).shape == (2, 3)
    assert gate_difference(graph, small_resnet, smaller, mask, images) <= 1e-4
    thin = FilterGraph(SmallCNN(3, 1, (1, 1)), torch.zeros(1, 1, 8, 8))
    assert [layer.n_filters for layer in thin.layers] == [1, 1, 1, 1]
    assert trial_mask(thin).all()


RESNET = SmallResNet(3, 1, (4, 6), (1, 1))
GRAPH = FilterGraph(RESNET, torch.zeros(1, 1, 8, 8))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.booleans(), min_size=GRAPH.n_bits, max_size=GRAPH.n_bits))
def test_masks_that_empty_a_layer_are_refused_and_no_others(bits):
    mask = np.array(bits, np.bool_)
    if all(mask[layer.bits].any() for layer in GRAPH.layers):
        smaller = cut(GRAPH, RESNET, mask)
        assert smaller.conv1.out_channels == mask[GRAPH.layers[0].bits].sum()
        assert all(min(parameter.shape) > 0 for parameter in smaller.parameters())
    else:
        with pytest.raises(InputError, match=r"leaves no filter of .*: keep at least one"):
            cut(GRAPH, RESNET, mask)


class _PlainPadding(nn.Module):
    """A residual block whose shortcut pads channels in its own forward, as many implementations do."""

    def __init__(self, before, after):
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, stride=2, padding=1)
        self.extra = (after - before) // 2

    def forward(self, maps):
        return self.conv(maps) + functional.pad(maps[:, :, ::2, ::2], (0, 0, 0, 0, self.extra, self.extra))


def _bad(wired, wiring, **modules):
    return wired(wiring, **{"a": nn.Conv2d(1, 8, 3, padding=1), "fc": nn.Linear(8, 3), **modules})


BAD = {
    "chunks": lambda wired: _bad(
        wired, lambda net, x: net.fc(net.b(net.a(x).chunk(2, 1)[0]).mean((2, 3))), b=nn.Conv2d(4, 8, 1)
    ),
    "slices": lambda wired: _bad(
        wired, lambda net, x: net.fc(net.b(net.a(x)[:, :4]).mean((2, 3))), b=nn.Conv2d(4, 8, 1)
    ),
    "softmax over channels": lambda wired: _bad(wired, lambda net, x: net.fc(net.a(x).softmax(1).mean((2, 3)))),
    "means over channels": lambda wired: _bad(
        wired, lambda net, x: net.fc((net.a(x) * net.a(x).mean(1, keepdim=True)).mean((2, 3)))
    ),
    "excited without gradient": lambda wired: _bad(
        wired,
        lambda net, x: net.fc((net.a(x) * net.g(net.a(x).mean((2, 3)).detach())[:, :, None, None]).mean((2, 3))),
        g=nn.Linear(8, 8),
    ),
    "constants for channels": lambda wired: _bad(
        wired, lambda net, x: net.fc((net.a(x) * net.c).mean((2, 3))), c=torch.randn(8, 1, 1)
    ),
    "a recurrent layer": lambda wired: _bad(
        wired,
        lambda net, x: net.fc(net.r(net.a(x).flatten(2).transpose(1, 2))[0][:, -1]),
        r=nn.LSTM(8, 8, batch_first=True),
    ),
    "shuffled pixels": lambda wired: _bad(
        wired, lambda net, x: net.fc(net.s(net.a(x)).mean((2, 3))), s=nn.PixelShuffle(2), fc=nn.Linear(2, 3)
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_torch_pruning_gets_wrong_is_found(kind, wired, seeded):
    network = seeded(lambda: BAD[kind](wired)).eval()
    with pytest.raises(InputError, match=r"depends on the filters of 'a': .*: keep that module whole") as caught:
        check_cutting(FilterGraph(network, torch.zeros(1, 1, 8, 8)), network)
    assert "\n" not in str(caught.value)


def test_shortcuts_that_pad_channels_are_named_and_can_be_kept(seeded):
    network = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), _PlainPadding(4, 8), nn.Conv2d(8, 6, 1), nn.Flatten(), nn.Linear(54, 3)
        )
    ).eval()
    example = torch.zeros(1, 1, 8, 8)
    with pytest.raises(InputError, match=r"filters of '(0|1\.conv)'"):
        check_cutting(FilterGraph(network, example), network)
    kept = FilterGraph(network, example, ["0", "1"])
    check_cutting(kept, network)
    assert [layer.name for layer in kept.layers] == ["2"]


def test_small_outputs_hide_nothing(wired, seeded):
    """What differs is compared with the outputs' own size."""
    network = seeded(lambda: BAD["softmax over channels"](wired)).eval()
    network.fc.weight.data.mul_(1e-7)
    network.fc.bias.data.zero_()
    with pytest.raises(InputError, match="outputs differ by"):
        check_cutting(FilterGraph(network, torch.zeros(1, 1, 8, 8)), network)


def test_trial_masks_are_uneven_and_repeatable():
    mask = trial_mask(GRAPH)
    assert [int(mask[layer.bits].sum()) for layer in GRAPH.layers] == [
        layer.n_filters // (3 - place % 2) for place, layer in enumerate(GRAPH.layers)
    ]
    assert np.array_equal(mask, trial_mask(GRAPH))
    assert not np.array_equal(mask, trial_mask(GRAPH, seed=1))


def test_differences_are_found(small_resnet, random_images):
    graph = FilterGraph(small_resnet, torch.zeros(1, 1, 8, 8))
    mask, images = trial_mask(graph), random_images(2, 1, 8, 8)
    smaller = cut(graph, small_resnet, mask)
    assert gate_difference(graph, small_resnet, smaller, mask, images) <= GATE_TOLERANCE
    expected = smaller(images).detach()
    smaller.linear.bias.data[0] += 0.25
    found = gate_difference(graph, small_resnet, smaller, mask, images)
    assert found == pytest.approx(0.25 / float(expected.abs().max()), rel=1e-3)


def test_damaged_weights_are_not_taken_for_a_fault_of_the_graph(seeded):
    network = seeded(lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2)))
    graph = FilterGraph(network, torch.zeros(1, 1, 8, 8))
    network[1].running_var[2] = -1.0
    with pytest.raises(InputError, match="outputs are not finite"):
        check_cutting(graph, network)
