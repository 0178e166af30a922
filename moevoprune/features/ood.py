"""Out-of-distribution rows: chosen from other data sets, balanced, a part for the search and one for the test."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError, whole_number
from moevoprune.features.feature_set import FeatureSet

__all__ = ["OodRows", "choose_ood", "ood_parts", "ood_selection", "ood_test", "rows_of", "with_ood"]

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

# how X_ood alone is split is a property of the data, as its test rows are, not of a run
_SPLIT_SEED = 0


@dataclass(frozen=True, eq=False)
class OodRows:
    """Rows of one source, e.g. of another data set, that are to serve as out-of-distribution rows.

    Attributes
    ----------
    rows : ndarray, shape (n, d), float32
        Features from the same backbone layer as those of the task; at least one row, finite.
    groups : ndarray, shape (n,), int64
        Group of each row, in ``0 .. len(group_names) - 1``: what is to be balanced, e.g. classes.
    group_names : tuple of str
        Names of the groups.

    Raises
    ------
    InputError
        The arrays have other shapes or values, or do not fit together.
    """

    rows: Floats
    groups: Rows
    group_names: tuple[str, ...]

    def __post_init__(self) -> None:
        rows, groups = np.asarray(self.rows), np.asarray(self.groups)
        names = tuple(str(name) for name in self.group_names)
        if rows.ndim != 2 or 0 in rows.shape or rows.dtype.kind not in "fiu":
            raise InputError(
                f"OoD rows are {rows.dtype} of shape {rows.shape}; give numbers of shape (rows, features), at "
                "least one row"
            )
        if groups.shape != (len(rows),) or groups.dtype.kind not in "iu":
            raise InputError(
                f"the groups of {len(rows)} OoD rows are {groups.dtype} of shape {groups.shape}; "
                "give one whole number for each row"
            )
        if groups.min() < 0 or groups.max() >= len(names):
            raise InputError(
                f"the groups of OoD rows are numbered {groups.min()} to {groups.max()}, but there are "
                f"{len(names)} names of groups; number the groups from 0 and name each"
            )
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(rows, dtype=np.float32)
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            raise InputError(
                f"OoD row {bad[0]} (counted from 0) holds a number that is not finite in float32; leave it out"
            )
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "groups", groups.astype(np.int64))
        object.__setattr__(self, "group_names", names)


def rows_of(features: FeatureSet) -> OodRows:
    """Every row of another data set, to serve as out-of-distribution rows, balanced over its classes.

    Parameters
    ----------
    features
        The other data set: its training, validation and test rows. In regression they are one group.
    """
    parts = [(features.X_train, features.y_train), (features.X_val, features.y_val)]
    parts.append((features.X_test, features.y_test))
    rows = np.concatenate([x for x, _ in parts if x is not None])
    if features.task == "regression":
        return OodRows(rows, np.zeros(len(rows), np.int64), (features.name,))
    return OodRows(rows, np.concatenate([y for _, y in parts if y is not None]), features.class_names)


def choose_ood(
    sources: Sequence[OodRows], n_selection: int, n_test: int, seed: int, familiar: Sequence[Floats] = ()
) -> tuple[Floats, Floats]:
    """Choose out-of-distribution rows for the search and others for the test.

    In each part the sources have equal shares, and inside a source its groups have; what one is too small to give,
    the others make up for. This is MO-EvoPruneDeepTL's choice (arXiv 2302.10253: the other data sets, class
    balanced, about as many rows as the test set has), made twice. Which rows of a group are taken is drawn.

    Parameters
    ----------
    sources
        At least one, all of the same width.
    n_selection, n_test
        Rows wanted for the search and for the test, at least 1 each. Where there are fewer than both together, the
        parts shrink in proportion, to at least 1 each.
    seed
        Seed of the draw, at least 0.
    familiar
        In-distribution rows, each array of shape (rows, d): rows equal to one of them are not taken.

    Returns
    -------
    selection, test : ndarray, shape (rows, d), float32
        In the order of the sources. No row is in there twice: of rows that are equal, in whatever sources, only
        the first counts.

    Raises
    ------
    InputError
        There is no source, the widths differ, a number is out of range, or there are fewer than 2 different rows.
    """
    n_selection = whole_number("n_selection", n_selection, 1)
    n_test = whole_number("n_test", n_test, 1)
    seed = whole_number("seed", seed, 0)
    if not sources:
        raise InputError("there is no source of out-of-distribution rows: give at least one")
    widths = sorted({source.rows.shape[1] for source in sources})
    if len(widths) > 1:
        raise InputError(
            f"the sources of out-of-distribution rows have {widths[0]} and {widths[-1]} features; "
            "take them all from the same backbone layer"
        )
    pools = _groups_without_repeats(sources, familiar)
    total = sum(len(rows) for source in pools for rows in source)
    if total < 2:
        raise InputError(
            f"out-of-distribution rows: {total} of them differ from one another and from the task's own rows, but "
            "the search and the test need one each; give more"
        )
    wanted = n_selection + n_test
    if total < wanted:
        n_selection = min(max(_rounded(total * n_selection, wanted), 1), total - 1)
        n_test = total - n_selection
        wanted = total
    generator = np.random.default_rng(seed)
    for_selection: list[list[Rows]] = []
    for_test: list[list[Rows]] = []
    # The parts' shares of all rows so far are kept to, so that many small groups add up to the right shares too.
    seen = given = 0
    for source in pools:
        for_selection.append([])
        for_test.append([])
        for rows in source:
            shuffled = generator.permutation(rows)
            seen += len(rows)
            cut = _rounded(seen * n_selection, wanted) - given
            given += cut
            for_selection[-1].append(shuffled[:cut])
            for_test[-1].append(shuffled[cut:])
    return (
        _balanced(sources, for_selection, n_selection, generator),
        _balanced(sources, for_test, n_test, generator),
    )


def with_ood(features: FeatureSet, sources: Sequence[OodRows], seed: int) -> FeatureSet:
    """Give a feature set out-of-distribution rows.

    Parameters
    ----------
    features
        The task. Out-of-distribution rows that it has already are replaced.
    sources
        Where to take them from, as in :func:`choose_ood`.
    seed
        Seed of the draw, at least 0.

    Returns
    -------
    FeatureSet
        With as many rows in ``X_ood`` as the search scores on (training and validation rows), and as many in
        ``X_ood_test`` as there are test rows, or fewer in that proportion.

    Raises
    ------
    InputError
        As :func:`choose_ood`, or the rows have another width than the task's.
    """
    for source in sources:
        if source.rows.shape[1] != features.n_features:
            raise InputError(
                f"out-of-distribution rows have {source.rows.shape[1]} features but {features.name} has "
                f"{features.n_features}; take them from the same backbone layer"
            )
    familiar = [rows for rows in (features.X_train, features.X_val, features.X_test) if rows is not None]
    selection, test = choose_ood(sources, _n_selection(features), features.n_test, seed, familiar)
    return replace(features, X_ood=selection, X_ood_test=test)


def ood_parts(features: FeatureSet) -> tuple[Floats, Floats]:
    """Out-of-distribution rows for the search, and those for the test.

    Parameters
    ----------
    features
        With ``X_ood_test``, the parts are its arrays. With ``X_ood`` alone that is split, always in the same way,
        in the proportion of the rows that the search scores on to the test rows; of equal rows only the first is
        kept.

    Returns
    -------
    selection, test : ndarray, shape (rows, d), float32

    Raises
    ------
    InputError
        There are no such rows, or too few to split.
    """
    return ood_selection(features), ood_test(features)


def ood_selection(features: FeatureSet) -> Floats:
    """Return the first of :func:`ood_parts`, without a look at rows that are held back for the test."""
    if features.X_ood is not None and features.X_ood_test is not None:
        return features.X_ood
    return _split(features)[0]


def ood_test(features: FeatureSet) -> Floats:
    """Return the second of :func:`ood_parts`."""
    return _split(features)[1] if features.X_ood_test is None else features.X_ood_test


def _split(features: FeatureSet) -> tuple[Floats, Floats]:
    if features.X_ood is None:
        raise InputError(
            f"{features.name}: the data have no out-of-distribution rows: add --ood PATH, or an array X_ood"
        )
    source = OodRows(features.X_ood, np.zeros(len(features.X_ood), np.int64), ("X_ood",))
    # all rows are used: the parts share them in this proportion
    n_selection, n_test = _n_selection(features) * len(source.rows), features.n_test * len(source.rows)
    try:
        return choose_ood([source], n_selection, n_test, _SPLIT_SEED)
    except InputError:
        raise InputError(
            f"{features.name}: X_ood has only one different row, but the search and the test need one each; "
            "give more, or an array X_ood_test"
        ) from None


def _n_selection(features: FeatureSet) -> int:
    return features.n_train + (0 if features.X_val is None else len(features.X_val))


def _groups_without_repeats(sources: Sequence[OodRows], familiar: Sequence[Floats]) -> list[list[Rows]]:
    """Row numbers of each source's groups, leaving out rows whose bytes were there before."""
    known = {_content(row) for rows in familiar for row in rows}
    pools = []
    for source in sources:
        fresh = np.zeros(len(source.rows), dtype=np.bool_)
        for number, row in enumerate(source.rows):
            content = _content(row)
            fresh[number] = content not in known
            known.add(content)
        groups = [np.flatnonzero(fresh & (source.groups == group)) for group in range(len(source.group_names))]
        pools.append([rows for rows in groups if len(rows)])
    return pools


def _content(row: Floats) -> bytes:
    return hashlib.blake2b(row.astype(np.float32).tobytes(), digest_size=16).digest()


def _balanced(
    sources: Sequence[OodRows], pools: list[list[Rows]], n_rows: int, generator: np.random.Generator
) -> Floats:
    """Rows with equal shares of the sources and, inside each, of its groups; each group gives its first ones."""
    shares = _fair_shares([sum(len(rows) for rows in source) for source in pools], n_rows, generator)
    chosen = []
    for source, pool, share in zip(sources, pools, shares, strict=True):
        of_groups = _fair_shares([len(rows) for rows in pool], share, generator)
        chosen += [source.rows[rows[:count]] for rows, count in zip(pool, of_groups, strict=True)]
    return np.concatenate(chosen)


def _fair_shares(sizes: Sequence[int], total: int, generator: np.random.Generator) -> list[int]:
    """Divide a total, at most the sum of the sizes, equally; what one is too small for goes to the others."""
    shares = [0] * len(sizes)
    while total:
        roomy = [place for place, size in enumerate(sizes) if shares[place] < size]
        each = total // len(roomy)
        if each == 0:
            # drawn, or a small part would always hold the first groups
            roomy, each = generator.permutation(roomy)[:total].tolist(), 1
        for place in roomy:
            given = min(each, sizes[place] - shares[place])
            shares[place] += given
            total -= given
    return shares


def _rounded(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)
