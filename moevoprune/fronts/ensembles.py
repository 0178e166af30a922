"""Which members of a front are to vote together: chosen by their predictions for validation rows alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError, nearest
from moevoprune.fronts.ensemble_pool import Pool, Votes
from moevoprune.fronts.ensemble_ways import (
    all_way,
    default_way,
    diverse_way,
    greedy_way,
    knee_way,
    union_way,
    window_way,
)
from moevoprune.fronts.front import Front
from moevoprune.heads.ensemble import HeadEnsemble, Voting, normalised_weights

__all__ = [
    "DEFAULT_HOW",
    "WAYS",
    "Chosen",
    "Way",
    "choose_from",
    "choose_members",
    "make_ensemble",
]

Indices = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

#: What a way is: a function of a pool, and options, that gives votes and how the members were chosen, for people.
Way = Callable[..., tuple[Votes, str]]

DEFAULT_HOW = "default"

#: Ways to choose members, by name.
WAYS: dict[str, Way] = {
    DEFAULT_HOW: default_way,
    "all": all_way,
    "window": window_way,
    "knee": knee_way,
    "greedy": greedy_way,
    "diverse": diverse_way,
    "union": union_way,
}


@dataclass(frozen=True, eq=False)
class Chosen:
    """Members of a front that are to vote.

    Attributes
    ----------
    members
        Their numbers in the front, rising, shape (k,), k >= 1.
    weights
        Weight of each, above 0, with a sum of 1, shape (k,).
    how
        How they were chosen, for people.
    """

    members: Indices
    weights: Values
    how: str


def choose_members(front: Front, /, how: str = DEFAULT_HOW, **options: Any) -> Chosen:
    """Choose members of a front to vote together, by their predictions for validation rows alone.

    Members whose validation outputs or weights are not finite never take part.

    Parameters
    ----------
    front
        With predictions.
    how
        Name of a way in :data:`WAYS`:

        ``default``
            See :func:`.default_way`.
        ``all``
            Every member.
        ``window``
            Those in a window of validation accuracy (MO-EvoPruneDeepTL): see :func:`.window_way`.
        ``knee``
            Those nearest to the knee: see :func:`.knee_way`.
        ``greedy``
            Ensemble selection (Caruana et al., 2004): see :func:`.greedy_way`.
        ``diverse``
            Those that disagree most among the accurate: see :func:`.diverse_way`.
        ``union``
            The best within a number of features: see :func:`.union_way`.
    options
        Options of that way.

    Raises
    ------
    InputError
        There is no such way or option, an option cannot be used, the front has no validation predictions, or no
        member can be chosen.
    """
    return choose_from(Pool.of(front), how, **options)


def choose_from(pool: Pool, /, how: str = DEFAULT_HOW, **options: Any) -> Chosen:
    """As :func:`choose_members`, from what has been taken from a front already."""
    if not isinstance(how, str) or how not in WAYS:
        hint = nearest(how, WAYS) if isinstance(how, str) else ""
        raise InputError(f"no way {how!r} to choose members{hint}: use one of {', '.join(WAYS)}")
    way = WAYS[how]
    # the first parameter is the pool
    known = list(inspect.signature(way).parameters)[1:]
    for name in options:
        if name not in known:
            hint = nearest(name, known) or (f"; it has {', '.join(known)}" if known else "; it has none")
            raise InputError(f"the way {how!r} to choose members has no option {name!r}{hint}")
    votes, text = way(pool, **options)
    voters = np.flatnonzero(votes)
    return Chosen(pool.members[voters], normalised_weights(votes[voters], len(voters)), text)


def make_ensemble(front: Front, how: str = DEFAULT_HOW, voting: Voting = "soft", **options: Any) -> HeadEnsemble:
    """Let chosen members of a front vote.

    Parameters
    ----------
    front
        With predictions.
    how, options
        As in :func:`choose_members`.
    voting
        ``"soft"`` or ``"hard"``, see :class:`moevoprune.heads.ensemble.HeadEnsemble`.

    Raises
    ------
    InputError
        As :func:`choose_members`, or the members cannot vote in that way.
    """
    chosen = choose_members(front, how, **options)
    return HeadEnsemble([front.heads[member] for member in chosen.members], chosen.weights, voting)
