"""Masks trained and scored by actors of a Ray cluster.

Each actor holds the features, one device and a :class:`~moevoprune.search.fitness.FitnessEvaluator` of the same
recipe as the driver's. A generation is cut into small chunks, which go to whichever actor is free. Values do not
depend on who computed them, so a chunk may be done twice or again: that is how slow and lost actors are made up
for.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from moevoprune.device import usable_cores
from moevoprune.errors import InputError, whole_number, words_of
from moevoprune.features.feature_set import FeatureSet
from moevoprune.search.fitness import FitnessEvaluator
from moevoprune.search.work_queue import DEPTH, WorkQueue

__all__ = ["INSTALL_RAY", "RayEngine", "connect", "disconnect", "import_ray"]

Bits = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

INSTALL_RAY = 'pip install "moevoprune[ray]"'

# outputs of a mask on its validation rows travel back with its values up to this size; the few masks of the front
# are cheaper trained once more than those of every mask are sent
_MOST_OUTPUT_BYTES = 2**18
# a CPU actor's chunks per generation: enough that the last ones end at about the same time
_CHUNKS_PER_ACTOR = 4
# lost actors in a row without a chunk finished between, for each actor
_MOST_LOST = 3
_MOST_ACTORS = 100_000
# longest wait without looking for what is late, in seconds
_WAIT = 0.5


def import_ray() -> Any:
    """Import Ray.

    Raises
    ------
    InputError
        It is not installed; the message says how to.
    """
    try:
        import ray
    except ImportError as error:
        missing = "" if error.name == "ray" else f" ({words_of(error)})"
        raise InputError(f"Ray is needed here, but is not installed{missing}: {INSTALL_RAY}") from None
    if not hasattr(ray, "init"):
        # a folder called "ray" where Python looks for packages is one, too
        where = next(iter(ray.__path__))
        raise InputError(f"Ray is needed here, but {where} is imported in its place: rename it; {INSTALL_RAY}")
    return ray


class _Connection:
    """How many in this process use a Ray that we have started ourselves: the last one ends it."""

    users = 0


def connect(address: str | None = None, cores: int | None = None) -> Any:
    """Connect this process to a Ray.

    Parameters
    ----------
    address
        ``"auto"`` for the cluster that this machine belongs to, ``HOST:PORT`` of a head node, or
        ``ray://HOST:PORT``. None: what the process is connected to already, else a Ray of its own on this machine,
        which :func:`disconnect` ends.
    cores
        CPU cores that a Ray of its own may use; None for all that this process may.

    Returns
    -------
    module
        Ray.

    Raises
    ------
    InputError
        Ray is not installed, or the cluster does not answer.
    """
    ray = import_ray()
    if ray.is_initialized():
        # whoever connected ends it, unless that was one of us
        _Connection.users += _Connection.users > 0
        return ray
    if address is not None:
        _check_port(address)
    with _quiet():
        try:
            if address is None:
                ray.init(
                    address="local",
                    num_cpus=cores or usable_cores(),
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            else:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            if address is None:
                raise InputError(f"Ray could not be started on this machine ({words_of(error)})") from None
            raise _not_reached(address, words_of(error)) from None
    _Connection.users = 1
    return ray


def _check_port(address: str) -> None:
    """Ask at an address whether anybody is there: Ray itself would ask for minutes."""
    if address == "auto":
        address = _found()
        if address == "auto":
            return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not host or not port.isdecimal():
        raise InputError(f"address = {address!r}: use auto, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise _not_reached(address, words_of(error)) from None


def _found() -> str:
    """Where Ray would look with ``auto``: that may be a cluster which ended without saying so."""
    try:
        from ray._private.services import canonicalize_bootstrap_address

        return canonicalize_bootstrap_address("auto") or "auto"
    except Exception:  # not a public function: without it, or an answer, Ray looks for itself
        return "auto"


def _not_reached(address: str, why: str) -> InputError:
    return InputError(
        f"no Ray could be reached at {address} ({why}): start one with `ray start --head`, and give the address "
        "that it says, or auto on one of its machines; where it has a token, set RAY_AUTH_MODE=token here too"
    )


def disconnect() -> None:
    """End what :func:`connect` started; the last user's call does."""
    if _Connection.users == 0:
        return
    _Connection.users -= 1
    if _Connection.users == 0:
        import_ray().shutdown()


@contextmanager
def _quiet() -> Iterator[None]:
    """Start Ray without reports about its use to its makers, and without advice on our terminal."""
    logger, variable = logging.getLogger("ray"), "RAY_USAGE_STATS_ENABLED"
    level, chosen = logger.level, os.environ.get(variable)
    logger.setLevel(logging.ERROR)
    os.environ.setdefault(variable, "0")
    try:
        yield
    finally:
        logger.setLevel(level)
        if chosen is None:
            os.environ.pop(variable, None)


class _Worker:
    """What an actor is: an evaluator."""

    def __init__(self) -> None:
        self._evaluator: FitnessEvaluator | None = None

    def set_up(self, features: FeatureSet, recipe: Mapping[str, Any], device: str) -> dict[str, object]:
        """Make the evaluator; returns what its values depend on."""
        self._evaluator = FitnessEvaluator(features, **recipe, device=device)
        return self._evaluator.identity()

    def score(self, packed: npt.NDArray[np.uint8], n_bits: int, with_outputs: bool) -> _Scored:
        """Train and score the masks of a chunk."""
        if self._evaluator is None:
            raise RuntimeError("the evaluator has not been made")
        bits = np.unpackbits(packed, axis=1, count=n_bits).astype(bool)
        scored = list(self._evaluator.evaluate(bits))
        # they are remembered, so nothing is trained for them
        outputs = np.stack(list(self._evaluator.predict_validation(bits))) if with_outputs else None
        self._evaluator.forget()
        return _Scored(np.stack([values for values, _ in scored]), [diverged for _, diverged in scored], outputs)


@dataclass(frozen=True, eq=False)
class _Scored:
    """A finished chunk: values, shape (masks, n_obj), which masks diverged, and their outputs."""

    values: Values
    diverged: list[bool]
    outputs: Floats | None


@dataclass(eq=False)
class _Actor:
    """An actor, and its tasks in the order in which it does them."""

    handle: Any
    ready: bool = False
    tasks: list[Any] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _Task:
    """A chunk at an actor; of an earlier generation where the queue is not the present one."""

    actor: _Actor
    queue: WorkQueue
    chunk: int


class RayEngine:
    """Trains and scores masks on the actors of a Ray.

    Results and their order are those of the local engine on the same kind of device.

    Parameters
    ----------
    fitness
        Its recipe and features are what the actors work with; its kind of device is the one they use.
    address
        As in :func:`connect`.
    actors
        How many; None for one per GPU of the cluster where the device is CUDA, else one per CPU core. More than
        the cluster has room for join as soon as there is room.
    chunk
        Masks per task; None divides each generation into a few tasks per actor, one on CUDA.
    patience
        Seconds to wait for the first actor.

    Raises
    ------
    InputError
        Ray is not installed or not to be reached, or an objective cannot be sent.
    """

    def __init__(
        self,
        fitness: FitnessEvaluator,
        address: str | None = None,
        actors: int | None = None,
        chunk: int | None = None,
        patience: float = 300.0,
    ) -> None:
        n_actors = None if actors is None else whole_number("actors", actors, 1, _MOST_ACTORS)
        self._chunk = None if chunk is None else whole_number("chunk", chunk, 1)
        self._fitness = fitness
        self._patience = patience
        self._ray = connect(address, n_actors)
        self._closed = False
        self._on_gpu = fitness.device.type == "cuda"
        self._actors: list[_Actor] = []
        self._starting: dict[Any, _Actor] = {}
        self._tasks: dict[Any, _Task] = {}
        self._seconds: deque[float] = deque(maxlen=1000)
        self._lost_in_a_row = 0
        self._waiting_since = time.monotonic()
        try:
            self.n_actors = n_actors or max(1, int(self._room()))
            self._recipe = self._send(fitness.recipe())
            self._features = self._send(fitness.features)
            for _ in range(self.n_actors):
                self._start_actor()
        except BaseException:
            self.close()
            raise

    def evaluate(self, bits: Bits) -> Iterator[tuple[Values, bool]]:
        """Train and score masks, in order; see :meth:`moevoprune.search.engines.Engine.evaluate`.

        Raises
        ------
        InputError
            No actor starts, or they keep dying; or the engine has been closed.
        """
        if self._closed:
            # Ray would start another one by itself
            raise InputError("the engine has been closed: make a new problem")
        size = self._chunk or self._chunk_size(len(bits))
        starts = range(0, len(bits), size)
        queue = WorkQueue(len(starts), self._seconds)
        packed = np.packbits(bits, axis=1)
        finished: dict[int, _Scored | BaseException] = {}
        for chunk, start in enumerate(starts):
            while chunk not in finished:
                self._hand_out(queue, packed, starts, size, bits.shape[1])
                finished.update(self._collect(queue))
            scored = finished.pop(chunk)
            if isinstance(scored, BaseException):
                raise scored
            for row, (values, diverged) in enumerate(zip(scored.values, scored.diverged, strict=True)):
                self._fitness.adopt(bits[start + row], None if scored.outputs is None else scored.outputs[row])
                yield values, diverged

    def close(self) -> None:
        """End the actors, and Ray where it was started for them."""
        if self._closed:
            return
        self._closed = True
        for actor in self._actors:
            self._end(actor)
        self._actors, self._starting, self._tasks = [], {}, {}
        disconnect()

    def _chunk_size(self, n_masks: int) -> int:
        # a GPU trains many masks at once: its tasks had better be large
        tasks = self.n_actors * (1 if self._on_gpu else _CHUNKS_PER_ACTOR)
        return max(1, -(-n_masks // tasks))

    def _room(self) -> float:
        return float(self._ray.cluster_resources().get("GPU" if self._on_gpu else "CPU", 0.0))

    def _send(self, value: Any) -> Any:
        try:
            return self._ray.put(value)
        except (TypeError, AttributeError, ValueError) as error:
            # pickle has no error of its own for it
            raise InputError(
                f"an objective or the features cannot be sent to other processes ({words_of(error)}): write "
                "objectives as functions that hold no open files, locks or models on a device"
            ) from None

    def _start_actor(self) -> None:
        remote = self._ray.remote(_Worker)
        # one core each: what they train on the CPU they train with one thread
        actor = _Actor(remote.options(num_cpus=1, num_gpus=1 if self._on_gpu else 0).remote())
        device = "cuda" if self._on_gpu else "cpu"
        self._starting[actor.handle.set_up.remote(self._features, self._recipe, device)] = actor
        self._actors.append(actor)

    def _end(self, actor: _Actor) -> None:
        with suppress(Exception):  # it may be gone, and Ray too
            self._ray.kill(actor.handle)

    def _hand_out(
        self, queue: WorkQueue, packed: npt.NDArray[np.uint8], starts: range, size: int, n_bits: int
    ) -> None:
        """Give chunks to actors that have room: first one to each, then a second one that waits there."""
        now = time.monotonic()
        with_outputs = self._outputs_travel()
        for n_tasks in range(DEPTH):
            for actor in self._actors:
                if not actor.ready or len(actor.tasks) != n_tasks:
                    continue
                chunk = queue.take(actor, now)
                if chunk is None:
                    # what this one cannot help with no other can
                    break
                rows = packed[starts[chunk] : starts[chunk] + size]
                task = actor.handle.score.remote(rows, n_bits, with_outputs)
                actor.tasks.append(task)
                self._tasks[task] = _Task(actor, queue, chunk)

    def _collect(self, queue: WorkQueue) -> dict[int, _Scored | BaseException]:
        """Wait for something to happen, and return the chunks that are finished now."""
        waiting = [*self._tasks, *self._starting]
        limit = min(_WAIT, self._seconds[-1]) if self._seconds and queue.is_handed_out else _WAIT
        done, _ = self._ray.wait(waiting, num_returns=1, timeout=max(limit, 0.01))
        if len(done) and len(waiting) > 1:
            # one look at all of them is cheaper than one for each
            done, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
        finished: dict[int, _Scored | BaseException] = {}
        for reference in done:
            if reference in self._starting:
                self._welcome(reference, queue)
            elif reference in self._tasks:
                task = self._tasks[reference]
                result = self._result(reference, queue)
                # the other copy's result is the same
                if result is not None and task.queue is queue:
                    finished.setdefault(task.chunk, result)
        if any(actor.ready for actor in self._actors):
            self._waiting_since = time.monotonic()
        else:
            self._check_patience()
        return finished

    def _result(self, reference: Any, queue: WorkQueue) -> _Scored | BaseException | None:
        """Result of a task, or the error that it raised; None where it was cancelled or its actor is gone."""
        errors = self._ray.exceptions
        task, now = self._tasks[reference], time.monotonic()
        result: _Scored | BaseException | None
        try:
            result = self._ray.get(reference)
        except errors.RayTaskError as error:
            result = _cause(error)
        except errors.TaskCancelledError:
            result = None
        except errors.RayError as error:
            self._replace(task.actor, queue, error)
            return None
        del self._tasks[reference]
        task.actor.tasks.remove(reference)
        if result is None:
            task.queue.drop(task.actor, task.chunk, now)
            return None
        self._lost_in_a_row = 0
        first = task.queue.finish(task.actor, task.chunk, now)
        self._cancel_copies(task)
        return result if first else None

    def _cancel_copies(self, finished: _Task) -> None:
        """Cancel other copies of a finished chunk where they have not begun."""
        for reference, task in self._tasks.items():
            if task.queue is finished.queue and task.chunk == finished.chunk and task.actor.tasks[0] != reference:
                self._ray.cancel(reference)

    def _welcome(self, reference: Any, queue: WorkQueue) -> None:
        """An actor has made its evaluator, or could not."""
        actor = self._starting.pop(reference)
        errors = self._ray.exceptions
        try:
            identity = self._ray.get(reference)
        except errors.RayTaskError as error:
            raise _cause(error) from error
        except errors.RayError as error:
            self._replace(actor, queue, error)
            return
        ours = self._fitness.identity()
        different = [
            f"{key}: {value} here, {identity.get(key)} there"
            for key, value in ours.items()
            if value != identity.get(key)
        ]
        if different:
            raise InputError(
                f"an actor would not compute what this machine does ({'; '.join(different[:3])}): install the "
                "same versions on every machine"
            )
        actor.ready = True

    def _replace(self, actor: _Actor, queue: WorkQueue, error: Exception) -> None:
        """Start an actor in the place of one that is gone; its chunks are done again."""
        if actor not in self._actors:
            return
        self._lost_in_a_row += 1
        now = time.monotonic()
        for reference in actor.tasks:
            self._tasks.pop(reference).queue.lose(actor, now)
        queue.lose(actor, now)
        self._starting = {ref: other for ref, other in self._starting.items() if other is not actor}
        self._actors.remove(actor)
        self._end(actor)
        if self._lost_in_a_row > _MOST_LOST * self.n_actors:
            raise InputError(
                f"the actors keep dying ({self._lost_in_a_row} in a row; the last: {words_of(error)}): they may "
                "need more memory than there is (fewer --actors), or an objective ends its process"
            )
        self._start_actor()

    def _check_patience(self) -> None:
        waited = time.monotonic() - self._waiting_since
        if waited > self._patience:
            what = "GPU" if self._on_gpu else "CPU"
            free = float(self._ray.available_resources().get(what, 0.0))
            raise InputError(
                f"no actor has started within {waited:.0f} seconds: the cluster has {self._room():g} {what}s, of "
                f"which {free:g} are free; add machines, or wait until its other work is done"
            )

    def _outputs_travel(self) -> bool:
        fitness = self._fitness
        return len(fitness.predicted) * fitness.features.n_outputs * 4 <= _MOST_OUTPUT_BYTES


def _cause(error: Any) -> BaseException:
    """The error that was raised in an actor, as what it is; its message has no traceback of there."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        cause.__cause__ = error
        return cause
    return RuntimeError(words_of(error))
