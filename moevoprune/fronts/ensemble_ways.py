"""Ways to choose members of a pool: each a function of the pool, and options, that gives votes."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

from moevoprune.errors import InputError, whole_number
from moevoprune.fronts.ensemble_greedy import greedy_votes, loss_of
from moevoprune.fronts.ensemble_pool import FeatureUnion, Pool, Votes
from moevoprune.fronts.predictions import evenly
from moevoprune.search.archive import knee

__all__ = [
    "WINDOWS",
    "all_way",
    "default_way",
    "diverse_way",
    "greedy_way",
    "knee_way",
    "union_way",
    "window_way",
]

# percentiles of the members' accuracies in MO-EvoPruneDeepTL (arXiv 2302.10253)
WINDOWS = tuple((low, low + 10) for low in range(50, 90, 5))

# qualities that differ by less are equal: rounding in means over the rows
_EQUAL = 1e-9
_MOST_ROUNDS = 10_000


def all_way(pool: Pool, members: int | None = None, max_features: int | None = None) -> tuple[Votes, str]:
    """Every member, or the best ``members`` of them; with ``max_features`` those whose union stays within it."""
    votes = _fitting(pool, pool.by_quality, _most(members), _limit(pool, max_features))
    text = "all members" if members is None else f"the {_count(votes)} members of best validation {pool.metric}"
    return votes, text + _within(max_features)


def window_way(
    pool: Pool,
    low: float = 85,
    high: float = 95,
    members: int | None = None,
    max_features: int | None = None,
) -> tuple[Votes, str]:
    """Members whose validation accuracy lies between two percentiles of the members' accuracies, both included.

    MO-EvoPruneDeepTL (arXiv 2302.10253) lets such members vote, in windows from 50-60 to 85-95 (:data:`WINDOWS`).
    Percentiles are accuracies of members (nearest rank), so that no window is empty. With ``members`` only the
    best so many of them vote, with ``max_features`` the best whose union stays within it.
    """
    low, high = (_number(name, value, 0, 100) for name, value in (("low", low), ("high", high)))
    if low >= high:
        raise InputError(f"low = {low:g}, high = {high:g}: a window ends above its start")
    bottom, top = np.percentile(pool.quality, [low, high], method="nearest")
    order = pool.by_quality[(pool.quality[pool.by_quality] >= bottom) & (pool.quality[pool.by_quality] <= top)]
    votes = _fitting(pool, order, _most(members), _limit(pool, max_features))
    text = f"members between the percentiles {low:g} and {high:g} of validation {pool.metric}"
    return votes, text + _within(max_features)


def knee_way(pool: Pool, members: int = 10, max_features: int | None = None) -> tuple[Votes, str]:
    """The members nearest to the knee (``Front.knee``'s), in objectives scaled to [0, 1]; it is the first."""
    members = whole_number("members", members, 1)
    span = np.ptp(pool.losses, axis=0)
    apart = (pool.losses - pool.losses[knee(pool.losses)]) / np.where(span > 0, span, 1.0)
    order = np.argsort(np.linalg.norm(apart, axis=1), kind="stable")
    votes = _fitting(pool, order, members, _limit(pool, max_features))
    return votes, f"the {_count(votes)} members nearest to the knee" + _within(max_features)


def greedy_way(
    pool: Pool,
    loss: str = "squared",
    initial: int = 5,
    rounds: int = 50,
    bags: int = 0,
    bag_fraction: float = 0.5,
    seed: int = 0,
    members: int | None = None,
    max_features: int | None = None,
) -> tuple[Votes, str]:
    """Ensemble selection from a library of models (Caruana et al., 2004), with replacement.

    It starts with the ``initial`` members of lowest loss, one vote each (sorted initialisation), and gives one
    more vote in each round to the member that lowers the loss of the mean prediction most; of equal ones to that
    which brings the fewest new features. It ends when no vote lowers the loss, or after ``rounds``.

    Parameters
    ----------
    pool
        What to choose from.
    loss
        ``"squared"``: the Brier score of the mean probabilities, in regression the squared error. ``"log"``: their
        log loss. ``"error"``: the error rate, as in the paper. A few hundred validation rows give an error rate
        few different values, most steps tie or gain by one lucky row; the other two see every row's probability.
        The Brier score is bounded, the log loss can hang on a single row that a member is surely wrong about.
    initial
        Members to start with, at least 1.
    rounds
        Most votes added, at least 0.
    bags
        If above 0, the selection is done that many times, each with a part of the members drawn anew, and the
        votes are added up (Caruana et al., 2006): less fitted to the validation rows, more members.
    bag_fraction
        Share of the members in each bag, of those that read no more than ``max_features``; above 0, at most 1.
    seed
        Seed of the draw.
    members
        Most members with a vote; of bags those with most votes are kept. None for any number.
    max_features
        Most features that the members may read together.

    References
    ----------
    R. Caruana, A. Niculescu-Mizil, G. Crew, A. Ksikes. Ensemble selection from libraries of models. ICML 2004.

    R. Caruana, A. Munson, A. Niculescu-Mizil. Getting the most out of ensemble selection. ICDM 2006.
    """
    initial = whole_number("initial", initial, 1)
    rounds = whole_number("rounds", rounds, 0, _MOST_ROUNDS)
    bags = whole_number("bags", bags, 0, _MOST_ROUNDS)
    seed = whole_number("seed", seed, 0)
    share = _number("bag_fraction", bag_fraction, 0, 1)
    if share == 0:
        raise InputError("bag_fraction = 0: use a share above 0")
    limit = _limit(pool, max_features)
    measure, name = loss_of(pool, loss)
    union, most = FeatureUnion(pool, limit), _most(members)
    select = partial(greedy_votes, measure, union=union, initial=initial, rounds=rounds, most=most)
    if bags == 0:
        votes = select(np.ones(len(pool.members), np.bool_))
        return votes, f"greedy selection by validation {name}" + _within(max_features)
    # a bag of members that are all too large could not vote
    able = np.flatnonzero(union.fits())
    generator = np.random.default_rng(seed)
    votes = np.zeros(len(pool.members))
    for _ in range(bags):
        drawn = np.zeros(len(pool.members), dtype=np.bool_)
        drawn[able[generator.permutation(len(able))[: max(math.ceil(share * len(able)), 1)]]] = True
        # later bags may hold no member that fits beside those of the bags before
        bag = select(drawn)
        # every bag counts the same, however many votes it took
        votes += bag / max(bag.sum(), 1)
    votes[np.argsort(-votes, kind="stable")[most:]] = 0
    return votes, f"greedy selection by validation {name}, mean of {bags} bags" + _within(max_features)


def diverse_way(
    pool: Pool, members: int = 10, floor: float = 0.02, max_features: int | None = None
) -> tuple[Votes, str]:
    """Members that disagree, among those that are hardly less accurate than the best.

    Parameters
    ----------
    pool
        What to choose from.
    members
        Most members, at least 1.
    floor
        How far below the best member's validation accuracy (or R²) a member may lie, 0 to 1.
    max_features
        Most features that the members may read together.

    Notes
    -----
    It starts with the best member and adds the one that disagrees most, on average, with those chosen: the share
    of rows with another predicted class, in regression the mean squared difference. Of equals it takes the more
    accurate. It ends early where all that is left agrees with those chosen in every row.
    """
    members = whole_number("members", members, 1)
    floor = _number("floor", floor, 0, 1)
    union = FeatureUnion(pool, _limit(pool, max_features))
    allowed = pool.quality >= pool.quality.max() - floor - _EQUAL
    order = pool.by_quality
    votes, apart = np.zeros(len(pool.members)), np.zeros(len(pool.members))
    while _count(votes) < members:
        open_ = allowed & (votes == 0) & union.fits()
        if not open_.any():
            if _count(votes) == 0:
                # the best are too large: the best of those that fit
                allowed = pool.quality >= pool.quality[union.fits()].max() - floor - _EQUAL
                continue
            break
        ranked = order[open_[order]]
        best = ranked[np.argmax(apart[ranked])]
        if _count(votes) > 0 and apart[best] <= 0:
            break
        votes[best] = 1
        union.add(best)
        if pool.task == "classification":
            apart += np.mean(pool.labels != pool.labels[best], axis=1)
        else:
            apart += ((pool.predictions - pool.predictions[best]) ** 2).mean(axis=(1, 2))
    text = f"the {_count(votes)} members that disagree most, at most {floor:g} below the best {pool.metric}"
    return votes, text + _within(max_features)


def union_way(
    pool: Pool,
    max_features: int | None = None,
    loss: str = "squared",
    rounds: int = 50,
    members: int | None = None,
) -> tuple[Votes, str]:
    """Greedy selection, from the best member on, in which the members read at most so many features together.

    Parameters
    ----------
    pool
        What to choose from.
    max_features
        Most features that the members may read together; None for as many as the member with the best validation
        accuracy reads.
    loss, rounds, members
        As in :func:`greedy_way`.
    """
    if max_features is None:
        max_features = int(pool.reads[pool.by_quality[0]].sum())
    return greedy_way(pool, loss, 1, rounds, members=members, max_features=max_features)


def default_way(pool: Pool, members: int | None = None, max_features: int | None = None) -> tuple[Votes, str]:
    """The more accurate half of the members, by validation rows, without all of the features together.

    On feature sets with thousands of test rows, members of many sizes together did better than the few that a
    greedy selection fits to some hundred validation rows. Their union would often be every feature: unless
    ``max_features`` is given, at least one feature is kept out, so that the ensemble reads fewer than the dense
    head: from the most accurate member on, one whose features would complete the set is left out.

    Parameters
    ----------
    pool
        What to choose from.
    members
        Most members, spread evenly over the sizes in that half; None for all of them.
    max_features
        Most features that the members may read together; None for one fewer than there are, or for all of them
        where every member reads all.
    """
    if max_features is None and (pool.reads.sum(axis=1) < pool.n_features).any():
        max_features = pool.n_features - 1
    limit = _limit(pool, max_features)
    able = np.flatnonzero(pool.reads.sum(axis=1) <= limit)
    middle = np.percentile(pool.quality[able], 50, method="nearest") if len(able) else 0.0
    half = able[pool.quality[able] >= middle]
    order = half[evenly(len(half), _most(members))]
    # the best first: a limit on features leaves out the others
    order = order[np.argsort(-pool.quality[order], kind="stable")]
    votes = _fitting(pool, order, len(order), limit)
    text = f"the half of the members with the best validation {pool.metric}"
    if members is not None:
        text = f"{_count(votes)} members spread over {text}"
    return votes, text + _within(max_features if max_features != pool.n_features - 1 else None)


def _fitting(pool: Pool, order: Iterable[Any], most: int, limit: int) -> Votes:
    """One vote for each of the first members in an order that fit beside those before them."""
    votes, union = np.zeros(len(pool.members)), FeatureUnion(pool, limit)
    for place in order:
        if votes.sum() < most and union.fits()[place]:
            votes[place] = 1
            union.add(place)
    if not votes.any():
        raise InputError(f"max_features = {limit}: none of these members reads so few features: allow more")
    return votes


def _limit(pool: Pool, max_features: int | None) -> int:
    """Most features of the union, as a number; at least one member fits."""
    if max_features is None:
        return pool.n_features
    limit = whole_number("max_features", max_features, 0)
    fewest = int(pool.reads.sum(axis=1).min())
    if limit < fewest:
        raise InputError(
            f"max_features = {limit}: every member reads more, {fewest} features at least: allow more"
        )
    return limit


def _most(members: int | None) -> int:
    """Most members, as a number."""
    return sys.maxsize if members is None else whole_number("members", members, 1)


def _number(name: str, value: Any, low: float, high: float) -> float:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    if not fits:
        raise InputError(f"{name} = {value!r}: use a number from {low:g} to {high:g}")
    return float(value)


def _count(votes: Votes) -> int:
    return int(np.count_nonzero(votes))


def _within(max_features: int | None) -> str:
    return "" if max_features is None else f", at most {max_features} features together"
