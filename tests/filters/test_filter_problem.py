"""Filter pruning as a problem that every search takes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.operators.crossover.ux import UniformCrossover
from pymoo.operators.mutation.bitflip import BitflipMutation
from pymoo.operators.sampling.rnd import BinaryRandomSampling
from pymoo.optimize import minimize
from torch import nn

from moevoprune.errors import InputError
from moevoprune.filters.images import LabelledImages, Normalisation
from moevoprune.filters.networks import SmallCNN
from moevoprune.filters.problem import FilterPruningProblem
from moevoprune.filters.training import TuningSettings
from moevoprune.search.loop import run_search

ALGORITHMS = ("guided", "nsga2", "deep_pruning_es")


@pytest.fixture(scope="module")
def network(seeded, randomised):
    return randomised(seeded(lambda: SmallCNN(3, 1, (3, 4))))


@pytest.fixture
def problem(network, noise_images):
    return FilterPruningProblem(network, noise_images)


@pytest.fixture(scope="module")
def shared_problem(network, noise_images):
    return FilterPruningProblem(network, noise_images)


def test_it_is_an_ordinary_pymoo_problem(problem):
    assert (problem.n_var, problem.n_obj, problem.vtype) == (14, 2, bool)
    assert [objective.name for objective in problem.objectives] == ["error", "flops"]
    out = problem.evaluate(np.ones((2, 14), np.bool_), return_as_dictionary=True)
    assert out["F"].shape == (2, 2)
    assert out["F"][:, 1].tolist() == [1.0, 1.0]
    assert (out["G"] <= 0).all()
    assert problem.n_trained == 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=14, max_size=14))
def test_repair_gives_emptied_layers_their_strongest_filter(shared_problem, bits):
    problem, mask = shared_problem, np.array([bits], np.bool_)
    repaired = problem.repair(mask)
    problem.graph.check_masks(repaired)
    assert np.array_equal(problem.repair(repaired), repaired)
    weights = dict(problem.fitness.network.named_modules())
    for layer in problem.graph.layers:
        if mask[0, layer.bits].any():
            assert np.array_equal(repaired[0, layer.bits], mask[0, layer.bits])
        else:
            assert repaired[0, layer.bits].sum() == 1
            number = int(np.argmax(repaired[0, layer.bits]))
            readers = [site for site in layer.sites if site.side == "in"]
            own = weights[layer.name].weight.detach().abs().sum(dim=(1, 2, 3))
            read = sum(_read(weights[site.module].weight.detach()) for site in readers)
            norm = weights[_norm_behind(layer.name)].weight.detach().abs()
            assert number == int(torch.argmax(own + read + norm))


def _read(weight):
    return weight.abs().transpose(0, 1).flatten(1).sum(dim=1)


def _norm_behind(name):
    head, _, number = name.rpartition(".")
    return f"{head}.{int(number) + 1}"


def test_repaired_masks_share_values(problem):
    empty = np.zeros((1, problem.n_var), np.bool_)
    assert np.array_equal(problem.values(empty), problem.values(problem.repair(empty)))
    assert problem.n_trained == 1


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_search_runs_and_repeats(algorithm, network, noise_images):
    results = [
        run_search(FilterPruningProblem(network, noise_images), algorithm=algorithm, pop_size=6, n_gen=3, seed=4)
        for _ in range(2)
    ]
    assert np.array_equal(results[0].masks, results[1].masks)
    assert np.array_equal(results[0].losses, results[1].losses)
    problem = FilterPruningProblem(network, noise_images)
    assert np.array_equal(problem.values(results[0].masks), results[0].values)
    problem.graph.check_masks(results[0].masks)
    losses = results[0].losses
    worse = (losses[:, None] <= losses[None]).all(axis=2) & (losses[:, None] < losses[None]).any(axis=2)
    assert not worse.any()


def test_plain_pymoo_takes_it(problem):
    algorithm = NSGA2(6, BinaryRandomSampling(), crossover=UniformCrossover(), mutation=BitflipMutation())
    result = minimize(problem, algorithm, ("n_gen", 3), seed=1, save_history=True)
    assert len(result.F) > 0
    assert np.allclose(problem.losses(problem.values(result.X)), result.F)


def test_copies_share_the_memory(problem):
    assert copy.deepcopy(problem) is problem


@pytest.mark.parametrize("algorithm", ["guided", "deep_pruning_es"])
def test_a_journal_is_resumed_to_the_same_result(algorithm, network, noise_images, tmp_path):
    def run(path, **given):
        problem = FilterPruningProblem(network, noise_images)
        found = run_search(problem, algorithm=algorithm, pop_size=6, n_gen=3, seed=1, journal=path, **given)
        return problem, found

    whole, expected = run(tmp_path / "whole")
    # a process that was killed leaves the beginning of a journal
    rows = (tmp_path / "whole").read_bytes().splitlines(keepends=True)
    (tmp_path / "part").write_bytes(b"".join(rows[: len(rows) // 2]))
    resumed, found = run(tmp_path / "part", resume=True)
    assert 0 < resumed.n_trained < whole.n_trained
    assert np.array_equal(found.masks, expected.masks)
    assert np.array_equal(found.values, expected.values)
    assert (tmp_path / "part").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_journal_of_other_settings_is_refused(network, noise_images, tmp_path):
    def run(seed, **given):
        problem = FilterPruningProblem(network, noise_images, seed=seed)
        return run_search(problem, algorithm="nsga2", pop_size=4, n_gen=1, journal=tmp_path / "one", **given)

    run(0)
    with pytest.raises(InputError, match="seed"):
        run(1, resume=True)


@pytest.mark.parametrize("n_seeds", [0, 1, 7])
def test_guidance_starts_from_what_matters(n_seeds, shared_problem):
    problem = shared_problem
    guidance = problem.guidance(n_seeds)
    assert guidance.scores.shape == (problem.n_var,)
    assert guidance.seeds.shape[1] == problem.n_var
    assert len(guidance.seeds) <= n_seeds
    assert guidance.seeds.dtype == np.bool_
    problem.graph.check_masks(guidance.seeds)
    assert len(np.unique(guidance.seeds, axis=0)) == len(guidance.seeds)
    if n_seeds == 7:
        shares = problem.costs(guidance.seeds)[:, 0] / problem.costs.flops
        assert shares.max() == 1
        assert shares.min() < 0.4
    # the strongest of each layer goes last of all
    assert (guidance.scores == guidance.scores.max()).sum() == len(problem.graph.layers)


OTHERS = {
    "tuning": {"tuning": TuningSettings(epochs=1)},
    "tuning.learning_rate": {"tuning": TuningSettings(epochs=0, learning_rate=0.5)},
    "n_tuning": {"n_tuning": 20},
    "distil": {"distil": True},
    "normalisation": {"normalisation": Normalisation((0.5,), (0.5,))},
    "validation_share": {"validation_share": 0.3},
    "n_recalibration": {"n_recalibration": 20},
    "seed": {"seed": 1},
    "keep": {"keep": ["features.0"]},
}


@pytest.mark.parametrize("setting", OTHERS)
def test_identity_changes_with_every_setting(setting, network, noise_images, problem):
    other = FilterPruningProblem(network, noise_images, **OTHERS[setting])
    assert other.identity() != problem.identity()
    again = FilterPruningProblem(copy.deepcopy(network), noise_images, **OTHERS[setting], jobs=2)
    assert again.identity() == other.identity()


def _with_weight(network):
    network.features[0].weight.data[0, 0, 0, 0] += 1e-3


def _with_statistics(network):
    network.features[1].running_mean[0] += 1e-3


def _with_activation(network):
    network.features[2] = nn.SiLU()


@pytest.mark.parametrize("change", [_with_weight, _with_statistics, _with_activation])
def test_identity_changes_with_the_network(change, network, noise_images, problem):
    other = copy.deepcopy(network)
    change(other)
    assert FilterPruningProblem(other, noise_images).identity() != problem.identity()


class _Scaled(nn.Module):
    """A network with a parameter without dimensions."""

    def __init__(self, network, scale):
        super().__init__()
        self.network = network
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, images):
        return self.network(images * self.scale)


def test_identity_knows_single_numbers(network, noise_images):
    one, other = (FilterPruningProblem(_Scaled(network, scale), noise_images) for scale in (1.0, 3.0))
    assert one.identity() != other.identity()


def test_identity_changes_with_the_images(network, noise_images, problem):
    pixels = noise_images.X_train.copy()
    pixels[0, 0, 0, 0] = 0.5
    other = LabelledImages("noise", pixels, noise_images.y_train, noise_images.X_test, noise_images.y_test)
    assert FilterPruningProblem(network, other).identity() != problem.identity()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"objectives": ["size"]}, "objectives: unknown name 'size'"),
        ({"validation_share": 1.0}, "validation_share = 1.0: use a share between 0 and 1"),
        ({"n_recalibration": 1}, "n_recalibration"),
        ({"n_tuning": 1}, "n_tuning"),
        ({"seed": -1}, "seed"),
        ({"jobs": 0}, "jobs"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"keep": ["nothing"]}, "keep names no module of this network: 'nothing'"),
        ({"data": "no/such.npz"}, "no/such.npz"),
        ({"network": "resnet20"}, "network is a str: give a torch.nn.Module"),
    ],
)
def test_bad_settings(given, message, network, noise_images):
    with pytest.raises(InputError, match=message):
        FilterPruningProblem(**{"network": network, "data": noise_images, **given})
