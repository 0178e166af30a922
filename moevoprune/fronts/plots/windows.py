"""Ensembles of percentile windows, as in MO-EvoPruneDeepTL."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from moevoprune.fronts.plots.style import (
    BLUE,
    GREY,
    MEDIUM,
    ORANGE,
    SKY,
    SMALL,
    TOP_LEGEND,
    VERMILLION,
    new_axes,
    plain,
    rule,
    say,
)
from moevoprune.fronts.statistics import interval

if TYPE_CHECKING:
    from moevoprune.fronts.ensemble_tables import WindowResult

__all__ = ["plot_window_means", "plot_windows"]

Values = npt.NDArray[np.float64]

_MEMBERS: dict[str, Any] = {"color": GREY, "linestyle": (0, (1, 1.2)), "marker": "D", "markersize": 4}
_PICKED: dict[str, Any] = {"color": ORANGE, "linestyle": (0, (5, 1.5)), "marker": "v", "markersize": 5}
_HINDSIGHT: dict[str, Any] = {"color": VERMILLION, "marker": "^", "markersize": 5.5}
_HARD: dict[str, Any] = {"color": SKY, "linewidth": 2.0, "marker": "s", "markersize": 5}
_SOFT: dict[str, Any] = {"color": BLUE, "linewidth": 2.4, "marker": "o", "markersize": 6}

# per measure: attribute, name, and how it is drawn; what is drawn last lies on top
_LINES: dict[str, tuple[tuple[str, str, dict[str, Any]], ...]] = {
    "accuracy": (
        ("mean_member", "mean of members", _MEMBERS),
        ("best_by_validation", "best member on validation", _PICKED),
        ("best_member", "best member on test", _HINDSIGHT),
        ("hard", "ensemble, hard voting", _HARD),
        ("soft", "ensemble, soft voting", _SOFT),
    ),
    "ood_auroc": (
        ("ood_mean_member", "mean of members", _MEMBERS),
        ("ood_best_by_selection", "best member in the search", _PICKED),
        ("ood_best_member", "best member on test", _HINDSIGHT),
        ("ood_auroc", "ensemble, mean score", _SOFT),
    ),
}


def plot_windows(windows: Sequence[WindowResult], ax: Axes | None = None) -> Axes:
    """Draw the test accuracy of the ensemble of every window of members beside that of its members.

    A window holds the members between two percentiles of validation accuracy, e.g. 50-60 ... 85-95
    (MO-EvoPruneDeepTL, arXiv 2302.10253). Drawn are both kinds of voting, the member that is best on the test rows
    themselves, the one that is best on validation (what somebody gets who picks without the test rows), and the
    members' mean. Below a window stands how many members it holds; a window without any is a gap.

    Parameters
    ----------
    windows
        What to draw, in this order.
    ax
        Where to draw it; None for a new figure.

    Returns
    -------
    Axes
        What was drawn on.
    """
    return plot_window_means([windows], "accuracy", ax)


def plot_window_means(
    seeds: Sequence[Sequence[WindowResult]],
    measure: Literal["accuracy", "ood_auroc"] = "accuracy",
    ax: Axes | None = None,
) -> Axes:
    """Draw what :func:`plot_windows` does as means over seeds, with 95 % intervals where there are several.

    Parameters
    ----------
    seeds
        The same windows, seed by seed.
    measure
        ``"accuracy"``, or ``"ood_auroc"``: how well out-of-distribution rows are told from the test rows.
    ax
        Where to draw it; None for a new figure.

    Returns
    -------
    Axes
        What was drawn on.
    """
    ax = new_axes(ax, (7.2, 4.2))
    if not seeds or not seeds[0]:
        return say(ax, "no windows:\nthere is nothing to draw")
    places = np.arange(len(seeds[0]))
    for attribute, name, look in _LINES[measure]:
        values = np.array([[getattr(window, attribute) for window in windows] for windows in seeds], np.float64)
        ax.plot(places, values.mean(axis=0), label=name, **{"linewidth": 1.5, "markeredgewidth": 0, **look})
        if len(seeds) > 1:
            ax.fill_between(places, *_limits(values), color=look["color"], alpha=0.13, linewidth=0)
    members = np.mean([[window.members for window in windows] for windows in seeds], axis=0)
    names = [f"{w.low:g}\N{EN DASH}{w.high:g}\n{n:.0f}" for w, n in zip(seeds[0], members, strict=True)]
    ax.set_xticks(places, names, fontsize=SMALL)
    ax.margins(x=0.05, y=0.08)
    plain(ax)
    rule(ax)
    ax.set_xlabel("percentiles of validation accuracy, and members in the window", fontsize=MEDIUM)
    # heads that predict numbers have no majority
    regression = all(np.isnan(window.hard) for windows in seeds for window in windows)
    quality = "R²" if regression else "accuracy"
    ax.set_ylabel(f"test {quality if measure == 'accuracy' else 'OoD AUROC'}", fontsize=MEDIUM)
    # the ensembles first, as in the figure from above
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles[::-1], labels[::-1], ncols=3, **TOP_LEGEND)
    return ax


def _limits(values: Values) -> tuple[list[float], list[float]]:
    """Ends of the 95 % intervals of the columns' means; NaN where there are none."""
    known = [None if np.isnan(column).any() else interval(column) for column in values.T]
    return (
        [math.nan if one is None else one.low for one in known],
        [math.nan if one is None else one.high for one in known],
    )
