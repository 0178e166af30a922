"""Tasks that take minutes, several at a time in processes of their own."""

from __future__ import annotations

import functools
import multiprocessing
import os
import re
import signal
import threading
import unicodedata
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from moevoprune.cli.config import RunConfig
from moevoprune.cli.data import load_data
from moevoprune.errors import InputError
from moevoprune.features import FeatureSet

__all__ = ["features_of", "free_name", "run_tasks"]

Task = TypeVar("Task")
Result = TypeVar("Result")

# libraries read them when they are loaded: too late to change in a process that has loaded them
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

# what Windows takes for a device, whatever folder it is in
_DEVICES = {"con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(1, 10))}


def free_name(source: str, taken: set[str]) -> str:
    """Name a data set after its source, fit for a file name and different from those taken, case aside."""
    # composed, as two spellings of a letter are one file name on some systems; bytes are what file systems count,
    # a name of points is a folder, and one with a dash in front an option
    letters = re.sub(r"[^\w.+-]+", "_", unicodedata.normalize("NFC", Path(source).stem))[:80]
    name = letters.encode("utf-8")[:160].decode("utf-8", "ignore").lstrip(".-").rstrip(".") or "data"
    if name.partition(".")[0].casefold() in _DEVICES:
        name = f"{name}_"
    number, free = 1, name
    while free.casefold() in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def features_of(config: RunConfig, sha256: str) -> FeatureSet:
    """Load the data of settings; those loaded last are kept while this process works on tasks.

    Parameters
    ----------
    config
        The settings.
    sha256
        Content hash that the data must have.

    Raises
    ------
    InputError
        The data cannot be read, or have changed.
    """
    return _features(config.model_copy(update={"seed": 0}).model_dump_json(), sha256)


@functools.lru_cache(maxsize=1)
def _features(settings: str, sha256: str) -> FeatureSet:
    config = RunConfig.model_validate_json(settings)
    features = load_data(config)
    if features.content_hash != sha256:
        raise InputError(f"{config.data.source}: has changed since this started: choose another --out folder")
    return features


def run_tasks(
    carry_out: Callable[[Task], Result], tasks: Sequence[Task], jobs: int
) -> Generator[tuple[Task, Result], None, None]:
    """Carry out tasks, and stop those under way when nobody asks for more.

    Parameters
    ----------
    carry_out
        What is to be done with each; picklable, as are tasks and results, where ``jobs`` is not 1.
    tasks
        In the order in which they begin.
    jobs
        How many at a time, each in a process of its own; one at a time is done in this process.

    Yields
    ------
    task, result
        As they are finished.

    Raises
    ------
    BrokenProcessPool
        A process ended unexpectedly.
    Exception
        What a task raised.
    """
    return _run_here(carry_out, tasks) if jobs == 1 else run_in_processes(carry_out, tasks, jobs)


def _run_here(
    carry_out: Callable[[Task], Result], tasks: Sequence[Task]
) -> Generator[tuple[Task, Result], None, None]:
    try:
        for task in tasks:
            yield task, carry_out(task)
    finally:
        # in a program that goes on, the data need not stay
        _features.cache_clear()


def run_in_processes(
    carry_out: Callable[[Task], Result], tasks: Sequence[Task], jobs: int
) -> Generator[tuple[Task, Result], None, None]:
    """Do what :func:`run_tasks` does, in another process even where it is one at a time."""
    if not tasks:
        return
    ours = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _start_worker)
    try:
        with _sheltered():
            futures: dict[Future[Result], Task] = {pool.submit(carry_out, task): task for task in tasks}
        waiting = set(futures)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            # finished tasks first: one of the others may have failed
            for future in sorted(done, key=lambda future: future.exception() is not None):
                yield futures[future], future.result()
    except BaseException:
        # the workers may have hours of work left that nobody waits for any more
        with _sheltered():
            for process in set(multiprocessing.active_children()) - ours:
                process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown(wait=True)


def _start_worker() -> None:
    """Prepare a worker process: Ctrl-C is the parent's to handle, and no worker outlives it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


@contextmanager
def _sheltered() -> Iterator[None]:
    """Start or stop processes, with a Ctrl-C only afterwards; those started inherit one thread and no Ctrl-C."""
    variables = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    main_thread = threading.current_thread() is threading.main_thread()
    interruptions: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: interruptions.append(number)) if main_thread else None
    # a blocked signal stays blocked in the processes started; of a handler they would know nothing
    blocked = main_thread and hasattr(signal, "pthread_sigmask")
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if blocked else set()
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if blocked:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if main_thread:
            signal.signal(signal.SIGINT, handler if handler is not None else signal.SIG_DFL)
        if interruptions:
            raise KeyboardInterrupt
