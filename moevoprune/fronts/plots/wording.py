"""Words of figures: what bits, objectives and sizes of a front are called."""

from __future__ import annotations

import textwrap

from moevoprune.fronts.front import Axis, Front


def unit(encoding: str, count: int = 2) -> str:
    """What a bit of an encoding stands for, in the number of the count."""
    words = {"features": "feature", "connections": "connection", "features+neurons": "bit", "": "bit"}
    return words.get(encoding, "neuron") + ("" if count == 1 else "s")


def sized(front: Front, count: int) -> str:
    """So many bits in words: 12 neurons."""
    return f"{count:,} {unit(front.encoding, count)}"


def name_of(front: Front, axis: Axis) -> str:
    """Name of an objective for people."""
    if axis.name == "active_neurons":
        return f"share of active {unit(front.encoding)}"
    # a lone dollar sign would start a formula
    return axis.name.replace("ood_auroc", "OoD AUROC").replace("_", " ").replace("$", r"\$")


def directed(front: Front, axis: Axis) -> str:
    """Name of an objective on one line, with its direction."""
    name = textwrap.shorten(name_of(front, axis), 30, placeholder="...")
    return f"{name} ({'higher' if axis.maximise else 'lower'} is better)"


def heading(front: Front, axis: Axis) -> str:
    """Name of an objective in narrow lines, with its direction in the last."""
    name = textwrap.fill(name_of(front, axis), 18)
    return f"{name}\n({'higher' if axis.maximise else 'lower'} is better)"
