"""Words of figures: names of objectives, with their direction, in a figure's narrow lines."""

from __future__ import annotations

import textwrap

from moevoprune.fronts.front import Axis, Front
from moevoprune.fronts.plots.style import plain_text
from moevoprune.fronts.wording import direction, objective_name

__all__ = ["directed", "heading"]

# four narrow lines
_LONGEST = 70


def directed(front: Front, axis: Axis) -> str:
    """Name of an objective on one line, with its direction."""
    return f"{plain_text(_name(front, axis), 30)} ({direction(axis.maximise)})"


def heading(front: Front, axis: Axis) -> str:
    """Name of an objective in narrow lines, with its direction in the last."""
    return f"{textwrap.fill(plain_text(_name(front, axis), _LONGEST), 18)}\n({direction(axis.maximise)})"


def _name(front: Front, axis: Axis) -> str:
    if axis.name == "active_neurons":
        return objective_name(front, axis)
    # short, as the settings have it
    return axis.name.replace("ood_auroc", "OoD AUROC").replace("_", " ")
