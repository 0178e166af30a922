"""Feature sets with some of their classes, or with part of one: which classes a pruned head needs."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError, nearest, whole_number
from moevoprune.features.feature_set import FeatureSet

__all__ = ["with_classes", "with_share_of_class", "without_class"]

Kept = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int64]

_PARTS = ("train", "test", "val")
_LONGEST_NAME = 80


def with_classes(features: FeatureSet, keep: Sequence[int | str]) -> FeatureSet:
    """Keep the rows of some classes only.

    Parameters
    ----------
    features
        A classification task.
    keep
        At least two classes, by name or label, in any order, each once.

    Returns
    -------
    FeatureSet
        The training, test and validation rows of these classes, in their order, in memory. Labels are renumbered
        from 0 in the order that the classes had. Out-of-distribution rows stay: they are of other data. How the
        features were made (``extraction``) stays too. The name is followed by ``-without-`` and the classes left
        out or ``-only-`` and those kept, whichever are fewer; of a long list a part, and a digest of the whole.

    Raises
    ------
    InputError
        It is a regression task, a class is unknown or named twice, fewer than two are kept, or a part of the rows
        (test, validation) has none of them.
    """
    labels = [_label(features, each) for each in keep]
    for place, label in enumerate(labels):
        if label in labels[:place]:
            raise InputError(
                f"{features.name}: class {features.class_names[label]!r} is there twice; name it once"
            )
    if len(labels) < 2:
        raise InputError(
            f"{features.name}: {len(labels)} of {features.n_classes} classes would be left: keep at least two"
        )
    kept = sorted(labels)
    left_out = [label for label in range(features.n_classes) if label not in labels]
    rows = {part: np.isin(y, kept) for part, y in _labels_of_parts(features).items()}
    for part, of_them in rows.items():
        if not of_them.any():
            names = ", ".join(features.class_names[label] for label in kept)
            raise InputError(f"{features.name}: X_{part} has no row of {names}: keep other classes")
    arrays = _rows(features, rows)
    new_label = np.full(features.n_classes, -1)
    new_label[kept] = np.arange(len(kept))
    arrays |= {key: new_label[array] for key, array in arrays.items() if key.startswith("y_")}
    word, named = ("without", left_out) if len(left_out) <= len(kept) else ("only", kept)
    words = [features.class_names[label] for label in named]
    return replace(
        features,
        **arrays,
        class_names=tuple(features.class_names[label] for label in kept),
        name=_suffixed(features, word, *words) if words else features.name,
    )


def without_class(features: FeatureSet, left_out: int | str) -> FeatureSet:
    """Leave out one class, as :func:`with_classes` does with all others.

    Parameters
    ----------
    features
        A classification task of at least three classes.
    left_out
        The class, by name or label.

    Raises
    ------
    InputError
        As :func:`with_classes`.
    """
    label = _label(features, left_out)
    return with_classes(features, [other for other in range(features.n_classes) if other != label])


def with_share_of_class(features: FeatureSet, part_of: int | str, share: float, seed: int) -> FeatureSet:
    """Keep a share of what there is to learn one class from: all else, its test rows included, stays.

    Parameters
    ----------
    features
        A classification task.
    part_of
        The class, by name or label.
    share
        Share of the class's training rows to keep, 0 to 1; rounded to whole rows, at least one. Of the validation
        rows, if any, the same share is kept, as final heads are trained on them too. With 0 the class is absent
        altogether, see :func:`without_class`.
    seed
        Seed of the draw, at least 0. With one seed a smaller share's rows are among those of a larger one.

    Returns
    -------
    FeatureSet
        Rows in their order, in memory. The name is followed by the class and the share in per cent, as in
        ``leaves-canker40``, or ``digits-3-40`` where the class ends in a digit; the seed is not in it.

    Raises
    ------
    InputError
        It is a regression task, the class is unknown, the share or the seed is out of range, or with a share of 0
        fewer than two classes would be left.
    """
    label = _label(features, part_of)
    seed = whole_number("seed", seed, 0)
    if isinstance(share, bool) or not (math.isfinite(share) and 0.0 <= share <= 1.0):
        raise InputError(f"share = {share!r}: use a number between 0 and 1")
    if share == 0:
        return without_class(features, label)
    kept = {part: np.ones(len(y), np.bool_) for part, y in _labels_of_parts(features).items()}
    generator = np.random.default_rng(seed)
    for part in ("train", "val"):
        if part in kept:
            rows = generator.permutation(np.flatnonzero(getattr(features, f"y_{part}") == label))
            kept[part][rows[max(math.floor(share * len(rows) + 0.5), 1) :]] = False
    class_name = features.class_names[label]
    dash = "-" if class_name[-1:].isdigit() else ""
    name = _suffixed(features, f"{class_name}{dash}{100 * share:g}")
    return replace(features, **_rows(features, kept), name=name)


def _label(features: FeatureSet, given: int | str) -> int:
    """Label of a class given by name or label."""
    if features.task != "classification":
        raise InputError(f"{features.name}: a regression task has no classes to choose from")
    names = features.class_names
    if not isinstance(given, str):
        return whole_number(f"{features.name}: class", given, 0, len(names) - 1)
    if given not in names:
        hint = nearest(given, names) or f": use one of {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}"
        raise InputError(f"{features.name} has no class {given!r}{hint}")
    return names.index(given)


def _labels_of_parts(features: FeatureSet) -> dict[str, Labels]:
    return {part: y for part in _PARTS if (y := getattr(features, f"y_{part}")) is not None}


def _rows(features: FeatureSet, kept: dict[str, Kept]) -> dict[str, Any]:
    """Arrays of the parts, cut down to the rows kept."""
    return {
        f"{letter}_{part}": np.asarray(getattr(features, f"{letter}_{part}")[rows])
        for part, rows in kept.items()
        for letter in "Xy"
    }


def _suffixed(features: FeatureSet, *words: str) -> str:
    """Name of the set followed by words, fit for a file name if it was: long ones end in a digest."""
    added = re.sub(r"[^\w.+-]+", "_", "-".join(words))
    if len(added) > _LONGEST_NAME:
        digest = hashlib.sha256("\0".join(words).encode("utf-8", "surrogatepass")).hexdigest()[:8]
        added = f"{added[: _LONGEST_NAME - 9]}-{digest}"
    return f"{features.name}-{added}"
