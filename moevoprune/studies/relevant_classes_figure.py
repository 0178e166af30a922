"""Figure of the relevant-classes study: overlap per class, accuracy and size as one class is added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from moevoprune.fronts.plots.style import (
    BLUE,
    GREY,
    MEDIUM,
    SMALL,
    TOP_LEGEND,
    VERMILLION,
    new_figure,
    plain,
    plain_text,
    rule,
)
from moevoprune.fronts.statistics import interval
from moevoprune.studies.class_variants import WHOLE
from moevoprune.studies.relevant_classes import ClassFronts, LeftOut

__all__ = ["plot_relevant_classes"]

Values = npt.NDArray[np.float64]

_HEADS = {"best": BLUE, "knee": VERMILLION, "dense": GREY}


def plot_relevant_classes(results: Sequence[ClassFronts], tests: Mapping[str, Mapping[int, LeftOut]]) -> Axes:
    """Draw a row of three panels per data set.

    On the left the overlap of features with and without each class, beside that between seeds; then the test
    accuracy and the share of active bits of best member, knee and dense head as one class is added in steps.

    Parameters
    ----------
    results
        The fronts of each data set.
    tests
        Of :func:`moevoprune.studies.relevant_classes.compare_classes`.

    Returns
    -------
    Axes
        The first panel.
    """
    figure = new_figure((10.5, 3.3 * len(results)))
    axes = figure.subplots(len(results), 3, squeeze=False)
    for (overlap, accuracy, share), result in zip(axes, results, strict=True):
        _draw_overlap(overlap, result, tests[result.data.name])
        _draw_steps(accuracy, result, "accuracy", tuple(_HEADS), "test accuracy")
        # all bits of the dense head are active
        _draw_steps(share, result, "share", ("best", "knee"), "share of active bits")
    first: Axes = axes[0, 0]
    return first


def _draw_overlap(ax: Axes, result: ClassFronts, tests: Mapping[int, LeftOut]) -> None:
    """Overlap of the features with and without each class, and between seeds."""
    within = result.seed_overlap(WHOLE)
    ax.axvspan(within.low, within.high, color=GREY, alpha=0.25, linewidth=0, label="two seeds, all classes")
    ax.axvline(within.mean, color=GREY, linewidth=1.0)
    for label, test in tests.items():
        across = test.across
        ax.plot([across.low, across.high], [label, label], color=BLUE, linewidth=1.5)
        ax.plot(across.mean, label, "o", color=BLUE, label=None if label else "with and without the class")
    plain(ax)
    rule(ax, "x")
    ax.set_yticks(range(len(tests)), [plain_text(name, 20) for name in result.data.features.class_names])
    ax.invert_yaxis()
    ax.set_xlabel(f"{plain_text(result.data.name, 30)}: overlap of features read", fontsize=SMALL)
    ax.legend(ncols=1, **TOP_LEGEND)


def _draw_steps(ax: Axes, result: ClassFronts, what: str, heads: Sequence[str], title: str) -> None:
    """Accuracy or share of some heads as the class grows."""
    data = result.data
    for head in heads:
        by_share = [result.values(data.at(share), f"{head}_{what}") for share in data.shares]
        _draw_line(ax, data.shares, by_share, _HEADS[head], head)
    ax.set_xlabel(f"training rows of {plain_text(data.added_name, 20)}, %", fontsize=SMALL)
    ax.set_ylabel(title, fontsize=MEDIUM)
    ax.legend(ncols=3, **TOP_LEGEND)


def _draw_line(ax: Axes, shares: Sequence[float], by_share: Sequence[Values], color: str, name: str) -> None:
    """Mean and interval of a value as the class grows."""
    percent = [100 * share for share in shares]
    intervals = [interval(values) for values in by_share]
    ax.fill_between(
        percent, [i.low for i in intervals], [i.high for i in intervals], color=color, alpha=0.15, linewidth=0
    )
    ax.plot(percent, [i.mean for i in intervals], "o-", color=color, linewidth=1.5, markersize=4, label=name)
    plain(ax)
    rule(ax)
