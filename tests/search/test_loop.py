"""The search loop: its archive, its counts, and exact resume by replay."""

from __future__ import annotations

import numpy as np
import pytest
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.algorithms.moo.sms import SMSEMOA
from pymoo.operators.crossover.ux import UniformCrossover
from pymoo.operators.mutation.bitflip import BitflipMutation

from moevoprune import DensitySampling, InputError, PruningProblem
from moevoprune.search.journal import EvaluationJournal
from moevoprune.search.loop import run_search


@pytest.fixture
def make_problem(small_features, quick_head):
    return lambda **changes: PruningProblem(small_features, head=quick_head, cv=3, **{"seed": 1, **changes})


def assert_same(a, b):
    for name in ("masks", "values", "losses"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert [g.evaluations for g in a.history] == [g.evaluations for g in b.history]
    assert [g.cache_hits for g in a.history] == [g.cache_hits for g in b.history]
    assert [g.hypervolume for g in a.history] == [g.hypervolume for g in b.history]


def test_the_archive_holds_every_non_dominated_mask_ever_asked_for(make_problem):
    problem = make_problem()
    asked: list[np.ndarray] = []
    problem.listen(on_requested=lambda masks, values: asked.append(masks))
    result = run_search(problem, pop_size=8, n_gen=5, seed=3)
    masks = np.unique(np.concatenate(asked), axis=0)
    masks = masks[masks.any(axis=1)]
    losses = problem.losses(problem.values(masks))
    for loss in losses:
        # every mask is in the archive, or weakly dominated by a member
        assert (result.losses <= loss).all(axis=1).any()
    for member in result.losses:
        assert not ((losses <= member).all(axis=1) & (losses < member).any(axis=1)).any()
    assert (np.diff(result.masks.sum(axis=1)) >= 0).all()
    volumes = [generation.hypervolume for generation in result.history]
    assert volumes == sorted(volumes)
    assert 0 < volumes[-1] < 1
    assert result.history[-1].evaluations == 40


def test_resume_after_a_stop_in_any_generation_gives_the_same_result(make_problem, tmp_path):
    whole = run_search(make_problem(), pop_size=6, n_gen=5, seed=4, journal=tmp_path / "whole")

    class Stopped(Exception):
        pass

    for stop_at in range(1, 5):
        journal = tmp_path / f"stopped{stop_at}"

        def stop(generation, at=stop_at):
            if generation.number == at:
                raise Stopped

        with pytest.raises(Stopped):
            run_search(make_problem(), pop_size=6, n_gen=5, seed=4, journal=journal, progress=stop)
        problem = make_problem()
        resumed = run_search(problem, pop_size=6, n_gen=5, seed=4, journal=journal, resume=True)
        assert_same(resumed, whole)
        assert 0 < problem.n_trained < len(EvaluationJournal.read(journal)[1])
        assert journal.read_bytes() == (tmp_path / "whole").read_bytes()


def test_resume_works_for_any_pymoo_algorithm_and_from_a_torn_journal(make_problem, tmp_path):
    def algorithm():
        return SMSEMOA(
            pop_size=6,
            sampling=DensitySampling("uniform"),
            crossover=UniformCrossover(),
            mutation=BitflipMutation(),
        )

    whole = run_search(make_problem(), n_gen=4, algorithm=algorithm(), seed=1, journal=tmp_path / "j")
    content = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(content[: len(content) * 2 // 3])
    resumed = run_search(
        make_problem(), n_gen=4, algorithm=algorithm(), seed=1, journal=tmp_path / "j", resume=True
    )
    assert_same(resumed, whole)
    assert (tmp_path / "j").read_bytes() == content


def test_what_happened_on_the_problem_before_does_not_matter(make_problem):
    fresh = run_search(make_problem(), pop_size=6, n_gen=3, seed=2)
    used = make_problem()
    run_search(used, pop_size=6, n_gen=2, seed=9)
    assert_same(run_search(used, pop_size=6, n_gen=3, seed=2), fresh)


def test_budget_counts_evaluations(make_problem):
    result = run_search(make_problem(), pop_size=6, budget=15, seed=1)
    assert [g.evaluations for g in result.history] == [6, 12, 18]
    assert result.history[-1].share_done == 1


def test_ctrl_c_keeps_what_was_found(make_problem, tmp_path):
    def interrupt(generation):
        if generation.number == 2:
            raise KeyboardInterrupt

    result = run_search(make_problem(), pop_size=6, n_gen=5, journal=tmp_path / "j", progress=interrupt)
    assert result.interrupted
    assert len(result.history) == 2
    assert len(result.masks) > 0
    assert len(EvaluationJournal.read(tmp_path / "j")[1]) == result.history[-1].evaluations - (
        result.history[-1].cache_hits
    )


def test_another_run_is_not_resumed(make_problem, tmp_path):
    run_search(make_problem(), pop_size=6, n_gen=1, journal=tmp_path / "j")
    with pytest.raises(InputError, match="exists"):
        run_search(make_problem(), pop_size=6, n_gen=1, journal=tmp_path / "j")
    for other, seed, word in [
        (make_problem(seed=2), 0, "seed"),
        (make_problem(noise=2.0), 0, "noise"),
        (make_problem(), 5, "search.seed"),
        (make_problem(objectives=["accuracy", "active_neurons"]), 0, "objectives"),
    ]:
        with pytest.raises(InputError, match=word):
            run_search(other, pop_size=6, n_gen=1, seed=seed, journal=tmp_path / "j", resume=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pop_size": 0}, "population of 0"),
        ({"pop_size": 1}, "population of 1"),
        ({"n_gen": 0}, "n_gen = 0"),
        ({"budget": 0}, "budget = 0"),
        ({"n_gen": 2, "budget": 10}, "one of them"),
        ({"resume": True}, "journal"),
        ({"seed": -1}, "seed"),
        ({"n_gen": 1.5}, "n_gen"),
        ({"pop_size": "4"}, "pop_size"),
        ({"algorithm": "nsga4"}, "pymoo algorithm"),
        ({"algorithm": "nsga2", "leave_out": ("polish",)}, "not of nsga2"),
        ({"algorithm": NSGA2(pop_size=4), "leave_out": ("polish",)}, "given by name"),
        ({"algorithm": SMSEMOA}, "instance"),
    ],
)
def test_bad_arguments(make_problem, arguments, message):
    with pytest.raises(InputError, match=message):
        run_search(make_problem(), **arguments)
    with pytest.raises(InputError, match="PruningProblem"):
        run_search("digits")
