"""All objectives of a front beside one another."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from moevoprune.fronts.front import Axis, Front
from moevoprune.fronts.plots.style import (
    BLACK,
    GREY,
    MEDIUM,
    NO_MEMBERS,
    SIZES,
    SMALL,
    TOP_LEGEND,
    VERMILLION,
    Values,
    multiples,
    new_axes,
    say,
    size_range,
    style_bar,
    whole,
)
from moevoprune.fronts.plots.wording import heading
from moevoprune.fronts.wording import counted, short_number, unit

__all__ = ["plot_parallel"]


def plot_parallel(front: Front, ax: Axes | None = None) -> Axes:
    """Draw every head as a line across its objectives and its test metric; better is up on every axis.

    Parameters
    ----------
    front
        What to draw.
    ax
        Where to draw it; None for a new figure.

    Returns
    -------
    Axes
        What was drawn on.
    """
    ax = new_axes(ax, (7.2, 4.4))
    if len(front) == 0:
        return say(ax, NO_MEMBERS)
    axes = [*front.axes, Axis(f"test {front.test_metric}", True)]
    table = np.column_stack([front.values, front.test])
    dense = np.append(front.dense_values, front.dense_test)
    table = np.where(np.isfinite(table), table, np.nan)
    heights = np.full((len(table) + 1, len(axes)), np.nan)
    for column, axis in enumerate(axes):
        heights[:, column] = _draw_scale(ax, column, axis, np.append(table[:, column], dense[column]), front)

    positions = np.arange(len(axes), dtype=np.float64)
    # the smallest heads are drawn last: they are what the figure is about
    order = np.argsort(-front.active, kind="stable")
    lines = LineCollection(
        [np.column_stack([positions, heights[member]]) for member in order],
        array=np.maximum(front.active[order], 1).astype(np.float64),
        cmap=SIZES,
        norm=LogNorm(*size_range(front)),
        linewidths=1.1,
        alpha=0.65 if len(front) <= 100 else 0.4,
        zorder=2,
    )
    ax.add_collection(lines, autolim=False)
    knee = front.knee()
    ax.plot(
        positions,
        heights[knee],
        color=VERMILLION,
        linewidth=2.4,
        marker="o",
        markersize=5,
        zorder=5,
        label=f"knee: {counted(front, int(front.active[knee]))}",
    )
    ax.plot(
        positions,
        heights[-1],
        color=BLACK,
        linewidth=2.0,
        linestyle=(0, (4, 2)),
        marker="*",
        markersize=9,
        zorder=4,
        label=f"dense head: {counted(front, front.n_bits)}",
    )
    ax.set_xlim(-0.3, len(axes) - 0.7)
    ax.set_ylim(-0.12, 1.12)
    ax.set_yticks([])
    ax.set_xticks(positions, [heading(front, axis) for axis in axes], fontsize=MEDIUM - 0.5)
    ax.tick_params(axis="x", length=0, pad=2)
    ax.set_ylabel("better  \N{RIGHTWARDS ARROW}", fontsize=MEDIUM, color=GREY)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.legend(ncols=2, **TOP_LEGEND)
    bar: Any = ax.figure.colorbar(lines, ax=ax, pad=0.02, aspect=28, format=FuncFormatter(whole))
    bar.ax.yaxis.set_major_locator(LogLocator(10, subs=multiples(*size_range(front))))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    # the lines are see-through, the scale should not be
    bar.solids.set_alpha(1.0)
    style_bar(bar, f"active {unit(front.encoding)}")
    return ax


def _draw_scale(ax: Axes, column: int, axis: Axis, values: Values, front: Front) -> Values:
    """Draw one vertical axis with its end values and return the heights of the values, better upwards."""
    ax.plot([column, column], [0, 1], color="#9A9A9A", linewidth=1.0, zorder=1)
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return np.full_like(values, np.nan)
    low, high = float(finite.min()), float(finite.max())
    style: dict[str, Any] = {"ha": "center", "fontsize": SMALL, "color": "#333333", "zorder": 6}
    if high == low:
        ax.text(column, 1.03, f"all {short_number(low)}", va="bottom", **style)
        return np.where(np.isfinite(values), 0.5, np.nan)
    top, bottom = (high, low) if axis.maximise else (low, high)
    ax.text(column, 1.03, short_number(top), va="bottom", **style)
    ax.text(column, -0.03, short_number(bottom), va="top", **style)
    heights: Values = (values - bottom) / (top - bottom)
    return heights
