"""The first three objectives of a front in space."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from mpl_toolkits.mplot3d.art3d import Line3DCollection  # type: ignore[import-untyped]

from moevoprune.errors import InputError
from moevoprune.fronts.front import Front
from moevoprune.fronts.plots.style import (
    BLACK,
    GREY,
    NO_MEMBERS,
    SIZES,
    SMALL,
    VERMILLION,
    new_figure,
    spans_decade,
    style_bar,
)
from moevoprune.fronts.plots.wording import directed
from moevoprune.fronts.wording import bare, counted

__all__ = ["plot_front_3d"]


def plot_front_3d(front: Front, ax: Axes | None = None) -> Axes:
    """Draw the first three objectives in space: the first upwards, the third also as colour.

    Parameters
    ----------
    front
        What to draw.
    ax
        A 3-D axes to draw on; None for a new figure.

    Returns
    -------
    Axes
        What was drawn on.

    Raises
    ------
    InputError
        The front has fewer than three objectives, or the axes is flat.
    """
    if len(front.axes) < 3:
        raise InputError(
            f"a 3-D figure needs three objectives, this front has {len(front.axes)}: "
            "use plot_front or plot_parallel"
        )
    # 3-D axes are untyped in matplotlib
    space: Any = new_figure((6.6, 5.4)).add_subplot(projection="3d") if ax is None else ax
    if space.name != "3d":
        raise InputError("plot_front_3d draws on 3-D axes: make them with add_subplot(projection='3d')")
    if len(front) == 0:
        space.set_axis_off()
        space.text2D(0.5, 0.5, NO_MEMBERS, transform=space.transAxes, ha="center", va="center", color=GREY)
        return _as_axes(space)
    coordinates = np.concatenate([front.values[:, :3], front.dense_values[None, :3]])
    # mplot3d has no logarithmic axes, so the logarithm is taken here and undone in the tick labels
    logarithmic = [column for column in range(3) if spans_decade(front.axes[column], coordinates[:, column])]
    coordinates[:, logarithmic] = np.log10(coordinates[:, logarithmic])
    (up, right, deep), dense = coordinates[:-1].T, coordinates[-1]
    heights = np.append(up, dense[0])
    floor = float(heights.min() - 0.04 * np.ptp(heights))
    segments = np.stack(
        [np.column_stack([right, deep, np.full_like(up, floor)]), np.column_stack([right, deep, up])], axis=1
    )
    # stems to the floor: without them nobody can tell where in the room a point is
    space.add_collection3d(Line3DCollection(segments, colors="#B5B5B5", linewidths=0.5, zorder=1))
    points = space.scatter(
        right,
        deep,
        up,
        c=front.values[:, 2],
        cmap=SIZES,
        s=34,
        depthshade=False,
        edgecolors="white",
        linewidths=0.4,
    )
    knee = front.knee()
    space.scatter(
        right[[knee]],
        deep[[knee]],
        up[[knee]],
        s=110,
        marker="o",
        facecolors="none",
        edgecolors=VERMILLION,
        linewidths=1.6,
        depthshade=False,
        label=f"knee: {counted(front, int(front.active[knee]))}",
    )
    space.scatter(
        dense[[1]],
        dense[[2]],
        dense[[0]],
        s=150,
        marker="*",
        color=BLACK,
        depthshade=False,
        label=f"dense head: {counted(front, front.n_bits)}",
    )
    space.set_xlabel(directed(front, front.axes[1]), fontsize=SMALL, labelpad=6)
    space.set_ylabel(directed(front, front.axes[2]), fontsize=SMALL, labelpad=6)
    space.set_zlabel(directed(front, front.axes[0]), fontsize=SMALL, labelpad=6)
    space.tick_params(labelsize=SMALL - 0.5, pad=1)
    for column, pane in enumerate((space.zaxis, space.xaxis, space.yaxis)):
        pane.set_pane_color((0.97, 0.97, 0.97, 1.0))
        pane.set_major_locator(MaxNLocator(5))
        if column in logarithmic:
            low, high = coordinates[:, column].min(), coordinates[:, column].max()
            pane.set_major_locator(FixedLocator(np.arange(math.ceil(low), math.floor(high) + 1).tolist()))
            pane.set_major_formatter(FuncFormatter(_power))
    # scores rise with size: seen across that diagonal the surface spreads out, seen along it it is a line
    space.view_init(elev=22, azim=-52)
    space.set_box_aspect((1.0, 1.0, 0.85), zoom=0.92)
    space.legend(loc="upper left", frameon=False, fontsize=SMALL)
    bar = space.figure.colorbar(points, ax=space, shrink=0.6, pad=0.08, aspect=22)
    style_bar(bar, directed(front, front.axes[2]))
    return _as_axes(space)


def _as_axes(space: Any) -> Axes:
    axes: Axes = space
    return axes


def _power(exponent: float, _: int | None = None) -> str:
    return bare(f"{10.0**exponent:.6g}")
