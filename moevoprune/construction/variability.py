"""How much the output of a unit varies over the training rows.

ODF2NNA (arXiv 2312.10560) keeps the units whose output varies enough against a threshold. Its formula was not
known when this was written: the measures are ours; ``docs/construct.md`` says which one is the default, and why.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError, nearest

__all__ = ["DEFAULT_MEASURE", "MEASURES", "variability"]

Values = npt.NDArray[np.float64]

DEFAULT_MEASURE = "contribution"


def _deviation(outputs: Values, outgoing: Values) -> Values:
    deviations: Values = outputs.std(axis=0)
    return deviations


def _relative_deviation(outputs: Values, outgoing: Values) -> Values:
    return _relative_to_mean(_deviation(outputs, outgoing))


def _contribution(outputs: Values, outgoing: Values) -> Values:
    return _relative_to_mean(_deviation(outputs, outgoing) * np.linalg.norm(outgoing, axis=1))


def _share_of_largest(outputs: Values, outgoing: Values) -> Values:
    amounts = _deviation(outputs, outgoing)
    return _ratio(amounts, float(amounts.max(initial=0.0)))


def _relative_to_mean(amounts: Values) -> Values:
    return _ratio(amounts, float(amounts.mean()))


def _ratio(amounts: Values, unit: float) -> Values:
    ratio: Values = amounts / unit if unit > 0 else amounts
    return ratio


MEASURES: dict[str, Callable[[Values, Values], Values]] = {
    "contribution": _contribution,
    "relative_deviation": _relative_deviation,
    "share_of_largest": _share_of_largest,
    "deviation": _deviation,
}
"""Measures by name, each of a unit's standard deviation over the rows.

``contribution``: times the Euclidean norm of the unit's outgoing weights, which is how far the unit moves the next
layer, as a multiple of the layer's mean. ``relative_deviation``: as a multiple of the layer's mean.
``share_of_largest``: as a share of the layer's largest. ``deviation``: as it is.
"""


def variability(outputs: npt.ArrayLike, outgoing: npt.ArrayLike, measure: str = DEFAULT_MEASURE) -> Values:
    """Measure how much each unit of a layer varies.

    Parameters
    ----------
    outputs
        What the units put out, after the activation, shape (rows, units).
    outgoing
        Weights from the units to the next layer, shape (units, next units).
    measure
        A key of :data:`MEASURES`.

    Returns
    -------
    ndarray, shape (units,)
        At least 0; 0 for a constant unit, and for all units of a layer that is constant as a whole.

    Raises
    ------
    InputError
        The measure is unknown.
    """
    if measure not in MEASURES:
        raise InputError(
            f"unknown measure {measure!r}{nearest(measure, MEASURES)}: use one of {', '.join(MEASURES)}"
        )
    return MEASURES[measure](np.asarray(outputs, dtype=np.float64), np.asarray(outgoing, dtype=np.float64))
