"""Sorted frequencies of neurons over merged fronts, drawn with what chance would give."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from moevoprune.fronts.plots.style import BLUE, MEDIUM, SMALL, VERMILLION, new_figure, rule
from moevoprune.studies.frequent_neurons import Key, Neurons
from moevoprune.studies.two_searches import OURS, PUBLISHED

__all__ = ["draw_frequencies"]

_COLOURS = {PUBLISHED: BLUE, OURS: VERMILLION}


def draw_frequencies(found: Mapping[Key, Neurons]) -> Axes:
    """Draw sorted frequencies, a panel per data set, both searches in it.

    Parameters
    ----------
    found
        By data set and search, at least one.

    Returns
    -------
    Axes
        The first panel.
    """
    names = list(dict.fromkeys(data for data, _ in found))
    columns = min(3, len(names))
    figure = new_figure((max(4.6, 3.2 * columns), 0.6 + 2.7 * math.ceil(len(names) / columns)))
    axes = figure.subplots(math.ceil(len(names) / columns), columns, squeeze=False, sharey=True).ravel()
    for (data, variant), neurons in found.items():
        ax = axes[names.index(data)]
        _draw_one(ax, neurons, variant)
        ax.set_title(data, fontsize=MEDIUM)
    for ax in axes[len(names) :]:
        ax.set_axis_off()
    for ax in axes[::columns]:
        ax.set_ylabel("members, %", fontsize=SMALL)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False, fontsize=SMALL)
    first: Axes = axes[0]
    return first


def _draw_one(ax: Axes, neurons: Neurons, variant: str) -> None:
    """Draw the frequencies of one search on one data set."""
    color = _COLOURS[variant]
    ranks = np.arange(1, neurons.independent.shape[1] + 1)
    low, high = 100 * np.quantile(neurons.independent, [0.025, 0.975], axis=0)
    label = f"{variant}: independent masks, 95 %"
    ax.fill_between(ranks, low, high, color=color, alpha=0.3, linewidth=1, label=label)
    exchanged = 100 * np.median(neurons.shuffled, axis=0)
    ax.plot(ranks, exchanged, color=color, linestyle=":", linewidth=1.2, label=f"{variant}: runs exchanged")
    observed = 100 * np.sort(neurons.explanation.frequency)[::-1]
    ax.plot(ranks, observed, color=color, linewidth=1.6, label=variant)
    ax.set(xscale="log", ylim=(0, 103))
    ax.set_xlabel("neurons, the most frequent first", fontsize=SMALL)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.tick_params(labelsize=SMALL)
    rule(ax)
