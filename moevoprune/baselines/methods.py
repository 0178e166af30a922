"""Baselines: cheap methods that choose one mask for each size they are asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from moevoprune.baselines.data import Bits, RankingData
from moevoprune.baselines.gradual import prune_gradually
from moevoprune.baselines.rankings import rank_bits, top_bits
from moevoprune.errors import InputError, nearest, whole_number

__all__ = [
    "BASELINES",
    "Baseline",
    "BestFixed",
    "GradualMagnitude",
    "RandomBest",
    "Ranked",
    "default_sizes",
    "make_baseline",
]

Values = npt.NDArray[np.float64]

_N_SIZES = 24
_SHARES = (50, 20, 10, 4)
_FIXED_DENSITIES = tuple(range(10, 101, 10))


def default_sizes(n_bits: int, low: int = 1, high: int | None = None) -> list[int]:
    """Sizes to ask a baseline for: a log scale from 1 to all bits, and 2 %, 5 %, 10 % and 25 % of them.

    Parameters
    ----------
    n_bits
        Bits of an individual, at least 1.
    low, high
        Fewest and most active bits that are wanted; by default 1 and ``n_bits``.

    Returns
    -------
    list of int
        Sorted, each once; about 28 of them where there are bits enough.
    """
    log_scale = np.rint(np.geomspace(1, n_bits, _N_SIZES)).astype(int).tolist()
    high = n_bits if high is None else high
    sizes = {*log_scale, *(max(1, n_bits // share) for share in _SHARES), n_bits}
    return sorted({min(max(size, low, 1), high) for size in sizes})


class Baseline(ABC):
    """A cheap way to choose masks.

    Attributes
    ----------
    name
        The word that users select it by.
    """

    name: str

    def masks(self, data: RankingData, sizes: Sequence[int]) -> Bits:
        """Choose masks.

        Parameters
        ----------
        data
            The training part, and what can be computed from it.
        sizes
            Active bits of each mask, within 1..n_bits.

        Returns
        -------
        ndarray of bool, shape (len(sizes), n_bits)
            One mask per size, in order (:class:`BestFixed` gives one mask in all).

        Raises
        ------
        InputError
            A size is not a whole number within 1..n_bits, or the baseline searches and ``data.evaluate`` is None.
        """
        n_bits = data.encoding.n_bits
        return self._choose(data, [whole_number("size", size, 1, n_bits) for size in sizes])

    @abstractmethod
    def _choose(self, data: RankingData, sizes: list[int]) -> Bits:
        """Choose one mask per checked size."""

    def _scores(self, data: RankingData, masks: Bits) -> Values:
        """Validation scores of masks, shape (n,); the lowest where a mask has none."""
        if data.evaluate is None:
            raise InputError(f"baseline {self.name!r} compares masks by their validation score, but none is given")
        return np.nan_to_num(np.asarray(data.evaluate(masks), dtype=np.float64), nan=-np.inf)


class Ranked(Baseline):
    """The best bits of a ranking; of equal ones, those with the lower number.

    Parameters
    ----------
    ranking
        A key of :data:`moevoprune.baselines.rankings.RANKINGS`.
    name
        Name of the baseline; None for the ranking's.
    """

    def __init__(self, ranking: str, name: str | None = None) -> None:
        self.ranking = ranking
        self.name = ranking if name is None else name

    def _choose(self, data: RankingData, sizes: list[int]) -> Bits:
        return top_bits(rank_bits(data, self.ranking), sizes)


class GradualMagnitude(Baseline):
    """Gradual magnitude pruning with polynomial decay (Zhu & Gupta 2017), one head trained per size."""

    name = "gradual_magnitude"

    def _choose(self, data: RankingData, sizes: list[int]) -> Bits:
        masks = np.zeros((len(sizes), data.encoding.n_bits), dtype=np.bool_)
        for row, size in enumerate(sizes):
            masks[row] = prune_gradually(data, size)
        return masks


class RandomBest(Baseline):
    """Random search: at each size the best of some random masks, by their validation score.

    Parameters
    ----------
    n
        Masks drawn per size, at least 1.
    """

    name = "random"

    def __init__(self, n: int = 10) -> None:
        self.n = whole_number("n", n, 1)

    def _choose(self, data: RankingData, sizes: list[int]) -> Bits:
        n_bits = data.encoding.n_bits
        # seeded per size: what one size gets does not depend on the others asked for
        drawn = [_random_masks(n_bits, [size] * self.n, [data.seed, 0xBA5E, size]) for size in sizes]
        if not drawn:
            return np.zeros((0, n_bits), dtype=np.bool_)
        scores = self._scores(data, np.concatenate(drawn)).reshape(len(sizes), self.n)
        return np.stack([masks[best] for masks, best in zip(drawn, scores.argmax(axis=1), strict=True)])


class BestFixed(Baseline):
    """The best of ten densities: "best fixed" of the EvoPruneDeepTL papers (arXiv 2202.03844, 2302.10253).

    One random mask at each density of 10, 20 ... 100 %; the one with the best validation score is the result, and
    the only one, whatever the sizes asked for.
    """

    name = "best_fixed"

    def _choose(self, data: RankingData, sizes: list[int]) -> Bits:
        n_bits = data.encoding.n_bits
        counts = [max(1, n_bits * density // 100) for density in _FIXED_DENSITIES]
        masks = _random_masks(n_bits, counts, [data.seed, 0xF1ED])
        return masks[[int(self._scores(data, masks).argmax())]]


def _random_masks(n_bits: int, sizes: list[int], seed: list[int]) -> Bits:
    generator = np.random.default_rng(seed)
    masks = np.zeros((len(sizes), n_bits), dtype=np.bool_)
    for mask, size in zip(masks, sizes, strict=True):
        mask[generator.choice(n_bits, size, replace=False)] = True
    return masks


BASELINES: dict[str, Baseline] = {
    baseline.name: baseline
    for baseline in (
        Ranked("anova_f", "anova"),
        Ranked("mutual_information"),
        Ranked("l1_path"),
        Ranked("weight_magnitude"),
        GradualMagnitude(),
        Ranked("neuron_norm"),
        Ranked("recursive_elimination"),
        RandomBest(),
        BestFixed(),
    )
}


def make_baseline(name: str) -> Baseline:
    """Look a baseline up by name, a key of :data:`BASELINES`.

    Raises
    ------
    InputError
        The name is unknown.
    """
    if name not in BASELINES:
        raise InputError(f"unknown baseline {name!r}{nearest(name, BASELINES)}: use one of {', '.join(BASELINES)}")
    return BASELINES[name]
