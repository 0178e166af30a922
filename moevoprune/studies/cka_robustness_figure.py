"""Figure of what CKA says: how alike heads are, and whether it tells which of them noise harms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import LogNorm

from moevoprune.fronts.plots import style
from moevoprune.fronts.statistics import interval
from moevoprune.studies.best_mask_similarity import COMPARISONS, MEASURES, PUBLISHED
from moevoprune.studies.mean_tests import Row, by_data, column_tests, per_seed
from moevoprune.studies.robustness_prediction import OBJECTIVE

__all__ = ["plot_cka_robustness"]

_LOOKS = {"linear": (style.BLUE, "o"), "rbf": (style.ORANGE, "s"), "weights": (style.VERMILLION, "D")}
_PUBLISHED_COLOR = "#CFCFCF"


def plot_cka_robustness(similar: Sequence[Row], related: Sequence[Row], masks: Sequence[Row]) -> Axes:
    """Draw how alike heads are above, and CKA against the fall of accuracy below; a column per data set.

    Parameters
    ----------
    similar
        See :func:`~moevoprune.studies.best_mask_similarity.best_mask_similarity`; the panels are of masks of
        features.
    related
        See :func:`~moevoprune.studies.robustness_prediction.relations`.
    masks
        See :func:`~moevoprune.studies.robustness_prediction.disturbed_accuracies`. All three have ``data`` and
        ``seed``.

    Returns
    -------
    Axes
        The first panel.
    """
    names = list(by_data(masks))
    figure = style.new_figure((2.9 * len(names) + 2.4, 7.4))
    upper, lower = figure.subplots(2, len(names), squeeze=False)
    heads = by_data(similar, encoding="features")
    found = by_data(related, sample="all", objective=OBJECTIVE, disturbance="noise 1")
    partial = column_tests(found, "fall, partial")
    sizes = LogNorm(1, max(row["active"] for row in masks))
    for column, name in enumerate(names):
        _draw_similarities(upper[column], heads[name], name, column == 0)
        title = f"{name}: partial {partial[name].text()}"
        points = _draw_falls(lower[column], by_data(masks)[name], title, sizes)
    lower[0].set_ylabel("fall of test accuracy\nunder noise of 1 standard deviation", fontsize=style.SMALL)
    style.style_bar(figure.colorbar(points, ax=list(lower), fraction=0.04, pad=0.02), "active features")
    handles, labels = upper[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False, fontsize=style.SMALL)
    first: Axes = upper[0]
    return first


def _draw_falls(ax: Axes, masks: Sequence[Row], title: str, sizes: LogNorm) -> PathCollection:
    """A point per mask: its objective, and how much of its accuracy noise takes."""
    points = ax.scatter(
        [row[OBJECTIVE] for row in masks],
        [row["clean"] - row["noise 1"] for row in masks],
        s=8,
        c=[row["active"] for row in masks],
        cmap=style.SIZES,
        norm=sizes,
        alpha=0.6,
        linewidths=0,
    )
    ax.axhline(0.0, color=style.GREY, linewidth=0.8)
    ax.set_title(title, fontsize=style.MEDIUM)
    ax.set_xlabel(f"{OBJECTIVE}, validation rows", fontsize=style.SMALL)
    style.plain(ax)
    style.rule(ax)
    return points


def _draw_similarities(ax: Axes, rows: Sequence[Row], name: str, named: bool) -> None:
    """Means over the seeds with their intervals; a place for every comparison."""
    for place, comparison in enumerate(COMPARISONS):
        of = [row for row in rows if row["comparison"] == comparison]
        if comparison in PUBLISHED:
            low, high = PUBLISHED[comparison]
            label = "" if place else "published, weights"
            ax.barh(place, high - low, left=low, height=0.8, color=_PUBLISHED_COLOR, label=label)
        for offset, (key, label) in zip((-0.22, 0.0, 0.22), MEASURES.items(), strict=True):
            mean = interval(per_seed(of, key))
            color, marker = _LOOKS[key]
            ax.errorbar(
                mean.mean,
                place + offset,
                xerr=np.nan_to_num(mean.high - mean.mean),
                fmt=marker,
                color=color,
                markersize=4.5,
                label="" if place else label,
            )
    ax.set_yticks(range(len(COMPARISONS)), list(COMPARISONS.values()) if named else [""] * len(COMPARISONS))
    ax.invert_yaxis()
    ax.set_xlim(-0.03, 1.03)
    ax.set_xlabel("CKA, masks of features", fontsize=style.SMALL)
    ax.set_title(name, fontsize=style.MEDIUM)
    style.plain(ax)
    style.rule(ax, "x")
