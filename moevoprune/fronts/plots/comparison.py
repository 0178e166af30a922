"""Methods of pruning beside one another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from moevoprune.fronts.comparison import METHODS, SEARCHES, MethodResult, curve
from moevoprune.fronts.plots.style import (
    BLACK,
    BLUE,
    DASHED,
    GREEN,
    GREY,
    MEDIUM,
    NO_MEMBERS,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    VERMILLION,
    new_axes,
    plain,
    plain_text,
    rule,
    save_figure,
    say,
    scale_log_sizes,
)

__all__ = ["plot_comparison", "save_comparison"]

# searches are solid lines of their own colours; five colours and three kinds of dashes tell the baselines apart
_SEARCH_COLORS = (VERMILLION, BLACK, GREY)
_BASELINE_COLORS = (GREEN, PURPLE, ORANGE, BLUE, SKY)
_DASHES: tuple[Any, ...] = ((0, (5, 1.2)), (0, (1, 1)), (0, (5, 1, 1, 1)))


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
    ax = new_axes(ax, (8.6, 4.6))
    found = [result for result in results if len(result.active)]
    if not found:
        return say(ax, NO_MEMBERS)
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
            ax.axhline(mean[-1], color=BLACK, linewidth=1.2, linestyle=DASHED, zorder=1, label=method)
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
    scale_log_sizes(ax, 1.0, float(most))
    ax.margins(x=0.02, y=0.05)
    ax.set_xlabel("active bits, at most", fontsize=MEDIUM)
    ax.set_ylabel("best test accuracy or R²", fontsize=MEDIUM)
    plain(ax)
    rule(ax)
    ax.set_title(plain_text(found[0].data), fontsize=MEDIUM)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=SMALL, handlelength=3.4)
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
    return save_figure(plot_comparison(results), path)
