"""How far runs agree on neurons, and how often these would be active if nothing but chance made them agree."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError, whole_number
from moevoprune.fronts.front import Bits, Front, Values
from moevoprune.fronts.statistics import Interval, jackknife_interval
from moevoprune.search.archive import non_dominated
from moevoprune.studies.rank_correlation import rank_correlation

__all__ = ["chance_frequencies", "frequency_agreement", "merged_masks_by_run"]


def chance_frequencies(groups: Sequence[Bits], generator: np.random.Generator, draws: int = 200) -> Values:
    """Sorted frequencies of bits when each group of masks has its bits exchanged at random.

    Each mask a group of its own: what independent masks of the same sizes have, in which the number of masks that
    a bit is active in follows a Poisson binomial distribution. Each run a group: what runs have that agree inside
    but know nothing of one another.

    Parameters
    ----------
    groups
        Masks of each group, shape (masks, n_bits); the bits of a group's masks move together.
    generator
        Draws the exchanges.
    draws
        How often, at least 1.

    Returns
    -------
    ndarray, shape (draws, n_bits)
        Shares of all masks in which bits are active, per draw, the largest first.

    Raises
    ------
    InputError
        There are no masks, or of different lengths, or ``draws`` is out of range.
    """
    draws = whole_number("draws", draws, 1)
    n_masks = sum(len(group) for group in groups)
    if n_masks == 0 or len({group.shape[1] for group in groups}) > 1:
        raise InputError("frequencies by chance: give at least one mask, and all of the same length")
    counts = np.stack([group.sum(axis=0) for group in groups])
    totals = np.stack([generator.permuted(counts, axis=1).sum(axis=0) for _ in range(draws)])
    falling: Values = -np.sort(-totals, axis=1) / n_masks
    return falling


def merged_masks_by_run(fronts: Sequence[Front]) -> list[Bits]:
    """Masks of the members of the merged front, run by run, shape (members of it, n_bits) each.

    Parameters
    ----------
    fronts
        Of several runs on one problem, see :meth:`Front.merge`; at least one.
    """
    kept = non_dominated(np.concatenate([front.F for front in fronts]))
    ends = np.cumsum([len(front) for front in fronts])
    inside = np.zeros(ends[-1], dtype=np.bool_)
    inside[kept] = True
    parts = np.split(inside, ends[:-1])
    return [front.masks[part] for front, part in zip(fronts, parts, strict=True)]


def frequency_agreement(fronts: Sequence[Front]) -> Interval:
    """Rank correlation (Spearman's) of the frequencies of bits in two runs' fronts, mean over pairs of runs.

    Parameters
    ----------
    fronts
        Of several runs on one problem, at least one, with members.

    Returns
    -------
    Interval
        By the jackknife over runs, as the pairs are not independent; without limits for fewer than three runs, and
        NaN for one, or where in one of them every bit is active in equally many members.
    """
    frequencies = [front.masks.mean(axis=0) for front in fronts]
    matrix = np.full((len(fronts), len(fronts)), math.nan)
    for i, j in itertools.combinations(range(len(fronts)), 2):
        matrix[i, j] = rank_correlation(frequencies[i], frequencies[j])

    def mean_over_pairs(runs: npt.NDArray[np.int64]) -> float:
        pairs = matrix[np.ix_(runs, runs)][np.triu_indices(len(runs), 1)]
        return float(pairs.mean()) if len(pairs) else math.nan

    if len(fronts) < 2:
        return Interval(math.nan, math.nan, math.nan, len(fronts))
    return jackknife_interval(mean_over_pairs, len(fronts), np.random.default_rng(0), groups=len(fronts))
