"""Numbers and names as people read them: in tables of the terminal, in figures and in the report."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from moevoprune.errors import printable

if TYPE_CHECKING:
    from moevoprune.fronts.front import Axis, Front

__all__ = [
    "bare",
    "capitalised",
    "counted",
    "direction",
    "file_size",
    "measure_name",
    "objective_name",
    "short_number",
    "unit",
]

_MEASURES = {
    "cka": "CKA",
    "r2": "R²",
    "mse": "MSE",
    "ood_auroc": "OoD AUROC",
    "ood_fpr95": "OoD FPR at 95 % TPR",
}
# numbers beyond are read by their power of ten
_LONG = 1e9
# of an objective that a user has named
_LONGEST = 100
_UNITS = {"features": "feature", "connections": "connection", "features+neurons": "bit", "": "bit"}


def bare(text: str) -> str:
    """Leave out the nought before the point of a number: .5, -.5 and +.5, but 10.5."""
    sign = text[:1] if text[:1] in ("+", "-") else ""
    digits = text[len(sign) :]
    return sign + (digits[1:] if digits.startswith("0.") else digits)


def short_number(value: float | None) -> str:
    """Short text of a value: .803, 1.000, -.250, 27.10, 2.0e-05, 3.1e+60; "n/a" where there is none."""
    if value is None or not math.isfinite(value):
        return "n/a"
    if 0 < abs(value) < 0.0005 or abs(value) >= _LONG:
        return f"{value:.1e}"
    return bare(f"{value:.3f}" if abs(value) < 10 else f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}")


def file_size(n_bytes: float) -> str:
    """Size of a file: 512 B, 21.9 kB, 1.3 MB."""
    if n_bytes < 1000:
        return f"{n_bytes:.0f} B"
    return f"{n_bytes / 1e3:,.1f} kB" if n_bytes < 1e6 else f"{n_bytes / 1e6:,.1f} MB"


def unit(encoding: str, count: int = 2) -> str:
    """What a bit of an encoding stands for, in the singular for a count of 1; ``""`` is an encoding not known."""
    return _UNITS.get(encoding, "neuron") + ("" if count == 1 else "s")


def counted(front: Front, active: int) -> str:
    """Size of a member: "33 features"."""
    return f"{active:,} {unit(front.encoding, active)}"


def measure_name(name: str) -> str:
    """Name of an objective or a test measure: "CKA (noise)" for ``cka:noise``."""
    word, _, variant = name.partition(":")
    words = _MEASURES.get(word, word.replace("_", " "))
    text = printable(f"{words} ({variant})" if variant else words)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def objective_name(front: Front, axis: Axis) -> str:
    """Name of an objective of a front: the share of active bits says what the bits are."""
    return f"share of active {unit(front.encoding)}" if axis.name == "active_neurons" else measure_name(axis.name)


def direction(maximise: bool) -> str:
    """Which way a measure is better."""
    return "higher is better" if maximise else "lower is better"


def capitalised(text: str) -> str:
    """Start a label with a capital, leaving the rest ("CKA") as it is."""
    return text[:1].upper() + text[1:]
