"""Fitness of masks against loops by hand, and its independence of companions and threads."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

from moevoprune.errors import InputError
from moevoprune.filters.cutting import cut
from moevoprune.filters.fitness import ImageParts
from moevoprune.filters.images import LabelledImages, Normalisation, to_tensor
from moevoprune.filters.networks import CifarResNet, SmallCNN
from moevoprune.filters.problem import FilterPruningProblem
from moevoprune.filters.training import TuningSettings, predict, recalibrate, tune

BRIEFLY = TuningSettings(epochs=2, batch_size=12, learning_rate=0.05)


@pytest.fixture
def network(seeded, randomised):
    return randomised(seeded(lambda: SmallCNN(3, 1, (3, 4))))


def _logits(candidate):
    """An objective that sees single bits of the outputs."""
    return float(candidate.folds[0].outputs.double().square().sum())


def test_parts_do_not_overlap_and_hold_each_class(noise_images):
    parts = ImageParts.split(noise_images, Normalisation.of(noise_images), 0.2, 3, torch.device("cpu"))
    expected = train_test_split(np.arange(60), test_size=0.2, stratify=noise_images.y_train, random_state=3)
    assert [rows.tolist() for rows in (parts.training, parts.validation)] == [rows.tolist() for rows in expected]
    assert torch.bincount(parts.labels[parts.validation]).tolist() == [4, 4, 4]
    assert torch.equal(parts.images, to_tensor(noise_images.X_train, Normalisation.of(noise_images)))


def test_too_few_images_to_split():
    pixels = np.zeros((5, 4, 4, 1), np.uint8)
    images = LabelledImages("few", pixels, np.array([0, 0, 0, 0, 1]), pixels[:2], np.array([0, 1]))
    with pytest.raises(InputError, match="few: class '1' has one training image"):
        ImageParts.split(images, Normalisation((0.0,), (1.0,)), 0.2, 0, torch.device("cpu"))


def test_values_without_training_are_those_of_the_cut_network(network, noise_images, random_masks):
    """Cut, statistics taken anew by hand (one batch: its mean and unbiased variance), wrong answers counted."""
    problem = FilterPruningProblem(network, noise_images, n_recalibration=40, seed=1)
    masks = random_masks(problem.graph, 4)
    images = to_tensor(noise_images.X_train, Normalisation.of(noise_images))
    training, validation = train_test_split(
        np.arange(60), test_size=0.2, stratify=noise_images.y_train, random_state=1
    )
    for mask, (error, flops) in zip(masks, problem.values(masks), strict=True):
        smaller = cut(problem.graph, network, mask)
        for module in smaller.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
                module.train()
        with torch.no_grad():
            smaller(images[training[:40]])
            answers = smaller.eval()(images[validation]).argmax(dim=1).numpy()
        assert error == pytest.approx(np.mean(answers != noise_images.y_train[validation]))
        assert flops == problem.costs(mask[None])[0, 0] / problem.costs.flops


@pytest.mark.parametrize("distil", [False, True])
def test_training_with_gates_is_that_of_the_cut_network(network, noise_images, random_masks, distil):
    seen = []

    def watched(candidate):
        seen.append(candidate.folds[0].outputs)
        return 0.0

    problem = FilterPruningProblem(
        network, noise_images, [watched, "flops"], BRIEFLY, n_tuning=36, distil=distil, seed=2
    )
    masks = random_masks(problem.graph, 5)
    problem.values(masks)
    parts = problem.fitness.parts
    rows = parts.training[:36]
    lessons = parts.images[rows]
    for mask, outputs in zip(masks, seen, strict=True):
        smaller = cut(problem.graph, network, mask)
        taught = predict(network, lessons) if distil else None
        tune([smaller], lessons, parts.labels[rows], BRIEFLY, 2, teacher_logits=taught)
        recalibrate([smaller], parts.images[parts.training])
        expected = predict(smaller, parts.images[parts.validation])
        assert float((outputs - expected).abs().max()) <= 1e-4 * float(expected.abs().max())
        assert float((outputs - predict(network, parts.images[parts.validation])).abs().max()) > 0.1


@pytest.mark.parametrize("tuning", [None, BRIEFLY])
def test_values_depend_on_neither_companions_nor_threads(network, noise_images, random_masks, tuning):
    def problem(jobs=1):
        return FilterPruningProblem(network, noise_images, [_logits, "error", "flops"], tuning, jobs=jobs)

    masks = random_masks(problem().graph, 7)
    together = problem().values(masks)
    assert np.array_equal(problem(jobs=3).values(masks), together)
    assert np.array_equal(problem().values(masks[::-1])[::-1], together)
    alone = problem()
    assert np.array_equal(np.concatenate([alone.values(mask[None]) for mask in masks]), together)
    assert len(np.unique(together[:, 0])) == len(masks)


def test_a_trained_network_is_recognised(network, noise_images):
    """The whole mask scores what the network itself does; noise scores worse."""
    images = to_tensor(noise_images.X_train, Normalisation.of(noise_images))
    enough = TuningSettings(epochs=20, batch_size=12, learning_rate=0.05)
    tune([network], images, torch.from_numpy(noise_images.y_train.copy()), enough, 0)
    problem = FilterPruningProblem(network, noise_images, ["accuracy"])
    whole = problem.values(np.ones((1, problem.n_var), np.bool_))[0, 0]
    assert whole > 0.8
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
    assert FilterPruningProblem(network, noise_images, ["accuracy"]).values(np.ones((1, problem.n_var), np.bool_))[
        0, 0
    ] == pytest.approx(1 / 3)


@pytest.mark.parametrize("kind", ["plain", "padded shortcuts"])
@pytest.mark.parametrize("tuning", [None, TuningSettings(epochs=1, batch_size=24)])
def test_functions_of_ones_own_get_the_cut_network(kind, tuning, network, seeded, noise_images, random_masks):
    network = network if kind == "plain" else seeded(lambda: CifarResNet(8, 3, 1)).eval()
    differences = []

    def latency_of_ones_own(candidate):
        smaller = candidate.network()
        found = predict(smaller, problem.fitness.parts.images[problem.fitness.parts.validation])
        differences.append(float((found - candidate.folds[0].outputs).abs().max() / found.abs().max()))
        assert sum(parameter.numel() for parameter in smaller.parameters()) == round(
            candidate.parameters * problem.costs.parameters
        )
        return float(candidate.active)

    problem = FilterPruningProblem(network, noise_images, [latency_of_ones_own, "flops"], tuning)
    masks = random_masks(problem.graph, 2)
    assert problem.values(masks)[:, 0].tolist() == masks.sum(axis=1).tolist()
    assert max(differences) <= 1e-4


@pytest.mark.parametrize("jobs", [1, 2])
def test_latency_is_measured(network, noise_images, random_masks, jobs):
    problem = FilterPruningProblem(network, noise_images, ["error", "latency"], jobs=jobs)
    masks = random_masks(problem.graph, 3)
    values = problem.values(masks)
    assert (values[:, 1] > 0).all()
    assert np.array_equal(problem.values(masks), values)


def test_the_network_is_left_alone(network, noise_images, random_masks):
    before = copy.deepcopy(network.state_dict())
    problem = FilterPruningProblem(network, noise_images, ["error", "cka:dense"], BRIEFLY, distil=True)
    inside = copy.deepcopy(problem.fitness.network.state_dict())
    problem.values(random_masks(problem.graph, 2))
    for known, model in ((before, network), (inside, problem.fitness.network)):
        assert all(torch.equal(known[name], tensor) for name, tensor in model.state_dict().items())


def test_the_whole_network_represents_as_itself(network, noise_images):
    images = to_tensor(noise_images.X_train, Normalisation.of(noise_images))
    problem = FilterPruningProblem(network, noise_images, ["cka:dense"], n_recalibration=48)
    # the statistics that every candidate takes anew
    recalibrate([network], images[problem.fitness.parts.training])
    again = FilterPruningProblem(network, noise_images, ["cka:dense"], n_recalibration=48)
    assert again.values(np.ones((1, problem.n_var), np.bool_))[0, 0] == pytest.approx(1, abs=1e-5)


def test_candidates_that_diverge_score_worst_and_are_counted(network, noise_images, random_masks):
    wild = TuningSettings(epochs=3, learning_rate=1e30, batch_size=12)
    problem = FilterPruningProblem(network, noise_images, ["error", "flops"], wild)
    assert problem.values(random_masks(problem.graph, 2)).tolist() == [[1.0, 1.0]] * 2
    assert problem.n_diverged == 2


def test_outputs_have_to_fit_the_classes(noise_images):
    with pytest.raises(InputError, match=r"outputs of shape \(4,\), but noise has 3 classes"):
        FilterPruningProblem(SmallCNN(4, 1, (3,)), noise_images)


def test_the_network_has_to_fit_the_images(noise_images):
    with pytest.raises(
        InputError, match=r"module 'features\.0' \(Conv2d\) fails on an input of shape \(1, 1, 8, 8\)"
    ):
        FilterPruningProblem(SmallCNN(3, 3, (3,)), noise_images)


def test_training_is_that_of_a_plain_loop(network, noise_images):
    """Short training with the whole mask, against a plain loop with torch's own optimiser."""
    seen = []
    steady = TuningSettings(epochs=1, batch_size=48, learning_rate=0.1, schedule="constant", weight_decay=0.0)
    problem = FilterPruningProblem(
        network, noise_images, [lambda c: seen.append(c.folds[0].outputs) or 0.0], steady, n_recalibration=48
    )
    problem.values(np.ones((1, problem.n_var), np.bool_))
    parts = problem.fitness.parts
    images, labels = parts.images[parts.training], parts.labels[parts.training]
    network.train()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    functional.cross_entropy(network(images), labels).backward()
    optimiser.step()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network(images)
        expected = network.eval()(parts.images[parts.validation])
    assert float((seen[0] - expected).abs().max()) <= 1e-4 * float(expected.abs().max())
