"""Numbers and names as the report writes them."""

from __future__ import annotations

import math

from moevoprune.fronts.front import Axis, Front

__all__ = ["capitalised", "counted", "direction", "measure_name", "number", "objective_name", "unit"]

_MEASURES = {
    "cka": "CKA",
    "r2": "R²",
    "mse": "MSE",
    "ood_auroc": "OoD AUROC",
    "ood_fpr95": "OoD FPR at 95 % TPR",
}
_UNITS = {"features": "feature", "connections": "connection", "features+neurons": "bit"}


def number(value: float | None) -> str:
    """Short text of a value: .803, 1.000, -.250, 27.10; "n/a" where there is none."""
    if value is None or not math.isfinite(value):
        return "n/a"
    if 0 < abs(value) < 0.0005:
        return f"{value:.1e}"
    text = f"{value:.3f}" if abs(value) < 10 else f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return text.removeprefix("0") if text.startswith("0.") else text.replace("-0.", "-.", 1)


def unit(front: Front, count: int) -> str:
    """What a bit of the front's encoding stands for, in the singular for a count of 1."""
    return _UNITS.get(front.encoding, "neuron") + ("" if count == 1 else "s")


def counted(front: Front, active: int) -> str:
    """Size of a member: "33 features"."""
    return f"{active:,} {unit(front, active)}"


def measure_name(name: str) -> str:
    """Name of an objective or a test measure for people: "CKA (noise)" for ``cka:noise``."""
    word, _, variant = name.partition(":")
    words = _MEASURES.get(word, word.replace("_", " "))
    return f"{words} ({variant})" if variant else words


def objective_name(front: Front, axis: Axis) -> str:
    """Name of an objective of this front: the share of active bits says what the bits are."""
    return f"share of active {unit(front, 2)}" if axis.name == "active_neurons" else measure_name(axis.name)


def direction(axis: Axis) -> str:
    """Which way an objective is better."""
    return "higher is better" if axis.maximise else "lower is better"


def capitalised(text: str) -> str:
    """Start a label with a capital, leaving the rest ("CKA") as it is."""
    return text[:1].upper() + text[1:]
