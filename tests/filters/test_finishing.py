"""Finished networks against training, counting and scoring done by hand."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
import torch_pruning as tp
from safetensors.torch import save_file
from sklearn.metrics import accuracy_score

from moevoprune.errors import InputError
from moevoprune.filters import finishing
from moevoprune.filters.baselines import METHODS, magnitude_baseline
from moevoprune.filters.cutting import cut, trial_mask
from moevoprune.filters.finishing import finish
from moevoprune.filters.images import LabelledImages, load_images, to_tensor
from moevoprune.filters.networks import SmallCNN
from moevoprune.filters.problem import FilterPruningProblem
from moevoprune.filters.training import TuningSettings, predict, recalibrate, tune

SETTINGS = TuningSettings(epochs=2, learning_rate=0.05, batch_size=25)


@pytest.fixture(scope="module")
def images() -> LabelledImages:
    digits = load_images("digits")
    return LabelledImages(
        "some digits", digits.X_train[:300], digits.y_train[:300], digits.X_test[:150], digits.y_test[:150]
    )


@pytest.fixture(scope="module")
def problem(images) -> FilterPruningProblem:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SmallCNN(channels=(8, 12))
    whole = FilterPruningProblem(network, images, n_recalibration=100)
    longer = TuningSettings(epochs=8, learning_rate=0.1, batch_size=25)
    tune([whole.fitness.network], whole.fitness.parts.images, whole.fitness.parts.labels, longer, seed=5)
    return FilterPruningProblem(whole.fitness.network, images, n_recalibration=100)


@pytest.fixture(scope="module")
def masks(problem):
    knee, light = trial_mask(problem.graph, 1), trial_mask(problem.graph, 2)
    return {"heavy": knee, "knee": knee, "light": light}


@pytest.fixture(scope="module")
def finished(problem, masks):
    return finish(problem, masks, SETTINGS, tuple(METHODS))


def _state(network):
    return {key: value.clone() for key, value in network.state_dict().items()}


def _same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_roles(finished):
    roles = ["original", "original, tuned", "heavy", "knee", "light", "uniform L1", "global magnitude"]
    assert [one.role for one in finished] == roles


def test_all_are_tuned_alike(problem, masks, finished):
    """Each against cutting, recalibration and tuning by hand, alone."""
    fitness = problem.fitness
    flops = tp.utils.count_ops_and_params(
        cut(problem.graph, fitness.network, masks["knee"]), problem.graph.example
    )
    expected = {
        "original, tuned": copy.deepcopy(fitness.network),
        **{role: cut(problem.graph, fitness.network, mask) for role, mask in masks.items()},
        **{
            method.role: magnitude_baseline(problem.graph, fitness.network, name, flops[0])
            for name, method in METHODS.items()
        },
    }
    for one in finished[1:]:
        network = expected[one.role]
        recalibrate([network], fitness.parts.images[fitness.parts.training[:100]])
        before = predict(network, to_tensor(problem.images.X_test, problem.normalisation)).argmax(dim=1)
        tune([network], fitness.parts.images, fitness.parts.labels, SETTINGS, seed=0)
        assert _same(_state(one.network), _state(network)), one.role
        assert one.test_error_before == pytest.approx(1 - accuracy_score(problem.images.y_test, before.numpy()))
    assert _same(_state(finished[0].network), _state(fitness.network))


def test_one_mask_is_tuned_once_and_listed_under_each_role(finished):
    heavy, knee, light = finished[2:5]
    assert heavy.network is knee.network
    assert (heavy.role, heavy.test_error, heavy.latency) == ("heavy", knee.test_error, knee.latency)
    assert light.network is not knee.network


def test_measures(problem, masks, finished, tmp_path):
    for one in finished:
        flops, parameters = tp.utils.count_ops_and_params(one.network, problem.graph.example)
        assert (one.flops, one.parameters) == (flops, parameters)
        save_file(one.network.state_dict(), tmp_path / "weights.safetensors")
        assert one.bytes == (tmp_path / "weights.safetensors").stat().st_size
        answers = one.network(to_tensor(problem.images.X_test, problem.normalisation)).argmax(dim=1).numpy()
        assert one.test_error == pytest.approx(1 - accuracy_score(problem.images.y_test, answers))
        assert not any(module.training for module in one.network.modules())
        assert one.latency > 0
        assert one.latency_batch > 0
        assert problem.costs(one.mask[None]).tolist() == [[flops, parameters]]
    assert finished[0].test_error == finished[0].test_error_before
    # tuning took them somewhere
    assert finished[3].test_error < finished[3].test_error_before
    knee = finished[3]
    assert all(0.9 * knee.flops < one.flops <= knee.flops for one in finished[5:])
    seen = [one.validation_error for one in finished]
    assert seen[:2] + seen[5:] == [None] * 4
    assert seen[2:5] == [problem.values(mask[None])[0, 0] for mask in masks.values()]


def test_test_images_decide_nothing(problem, images, masks, finished):
    other = dataclasses.replace(images, X_test=1 - images.X_test, y_test=images.y_test[::-1].copy())
    again = finish(
        FilterPruningProblem(problem.fitness.network, other, n_recalibration=100),
        masks,
        SETTINGS,
        tuple(METHODS),
        jobs=2,
    )
    # the number of threads does not matter either
    assert all(_same(_state(a.network), _state(b.network)) for a, b in zip(finished, again, strict=True))
    assert [a.test_error for a in again] != [b.test_error for b in finished]


def test_distillation_teaches_all_the_originals_answers(problem, masks):
    finished = finish(problem, {"knee": masks["knee"]}, SETTINGS, distil=True, seed=3)
    assert [one.role for one in finished] == ["original", "original, tuned", "knee"]
    fitness = problem.fitness
    expected = cut(problem.graph, fitness.network, masks["knee"])
    recalibrate([expected], fitness.recalibration)
    with torch.no_grad():
        teacher = fitness.network(fitness.parts.images)
    tune([expected], fitness.parts.images, fitness.parts.labels, SETTINGS, 3, teacher_logits=teacher)
    for one, other in zip(expected.parameters(), finished[2].network.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_without_tuning_nothing_changes(problem, masks):
    finished = finish(problem, masks, TuningSettings(epochs=0), ["uniform_l1"], 0.4 * problem.costs.flops)
    assert all(one.test_error == one.test_error_before for one in finished)
    # layers have 8 filters: one of them is much
    assert 0.32 < finished[-1].flops / problem.costs.flops <= 0.4


def test_refuses_bad_input(problem, masks):
    knee = masks["knee"]
    empty = knee.copy()
    empty[problem.graph.layers[1].bits] = False
    for bad, settings, message in (
        ({"original": knee}, SETTINGS, "cannot be called 'original'"),
        ({"knee": knee.astype(int)}, SETTINGS, "of bool"),
        ({"knee": knee[:-1]}, SETTINGS, "one bit for each filter"),
        ({"knee": empty}, SETTINGS, "leaves no filter of features.3"),
        ({"knee": knee}, TuningSettings(epochs=1, learning_rate=1e20), "loss of the network 'original, tuned'"),
    ):
        with pytest.raises(InputError, match=message):
            finish(problem, bad, settings)
    with pytest.raises(InputError, match="no mask is called 'knee'"):
        finish(problem, {"light": knee}, SETTINGS, ["uniform_l1"])
    with pytest.raises(InputError, match="unknown baseline"):
        finish(problem, masks, SETTINGS, ["l1"])


def test_baselines_that_do_not_get_to_so_few_flops(problem, masks):
    settings, knee, told = TuningSettings(epochs=0), {"knee": masks["knee"]}, []
    with pytest.raises(InputError, match="uniform_l1 does not get to 10 FLOPs"):
        finish(problem, knee, settings, tuple(METHODS), 10.0)
    finished = finish(problem, knee, settings, tuple(METHODS), 10.0, unreached=told.append)
    assert [one.role for one in finished] == ["original", "original, tuned", "knee"]
    assert [str(error).split()[0] for error in told] == list(METHODS)


def test_surgery_that_differs_from_the_gates_is_refused(problem, masks, monkeypatch):
    def wrong(graph, network, mask):
        smaller = cut(graph, network, mask)
        with torch.no_grad():
            smaller.classifier.bias += 0.01 * (~mask).any()
        return smaller

    monkeypatch.setattr(finishing, "cut", wrong)
    with pytest.raises(InputError, match="the network 'knee', cut, gives outputs that differ by"):
        finish(problem, {"knee": masks["knee"]}, SETTINGS)
    assert np.isfinite(finish(problem, {}, TuningSettings(epochs=0))[0].latency)
