"""Ensemble selection: each vote goes to the member that lowers the loss of the mean prediction most."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError, nearest
from moevoprune.fronts.ensemble_pool import FeatureUnion, Pool, Votes

__all__ = ["LOSSES", "Loss", "greedy_votes", "loss_of"]

Bits = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]

#: Loss of the votes so far and one more of each member, shape (k,).
Loss = Callable[[Votes], Values]

# losses that differ by less are equal: rounding in sums over the rows
_EQUAL = 1e-9


def greedy_votes(loss: Loss, among: Bits, union: FeatureUnion, *, initial: int, rounds: int, most: int) -> Votes:
    """Give votes to members, with replacement, as long as the loss falls.

    Parameters
    ----------
    loss
        What is to fall.
    among
        Which members of the pool may get votes, shape (k,).
    union
        Who else may vote already; those that get votes are added.
    initial
        Members to start with, those of lowest loss alone, one vote each.
    rounds
        Most votes added to them.
    most
        Most members with a vote.

    Returns
    -------
    Votes
        Shape (k,); none at all where no member fits beside those of the union.
    """
    votes = np.zeros(len(among))
    for place in np.argsort(loss(votes), kind="stable"):
        if votes.sum() < min(initial, most) and among[place] and union.fits()[place]:
            votes[place] = 1
            union.add(place)
    if not votes.any():
        return votes
    # the loss of these votes is that of all but one and the last one more
    first = np.flatnonzero(votes)[0]
    now = loss(votes - np.eye(len(votes))[first])[first]
    for _ in range(rounds):
        may_vote = among & union.fits() & ((votes > 0) | (np.count_nonzero(votes) < most))
        losses = np.where(may_vote, loss(votes), np.inf)
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


#: Losses by name: what makes one of a pool, and what it is for people.
LOSSES: dict[str, tuple[Callable[[Pool], Loss], str]] = {
    "squared": (_squared, "squared error"),
    "log": (_log, "log loss"),
    "error": (_error, "error rate"),
}


def loss_of(pool: Pool, name: str) -> tuple[Loss, str]:
    """Return a loss of :data:`LOSSES` for the members of a pool, and its name for people.

    Raises
    ------
    InputError
        There is no such loss, or not for this task.
    """
    if name not in LOSSES:
        raise InputError(f"loss = {name!r}{nearest(str(name), LOSSES)}: use one of {', '.join(LOSSES)}")
    make, text = LOSSES[name]
    return make(pool), "Brier score" if name == "squared" and pool.task == "classification" else text
