"""Merged fronts of two searches, drawn by their three objectives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.ticker import FuncFormatter

from moevoprune.fronts.plots.style import DASHED, GREY, MEDIUM, SIZES, SMALL, new_figure, rule, style_bar
from moevoprune.studies.two_searches import OURS, PUBLISHED, Runs
from moevoprune.studies.unit_volume import member_scores

__all__ = ["draw_merged_fronts"]


def draw_merged_fronts(all_runs: Sequence[Runs]) -> Axes:
    """Draw merged fronts on test rows: a column per data set, a row per search, AUROC as colour.

    Parameters
    ----------
    all_runs
        Of each data set and search, at least one.

    Returns
    -------
    Axes
        The first panel.
    """
    names = list(dict.fromkeys(runs.data for runs in all_runs))
    every = np.concatenate([member_scores(runs.merged, "test")[:, 2] for runs in all_runs])
    colours: dict[str, Any] = {"cmap": SIZES, "norm": Normalize(float(every.min()), float(every.max()))}
    figure = new_figure((max(1.5 + 2.7 * len(names), 4.6), 5.0))
    axes = figure.subplots(2, len(names), squeeze=False, sharex="col", sharey="col")
    for runs in all_runs:
        ax = axes[(PUBLISHED, OURS).index(runs.variant), names.index(runs.data)]
        accuracy, active, auroc = member_scores(runs.merged, "test").T
        drawn = ax.scatter(100 * active, accuracy, c=auroc, s=14, **colours)
        ax.axhline(runs.merged.dense_test, color=GREY, linestyle=DASHED, linewidth=0.9, zorder=0)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.set_title(f"{runs.data}, {runs.variant}", fontsize=MEDIUM)
        ax.tick_params(labelsize=SMALL)
        rule(ax)
    for ax in axes[-1]:
        ax.set_xlabel("active neurons, %", fontsize=SMALL)
    for ax in axes[:, 0]:
        ax.set_ylabel("test accuracy", fontsize=SMALL)
    style_bar(figure.colorbar(drawn, ax=axes, shrink=0.7), "test AUROC of out-of-distribution rows")
    first: Axes = axes[0, 0]
    return first
