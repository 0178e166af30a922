"""How well a head predicts: accuracy for classes, R2 and mean squared error for real-valued targets."""

from __future__ import annotations

import torch
from torch import Tensor

from moevoprune.errors import InputError

__all__ = ["accuracy", "mean_squared_error", "r2_score"]


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of rows whose largest logit is that of their label.

    Parameters
    ----------
    logits : Tensor, shape (..., n, C)
        Class scores. A tie goes to the lowest class index; a row with a NaN counts as wrong.
    labels : Tensor, shape (n,) or (..., n)
        Class indices in ``0 .. C - 1``, of an integer type.

    Returns
    -------
    Tensor, shape (...), float64
        In [0, 1].

    Raises
    ------
    InputError
        If the shapes do not fit, there are no rows, or the labels are not integers within ``0 .. C - 1``.
    """
    if logits.ndim < 2 or logits.shape[-2] == 0 or logits.shape[-1] == 0:
        raise InputError(
            f"accuracy: logits have shape {tuple(logits.shape)}; give shape (..., n, C) with n, C >= 1"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InputError(f"accuracy: labels are {labels.dtype}; give integer class indices")
    if labels.shape not in (logits.shape[:-1], logits.shape[-2:-1]):
        raise InputError(
            f"accuracy: labels have shape {tuple(labels.shape)} and logits {tuple(logits.shape)}; "
            "give one label per row of logits"
        )
    classes = logits.shape[-1]
    if bool(((labels < 0) | (labels >= classes)).any()):
        raise InputError(
            f"accuracy: labels lie in {int(labels.min())} .. {int(labels.max())} but the logits have "
            f"{classes} classes; labels must lie in 0 .. {classes - 1}"
        )
    correct = (logits.argmax(-1) == labels) & ~logits.isnan().any(-1)
    return correct.to(torch.float64).mean(-1)


def r2_score(outputs: Tensor, targets: Tensor) -> Tensor:
    r"""Coefficient of determination, averaged with equal weights over the target columns.

    .. math:: R^2_t = 1 - \frac{\sum_i (y_{it} - \hat y_{it})^2}{\sum_i (y_{it} - \bar y_t)^2}

    Parameters
    ----------
    outputs : Tensor, shape (..., n, T)
        Predictions, ``n >= 2``.
    targets : Tensor, shape (n, T) or (..., n, T)
        True values.

    Returns
    -------
    Tensor, shape (...), float64
        At most 1. A constant target column counts 1 if predicted exactly, else 0 (scikit-learn's
        convention; a column is constant here when its values are equal, not when its computed variance is
        zero). Not finite where the outputs are not.

    Raises
    ------
    InputError
        If the shapes do not fit or there are fewer than two rows.
    """
    _check_regression("r2_score", outputs, targets)
    if outputs.shape[-2] < 2:
        raise InputError("r2_score: 1 row has no variance to explain; give at least 2 rows")
    outputs, targets = outputs.to(torch.float64), targets.to(torch.float64)
    residual = (targets - outputs).square().sum(-2)
    total = (targets - targets.mean(-2, keepdim=True)).square().sum(-2)
    # A computed variance is not exactly zero where the mean of equal values has been rounded.
    constant = targets.amax(-2) == targets.amin(-2)
    explained = 1.0 - residual / torch.where(constant, 1.0, total)
    on_constant = torch.where(residual == 0, 1.0, torch.where(residual.isfinite(), 0.0, residual.neg()))
    return torch.where(constant, on_constant, explained).mean(-1)


def mean_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean of the squared errors over rows and target columns.

    Parameters
    ----------
    outputs : Tensor, shape (..., n, T)
        Predictions.
    targets : Tensor, shape (n, T) or (..., n, T)
        True values.

    Returns
    -------
    Tensor, shape (...), float64
        At least 0. Not finite where the outputs are not.

    Raises
    ------
    InputError
        If the shapes do not fit or there are no rows.
    """
    _check_regression("mean_squared_error", outputs, targets)
    return (outputs.to(torch.float64) - targets.to(torch.float64)).square().mean((-2, -1))


def _check_regression(where: str, outputs: Tensor, targets: Tensor) -> None:
    if outputs.ndim < 2 or outputs.shape[-2] == 0 or outputs.shape[-1] == 0:
        raise InputError(
            f"{where}: outputs have shape {tuple(outputs.shape)}; give shape (..., n, T) with n, T >= 1"
        )
    # Broadcasting (n,) or (n, 1) against (n, T) would silently compare every row with every other.
    if targets.shape not in (outputs.shape, outputs.shape[-2:]):
        raise InputError(
            f"{where}: targets have shape {tuple(targets.shape)} and outputs {tuple(outputs.shape)}; "
            "give one target per output"
        )
