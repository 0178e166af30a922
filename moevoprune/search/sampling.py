"""Start populations for bit masks: pymoo sampling operators that spread over mask sizes.

Drawing every bit with probability one half gives masks that all have about half of the bits, and the ends
of the front, the small and the full heads, are never seeded. The operators here draw the size first.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pymoo.core.sampling import Sampling

from moevoprune.errors import InputError

__all__ = ["DensitySampling", "MaskSampling", "as_masks"]

# Redraws of a duplicate before the masks that are left are listed one by one.
_REDRAWS = 20


def as_masks(masks: npt.ArrayLike, what: str = "masks") -> npt.NDArray[np.bool_]:
    """Return 0/1 rows as a new bool array.

    Parameters
    ----------
    masks : array of shape (n, n_bits)
        Of any bool, integer or float type, with no values but 0 and 1.
    what : str
        What to call them in an error.

    Returns
    -------
    bool array of shape (n, n_bits)

    Raises
    ------
    InputError
        If the shape, the type or a value is not as described.
    """
    try:
        array = np.asarray(masks)
    except ValueError as error:
        raise InputError(f"{what} are not an array; give rows of equal length") from error
    if array.dtype.kind not in "buif":
        raise InputError(f"{what} have type {array.dtype}; give a bool, integer or float array of 0 and 1")
    if array.ndim != 2:
        raise InputError(f"{what} have shape {array.shape}; give a 2-D array, one mask a row")
    wrong = (array != 0) & (array != 1)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise InputError(f"{what} hold {array[row, column]} at row {row}, bit {column}; give only 0 and 1")
    # Always bool: pymoo's bit flip applies ~, which makes -1 and -2 of the integers 0 and 1.
    return array.astype(np.bool_)


class _SeededSampling(Sampling):
    """Sampling that never falls back to pymoo's unseeded generator."""

    def do(self, problem: Any, n_samples: int, *args: Any, random_state: Any = None, **kwargs: Any) -> Any:
        """Sample a population as pymoo does, but refuse to do so without a generator or a ``seed``."""
        if random_state is None and kwargs.get("seed") is None:
            _require_generator(self, None)
        return super().do(problem, n_samples, *args, random_state=random_state, **kwargs)


class DensitySampling(_SeededSampling):
    """Draw a density for each individual, then that share of the bits.

    Parameters
    ----------
    scale : {"uniform", "log"}
        "uniform": a density from U(0, 1), or between ``densities``, then each bit with that probability, as
        in EvoPruneDeepTL (Poyatos et al., Neural Networks 158, 2023). A mask may come out empty.
        "log": exactly k bits, k log-uniform between ``low`` and ``high`` and stratified: of n individuals
        one has its k from each of n equal strata of the log scale, so that every start population spans
        all sizes. The order of the individuals is random. Duplicates are redrawn inside their stratum and
        remain only where it holds fewer masks than it needs.
    low, high : int, optional
        Fewest and most active bits for "log", 1 <= low <= high <= n_var; by default 1 and n_var.
    scores : array of shape (n_var,), optional
        Importance of the bits, for "log": larger scores are drawn more often. Only their order counts.
    tournament : int
        How strongly scores count: a bit is drawn about as often as it is the best of so many random bits
        (score tournaments as in SparseEA, Tian et al., IEEE TEVC 2020); 1 ignores them.
    densities : (float, float)
        Lowest and highest density for "uniform", in [0, 1]; equal ones give every bit the same probability.

    Raises
    ------
    InputError
        If the scale is unknown or the range is not as described; a ``high`` beyond the problem's n_var,
        and a missing ``random_state``, are found when sampling.
    """

    def __init__(
        self,
        scale: Literal["uniform", "log"] = "uniform",
        low: int | None = None,
        high: int | None = None,
        scores: npt.ArrayLike | None = None,
        tournament: int = 8,
        densities: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__()
        if scale not in ("uniform", "log"):
            raise InputError(f"sampling scale is {scale!r}; use 'uniform' or 'log'")
        if scale == "uniform" and not (low is None and high is None and scores is None):
            raise InputError(
                "low, high and scores are for the sampling scale 'log' only; use it, or leave them out"
            )
        if scale == "log" and densities != (0.0, 1.0):
            raise InputError("densities are for the sampling scale 'uniform' only; use it, or low and high")
        if not 0 <= densities[0] <= densities[1] <= 1:
            raise InputError(f"sampling densities are {densities!r}; give a lower and a higher one, in [0, 1]")
        if tournament < 1:
            raise InputError(f"sampling tournament is {tournament!r}; give a number of bits, at least 1")
        for name, bound in (("low", low), ("high", high)):
            if bound is None:
                continue
            if isinstance(bound, bool) or not isinstance(bound, int | np.integer) or bound < 1:
                raise InputError(f"sampling bound {name} is {bound!r}; give a number of bits, at least 1")
        if low is not None and high is not None and low > high:
            raise InputError(f"sampling bounds are low={low} > high={high}; exchange them")
        self.scale = scale
        self.low = low
        self.high = high
        self.densities = densities
        self.chances = None if scores is None else _chances(np.asarray(scores, dtype=np.float64), tournament)

    def _do(
        self, problem: Any, n_samples: int, *args: Any, random_state: Any = None, **kwargs: Any
    ) -> npt.NDArray[np.bool_]:
        rng = _require_generator(self, random_state)
        n_var = int(problem.n_var)
        if self.scale == "uniform":
            return _bernoulli(rng, n_samples, n_var, *self.densities)
        low = 1 if self.low is None else int(self.low)
        high = n_var if self.high is None else int(self.high)
        if not low <= high <= n_var:
            raise InputError(
                f"sampling bounds are low={low}, high={high} for masks of {n_var} bits; "
                "keep 1 <= low <= high <= bits"
            )
        if self.chances is not None and len(self.chances) != n_var:
            raise InputError(f"sampling has {len(self.chances)} scores for masks of {n_var} bits; give one a bit")
        return _log_stratified(rng, n_samples, n_var, low, high, self.chances)


class MaskSampling(_SeededSampling):
    """Start from given masks and fill the rest of the population by another sampling.

    Parameters
    ----------
    masks : array of shape (n, n_var)
        Of any bool, integer or float type, with no values but 0 and 1; copied as bool. If there are more
        than the population holds, the last ones are left out.
    fill : Sampling, optional
        Draws the remaining individuals; by default ``DensitySampling()``.

    Raises
    ------
    InputError
        If the masks are not as described; a length other than the problem's n_var, a fill that is not
        0/1, and a missing ``random_state``, are found when sampling.
    """

    def __init__(self, masks: npt.ArrayLike, fill: Sampling | None = None) -> None:
        super().__init__()
        self.masks = as_masks(masks, "start masks")
        self.fill = DensitySampling() if fill is None else fill

    def _do(
        self, problem: Any, n_samples: int, *args: Any, random_state: Any = None, **kwargs: Any
    ) -> npt.NDArray[np.bool_]:
        n_var = int(problem.n_var)
        if self.masks.shape[1] != n_var:
            raise InputError(
                f"start masks have {self.masks.shape[1]} bits but the problem has {n_var}; "
                "give masks of the same head"
            )
        given = self.masks[:n_samples]
        missing = n_samples - len(given)
        if missing == 0:
            return given.copy()
        rng = _require_generator(self, random_state)
        drawn = self.fill.do(problem, missing, *args, random_state=rng, **kwargs).get("X")
        return np.vstack([given, as_masks(drawn, f"masks drawn by {type(self.fill).__name__}")])


def _require_generator(sampling: Sampling, random_state: Any) -> np.random.Generator:
    if not isinstance(random_state, np.random.Generator):
        raise InputError(
            f"{type(sampling).__name__} got {type(random_state).__name__} as its random_state; pass a "
            "numpy Generator, as pymoo does from release 0.6.1.6 on when minimize is given a seed"
        )
    return random_state


def _chances(scores: npt.NDArray[np.float64], tournament: int) -> npt.NDArray[np.float64]:
    """Turn scores into the chance of each bit to be the best of ``tournament`` random bits."""
    from scipy.stats import rankdata

    if scores.ndim != 1 or np.isnan(scores).any():
        raise InputError(f"sampling scores have shape {scores.shape} or hold NaN; give one number a bit")
    weights: npt.NDArray[np.float64] = (rankdata(scores) / max(len(scores), 1)) ** (tournament - 1)
    chances: npt.NDArray[np.float64] = weights / weights.sum()
    return chances


def _bernoulli(
    rng: np.random.Generator, n_samples: int, n_var: int, low: float, high: float
) -> npt.NDArray[np.bool_]:
    densities = low + (high - low) * rng.random(n_samples)
    masks = np.empty((n_samples, n_var), dtype=np.bool_)
    # Row by row: the random numbers take eight times the memory of the masks.
    for mask, density in zip(masks, densities, strict=True):
        np.less(rng.random(n_var), density, out=mask)
    return masks


def _log_stratified(
    rng: np.random.Generator,
    n_samples: int,
    n_var: int,
    low: int,
    high: int,
    chances: npt.NDArray[np.float64] | None,
) -> npt.NDArray[np.bool_]:
    # Up to high + 1 and rounded down: each size k then has the probability mass of [k, k + 1).
    start, width = math.log(low), math.log(high + 1) - math.log(low)
    masks = np.zeros((n_samples, n_var), dtype=np.bool_)
    seen: set[bytes] = set()
    for i, mask in enumerate(masks):
        # exp(log(k)) may fall just short of k, or just beyond it.
        first = min(math.floor(math.exp(start + width * i / n_samples) + 1e-9), high)
        last = max(math.ceil(math.exp(start + width * (i + 1) / n_samples) - 1e-9) - 1, first)
        for _ in range(1 + _REDRAWS):
            drawn = math.floor(math.exp(start + width * (i + rng.random()) / n_samples))
            size = min(max(drawn, first), last)
            mask[:] = False
            mask[rng.choice(n_var, size, replace=False, p=chances, shuffle=False)] = True
            if _key(mask) not in seen:
                break
        else:
            _place_unseen(rng, mask, np.arange(first, last + 1), seen, 2 * n_samples)
        seen.add(_key(mask))
    return masks[rng.permutation(n_samples)]


def _key(mask: npt.NDArray[np.bool_]) -> bytes:
    return np.packbits(mask).tobytes()


def _place_unseen(
    rng: np.random.Generator,
    mask: npt.NDArray[np.bool_],
    sizes: npt.NDArray[np.int64],
    seen: set[bytes],
    most: int,
) -> None:
    """Set the mask to one of the sizes that was not drawn yet; leave it alone if there is none.

    Sizes with more than ``most`` masks are passed over: where at least half of the masks are free, the
    redraws have found one already.
    """
    for size in rng.permutation(sizes):
        if math.comb(len(mask), int(size)) > most:
            continue
        listed = np.zeros((math.comb(len(mask), int(size)), len(mask)), dtype=np.bool_)
        for row, bits in zip(listed, itertools.combinations(range(len(mask)), int(size)), strict=True):
            row[list(bits)] = True
        free = [row for row in listed if _key(row) not in seen]
        if free:
            mask[:] = free[int(rng.integers(len(free)))]
            return
