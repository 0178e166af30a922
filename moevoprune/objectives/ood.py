"""Out-of-distribution detection from a head's logits: confidence scores, and how well they tell rows apart."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from moevoprune.errors import InputError

__all__ = [
    "ODIN_TEMPERATURE",
    "OOD_SCORES",
    "auroc",
    "energy_score",
    "fpr_at_tpr",
    "max_softmax_score",
    "odin_perturb",
    "ood_score",
]

ODIN_TEMPERATURE = 1000.0


def max_softmax_score(logits: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Maximum softmax probability of temperature-scaled logits: a confidence, low for unfamiliar rows.

    .. math:: s(z) = \max_c \frac{\exp(z_c / T)}{\sum_k \exp(z_k / T)}

    ``T = 1`` is the baseline of Hendrycks & Gimpel (2017). ``T = 1000`` is what the papers on evolutionary
    head pruning call "ODIN"; it is ODIN's temperature scaling only (Liang et al., 2018, eq. 1), without the
    input perturbation of :func:`odin_perturb`.

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
    would fall into ties. At ``T = 1`` a margin above about 36 still rounds to a score of exactly 1: such rows
    tie, as they do in any float64 softmax. The score depends on a row's logits, not on their order.

    References
    ----------
    D. Hendrycks, K. Gimpel. A baseline for detecting misclassified and out-of-distribution examples in
    neural networks. ICLR 2017.

    S. Liang, Y. Li, R. Srikant. Enhancing the reliability of out-of-distribution image detection in neural
    networks. ICLR 2018.
    """
    _, total = _largest_and_total(logits, temperature, "max_softmax_score")
    # The largest term of the softmax is exp(0), so its share is one over the sum: one rounding fewer.
    return total.reciprocal()


def energy_score(logits: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Negative energy of logits (Liu et al., 2020): a confidence, low for unfamiliar rows.

    .. math:: s(z) = -E(z) = T \log \sum_k \exp(z_k / T)

    Unlike a softmax it sees how large the logits are, not only how they differ.

    Parameters
    ----------
    logits : Tensor, shape (..., n, C)
        Unnormalised class scores, ``C >= 1``.
    temperature : float
        Positive and finite; 1 in the paper.

    Returns
    -------
    Tensor, shape (..., n), float64
        Scores of at least the largest logit; NaN for a row with a NaN or a positive infinity.

    Raises
    ------
    InputError
        If the temperature is not positive and finite, or the logits have no class dimension.

    References
    ----------
    W. Liu, X. Wang, J. Owens, Y. Li. Energy-based out-of-distribution detection. NeurIPS 2020.
    """
    largest, total = _largest_and_total(logits, temperature, "energy_score")
    return largest + temperature * total.log()


def ood_score(logits: Tensor, score: str) -> Tensor:
    """Confidence by the name of a score.

    Parameters
    ----------
    logits : Tensor, shape (..., n, C)
        Unnormalised class scores; for ``odin`` those of rows that :func:`odin_perturb` moved.
    score : {"msp", "temperature", "odin", "energy"}
        Largest softmax at temperature 1; the same at temperature 1000; that of perturbed rows; negative energy.

    Returns
    -------
    Tensor, shape (..., n), float64
        Higher is more in-distribution.

    Raises
    ------
    InputError
        If there is no such score, or the logits have no class dimension.
    """
    if score not in OOD_SCORES:
        raise InputError(f"unknown OoD score {score!r}: use one of {', '.join(OOD_SCORES)}")
    return OOD_SCORES[score](logits)


# by name; an objective ood_auroc:NAME is made for each
OOD_SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "msp": max_softmax_score,
    "temperature": functools.partial(max_softmax_score, temperature=ODIN_TEMPERATURE),
    "odin": functools.partial(max_softmax_score, temperature=ODIN_TEMPERATURE),
    "energy": energy_score,
}


def odin_perturb(
    forward: Callable[[Tensor], Tensor],
    inputs: Tensor,
    epsilon: float | Tensor,
    temperature: float = ODIN_TEMPERATURE,
) -> Tensor:
    r"""Move inputs a small step towards a higher confidence (Liang et al., 2018, eq. 2).

    .. math:: \tilde x = x + \varepsilon \, \mathrm{sign}(\nabla_x \log \max_c \mathrm{softmax}_c(f(x) / T))

    In-distribution rows gain more confidence by it than others. ODIN's score is
    ``max_softmax_score(forward(odin_perturb(...)), 1000)``, for in- and out-of-distribution rows alike. In the
    paper the inputs are images; here they are what a head reads, standardised features, so that ``epsilon`` is in
    training standard deviations.

    Parameters
    ----------
    forward : callable
        Maps inputs to logits, shape (..., n, C), row by row; leading dimensions may be those of stacked heads.
    inputs : Tensor, shape (..., n, d)
        Rows; floating.
    epsilon : float or Tensor that broadcasts against the inputs
        Length of the step in every feature, at least 0.
    temperature : float
        Positive and finite.

    Returns
    -------
    Tensor, shape (..., n, d)
        In the type of the inputs and without a gradient. A feature that the confidence does not depend on stays
        where it is; where two classes tie for the largest logit, the first one counts.

    Raises
    ------
    InputError
        If the temperature is not positive and finite, or a step is negative or not finite.

    References
    ----------
    S. Liang, Y. Li, R. Srikant. Enhancing the reliability of out-of-distribution image detection in neural
    networks. ICLR 2018.
    """
    _check_temperature(temperature, "odin_perturb")
    step = torch.as_tensor(epsilon, dtype=inputs.dtype, device=inputs.device)
    if not bool(((step >= 0) & step.isfinite()).all()):
        raise InputError(f"odin_perturb: epsilon is {epsilon}; give finite steps of at least 0, for example 0.05")
    # the evaluator runs without gradients, and an inference tensor can have none
    with torch.inference_mode(False), torch.enable_grad():
        rows = inputs.detach().clone().requires_grad_()
        scaled = forward(rows) / temperature
        if not scaled.requires_grad:
            return rows.detach()
        chosen = scaled.detach().argmax(-1, keepdim=True)
        confidence = scaled.log_softmax(-1).gather(-1, chosen).sum()
        (gradient,) = torch.autograd.grad(confidence, rows, allow_unused=True)
        if gradient is None:
            return rows.detach()
        return rows.detach() + step * gradient.sign()


def _check_temperature(temperature: float, caller: str) -> None:
    if not (math.isfinite(temperature) and temperature > 0):
        raise InputError(
            f"{caller}: temperature is {temperature}; give a positive finite number, for example 1 or 1000"
        )


def _largest_and_total(logits: Tensor, temperature: float, caller: str) -> tuple[Tensor, Tensor]:
    """Return the largest logit and the sum of exp((z - largest) / T), in float64, each of shape (..., n)."""
    _check_temperature(temperature, caller)
    if logits.ndim < 2 or logits.shape[-1] == 0:
        raise InputError(f"{caller}: logits have shape {tuple(logits.shape)}; give shape (..., n, C) with C >= 1")
    # In a fixed order, so that rows with the same logits for other classes tie to the last bit.
    ranked = logits.to(torch.float64).sort(-1).values
    # NaN sorts last: it is the largest, and makes the whole row NaN
    largest = ranked[..., -1:]
    return largest.squeeze(-1), ((ranked - largest) / temperature).exp().sum(-1)


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
    ranked, query = _ranked_in_and_out(score_in, score_out, "auroc")
    n_in, n_out = ranked.shape[-1], query.shape[-1]
    below = torch.searchsorted(ranked, query, right=False)
    not_above = torch.searchsorted(ranked, query, right=True)
    # Twice the count of pairs won, in integers: the division is the only rounding.
    doubled = (2 * n_in - below - not_above).sum(-1)
    return doubled.to(torch.float64) / (2 * n_in * n_out)


def fpr_at_tpr(score_in: Tensor, score_out: Tensor, tpr: float = 0.95) -> Tensor:
    """Share of in-distribution rows flagged at the threshold that flags enough out-of-distribution rows.

    The positives are the out-of-distribution rows, as in :func:`auroc`: a row is flagged where its confidence is
    at most the threshold, and the threshold is the lowest that flags at least the share ``tpr`` of the
    out-of-distribution rows. Tied rows are flagged together. This is the first point of scikit-learn's
    ``roc_curve(..., drop_intermediate=False)`` that reaches ``tpr``, nothing interpolated.

    Many papers, ODIN's among them, take the in-distribution rows for the positives: the share of
    out-of-distribution rows accepted where 95 % of the in-distribution rows are. That is
    ``fpr_at_tpr(-score_out, -score_in)``.

    Parameters
    ----------
    score_in : Tensor, shape (..., n_in)
        Confidences of in-distribution rows. Infinities are allowed.
    score_out : Tensor, shape (..., n_out)
        Confidences of out-of-distribution rows. Leading dimensions broadcast against those of ``score_in``.
    tpr : float
        In (0, 1].

    Returns
    -------
    Tensor, shape (...), float64
        In [0, 1]; 0 is best.

    Raises
    ------
    InputError
        If ``tpr`` is out of range, a group is empty, a score is NaN, or the leading dimensions do not broadcast.
    """
    if not 0 < tpr <= 1:
        raise InputError(f"fpr_at_tpr: tpr is {tpr}; give a share above 0 and up to 1, for example 0.95")
    ranked_out, inside = _ranked_in_and_out(score_out, score_in, "fpr_at_tpr", swapped=True)
    n_out = ranked_out.shape[-1]
    enough = math.ceil(tpr * n_out)
    # 133 of 140 are .95, whatever rounding makes of .95 * 140
    if (enough - 1) / n_out >= tpr:
        enough -= 1
    elif enough / n_out < tpr:
        enough += 1
    threshold = ranked_out[..., enough - 1 : enough]
    return (inside <= threshold).sum(-1).to(torch.float64) / inside.shape[-1]


def _ranked_in_and_out(first: Tensor, second: Tensor, caller: str, swapped: bool = False) -> tuple[Tensor, Tensor]:
    """Check two groups of scores; return the first sorted and the second as it is, in one type and batch shape."""
    names = ("score_out", "score_in") if swapped else ("score_in", "score_out")
    for name, score in zip(names, (first, second), strict=True):
        if score.ndim < 1 or score.shape[-1] == 0:
            raise InputError(
                f"{caller}: {name} has shape {tuple(score.shape)}; each group needs at least one score, "
                "shape (..., n)"
            )
        if bool(score.isnan().any()):
            raise InputError(f"{caller}: {name} holds NaN; leave out the rows, or the head, that made it")
    try:
        leading = np.broadcast_shapes(first.shape[:-1], second.shape[:-1])
    except ValueError:
        raise InputError(
            f"{caller}: leading dimensions {tuple(first.shape[:-1])} and {tuple(second.shape[:-1])} "
            "do not broadcast; make them equal, or 1"
        ) from None
    # One exact common type: comparing float32 with float64 by way of float32 would invent ties.
    real = first.is_floating_point() or second.is_floating_point()
    dtype = torch.float64 if real else torch.int64
    ranked = first.to(dtype).sort(-1).values.expand(*leading, first.shape[-1]).contiguous()
    return ranked, second.to(dtype).expand(*leading, second.shape[-1]).contiguous()
