"""What runs of several seeds attain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from moevoprune.fronts.plots.style import (
    BLUE,
    DASHED,
    GREEN,
    MEDIUM,
    ORANGE,
    PURPLE,
    TOP_LEGEND,
    VERMILLION,
    new_axes,
    plain,
    plain_text,
    rule,
    say,
    scale_sizes,
)
from moevoprune.fronts.seeds import Attainment
from moevoprune.fronts.wording import direction, unit

__all__ = ["plot_attainment"]

_COLORS = {"validation": BLUE, "test": VERMILLION}
_OTHERS = (GREEN, PURPLE, ORANGE)


def plot_attainment(attainments: Attainment | Sequence[Attainment], ax: Axes | None = None) -> Axes:
    """Draw attainment surfaces: the quality that one, half and all of several runs reach at each size.

    The thick staircase is the median surface, the band reaches from the worst to the best; where a band is narrow,
    the runs agree. A dotted level is the mean of the dense heads.

    Parameters
    ----------
    attainments
        What to draw, e.g. both parts that :func:`moevoprune.fronts.seeds.front_attainment` gives. Drawn together
        are those of the first one's measure.
    ax
        Where to draw them; None for a new figure.

    Returns
    -------
    Axes
        What was drawn on.
    """
    ax = new_axes(ax, (7.2, 4.4))
    given = [attainments] if isinstance(attainments, Attainment) else list(attainments)
    if not given or not any(len(one.sizes) for one in given):
        return say(ax, "no runs:\nthere is nothing to draw")
    first = given[0]
    shown = [one for one in given if one.measure == first.measure]
    spare = iter(_OTHERS * len(shown))
    for number, one in enumerate(shown):
        color = _COLORS.get(one.part) or next(spare)
        _draw(ax, one, color, 2 + 3 * number)
    scale_sizes(ax, np.concatenate([one.sizes for one in shown]).astype(np.float64))
    ax.margins(x=0.03, y=0.06)
    plain(ax)
    rule(ax)
    ax.set_xlabel(f"active {unit(first.encoding)}, at most", fontsize=MEDIUM)
    name = plain_text(first.measure.replace("_", " "), 30)
    ax.set_ylabel(f"{name} ({direction(first.maximise)})", fontsize=MEDIUM)
    # a row per part: legends are filled column by column
    handles, labels = ax.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: labels[i].partition(": ")[2])
    ax.legend([handles[i] for i in order], [labels[i] for i in order], ncols=3, **TOP_LEGEND)
    return ax


def _draw(ax: Axes, one: Attainment, color: str, depth: int) -> None:
    part = plain_text(one.part, 30)
    band: dict[str, Any] = {"step": "post", "color": color, "linewidth": 0}
    ax.fill_between(
        one.sizes,
        one.worst,
        one.best,
        alpha=0.22,
        zorder=depth,
        label=f"{part}: best to worst of {one.n_runs} runs",
        **band,
    )
    for edge in (one.best, one.worst):
        ax.plot(one.sizes, edge, drawstyle="steps-post", color=color, linewidth=0.7, alpha=0.7, zorder=depth)
    ax.plot(
        one.sizes,
        one.median,
        drawstyle="steps-post",
        color=color,
        linewidth=2.2,
        zorder=depth + 1,
        label=f"{part}: median",
    )
    if np.isfinite(one.dense):
        ax.axhline(one.dense, color=color, linewidth=1.0, linestyle=DASHED, zorder=1, label=f"{part}: dense head")
