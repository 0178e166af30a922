"""Accuracy of heads and ensembles on disturbed rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from moevoprune.fronts.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    TOP_LEGEND,
    VERMILLION,
    new_axes,
    panels,
    plain,
    plain_text,
    rule,
    say,
)

if TYPE_CHECKING:
    from moevoprune.fronts.robustness import RobustnessCurve

__all__ = ["plot_robustness"]

_MOST_COLUMNS = 3
_ROLES: dict[str, dict[str, Any]] = {
    "ensemble": {"color": BLUE, "linewidth": 2.4, "marker": "o", "markersize": 6},
    "knee": {"color": VERMILLION, "marker": "s", "markersize": 5},
    "best": {"color": GREEN, "marker": "^", "markersize": 5.5},
    "dense": {"color": BLACK, "linestyle": (0, (4, 2)), "marker": "*", "markersize": 8},
}
_COLORS, _MARKERS = (PURPLE, ORANGE, SKY, GREY), "DvPXd<>"


def plot_robustness(curves: Sequence[RobustnessCurve], ax: Axes | None = None) -> Axes:
    """Draw accuracy over the severity of a disturbance, one line per head or ensemble.

    Curves of several kinds of disturbance are drawn in a small figure each, all to one scale of accuracy; a line
    has the same colour and mark in all of them. Bands are a standard error wide on either side.

    Parameters
    ----------
    curves
        What to draw. The legend has their names in order of first appearance.
    ax
        Where to draw it, or whose place to take; None for a new figure.

    Returns
    -------
    Axes
        What was drawn on, or whose place was taken: the small figures are then its ``child_axes``.
    """
    kinds = list(dict.fromkeys(curve.kind for curve in curves))
    columns = max(1, min(len(kinds), _MOST_COLUMNS))
    rows = max(1, math.ceil(len(kinds) / columns))
    size = (6.4, 4.0) if len(kinds) <= 1 else (0.8 + 2.5 * columns, 0.9 + 2.1 * rows)
    ax = new_axes(ax, size)
    if not curves:
        return say(ax, "no curves:\nthere is nothing to draw")
    looks = _looks(list(dict.fromkeys(curve.name for curve in curves)))
    if len(kinds) == 1:
        places = [ax]
    else:
        places = [panel for line in panels(ax, rows, columns, (0.1, 0.36)) for panel in line]
    for panel, kind in zip(places, kinds, strict=False):
        _draw_kind(panel, [curve for curve in curves if curve.kind == kind], looks)
    for empty in places[len(kinds) :]:
        empty.set_visible(False)
    _share_scale(places[: len(kinds)], columns)
    # a predictor need not be in the first of the small figures
    entries: dict[str, Any] = {}
    for panel in places:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    ax.legend(entries.values(), entries.keys(), ncols=min(len(entries), 5), **TOP_LEGEND)
    return ax


def _looks(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """How the line of each name is drawn."""
    others = [name for name in names if name not in _ROLES]
    looks = {
        name: {"color": _COLORS[i % len(_COLORS)], "marker": _MARKERS[i % len(_MARKERS)], "markersize": 5}
        for i, name in enumerate(others)
    }
    return {**_ROLES, **looks}


def _draw_kind(panel: Axes, curves: Sequence[RobustnessCurve], looks: dict[str, dict[str, Any]]) -> None:
    for curve in curves:
        look = {"linewidth": 1.6, "markeredgewidth": 0, **looks[curve.name]}
        severities, accuracy, error = (
            np.asarray(column, dtype=np.float64) for column in (curve.severities, curve.accuracy, curve.error)
        )
        panel.plot(severities, accuracy, label=plain_text(curve.name, 40), zorder=3, **look)
        panel.fill_between(
            severities, accuracy - error, accuracy + error, color=look["color"], alpha=0.12, linewidth=0, zorder=2
        )
    plain(panel)
    rule(panel)
    panel.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    kind = curves[0].kind.replace("_", " ")
    scale = "standard deviations" if kind == "feature noise" else "severity"
    panel.set_xlabel(f"{plain_text(kind, 30)}, {scale}", fontsize=SMALL + 0.5)


def _share_scale(places: Sequence[Axes], columns: int) -> None:
    """Give all small figures one scale of accuracy, and name it at the left edge only."""
    for panel in places:
        panel.margins(x=0.05, y=0.07)
    low, high = min(panel.get_ylim()[0] for panel in places), max(panel.get_ylim()[1] for panel in places)
    for number, panel in enumerate(places):
        panel.set_ylim(low, high)
        first = number % columns == 0
        panel.tick_params(axis="y", labelleft=first)
        if first:
            panel.set_ylabel("test accuracy or R²", fontsize=SMALL + 0.5)
