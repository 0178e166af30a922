"""How alike two trained heads are: by what they make of the same rows, and by their weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moevoprune.errors import InputError
from moevoprune.fronts.statistics import Interval, jackknife_interval
from moevoprune.heads.head import TrainedHead
from moevoprune.objectives.cka import debiased_linear_cka
from moevoprune.objectives.kernel_cka import biased_rbf_cka, debiased_rbf_cka

__all__ = ["HeadSimilarity", "compare_heads", "first_layer_weights"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class HeadSimilarity:
    """CKA between two heads; 1 for heads that are the same up to the order of their units.

    Attributes
    ----------
    linear, rbf
        Debiased CKA of their last hidden representations of the same rows, with a linear and with an RBF kernel;
        the interval is over the rows.
    weights
        Biased RBF-kernel CKA of their first layers' weights, in [0, 1].
    """

    linear: Interval
    rbf: Interval
    weights: float


def compare_heads(
    one: TrainedHead,
    other: TrainedHead,
    rows: npt.NDArray[np.floating],
    generator: np.random.Generator,
    groups: int = 20,
) -> HeadSimilarity:
    """Measure how alike two heads are.

    EvoPruneDeepTL (arXiv 2202.03844) compares weights. Those of heads that were trained apart from different start
    weights say little, as many weights make the same function; so the representations stand beside them.

    Parameters
    ----------
    one, other
        Heads of the same features.
    rows
        Rows as the backbone gives them, shape (n, features), so many that 4 are left without a group.
    generator
        Deals rows to groups.
    groups
        Of the grouped jackknife, at least 2. (Not a bootstrap: rows that are there twice would bring back the
        similarity of a row with itself, which the debiased estimator leaves out.)

    Raises
    ------
    InputError
        The heads read different features or the rows other ones, or there are too few rows.
    """
    if one.n_features != other.n_features:
        raise InputError(f"heads of {one.n_features} and of {other.n_features} features cannot be compared")
    hidden = (torch.from_numpy(one.hidden(rows)), torch.from_numpy(other.hidden(rows)))

    def over_rows(cka: Callable[[Tensor, Tensor], Tensor]) -> Interval:
        def statistic(chosen: npt.NDArray[np.int64]) -> float:
            return float(cka(*(part[torch.from_numpy(chosen)] for part in hidden)))

        return jackknife_interval(statistic, len(rows), generator, groups)

    weights = [torch.from_numpy(first_layer_weights(head)) for head in (one, other)]
    return HeadSimilarity(
        over_rows(debiased_linear_cka), over_rows(debiased_rbf_cka), float(biased_rbf_cka(weights[0], weights[1]))
    )


def first_layer_weights(head: TrainedHead) -> Floats:
    """Weights of the first layer, one row per feature, shape (features, units); 0 for features it does not read.

    Parameters
    ----------
    head
        Its units are those that its mask left, in their order.
    """
    weights = np.zeros((head.n_features, head.weights[0].shape[1]), dtype=np.float32)
    weights[head.inputs] = head.weights[0]
    return weights
