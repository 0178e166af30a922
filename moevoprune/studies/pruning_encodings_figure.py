"""Figure of evolved heads in several encodings: how much more accurate than the dense head, and how large."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from moevoprune.fronts.plots.style import (
    BLACK,
    BLUE,
    DASHED,
    GREEN,
    GREY,
    MEDIUM,
    ORANGE,
    PURPLE,
    RULE,
    SKY,
    SMALL,
    VERMILLION,
    new_figure,
    plain,
    plain_text,
    rule,
)
from moevoprune.fronts.statistics import interval
from moevoprune.studies.pruning_encodings import Cell, Cells
from moevoprune.studies.pruning_encodings_claims import LARGEST_SHARE, MARGIN
from moevoprune.studies.published_leaves import PUBLISHED, is_leaves

__all__ = ["plot_pruning_encodings"]

_COLORS = {
    "1 layer": BLUE,
    "FC1": SKY,
    "FC2": GREEN,
    "both layers": PURPLE,
    "FS": VERMILLION,
    "connections": ORANGE,
}
# marker, whether it is filled, and what it stands for
_SEARCHES = {"evolved": ("o", True, "GA's winner"), "same": ("s", False, "front, same validation accuracy")}


def plot_pruning_encodings(cells: Cells) -> Axes:
    """Draw test accuracy less the dense head's over the share of active bits, a panel per data set.

    With 95 % intervals over the seeds, the region of the published pattern, and on leaves the published heads.

    Parameters
    ----------
    cells
        By data set and encoding, of :data:`moevoprune.studies.published_leaves.PUBLISHED` or some of them.

    Returns
    -------
    Axes
        The first panel.
    """
    columns = min(len(cells), 3)
    rows = -(-len(cells) // columns)
    figure = new_figure((max(3.5 * columns, 6.5), 3.4 * rows + 0.9))
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for panel, (name, of) in zip(panels, cells.items(), strict=False):
        _draw_panel(panel, name, of)
    # all panels have one scale: drawn last, as tall as what is there
    low, high = panels[0].get_ylim()
    for panel in panels[: len(cells)]:
        panel.fill_between([0, LARGEST_SHARE], -MARGIN, high, color=RULE, linewidth=0, zorder=0)
        panel.set_ylim(low, high)
    for panel in panels[len(cells) :]:
        panel.set_visible(False)
    panels[0].set_ylabel("test accuracy less the dense head's", fontsize=MEDIUM)
    handles = _handles(next(iter(cells.values())), with_published=any(map(is_leaves, cells)))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=SMALL)
    first: Axes = panels[0]
    return first


def _draw_panel(panel: Axes, name: str, of: Mapping[str, Cell]) -> None:
    panel.axhline(0, color=BLACK, linewidth=1.0, linestyle=DASHED, zorder=1)
    for encoding, cell in of.items():
        color = _COLORS[encoding]
        for what, (marker, filled, _) in _SEARCHES.items():
            over = interval(cell.heads[what].accuracy - cell.heads["dense"].accuracy)
            bars = None if np.isnan(over.low) else over.high - over.mean
            share = float(cell.heads[what].share.mean())
            fill = color if filled else "white"
            panel.errorbar(share, over.mean, bars, fmt=marker, color=color, markerfacecolor=fill, elinewidth=0.9)
        if is_leaves(name):
            published = PUBLISHED[encoding]
            panel.plot(published.active / 100, published.accuracy - published.dense, "x", color=color)
    panel.set_xlim(-0.02, 1)
    panel.set_title(plain_text(name), fontsize=MEDIUM)
    panel.set_xlabel("active bits", fontsize=MEDIUM)
    panel.xaxis.set_major_formatter(PercentFormatter(1))
    plain(panel)
    rule(panel)


def _handles(encodings: Iterable[str], with_published: bool) -> list[Any]:
    """What the legend explains."""
    handles: list[Any] = [Line2D([], [], color=_COLORS[name], linewidth=5, label=name) for name in encodings]
    unlined: dict[str, Any] = {"color": GREY, "linewidth": 0}
    for marker, filled, label in _SEARCHES.values():
        fill = GREY if filled else "white"
        handles.append(Line2D([], [], marker=marker, markerfacecolor=fill, label=label, **unlined))
    if with_published:
        handles.append(Line2D([], [], marker="x", label="published, LEAVES", **unlined))
    return [*handles, Patch(color=RULE, label="published pattern")]
