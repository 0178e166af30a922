"""Out-of-distribution detection from a head's logits: confidence scores and the area under their ROC."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from moevoprune.errors import InputError

__all__ = ["auroc", "max_softmax_score"]


def max_softmax_score(logits: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Maximum softmax probability of temperature-scaled logits: a confidence, low for unfamiliar rows.

    .. math:: s(z) = \max_c \frac{\exp(z_c / T)}{\sum_k \exp(z_k / T)}

    ``T = 1`` is the baseline of Hendrycks & Gimpel (2017). ``T = 1000`` is what the papers on evolutionary
    head pruning call "ODIN"; it is ODIN's temperature scaling only (Liang et al., 2018, eq. 1), without the
    input perturbation, since a head sees features and not images.

    Parameters
    ----------
    logits : Tensor, shape (..., n, C)
        Unnormalised class scores, ``C >= 1``.
    temperature : float
        Positive and finite.

    Returns
    -------
    Tensor, shape (..., n), float64
        Scores in [1/C, 1]; NaN for a row with a NaN or a positive infinity.

    Raises
    ------
    InputError
        If the temperature is not positive and finite, or the logits have no class dimension.

    Notes
    -----
    Computed in float64: at ``T = 1000`` the scores crowd just above ``1/C``, and in float32 distinct rows
    would fall into ties. At ``T = 1`` a margin above about 36 still rounds to a score of exactly 1.

    References
    ----------
    D. Hendrycks, K. Gimpel. A baseline for detecting misclassified and out-of-distribution examples in
    neural networks. ICLR 2017.

    S. Liang, Y. Li, R. Srikant. Enhancing the reliability of out-of-distribution image detection in neural
    networks. ICLR 2018.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise InputError(
            f"max_softmax_score: temperature is {temperature}; give a positive finite number, "
            "for example 1 or 1000"
        )
    if logits.ndim < 2 or logits.shape[-1] == 0:
        raise InputError(
            f"max_softmax_score: logits have shape {tuple(logits.shape)}; give shape (..., n, C) with C >= 1"
        )
    logits = logits.to(torch.float64)
    gaps = logits - logits.amax(-1, keepdim=True)
    # The largest term of the softmax is exp(0), so its share is one over the sum: one rounding fewer.
    return (gaps / temperature).exp().sum(-1).reciprocal()


def auroc(score_in: Tensor, score_out: Tensor) -> Tensor:
    r"""Area under the ROC curve for telling out-of-distribution rows (the positives) by a low confidence.

    .. math:: P(s_\mathrm{in} > s_\mathrm{out}) + \tfrac12 P(s_\mathrm{in} = s_\mathrm{out})

    Exact, with ties counted half (the Mann-Whitney statistic: Hanley & McNeil, 1982), from one sort and two
    binary searches: O((n_in + n_out) log n_in) per curve.

    Parameters
    ----------
    score_in : Tensor, shape (..., n_in)
        Confidences of in-distribution rows (the negatives). Infinities are allowed.
    score_out : Tensor, shape (..., n_out)
        Confidences of out-of-distribution rows. Leading dimensions broadcast against those of ``score_in``.

    Returns
    -------
    Tensor, shape (...), float64
        In [0, 1]: 1 when every in-distribution row is the more confident, 0.5 for scores that tell nothing.

    Raises
    ------
    InputError
        If a group is empty, a score is NaN, or the leading dimensions do not broadcast.

    References
    ----------
    J. Hanley, B. McNeil. The meaning and use of the area under a receiver operating characteristic (ROC)
    curve. Radiology 143(1), 1982.
    """
    for name, score in (("score_in", score_in), ("score_out", score_out)):
        if score.ndim < 1 or score.shape[-1] == 0:
            raise InputError(
                f"auroc: {name} has shape {tuple(score.shape)}; each group needs at least one score, "
                "shape (..., n)"
            )
        if bool(score.isnan().any()):
            raise InputError(f"auroc: {name} holds NaN; leave out the rows, or the head, that made it")
    try:
        leading = np.broadcast_shapes(score_in.shape[:-1], score_out.shape[:-1])
    except ValueError:
        raise InputError(
            f"auroc: leading dimensions {tuple(score_in.shape[:-1])} and {tuple(score_out.shape[:-1])} "
            "do not broadcast; make them equal, or 1"
        ) from None
    n_in, n_out = score_in.shape[-1], score_out.shape[-1]
    # One exact common type: comparing float32 with float64 by way of float32 would invent ties.
    real = score_in.is_floating_point() or score_out.is_floating_point()
    dtype = torch.float64 if real else torch.int64
    ranked = score_in.to(dtype).sort(-1).values.expand(*leading, n_in).contiguous()
    query = score_out.to(dtype).expand(*leading, n_out).contiguous()
    below = torch.searchsorted(ranked, query, right=False)
    not_above = torch.searchsorted(ranked, query, right=True)
    # Twice the count of pairs won, in integers: the division is the only rounding.
    doubled = (2 * n_in - below - not_above).sum(-1)
    return doubled.to(torch.float64) / (2 * n_in * n_out)
