"""Words of figures: names of objectives, with their direction, in a figure's narrow lines."""

from __future__ import annotations

import textwrap

from moevoprune.fronts.front import Axis, Front
from moevoprune.fronts.wording import direction, objective_name

__all__ = ["directed", "heading"]


def directed(front: Front, axis: Axis) -> str:
    """Name of an objective on one line, with its direction."""
    name = textwrap.shorten(_name(front, axis), 30, placeholder="...")
    return f"{name} ({direction(axis.maximise)})"


def heading(front: Front, axis: Axis) -> str:
    """Name of an objective in narrow lines, with its direction in the last."""
    return f"{textwrap.fill(_name(front, axis), 18)}\n({direction(axis.maximise)})"


def _name(front: Front, axis: Axis) -> str:
    if axis.name == "active_neurons":
        return objective_name(front, axis)
    # short, as the settings have it; a lone dollar sign would start a formula
    return axis.name.replace("ood_auroc", "OoD AUROC").replace("_", " ").replace("$", r"\$")
