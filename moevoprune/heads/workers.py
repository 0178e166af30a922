"""Worker processes that train heads beside the main one."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any, Generic, TypeVar

from moevoprune.errors import RunWarning
from moevoprune.memory import is_out_of_memory

__all__ = ["WorkerPool"]

_SHORT = "not enough memory for all processes that train heads"

Task = TypeVar("Task")
Result = TypeVar("Result")


class _Run(Generic[Task, Result]):
    """Tasks of one call of ``map``; the lock of its pool is held where it is read or changed."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.waiting = deque(enumerate(tasks))
        self.results: dict[int, Result] = {}
        self.errors: list[BaseException] = []


# of a worker process: what carries out its tasks
_carry_out: Callable[[Any], Any] | None = None


class WorkerPool(Generic[Task, Result]):
    """Carries out tasks in this process and in others, each as soon as it has nothing to do.

    Processes, not threads: a head's steps are many small operations, and threads would wait for one another's
    turn in the interpreter. The processes start in the background while this one works already, and stay until
    the pool is closed or the program ends. Should they die, or memory be refused, this process goes on alone.

    Parameters
    ----------
    n_workers
        Processes beside this one, at least 1.
    make
        Makes, in a worker, the function that carries out a task; must be picklable, and so must tasks and results.

    Attributes
    ----------
    n_elsewhere
        Tasks that workers have carried out.
    broken
        Whether the workers died or were given up, and this process is alone.
    """

    def __init__(self, n_workers: int, make: Callable[[], Callable[[Task], Result]]) -> None:
        # takes a moment to import, and most programs need no workers
        from loky import ProcessPoolExecutor  # type: ignore[import-untyped]

        environment = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        self._executor = ProcessPoolExecutor(
            max_workers=n_workers, initializer=_start_worker, initargs=(make, os.getpid()), env=environment
        )
        self._lock = threading.Condition()
        self._ready = self._in_flight = 0
        self.n_elsewhere = 0
        self.broken = self._said = False
        self._why = "a process that trains heads died (out of memory?)"
        # calls of map that are not over; the latest is served first, as an older one may be abandoned
        self._runs: list[_Run[Task, Result]] = []
        self._process = os.getpid()
        self._close = weakref.finalize(self, _shut_down, self._executor, self._process)
        for _ in range(n_workers):
            self._executor.submit(os.getpid).add_done_callback(self._on_start)

    def map(self, tasks: Sequence[Task], work: Callable[[Task], Result]) -> Iterator[tuple[int, Result]]:
        """Carry out tasks, the first ones first.

        Parameters
        ----------
        tasks
            What is to be done.
        work
            Carries out a task in this process.

        Yields
        ------
        number, result
            In the order in which they are done.

        Raises
        ------
        Exception
            Whatever a task raised, here or in a worker.
        """
        run: _Run[Task, Result] = _Run(tasks)
        if os.getpid() != self._process:
            # a forked child: the workers are its parent's
            yield from ((number, work(task)) for number, task in run.waiting)
            return
        with self._lock:
            self._runs.append(run)
            self._hand_out()
        missing = len(tasks)
        try:
            while missing:
                self._say_once()
                with self._lock:
                    while not (run.results or run.waiting or run.errors):
                        # woken now and then, so that Ctrl-C is noticed
                        self._lock.wait(timeout=1.0)
                    if run.errors:
                        raise run.errors[0]
                    ready, run.results = run.results, {}
                    own = None if ready or not run.waiting else run.waiting.popleft()
                for number, result in ready.items():
                    missing -= 1
                    yield number, result
                if own is not None:
                    missing -= 1
                    yield own[0], work(own[1])
        finally:
            with self._lock:
                # nobody waits for what is still under way
                self._runs.remove(run)

    def retreat(self) -> bool:
        """End the workers for the memory that they hold; what they were at is done here.

        Returns
        -------
        bool
            Whether there were any left.
        """
        with self._lock:
            if self.broken:
                return False
            self._give_up(_SHORT)
        _shut_down(self._executor, self._process)
        self._say_once()
        return True

    def close(self) -> None:
        """End the worker processes, and wait for that."""
        self._close()
        self._executor.shutdown(wait=True, kill_workers=True)

    def _hand_out(self) -> None:
        """Give waiting tasks to idle workers; the lock is held."""
        for run in reversed(self._runs):
            while run.waiting and self._has_room(len(run.waiting)) and not self.broken:
                number, task = run.waiting.popleft()
                try:
                    future = self._executor.submit(_work, task)
                except (BrokenProcessPool, RuntimeError):
                    run.waiting.appendleft((number, task))
                    self._give_up()
                    return
                self._in_flight += 1
                future.add_done_callback(partial(self._on_done, run, number, task))

    def _has_room(self, n_waiting: int) -> bool:
        """Whether to send another task: but at the end a second one to each worker, so that none waits for it."""
        second = n_waiting > 2 * (self._ready + 1)
        return self._in_flight < self._ready * (2 if second else 1)

    def _on_start(self, done: Future[int]) -> None:
        with self._lock:
            if done.cancelled() or done.exception() is not None:
                self._give_up()
                return
            self._ready += 1
            self._hand_out()

    def _on_done(self, run: _Run[Task, Result], number: int, task: Task, done: Future[Result]) -> None:
        with self._lock:
            self._in_flight -= 1
            error = None if done.cancelled() else done.exception()
            short = error is not None and not self.broken and is_out_of_memory(error)
            dead = done.cancelled() or (error is not None and self.broken) or isinstance(error, BrokenProcessPool)
            lost = short or dead
            if lost:
                # done here then, where it fails again if it must
                run.waiting.appendleft((number, task))
            elif error is not None:
                run.errors.append(error)
            else:
                run.results[number] = done.result()
                self.n_elsewhere += 1
            if lost:
                self._give_up(_SHORT if short else self._why)
            else:
                self._hand_out()
            self._lock.notify_all()
        if short:
            _shut_down(self._executor, self._process)

    def _give_up(self, why: str | None = None) -> None:
        self.broken = True
        self._why = why or self._why
        self._lock.notify_all()

    def _say_once(self) -> None:
        """Warn of lost workers, in the thread that asked for the work."""
        if self.broken and not self._said and self._close.alive:
            self._said = True
            warnings.warn(f"{self._why}: this one goes on alone; use fewer --jobs", RunWarning, stacklevel=3)


def _start_worker(make: Callable[[], Callable[[Any], Any]], main_process: int) -> None:
    global _carry_out
    # a main process that is killed cannot end its workers, and nothing else tells them
    threading.Thread(target=_end_with, args=(main_process,), daemon=True).start()
    # Ctrl-C reaches every process of the terminal; the main one says what happens then
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _carry_out = make()


def _end_with(main_process: int) -> None:
    # on Windows the number of the process that started this one never changes
    while os.getppid() == main_process:
        time.sleep(1.0)
    os._exit(1)


def _work(task: Any) -> Any:
    if _carry_out is None:
        raise RuntimeError("the worker process was not started")
    return _carry_out(task)


def _shut_down(executor: Any, process: int) -> None:
    # a forked child holds a copy of the pool that is not its own; no waiting, as the last one to know the pool may
    # be the thread that manages the processes
    if os.getpid() == process:
        executor.shutdown(wait=False, kill_workers=True)
