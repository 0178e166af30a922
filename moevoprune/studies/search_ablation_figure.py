"""Figure of the search ablation: how fast each search gets how far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from moevoprune.cli.sweeping import SweepRun
from moevoprune.fronts.front import Front
from moevoprune.fronts.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    MEDIUM,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    VERMILLION,
    new_figure,
    plain,
    plain_text,
    rule,
)
from moevoprune.fronts.statistics import interval
from moevoprune.studies.search_ablation import GUIDED, PREFIX

__all__ = ["plot_search_ablation"]

Values = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

_COLORS = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, GREY)


def plot_search_ablation(runs: Sequence[SweepRun], fronts: Sequence[Front], pop: int, budget: int) -> Axes:
    """Draw what is missing of the hypervolume on validation rows over evaluations, a column per data set.

    Above are the searches that are guided without a part, below the others, in both rows with guided. Lines are
    means over the seeds; the points beside their ends have 95 % intervals.

    Parameters
    ----------
    runs, fronts
        Of all searches, data sets and seeds, guided among them; up to seven searches in a row.
    pop, budget
        Evaluations of a generation and of a search: where the curves begin and end.

    Returns
    -------
    Axes
        The first panel.
    """
    names = list(dict.fromkeys(run.name for run in runs))
    searches = list(dict.fromkeys(run.variant for run in runs))
    parts = [search for search in searches if search.startswith(PREFIX)]
    rows = [parts, [search for search in searches if search not in (GUIDED, *parts)]]
    grid = np.arange(pop, budget + 1, pop)
    missing: dict[tuple[str, str], list[Values]] = {}
    for run, front in zip(runs, fronts, strict=True):
        missing.setdefault((run.variant, run.name), []).append(1.0 - _anytime(front, grid))
    figure = new_figure((3.4 * len(names) + 2.0, 6.4))
    axes = figure.subplots(2, len(names), squeeze=False)
    for line, shown in zip(axes, rows, strict=True):
        for ax, name in zip(line, names, strict=True):
            _draw_curves(ax, grid, {search: missing[search, name] for search in [*shown, GUIDED]})
        line[0].set_ylabel("1 - hypervolume, validation", fontsize=MEDIUM)
        line[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=SMALL)
    for ax, name in zip(axes[0], names, strict=True):
        ax.set_title(plain_text(name), fontsize=MEDIUM)
    first: Axes = axes[0, 0]
    return first


def _anytime(front: Front, grid: Counts) -> Values:
    """Hypervolume of a search's archive after so many evaluations."""
    last = np.searchsorted(front.history["evaluations"], grid, side="right") - 1
    volumes: Values = front.history["hypervolume"][np.maximum(last, 0)]
    return volumes


def _draw_curves(ax: Axes, grid: Counts, missing: Mapping[str, Sequence[Values]]) -> None:
    """Means, and at the end of each its interval of 95 %; guided, the last, in black."""
    step = (grid[-1] - grid[0]) / 40 if len(grid) > 1 else 1.0
    for place, ((search, values), color) in enumerate(
        zip(missing.items(), [*_COLORS[: len(missing) - 1], BLACK], strict=True)
    ):
        ax.plot(grid, np.mean(values, axis=0), color=color, linewidth=1.5, label=search)
        end = interval([value[-1] for value in values])
        if not np.isnan(end.low):
            # side by side, since many end at one height
            ax.errorbar(grid[-1] + (place + 1) * step, end.mean, end.high - end.mean, fmt="o", color=color, ms=3)
    plain(ax)
    rule(ax)
    ax.set_ylim(bottom=0)
    ax.tick_params(axis="y", labelsize=SMALL - 1, length=0)
    ax.set_xlabel("evaluations", fontsize=SMALL)
