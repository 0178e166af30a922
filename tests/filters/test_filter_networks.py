"""Networks by name, and the shortcut that can lose channels on both sides."""

from __future__ import annotations

import copy
import os

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from moevoprune.errors import InputError
from moevoprune.filters.networks import (
    CIFAR_DEPTHS,
    FAMILIES,
    CifarResNet,
    PaddedShortcut,
    build_network,
    load_weights,
)
from moevoprune.filters.saving import load_network


def _maps(channels: int, side: int = 7) -> torch.Tensor:
    return torch.randn(3, channels, side, side, generator=torch.Generator().manual_seed(channels))


# --- shortcut --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [(16, 32), (5, 8), (4, 4)])
def test_shortcut_is_padding(before, after):
    maps = _maps(before)
    room = (after - before) // 2
    expected = functional.pad(maps[:, :, ::2, ::2], (0, 0, 0, 0, room, after - before - room))
    assert torch.equal(PaddedShortcut(before, after)(maps), expected)


def test_shortcut_loses_channels_on_both_sides():
    """In any order, against the whole shortcut with channels set to zero or left out."""
    generator = np.random.default_rng(0)
    maps = _maps(6)
    for _ in range(30):
        shortcut = PaddedShortcut(6, 10)
        inputs, outputs = np.arange(6), np.arange(10)
        for _ in range(4):
            if generator.random() < 0.5 and len(inputs) > 1:
                gone = generator.choice(len(inputs), generator.integers(1, len(inputs)), replace=False)
                shortcut.remove_inputs(gone.tolist())
                inputs = np.delete(inputs, gone)
            elif len(outputs) > 1:
                gone = generator.choice(len(outputs), generator.integers(1, len(outputs)), replace=False)
                shortcut.remove_outputs(gone.tolist())
                outputs = np.delete(outputs, gone)
        gated = torch.zeros_like(maps)
        gated[:, inputs] = maps[:, inputs]
        assert (shortcut.in_channels, shortcut.out_channels) == (len(inputs), len(outputs))
        assert torch.equal(shortcut(maps[:, inputs]), PaddedShortcut(6, 10)(gated)[:, outputs])


def test_shortcut_has_no_state():
    shortcut = PaddedShortcut(4, 8)
    shortcut.remove_inputs([1])
    assert not shortcut.state_dict()
    assert shortcut.source.tolist() == [-1, -1, 0, -1, 1, 2, -1, -1]
    assert torch.equal(copy.deepcopy(shortcut)(_maps(3)), shortcut(_maps(3)))


def test_cut_shortcut_is_exported():
    shortcut = PaddedShortcut(4, 8).eval()
    shortcut.remove_inputs([1])
    program = torch.export.export(shortcut, (_maps(3),), dynamic_shapes={"maps": {0: torch.export.Dim("n")}})
    maps = _maps(3)[:2]
    assert torch.equal(program.module()(maps), shortcut(maps))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_cut_shortcut_is_exported_to_onnx(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    shortcut = PaddedShortcut(4, 8).eval()
    shortcut.remove_inputs([1])
    path = tmp_path / "shortcut.onnx"
    dynamic = {"maps": {0: torch.export.Dim("n")}}
    torch.onnx.export(shortcut, (_maps(3),), path, dynamo=True, dynamic_shapes=dynamic, verbose=False)
    session = onnxruntime.InferenceSession(path)
    maps = _maps(3)[:2]
    (found,) = session.run(None, {session.get_inputs()[0].name: maps.numpy()})
    np.testing.assert_array_equal(found, shortcut(maps).numpy())


# --- by name ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*FAMILIES, "resnet20"])
def test_networks_depend_on_their_seed_alone(name):
    state = torch.get_rng_state()
    networks = [build_network(name, 7, 2, (8, 12), seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), state)
    images = torch.randn(4, 2, 8, 12, generator=torch.Generator().manual_seed(0))
    first, second, third = (network.eval()(images) for network in networks)
    assert first.shape == (4, 7)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    # the trial left no trace
    assert all(int(m.num_batches_tracked) == 0 for m in networks[0].modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize("depth", CIFAR_DEPTHS)
def test_depth_counts_layers_with_weights(depth):
    network = CifarResNet(depth)
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in network.modules()) == depth
    # table 6 of the paper, in millions
    millions = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7}[depth]
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.03)


def test_cifar_weights_are_loaded_and_right(shared_data):
    from moevoprune.filters.images import Normalisation, load_images, to_tensor
    from moevoprune.filters.training import predict

    network = build_network("resnet20", 10, 3, 32)
    load_weights(network, shared_data / "backbones" / "resnet20_cifar10.pth")
    labelled = load_images(shared_data / "images" / "cifar10_small.npz")
    normalisation = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    logits = predict(network, to_tensor(labelled.X_test[::10], normalisation))
    # 81 % are said of the whole test part
    assert float((logits.argmax(1).numpy() == labelled.y_test[::10]).mean()) > 0.75


def test_networks_of_torchvision_take_any_channels():
    network = build_network("resnet18", 5, 1, 32)
    assert network.conv1.weight.shape == (64, 1, 7, 7)
    assert network.conv1.bias is None
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet19", "did you mean 'resnet1"),
        ("desnet", "did you mean 'densenet'"),
        ("nothing", "unknown network 'nothing'"),
        ("squeezenet1_1", "does not take images of 3 channels and 8 x 8 pixels"),
        ("absent.py:build", "no Python file 'absent.py'"),
    ],
)
def test_networks_that_are_none(name, words):
    with pytest.raises(InputError) as caught:
        build_network(name, 10, 3, 8)
    assert words in str(caught.value)


def test_depth_must_be_one():
    with pytest.raises(InputError, match="depth = 21"):
        CifarResNet(21)


# --- the user's own --------------------------------------------------------------------------------

_OWN = """
import torch
from neighbour import WIDTH

class Net(torch.nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, WIDTH, 3)
        self.out = torch.nn.Linear(WIDTH, n_classes)

    def forward(self, x):
        return self.out(self.conv(x).mean((2, 3)))

def build(n_classes):
    return Net(n_classes)

def fixed():
    return Net(3)

def fails():
    raise KeyError("no such thing")

def number():
    return 3

constant = 5
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(_OWN)
    (tmp_path / "neighbour.py").write_text("WIDTH = 6\n")
    return tmp_path / "own.py"


def test_own_module(own):
    network = build_network(f"{own}:build", 4, 1, 8, seed=3)
    assert network(torch.zeros(1, 1, 8, 8)).shape == (1, 4)
    again = build_network(f"{own}:build", 4, 1, 8, seed=3)
    assert torch.equal(network.conv.weight, again.conv.weight)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("fixed", "gives (2, 3) for 2 images of 4 classes"),
        ("fails", "KeyError"),
        ("number", "returns int"),
        ("constant", "has no function 'constant'"),
        ("absent", "has no function 'absent'"),
    ],
)
def test_own_module_that_does_not_fit(own, function, words):
    with pytest.raises(InputError) as caught:
        build_network(f"{own}:{function}", 4, 1, 8)
    assert words in str(caught.value)


def test_own_file_that_cannot_be_run(own):
    own.write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(InputError, match="cannot be run: SystemExit"):
        build_network(f"{own}:build", 4, 1, 8)


# --- weights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_from_a_file(tmp_path, wrapped):
    donor, network = build_network("resnet", 4, 1, 8, seed=1), build_network("resnet", 4, 1, 8, seed=2)
    state = donor.state_dict()
    if wrapped:
        state = {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}
    torch.save(state, tmp_path / "weights.pth")
    load_weights(network, tmp_path / "weights.pth")
    for key, value in network.state_dict().items():
        assert torch.equal(value, donor.state_dict()[key]), key
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_weights_from_safetensors(tmp_path):
    from safetensors.torch import save_file

    donor, network = build_network("cnn", 4, 1, 8, seed=1), build_network("cnn", 4, 1, 8, seed=2)
    save_file(donor.state_dict(), tmp_path / "weights.safetensors")
    load_weights(network, tmp_path / "weights.safetensors")
    assert torch.equal(network.classifier.weight, donor.classifier.weight)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("linear.bias"), "it has no 'linear.bias'"),
        (lambda state: state.update(extra=torch.zeros(2)), "also holds 'extra'"),
        (
            lambda state: state.update({"linear.bias": torch.zeros(9)}),
            "'linear.bias' has the shape (9,), not (4,)",
        ),
        (lambda state: state.update({"linear.bias": torch.full((4,), torch.nan)}), "not finite"),
    ],
)
def test_weights_that_do_not_fit(tmp_path, change, words):
    network = build_network("resnet", 4, 1, 8)
    state = network.state_dict()
    change(state)
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(InputError) as caught:
        load_weights(build_network("resnet", 4, 1, 8), tmp_path / "weights.pth")
    assert words in str(caught.value)
    assert "--backbone-arg" not in str(caught.value)


UNFIT = """
import sys
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, ending):
        super().__init__()
        self.conv, self.ending = nn.Conv2d(1, 3, 3), ending
    def forward(self, images):
        return self.ending(self.conv(images).mean((2, 3)))

def two_images_only(): return Net(lambda logits: logits + torch.zeros(2, 3))
def leaves(): return Net(lambda logits: sys.exit(3))
def lazy(): return nn.Sequential(nn.LazyConv2d(3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
def compiled(): return torch.jit.script(nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("two_images_only", "for 1 image"),
        ("leaves", "does not take images"),
        ("lazy", "lazy layers"),
        ("compiled", "compiled by torch.jit"),
    ],
)
def test_own_modules_that_nothing_can_be_done_with(tmp_path, function, words):
    path = tmp_path / "unfit.py"
    path.write_text(UNFIT, encoding="utf-8")
    with pytest.raises(InputError, match=words):
        build_network(f"{path}:{function}", 3, 1, 6)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_are_not_waited_for(tmp_path):
    for name in ("weights.pth", "weights.safetensors"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(InputError, match="no regular file"):
            load_weights(build_network("cnn", 3, 1, 8), tmp_path / name)
    with pytest.raises(InputError, match="not a regular file"):
        load_network(tmp_path / "weights.safetensors")
