"""Which members of a front are to vote together: chosen by their predictions for validation rows alone."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError, nearest, whole_number
from moevoprune.fronts.front import Front
from moevoprune.fronts.predictions import check_present, evenly
from moevoprune.heads.ensemble import HeadEnsemble, Voting, head_is_sound, normalised_weights

__all__ = [
    "DEFAULT_HOW",
    "LOSSES",
    "WAYS",
    "WINDOWS",
    "Chosen",
    "Pool",
    "choose_from",
    "choose_members",
    "make_ensemble",
]

Array = npt.NDArray[Any]
Bits = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

DEFAULT_HOW = "default"

# percentiles of the members' accuracies in MO-EvoPruneDeepTL (arXiv 2302.10253)
WINDOWS = tuple((low, low + 10) for low in range(50, 90, 5))

# losses that differ by less are equal: rounding in sums over the rows
_EQUAL = 1e-9
_MOST_ROUNDS = 10_000


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


@dataclass(frozen=True, eq=False)
class Pool:
    """What the ways to choose see: the members that have not diverged, and no test row.

    Attributes
    ----------
    task
        ``"classification"`` or ``"regression"``.
    members
        Numbers in the front, rising and so from fewest bits to most, shape (k,), k >= 1.
    predictions
        Of the heads that were trained without a row's fold: class probabilities, or targets in units of their
        standard deviations; shape (k, rows, outputs).
    targets
        Class labels, shape (rows,), or targets in the same units, shape (rows, outputs).
    reads
        Which features each member reads, shape (k, n_features).
    losses
        Minimised objectives, shape (k, n_obj).
    """

    task: Literal["classification", "regression"]
    members: Indices
    predictions: Array
    targets: Array
    reads: Bits
    losses: Values

    @classmethod
    def of(cls, front: Front) -> Pool:
        """Take what is needed from a front.

        Raises
        ------
        InputError
            The front has no predictions, no members, or only diverged ones.
        """
        predicted = check_present(front.predictions)
        outputs, targets = predicted.validation_outputs[:-1], predicted.validation_targets
        sound: Bits = np.asarray(np.isfinite(outputs).all(axis=(1, 2)))
        for member, head in enumerate(front.heads):
            sound[member] &= head_is_sound(head)
        members: Indices = np.flatnonzero(sound).astype(np.int64)
        if len(members) == 0 or len(targets) == 0:
            raise InputError("the front has no members that could vote: all have diverged, or there are none")
        values = outputs[members].astype(np.float64)
        if predicted.task == "classification":
            values = np.exp(values - values.max(axis=2, keepdims=True))
            values /= values.sum(axis=2, keepdims=True)
        else:
            scale = targets.std(axis=0, dtype=np.float64)
            scale = np.where(scale > 0, scale, 1.0)
            values, targets = values / scale, targets / scale
        reads = np.zeros((len(members), front.dense_head.n_features), dtype=np.bool_)
        for row, member in zip(reads, members, strict=True):
            row[front.heads[member].inputs] = True
        return cls(predicted.task, members, values, targets, reads, front.F[members])

    @cached_property
    def quality(self) -> Values:
        """Accuracy, or R² averaged over the targets, of each member on the validation rows, shape (k,)."""
        if self.task == "classification":
            accuracy: Values = np.mean(self.labels == self.targets, axis=1)
            return accuracy
        spread = self.targets - self.targets.mean(axis=0)
        total = (spread**2).sum(axis=0)
        # a constant target cannot be explained: the members' errors in it count for nothing
        left = ((self.predictions - self.targets) ** 2).sum(axis=1) / np.where(total > 0, total, np.inf)
        r2: Values = 1 - left.mean(axis=1)
        return r2

    @cached_property
    def labels(self) -> Indices:
        """Predicted classes, shape (k, rows)."""
        labels: Indices = self.predictions.argmax(axis=2)
        return labels

    @cached_property
    def by_quality(self) -> Indices:
        """Places of the members in the pool, the best first, of equals the one with fewest bits; shape (k,)."""
        return np.argsort(-self.quality, kind="stable")

    @cached_property
    def error_products(self) -> Values:
        """Mean over the rows of the products of every two members' errors, shape (k, k)."""
        known = np.eye(self.predictions.shape[2])[self.targets] if self.task == "classification" else self.targets
        errors = (self.predictions - known).reshape(len(self.members), -1)
        products: Values = errors @ errors.T / len(self.targets)
        return products

    @property
    def metric(self) -> str:
        """What :attr:`quality` is, for people."""
        return "accuracy" if self.task == "classification" else "R²"

    @property
    def n_features(self) -> int:
        """Features that the dense head reads."""
        return int(self.reads.shape[1])


# what a way gives: votes of every member of the pool, shape (k,), and how they were chosen
Votes = npt.NDArray[np.floating]
Way = Callable[..., tuple[Votes, str]]
# loss of the votes so far and one more of each member, shape (k,)
Loss = Callable[[Votes], Values]


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
            See :func:`default_way`.
        ``all``
            Every member.
        ``window``
            Those in a window of validation accuracy (MO-EvoPruneDeepTL): see :func:`window_way`.
        ``knee``
            Those nearest to the knee: see :func:`knee_way`.
        ``greedy``
            Ensemble selection (Caruana et al., 2004): see :func:`greedy_way`.
        ``diverse``
            Those that disagree most among the accurate: see :func:`diverse_way`.
        ``union``
            The best within a number of features: see :func:`union_way`.
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
    if how not in WAYS:
        raise InputError(f"no way {how!r} to choose members{nearest(how, WAYS)}: use one of {', '.join(WAYS)}")
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
    low, span = pool.losses.min(axis=0), np.ptp(pool.losses, axis=0)
    scaled = (pool.losses - low) / np.where(span > 0, span, 1.0)
    distance = np.linalg.norm(scaled - scaled[np.argmin(scaled.sum(axis=1))], axis=1)
    votes = _fitting(pool, np.argsort(distance, kind="stable"), members, _limit(pool, max_features))
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
        Share of the members in each bag, above 0 and at most 1.
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
    measure, name = _loss(pool, loss)
    n_members = len(pool.members)
    most = _most(members)
    if bags == 0:
        votes = _select(pool, measure, np.ones(n_members, np.bool_), initial, rounds, most, limit, _Union(pool))
        return votes, f"greedy selection by validation {name}" + _within(max_features)
    generator = np.random.default_rng(seed)
    union, votes = _Union(pool), np.zeros(n_members)
    for _ in range(bags):
        drawn = np.zeros(n_members, dtype=np.bool_)
        drawn[generator.permutation(n_members)[: max(math.ceil(share * n_members), 1)]] = True
        bag = _select(pool, measure, drawn, initial, rounds, most, limit, union)
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
    limit, union = _limit(pool, max_features), _Union(pool)
    allowed = pool.quality >= pool.quality.max() - floor - _EQUAL
    order = pool.by_quality
    votes, apart = np.zeros(len(pool.members)), np.zeros(len(pool.members))
    while _count(votes) < members:
        open_ = allowed & (votes == 0) & union.fits(limit)
        if not open_.any():
            if _count(votes) == 0:
                # the best are too large: the best of those that fit
                allowed = np.ones_like(allowed)
                allowed &= pool.quality >= pool.quality[union.fits(limit)].max() - floor - _EQUAL
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
    """The more accurate half of the members, by validation rows.

    On feature sets with thousands of test rows, members of many sizes together did better than the few that a
    greedy selection fits to some hundred validation rows.

    Parameters
    ----------
    pool
        What to choose from.
    members
        Most members, spread evenly over the sizes in that half; None for all of them.
    max_features
        Most features that the members may read together; None for one fewer than there are, where any member reads
        fewer than all.
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


WAYS: dict[str, Way] = {
    DEFAULT_HOW: default_way,
    "all": all_way,
    "window": window_way,
    "knee": knee_way,
    "greedy": greedy_way,
    "diverse": diverse_way,
    "union": union_way,
}


class _Union:
    """Features that the members chosen so far read together."""

    def __init__(self, pool: Pool) -> None:
        self._reads = pool.reads
        self._read = np.zeros(pool.n_features, dtype=np.bool_)

    def new(self) -> Indices:
        """Features that each member would bring, shape (k,)."""
        counts: Indices = self._reads[:, ~self._read].sum(axis=1)
        return counts

    def fits(self, limit: int) -> Bits:
        """Members that may join, shape (k,)."""
        fitting: Bits = self.new() + int(self._read.sum()) <= limit
        return fitting

    def add(self, place: int | np.integer[Any]) -> None:
        self._read |= self._reads[place]


def _fitting(pool: Pool, order: Iterable[Any], most: int, limit: int) -> Votes:
    """One vote for each of the first members in an order that fit beside those before them."""
    votes, union = np.zeros(len(pool.members)), _Union(pool)
    for place in order:
        if votes.sum() < most and union.fits(limit)[place]:
            votes[place] = 1
            union.add(place)
    if not votes.any():
        raise InputError(f"max_features = {limit}: none of these members reads so few features: allow more")
    return votes


def _select(
    pool: Pool, measure: Loss, allowed: Bits, initial: int, rounds: int, most: int, limit: int, union: _Union
) -> Votes:
    """Vote greedily, with replacement; the union is added to."""
    votes = np.zeros(len(pool.members))
    alone = measure(votes)
    for place in np.argsort(alone, kind="stable"):
        if votes.sum() < min(initial, most) and allowed[place] and union.fits(limit)[place]:
            votes[place] = 1
            union.add(place)
    if not votes.any():
        # of a bag all members may be too large beside the other bags'
        return votes
    # the loss of these votes is that of all but one and the last one more
    first = np.flatnonzero(votes)[0]
    now = measure(votes - np.eye(len(votes))[first])[first]
    for _ in range(rounds):
        may_vote = allowed & union.fits(limit) & ((votes > 0) | (_count(votes) < most))
        losses = np.where(may_vote, measure(votes), np.inf)
        best = losses.min()
        if not best < now - _EQUAL:
            break
        level = np.flatnonzero(losses <= best + _EQUAL)
        chosen = level[np.argmin(union.new()[level])]
        votes[chosen] += 1
        union.add(chosen)
        now = losses[chosen]
    return votes


def _squared(pool: Pool) -> Loss:
    """Sum of squared errors of the mean prediction: a quadratic form of the votes, so that no round sees a row."""
    products = pool.error_products

    def measure(votes: Votes) -> Values:
        of_each = products @ votes
        losses: Values = (votes @ of_each + 2 * of_each + np.diag(products)) / (votes.sum() + 1) ** 2
        return losses

    return measure


def _log(pool: Pool) -> Loss:
    if pool.task == "regression":
        raise InputError("loss = 'log': regression heads have no class probabilities: use squared")
    true = np.take_along_axis(pool.predictions, pool.targets[None, :, None].astype(np.int64), axis=2)[..., 0]

    def measure(votes: Votes) -> Values:
        mean = (votes @ true + true) / (votes.sum() + 1)
        losses: Values = -np.log(np.maximum(mean, np.finfo(np.float32).tiny)).mean(axis=1)
        return losses

    return measure


def _error(pool: Pool) -> Loss:
    if pool.task == "regression":
        raise InputError("loss = 'error': regression heads predict numbers, not classes: use squared")

    def measure(votes: Votes) -> Values:
        total = np.tensordot(votes, pool.predictions, axes=1) + pool.predictions
        losses: Values = np.mean(total.argmax(axis=2) != pool.targets, axis=1)
        return losses

    return measure


LOSSES: dict[str, tuple[Callable[[Pool], Loss], str]] = {
    "squared": (_squared, "squared error"),
    "log": (_log, "log loss"),
    "error": (_error, "error rate"),
}


def _loss(pool: Pool, name: str) -> tuple[Loss, str]:
    if name not in LOSSES:
        raise InputError(f"loss = {name!r}{nearest(str(name), LOSSES)}: use one of {', '.join(LOSSES)}")
    make, text = LOSSES[name]
    return make(pool), "Brier score" if name == "squared" and pool.task == "classification" else text


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
