"""Crossover and mutation that keep to sizes and ask scores: pymoo operators, each usable on its own.

Uniform crossover and bit flip pull every mask towards half density. These two do not: a child's size lies between
its parents' sizes, and a mutation adds as often as it removes.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pymoo.core.crossover import Crossover
from pymoo.core.mutation import Mutation

from moevoprune.errors import InputError
from moevoprune.search.scores import BitScores

__all__ = ["GuidedMutation", "SizeCrossover"]

Bits = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]

# active bits that compete to stay
_REMOVED_OF = 2


class SizeCrossover(Crossover):
    """Keep what both parents share, and draw the rest from what only one of them has.

    The child's size is drawn between its parents' sizes, so that crossing a small and a large mask gives small,
    middling and large ones.

    Parameters
    ----------
    prob
        Chance that a pair is crossed at all, in [0, 1]; otherwise the children are the parents.
    scale : {"log", "uniform"}
        Sizes are drawn log-uniformly or uniformly.

    Raises
    ------
    InputError
        The scale is unknown.
    """

    def __init__(self, prob: float = 0.5, scale: Literal["log", "uniform"] = "log") -> None:
        super().__init__(2, 2, prob=prob)
        if scale not in ("log", "uniform"):
            raise InputError(f"crossover scale is {scale!r}; use 'log' or 'uniform'")
        self.scale = scale

    def _do(self, problem: Any, x: Bits, *args: Any, random_state: Any = None, **kwargs: Any) -> Bits:
        """Cross masks, shape (2, pairs, n_var), to children of the same shape."""
        children = np.empty_like(x, dtype=np.bool_)
        for pair in range(x.shape[1]):
            first, second = x[0, pair].astype(np.bool_), x[1, pair].astype(np.bool_)
            shared, single = first & second, np.flatnonzero(first ^ second)
            low, high = sorted((int(first.sum()), int(second.sum())))
            for child in range(2):
                size = self._size(low, high, random_state)
                wanted = min(max(round(size) - int(shared.sum()), 0), len(single))
                children[child, pair] = shared
                children[child, pair, random_state.choice(single, wanted, replace=False)] = True
        return children

    def _size(self, low: int, high: int, rng: np.random.Generator) -> float:
        if self.scale == "uniform":
            return float(rng.uniform(low, high))
        return float(np.exp(rng.uniform(np.log(max(low, 1)), np.log(max(high, 1)))))


class GuidedMutation(Mutation):
    """Add bits, remove bits or exchange them, with equal chance, choosing by score tournaments.

    How many: one and a Poisson number with mean ``rate`` times the mask's size, so that small masks change bit by
    bit and large ones in steps that matter. Added is the best-scored of ``tournament`` random inactive bits,
    removed the worst-scored of two random active ones (as in SparseEA, Tian et al., IEEE TEVC 2020). The problem's
    ``min_active`` and ``max_active`` are kept where it has them, and no mask is emptied.

    Parameters
    ----------
    scores
        Importance of the bits: an array of shape (n_var,), or :class:`~moevoprune.search.scores.BitScores`, whose
        current values are asked each time.
    tournament
        Inactive bits that compete to be added, at least 1; 1 draws them blindly.
    rate
        Share of a mask's size that changes on average, beyond one bit; in [0, 1].

    Raises
    ------
    InputError
        A number is out of range; scores of another length are found when mutating.
    """

    def __init__(self, scores: npt.ArrayLike | BitScores, tournament: int = 4, rate: float = 0.05) -> None:
        super().__init__(prob=1.0)
        if tournament < 1:
            raise InputError(f"mutation tournament is {tournament!r}; give a number of bits, at least 1")
        if not 0 <= rate <= 1:
            raise InputError(f"mutation rate is {rate!r}; give a share between 0 and 1")
        self.scores = scores if isinstance(scores, BitScores) else BitScores(scores, weight=0.0)
        self.tournament = tournament
        self.rate = rate

    def _do(self, problem: Any, x: Bits, *args: Any, random_state: Any = None, **kwargs: Any) -> Bits:
        """Mutate masks, shape (n, n_var); at the bounds on active bits one may stay as it is."""
        scores = self.scores.values
        if len(scores) != x.shape[1]:
            raise InputError(f"mutation has {len(scores)} scores for masks of {x.shape[1]} bits; give one a bit")
        low = max(int(getattr(problem, "min_active", 1)), 1)
        high = getattr(problem, "max_active", None) or x.shape[1]
        masks = x.astype(np.bool_, copy=True)
        for mask in masks:
            steps = 1 + int(random_state.poisson(self.rate * int(mask.sum())))
            kind = random_state.integers(3)
            active = np.flatnonzero(mask)
            if kind != 1:
                self._add(mask, steps, scores, random_state)
            if kind != 0:
                # what was just added stays, or an exchange would exchange nothing
                gone = min(steps, int(mask.sum()) - low)
                mask[_winners(active, gone, -scores, _REMOVED_OF, random_state)] = False
            self._add(mask, low - int(mask.sum()), scores, random_state)
            excess = int(mask.sum()) - high
            mask[_winners(np.flatnonzero(mask), excess, -scores, _REMOVED_OF, random_state)] = False
        return masks

    def _add(self, mask: Bits, steps: int, scores: Values, rng: np.random.Generator) -> None:
        mask[_winners(np.flatnonzero(~mask), steps, scores, self.tournament, rng)] = True


def _winners(
    candidates: npt.NDArray[np.int64], n: int, scores: Values, tournament: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draw n candidates without replacement, each with its chance to win a tournament against random others."""
    n = min(n, len(candidates))
    if n <= 0:
        return candidates[:0]
    # shuffled first, so that equal scores have equal chances
    ranked = rng.permutation(candidates)
    ranked = ranked[np.argsort(scores[ranked], kind="stable")]
    share = np.arange(len(ranked) + 1) / len(ranked)
    chances = np.diff(share**tournament)
    # weighted sampling without replacement by exponential keys (Efraimidis & Spirakis 2006)
    keys = rng.exponential(size=len(ranked)) / chances
    return ranked[np.argpartition(keys, n - 1)[:n]]
