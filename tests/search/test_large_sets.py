"""Fitness of sets that are read from disk: the same numbers, in little memory."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from moevoprune import Candidate, FeatureSet, HeadSettings, PruningProblem, evolve
from moevoprune.baselines import BASELINES, rank_bits
from moevoprune.baselines import data as baseline_data
from moevoprune.cli.main import main
from moevoprune.features import feature_folder
from moevoprune.fronts import robustness
from moevoprune.fronts.front import Front
from moevoprune.fronts.robustness import feature_noise
from moevoprune.heads import head as head_module
from moevoprune.heads import row_sources, streaming
from moevoprune.objectives import base, debiased_linear_cka
from moevoprune.objectives import builtin as builtin_objectives
from moevoprune.search import fitness as fitness_module

# weight decay has no dual form: heads in memory are gathered too
HEAD = HeadSettings(hidden=(8,), epochs=3, batch_size=16, weight_decay=1e-4)
MASKS = np.random.default_rng(1).random((6, 14)) < 0.5


@pytest.fixture
def streamed(monkeypatch):
    """Every set counts as large, and is read in small blocks."""
    monkeypatch.setattr(row_sources, "_LARGEST_PREPARED", 0)
    monkeypatch.setattr(row_sources, "_FEWEST_ROWS", 1)
    monkeypatch.setattr(streaming, "_CHUNK_BYTES", 40 * 16 * 4)
    monkeypatch.setattr(feature_folder, "BLOCK_BYTES", 9 * 14 * 4)


@pytest.fixture
def mapped(small_features, tmp_path) -> FeatureSet:
    """The small set on disk, in float16, with out-of-distribution rows."""
    rng = np.random.default_rng(2)
    small_features = replace(
        small_features, X_ood=rng.normal(size=(40, 14)) * 2, X_ood_test=rng.normal(size=(30, 14)) * 2
    )
    small_features.save_folder(tmp_path / "small", "float16")
    return FeatureSet.load(tmp_path / "small")


def in_memory(features: FeatureSet) -> FeatureSet:
    parts = ("X_train", "X_test", "X_val")
    return replace(
        features, **{key: None if (x := getattr(features, key)) is None else np.array(x) for key in parts}
    )


OBJECTIVES = ["accuracy", "active_neurons", "cka", "cka:dense", "ood_auroc", "ood_auroc:odin"]


@pytest.mark.parametrize("cv", [1, 3])
@pytest.mark.parametrize("standardise", [True, False])
def test_values_are_those_of_the_set_in_memory(mapped, request, cv, standardise):
    options = {"objectives": OBJECTIVES, "head": HEAD.model_copy(update={"standardise": standardise}), "cv": cv}
    in_ram = PruningProblem(in_memory(mapped), **options)
    known = in_ram.values(MASKS)
    scores = in_ram.fitness.row_scores(MASKS, 0)
    front = evolve(in_ram, 6, 2, seed=1)
    # a small folder is prepared in memory
    small = PruningProblem(mapped, **options)
    assert small.fitness.trainer.source is None
    np.testing.assert_array_equal(small.values(MASKS), known)
    request.getfixturevalue("streamed")
    on_disk = PruningProblem(mapped, **options)
    assert on_disk.fitness.trainer.source is not None
    np.testing.assert_array_equal(on_disk.values(MASKS), known)
    np.testing.assert_array_equal(on_disk.fitness.row_scores(MASKS, 0), scores)
    assert on_disk.identity() == in_ram.identity()
    again = evolve(on_disk, 6, 2, seed=1)
    np.testing.assert_array_equal(again.values, front.values)
    np.testing.assert_array_equal(again.test, front.test)
    np.testing.assert_array_equal(again.predictions.validation_outputs, front.predictions.validation_outputs)
    for name, column in front.test_columns.items():
        np.testing.assert_array_equal(again.test_columns[name], column)


def test_own_validation_rows_and_large_sets_in_memory(mapped, request):
    with_own = replace(mapped, X_val=mapped.X_test, y_val=mapped.y_test)
    known = PruningProblem(in_memory(with_own), head=HEAD).values(MASKS)
    request.getfixturevalue("streamed")
    for features in (with_own, in_memory(with_own)):
        problem = PruningProblem(features, head=HEAD)
        assert problem.fitness.trainer.source is not None
        np.testing.assert_array_equal(problem.values(MASKS), known)


def test_regression(small_regression, tmp_path, streamed, monkeypatch):
    small_regression.save_folder(tmp_path / "line")
    on_disk = PruningProblem(FeatureSet.load(tmp_path / "line"), head=HEAD, cv=3)
    masks = MASKS[:, :10]
    values = on_disk.values(masks)
    monkeypatch.setattr(row_sources, "_LARGEST_PREPARED", 2**30)
    in_ram = PruningProblem(small_regression, head=HEAD, cv=3)
    assert in_ram.fitness.trainer.source is None
    np.testing.assert_array_equal(in_ram.values(masks), values)


def test_a_mask_does_not_depend_on_the_others(mapped, streamed, monkeypatch):
    together = PruningProblem(mapped, head=HEAD, cv=2).values(MASKS)
    monkeypatch.setattr(fitness_module, "_MOST_OUTPUTS", 1)
    alone = PruningProblem(mapped, head=HEAD, cv=2, chunk=1).values(MASKS[::-1])
    np.testing.assert_array_equal(together, alone[::-1])


def test_hidden_representations_are_compared_on_some_rows(small_features, monkeypatch):
    """CKA on evenly spread rows is CKA of just those rows, and the other objectives see all rows."""
    seen: list[Candidate] = []

    def look(candidate: Candidate) -> float:
        seen.append(candidate)
        return 0.0

    def problem() -> PruningProblem:
        return PruningProblem(small_features, objectives=["accuracy", "cka", "cka:dense", look], head=HEAD, cv=2)

    whole = problem()
    expected = whole.values(MASKS[:1])
    for module in (base, fitness_module):
        monkeypatch.setattr(module, "MOST_REPRESENTED", 12)
    some = problem()
    values = some.values(MASKS[:1])
    assert values[0, 0] == expected[0, 0]
    fold_all, fold_some = seen[0].folds[1], seen[1].folds[1]
    rows = fold_some.represented
    assert len(rows) == 12 < fold_some.n_rows
    torch.testing.assert_close(fold_some.hidden, fold_all.hidden[rows])
    torch.testing.assert_close(fold_some.hidden_dense, fold_all.hidden_dense[rows])
    of_folds = [debiased_linear_cka(fold.hidden, fold.hidden_dense).item() for fold in seen[1].folds]
    assert values[0, 2] == pytest.approx(np.mean(of_folds))
    # what a journal of the other kind holds is another fitness
    assert some.identity() == {**whole.identity(), "cka_rows": 12}
    assert builtin_objectives.MIN_CKA_ROWS < 12


def test_outputs_are_remembered_for_the_rows_that_are_asked_for(mapped, streamed, monkeypatch):
    monkeypatch.setattr(fitness_module, "_MOST_PREDICTED", 30)
    monkeypatch.setattr(fitness_module, "_FEWEST_PREDICTED", 2)
    # two masks' worth
    monkeypatch.setattr(fitness_module, "_MOST_REMEMBERED", 60)
    problem = PruningProblem(mapped, head=HEAD, cv=2)
    problem.values(MASKS)
    n_heads = problem.fitness.n_heads
    kept = list(problem.fitness.predict_validation(MASKS[-2:]))
    assert [outputs.shape for outputs in kept] == [(10, 3), (10, 3)]
    assert problem.fitness.n_heads == n_heads
    again = list(problem.fitness.predict_validation(MASKS[:1]))
    assert problem.fitness.n_heads == n_heads + 2
    whole = PruningProblem(in_memory(mapped), head=HEAD, cv=2).fitness
    np.testing.assert_array_equal(next(iter(whole.predict_validation(MASKS[:1]))), again[0])


@pytest.mark.parametrize("name", ["anova_f", "saliency", "neuron_norm"])
def test_rankings_look_at_the_same_rows(mapped, request, monkeypatch, name):
    known = rank_bits(PruningProblem(in_memory(mapped), head=HEAD, cv=1).ranking_data(), name)
    request.getfixturevalue("streamed")
    problem = PruningProblem(mapped, head=HEAD, cv=1)
    np.testing.assert_array_equal(rank_bits(problem.ranking_data(), name), known)
    monkeypatch.setattr(baseline_data, "MOST_ROWS", 20)
    rows, labels = problem.ranking_data().sample
    assert rows.shape == (20, 14)
    assert rows.dtype == np.float32
    assert len(labels) == 20


@pytest.mark.parametrize("name", ["gradual_magnitude", "random"])
def test_baselines_choose_the_same_masks(mapped, request, name):
    sizes = [3, 9]
    known = BASELINES[name].masks(PruningProblem(in_memory(mapped), head=HEAD, cv=1).ranking_data(), sizes)
    request.getfixturevalue("streamed")
    data = PruningProblem(mapped, head=HEAD, cv=1).ranking_data()
    np.testing.assert_array_equal(BASELINES[name].masks(data, sizes), known)


def test_noise_on_test_rows_is_the_same_in_pieces(mapped, monkeypatch):
    front = evolve(PruningProblem(mapped, head=HEAD, cv=1), 4, 1, algorithm="nsga2")
    whole = feature_noise(front, in_memory(mapped), repeats=2)
    monkeypatch.setattr(robustness, "_ROWS_AT_ONCE", 7)
    assert feature_noise(front, mapped, repeats=2) == whole


def test_no_part_is_prepared_as_a_whole(tmp_path, small_features, monkeypatch):
    """NumPy's memory at its peak, through a search and the scoring of its front, is a part of the features'."""
    rng = np.random.default_rng(3)
    n_rows, n_features = 30_000, 300
    for part in ("train", "test"):
        labels = rng.integers(0, 3, size=n_rows)
        rows = rng.standard_normal((n_rows, n_features), dtype=np.float32)
        rows[:, :20] += labels[:, None]
        (tmp_path / "big").mkdir(exist_ok=True)
        np.save(tmp_path / "big" / f"X_{part}.npy", rows.astype(np.float16))
        np.save(tmp_path / "big" / f"y_{part}.npy", labels)
    del rows
    monkeypatch.setattr(row_sources, "_LARGEST_PREPARED", 2**20)
    monkeypatch.setattr(feature_folder, "BLOCK_BYTES", 2**20)
    monkeypatch.setattr(streaming, "_CHUNK_BYTES", 2**20)
    monkeypatch.setattr(baseline_data, "MOST_ROWS", 1000)
    for module in (fitness_module, head_module, robustness):
        monkeypatch.setattr(module, "_ROWS_AT_ONCE", 1000)
    for module in (base, fitness_module):
        monkeypatch.setattr(module, "MOST_REPRESENTED", 500)

    def everything(features: FeatureSet) -> Front:
        problem = PruningProblem(features, head=HeadSettings(hidden=(4,), epochs=1, batch_size=1000))
        front = evolve(problem, 4, 1, algorithm="nsga2")
        rank_bits(problem.ranking_data(), "anova_f")
        feature_noise(front, features, repeats=1, severities=[1.0])
        assert features.content_hash
        return front

    # so that nothing has to be imported any more
    everything(small_features)
    tracemalloc.start()
    try:
        front = everything(FeatureSet.load(tmp_path / "big"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert front.test.max() > 0.8
    # less than either part takes in float16
    assert peak < 2 * n_rows * n_features


def run(source, out):
    settings = ["epochs=2", "hidden=[8]", "weight_decay=0.001", 'objectives=["accuracy", "active_neurons"]']
    options = [word for setting in settings for word in ("--set", setting)]
    limits = ["--algorithm", "nsga2", "--pop", "4", "--gens", "1", "--jobs", "1", "--no-baselines", "--quiet"]
    return main(["run", str(source), "--out", str(out), *limits, *options])


def test_the_command_gives_the_same_front_for_a_folder(mapped, tmp_path, request):
    mapped.save(tmp_path / "small.npz", "float16")
    assert run(tmp_path / "small.npz", tmp_path / "packed") == 0
    request.getfixturevalue("streamed")
    assert run(tmp_path / "small", tmp_path / "folder") == 0
    fronts = [(tmp_path / name / "front.csv").read_bytes() for name in ("packed", "folder")]
    assert fronts[0] == fronts[1]
    assert str(tmp_path / "small") in (tmp_path / "folder" / "config.toml").read_text()


def test_a_bad_folder_is_refused_in_one_line(mapped, tmp_path, capsys):
    (tmp_path / "small" / "X_test.npy").write_bytes(b"nonsense")
    assert run(tmp_path / "small", tmp_path / "out") == 2
    error = capsys.readouterr().err.strip()
    assert "X_test.npy" in error
    assert "\n" not in error
    assert not (tmp_path / "out").exists()
