"""The quality of a front's heads over their size."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from moevoprune.fronts.front import Front
from moevoprune.fronts.landmarks import CLOSE, Landmarks, find_landmarks
from moevoprune.fronts.plots.labels import Label, place_labels
from moevoprune.fronts.plots.style import (
    BLACK,
    BLUE,
    DASHED,
    GREY,
    MEDIUM,
    NO_MEMBERS,
    SKY,
    SMALL,
    TOP_LEGEND,
    VERMILLION,
    Values,
    new_axes,
    plain,
    rule,
    say,
    scale_sizes,
)
from moevoprune.fronts.plots.wording import directed
from moevoprune.fronts.wording import bare, counted, short_number, unit

__all__ = ["plot_front"]


def plot_front(front: Front, ax: Axes | None = None) -> Axes:
    """Draw the quality of the heads over their size.

    Filled points are validation values of all members; the staircase joins those that no head of their size or
    smaller beats; hollow points are the same heads on the test rows, where the test metric is the
    objective drawn. Stars are the dense head.

    Parameters
    ----------
    front
        What to draw.
    ax
        Where to draw it; None for a new figure.

    Returns
    -------
    Axes
        What was drawn on.
    """
    ax = new_axes(ax, (7.2, 4.4))
    if len(front) == 0:
        return say(ax, NO_MEMBERS)
    landmarks = find_landmarks(front)
    index, steps, knee = front.objectives.index(landmarks.quality), landmarks.stairs, landmarks.knee
    axis, values, dense = front.axes[index], front.values[:, index], float(front.dense_values[index])
    sizes = front.active.astype(np.float64)

    ax.axhline(dense, color=GREY, linewidth=0.8, linestyle=DASHED, zorder=1)
    ax.plot(
        sizes[steps],
        values[steps],
        drawstyle="steps-post",
        color=BLUE,
        linewidth=1.5,
        marker="o",
        markersize=5.5,
        markeredgewidth=0,
        zorder=4,
        label="best for its size",
    )
    ax.scatter(sizes, values, s=16, color=SKY, linewidths=0, zorder=3, label="validation")
    if axis.name == front.test_metric:
        ax.scatter(
            sizes,
            front.test,
            s=20,
            marker="o",
            facecolors="none",
            edgecolors=VERMILLION,
            linewidths=0.8,
            alpha=0.75,
            zorder=2,
            label="test",
        )
    ax.scatter([front.n_bits], [dense], s=130, marker="*", color=BLACK, zorder=6, label="dense, validation")
    if axis.name == front.test_metric:
        ax.scatter(
            [front.n_bits],
            [front.dense_test],
            s=150,
            marker="*",
            facecolors="none",
            edgecolors=VERMILLION,
            linewidths=1.0,
            zorder=7,
            label="dense, test",
        )
    ax.scatter(
        sizes[[knee]],
        values[[knee]],
        s=95,
        facecolors="none",
        edgecolors=BLACK,
        linewidths=1.3,
        zorder=5,
        label="knee",
    )
    scale_sizes(ax, np.append(sizes, front.n_bits))
    ax.margins(x=0.07, y=0.06)
    ax.set_xlabel(f"active {unit(front.encoding)}", fontsize=MEDIUM)
    ax.set_ylabel(directed(front, axis), fontsize=MEDIUM)
    plain(ax)
    rule(ax)
    ax.legend(ncols=6, **TOP_LEGEND)
    points = np.column_stack([sizes, values])
    shown = np.concatenate([points, [[front.n_bits, dense]]])
    if axis.name == front.test_metric:
        tests = np.column_stack([np.append(sizes, front.n_bits), np.append(front.test, front.dense_test)])
        shown = np.concatenate([shown, tests[np.isfinite(tests).all(axis=1)]])
    # room for labels above the stairs
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.2 * (high - low))
    place_labels(ax, _labels(front, landmarks, values, dense), shown, _corners(points[steps]), dense, SMALL)
    return ax


def _corners(points: Values) -> Values:
    """Vertices of the staircase through points, shape (2 n - 1, 2)."""
    corners = np.repeat(points, 2, axis=0)[1:]
    corners[::2, 0], corners[1::2] = points[:, 0], np.column_stack([points[1:, 0], points[:-1, 1]])
    return corners


def _labels(front: Front, landmarks: Landmarks, values: Values, dense: float) -> list[Label]:
    """Labels of the members worth naming, the most important first; one member has one label."""
    roles: dict[int, list[str]] = {}
    for member, role in [
        (landmarks.knee, "knee"),
        # the best is within anything of the best
        *([(landmarks.close, f"within {bare(str(CLOSE))} of best")] if landmarks.close != landmarks.best else []),
        (landmarks.best, "best"),
        (landmarks.smallest, "smallest"),
    ]:
        roles.setdefault(member, []).append(role)
    labels = [
        Label(
            f"{', '.join(words)}: {counted(front, int(front.active[member]))}, {short_number(values[member])}",
            float(front.active[member]),
            float(values[member]),
        )
        for member, words in roles.items()
    ]
    text = f"dense: {counted(front, front.n_bits)}, {short_number(dense)}"
    return [*labels, Label(text, float(front.n_bits), dense)]
