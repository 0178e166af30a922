"""Baselines beside finished runs: their masks, scores and files."""

from __future__ import annotations

import numpy as np
import pytest

from moevoprune import InputError, PruningProblem
from moevoprune.cli.sweeping import WantedRun, run_wanted
from moevoprune.studies import run_baselines as module
from moevoprune.studies.run_baselines import WantedBaseline, run_baselines

SETTINGS = {
    "problem.objectives": "accuracy,active_neurons",
    "problem.encoding": "neurons",
    "problem.cv": 2,
    "head.hidden": [8],
    "head.epochs": 4,
    "search.algorithm": "nsga2",
    "search.pop": 4,
    "search.gens": 1,
}


@pytest.fixture
def run(tmp_path, small_features):
    small_features.save(tmp_path / "small.npz")
    (found,) = run_wanted([WantedRun(str(tmp_path / "small.npz"), 3, "v", SETTINGS)], tmp_path / "work", 1)
    return found


def test_they_have_the_size_and_the_problem_of_the_run(run, small_features):
    said = []
    wanted = [WantedBaseline(run, "neuron_norm", 3), WantedBaseline(run, "best_fixed", 3)]
    pruned, fixed = run_baselines(wanted, 1, said.append)
    assert said[-1] == "baselines: 2 of 2 finished"
    assert (pruned.data, pruned.method, pruned.seed, pruned.active.tolist()) == ("small", "neuron_norm", 3, [3])
    # the dense head of the run's front was trained the same way: its three units with the largest norms stay
    weights = run.front().dense_head.to_arrays()
    (first,) = (array for array in weights.values() if array.shape == (14, 8))
    mask = np.zeros(8, dtype=bool)
    mask[np.argsort(-np.linalg.norm(first, axis=0))[:3]] = True
    problem = PruningProblem(
        small_features,
        "neurons",
        ["accuracy", "active_neurons"],
        run.config.head,
        cv=2,
        seed=3,
    )
    (head,) = problem.fitness.train_final(mask[None])
    assert pruned.test[0] == pytest.approx(np.mean(head.predict(small_features.X_test) == small_features.y_test))
    assert pruned.validation[0] == pytest.approx(problem.values(mask[None])[0, 0])
    assert fixed.n_bits == 8
    assert len(fixed.active) == 1


def test_results_are_kept_and_damaged_ones_repeated(run, monkeypatch):
    wanted = [WantedBaseline(run, "weight_magnitude", size) for size in (2, 5)]
    first = run_baselines(wanted, 1)
    carried_out = []
    real = module.run_method

    def counted(problem, method, seed, budget, sizes):
        carried_out.append(sizes)
        return real(problem, method, seed, budget, sizes)

    monkeypatch.setattr(module, "run_method", counted)
    again = run_baselines(wanted, 1)
    assert carried_out == []
    assert [r.to_json() for r in again] == [r.to_json() for r in first]
    wanted[1].file.write_text("{}")
    repeated = run_baselines([*wanted, wanted[1]], 1)
    assert carried_out == [[5]]
    assert [r.test.tolist() for r in repeated] == [r.test.tolist() for r in (*first, first[1])]


@pytest.mark.parametrize(("method", "size", "named"), [("neuron_norm", 9, "size"), ("magnitude", 2, "unknown")])
def test_what_cannot_be_asked_for(run, method, size, named):
    with pytest.raises(InputError, match=named):
        run_baselines([WantedBaseline(run, method, size)], 1)
    assert not list(run.out.glob("baselines/*"))
