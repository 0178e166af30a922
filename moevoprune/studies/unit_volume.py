"""Fronts of accuracy, active bits and out-of-distribution detection, measured as MO-EvoPruneDeepTL's are."""

from __future__ import annotations

from typing import Literal

import numpy as np

from moevoprune.errors import InputError
from moevoprune.fronts.front import Front, Values
from moevoprune.search.archive import hypervolume

__all__ = ["AUROC", "member_scores", "unit_hypervolume"]

Part = Literal["validation", "test"]

AUROC = "ood_auroc"


def member_scores(front: Front, part: Part) -> Values:
    """Accuracy, share of active bits and AUROC of out-of-distribution rows of each member.

    Parameters
    ----------
    front
        With the objectives ``"accuracy"`` and ``"ood_auroc"``.
    part
        ``"validation"``: as the search saw them, on the folds. ``"test"``: of the retrained heads, on the test
        rows and the out-of-distribution rows held back with them.

    Returns
    -------
    ndarray, shape (members, 3)
        All in [0, 1].

    Raises
    ------
    InputError
        The front has no such objectives, or no such part.
    """
    if part not in ("validation", "test"):
        raise InputError(f"part = {part!r}: use validation or test")
    quality, detection = front.column("accuracy"), front.column(AUROC)
    if part == "test":
        if AUROC not in front.test_columns:
            raise InputError(
                f"the front has no {AUROC} of its test rows: it is of an older version; repeat the run"
            )
        quality, detection = front.test, front.test_columns[AUROC]
    return np.column_stack([quality, front.active / front.n_bits, detection])


def unit_hypervolume(front: Front, part: Part) -> float:
    """Share of the unit cube of (accuracy, 1 - share of active bits, AUROC) that a front's members dominate.

    The worst corner is accuracy 0, all bits active and AUROC 0; the best one accuracy 1, none active and AUROC 1.
    So is the hypervolume of MO-EvoPruneDeepTL (arXiv 2302.10253), which is reported there of the merged front of
    ten runs, on test rows. Members that others dominate on the rows in question add nothing.

    Parameters
    ----------
    front, part
        As of :func:`member_scores`.

    Raises
    ------
    InputError
        As :func:`member_scores`.
    """
    accuracy, active, auroc = member_scores(front, part).T
    return hypervolume(np.column_stack([1.0 - accuracy, active, 1.0 - auroc]), np.ones(3))
