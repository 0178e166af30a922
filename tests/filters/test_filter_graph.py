"""What a mask's bits stand for, and which networks are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from moevoprune.errors import InputError
from moevoprune.filters.graph import FilterGraph
from moevoprune.filters.networks import CifarResNet, SmallCNN

EXAMPLE = torch.zeros(1, 3, 8, 8)


def _averaged(maps):
    return maps.mean((2, 3))


def _two_convolutions(wired, second=None, wiring=None):
    return wired(
        wiring or (lambda net, x: net.fc(_averaged(net.b(torch.relu(net.a(x)))))),
        a=nn.Conv2d(3, 4, 3, padding=1),
        b=second or nn.Conv2d(4, 6, 1),
        fc=nn.Linear(6, 2),
    )


def test_each_filter_of_a_plain_network_is_a_bit(wired):
    graph = FilterGraph(_two_convolutions(wired), EXAMPLE)
    assert [(layer.name, layer.members, layer.bits) for layer in graph.layers] == [
        ("a", ("a",), slice(0, 4)),
        ("b", ("b",), slice(4, 10)),
    ]
    assert graph.n_bits == 10
    assert graph.left_out == {}
    sites = {(site.module, site.side): site for site in graph.layers[1].sites}
    assert set(sites) == {("b", "out"), ("fc", "in")}
    assert np.array_equal(sites["fc", "in"].channels, np.arange(6))
    assert np.array_equal(sites["fc", "in"].bits, np.arange(4, 10))


def test_filters_that_a_shortcut_adds_up_share_bits(small_resnet):
    graph = FilterGraph(small_resnet, EXAMPLE[:, :1])
    together = [
        {"conv1", "layer1.0.conv2"},
        {"layer1.0.conv1"},
        {"layer2.0.conv1"},
        {"layer2.0.conv2", "layer2.0.shortcut.0"},
    ]
    assert [set(layer.members) for layer in graph.layers] == together
    assert all(layer.name in layer.members for layer in graph.layers)
    assert graph.n_bits == 4 + 4 + 6 + 6


def test_padded_shortcuts_leave_stages_independent():
    graph = FilterGraph(CifarResNet(8), torch.zeros(1, 3, 8, 8))
    assert {layer.name: layer.n_filters for layer in graph.layers} == {
        "conv1": 16,
        "layer1.0.conv1": 16,
        "layer2.0.conv1": 32,
        "layer2.0.conv2": 32,
        "layer3.0.conv1": 64,
        "layer3.0.conv2": 64,
    }


def test_a_flattened_map_goes_pixel_by_pixel_with_its_filter(wired):
    network = wired(
        lambda net, x: net.fc(net.a(x).flatten(1)), a=nn.Conv2d(3, 4, 3, stride=3), fc=nn.Linear(4 * 4, 2)
    )
    (layer,) = FilterGraph(network, EXAMPLE).layers
    (site,) = (site for site in layer.sites if site.module == "fc")
    assert np.array_equal(site.bits[np.argsort(site.channels)], np.repeat(np.arange(4), 4))


def test_parts_of_a_sum_are_layers_of_their_own(wired):
    """Two maps side by side are added to a third: without the first four bits, ``a`` would have no filter."""
    network = wired(
        lambda net, x: net.fc(_averaged(net.c(x) + torch.cat([net.a(x), net.b(x)], 1))),
        c=nn.Conv2d(3, 9, 1),
        a=nn.Conv2d(3, 4, 1),
        b=nn.Conv2d(3, 5, 1),
        fc=nn.Linear(9, 2),
    )
    graph = FilterGraph(network, EXAMPLE)
    assert [(layer.name, layer.n_filters, set(layer.members)) for layer in graph.layers] == [
        ("a", 4, {"a", "c"}),
        ("b", 5, {"b", "c"}),
    ]
    assert graph.groups == {"c": slice(0, 9)}
    mask = np.ones((1, 9), np.bool_)
    mask[0, :4] = False
    with pytest.raises(InputError, match="leaves no filter of a: keep at least one"):
        graph.check_masks(mask)


def test_a_module_that_is_called_twice_is_one(wired):
    network = wired(
        lambda net, x: net.fc(_averaged(net.b(torch.relu(net.b(net.a(x)))))),
        a=nn.Conv2d(3, 4, 3),
        b=nn.Conv2d(4, 4, 3),
        fc=nn.Linear(4, 2),
    )
    (layer,) = FilterGraph(network, EXAMPLE).layers
    assert set(layer.members) == {"a", "b"}
    assert layer.n_filters == 4


@pytest.mark.parametrize(
    ("second", "left_out", "reason"),
    [
        (nn.Conv2d(4, 6, 1, groups=2), {"a", "b"}, "b is a convolution in groups"),
        (nn.Sequential(nn.GroupNorm(2, 4), nn.Conv2d(4, 6, 1)), {"a"}, "b.0 looks across channels"),
        (nn.Sequential(nn.LayerNorm([4, 8, 8]), nn.Conv2d(4, 6, 1)), {"a"}, "b.0 looks across channels"),
    ],
)
def test_what_is_more_than_its_channels_is_kept_whole(wired, second, left_out, reason):
    network = _two_convolutions(wired, second)
    network.c = nn.Conv2d(6, 6, 1)
    network.wiring = lambda net, x: net.fc(_averaged(net.c(net.b(net.a(x)))))
    graph = FilterGraph(network, EXAMPLE)
    assert set(graph.left_out) == left_out
    assert set(graph.left_out.values()) == {reason}
    assert graph.layers[-1].name == "c"


def test_outputs_and_the_channels_of_images_are_kept_whole(wired):
    network = wired(
        lambda net, x: _averaged(net.c(net.b(net.a(x)))),
        a=nn.Conv2d(3, 3, 3, groups=3),
        b=nn.Conv2d(3, 5, 1),
        c=nn.Conv2d(5, 2, 1),
    )
    graph = FilterGraph(network, EXAMPLE)
    assert [layer.name for layer in graph.layers] == ["b"]
    assert graph.left_out == {
        "a": "a hands on the channels of the images",
        "c": "its channels are the network's outputs",
    }


@pytest.mark.parametrize(
    ("keep", "left"), [(["b"], ["a"]), (["a"], ["b"]), (["fc"], ["a", "b"]), (("a", "fc"), ["b"])]
)
def test_keep_holds_the_filters_of_what_it_names(wired, keep, left):
    graph = FilterGraph(_two_convolutions(wired), EXAMPLE, keep)
    assert [layer.name for layer in graph.layers] == left


def test_keep_may_name_what_holds_convolutions(small_resnet):
    graph = FilterGraph(small_resnet, EXAMPLE[:, :1], ["layer2"])
    assert [layer.name for layer in graph.layers] == ["conv1", "layer1.0.conv1"]


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (["convv"], "keep names no module of this network: 'convv'"),
        ([""], "keep names no module"),
        ("a", r"keep: got the string 'a'; give a list .* \['a'\]"),
        (["a", "b"], r"no filters that could go \(.*a is to be kept"),
    ],
)
def test_bad_keep(wired, keep, message):
    with pytest.raises(InputError, match=message):
        FilterGraph(_two_convolutions(wired), EXAMPLE, keep)


def _fails(*_):
    raise ValueError("no such\nthing")


def _without_gradient(net, x):
    with torch.no_grad():
        maps = net.a(x)
    return net.fc(_averaged(net.b(maps)))


@pytest.mark.parametrize(
    ("wiring", "message"),
    [
        (_fails, r"its own forward fails on an input of shape \(1, 3, 8, 8\) \(no such thing\)"),
        (lambda net, x: net.fc(_averaged(net.b(net.a(x).detach()))), "what 'a' computes .*detach"),
        (_without_gradient, "what 'a' computes"),
        (
            lambda net, x: net.fc(torch.from_numpy(_averaged(net.b(net.a(x))).detach().numpy())),
            "what 'a', 'b' computes",
        ),
        (lambda net, x: net.fc(_averaged(net.b(net.a(x)).numpy())), "its own forward fails .*numpy"),
        (lambda net, x: {"logits": net.fc(_averaged(net.b(net.a(x))))}, "this network gives a dict"),
        (lambda net, x: net.fc(net.b(net.a(x))), r"module 'fc' \(Linear\) fails on an input of shape"),
        (lambda net, x: net.fc(_averaged(net.b(x))), r"module 'b' \(Conv2d\) fails"),
    ],
)
def test_what_cannot_be_traced_is_named(wired, wiring, message):
    with pytest.raises(InputError, match=message) as caught:
        FilterGraph(_two_convolutions(wired, wiring=wiring), EXAMPLE)
    assert "\n" not in str(caught.value)


def test_the_module_that_fails_is_named_where_it_is_deep_inside(wired):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), wired(_fails)), nn.Flatten())
    with pytest.raises(InputError, match=r"module '1\.1' \(_Wired\) fails"):
        FilterGraph(network, EXAMPLE)


def test_a_graph_that_torch_pruning_does_not_know_names_a_module():
    models = pytest.importorskip("torchvision.models")
    network = models.shufflenet_v2_x0_5(weights=None)
    with pytest.raises(InputError, match=r"does not understand what follows module 'stage4\.1\.branch2\.\d+'"):
        FilterGraph(network, torch.zeros(1, 3, 32, 32))


def test_parameters_that_are_not_plain_are_refused(wired):
    normed = _two_convolutions(wired, parametrizations.weight_norm(nn.Conv2d(4, 6, 1)))
    with pytest.raises(InputError, match="weights of module 'b' are parametrised"):
        FilterGraph(normed, EXAMPLE)
    tied = _two_convolutions(wired, nn.Conv2d(4, 4, 1))
    tied.c = nn.Conv2d(4, 4, 1)
    tied.c.weight = tied.b.weight
    with pytest.raises(InputError, match="modules 'b' and 'c' share a parameter"):
        FilterGraph(tied, EXAMPLE)


def test_what_cannot_be_copied_is_refused(wired):
    network = _two_convolutions(wired)
    network.last = network.a(EXAMPLE)
    with pytest.raises(InputError, match=r"cannot be copied by copy\.deepcopy"):
        FilterGraph(network, EXAMPLE)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_than_that_of_images_name_the_module(wired, dtype):
    with pytest.raises(InputError, match=r"module 'a' \(Conv2d\) fails .*type"):
        FilterGraph(_two_convolutions(wired).to(dtype), EXAMPLE)


def test_without_convolutions_there_is_nothing_to_do():
    with pytest.raises(InputError, match="it has no convolution"):
        FilterGraph(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), EXAMPLE)


def test_tracing_changes_nothing(seeded):
    network = seeded(lambda: SmallCNN(2, 3, (4,)))
    network.features[0].weight.requires_grad_(False)
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    FilterGraph(network, EXAMPLE)
    assert network.training
    assert not network.features[0].weight.requires_grad
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_masks_of_another_length_are_refused(wired):
    graph = FilterGraph(_two_convolutions(wired), EXAMPLE)
    with pytest.raises(InputError, match=r"masks have shape \(1, 9\): give \(n, 10\)"):
        graph.check_masks(np.ones((1, 9), np.bool_))
