"""Objectives of the search: what a candidate head is worth, and the measures they are made of."""

from __future__ import annotations

from moevoprune.objectives.base import MOST_REPRESENTED, Candidate, FoldPrediction, Objective, evenly
from moevoprune.objectives.builtin import MIN_CKA_ROWS, available_objectives, ood_scores_of, resolve_objectives
from moevoprune.objectives.cka import debiased_linear_cka
from moevoprune.objectives.kernel_cka import biased_linear_cka, biased_rbf_cka, debiased_rbf_cka
from moevoprune.objectives.ood import (
    ODIN_TEMPERATURE,
    OOD_SCORES,
    auroc,
    energy_score,
    fpr_at_tpr,
    max_softmax_score,
    odin_perturb,
    ood_score,
)
from moevoprune.objectives.predictive import accuracy, mean_squared_error, r2_score

__all__ = [
    "MIN_CKA_ROWS",
    "MOST_REPRESENTED",
    "ODIN_TEMPERATURE",
    "OOD_SCORES",
    "Candidate",
    "FoldPrediction",
    "Objective",
    "accuracy",
    "auroc",
    "available_objectives",
    "biased_linear_cka",
    "biased_rbf_cka",
    "debiased_linear_cka",
    "debiased_rbf_cka",
    "energy_score",
    "evenly",
    "fpr_at_tpr",
    "max_softmax_score",
    "mean_squared_error",
    "odin_perturb",
    "ood_score",
    "ood_scores_of",
    "r2_score",
    "resolve_objectives",
]
