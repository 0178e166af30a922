"""Splits inside the training part, on which masks are scored. The test part is never touched here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError
from moevoprune.features.feature_folder import MappedRows, is_mapped
from moevoprune.features.feature_set import FeatureSet

__all__ = ["HOLD_OUT_SHARE", "Folds", "fresh_seed", "make_folds", "training_part", "training_targets"]

HOLD_OUT_SHARE = 0.25
_AUTO_FOLDS = 5
_AUTO_FOLDS_BELOW = 2000


@dataclass(frozen=True, eq=False)
class Folds:
    """Row numbers of the training part: what each fold trains on and what it is scored on.

    Attributes
    ----------
    train, validation
        One sorted array of row numbers per fold.
    description
        How the rows were split, for people.
    """

    train: tuple[npt.NDArray[np.int64], ...]
    validation: tuple[npt.NDArray[np.int64], ...]
    description: str

    def __len__(self) -> int:
        return len(self.train)


def training_part(
    features: FeatureSet,
) -> tuple[npt.NDArray[np.float32] | MappedRows, npt.NDArray[np.generic]]:
    """All rows that may be learned from: the training rows, then the validation rows where there are any.

    Returns
    -------
    rows, targets
        Features, read when they are asked for where they are left on disk, and labels or targets.
    """
    parts = [features.X_train] if features.X_val is None else [features.X_train, features.X_val]
    if any(is_mapped(part) for part in parts):
        return MappedRows(parts), training_targets(features)
    return parts[0] if len(parts) == 1 else np.concatenate(parts), training_targets(features)


def training_targets(features: FeatureSet) -> npt.NDArray[np.generic]:
    """Labels or targets of :func:`training_part`."""
    return features.y_train if features.y_val is None else np.concatenate([features.y_train, features.y_val])


def make_folds(features: FeatureSet, cv: int | None, seed: int, repeats: int = 1) -> Folds:
    """Split the training part for scoring.

    Parameters
    ----------
    features
        The data.
    cv
        Number of folds, stratified by class; 1 means a stratified hold-out of 25 %. None means: the data's own
        validation rows where it has them, else 5 folds below 2,000 rows and a hold-out from there on. With own
        validation rows and ``cv`` given, folds are drawn from training and validation rows together.
    seed
        Seed of the split.
    repeats
        How often the rows are split anew, at least 1; the data's own validation rows are one split only.

    Raises
    ------
    InputError
        ``cv`` or ``repeats`` is below 1, the data's own validation rows are to be repeated, or some class (or the
        data) has fewer rows than folds.
    """
    labels_or_targets = training_targets(features)
    n_rows = len(labels_or_targets)
    if repeats < 1:
        raise InputError(f"repeats = {repeats}: split the rows at least once")
    if cv is None and features.X_val is not None:
        if repeats > 1:
            raise InputError(
                f"{features.name}: repeats = {repeats}, but the data's own validation rows are one split: add cv"
            )
        n_train = features.n_train
        return Folds((np.arange(n_train),), (np.arange(n_train, n_rows),), "the data's own validation rows")
    if cv is None:
        cv = _AUTO_FOLDS if n_rows < _AUTO_FOLDS_BELOW else 1
    if cv < 1:
        raise InputError(f"cv = {cv}: use 2 or more folds, or 1 for a hold-out of {HOLD_OUT_SHARE:.0%}")
    _check_counts(features, labels_or_targets, max(cv, 2))
    classes = labels_or_targets if features.task == "classification" else None
    pairs = []
    for repeat in range(repeats):
        split_seed = seed if repeat == 0 else fresh_seed(seed, repeat)
        pairs += _hold_out(n_rows, classes, split_seed) if cv == 1 else _k_folds(n_rows, classes, cv, split_seed)
    description = f"{cv} folds" if cv > 1 else f"a hold-out of {HOLD_OUT_SHARE:.0%}"
    if repeats > 1:
        description = f"{repeats} x {description}"
    return Folds(tuple(np.sort(t) for t, _ in pairs), tuple(np.sort(v) for _, v in pairs), description)


def fresh_seed(seed: int, number: int) -> int:
    """Derive a seed for another split of the same rows.

    Parameters
    ----------
    seed
        Seed of the first split.
    number
        Which other one, at least 1.
    """
    return int(np.random.SeedSequence([seed, 0xF01D, number]).generate_state(1)[0])


def _check_counts(features: FeatureSet, targets: npt.NDArray[np.generic], n_parts: int) -> None:
    if len(targets) < n_parts:
        raise InputError(f"{features.name}: {len(targets)} training rows cannot fill {n_parts} folds: lower cv")
    if features.task != "classification":
        return
    counts = np.bincount(targets, minlength=features.n_classes)
    smallest = int(counts.argmin())
    if counts[smallest] < n_parts:
        raise InputError(
            f"{features.name}: class {features.class_names[smallest]!r} has {counts[smallest]} training rows, "
            f"fewer than {n_parts} folds: "
            + ("give more rows of it" if n_parts == 2 else "lower cv (--cv), or give more rows of it")
        )


def _k_folds(
    n_rows: int, classes: npt.NDArray[np.generic] | None, cv: int, seed: int
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    from sklearn.model_selection import KFold, StratifiedKFold

    splitter = (KFold if classes is None else StratifiedKFold)(cv, shuffle=True, random_state=seed)
    return list(splitter.split(np.zeros(n_rows), classes))


def _hold_out(
    n_rows: int, classes: npt.NDArray[np.generic] | None, seed: int
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    from sklearn.model_selection import train_test_split

    n_classes = 1 if classes is None else len(np.unique(classes))
    if int(np.ceil(HOLD_OUT_SHARE * n_rows)) < n_classes:
        raise InputError(
            f"cannot hold out {HOLD_OUT_SHARE:.0%} of {n_rows} rows with a row of each of {n_classes} classes: "
            "use folds instead (--cv 2 or more)"
        )
    train, validation = train_test_split(
        np.arange(n_rows), test_size=HOLD_OUT_SHARE, stratify=classes, random_state=seed
    )
    return [(train, validation)]
