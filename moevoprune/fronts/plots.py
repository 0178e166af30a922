"""Figures of a front, drawn without pyplot: no display, no global state, the same bytes for the same front."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from mpl_toolkits.mplot3d.art3d import Line3DCollection  # type: ignore[import-untyped]

from moevoprune.errors import InputError
from moevoprune.files import atomic_path
from moevoprune.fronts.comparison import METHODS, SEARCHES, MethodResult, curve
from moevoprune.fronts.front import Axis, Front
from moevoprune.fronts.labels import Label, place_labels

__all__ = [
    "plot_comparison",
    "plot_convergence",
    "plot_front",
    "plot_front_3d",
    "plot_parallel",
    "save_comparison",
    "save_figures",
]

Values = npt.NDArray[np.float64]

# Okabe and Ito's palette: told apart by people with any common colour vision
_BLUE, _SKY, _VERMILLION, _BLACK = "#0072B2", "#56B4E9", "#D55E00", "#000000"
_GREY = "#6E6E6E"
_ORANGE, _GREEN, _PURPLE = "#E69F00", "#009E73", "#CC79A7"
# viridis without its yellow end, which is hard to see on white
_SIZES = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0.0, 0.9, 256)), name="moevoprune")

_DPI = 150
_SMALL, _MEDIUM = 8.5, 10.0
_CLOSE = 0.01

_TIGHT_LEGEND: dict[str, Any] = {"borderaxespad": 0.3, "columnspacing": 1.3, "handletextpad": 0.5}
# searches are solid lines of their own colours; five colours and three kinds of dashes tell the baselines apart
_SEARCH_COLORS = (_VERMILLION, _BLACK, _GREY)
_BASELINE_COLORS = (_GREEN, _PURPLE, _ORANGE, _BLUE, _SKY)
_DASHES: tuple[Any, ...] = ((0, (5, 1.2)), (0, (1, 1)), (0, (5, 1, 1, 1)))
_NO_MEMBERS = "no members:\nthe search found no feasible mask"


def plot_front(front: Front, ax: Axes | None = None) -> Axes:
    """Draw the quality of the heads over their size.

    Filled points are validation values of all members; the staircase joins those that no head of their size or
    smaller beats; hollow points are the same heads on the test rows, where the test metric is the
    objective drawn. Stars are the dense head.

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
    ax = _axes(ax, (7.2, 4.4))
    if len(front) == 0:
        return _say(ax, _NO_MEMBERS)
    index = _quality(front)
    axis = front.axes[index]
    values, losses = front.values[:, index], front.F[:, index]
    dense = float(front.dense_values[index])
    sizes = front.active.astype(np.float64)
    steps = _staircase(sizes, losses)

    ax.axhline(dense, color=_GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    ax.plot(
        sizes[steps],
        values[steps],
        drawstyle="steps-post",
        color=_BLUE,
        linewidth=1.5,
        marker="o",
        markersize=5.5,
        markeredgewidth=0,
        zorder=4,
        label="best for its size",
    )
    ax.scatter(sizes, values, s=16, color=_SKY, linewidths=0, zorder=3, label="validation")
    if axis.name == front.test_metric:
        ax.scatter(
            sizes,
            front.test,
            s=20,
            marker="o",
            facecolors="none",
            edgecolors=_VERMILLION,
            linewidths=0.8,
            alpha=0.75,
            zorder=2,
            label="test",
        )
    ax.scatter([front.n_bits], [dense], s=130, marker="*", color=_BLACK, zorder=6, label="dense, validation")
    if axis.name == front.test_metric:
        ax.scatter(
            [front.n_bits],
            [front.dense_test],
            s=150,
            marker="*",
            facecolors="none",
            edgecolors=_VERMILLION,
            linewidths=1.0,
            zorder=7,
            label="dense, test",
        )
    knee = front.knee()
    ax.scatter(
        sizes[[knee]],
        values[[knee]],
        s=95,
        facecolors="none",
        edgecolors=_BLACK,
        linewidths=1.3,
        zorder=5,
        label="knee",
    )
    _scale_sizes(ax, np.append(sizes, front.n_bits))
    ax.margins(x=0.07, y=0.06)
    ax.set_xlabel(f"active {_unit(front, 2)}", fontsize=_MEDIUM)
    ax.set_ylabel(_directed(front, axis), fontsize=_MEDIUM)
    _plain(ax)
    ax.grid(axis="y", color="#E6E6E6", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.legend(
        loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=6, frameon=False, fontsize=_SMALL, **_TIGHT_LEGEND
    )
    points = np.column_stack([sizes, values])
    shown = np.concatenate([points, [[front.n_bits, dense]]])
    if axis.name == front.test_metric:
        tests = np.column_stack([np.append(sizes, front.n_bits), np.append(front.test, front.dense_test)])
        shown = np.concatenate([shown, tests[np.isfinite(tests).all(axis=1)]])
    # room for labels above the stairs
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.2 * (high - low))
    place_labels(ax, _labels(front, index, steps), shown, _corners(points[steps]), dense, _SMALL)
    return ax


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
    space: Any = _figure((6.6, 5.4)).add_subplot(projection="3d") if ax is None else ax
    if space.name != "3d":
        raise InputError("plot_front_3d draws on 3-D axes: make them with add_subplot(projection='3d')")
    if len(front) == 0:
        space.set_axis_off()
        space.text2D(0.5, 0.5, _NO_MEMBERS, transform=space.transAxes, ha="center", va="center", color=_GREY)
        return _as_axes(space)
    coordinates = np.concatenate([front.values[:, :3], front.dense_values[None, :3]])
    # mplot3d has no logarithmic axes, so the logarithm is taken here and undone in the tick labels
    logarithmic = [column for column in range(3) if _spans_decade(front.axes[column], coordinates[:, column])]
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
        cmap=_SIZES,
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
        edgecolors=_VERMILLION,
        linewidths=1.6,
        depthshade=False,
        label=f"knee: {_count(front, int(front.active[knee]))}",
    )
    space.scatter(
        dense[[1]],
        dense[[2]],
        dense[[0]],
        s=150,
        marker="*",
        color=_BLACK,
        depthshade=False,
        label=f"dense head: {_count(front, front.n_bits)}",
    )
    space.set_xlabel(_directed(front, front.axes[1]), fontsize=_SMALL, labelpad=6)
    space.set_ylabel(_directed(front, front.axes[2]), fontsize=_SMALL, labelpad=6)
    space.set_zlabel(_directed(front, front.axes[0]), fontsize=_SMALL, labelpad=6)
    space.tick_params(labelsize=_SMALL - 0.5, pad=1)
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
    space.legend(loc="upper left", frameon=False, fontsize=_SMALL)
    bar = space.figure.colorbar(points, ax=space, shrink=0.6, pad=0.08, aspect=22)
    _style_bar(bar, _directed(front, front.axes[2]))
    return _as_axes(space)


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
    ax = _axes(ax, (7.2, 4.4))
    if len(front) == 0:
        return _say(ax, _NO_MEMBERS)
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
        cmap=_SIZES,
        norm=LogNorm(*_size_range(front)),
        linewidths=1.1,
        alpha=0.65 if len(front) <= 100 else 0.4,
        zorder=2,
    )
    ax.add_collection(lines, autolim=False)
    knee = front.knee()
    ax.plot(
        positions,
        heights[knee],
        color=_VERMILLION,
        linewidth=2.4,
        marker="o",
        markersize=5,
        zorder=5,
        label=f"knee: {_count(front, int(front.active[knee]))}",
    )
    ax.plot(
        positions,
        heights[-1],
        color=_BLACK,
        linewidth=2.0,
        linestyle=(0, (4, 2)),
        marker="*",
        markersize=9,
        zorder=4,
        label=f"dense head: {_count(front, front.n_bits)}",
    )
    ax.set_xlim(-0.3, len(axes) - 0.7)
    ax.set_ylim(-0.12, 1.12)
    ax.set_yticks([])
    ax.set_xticks(positions, [_heading(front, axis) for axis in axes], fontsize=_MEDIUM - 0.5)
    ax.tick_params(axis="x", length=0, pad=2)
    ax.set_ylabel("better  \N{RIGHTWARDS ARROW}", fontsize=_MEDIUM, color=_GREY)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.legend(
        loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, frameon=False, fontsize=_SMALL, **_TIGHT_LEGEND
    )
    bar: Any = ax.figure.colorbar(lines, ax=ax, pad=0.02, aspect=28, format=FuncFormatter(_whole))
    bar.ax.yaxis.set_major_locator(LogLocator(10, subs=_subs(*_size_range(front))))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    # the lines are see-through, the scale should not be
    bar.solids.set_alpha(1.0)
    _style_bar(bar, f"active {_unit(front, 2)}")
    return ax


def plot_convergence(front: Front, ax: Axes | None = None) -> Axes:
    """Draw how the hypervolume and the best value of the first objective rose over the evaluations.

    Parameters
    ----------
    front
        What to draw.
    ax
        Where to draw it; None for a new figure.

    Returns
    -------
    Axes
        What was drawn on: that of the hypervolume. The best value has a twin axes on the right.
    """
    ax = _axes(ax, (7.2, 3.8))
    evaluations, volume = front.history.get("evaluations"), front.history.get("hypervolume")
    if evaluations is None or volume is None or len(evaluations) == 0:
        return _say(ax, "no history:\nno generation was finished")
    _draw_history(ax, evaluations, volume, _BLUE, "o", 5.5)
    ax.set_xlabel("evaluations", fontsize=_MEDIUM)
    ax.set_ylabel("hypervolume (share of the box)", color=_BLUE, fontsize=_MEDIUM)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(_whole))
    _plain(ax)
    ax.tick_params(axis="y", colors=_BLUE)
    ax.grid(axis="y", color="#E6E6E6", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.margins(y=0.08)
    best = front.history.get("best")
    if best is None or not np.isfinite(best).any():
        return ax
    twin = ax.twinx()
    _draw_history(twin, evaluations, best, _VERMILLION, "s", 3.5)
    twin.margins(y=0.08)
    _plain(twin)
    twin.set_ylabel(f"best {_directed(front, front.axes[0])}", color=_VERMILLION, fontsize=_MEDIUM)
    twin.tick_params(axis="y", colors=_VERMILLION)
    return ax


def plot_comparison(results: Sequence[MethodResult], ax: Axes | None = None) -> Axes:
    """Draw what accuracy each method has on the test rows at each size: means over the seeds.

    A curve is the best test accuracy among a method's members with at most so many active bits; it starts where
    every seed has a member. Guided is the thick line, searches are solid, and the dense head is a dashed level.

    Parameters
    ----------
    results
        Of one data set, any methods and seeds.
    ax
        Where to draw them; None for a new figure.

    Returns
    -------
    Axes
        What was drawn on.
    """
    ax = _axes(ax, (8.6, 4.6))
    found = [result for result in results if len(result.active)]
    if not found:
        return _say(ax, _NO_MEMBERS)
    most = max(result.n_bits for result in found)
    everywhere = np.concatenate([*(result.active for result in found), [1, most]])
    # a mask without any bit has no place on a log scale; its head is as good as one with a bit too many
    sizes = np.unique(np.maximum(everywhere, 1))
    for number, method in enumerate(METHODS):
        curves = [curve(result, sizes) for result in found if result.method == method]
        if not curves:
            continue
        mean = np.mean(curves, axis=0)
        if method == "dense":
            ax.axhline(mean[-1], color=_BLACK, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1, label=method)
            continue
        guided, searched = method == "guided", method in SEARCHES
        color = (_SEARCH_COLORS if searched else _BASELINE_COLORS)[number % (3 if searched else 5)]
        ax.plot(
            sizes,
            mean,
            drawstyle="steps-post",
            color=color,
            linewidth=3.0 if guided else 1.8 if searched else 1.4,
            linestyle="-" if searched else _DASHES[number % 3],
            # a method that has nothing but the dense head is a point, which no line shows
            marker="o" if np.isfinite(mean).sum() == 1 else "",
            markersize=4.5,
            zorder=5 if guided else 4 if searched else 3,
            label=method.replace("_", " "),
        )
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(10, subs=_subs(1.0, float(most)), numticks=30))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_formatter(FuncFormatter(_whole))
    ax.margins(x=0.02, y=0.05)
    ax.set_xlabel("active bits, at most", fontsize=_MEDIUM)
    ax.set_ylabel("best test accuracy or R²", fontsize=_MEDIUM)
    _plain(ax)
    ax.grid(axis="y", color="#E6E6E6", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.set_title(textwrap.shorten(found[0].data, 60, placeholder="...").replace("$", r"\$"), fontsize=_MEDIUM)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=_SMALL, handlelength=3.4)
    return ax


def save_comparison(results: Sequence[MethodResult], path: str | Path) -> Path:
    """Write the figure of :func:`plot_comparison` as a PNG.

    Parameters
    ----------
    results
        Of one data set.
    path
        The file; its folder is made where missing.

    Raises
    ------
    InputError
        The folder or the file cannot be written.
    """
    path = Path(path)
    _make_folder(path.parent)
    _save(plot_comparison(results), path)
    return path


def save_figures(front: Front, folder: str | Path) -> list[Path]:
    """Write ``front.png``, ``front3d.png``, ``parallel.png`` and ``convergence.png``.

    Parameters
    ----------
    front
        What to draw. With fewer than three objectives there is no ``front3d.png``.
    folder
        Where to write; made where missing.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    InputError
        The folder or a file cannot be written.
    """
    folder = Path(folder)
    _make_folder(folder)
    figures: dict[str, Callable[[Front], Axes]] = {"front": plot_front}
    if len(front.axes) >= 3:
        figures["front3d"] = plot_front_3d
    figures |= {"parallel": plot_parallel, "convergence": plot_convergence}
    paths = []
    for name, draw in figures.items():
        paths.append(folder / f"{name}.png")
        _save(draw(front), paths[-1])
    return paths


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror}): choose another folder") from error


def _save(ax: Axes, path: Path) -> None:
    figure: Any = ax.figure
    with atomic_path(path) as temporary:
        # no software tag: the bytes should depend on what is drawn only
        figure.savefig(temporary, dpi=_DPI, format="png", metadata={"Software": None})


def _figure(size: tuple[float, float]) -> Figure:
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    return _figure(size).add_subplot() if ax is None else ax


def _as_axes(space: Any) -> Axes:
    axes: Axes = space
    return axes


def _say(ax: Axes, message: str) -> Axes:
    """Put a message where the data would be."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, message, transform=ax.transAxes, ha="center", va="center", fontsize=_MEDIUM + 1, color=_GREY)
    return ax


def _plain(ax: Axes) -> None:
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(labelsize=_SMALL, length=3)
    ax.tick_params(axis="y", length=0)


def _style_bar(bar: Any, label: str) -> None:
    bar.set_label(label, fontsize=_SMALL)
    bar.ax.tick_params(labelsize=_SMALL - 0.5, length=2)
    bar.outline.set_visible(False)


def _draw_history(ax: Axes, evaluations: Values, column: Values, color: str, marker: str, size: float) -> None:
    # marks only where they can be told apart; a single generation would not show as a line
    marks = marker if len(evaluations) <= 40 else ""
    ax.plot(evaluations, column, color=color, linewidth=1.8, marker=marks, markersize=size, clip_on=False)


def _draw_scale(ax: Axes, column: int, axis: Axis, values: Values, front: Front) -> Values:
    """Draw one vertical axis with its end values and return the heights of the values, better upwards."""
    ax.plot([column, column], [0, 1], color="#9A9A9A", linewidth=1.0, zorder=1)
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return np.full_like(values, np.nan)
    low, high = float(finite.min()), float(finite.max())
    style: dict[str, Any] = {"ha": "center", "fontsize": _SMALL, "color": "#333333", "zorder": 6}
    if high == low:
        ax.text(column, 1.03, f"all {_number(low)}", va="bottom", **style)
        return np.where(np.isfinite(values), 0.5, np.nan)
    top, bottom = (high, low) if axis.maximise else (low, high)
    ax.text(column, 1.03, _number(top), va="bottom", **style)
    ax.text(column, -0.03, _number(bottom), va="top", **style)
    heights: Values = (values - bottom) / (top - bottom)
    return heights


def _size_range(front: Front) -> tuple[float, float]:
    # a head without any active bit has no logarithm
    low = max(int(front.active.min()), 1)
    return float(low), float(max(front.n_bits, low + 1))


def _quality(front: Front) -> int:
    """Index of the objective to draw over size: the first one that is not size itself."""
    others = [index for index, axis in enumerate(front.axes) if axis.name != "active_neurons"]
    return others[0] if others else 0


def _staircase(sizes: Values, losses: Values) -> npt.NDArray[np.int64]:
    """Members that no other one beats in size and this loss, fewest active bits first."""
    steps: list[int] = []
    for member in np.lexsort((losses, sizes)):
        if not steps or losses[member] < losses[steps[-1]]:
            steps.append(int(member))
    return np.array(steps, dtype=np.int64)


def _corners(points: Values) -> Values:
    """Vertices of the staircase through points, shape (2 n - 1, 2)."""
    corners = np.repeat(points, 2, axis=0)[1:]
    corners[::2, 0], corners[1::2] = points[:, 0], np.column_stack([points[1:, 0], points[:-1, 1]])
    return corners


def _scale_sizes(ax: Axes, sizes: Values) -> None:
    low, high = float(sizes.min()), float(sizes.max())
    if low > 0 and high > 10 * low:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(10, subs=_subs(low, high), numticks=30))
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(_whole))


def _spans_decade(axis: Axis, values: Values) -> bool:
    # sizes only: of scores it is the difference that counts, not the ratio
    return axis.name == "active_neurons" and bool(values.min() > 0 and values.max() > 10 * values.min())


def _power(exponent: float, _: int | None = None) -> str:
    return f"{10.0**exponent:.6g}".removeprefix("0") or "0"


def _subs(low: float, high: float) -> tuple[float, ...]:
    """Multiples of the powers of ten to label: few enough not to touch."""
    return (1.0, 2.0, 5.0) if high / low < 10**3.5 else (1.0,)


def _whole(value: float, _: int | None = None) -> str:
    return f"{value:,.0f}"


def _number(value: float) -> str:
    """Short text of a value: .803, 1.000, -.250, 27.1."""
    if not math.isfinite(value):
        return "n/a"
    if 0 < abs(value) < 0.0005:
        return f"{value:.1e}"
    text = f"{value:.3f}" if abs(value) < 10 else f"{value:,.4g}"
    return text.removeprefix("0") if text.startswith("0.") else text.replace("-0.", "-.", 1)


def _unit(front: Front, count: int) -> str:
    """What a bit of the front's encoding stands for."""
    word = {"features": "feature", "connections": "connection", "features+neurons": "bit"}.get(front.encoding)
    return (word or "neuron") + ("" if count == 1 else "s")


def _count(front: Front, count: int) -> str:
    return f"{count:,} {_unit(front, count)}"


def _name(front: Front, axis: Axis) -> str:
    """Name of an objective for people."""
    if axis.name == "active_neurons":
        return f"share of active {_unit(front, 2)}"
    # a lone dollar sign would start a formula
    return axis.name.replace("ood_auroc", "OoD AUROC").replace("_", " ").replace("$", r"\$")


def _directed(front: Front, axis: Axis) -> str:
    name = textwrap.shorten(_name(front, axis), 30, placeholder="...")
    return f"{name} ({'higher' if axis.maximise else 'lower'} is better)"


def _heading(front: Front, axis: Axis) -> str:
    name = textwrap.fill(_name(front, axis), 18)
    return f"{name}\n({'higher' if axis.maximise else 'lower'} is better)"


def _labels(front: Front, index: int, steps: npt.NDArray[np.int64]) -> list[Label]:
    """Labels of the members worth naming, the most important first; one member has one label."""
    values, losses = front.values[:, index], front.F[:, index]
    close = steps[losses[steps] <= losses.min() + _CLOSE]
    roles: dict[int, list[str]] = {}
    for member, role in [
        (front.knee(), "knee"),
        (int(close[0]), f"within {_CLOSE:.2g} of best".replace("0.", ".")),
        (int(steps[-1]), "best"),
        (int(steps[0]), "smallest"),
    ]:
        roles.setdefault(member, []).append(role)
    labels = [
        Label(
            f"{_role(words)}: {_count(front, int(front.active[member]))}, {_number(values[member])}",
            float(front.active[member]),
            float(values[member]),
        )
        for member, words in roles.items()
    ]
    dense = float(front.dense_values[index])
    labels.append(Label(f"dense: {_count(front, front.n_bits)}, {_number(dense)}", float(front.n_bits), dense))
    return labels


def _role(words: list[str]) -> str:
    # the best is within anything of the best
    return ", ".join(word for word in words if not (word.startswith("within") and "best" in words))
