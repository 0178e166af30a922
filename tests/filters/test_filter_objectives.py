"""What can be measured of a network without some filters."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score
from torch import nn

from moevoprune.errors import InputError
from moevoprune.filters.objectives import (
    FILTER_OBJECTIVES,
    FilterCandidate,
    latencies,
    resolve_filter_objectives,
)
from moevoprune.objectives import Candidate, FoldPrediction, Objective


def _candidate(**given):
    generator = torch.Generator().manual_seed(0)
    folds = tuple(
        FoldPrediction(torch.arange(8) % 3, torch.randn(8, 3, generator=generator), torch.zeros(8, 2))
        for _ in range(2)
    )
    return FilterCandidate(folds, 3, 10, **given)


def test_error_is_the_share_of_wrong_answers():
    candidate = _candidate()
    targets = np.concatenate([fold.targets for fold in candidate.folds])
    answers = np.concatenate([fold.outputs.argmax(dim=1) for fold in candidate.folds])
    error = FILTER_OBJECTIVES["error"](candidate)
    assert error == pytest.approx(1 - accuracy_score(targets, answers))
    (accuracy,) = resolve_filter_objectives(["accuracy"])
    assert error == pytest.approx(1 - accuracy(candidate))


def test_shares_are_the_candidates():
    candidate = _candidate(flops=0.25, parameters=0.5)
    assert [FILTER_OBJECTIVES[name](candidate) for name in ("flops", "parameters")] == [0.25, 0.5]


def test_a_candidate_that_diverged_is_the_worst():
    fold = FoldPrediction(torch.zeros(2, dtype=torch.int64), torch.full((2, 3), torch.nan), torch.zeros(2, 1))
    candidate = FilterCandidate((fold,), 1, 2, 0.1, 0.1)
    assert [objective(candidate) for objective in FILTER_OBJECTIVES.values()] == [1.0, 1.0, 1.0, 1.0]


class _Slow(nn.Module):
    def __init__(self, seconds, log):
        super().__init__()
        self.seconds, self.log = seconds, log

    def forward(self, images):
        assert not self.training
        assert not torch.is_grad_enabled()
        self.log.append(self.seconds)
        time.sleep(self.seconds)
        return images


def test_latencies_are_measured_in_turns():
    log = []
    fast, slow = _Slow(0.0, log), _Slow(0.02, log)
    of_fast, of_slow = latencies([fast.train(), slow.eval()], torch.zeros(1, 1), repeats=3)
    assert log == [0.0, 0.02] * 4
    assert 0 < of_fast < of_slow
    assert of_slow >= 0.02
    assert fast.training
    assert not slow.training


def test_latency_is_a_share_of_the_whole_networks():
    log = []
    candidate = _candidate(
        network=lambda: _Slow(0.001, log), dense=_Slow(0.005, log).eval(), images=torch.zeros(1, 1)
    )
    assert 0 < FILTER_OBJECTIVES["latency"](candidate) < 1
    with pytest.raises(InputError, match="needs the whole network and some images"):
        FILTER_OBJECTIVES["latency"](_candidate(network=lambda: _Slow(0.0, log)))


@pytest.mark.parametrize("name", ["flops", "parameters", "latency"])
def test_heads_have_no_such_costs(name):
    head = Candidate(_candidate().folds, 3, 10)
    with pytest.raises(InputError, match=f"objective '{name}' is about the filters of networks"):
        FILTER_OBJECTIVES[name](head)


def test_names_objectives_and_functions_are_resolved():
    def layers(candidate):
        return float(candidate.active)

    own = Objective("own", layers, maximise=False)
    found = resolve_filter_objectives(["error", "cka:dense", own, layers])
    assert [objective.name for objective in found] == ["error", "cka:dense", "own", "layers"]
    assert found[0] is FILTER_OBJECTIVES["error"]
    assert found[3](_candidate()) == 3.0


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ("error", r"got the string 'error'; give a list"),
        (["flop"], r"unknown name 'flop'.*flops"),
        (["mse"], "unknown name 'mse'.* choose among error, flops, parameters, latency, accuracy, cka:dense"),
        (["error", "error"], "error"),
        ([Objective("noisy", len, needs=frozenset({"noise"}))], "objective 'noisy' needs noise"),
        ([], "objective"),
    ],
)
def test_bad_objectives(specs, message):
    with pytest.raises(InputError, match=message):
        resolve_filter_objectives(specs)
