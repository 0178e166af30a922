"""The front as an inline SVG: a picture as it stands, and what the page's script moves about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.ticker import LogLocator, MaxNLocator

from moevoprune.fronts.wording import bare

__all__ = ["BOX", "SIZE", "Scale", "draw_chart", "make_scale", "place_values"]

Values = npt.NDArray[np.float64]
Places = list[float | None]

# user units of the SVG: the whole picture, and in it left, top, width and height of the box of the points
SIZE = (640, 400)
BOX = (60, 34, 562, 312)
_PADDING = 0.04
_TICKS = 6
_STAR = Markup('<path d="M0-9 2.4-3.2 8.6-2.8 3.8 1.2 5.3 7.3 0 4-5.3 7.3-3.8 1.2-8.6-2.8-2.4-3.2Z"/>')
_DISC = Markup('<circle r="4.2"/>')


@dataclass(frozen=True, eq=False)
class Scale:
    """One axis that the plot can have.

    Attributes
    ----------
    label
        What is on it.
    hint
        Which way is better, or "".
    places
        Where the members and, last, the dense head are on it, 0 to 1; None where a value is not finite.
    ticks
        Places of ticks and their labels.
    test
        The same for their test scores, where these share the axis.
    stairs
        Members that no member of their size or smaller beats on this axis, smallest first; empty where that says
        nothing.
    """

    label: str
    hint: str
    places: Places
    ticks: list[tuple[float, str]]
    test: Places | None = None
    stairs: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        """What stands at the axis: label and hint."""
        return f"{self.label} ({self.hint})" if self.hint else self.label

    def to_data(self) -> dict[str, Any]:
        """As plain values for the page's script."""
        return {
            "label": self.label,
            "title": self.title,
            "places": self.places,
            "ticks": self.ticks,
            "test": self.test,
            "stairs": list(self.stairs),
        }


def make_scale(
    label: str,
    hint: str,
    values: Values,
    *,
    test: Values | None = None,
    stairs: Sequence[int] = (),
    whole: bool = False,
    may_be_logarithmic: bool = False,
) -> Scale:
    """Lay out one axis.

    Parameters
    ----------
    label, hint
        See :class:`Scale`.
    values
        Of the members and, last, of the dense head, shape (members + 1,).
    test
        Their test scores, to be shown on the same axis.
    stairs
        See :class:`Scale`.
    whole
        Whether the values are counts.
    may_be_logarithmic
        Whether a logarithmic axis makes sense; it is one where the values are positive and span a decade.
    """
    everything = values if test is None else np.concatenate([values, test])
    finite = everything[np.isfinite(everything)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    logarithmic = may_be_logarithmic and low > 0 and high > 10 * low
    if logarithmic:
        marks = LogLocator(10, subs=(1.0, 2.0, 5.0) if high < 10**3.5 * low else (1.0,)).tick_values(low, high)
        low, high = np.log10(low), np.log10(high)
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        # all the same: in the middle
        margin = max(abs(low) * 0.1, 0.5)
    else:
        margin = _PADDING * (high - low)
    low, high = low - margin, high + margin
    if not logarithmic:
        marks = MaxNLocator(_TICKS, integer=whole).tick_values(low, high)
    positions = place_values(np.asarray(marks, dtype=np.float64), low, high, logarithmic)
    return Scale(
        label=label,
        hint=hint,
        places=place_values(values, low, high, logarithmic),
        ticks=[
            (place, _tick_label(float(mark), whole))
            for place, mark in zip(positions, marks, strict=True)
            if place is not None and 0 <= place <= 1
        ],
        test=None if test is None else place_values(test, low, high, logarithmic),
        stairs=tuple(int(member) for member in stairs),
    )


def place_values(values: Values, low: float, high: float, logarithmic: bool) -> Places:
    """Where values are between the ends of an axis, 0 to 1; None where they are not finite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        along = (np.log10(values) if logarithmic else values) - low
    return [round(float(place), 4) if np.isfinite(place) else None for place in along / (high - low)]


def draw_chart(
    across: Scale, up: Scale, descriptions: Sequence[str], knee: int, title: str, identifier: str
) -> Markup:
    """Draw the members over two axes.

    Parameters
    ----------
    across, up
        The axes.
    descriptions
        One line about each member and, last, about the dense head; what a pointer or a screen reader is told.
    knee
        The member with a ring around it.
    title
        What the picture shows, for those who do not see it.
    identifier
        Unique in the page.

    Returns
    -------
    Markup
        An ``<svg>`` element.
    """
    left, top, width, height = BOX
    points = [_point(x, y) for x, y in zip(across.places, up.places, strict=True)]
    dense = len(points) - 1
    parts = [
        Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-labelledby="{}-title">').format(
            *SIZE, identifier
        ),
        Markup('<title id="{}-title">{}</title>').format(identifier, title),
        Markup('<g class="ticks across" aria-hidden="true">{}</g>').format(
            Markup("").join(
                Markup('<line x1="{0}" x2="{0}" y1="{1}" y2="{2}"/><text x="{0}" y="{3}">{4}</text>').format(
                    _coordinate(left + place * width), top, top + height, top + height + 22, label
                )
                for place, label in across.ticks
            )
        ),
        Markup('<g class="ticks up" aria-hidden="true">{}</g>').format(
            Markup("").join(
                Markup('<line x1="{0}" x2="{1}" y1="{2}" y2="{2}"/><text x="{3}" y="{2}">{4}</text>').format(
                    left, left + width, _coordinate(top + (1 - place) * height), left - 8, label
                )
                for place, label in up.ticks
            )
        ),
        Markup('<text class="axis across" x="{}" y="{}">{}</text>').format(
            left + width, SIZE[1] - 8, across.title
        ),
        Markup('<text class="axis up" x="{}" y="{}">{}</text>').format(8, 18, up.title),
    ]
    level = points[dense]
    if level is not None:
        parts.append(
            Markup('<line class="level" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>').format(
                left, left + width, level[1]
            )
        )
    parts.append(Markup('<path class="stairs" d="{}"/>').format(_stairs([points[i] for i in up.stairs])))
    if up.test is not None:
        circles = [
            Markup('<circle class="test" r="3.4"{}/>').format(_at(_point(x, y)))
            for x, y in zip(across.places, up.test, strict=True)
        ]
        parts.append(Markup('<g class="tests" aria-hidden="true">{}</g>').format(Markup("").join(circles)))
    parts.append(Markup('<circle class="ring" r="10"{}/>').format(_at(points[knee])))
    parts.append(Markup('<g class="points">'))
    on_stairs = set(up.stairs)
    for member, (point, description) in enumerate(zip(points, descriptions, strict=True)):
        kind = "dense" if member == dense else "stair" if member in on_stairs else "other"
        parts.append(
            Markup('<g class="point {}" data-member="{}"{}><title>{}</title>{}</g>').format(
                kind, member, _at(point), description, _STAR if member == dense else _DISC
            )
        )
    parts.append(Markup("</g></svg>"))
    return Markup("").join(parts)


def _point(x: float | None, y: float | None) -> tuple[str, str] | None:
    if x is None or y is None:
        return None
    left, top, width, height = BOX
    return _coordinate(left + x * width), _coordinate(top + (1 - y) * height)


def _at(point: tuple[str, str] | None) -> Markup:
    """Attribute that puts an element somewhere, or hides it where it has no place."""
    return Markup(' display="none"') if point is None else Markup(' transform="translate({} {})"').format(*point)


def _stairs(points: Sequence[tuple[str, str] | None]) -> str:
    steps = [point for point in points if point is not None]
    return "".join(f"H{x}V{y}" if number else f"M{x} {y}" for number, (x, y) in enumerate(steps))


def _coordinate(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _tick_label(value: float, whole: bool) -> str:
    if whole:
        return f"{value:,.0f}"
    return bare(f"{value:,.6g}") if value else "0"
