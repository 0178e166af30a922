"""What is done where memory is refused: half as much at once, which is said once, in one line."""

from __future__ import annotations

import gc
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from moevoprune.errors import InputError, RunWarning

__all__ = ["Chunk", "NotEnoughMemory", "is_out_of_memory", "refused_size", "say_fewer"]

Result = TypeVar("Result")

# PyTorch on CPUs (Linux, Windows) and CUDA, the libraries it calls, and C++: few have a class of their own
_SAID = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "bad_alloc",
    "bad allocation",
    "alloc_failed",
)
_ASKED = re.compile(r"(?:allocate|allocating) (\d+(?:\.\d+)?) ?(bytes|[KMGT]iB)", re.IGNORECASE)
_UNITS = {"bytes": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


class NotEnoughMemory(InputError):
    """Memory was refused for the smallest part that a piece of work can be divided into."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was refused: NumPy's and Python's, or PyTorch's on a CPU or on CUDA."""
    if isinstance(error, MemoryError | NotEnoughMemory):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error).lower() for said in _SAID)


def refused_size(error: BaseException) -> str:
    """What was asked for, e.g. ``"3.2 GB"``; empty where the error does not say."""
    asked = _ASKED.search(str(error))
    if asked is None:
        return ""
    size = float(asked[1]) * _UNITS[asked[2].lower()]
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def say_fewer(what: str, effect: str = "changes nothing else") -> None:
    """Warn that fewer things than planned are computed at once.

    Parameters
    ----------
    what
        The things, with a verb.
    effect
        What that does, besides taking longer.
    """
    warnings.warn(
        f"not enough memory to {what} side by side as planned: going on with fewer at a time, which takes longer "
        f"and {effect}",
        RunWarning,
        stacklevel=3,
    )


class Chunk:
    """How many things are computed at once: half as many whenever memory is refused, from then on.

    Results must not depend on it. That there are fewer is said once, as a :class:`~moevoprune.errors.RunWarning`.

    Parameters
    ----------
    what
        The things, with a verb, for the warning: e.g. ``"train heads"``.
    free
        Gives memory back that is kept for later; called after each refusal.
    relieve
        Called where memory is refused for a single thing: gives up whatever can be done without, and returns
        whether there was anything; it is then tried once more.
    """

    def __init__(
        self,
        what: str,
        free: Callable[[], None] | None = None,
        relieve: Callable[[], bool] | None = None,
    ) -> None:
        self._what = what
        self._free = free
        self._relieve = relieve
        self._said = False
        self.most: int | None = None

    def of(self, planned: int) -> int:
        """How many of the planned things to compute at once, at least 1."""
        return max(planned if self.most is None else min(planned, self.most), 1)

    def adopt(self, most: int | None) -> None:
        """Keep to what others found to be possible, e.g. worker processes; None where memory sufficed them."""
        if most is not None and (self.most is None or most < self.most):
            self.most = most
            self._say()

    def work(
        self, planned: int, compute: Callable[[int], Sequence[Result]], one: Callable[[], str]
    ) -> list[Result]:
        """Do a piece of work, with fewer things at once each time that memory is refused.

        Parameters
        ----------
        planned
            Things to compute at once where there is enough memory.
        compute
            Given how many to compute at once, does all the work; called again from the start after a refusal.
        one
            Describes a single thing, where not even that can be computed: what it is, and what to do.

        Raises
        ------
        NotEnoughMemory
            Memory was refused for a single thing.
        """
        return list(self.stream(planned, lambda done, most: iter(compute(most)), one))

    def stream(
        self, planned: int, compute: Callable[[int, int], Iterator[Result]], one: Callable[[], str]
    ) -> Iterator[Result]:
        """As :meth:`work`, for results that are handed out one by one.

        Parameters
        ----------
        planned, one
            As for :meth:`work`.
        compute
            Given how many results there are already and how many to compute at once, yields those that follow.

        Yields
        ------
        object
            All results, in order.

        Raises
        ------
        NotEnoughMemory
            As for :meth:`work`.
        """
        done = 0
        while True:
            most = self.of(planned)
            try:
                for result in compute(done, most):
                    done += 1
                    yield result
                return
            except Exception as error:
                if isinstance(error, NotEnoughMemory) or not is_out_of_memory(error):
                    raise
                refused = refused_size(error)
            # after the except clause, whose exception keeps the arrays of its frames alive
            self._shrink(most, refused, one)

    def _shrink(self, most: int, refused: str, one: Callable[[], str]) -> None:
        gc.collect()
        if self._free is not None:
            self._free()
        if most > 1:
            self.adopt(most // 2)
        elif self._relieve is None or not self._relieve():
            size = f" ({refused} were refused)" if refused else ""
            raise NotEnoughMemory(f"not enough memory for {one()}{size}")

    def _say(self) -> None:
        if not self._said:
            self._said = True
            say_fewer(self._what)
