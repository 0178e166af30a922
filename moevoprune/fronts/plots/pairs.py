"""All objectives of a front against one another."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from moevoprune.errors import InputError
from moevoprune.fronts.front import Front
from moevoprune.fronts.plots.style import (
    BLACK,
    BLUE,
    GREY,
    INK,
    MEDIUM,
    NO_MEMBERS,
    SIZES,
    SKY,
    SMALL,
    TOP_LEGEND,
    VERMILLION,
    Values,
    multiples,
    new_axes,
    panels,
    plain,
    say,
    size_range,
    spans_decade,
    style_bar,
    whole,
)
from moevoprune.fronts.plots.wording import heading
from moevoprune.fronts.wording import bare, counted, unit

__all__ = ["plot_pairs"]

_BINS = 20
# of a scale's length, on either side of the data
_MARGIN = 0.07


def plot_pairs(front: Front, ax: Axes | None = None) -> Axes:
    """Draw every objective against every other one, as small figures in rows and columns.

    Below the diagonal are the members, coloured by their active bits, with the knee and the dense head; on the
    diagonal is how the members are distributed over an objective (heights are numbers of members, each to its own
    scale); above it Spearman's rank correlation over the members, on a ground that is the stronger coloured the
    nearer it is to 1 (blue) or -1 (red). Near 1 or -1, two objectives repeat each other. The share of active bits
    is on a logarithmic scale where it spans more than a decade.

    Parameters
    ----------
    front
        What to draw.
    ax
        Whose place to take; None for a new figure.

    Returns
    -------
    Axes
        That whose place was taken; the small figures are its ``child_axes``, row by row.

    Raises
    ------
    InputError
        The front has fewer than two objectives.
    """
    n = len(front.axes)
    if n < 2:
        raise InputError("a figure of pairs needs two objectives, this front has one: use plot_front")
    ax = new_axes(ax, (1.75 * n + 1.4, 1.6 * n + 0.9))
    if len(front) == 0:
        return say(ax, NO_MEMBERS)
    table = np.concatenate([front.values, front.dense_values[None]])
    logarithmic = [spans_decade(axis, table[:, column]) for column, axis in enumerate(front.axes)]
    correlations = front.correlations()
    grid = panels(ax, n, n, (0.1, 0.12))
    for row in range(n):
        for column in range(n):
            panel = grid[row][column]
            if column > row:
                _draw_correlation(panel, float(correlations[row, column]))
                continue
            plain(panel)
            panel.spines["left"].set_visible(True)
            panel.spines[["left", "bottom"]].set_color("#9A9A9A")
            if column == row:
                _draw_distribution(panel, front.values[:, row], table[:, row], logarithmic[row])
            else:
                points = _draw_members(panel, front, column, row)
                _scale(panel, "y", table[:, row], logarithmic[row])
            _scale(panel, "x", table[:, column], logarithmic[column])
            _name_edges(panel, front, row, column)
    handles, labels = grid[1][0].get_legend_handles_labels()
    ax.legend(handles, labels, ncols=2, **TOP_LEGEND)
    bar: Any = ax.figure.colorbar(points, ax=ax, pad=0.02, aspect=32, format=FuncFormatter(whole))
    bar.ax.yaxis.set_major_locator(LogLocator(10, subs=multiples(*size_range(front))))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    style_bar(bar, f"active {unit(front.encoding)}")
    return ax


def _draw_members(panel: Axes, front: Front, column: int, row: int) -> Any:
    points = panel.scatter(
        front.values[:, column],
        front.values[:, row],
        s=11,
        c=np.maximum(front.active, 1),
        cmap=SIZES,
        norm=LogNorm(*size_range(front)),
        linewidths=0,
        zorder=2,
    )
    knee = front.knee()
    panel.scatter(
        front.values[[knee], column],
        front.values[[knee], row],
        s=60,
        facecolors="none",
        edgecolors=VERMILLION,
        linewidths=1.4,
        zorder=4,
        label=f"knee: {counted(front, int(front.active[knee]))}",
    )
    panel.scatter(
        front.dense_values[[column]],
        front.dense_values[[row]],
        s=75,
        marker="*",
        color=BLACK,
        linewidths=0,
        zorder=3,
        label=f"dense head: {counted(front, front.n_bits)}",
    )
    return points


def _draw_distribution(panel: Axes, values: Values, reach: Values, logarithmic: bool) -> None:
    low, high = float(reach.min()), float(reach.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.geomspace(low, high, _BINS + 1) if logarithmic else np.linspace(low, high, _BINS + 1)
    # the last digit of the outer edges must not leave a member out
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    panel.stairs(counts, edges, fill=True, color=SKY, zorder=2)
    panel.set_ylim(0, 1.12 * max(int(counts.max()), 1))
    panel.yaxis.set_major_locator(MaxNLocator(3, integer=True))


def _draw_correlation(panel: Axes, correlation: float) -> None:
    panel.set_xticks([])
    panel.set_yticks([])
    for spine in panel.spines.values():
        spine.set_visible(False)
    known = math.isfinite(correlation)
    panel.patch.set_facecolor(BLUE if known and correlation > 0 else VERMILLION)
    panel.patch.set_alpha(0.4 * abs(correlation) if known else 0.0)
    text = bare(f"{correlation:.2f}") if known else "n/a"
    panel.text(
        0.5, 0.53, text, transform=panel.transAxes, ha="center", va="center", fontsize=MEDIUM + 3, color=INK
    )
    panel.text(
        0.5,
        0.26,
        "rank correlation",
        transform=panel.transAxes,
        ha="center",
        va="center",
        fontsize=SMALL - 1,
        color=INK if known else GREY,
    )


def _scale(panel: Axes, which: str, values: Values, logarithmic: bool) -> None:
    """Give all panels of an objective the same scale, with room around the data."""
    axis: Any = panel.xaxis if which == "x" else panel.yaxis
    limits = panel.set_xlim if which == "x" else panel.set_ylim
    low, high = float(values.min()), float(values.max())
    if logarithmic:
        (panel.set_xscale if which == "x" else panel.set_yscale)("log")
        room = (high / low) ** _MARGIN
        limits(low / room, high * room)
        axis.set_major_locator(LogLocator(10))
        axis.set_major_formatter(FuncFormatter(_share))
        axis.set_minor_locator(NullLocator())
        return
    room = _MARGIN * (high - low) or 0.5
    limits(low - room, high + room)
    axis.set_major_locator(MaxNLocator(3))
    axis.set_major_formatter(FuncFormatter(_share))


def _name_edges(panel: Axes, front: Front, row: int, column: int) -> None:
    """Leave tick labels and names at the left and the lower edge of the grid only."""
    last = len(front.axes) - 1
    panel.tick_params(labelsize=SMALL - 0.5, length=2.5, pad=2, labelbottom=row == last)
    panel.tick_params(axis="y", length=2.5, labelleft=column == 0 or row == column)
    if row == last:
        panel.set_xlabel(heading(front, front.axes[column]), fontsize=SMALL)
    if column == 0:
        panel.set_ylabel("members" if row == 0 else heading(front, front.axes[row]), fontsize=SMALL)


def _share(value: float, _: int | None = None) -> str:
    return bare(f"{value:.4g}")
