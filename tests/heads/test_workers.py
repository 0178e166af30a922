"""Processes that train heads beside the main one: same heads, same order, nothing lost when one dies."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from moevoprune.heads.encodings import HeadMask, HeadShape, make_encoding
from moevoprune.heads.settings import HeadSettings
from moevoprune.heads.trainer import HeadStack, PopulationTrainer
from moevoprune.heads.workers import WorkerPool

MAIN = os.getpid()


def _square() -> Callable[[int], tuple[int, int]]:
    return _square_slowly


def _square_slowly(number: int) -> tuple[int, int]:
    time.sleep(0.02)
    return number * number, os.getpid()


def _fussy() -> Callable[[int], int]:
    return _refuse_seven


def _refuse_seven(number: int) -> int:
    # so slow that the workers get their share
    time.sleep(0.02)
    if number == 7:
        raise ValueError("seven is too much")
    return number


def _mortal() -> Callable[[tuple[int, int]], int]:
    return _die_elsewhere


def _die_elsewhere(task: tuple[int, int]) -> int:
    number, home = task
    time.sleep(0.02)
    if os.getpid() != home:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.fixture(scope="module")
def squares() -> Iterator[WorkerPool[int, tuple[int, int]]]:
    pool: WorkerPool[int, tuple[int, int]] = WorkerPool(2, _square)
    yield pool
    pool.close()


def _wait_for_workers(pool: WorkerPool[int, tuple[int, int]]) -> None:
    for _ in range(200):
        if len({process for _, (_, process) in pool.map(range(12), _square_slowly)}) == 3:
            return
    pytest.fail("the worker processes did not start")


def test_every_task_is_done_once_here_and_in_the_workers(squares: WorkerPool[int, tuple[int, int]]) -> None:
    _wait_for_workers(squares)
    results = dict(squares.map(range(40), _square_slowly))
    assert {number: square for number, (square, _) in results.items()} == {n: n * n for n in range(40)}
    assert len({process for _, process in results.values()}) == 3
    assert MAIN in {process for _, process in results.values()}
    assert list(squares.map([], _square_slowly)) == []


def test_an_abandoned_map_does_not_reach_into_the_next(squares: WorkerPool[int, tuple[int, int]]) -> None:
    _wait_for_workers(squares)
    for count, _ in enumerate(squares.map(range(100, 120), _square_slowly)):
        if count == 3:
            break
    assert {n: square for n, (square, _) in squares.map(range(9), _square_slowly)} == {n: n * n for n in range(9)}


def test_maps_that_overlap_do_not_disturb_each_other(squares: WorkerPool[int, tuple[int, int]]) -> None:
    _wait_for_workers(squares)
    abandoned = squares.map(range(100, 120), _square_slowly)
    next(abandoned)
    inner = squares.map(range(40), _square_slowly)
    results = [next(inner)]
    # e.g. when the traceback that kept it is forgotten
    del abandoned
    gc.collect()
    outer = squares.map(range(40, 60), _square_slowly)
    both = zip(outer, inner, strict=False)
    for of_outer, of_inner in both:
        results += [of_inner]
        assert of_outer[1][0] == (of_outer[0] + 40) ** 2
    results += list(inner)
    assert {number: square for number, (square, _) in results} == {n: n * n for n in range(40)}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_works_alone(squares: WorkerPool[int, tuple[int, int]]) -> None:
    _wait_for_workers(squares)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        done = list(squares.map(range(6), _square_slowly))
        os._exit(0 if done == [(n, (n * n, os.getpid())) for n in range(6)] else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0


def test_an_error_of_a_task_is_raised_here_and_the_pool_goes_on() -> None:
    pool: WorkerPool[int, int] = WorkerPool(1, _fussy)
    try:
        for _ in range(3):
            with pytest.raises(ValueError, match="seven is too much"):
                list(pool.map(range(30), _refuse_seven))
        assert dict(pool.map(range(5), _refuse_seven)) == {n: n for n in range(5)}
    finally:
        pool.close()


def test_when_a_worker_is_killed_the_main_process_does_the_rest() -> None:
    pool: WorkerPool[tuple[int, int], int] = WorkerPool(1, _mortal)
    tasks = [(number, MAIN) for number in range(25)]

    def until_the_worker_died() -> None:
        deadline = time.monotonic() + 60
        while not pool.broken and time.monotonic() < deadline:
            # the task that the worker dies of is done here
            assert dict(pool.map(tasks, _die_elsewhere)) == {number: number for number in range(25)}

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            until_the_worker_died()
            for _ in range(2):
                assert dict(pool.map(tasks[:3], _die_elsewhere)) == {0: 0, 1: 1, 2: 2}
        assert "goes on alone" in str(caught[0].message)
        assert len(caught) == 1
        assert pool.n_elsewhere == 0
    finally:
        pool.close()


def _bytes_of(stack: HeadStack) -> list[bytes]:
    tensors = [*stack.weights, *(bias for bias in stack.biases if bias is not None)]
    return [tensor.numpy().tobytes() for tensor in tensors] + [stack.train_loss.tobytes(), stack.epochs.tobytes()]


def _population(encoding: str, hidden: tuple[int, ...]) -> tuple[HeadShape, list[HeadMask]]:
    shape = HeadShape(21, hidden, 3)
    chosen = make_encoding(encoding, shape)
    generator = np.random.default_rng(5)
    return shape, [chosen.decode(generator.random(chosen.n_bits) < share) for share in np.linspace(0, 1, 17)]


@pytest.mark.parametrize(
    ("encoding", "hidden"),
    [("features", (16,)), ("connections", (5,))],
)
def test_heads_do_not_depend_on_the_number_of_processes(
    encoding: str, hidden: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moevoprune.heads.trainer._SECONDS_ALONE", 0.0)
    generator = np.random.default_rng(2)
    features = generator.normal(size=(70, 21)).astype(np.float32)
    labels = generator.integers(0, 3, 70)
    settings = HeadSettings(hidden=hidden, epochs=30, batch_size=16, early_stop="training", patience=3)
    shape, masks = _population(encoding, hidden)
    rows = [np.arange(50), np.arange(15, 70)]
    alone = PopulationTrainer(features, labels, shape, settings, 4, "cpu")
    several = PopulationTrainer(features, labels, shape, settings, 4, "cpu", jobs=3)
    try:
        expected = [_bytes_of(stack) for stack in alone.fit(masks, rows)]
        deadline, trained_elsewhere = time.monotonic() + 60, 0
        while not trained_elsewhere and time.monotonic() < deadline:
            for stack, mask, known in zip(several.fit(masks, rows), masks, expected, strict=True):
                assert stack.mask is mask
                assert _bytes_of(stack) == known
            pool = several._pool
            assert pool is not None
            trained_elsewhere = pool.n_elsewhere
        assert trained_elsewhere > 0
    finally:
        several.close()
        alone.close()


def test_a_script_without_a_guard_may_use_workers(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(
        "import numpy as np\n"
        "from moevoprune.heads.encodings import HeadShape, make_encoding\n"
        "from moevoprune.heads.settings import HeadSettings\n"
        "from moevoprune.heads import trainer as module\n"
        "from moevoprune.heads.trainer import PopulationTrainer\n"
        "module._SECONDS_ALONE = 0.0\n"
        "print('started')\n"
        "rng = np.random.default_rng(0)\n"
        "shape = HeadShape(9, (4,), 2)\n"
        "encoding = make_encoding('features', shape)\n"
        "masks = [encoding.decode(rng.random(9) < 0.5) for _ in range(20)]\n"
        "trainer = PopulationTrainer(rng.normal(size=(40, 9)).astype('f4'), rng.integers(0, 2, 40), shape,\n"
        "                            HeadSettings(hidden=(4,), epochs=3), 1, 'cpu', jobs=2)\n"
        "for _ in range(20):\n"
        "    assert len(list(trainer.fit(masks, [np.arange(40)]))) == 20\n"
        "print('done')\n"
    )
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "started\ndone\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_end_with_a_main_process_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(
        "import functools, os, signal, time\n"
        "from moevoprune.heads.workers import WorkerPool\n"
        "def main():\n"
        "    pool = WorkerPool(2, functools.partial(getattr, time, 'sleep'))\n"
        "    while pool.n_elsewhere < 4:\n"
        "        list(pool.map([0.01] * 12, time.sleep))\n"
        "    print(*pool._executor._processes, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "main()\n"
    )
    # not a pipe: it would stay open as long as the workers live
    with open(tmp_path / "out", "w+") as out:
        subprocess.run([sys.executable, str(script)], stdout=out, timeout=60, check=False)
        out.seek(0)
        workers = [Path(f"/proc/{process}/cmdline") for process in out.read().split()]
    assert len(workers) == 2

    def alive() -> bool:
        # that of a dead one that nobody has waited for is empty
        return any(worker.exists() and worker.read_bytes() for worker in workers)

    deadline = time.monotonic() + 30
    while alive() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive()


def test_little_work_starts_no_process() -> None:
    shape, masks = _population("features", (4,))
    rng = np.random.default_rng(0)
    settings = HeadSettings(hidden=(4,), epochs=1)
    features = rng.normal(size=(30, 21)).astype(np.float32)
    trainer = PopulationTrainer(features, rng.integers(0, 3, 30), shape, settings, 1, "cpu", jobs=4)
    assert len(list(trainer.fit(masks, [np.arange(30)]))) == len(masks)
    assert trainer._pool is None


def test_a_pool_that_nobody_closed_goes_quietly(squares: WorkerPool[int, tuple[int, int]]) -> None:
    _wait_for_workers(squares)
    pool: WorkerPool[int, tuple[int, int]] = WorkerPool(1, _square)
    deadline = time.monotonic() + 60
    while not pool.n_elsewhere and time.monotonic() < deadline:
        list(pool.map(range(4), _square_slowly))
    for number, _ in pool.map(range(50), _square_slowly):
        if number > 3:
            break
    executor = pool._executor
    del pool
    gc.collect()
    deadline = time.monotonic() + 30
    while executor._processes and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not executor._processes


def test_threads_of_this_process_are_left_alone(squares: WorkerPool[int, tuple[int, int]]) -> None:
    before = torch.get_num_threads()
    list(squares.map(range(3), _square_slowly))
    assert torch.get_num_threads() == before
