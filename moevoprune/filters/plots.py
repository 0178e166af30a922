"""Fronts of validation error over FLOPs, one panel per network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from moevoprune.filters.results import CHOSEN, PruningResult
from moevoprune.fronts.landmarks import staircase
from moevoprune.fronts.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    MEDIUM,
    ORANGE,
    SMALL,
    TIGHT_LEGEND,
    VERMILLION,
    new_figure,
    panels,
    plain,
    plain_text,
    rule,
)

__all__ = ["plot_filter_fronts"]

_NAMES = {"deep_pruning_es": "DeepPruningES", "nsga2": "NSGA-II", "reference": "MO-EvoPruneDeepTL"}
_COLORS = {"guided": VERMILLION, "deep_pruning_es": BLUE, "nsga2": GREEN, "reference": ORANGE}
_MARKERS = dict(zip(CHOSEN, ("^", "D", "v"), strict=True))
# beyond twice the knee's error, fronts are of no use to anyone; of good networks a little more is shown
_LEAST_HEIGHT = 0.05
_PANEL = (3.6, 3.3)
_LEGEND_HEIGHT = 0.7


def plot_filter_fronts(results: Sequence[PruningResult]) -> Axes:
    """Draw validation error over the share of FLOPs that is left, a panel for each network.

    Each search has a colour and each seed a line; a triangle that points up marks boundary heavy, a diamond the
    knee, a triangle that points down boundary light, and a star the whole network. Axes end above the knees, as
    the lightest networks of a front are as good as untrained ones: a marker at the upper edge lies above it.

    Parameters
    ----------
    results
        All networks, searches and seeds of a run, at least one.

    Returns
    -------
    Axes
        One that holds the panels.
    """
    names = list(dict.fromkeys(result.network for result in results))
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    figure = new_figure((_PANEL[0] * columns + 0.3, _PANEL[1] * rows + _LEGEND_HEIGHT))
    whole = figure.add_subplot()
    places = [ax for row in panels(whole, rows, columns, (0.28, 0.38)) for ax in row]
    for ax, name in zip(places, names, strict=False):
        _draw(ax, name, [result for result in results if result.network == name])
    for ax in places[len(names) :]:
        ax.set_axis_off()
    handles = {
        label: handle for ax in places for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside upper left",
        ncols=min(len(handles), 3 * columns),
        frameon=False,
        fontsize=SMALL,
        **TIGHT_LEGEND,
    )
    return whole


def _draw(ax: Axes, name: str, results: Sequence[PruningResult]) -> None:
    top = max(_LEAST_HEIGHT, *(2 * result.front.errors[result.front.choices.knee] for result in results))
    top = min(1.0, max(top, *(1.3 * result.front.whole[2] for result in results)))
    for result in results:
        front, color = result.front, _COLORS.get(result.algorithm, GREY)
        # of further objectives, members that are dominated in these two are no part of the line
        stairs = staircase(front.costs[:, 0].astype(np.int64), front.errors)
        ax.plot(
            front.flops_shares[stairs],
            front.errors[stairs],
            drawstyle="steps-post",
            color=color,
            linewidth=1.4,
            marker=".",
            markersize=4,
            label=_NAMES.get(result.algorithm) or plain_text(result.algorithm, 30),
            zorder=3,
        )
        for role, member in zip(CHOSEN, front.choices, strict=True):
            ax.plot(
                front.flops_shares[member],
                min(front.errors[member], top),
                linestyle="none",
                marker=_MARKERS[role],
                markersize=8,
                markerfacecolor=color,
                markeredgecolor="white",
                markeredgewidth=0.9,
                clip_on=False,
                zorder=5,
            )
        ax.plot(
            1.0, result.front.whole[2], linestyle="none", marker="*", markersize=10, color=BLACK, clip_on=False
        )
    for role, marker in _MARKERS.items():
        ax.plot([], [], linestyle="none", marker=marker, markersize=7, color=GREY, label=role)
    ax.plot([], [], linestyle="none", marker="*", markersize=9, color=BLACK, label="whole network")
    ax.set_xlim(0, 1.02)
    ax.set_ylim(0, top)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(6))
        axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.3g} %"))
    plain(ax)
    rule(ax)
    ax.set_title(plain_text(name, 40), fontsize=MEDIUM)
    ax.set_xlabel("FLOPs left", fontsize=MEDIUM)
    ax.set_ylabel("validation error", fontsize=MEDIUM)
