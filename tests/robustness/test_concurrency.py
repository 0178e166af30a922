"""Commands, threads and readers at the same time: each gets what it gets alone, and nobody waits for ever."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from concurrency import BACKBONE, QUICK, cached_rows, make_images

from moevoprune import Front, PruningProblem, evolve
from moevoprune.cli.main import main
from moevoprune.features.row_store import RowStore

pytest.importorskip("torchvision")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="locks of open files and fork servers are POSIX's")

PATIENCE = 300


def command(arguments: list[str], cache: Path) -> tuple[int, str]:
    """Carry out a command in this process; returns its exit code and what it said."""
    os.environ["MOEVOPRUNE_CACHE"] = str(cache)
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        return main(arguments), said.getvalue()


def hold(folder: Path, rows: np.ndarray, held: object) -> None:
    """Take the lock of a store, add a batch, begin another one, and never end."""
    with RowStore(folder, rows.shape[1]) as store:
        store.append([bytes([number]) * 32 for number in range(len(rows))], rows)
        with open(folder / "rows.f32", "ab") as file:
            file.write(rows.tobytes()[:-3])
        held.set()
        signal.pause()


@pytest.fixture(scope="module")
def processes():
    """Makes processes that have imported what takes seconds, but computed nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["moevoprune.cli.run", "moevoprune.cli.extract", "torchvision"])
    return context


@pytest.fixture
def pool(processes) -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(4, mp_context=processes) as executor:
        yield executor


def test_four_commands_at_once_on_one_cache_give_what_they_give_alone(pool, tmp_path, monkeypatch):
    monkeypatch.setenv("MOEVOPRUNE_CACHE", "")
    images, others = make_images(tmp_path / "images", range(24)), make_images(tmp_path / "others", range(12, 36))

    def commands(out: Path) -> list[list[str]]:
        quick = ["--quiet", *BACKBONE]
        return [
            ["extract", str(images), "--out", str(out / "images.npz"), *quick],
            ["run", str(images), "--out", str(out / "run"), "--seed", "1", *quick, *QUICK],
            ["extract", str(others), "--out", str(out / "others.npz"), *quick],
            ["run", str(others), "--out", str(out / "other"), "--seed", "2", *quick, *QUICK],
        ]

    alone, together = tmp_path / "alone", tmp_path / "together"
    for arguments in commands(alone):
        assert command(arguments, alone / "cache") == (0, "")
    started = [pool.submit(command, arguments, together / "cache") for arguments in commands(together)]
    assert [future.result(PATIENCE) for future in started] == [(0, "")] * 4
    names = ["images.npz", "others.npz", *(f"{run}/{name}" for run in ("run", "other") for name in ("front.csv",))]
    for name in names:
        assert (together / name).read_bytes() == (alone / name).read_bytes(), name
    # the order of the rows is that in which the commands came
    assert cached_rows(together / "cache") == cached_rows(alone / "cache")
    assert len(cached_rows(together / "cache")) == 36


def test_a_killed_holder_of_the_cache_stops_nobody(processes, tmp_path):
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    held, waits = processes.Event(), threading.Event()
    holder = processes.Process(target=hold, args=(tmp_path, rows, held))
    holder.start()
    assert held.wait(PATIENCE)

    def read() -> np.ndarray:
        with RowStore(tmp_path, 3, waiting=waits.set) as store:
            assert len(store) == 4
            return store.read(np.arange(4))

    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(read)
        assert waits.wait(PATIENCE)
        assert not reading.done()
        os.kill(holder.pid, signal.SIGKILL)
        np.testing.assert_array_equal(reading.result(PATIENCE), rows)
    holder.join()


def test_two_threads_that_evolve_give_what_each_gives_alone(small_features, small_regression, quick_head):
    def front(features) -> Front:
        return evolve(PruningProblem(features, head=quick_head, cv=3, seed=1), 8, 4, seed=1)

    sets = [small_features, small_regression]
    alone = [front(features) for features in sets]
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(front, sets))
    for one, other in zip(alone, together, strict=True):
        for name in ("masks", "values", "test", "dense_values"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        np.testing.assert_array_equal(one.predictions.validation_outputs, other.predictions.validation_outputs)


def test_a_run_is_read_while_it_is_written(pool, small_features, tmp_path, capsys):
    small_features.save(tmp_path / "small.npz")
    run = tmp_path / "run"
    arguments = ["run", str(tmp_path / "small.npz"), "--out", str(run), "--quiet", *QUICK, "--gens", "6"]
    writing = pool.submit(command, arguments, tmp_path / "cache")
    told = set()
    while not writing.done():
        for reading in (["show", str(run)], ["report", str(run), "--out", str(tmp_path / "page.html")]):
            code = main(reading)
            out, errors = capsys.readouterr()
            told.add((reading[0], code, out if reading[0] == "show" else ""))
            # there is nothing to read yet, which is one line; or all is there
            assert (code, len(errors.splitlines())) in ((0, 0), (2, 1)), errors
        # readers shall not take the writer's time
        time.sleep(0.1)
    assert writing.result() == (0, "")
    assert main(["show", str(run)]) == 0
    # whatever was shown was the whole front
    assert {shown for name, code, shown in told if name == "show" and code == 0} <= {capsys.readouterr().out}
