"""The front of size against score over the thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from moevoprune.fronts.plots.style import (
    BLUE,
    DASHED,
    GREY,
    MEDIUM,
    SKY,
    TOP_LEGEND,
    VERMILLION,
    new_axes,
    plain,
    plain_text,
    rule,
    scale_log_sizes,
)

if TYPE_CHECKING:
    from moevoprune.construction.sweep import Sweep

__all__ = ["plot_sweeps"]

_METRICS = {"accuracy": "accuracy", "r2": "R²"}
# below, the smallest networks would leave no room for those worth looking at
_DEEPEST = 0.35


def plot_sweeps(name: str, metric: str, sweeps: Sequence[Sweep], ax: Axes | None = None) -> Axes:
    """Draw the cross-validated score over the number of parameters, one point per threshold.

    A thin line is one seed, the thick one the mean over the seeds; a ring marks what was chosen in each seed, the
    dashed line is the large network. Where small networks are far worse than it, the axis ends at .35 below it.

    Parameters
    ----------
    name
        Of the data set.
    metric
        ``"accuracy"`` or ``"r2"``.
    sweeps
        One per seed, at least one, all with the same thresholds.
    ax
        Where to draw it; None for a new figure.
    """
    ax = new_axes(ax, (6.4, 4.0))
    sizes = np.array([[point.parameters for point in sweep.points] for sweep in sweeps])
    scores = np.array([[point.score for point in sweep.points] for sweep in sweeps])
    seeds = range(len(sweeps))
    if len(sweeps) > 1:
        for seed in seeds:
            ax.plot(sizes[seed], scores[seed], color=SKY, linewidth=0.8, label="one seed" if seed == 0 else None)
    ax.plot(
        sizes.mean(axis=0),
        scores.mean(axis=0),
        color=BLUE,
        linewidth=2.0,
        marker="o",
        markersize=4.5,
        markeredgewidth=0,
        label="constructed" if len(sweeps) == 1 else "mean over the seeds",
        zorder=3,
    )
    ax.scatter(
        [sizes[seed, sweeps[seed].chosen] for seed in seeds],
        [scores[seed, sweeps[seed].chosen] for seed in seeds],
        s=60,
        facecolors="none",
        edgecolors=VERMILLION,
        linewidths=1.6,
        label="chosen",
        zorder=4,
    )
    large = float(np.mean([sweep.large.score for sweep in sweeps]))
    ax.axhline(large, color=GREY, linewidth=1.2, linestyle=DASHED, label="large network", zorder=1)
    top = max(float(scores.max()), large)
    low = max(float(scores.min()), large - _DEEPEST)
    room = 0.06 * max(top - low, 0.01)
    ax.set_ylim(low - room, top + room)
    scale_log_sizes(ax, float(sizes.min()), float(sizes.max()))
    plain(ax)
    rule(ax)
    ax.set_xlabel("parameters, mean over the folds", fontsize=MEDIUM)
    ax.set_ylabel(f"cross-validated {_METRICS[metric]}", fontsize=MEDIUM)
    # above the legend
    ax.set_title(plain_text(name, 50), fontsize=MEDIUM + 1, loc="left", pad=24)
    handles, names = ax.get_legend_handles_labels()
    ax.legend(handles, names, ncols=len(names), **TOP_LEGEND)
    return ax
