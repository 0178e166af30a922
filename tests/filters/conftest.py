"""Small networks and images that several tests of filter pruning share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from moevoprune.filters.images import LabelledImages
from moevoprune.filters.networks import SmallResNet


class _Wired(nn.Module):
    """Modules by name, and a function of them and the images."""

    def __init__(self, wiring, **modules):
        super().__init__()
        self.wiring = wiring
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, images):
        return self.wiring(self, images)


@pytest.fixture(scope="session")
def wired():
    return _Wired


@pytest.fixture(scope="session")
def seeded():
    """Call something that draws from torch's global generator, and leave that as it was."""

    def call(make, seed=0):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return make()

    return call


@pytest.fixture(scope="session")
def randomised():
    """Give a network statistics and scales that a trained one could have, in evaluation mode."""

    def randomise(network, seed=0):
        generator = torch.Generator().manual_seed(seed)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                for tensor in (module.weight.data, module.running_var):
                    tensor.uniform_(0.5, 1.5, generator=generator)
                for tensor in (module.bias.data, module.running_mean):
                    tensor.normal_(generator=generator)
        return network.eval()

    return randomise


@pytest.fixture(scope="session")
def random_masks():
    """Masks of random densities that empty no layer."""

    def draw(graph, count, seed=0):
        rng = np.random.default_rng(seed)
        masks = rng.random((count, graph.n_bits)) < rng.uniform(0.1, 0.9, (count, 1))
        for layer in graph.layers:
            masks[:, rng.integers(layer.bits.start, layer.bits.stop)] = True
        return masks

    return draw


@pytest.fixture(scope="session")
def random_images():
    """Images with noise, as a network takes them."""

    def draw(*shape, seed=0):
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    return draw


@pytest.fixture(scope="session")
def noise_images():
    """Three classes of 8x8 images that differ in their mean: 60 to train, 9 to test."""
    rng = np.random.default_rng(0)
    labels = np.arange(69) % 3
    pixels = rng.random((69, 8, 8, 1), np.float32) * 0.7 + labels[:, None, None, None].astype(np.float32) * 0.1
    return LabelledImages("noise", pixels[:60], labels[:60], pixels[60:], labels[60:])


@pytest.fixture
def small_resnet(seeded, randomised):
    """24 bits: 4 + 6 filters inside of blocks, 4 + 6 on shortcuts."""
    return randomised(seeded(lambda: SmallResNet(3, 1, (4, 6), (1, 1))))
