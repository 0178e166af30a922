"""Figure of constructed networks: what they score less the large network, and less one trained from scratch."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.ticker import MaxNLocator

from moevoprune.construction.records import BEST_SCORING
from moevoprune.fronts.plots.style import (
    BLUE,
    DASHED,
    GREEN,
    GREY,
    MEDIUM,
    SMALL,
    TIGHT_LEGEND,
    VERMILLION,
    new_figure,
    panels,
    plain,
    rule,
)
from moevoprune.fronts.statistics import interval
from moevoprune.studies.constructed_networks import UNITS, score_pairs
from moevoprune.studies.constructed_networks_claims import MARGINS
from moevoprune.studies.constructed_networks_runs import Records

__all__ = ["plot_constructed_networks"]

# label, first and second method, colour
_CONTRASTS = (
    ("refined less large", "refined", "large", VERMILLION),
    ("best-scoring threshold less large", BEST_SCORING, "large", BLUE),
    ("refined less the same shape from scratch", "refined", "scratch", GREEN),
)


def plot_constructed_networks(records: Records) -> Axes:
    """Draw differences of test scores, means with 95 % intervals over the seeds, a panel for each metric.

    Parameters
    ----------
    records
        Of all data sets, at least one.

    Returns
    -------
    Axes
        One that holds the panels.
    """
    metrics = [metric for metric in UNITS if any(seeds[0].metric == metric for seeds in records.values())]
    figure = new_figure((4.6 * len(metrics) + 0.4, 4.2))
    whole = figure.add_subplot()
    # matplotlib takes containers too, its types do not say so
    handles: list[Any] = []
    for ax, metric in zip(panels(whole, 1, len(metrics), (0.38, 0.0))[0], metrics, strict=True):
        own = {name: seeds for name, seeds in records.items() if seeds[0].metric == metric}
        handles = [_draw_contrast(ax, own, place) for place in range(len(_CONTRASTS))]
        handles.append(ax.axvline(-MARGINS[metric], color=GREY, linestyle=DASHED, linewidth=1.0))
        ax.axvline(0, color=GREY, linewidth=1.0)
        ax.set_yticks(range(len(own)), list(own), fontsize=MEDIUM)
        ax.set_ylim(len(own) - 0.5, -0.5)
        ax.xaxis.set_major_locator(MaxNLocator(6))
        ax.set_xlabel(f"difference of test {UNITS[metric]}, mean and 95 % interval", fontsize=MEDIUM)
        plain(ax)
        rule(ax, "x")
    figure.legend(
        handles,
        [*(label for label, *_ in _CONTRASTS), "margin of no loss"],
        loc="outside upper left",
        ncols=2,
        frameon=False,
        fontsize=SMALL,
        **TIGHT_LEGEND,
    )
    return whole


def _draw_contrast(ax: Axes, records: Records, place: int) -> ErrorbarContainer:
    """One contrast on every data set."""
    label, first, second, color = _CONTRASTS[place]
    pairs = score_pairs(records, first, second)
    differences = [interval(np.subtract(*pair)) for pair in pairs.values()]
    # one seed has no interval
    halves = [0.0 if np.isnan(of.low) else of.mean - of.low for of in differences]
    heights = np.arange(len(records)) + 0.22 * (place - 1)
    means = [of.mean for of in differences]
    return ax.errorbar(means, heights, xerr=halves, fmt="o", color=color, markersize=5, capsize=3, label=label)
