"""Ensembles of percentile windows, as in MO-EvoPruneDeepTL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
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

if TYPE_CHECKING:
    from moevoprune.fronts.ensemble_tables import WindowResult

__all__ = ["plot_windows"]

# attribute, name, and how it is drawn; what is drawn last lies on top
_LINES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (
        "mean_member",
        "mean of members",
        {"color": GREY, "linestyle": (0, (1, 1.2)), "marker": "D", "markersize": 4},
    ),
    (
        "best_by_validation",
        "best member on validation",
        {"color": ORANGE, "linestyle": (0, (5, 1.5)), "marker": "v", "markersize": 5},
    ),
    ("best_member", "best member on test", {"color": VERMILLION, "marker": "^", "markersize": 5.5}),
    ("hard", "ensemble, hard voting", {"color": SKY, "linewidth": 2.0, "marker": "s", "markersize": 5}),
    ("soft", "ensemble, soft voting", {"color": BLUE, "linewidth": 2.4, "marker": "o", "markersize": 6}),
)


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
    ax = new_axes(ax, (7.2, 4.2))
    if not windows:
        return say(ax, "no windows:\nthere is nothing to draw")
    places = np.arange(len(windows))
    for attribute, name, look in _LINES:
        accuracies = np.array([getattr(window, attribute) for window in windows], dtype=np.float64)
        ax.plot(places, accuracies, label=name, **{"linewidth": 1.5, "markeredgewidth": 0, **look})
    ax.set_xticks(places, [f"{w.low:g}\N{EN DASH}{w.high:g}\n{w.members}" for w in windows], fontsize=SMALL)
    ax.margins(x=0.05, y=0.08)
    plain(ax)
    rule(ax)
    ax.set_xlabel("percentiles of validation accuracy, and members in the window", fontsize=MEDIUM)
    # heads that predict numbers have no majority
    regression = all(np.isnan(window.hard) for window in windows)
    ax.set_ylabel(f"test {'R²' if regression else 'accuracy'}", fontsize=MEDIUM)
    # the ensembles first, as in the figure from above
    handles, names = ax.get_legend_handles_labels()
    ax.legend(handles[::-1], names[::-1], ncols=3, **TOP_LEGEND)
    return ax
