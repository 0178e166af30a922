"""Training of networks side by side, batch-norm statistics and predictions."""

from __future__ import annotations

import copy
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from moevoprune.errors import InputError
from moevoprune.filters import training
from moevoprune.filters.networks import SmallCNN, SmallResNet
from moevoprune.filters.training import TuningSettings, predict, recalibrate, tune


@pytest.fixture
def images():
    return torch.randn(37, 2, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels():
    return torch.arange(37) % 3


def _build(kind, seed, *arguments, **settings):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(*arguments, **settings)


def _cnn(seed=0):
    return _build(SmallCNN, seed, 3, 2, (4, 6))


def _dropout_layers():
    return nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(6 * 36, 3))


def _with_dropout():
    return _build(_dropout_layers, 4)


def _assert_same(one, other):
    assert one.state_dict().keys() == other.state_dict().keys()
    for key, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


# --- training --------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_one_network_is_trained_as_by_hand(images, labels, schedule):
    """In float64, against a loop with the update rules written out."""
    network, by_hand = _cnn().double(), _cnn().double()
    images = images.double()
    settings = TuningSettings(
        epochs=2, learning_rate=0.05, weight_decay=0.01, batch_size=10, schedule=schedule, label_smoothing=0.1
    )
    assert tune([network], images, labels, settings, seed=5) == ()

    order = torch.Generator().manual_seed(5)
    parameters = list(by_hand.parameters())
    speeds = [torch.zeros_like(parameter) for parameter in parameters]
    # 37 images are three steps of 13, 12 and 12
    for step, rows in enumerate(r for _ in range(2) for r in torch.randperm(37, generator=order).tensor_split(3)):
        assert len(rows) in (12, 13)
        log_softmax = functional.log_softmax(by_hand(images[rows]), dim=1)
        wanted = functional.one_hot(labels[rows], 3) * 0.9 + 0.1 / 3
        gradients = torch.autograd.grad(-(wanted * log_softmax).sum(dim=1).mean(), parameters)
        rate = 0.05 * (0.5 * (1 + math.cos(math.pi * step / 6)) if schedule == "cosine" else 1)
        with torch.no_grad():
            for number, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
                gradient = gradient + 0.01 * parameter
                # torch starts the momentum with the first gradient, as from zero
                speeds[number] = 0.9 * speeds[number] + gradient
                parameter -= rate * (gradient + 0.9 * speeds[number])
    for key, value in by_hand.state_dict().items():
        torch.testing.assert_close(network.state_dict()[key], value, rtol=1e-7, atol=1e-9)


def test_networks_do_not_depend_on_companions_or_threads(images, labels):
    settings = TuningSettings(epochs=2, learning_rate=0.05, batch_size=12, augment="flip")
    makers = [_cnn, _with_dropout, lambda: _build(SmallResNet, 1, 3, 2, (4, 5), (1, 1)), lambda: _cnn(1)]
    alone = [maker() for maker in makers]
    for network in alone:
        tune([network], images, labels, settings, seed=3)

    together = [maker() for maker in makers]
    tune(together, images, labels, settings, seed=3)
    in_threads = [*(maker() for maker in makers), _with_dropout()]
    groups = [in_threads[:2], in_threads[2:4], in_threads[4:]]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda group: tune(group, images, labels, settings, seed=3), groups))
    for position, network in enumerate(alone):
        _assert_same(together[position], network)
        _assert_same(in_threads[position], network)
    _assert_same(in_threads[4], alone[1])

    other = _with_dropout()
    tune([other], images, labels, settings, seed=4)
    assert not torch.equal(other[0].weight, alone[1][0].weight)


def test_what_is_not_the_networks_stays_as_it_was(images, labels):
    network = _with_dropout()
    network[2].eval()
    before = (torch.get_rng_state(), torch.get_num_threads(), torch.is_grad_enabled(), images.clone())
    tune([network], images, labels, TuningSettings(epochs=1), seed=0)
    predict(network, images)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.get_num_threads(), torch.is_grad_enabled()) == before[1:3]
    assert torch.equal(images, before[3])
    assert [module.training for module in network] == [True, True, False, True, True]
    assert not any(parameter.is_inference() for parameter in network.parameters())


def test_a_network_that_diverges_is_left_alone(images, labels):
    settings = TuningSettings(epochs=2, learning_rate=0.05, batch_size=12)
    lost, fine, alone = _with_dropout(), _cnn(), _cnn()
    with torch.no_grad():
        lost[0].weight.fill_(1e38)
    before = copy.deepcopy(lost)
    steps = []
    assert tune([lost, fine], images, labels, settings, 0, after_step=steps.append) == (0,)
    tune([alone], images, labels, settings, 0)
    _assert_same(fine, alone)
    _assert_same(lost, before)
    assert steps == [1] * 6


def test_after_step_keeps_gates_shut(images, labels):
    network = _cnn()

    def shut(position):
        with torch.no_grad():
            network.features[3].weight[:, 1] = 0

    shut(0)
    start = network.features[3].weight.clone()
    tune([network], images, labels, TuningSettings(epochs=1), 0, after_step=shut)
    assert not network.features[3].weight[:, 1].any()
    assert not torch.equal(network.features[3].weight, start)


def test_frozen_parameters_stay(images, labels):
    network = _cnn()
    network.features.requires_grad_(False)
    start = network.features[0].weight.clone()
    tune([network], images, labels, TuningSettings(epochs=1), 0)
    assert torch.equal(network.features[0].weight, start)
    with pytest.raises(InputError, match="no parameter"):
        tune([network.requires_grad_(False)], images, labels, TuningSettings(epochs=1), 0)
    with pytest.raises(InputError, match="at least two"):
        tune([_cnn()], images[:1], labels[:1], TuningSettings(), 0)


def test_no_epochs_change_nothing(images, labels):
    network = _cnn()
    assert tune([network], images, labels, TuningSettings(epochs=0), 0) == ()
    _assert_same(network, _cnn())


def test_teacher_enters_the_loss():
    generator = np.random.default_rng(2)
    logits, taught = generator.normal(size=(2, 5, 4))
    targets = np.array([0, 3, 1, 1, 2])

    def softmax(values):
        return np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)

    cross_entropy = -np.log(softmax(logits)[np.arange(5), targets]).mean()
    soft, hard = softmax(taught / 4), softmax(logits / 4)
    divergence = (soft * np.log(soft / hard)).sum(axis=1).mean()
    loss = training._loss(*map(torch.from_numpy, (logits, targets, taught)), TuningSettings())
    assert float(loss) == pytest.approx((cross_entropy + 16 * divergence) / 2, rel=1e-12)


def test_teacher_says_something_of_each_image(images, labels):
    """A teacher who says the opposite of the labels, and says it loudly, wins."""
    network = _cnn()
    taught = 50.0 * functional.one_hot((labels + 1) % 3, 3).float()
    settings = TuningSettings(epochs=60, learning_rate=0.02, batch_size=12)
    tune([network], images, labels, settings, 0, teacher_logits=taught)
    assert float((predict(network, images).argmax(1) == (labels + 1) % 3).float().mean()) > 0.9


# --- batches ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("flips", [False, True])
def test_augmented_images_are_moved_and_mirrored(flips):
    batch = torch.rand(300, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    fill = torch.tensor([-1.0, -2.0])
    moved = training._augmented(batch, fill, flips, torch.Generator().manual_seed(2))
    seen = set()
    for image, result in zip(batch.numpy(), moved.numpy(), strict=True):
        padded = np.stack([np.pad(c, 1, constant_values=v) for c, v in zip(image, (-1, -2), strict=True)])
        windows = {(y, x): padded[:, y : y + 8, x : x + 8] for y in range(3) for x in range(3)}
        matches = {(y, x, False) for (y, x), w in windows.items() if np.array_equal(w, result)}
        matches |= {(y, x, True) for (y, x), w in windows.items() if np.array_equal(w[:, :, ::-1], result)}
        assert len(matches) == 1
        seen |= matches
    assert len(seen) == (18 if flips else 9)


# --- batch norm ------------------------------------------------------------------------------------


def test_statistics_are_averages_over_batches(images):
    """Against numpy in float64: batch norm, a 1x1 convolution, ReLU, batch norm."""
    network = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Dropout(0.9), nn.BatchNorm2d(4))
    network[0].momentum = 0.3
    with torch.no_grad():
        network[0].running_mean.fill_(7.0)
        network[0].num_batches_tracked.fill_(11)
    network[3].eval()
    before = copy.deepcopy(network)
    recalibrate([network, _with_dropout()], images, batch_size=9)

    weight = network[1].weight.detach().double().numpy()[:, :, 0, 0]
    bias = network[1].bias.detach().double().numpy()
    statistics = []
    for batch in np.array_split(images.double().numpy(), 37 // 9):
        means, variances = batch.mean((0, 2, 3)), batch.var((0, 2, 3))
        normed = (batch - means[:, None, None]) / np.sqrt(variances + 1e-5)[:, None, None]
        inner = np.maximum(np.einsum("oc,nchw->nohw", weight, normed) + bias[:, None, None], 0)
        statistics.append(
            (means, batch.var((0, 2, 3), ddof=1), inner.mean((0, 2, 3)), inner.var((0, 2, 3), ddof=1))
        )
    expected = [np.mean(values, axis=0) for values in zip(*statistics, strict=True)]
    found = [value for norm in (network[0], network[4]) for value in (norm.running_mean, norm.running_var)]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=1e-5, atol=1e-6)

    # everything else is as before
    assert network[0].momentum == 0.3
    assert [module.training for module in network] == [True, True, True, False, True]
    for key, value in before.state_dict().items():
        if "running" not in key:
            assert torch.equal(network.state_dict()[key], value), key


def test_networks_without_batch_norm_are_left_alone(images):
    network = _with_dropout()
    recalibrate([network], images)
    _assert_same(network, _with_dropout())
    with pytest.raises(InputError, match="at least two"):
        recalibrate([network], images[:1])


# --- predictions -----------------------------------------------------------------------------------


def test_predictions_are_those_of_evaluation_mode(images):
    network = _cnn()
    recalibrate([network], images)
    found = predict(network, images, batch_size=10)
    assert network.training
    assert not found.requires_grad
    torch.testing.assert_close(found, network.eval()(images).detach(), rtol=1e-5, atol=1e-5)


# --- settings --------------------------------------------------------------------------------------


def test_settings_are_checked():
    assert TuningSettings.preset("paper").epochs == 3
    assert TuningSettings.preset("scratch", epochs=1).epochs == 1
    for changes, words in (({"batch_size": 1}, "batch_size"), ({"epoch": 3}, "did you mean 'epochs'")):
        with pytest.raises(InputError, match=words):
            TuningSettings.preset("tune", **changes)
    with pytest.raises(InputError, match="did you mean 'scratch'"):
        TuningSettings.preset("scrach")
