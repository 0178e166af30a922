"""How a front grew over the evaluations of its search."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from moevoprune.fronts.front import Front
from moevoprune.fronts.plots.style import (
    BLUE,
    MEDIUM,
    VERMILLION,
    Values,
    new_axes,
    plain,
    rule,
    say,
    whole,
)
from moevoprune.fronts.plots.wording import directed

__all__ = ["plot_convergence"]


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
    ax = new_axes(ax, (7.2, 3.8))
    evaluations, volume = front.history.get("evaluations"), front.history.get("hypervolume")
    if evaluations is None or volume is None or len(evaluations) == 0:
        return say(ax, "no history:\nno generation was finished")
    _draw_history(ax, evaluations, volume, BLUE, "o", 5.5)
    ax.set_xlabel("evaluations", fontsize=MEDIUM)
    ax.set_ylabel("hypervolume (share of the box)", color=BLUE, fontsize=MEDIUM)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(whole))
    plain(ax)
    ax.tick_params(axis="y", colors=BLUE)
    rule(ax)
    ax.margins(y=0.08)
    best = front.history.get("best")
    if best is None or not np.isfinite(best).any():
        return ax
    twin = ax.twinx()
    _draw_history(twin, evaluations, best, VERMILLION, "s", 3.5)
    twin.margins(y=0.08)
    plain(twin)
    twin.set_ylabel(f"best {directed(front, front.axes[0])}", color=VERMILLION, fontsize=MEDIUM)
    twin.tick_params(axis="y", colors=VERMILLION)
    return ax


def _draw_history(ax: Axes, evaluations: Values, column: Values, color: str, marker: str, size: float) -> None:
    # marks only where they can be told apart; a single generation would not show as a line
    marks = marker if len(evaluations) <= 40 else ""
    ax.plot(evaluations, column, color=color, linewidth=1.8, marker=marks, markersize=size, clip_on=False)
