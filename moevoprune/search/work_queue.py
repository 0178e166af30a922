"""Who does which chunk next: a work queue that gives away what waits behind a slow worker, and loses nothing."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Hashable

__all__ = ["DEPTH", "PATIENCE", "WorkQueue"]

DEPTH = 2
"""Chunks that a worker holds at most: one that it does, and one that travels meanwhile."""

PATIENCE = 3.0
"""A chunk is late after so many times the median time of a chunk."""


class WorkQueue:
    """Chunks 0 to n - 1, each to be finished once.

    Chunks are handed out in their order. Once all are, a worker without work is given a chunk that waits behind
    another on its worker, else one that its worker has been at for long; whoever finishes first has done it. Time
    is what the caller says it is.

    Parameters
    ----------
    n_chunks
        How many there are.
    seconds
        Times of chunks like these, where some are known; those of this queue are added. None for none.
    """

    def __init__(self, n_chunks: int, seconds: deque[float] | None = None) -> None:
        self._waiting = deque(range(n_chunks))
        self._held: dict[Hashable, list[int]] = {}
        # since when a worker is at the first of the chunks that it holds
        self._since: dict[Hashable, float] = {}
        # how many workers hold a chunk
        self._holders = [0] * n_chunks
        self._unfinished = set(range(n_chunks))
        self._seconds: deque[float] = deque(maxlen=1000) if seconds is None else seconds

    @property
    def is_finished(self) -> bool:
        """Whether every chunk is."""
        return not self._unfinished

    @property
    def is_handed_out(self) -> bool:
        """Whether no chunk waits for its first worker."""
        return not self._waiting

    def take(self, worker: Hashable, now: float) -> int | None:
        """Give a worker a chunk.

        Parameters
        ----------
        worker
            Who asks.
        now
            The time, in seconds.

        Returns
        -------
        int or None
            None where the worker holds enough, or nothing is left that it could help with.
        """
        held = self._held.get(worker, [])
        if len(held) >= DEPTH:
            return None
        chunk = None
        if self._waiting:
            chunk = self._waiting.popleft()
        elif not held:
            chunk = self._behind_another()
            chunk = self._late(now) if chunk is None else chunk
        if chunk is None:
            return None
        if not held:
            self._since[worker] = now
        self._held[worker] = [*held, chunk]
        self._holders[chunk] += 1
        return chunk

    def finish(self, worker: Hashable, chunk: int, now: float) -> bool:
        """Note that a worker has finished a chunk.

        Returns
        -------
        bool
            Whether it was the first to finish it.
        """
        held = self._held.get(worker, [])
        if held and held[0] == chunk:
            self._seconds.append(now - self._since[worker])
        self._release(worker, chunk, now)
        first = chunk in self._unfinished
        self._unfinished.discard(chunk)
        return first

    def drop(self, worker: Hashable, chunk: int, now: float) -> None:
        """Note that a worker will not finish a chunk; where nobody else holds it, it is handed out next."""
        self._release(worker, chunk, now)
        if chunk in self._unfinished and not self._holders[chunk]:
            self._waiting.appendleft(chunk)

    def lose(self, worker: Hashable, now: float) -> None:
        """Note that a worker is gone, with all that it held."""
        for chunk in reversed(self._held.get(worker, [])):
            self.drop(worker, chunk, now)
        self._held.pop(worker, None)
        self._since.pop(worker, None)

    def _release(self, worker: Hashable, chunk: int, now: float) -> None:
        held = self._held.get(worker, [])
        if chunk in held:
            if held[0] == chunk:
                self._since[worker] = now
            self._held[worker] = [other for other in held if other != chunk]
            self._holders[chunk] -= 1

    def _behind_another(self) -> int | None:
        """A chunk that waits on a worker that is at another one; of those the worker longest at it."""
        waiting = [
            (self._since[worker], held[-1])
            for worker, held in self._held.items()
            if len(held) > 1 and self._may_be_copied(held[-1])
        ]
        return min(waiting)[1] if waiting else None

    def _late(self, now: float) -> int | None:
        """A chunk that a worker has been at for much longer than chunks take."""
        if not self._seconds:
            return None
        limit = now - PATIENCE * statistics.median(self._seconds)
        late = [
            (self._since[worker], held[0])
            for worker, held in self._held.items()
            if held and self._since[worker] < limit and self._may_be_copied(held[0])
        ]
        return min(late)[1] if late else None

    def _may_be_copied(self, chunk: int) -> bool:
        return chunk in self._unfinished and self._holders[chunk] == 1
