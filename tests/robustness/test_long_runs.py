"""Long searches: what they hold does not grow with what they have evaluated, but for a few bytes of each mask."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from moevoprune import DensitySampling, InputError, Objective, PruningProblem
from moevoprune.search import journal as journal_module
from moevoprune.search.archive import ParetoArchive, SmallestClose, hypervolume
from moevoprune.search.bit_problem import BitProblem, Guidance
from moevoprune.search.fitness import pack
from moevoprune.search.journal import EvaluationJournal
from moevoprune.search.loop import run_search

N_BITS = 320


class FreeProblem(BitProblem):
    """Values that cost nothing, so that what a search holds and does is the search's own."""

    size_objective = "size"

    def __init__(self):
        def unused(candidate):
            raise AssertionError("the problem measures for itself")

        super().__init__(
            N_BITS,
            (
                Objective("gain", unused, best=1.0, worst=0.0),
                Objective("size", unused, False, best=0.0, worst=1.0),
            ),
        )
        self.gains = np.random.default_rng(3).random(N_BITS)

    def _measure(self, bits):
        for mask in bits:
            yield np.array([self.gains[mask].sum() / self.gains.sum(), mask.mean()]), False

    def identity(self):
        return {"problem": "free"}

    def guidance(self, n_seeds):
        return Guidance(self.gains, np.zeros((0, N_BITS), dtype=bool), DensitySampling("uniform"))


class Growth:
    """Told of every generation: memory that Python and NumPy hold, and open files."""

    def __init__(self):
        self.held, self.evaluations, self.files = [], [], []

    def __call__(self, generation):
        if generation.number % 10 == 0:
            gc.collect()
            self.held.append(tracemalloc.get_traced_memory()[0])
            self.evaluations.append(generation.evaluations)
            if Path("/proc/self/fd").is_dir():
                self.files.append(len(os.listdir("/proc/self/fd")))


@pytest.mark.parametrize("algorithm", ["guided", "nsga2"])
def test_a_search_keeps_a_few_bytes_of_each_mask_it_evaluates(algorithm, tmp_path, monkeypatch):
    monkeypatch.setattr("moevoprune.search.mask_memory._MOST_RECENT", 64)
    growth = Growth()
    tracemalloc.start()
    try:
        run_search(
            FreeProblem(), 16, 110, algorithm=algorithm, journal=tmp_path / "journal", progress=growth, seed=1
        )
    finally:
        tracemalloc.stop()
    # between generations 20 and 90, before the polish
    held, evaluations = growth.held[8] - growth.held[1], growth.evaluations[8] - growth.evaluations[1]
    assert evaluations == 70 * 16
    assert held / evaluations < 180, "measured: 116; a packed mask of 320 bits as bytes takes 73 alone"
    assert len(set(growth.files[1:])) <= 1


def test_of_masks_that_left_the_front_only_the_values_stay(small_features, quick_head):
    seen = []

    def watch(generation):
        seen.append((set(problem.fitness._outputs), generation.archive_size))

    problem = PruningProblem(small_features, head=quick_head, cv=3, seed=1)
    result = run_search(problem, 8, 6, algorithm="nsga2", seed=1, progress=watch)
    assert problem.n_trained > len(result.masks)
    assert all(len(outputs) <= size for outputs, size in seen)
    # nothing that the front needs has to be trained again
    assert seen[-1][0] == set(pack(result.masks))
    heads = problem.fitness.n_heads
    assert len(list(problem.fitness.predict_validation(result.masks))) == len(result.masks)
    assert problem.fitness.n_heads == heads


def test_the_volume_of_an_archive_is_that_of_its_losses():
    generator = np.random.default_rng(4)
    corner = np.array([0.9, 0.8, 0.95])
    archive = ParetoArchive(3)
    assert archive.hypervolume(corner) == 0.0
    for _ in range(40):
        losses = generator.random((6, 3)) * generator.uniform(0.5, 1.2)
        archive.add(generator.random((6, 20)) < 0.5, losses, losses)
        assert archive.hypervolume(corner) == hypervolume(archive.losses, corner)
        # another corner is not answered with the volume of the first
        assert archive.hypervolume(corner / 2) == hypervolume(archive.losses, corner / 2)
    with pytest.raises(InputError, match="corner has 2 numbers; give 3"):
        archive.hypervolume(corner[:2])


def test_the_smallest_close_to_the_best_is_found_among_all_that_came():
    generator = np.random.default_rng(5)
    close, losses, active = SmallestClose(0.01), np.zeros(0), np.zeros(0, dtype=np.int64)
    assert (np.isnan(close.best), close.smallest) == (True, 0)
    for batch in range(300):
        # the best falls slowly, so that what is close changes; some batches hold nothing feasible
        n = generator.integers(0, 6)
        new = np.round(0.5 - batch / 2000 + np.abs(generator.normal(scale=0.02, size=n)), 3)
        sizes = generator.integers(1, 400, n)
        close.add(new, sizes)
        losses, active = np.concatenate([losses, new]), np.concatenate([active, sizes])
        if len(losses):
            assert close.best == losses.min()
            assert close.smallest == active[losses <= losses.min() + 0.01].min()
    assert len(close._candidates) < 100


def filled_journal(path, n):
    generator = np.random.default_rng(6)
    masks, values = generator.random((n, 1280)) < 0.5, generator.random((n, 3))
    with EvaluationJournal.create(path, {"a": 1}, 1280, ["x", "y", "z"]) as journal:
        journal.append(masks, values)
    return masks, values


def test_a_journal_stays_small_and_is_given_back_after_its_replay(tmp_path):
    n = 6000
    masks, values = filled_journal(tmp_path / "journal", n)
    assert (tmp_path / "journal").stat().st_size / n < 320
    tracemalloc.start()
    try:
        with EvaluationJournal.resume(tmp_path / "journal", {"a": 1}, 1280, ["x", "y", "z"]) as journal:
            held = tracemalloc.get_traced_memory()[0]
            assert held / n < 250, "160 bytes of bits and 24 of values, not an object for each"
            blocks = list(journal.iter_blocks())
            assert len(blocks) > 1
            np.testing.assert_array_equal(np.concatenate([block for block, _ in blocks]), masks)
            np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), values)
            del blocks
            journal.forget_entries()
            assert tracemalloc.get_traced_memory()[0] < held / 10
            assert journal.entries == []
            journal.append(masks[:1], values[:1])
    finally:
        tracemalloc.stop()
    assert len(EvaluationJournal.read(tmp_path / "journal")[1]) == n + 1


def test_a_journal_is_checked_without_reading_its_records(tmp_path, monkeypatch):
    filled_journal(tmp_path / "journal", 20)
    before = (tmp_path / "journal").read_bytes()

    def unread(*_):
        raise AssertionError("a record was read")

    monkeypatch.setattr(journal_module, "_parse_entry", unread)
    EvaluationJournal.check(tmp_path / "journal", {"a": 1}, 1280, ["x", "y", "z"])
    with pytest.raises(InputError, match="a: 1 → 2"):
        EvaluationJournal.check(tmp_path / "journal", {"a": 2}, 1280, ["x", "y", "z"])
    assert (tmp_path / "journal").read_bytes() == before


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_two_hundred_generations_of_a_run_leave_memory_as_it_was():
    script = Path(__file__).with_name("long_run.py")
    command = [sys.executable, str(script), "--generations", "200", "--evaluations", "50000"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
