"""What the report knows about each member of a front: its numbers, its mask, its confusion matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from moevoprune.errors import printable
from moevoprune.fronts.explanation import quality_objective
from moevoprune.fronts.front import Front
from moevoprune.fronts.landmarks import CLOSE, find_landmarks, staircase
from moevoprune.fronts.report.chart import BOX, Scale, draw_chart, make_scale
from moevoprune.fronts.report.heat import HeatView
from moevoprune.fronts.report.masks import MaskGrid, draw_grid, kept_text, mask_grid
from moevoprune.fronts.wording import (
    bare,
    capitalised,
    direction,
    measure_name,
    objective_name,
    short_number,
    unit,
)

__all__ = ["Column", "Confusion", "FrontView", "class_labels", "named_members", "view_front"]

Values = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

MOST_CLASSES = 20
"""Classes up to which a confusion matrix is shown whole."""

_LISTED = 12
# colours of the cells of a confusion matrix with any rows, right and wrong ones
SHADES = 4
# counts of all members and both parts, 64 MB: more take long to make, and nobody would look at them
_MOST_COUNTS = 8_000_000


@dataclass(frozen=True)
class Column:
    """One number of every member, as text; the dense head's is the last."""

    label: str
    texts: tuple[str, ...]
    in_tooltip: bool = True


@dataclass(frozen=True, eq=False)
class Confusion:
    """Confusion matrices of all members on one part of the data.

    Attributes
    ----------
    part
        The rows that are counted.
    n_rows
        Their number; those without a prediction (of a head that diverged) are in no matrix.
    counts
        Rows by true and predicted class, shape (members + 1, classes, classes); the dense head is last.
    """

    part: Literal["test", "validation"]
    n_rows: int
    counts: Counts

    def caption(self, member: int) -> str:
        """How many rows a member has right: "Test rows: 178 of 225 right"."""
        counts = self.counts[member]
        text = f"{self.part.capitalize()} rows: {np.trace(counts):,} of {self.n_rows:,} right"
        missing = self.n_rows - int(counts.sum())
        return f"{text}, {missing:,} without a prediction" if missing else text

    def largest(self, member: int) -> list[tuple[int, int, int]]:
        """The most frequent mistakes: true class, predicted class, rows; the largest first."""
        wrong = self.counts[member].copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:_LISTED]
        pairs = [(int(cell) // len(wrong), int(cell) % len(wrong)) for cell in order]
        return [(true, guess, int(wrong[true, guess])) for true, guess in pairs if wrong[true, guess]]

    def shade(self, member: int, true: int, guess: int) -> str:
        """Name of the shade of a cell: by the share of the true class's rows, right and wrong told apart."""
        row = self.counts[member, true]
        level = -(-int(row[guess]) * SHADES // max(int(row.sum()), 1))
        return f"{'hit' if true == guess else 'miss'}{level}" if level else "none"


@dataclass(frozen=True, eq=False)
class FrontView:
    """A front as the plot and the panel beside it show it.

    Attributes
    ----------
    key
        Starts every identifier in the page.
    front
        The front, with at least one member.
    labels
        "Member 3 (knee)" for each member; the dense head is the last.
    descriptions
        A line of numbers for each.
    columns
        Their numbers.
    scales
        What the axes of the plot can show.
    across, up
        The scales that it starts with.
    knee
        The member that it starts with.
    grid
        The masks.
    classes
        Names of the classes.
    confusions
        Of test and validation rows; empty where they are not known.
    heat
        Heat maps of all members; None where none were made.
    """

    key: str
    front: Front
    labels: tuple[str, ...]
    descriptions: tuple[str, ...]
    columns: tuple[Column, ...]
    scales: tuple[Scale, ...]
    across: int
    up: int
    knee: int
    grid: MaskGrid
    classes: tuple[str, ...]
    confusions: tuple[Confusion, ...]
    heat: HeatView | None = None

    @property
    def whole_matrices(self) -> bool:
        """Whether there are few enough classes for whole matrices, not only the largest mistakes."""
        return len(self.classes) <= MOST_CLASSES

    def chart(self) -> Markup:
        """The plot as it starts."""
        up = self.scales[self.up]
        title = (
            f"{up.label} over {self.scales[self.across].label}: {len(self.front)} members of the front and the "
            "unpruned head. The table of all members below has the same numbers."
        )
        return draw_chart(self.scales[self.across], up, self.descriptions, self.knee, title, self.key)

    def mask_picture(self, group: int) -> Markup:
        """The knee's mask, one group of cells."""
        return draw_grid(self.grid.groups[group], self.grid.part(group)[self.knee], self.grid.summaries[self.knee])

    def mask_text(self, group: int) -> str:
        """Numbers of the cells that the knee keeps of one group."""
        return kept_text(self.grid.part(group)[self.knee])

    def to_data(self) -> dict[str, Any]:
        """As plain values for the page's script."""
        return {
            "key": self.key,
            "labels": list(self.labels),
            "descriptions": list(self.descriptions),
            "columns": [{"label": column.label, "texts": list(column.texts)} for column in self.columns],
            "in_tooltip": [column.in_tooltip for column in self.columns],
            "box": BOX,
            "scales": [scale.to_data() for scale in self.scales],
            "across": self.across,
            "up": self.up,
            "knee": self.knee,
            "mask": self.grid.to_data(),
            "classes": list(self.classes),
            "confusion_shades": SHADES,
            "confusions": [self._confusion_data(confusion) for confusion in self.confusions],
            "heat": None if self.heat is None else self.heat.to_data(),
        }

    def _confusion_data(self, confusion: Confusion) -> dict[str, Any]:
        members = range(len(self.labels))
        return {
            "captions": [confusion.caption(member) for member in members],
            "counts": confusion.counts.reshape(len(members), -1).tolist() if self.whole_matrices else None,
            "largest": None if self.whole_matrices else [confusion.largest(member) for member in members],
        }


def view_front(front: Front, key: str, heat: HeatView | None = None) -> FrontView:
    """Gather what plot and panel show of a front.

    Parameters
    ----------
    front
        With at least one member.
    key
        Starts every identifier in the page.
    heat
        Heat maps of its members.
    """
    columns = _columns(front)
    labels = _labels(front)
    descriptions = tuple(
        f"{label}: {', '.join(f'{column.label} {column.texts[member]}' for column in columns)}"
        for member, label in enumerate(labels)
    )
    scales, up = _scales(front)
    return FrontView(
        key=key,
        front=front,
        labels=labels,
        descriptions=descriptions,
        columns=columns,
        scales=scales,
        across=0,
        up=up,
        knee=front.knee(),
        grid=mask_grid(front),
        classes=class_labels(front),
        confusions=_confusions(front),
        heat=heat,
    )


def named_members(front: Front) -> dict[int, list[str]]:
    """Members worth naming and what they are: knee, smallest within :data:`~moevoprune.fronts.landmarks.CLOSE` of
    the best, best.

    Parameters
    ----------
    front
        With at least one member.
    """
    landmarks = find_landmarks(front)
    roles: dict[int, list[str]] = {}
    for member, role in [
        (landmarks.knee, "knee"),
        (landmarks.close, f"smallest within {bare(str(CLOSE))} of the best"),
        (landmarks.best, f"best {measure_name(landmarks.quality)}"),
    ]:
        roles.setdefault(member, []).append(role)
    return roles


def class_labels(front: Front) -> tuple[str, ...]:
    """Names of the classes, their numbers where they have none; empty in regression."""
    if front.dense_head.task == "regression":
        return ()
    if front.class_names:
        return tuple(printable(name) for name in front.class_names)
    return tuple(str(label) for label in range(front.dense_head.widths[-1]))


def _labels(front: Front) -> tuple[str, ...]:
    roles = named_members(front)
    members = [f"Member {i} ({', '.join(roles[i])})" if i in roles else f"Member {i}" for i in range(len(front))]
    return (*members, "Unpruned (dense) head")


def _with_dense(values: Values, dense: float) -> Values:
    return np.append(values, dense)


def _tests(front: Front) -> list[tuple[str, Values]]:
    """Test measures by name, the dense head's value last."""
    return [
        (front.test_metric, _with_dense(front.test, front.dense_test)),
        *(
            (name, _with_dense(column, front.dense_test_columns[name]))
            for name, column in front.test_columns.items()
        ),
    ]


def _columns(front: Front) -> tuple[Column, ...]:
    sizes = [*front.active.tolist(), front.n_bits]
    heads = [*front.heads, front.dense_head]
    columns = [Column(f"active {unit(front.encoding)}", tuple(f"{size:,}" for size in sizes))]
    for index, axis in enumerate(front.axes):
        values = _with_dense(front.values[:, index], front.dense_values[index])
        columns.append(Column(objective_name(front, axis), tuple(short_number(value) for value in values)))
    for name, values in _tests(front):
        columns.append(Column(f"test {measure_name(name)}", tuple(short_number(value) for value in values)))
    parameters = tuple(f"{head.n_parameters:,}" for head in heads)
    widths = tuple("–".join(str(width) for width in head.widths) for head in heads)
    return (*columns, Column("parameters", parameters, False), Column("widths", widths, False))


def _scales(front: Front) -> tuple[tuple[Scale, ...], int]:
    """Scales for the size, the objectives and the test measures, and the number of the quality objective's."""
    sizes = _with_dense(front.active.astype(np.float64), front.n_bits)
    tests = dict(_tests(front))
    scales = [
        make_scale(f"Active {unit(front.encoding)}", "", sizes, whole=True, may_be_logarithmic=True),
    ]
    up = 1
    quality = quality_objective(front)
    for index, axis in enumerate(front.axes):
        if axis.name == quality:
            up = len(scales)
        is_size = axis.name == "active_neurons"
        name = capitalised(objective_name(front, axis))
        scales.append(
            make_scale(
                name if is_size else f"{name}, validation",
                direction(axis.maximise),
                _with_dense(front.values[:, index], front.dense_values[index]),
                test=tests[axis.name] if axis.name == front.test_metric else None,
                # of sizes every step would be one
                stairs=() if is_size else staircase(front.active, front.F[:, index]).tolist(),
                may_be_logarithmic=is_size,
            )
        )
    for name, values in tests.items():
        down = name in ("ood_fpr95", "mse")
        scales.append(make_scale(f"{capitalised(measure_name(name))}, test", direction(not down), values))
    return tuple(scales), up


def _confusions(front: Front) -> tuple[Confusion, ...]:
    predictions = front.predictions
    if predictions is None or predictions.task == "regression":
        return ()
    n_classes = predictions.validation_outputs.shape[2]
    if 2 * (len(front) + 1) * n_classes**2 > _MOST_COUNTS:
        return ()
    numbers = [*range(len(front)), -1]
    parts: tuple[tuple[Literal["test", "validation"], int], ...] = (
        ("test", len(predictions.test_targets)),
        ("validation", len(predictions.validation_targets)),
    )
    return tuple(
        Confusion(part, n_rows, np.stack([predictions.confusion(i, part, n_classes) for i in numbers]))
        for part, n_rows in parts
    )
