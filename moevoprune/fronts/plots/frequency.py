"""Which features and hidden units a front's heads use, and how much they matter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from moevoprune.fronts.explanation import Explanation
from moevoprune.fronts.plots.style import (
    BLUE,
    INK,
    MEDIUM,
    SMALL,
    VERMILLION,
    Values,
    new_axes,
    new_figure,
    plain,
    rule,
    save_figure,
    say,
)
from moevoprune.fronts.wording import bare

__all__ = ["plot_frequency", "plot_importance", "save_frequency"]

_NOTHING = "no member reads\nany feature"


def plot_frequency(explanation: Explanation, ax: Axes | None = None, *, top: int = 10) -> Axes:
    """Draw the share of members that read each of the most frequent features.

    Where the encoding prunes hidden units alone, the most frequent units are drawn.

    Parameters
    ----------
    explanation
        What to draw.
    ax
        Where to draw them; None for a new figure.
    top
        Bars at most.

    Returns
    -------
    Axes
        What was drawn on.
    """
    units = explanation.units
    if explanation.prunes_features or units is None:
        shown = explanation.top(top)
        members, names = explanation.members[shown], [str(feature) for feature in shown]
        label = "members that read the feature, %"
    else:
        shown = units.order()[:top]
        members = units.members[shown]
        deep = len(set(units.layers.tolist())) > 1
        names = [f"{units.layers[i]}:{units.units[i]}" if deep else str(units.units[i]) for i in shown]
        label = "members in which the unit is active, %"
    ax = new_axes(ax, (4.6, _height(len(shown))))
    if len(shown) == 0:
        return say(ax, _NOTHING)
    share = 100 * members / explanation.n_members
    _draw_bars(ax, share, names, [f"{value:.0f}" for value in share], BLUE)
    ax.set_xlim(0, 109)
    ax.set_xticks([0, 25, 50, 75, 100])
    ax.set_xlabel(label, fontsize=MEDIUM)
    ax.set_ylabel("feature" if explanation.prunes_features or units is None else "hidden unit", fontsize=MEDIUM)
    return ax


def plot_importance(explanation: Explanation, ax: Axes | None = None, *, top: int = 10) -> Axes:
    """Draw the importance of the most frequent features; their relative weight where no importance was measured.

    Parameters
    ----------
    explanation
        What to draw.
    ax
        Where to draw them; None for a new figure.
    top
        Bars at most.

    Returns
    -------
    Axes
        What was drawn on.
    """
    shown = explanation.top(top)
    ax = new_axes(ax, (4.6, _height(len(shown))))
    if len(shown) == 0:
        return say(ax, _NOTHING)
    values = explanation.strength[shown]
    _draw_bars(ax, values, [str(feature) for feature in shown], [_short(value) for value in values], VERMILLION)
    ax.set_xlim(0, 1.16 * max(float(values.max()), 1e-12))
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: bare(f"{value:.4g}")))
    ax.set_xlabel(
        "relative weight (1: an average feature)"
        if explanation.importance is None
        else "importance (mean change of the prediction)",
        fontsize=MEDIUM,
    )
    ax.set_ylabel("feature", fontsize=MEDIUM)
    return ax


def save_frequency(explanation: Explanation, path: str | Path, top: int = 10) -> Path:
    """Write :func:`plot_frequency` and, beside it, :func:`plot_importance` as one PNG.

    Parameters
    ----------
    explanation
        What to draw.
    path
        The file; its folder is made where missing.
    top
        Bars at most.

    Raises
    ------
    InputError
        The folder or the file cannot be written.
    """
    figure = new_figure((8.6, _height(min(top, len(explanation.members)))))
    left, right = figure.subplots(1, 2)
    plot_frequency(explanation, left, top=top)
    plot_importance(explanation, right, top=top)
    if explanation.prunes_features or explanation.units is None:
        # the same features in the same order: once is enough
        right.set_ylabel("")
    return save_figure(left, path)


def _height(bars: int) -> float:
    return 0.9 + 0.26 * max(bars, 4)


def _draw_bars(ax: Axes, values: Values, names: Sequence[str], labels: Sequence[str], color: str) -> None:
    """Draw horizontal bars, the first on top, with their values at the ends."""
    places = np.arange(len(values))
    ax.barh(places, values, height=0.62, color=color, zorder=2)
    for place, value, label in zip(places, values, labels, strict=True):
        ax.annotate(
            label,
            (float(value), float(place)),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
            color=INK,
        )
    ax.set_yticks(places, names, fontsize=SMALL)
    ax.set_ylim(len(values) - 0.4, -0.6)
    plain(ax)
    rule(ax, "x")


def _short(value: float) -> str:
    text = f"{value:.2f}" if value >= 0.1 else f"{value:.3f}" if value >= 0.0005 or value == 0 else f"{value:.0e}"
    return bare(text)
