"""The members of a front that are worth naming, so that figures and report name the same ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moevoprune.fronts.explanation import quality_objective
from moevoprune.fronts.front import Front

__all__ = ["CLOSE", "Landmarks", "find_landmarks", "staircase"]

CLOSE = 0.01
"""Members no further than this from the best, in the quality objective, are as good for practical purposes."""


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Members of a front by what they are; one member can be several.

    Attributes
    ----------
    quality
        The objective that says how good a head is, see
        :func:`moevoprune.fronts.explanation.quality_objective`.
    stairs
        Members that no other one of their size or smaller beats in it, see :func:`staircase`, shape (n,).
    knee
        The member nearest to the ideal point.
    close
        The smallest member within :data:`CLOSE` of the best.
    best
        The best member; of equals the smallest.
    smallest
        The best of the smallest members.
    """

    quality: str
    stairs: npt.NDArray[np.int64]
    knee: int
    close: int
    best: int
    smallest: int


def find_landmarks(front: Front) -> Landmarks:
    """Find the members worth naming.

    Parameters
    ----------
    front
        With at least one member.

    Raises
    ------
    InputError
        The front has no members.
    """
    knee, quality = front.knee(), quality_objective(front)
    losses = front.F[:, front.objectives.index(quality)]
    stairs = staircase(front.active, losses)
    if len(stairs) == 0:
        # not one value is finite
        return Landmarks(quality, stairs, knee, knee, knee, knee)
    best = stairs[-1]
    close = stairs[losses[stairs] <= losses[best] + CLOSE][0]
    return Landmarks(quality, stairs, knee, int(close), int(best), int(stairs[0]))


def staircase(sizes: npt.NDArray[np.int64], losses: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Find the members that no other one of their size or smaller beats in a loss, the smallest first.

    Parameters
    ----------
    sizes
        Active bits of the members, shape (members,).
    losses
        What is to be small, shape (members,). Members whose loss is not finite are on no stair.

    Returns
    -------
    ndarray, shape (n,)
        Their numbers, with rising sizes and falling losses; of equals the first one.
    """
    steps: list[int] = []
    for member in np.lexsort((losses, sizes)).tolist():
        if np.isfinite(losses[member]) and (not steps or losses[member] < losses[steps[-1]]):
            steps.append(member)
    return np.array(steps, dtype=np.int64)
