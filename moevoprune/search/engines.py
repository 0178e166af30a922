"""Engines: where masks are trained and scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError, nearest
from moevoprune.search.fitness import FitnessEvaluator

__all__ = ["ENGINES", "Engine", "EngineMaker", "make_engine"]

Bits = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]

ENGINES = ("local", "ray")
"""Engines by name."""


class Engine(Protocol):
    """What trains and scores masks.

    A mask's values depend on mask, data, settings and seed alone, so any engine gives what any other gives, in the
    same order. The local engine is the :class:`~moevoprune.search.fitness.FitnessEvaluator` itself.
    """

    def evaluate(self, bits: Bits) -> Iterator[tuple[Values, bool]]:
        """Train and score masks.

        Parameters
        ----------
        bits
            Shape (n, n_bits).

        Yields
        ------
        values, diverged
            For each mask in turn: objective values in natural units, shape (n_obj,), and whether training
            diverged.
        """
        ...

    def close(self) -> None:
        """Give back processes and machines; may be called again."""
        ...


EngineMaker = Callable[[FitnessEvaluator], Engine]
"""Makes an engine for what an evaluator evaluates."""


def make_engine(engine: str | EngineMaker, fitness: FitnessEvaluator) -> Engine:
    """Make an engine by name, or in a user's own way.

    Parameters
    ----------
    engine
        ``"local"``: in this process and the worker processes of the evaluator. ``"ray"``: actors of a Ray that is
        running in this process already or is started on this machine. Or a function of the evaluator, e.g.
        ``lambda fitness: RayEngine(fitness, address="auto")``.
    fitness
        What the masks are evaluated by.

    Raises
    ------
    InputError
        There is no such engine, or it cannot be started.
    """
    if callable(engine):
        return engine(fitness)
    if engine == "local":
        return fitness
    if engine == "ray":
        from moevoprune.search.ray_engine import RayEngine

        return RayEngine(fitness)
    known = ", ".join(ENGINES)
    hint = nearest(engine, ENGINES) if isinstance(engine, str) else ""
    raise InputError(f"engine = {engine!r}{hint}: use one of {known}, or a function of the evaluator")
