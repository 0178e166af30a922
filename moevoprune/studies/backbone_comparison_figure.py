"""Figure of compared backbones: test accuracy of evolved heads and of the dense head on each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from moevoprune.fronts.plots.style import BLUE, GREY, MEDIUM, ORANGE, SMALL, new_figure, plain, rule
from moevoprune.fronts.statistics import interval
from moevoprune.studies.backbone_comparison import backbones_of, column
from moevoprune.studies.mean_tests import Row, by_data

__all__ = ["plot_backbones"]

# column, name, how it is drawn, and how far above the line of its backbone
_HEADS: tuple[tuple[str, str, dict[str, Any], float], ...] = (
    ("dense_test", "dense head", {"color": GREY, "marker": "D"}, 0.2),
    ("best_test", "member best on validation", {"color": BLUE, "marker": "o"}, 0.0),
    ("smallest_test", "smallest as good as dense on validation", {"color": ORANGE, "marker": "v"}, -0.2),
)


def plot_backbones(rows: Sequence[Row]) -> Axes:
    """Draw test accuracies with their intervals over the seeds, a panel per data set and a line per backbone.

    Parameters
    ----------
    rows
        See :func:`~moevoprune.studies.backbone_comparison.backbone_row`; all seeds of every data set and backbone.

    Returns
    -------
    Axes
        The first panel.
    """
    names, backbones = list(by_data(rows)), backbones_of(rows)
    figure = new_figure((8.6, 1.3 + 0.5 * len(backbones)))
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    places = np.arange(len(backbones))[::-1]
    for ax, data in zip(axes, names, strict=True):
        for name, label, look, shift in _HEADS:
            found = [interval(column(rows, data, backbone, name)) for backbone in backbones]
            means = np.array([one.mean for one in found])
            half = np.nan_to_num([one.high - one.mean for one in found])
            ax.errorbar(
                means, places + shift, xerr=half, label=label, linestyle="", markersize=5, capsize=2, **look
            )
        ax.set_title(data, fontsize=MEDIUM)
        ax.set_xlabel("test accuracy", fontsize=SMALL)
        plain(ax)
        rule(ax, "x")
    widths = [column(rows, names[0], backbone, "features")[0] for backbone in backbones]
    lines = [f"{backbone}\n{width:,.0f} features" for backbone, width in zip(backbones, widths, strict=True)]
    axes[0].set_yticks(places, lines, fontsize=SMALL)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False, fontsize=SMALL
    )
    first: Axes = axes[0]
    return first
