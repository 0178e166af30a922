"""Labels near points of a figure, placed so that they are in nobody's way."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from moevoprune.fronts.plots.style import any_letters

__all__ = ["Label", "place_labels"]

Values = npt.NDArray[np.float64]

_BEAM = 1000


@dataclass(frozen=True)
class Label:
    """Text to put near a point."""

    text: str
    x: float
    y: float


def place_labels(
    ax: Axes, labels: Sequence[Label], points: Values, line: Values, level: float, size: float
) -> None:
    """Annotate points so that labels cover neither each other nor, where there is room, points and lines.

    Parameters
    ----------
    ax
        Axes that everything else is drawn on already.
    labels
        The labels, the most important first.
    points
        Points to keep clear of, data coordinates, shape (n, 2).
    line
        Corners of a line to keep clear of, data coordinates, shape (n, 2).
    level
        Height of a horizontal line to keep clear of.
    size
        Font size in points.
    """
    figure: Any = ax.figure
    # the layout has to be settled: places are tried in pixels
    with any_letters():
        figure.figure.draw_without_rendering()
    pixel = figure.figure.dpi / 72.0
    to_pixels = ax.transData.transform
    reference = to_pixels([[x, level] for x in ax.get_xlim()])
    obstacles = np.concatenate(
        [to_pixels(points), _sample(to_pixels(line), 4 * pixel), _sample(reference, 12 * pixel)]
    )
    anchors = to_pixels(np.array([[label.x, label.y] for label in labels]))
    offers = [
        _offers(anchor, _extent(ax, label.text, size), obstacles, anchors, ax.bbox, pixel)
        for label, anchor in zip(labels, anchors, strict=True)
    ]
    places = _choose(offers, 2.0 * pixel)
    for i, label in enumerate(labels):
        anchor, chosen = anchors[i], places[i]
        ax.annotate(
            label.text,
            (label.x, label.y),
            xytext=((chosen.left - anchor[0]) / pixel, (chosen.low - anchor[1]) / pixel),
            textcoords="offset points",
            ha="left",
            va="bottom",
            fontsize=size,
            color="#222222",
            zorder=8,
            arrowprops={
                "arrowstyle": "-",
                "color": "#7A7A7A",
                "linewidth": 0.7,
                "shrinkA": 0,
                "shrinkB": 3,
                "relpos": chosen.grip,
            },
        )


@dataclass(frozen=True, eq=False)
class _Place:
    """Where a label could go, in pixels: a box and the line that leads to its point."""

    left: float
    low: float
    width: float
    height: float
    leader: Values

    @classmethod
    def near(cls, anchor: Values, size: tuple[float, float], radius: float, angle: float) -> _Place:
        width, height = size
        across, along = math.cos(angle), math.sin(angle)
        # the whole text lies beyond the tip of the offset
        left = float(anchor[0]) + across * radius - width * (1 - across) / 2
        low = float(anchor[1]) + along * radius - height * (1 - along) / 2
        tip = np.clip(anchor, [left, low], [left + width, low + height])
        return cls(left, low, width, height, anchor + (tip - anchor) * np.linspace(0, 1, 12)[:, None])

    @property
    def grip(self) -> tuple[float, float]:
        """Where on the box the leader ends, as shares of its width and height."""
        x, y = self.leader[-1]
        return float((x - self.left) / self.width), float((y - self.low) / self.height)

    def holds(self, points: Values, pad: float) -> int:
        """Count the points inside the padded box."""
        x, y = points[:, 0] - self.left, points[:, 1] - self.low
        inside = (x > -pad) & (x < self.width + pad) & (y > -pad) & (y < self.height + pad)
        return int(inside.sum())

    def passes(self, points: Values, reach: float) -> int:
        """Count the points that the leader comes near to on its way, its own surroundings left out."""
        start, way = self.leader[0], self.leader[-1] - self.leader[0]
        length = float(np.hypot(*way))
        if length == 0.0:
            return 0
        along = (points - start) @ (way / length)
        aside = (points - start) @ (np.array([-way[1], way[0]]) / length)
        return int(((along > 3 * reach) & (along < length) & (np.abs(aside) < reach)).sum())

    def overlaps(self, other: _Place, pad: float) -> bool:
        """Whether two boxes come nearer than the padding."""
        return (
            self.left < other.left + other.width + pad
            and other.left < self.left + self.width + pad
            and self.low < other.low + other.height + pad
            and other.low < self.low + self.height + pad
        )


def _offers(
    anchor: Values, size: tuple[float, float], obstacles: Values, anchors: Values, box: Any, pixel: float
) -> list[tuple[float, _Place]]:
    """Costs and places for one label: the best few in each of eight directions."""
    offers = []
    for sector in range(0, 360, 45):
        found = []
        for degrees in (sector, sector + 15, sector + 30):
            for radius in (9.0, 14.0, 20.0, 28.0, 38.0, 50.0, 64.0, 80.0, 100.0, 125.0):
                place = _Place.near(anchor, size, radius * pixel, math.radians(degrees))
                cost = 0.4 * radius + 15.0 * place.holds(obstacles, 4 * pixel) + 60.0 * place.holds(anchors, pixel)
                cost += 2.5 * place.passes(obstacles, 3 * pixel)
                right, high = place.left + place.width, place.low + place.height
                if place.left < box.x0 or place.low < box.y0 or right > box.x1 or high > box.y1:
                    cost += 1e4
                # rounded, so that noise in the last digit does not choose between equals
                found.append((round(cost, 3), place))
        offers += sorted(found, key=lambda offer: offer[0])[:4]
    return offers


def _choose(offers: Sequence[Sequence[tuple[float, _Place]]], pad: float) -> list[_Place]:
    """Choose one of its offered places for every label, together the cheapest, by beam search."""
    alone = [np.array([cost for cost, _ in offer]) for offer in offers]
    # one row per partial choice, best first
    chosen, totals = np.zeros((1, 0), dtype=np.int64), np.zeros(1)
    for i, offer in enumerate(offers):
        costs = totals[:, None] + alone[i]
        for j in range(i):
            clashes = np.array([[_clash(a, b, pad) for _, b in offer] for _, a in offers[j]])
            costs = costs + clashes[chosen[:, j]]
        kept = np.argsort(costs, axis=None, kind="stable")[:_BEAM]
        rows, columns = np.unravel_index(kept, costs.shape)
        chosen, totals = np.column_stack([chosen[rows], columns]), costs[rows, columns]
    return [offers[i][place][1] for i, place in enumerate(chosen[0])]


def _clash(one: _Place, other: _Place, pad: float) -> float:
    """How badly two labels and their leaders are in each other's way."""
    if one.overlaps(other, pad):
        return 1e3
    through = other.holds(one.leader, pad) or one.holds(other.leader, pad)
    return 200.0 * bool(through) + 100.0 * _cross(one.leader, other.leader)


def _cross(one: Values, other: Values) -> bool:
    """Whether two straight leaders cross, by the sides on which their ends lie."""
    (a, b), (c, d) = one[[0, -1]], other[[0, -1]]

    def side(p: Values, q: Values, r: Values) -> float:
        return float((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]))

    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0


def _sample(line: Values, step: float) -> Values:
    """Points along a polyline, at most ``step`` apart."""
    pieces = [line[:1]]
    for start, stop in itertools.pairwise(line):
        n = max(int(np.hypot(*(stop - start)) / step), 1)
        pieces.append(start + (stop - start) * np.linspace(0, 1, n + 1)[1:, None])
    return np.concatenate(pieces)


def _extent(ax: Axes, text: str, size: float) -> tuple[float, float]:
    """Width and height of a label in pixels."""
    probe = ax.text(0.0, 0.0, text, fontsize=size, transform=None)
    box = probe.get_window_extent()
    probe.remove()
    return float(box.width), float(box.height)
