"""Actors of a local Ray: the same results whatever happens to them."""

from __future__ import annotations

import os
import signal
import sys
import time

import numpy as np
import pytest

from moevoprune import InputError, Objective, PruningProblem, evolve
from moevoprune.cli.main import main
from moevoprune.fronts.plots import style
from moevoprune.search.engines import make_engine
from moevoprune.search.fitness import FitnessEvaluator
from moevoprune.search.ray_engine import import_ray

QUICK = ["--pop", "8", "--gens", "2", "--cv", "3", "--set", "epochs=3", "--set", "hidden=8", "--no-baselines"]


@pytest.fixture(scope="module")
def ray():
    """One Ray on this machine for all tests; starting it takes seconds."""
    ray = pytest.importorskip("ray")
    from moevoprune.search.ray_engine import connect, disconnect

    connect(cores=2)
    yield ray
    disconnect()
    assert not ray.is_initialized()


def engine_of(actors, **options):
    def make(fitness):
        from moevoprune.search.ray_engine import RayEngine

        return RayEngine(fitness, actors=actors, **options)

    return make


def masks_of(n):
    generator = np.random.default_rng(3)
    masks = generator.random((n, 14)) < 0.5
    masks[:, 0] = True
    return masks


def test_two_actors_write_the_run_that_one_machine_writes(ray, small_features, tmp_path, monkeypatch):
    # nobody looks at the pictures
    monkeypatch.setattr(style, "DPI", 30)
    npz = tmp_path / "small.npz"
    small_features.save(npz)
    arguments = ["run", str(npz), "--quiet", "--jobs", "1", *QUICK]
    assert main([*arguments, "--out", str(tmp_path / "local")]) == 0
    assert main([*arguments, "--out", str(tmp_path / "ray"), "--engine", "ray", "--actors", "2"]) == 0
    for name in ("front.csv", "front.npz", "predictions.npz", "heads.safetensors", "evaluations.journal"):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "local" / name).read_bytes(), name
    # where it is computed is no reason not to go on elsewhere
    assert main(["run", "--out", str(tmp_path / "ray"), "--resume", "--quiet", "--engine", "local"]) == 0
    assert (tmp_path / "ray" / "front.csv").read_bytes() == (tmp_path / "local" / "front.csv").read_bytes()
    assert ray.is_initialized()


def test_actors_that_are_killed_change_nothing(ray, small_features, quick_head, tmp_path):
    """Once by what they compute, in the middle of a generation, and once from outside."""
    marker = tmp_path / "killed"
    driver = os.getpid()

    def deadly(candidate):
        if candidate.active == 5 and os.getpid() != driver and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return candidate.active_fraction

    objectives = ["accuracy", Objective("kept", deadly, maximise=False, best=0.0, worst=1.0)]
    settings = {"objectives": objectives, "head": quick_head, "cv": 3, "seed": 2}
    local = PruningProblem(small_features, **settings)
    expected = evolve(local, pop_size=8, n_gen=3, algorithm="nsga2", seed=1)
    marker.unlink(missing_ok=True)
    with PruningProblem(small_features, **settings, engine=engine_of(2, chunk=1)) as problem:
        engine = problem._engine

        def kill_one(generation):
            if generation.number == 2:
                ray.kill(engine._actors[0].handle)

        front = evolve(problem, pop_size=8, n_gen=3, algorithm="nsga2", seed=1, progress=kill_one)
        assert marker.exists()
        assert len(engine._actors) == 2
        assert (problem.n_trained, problem.fitness.n_heads) == (local.n_trained, local.fitness.n_heads)
    assert front.to_csv() == expected.to_csv()
    assert front.fingerprint == expected.fingerprint


def test_a_slow_actor_is_helped_and_an_error_is_what_it_was(ray, small_features, quick_head, tmp_path):
    marker, driver = tmp_path / "slow", os.getpid()

    def sometimes_slow(candidate):
        if candidate.active == 14:
            raise ZeroDivisionError("a user's own mistake")
        if os.getpid() != driver:
            try:
                marker.touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                time.sleep(600)
        return candidate.active_fraction

    objectives = ["accuracy", Objective("kept", sometimes_slow, maximise=False)]
    settings = {"objectives": objectives, "head": quick_head, "cv": 3, "seed": 2}
    masks = masks_of(9)
    masks[masks.all(axis=1), 1] = False
    expected = PruningProblem(small_features, **settings).values(masks)
    with PruningProblem(small_features, **settings, engine=engine_of(2, chunk=1)) as problem:
        # the sleeper's chunk, and the one behind it, were done by the other actor
        np.testing.assert_array_equal(problem.values(masks), expected)
        assert marker.exists()
        heard = []
        problem.listen(on_trained=lambda trained, _: heard.extend(trained))
        everything = np.ones((1, 14), dtype=bool)
        fresh = ~masks[:2]
        with pytest.raises(ZeroDivisionError, match="a user's own mistake"):
            problem.values(np.concatenate([fresh, everything]))
        # what came before it is not lost
        np.testing.assert_array_equal(heard, fresh)


def test_actors_that_keep_dying_are_an_error(ray, small_features, quick_head, monkeypatch):
    # each new one takes seconds to start
    monkeypatch.setattr("moevoprune.search.ray_engine._MOST_LOST", 0)
    driver = os.getpid()

    def always_deadly(candidate):
        if os.getpid() != driver:
            os._exit(1)
        return 0.0

    objectives = ["accuracy", Objective("deadly", always_deadly)]
    with (
        PruningProblem(
            small_features, objectives=objectives, head=quick_head, cv=3, engine=engine_of(1)
        ) as problem,
        pytest.raises(InputError, match="the actors keep dying"),
    ):
        problem.values(masks_of(2))


def test_what_cannot_be_used_is_said_before_anything_starts(ray, small_features, quick_head):
    def problem(**options):
        return PruningProblem(small_features, head=quick_head, cv=3, **options)

    with pytest.raises(InputError, match="did you mean 'ray'"):
        problem(engine="rai")
    with pytest.raises(InputError, match="actors = 0"):
        problem(engine=engine_of(0))
    with pytest.raises(InputError, match="chunk = 0"):
        problem(engine=engine_of(1, chunk=0))
    lock = __import__("threading").Lock()
    held = Objective("held", lambda candidate: float(lock.locked()))
    with pytest.raises(InputError, match="cannot be sent"):
        problem(objectives=["accuracy", held], engine="ray")
    with pytest.raises(InputError, match="jobs = 0"):
        problem(jobs=0)


def test_a_closed_engine_starts_no_ray_of_its_own(ray, small_features, quick_head):
    problem = PruningProblem(small_features, head=quick_head, cv=2, engine=engine_of(1))
    problem.close()
    problem.close()
    with pytest.raises(InputError, match="has been closed"):
        problem.values(masks_of(1))


def test_no_room_in_the_cluster_is_an_error(ray, small_features, quick_head):
    @ray.remote(num_cpus=2)
    class Occupant:
        def here(self):
            return True

    occupant = Occupant.remote()
    assert ray.get(occupant.here.remote())
    with (
        PruningProblem(small_features, head=quick_head, cv=3, engine=engine_of(1, patience=0.5)) as problem,
        pytest.raises(InputError, match=r"no actor has started .* has 2 CPUs, of which 0"),
    ):
        problem.values(masks_of(1))
    ray.kill(occupant)


@pytest.mark.parametrize(
    ("address", "words"),
    [("head", "use auto, HOST:PORT"), ("127.0.0.1:1", "no Ray could be reached at 127.0.0.1:1")],
)
def test_an_address_where_nobody_is(small_features, tmp_path, capsys, monkeypatch, address, words):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    npz = tmp_path / "small.npz"
    small_features.save(npz)
    out = tmp_path / "out"
    assert main(["run", str(npz), "--engine", "ray", "--address", address, "--out", str(out), *QUICK]) == 2
    assert words in capsys.readouterr().err
    assert main(["run", str(npz), "--address", "auto", "--out", str(out), *QUICK]) == 2
    assert "add --engine ray" in capsys.readouterr().err
    assert not out.exists()


def test_a_cluster_that_is_gone_is_not_waited_for(monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    from moevoprune.search.ray_engine import connect

    with pytest.raises(InputError, match=r"no Ray could be reached at .+:1 \("):
        connect("auto")


def test_without_ray_the_way_to_install_it_is_said(tmp_path, small_features, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    npz = tmp_path / "small.npz"
    small_features.save(npz)
    assert main(["run", str(npz), "--engine", "ray", "--out", str(tmp_path / "out"), *QUICK]) == 2
    line = capsys.readouterr().err.strip()
    assert "\n" not in line
    assert 'pip install "moevoprune[ray]"' in line
    assert not (tmp_path / "out").exists()


def test_a_folder_called_ray_is_not_taken_for_it(tmp_path, monkeypatch):
    (tmp_path / "ray").mkdir()
    # so that it is put back, or taken out again if it was not there
    monkeypatch.setitem(sys.modules, "ray", None)
    del sys.modules["ray"]
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if "editable" not in repr(finder)])
    with pytest.raises(InputError, match="rename it"):
        import_ray()


def test_the_local_engine_is_the_evaluator(small_features, quick_head):
    fitness = FitnessEvaluator(small_features, "features", (), quick_head, 3, 0, "cpu", 1.0)
    assert make_engine("local", fitness) is fitness
    again = FitnessEvaluator(small_features, **fitness.recipe(), device="cpu")
    assert again.identity() == fitness.identity()
    sentinel = object()
    assert make_engine(lambda _: sentinel, fitness) is sentinel


def test_a_sweep_on_ray_brings_the_run_folders_back(ray, small_features, tmp_path, capsys):
    npz, out = tmp_path / "small.npz", tmp_path / "sweep"
    small_features.save(npz)
    assert main(["sweep", str(npz), "--seeds", "7,8", "--out", str(out), "--engine", "ray", *QUICK]) == 0
    assert "2 of 2 to run, on Ray" in capsys.readouterr().out
    assert main(["run", str(npz), "--seed", "8", "--out", str(tmp_path / "one"), "--quiet", *QUICK]) == 0
    names = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*"))
    assert sorted(path.relative_to(out / "small-seed8") for path in (out / "small-seed8").rglob("*")) == names
    for name in ("config.toml", "front.csv", "front.npz", "predictions.npz", "evaluations.journal"):
        assert (out / "small-seed8" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name
    assert ray.is_initialized()
