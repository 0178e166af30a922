"""Which features a front's heads read, how often, and how much depends on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError
from moevoprune.fronts.front import Front
from moevoprune.fronts.tables import csv_text
from moevoprune.heads.encodings import HeadShape, make_encoding
from moevoprune.heads.head import TrainedHead

__all__ = [
    "Explanation",
    "UnitFrequency",
    "explain_front",
    "feature_frequency",
    "feature_importance",
    "feature_weight",
    "quality_objective",
    "unit_frequency",
]

Values = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

# values of the hidden layer held at a time: 4 MB, which a core's cache can hold
_CHUNK = 2**20


@dataclass(frozen=True, eq=False)
class UnitFrequency:
    """How often each prunable hidden unit is active over a front.

    Attributes
    ----------
    layers, units
        Hidden layer and place in it, both from 0, shape (n,).
    members
        Members in which the unit is active, shape (n,).
    """

    layers: Indices
    units: Indices
    members: Indices

    def order(self) -> Indices:
        """Units, the most often active first; of equals the first one, shape (n,)."""
        return np.argsort(-self.members, kind="stable")


@dataclass(frozen=True, eq=False)
class Explanation:
    """What the heads of a front read.

    Attributes
    ----------
    encoding
        Name of the front's encoding.
    n_members
        Members of the front.
    quality
        The objective that ``mean_quality`` is about.
    members
        Members that read each feature, shape (n_features,).
    weight
        Relative weight, see :func:`feature_weight`, shape (n_features,).
    importance
        See :func:`feature_importance`, shape (n_features,); None where there were no rows to measure it on.
    mean_quality
        Its mean over the members that read a feature, NaN where none does; shape (n_features,).
    units
        Frequency of the hidden units; None where the encoding does not prune units.
    prunes_features
        Whether the encoding prunes features; otherwise every member reads every one.
    """

    encoding: str
    n_members: int
    quality: str
    members: Indices
    weight: Values
    importance: Values | None
    mean_quality: Values
    units: UnitFrequency | None
    prunes_features: bool

    @property
    def frequency(self) -> Values:
        """Share of the members that read each feature, shape (n_features,)."""
        frequency: Values = self.members / self.n_members
        return frequency

    @property
    def strength(self) -> Values:
        """Importance where it was measured, else the relative weight, shape (n_features,)."""
        return self.weight if self.importance is None else self.importance

    @property
    def strength_name(self) -> str:
        """What :attr:`strength` is called."""
        return "relative weight" if self.importance is None else "importance"

    def order(self) -> Indices:
        """Features, the most frequent first; of equals the strongest, then the first one, shape (n_features,)."""
        return np.lexsort((-self.strength, -self.members))

    def top(self, count: int) -> Indices:
        """The most frequent features that some member reads, at most so many."""
        order = self.order()[:count]
        return order[self.members[order] > 0]

    def to_rows(self) -> list[dict[str, Any]]:
        """One plain dictionary per feature, in :meth:`order`; None where there is nothing to say."""
        frequency = self.frequency
        rows = []
        for feature in self.order().tolist():
            row: dict[str, Any] = {
                "feature": feature,
                "frequency": float(frequency[feature]),
                "members": int(self.members[feature]),
            }
            if self.importance is not None:
                row["importance"] = float(self.importance[feature])
            row["relative_weight"] = float(self.weight[feature])
            mean = float(self.mean_quality[feature])
            row[f"mean_{self.quality}"] = mean if np.isfinite(mean) else None
            rows.append(row)
        return rows

    def to_csv(self) -> str:
        """Return the rows as CSV text, numbers to six digits after the point."""
        return _csv(self.to_rows())

    def units_csv(self) -> str:
        """Return a row per prunable hidden unit as CSV text, the most frequent first, layers and units from 0.

        Raises
        ------
        InputError
            The encoding does not prune units.
        """
        if self.units is None:
            raise InputError(
                f"the encoding {self.encoding!r} does not prune hidden units: see to_csv for features"
            )
        units = self.units
        return _csv(
            [
                {
                    "layer": int(units.layers[i]),
                    "unit": int(units.units[i]),
                    "frequency": float(units.members[i] / self.n_members),
                    "members": int(units.members[i]),
                }
                for i in units.order()
            ]
        )


def explain_front(front: Front, rows: npt.NDArray[np.floating] | None = None) -> Explanation:
    """Count and weigh the features that the heads of a front read.

    Parameters
    ----------
    front
        One run's front, or several merged by :meth:`Front.merge`.
    rows
        Features to measure the importance on, as the backbone gives them, shape (n, n_features); None to leave the
        importance out.

    Raises
    ------
    InputError
        The front has no members, or the rows have another width.
    """
    _check(front)
    members = _readers(front)
    quality = quality_objective(front)
    total = np.zeros(len(members))
    for head, value in zip(front.heads, front.column(quality), strict=True):
        total[head.inputs] += value
    none = np.zeros(front.n_bits, dtype=np.bool_)
    return Explanation(
        encoding=front.encoding,
        n_members=len(front),
        quality=quality,
        members=members,
        weight=feature_weight(front),
        importance=None if rows is None else feature_importance(front, rows),
        mean_quality=np.divide(total, members, out=np.full_like(total, np.nan), where=members > 0),
        units=unit_frequency(front),
        prunes_features=len(make_encoding(front.encoding, _shape(front)).decode(none).inputs) == 0,
    )


def quality_objective(front: Front) -> str:
    """Name of the objective that says how good a head is: the test metric's where it is one, else the first."""
    if front.test_metric in front.objectives:
        return front.test_metric
    return next((name for name in front.objectives if name != "active_neurons"), front.objectives[0])


def feature_frequency(front: Front) -> Values:
    """Share of the members whose head reads each feature, shape (n_features,).

    Where the encoding prunes hidden units alone, every head reads every feature: see :func:`unit_frequency`.

    Raises
    ------
    InputError
        The front has no members.
    """
    _check(front)
    frequency: Values = _readers(front) / len(front)
    return frequency


def unit_frequency(front: Front) -> UnitFrequency | None:
    """Count the members in which each hidden unit is active; None where the encoding does not prune units.

    Raises
    ------
    InputError
        The front has no members.
    """
    _check(front)
    shape = _shape(front)
    encoding = make_encoding(front.encoding, shape)
    left = encoding.decode(np.zeros(front.n_bits, dtype=np.bool_)).hidden
    # a layer without bits of its own is left whole by a mask without any
    pruned = [layer for layer, units in enumerate(left) if len(units) < shape.hidden[layer]]
    if not pruned:
        return None
    counts = [np.zeros(width, dtype=np.int64) for width in shape.hidden]
    for mask in front.masks:
        for layer, units in enumerate(encoding.decode(mask).hidden):
            counts[layer][units] += 1
    return UnitFrequency(
        layers=np.concatenate([np.full(shape.hidden[layer], layer, dtype=np.int64) for layer in pruned]),
        units=np.concatenate([np.arange(shape.hidden[layer], dtype=np.int64) for layer in pruned]),
        members=np.concatenate([counts[layer] for layer in pruned]),
    )


def feature_weight(front: Front) -> Values:
    """Weigh the features by the weights that they enter the heads with.

    In one head a feature's relative weight is the Euclidean norm of its weights into the first layer, divided by
    the mean of these norms over the features that the head reads: 1 is an average feature of the head, whatever
    the head's size. Norms can be compared where heads standardise their features, as they do by default; those of
    other heads are in the features' own units. It needs no data, but says
    nothing of what the layers above make of a feature; :func:`feature_importance` does.

    Parameters
    ----------
    front
        The front.

    Returns
    -------
    ndarray, shape (n_features,)
        Means over the members that read a feature; 0 where none does. Diverged heads do not count.

    Raises
    ------
    InputError
        The front has no members.
    """
    _check(front)

    def weigh(head: TrainedHead) -> Values:
        norms: Values = np.sqrt((head.weights[0].astype(np.float64) ** 2).sum(axis=1))
        mean = norms.mean() if len(norms) else 0.0
        # a layer of zeros weighs nothing, it is not a mistake to warn of
        return norms / mean if mean != 0.0 else norms

    return _mean_over_readers(front, weigh)


def feature_importance(front: Front, rows: npt.NDArray[np.floating]) -> Values:
    """Measure how far the heads' predictions depend on each feature.

    A feature is replaced by its mean over the training rows, for all rows at once and one feature at a time. Its
    importance to a head is the mean absolute change of the probability of the class that the head predicts from
    the untouched row; in regression, the mean absolute change of the standardised predictions. (Occlusion, Zeiler
    and Fergus, arXiv 1311.2901, of features in place of pixels.)

    Parameters
    ----------
    front
        The front.
    rows
        Features as the backbone gives them, at least one row, shape (n, n_features).

    Returns
    -------
    ndarray, shape (n_features,)
        Means over the members that read a feature; 0 where none does. Diverged heads do not count.

    Raises
    ------
    InputError
        The front has no members, or the rows have another width.
    """
    _check(front)
    rows = np.asarray(rows)
    n_features = front.dense_head.n_features
    if rows.ndim != 2 or rows.shape[1] != n_features or len(rows) == 0:
        raise InputError(
            f"the rows have shape {rows.shape}, but the front's heads read rows of {n_features} features: "
            "take them from the same backbone"
        )
    return _mean_over_readers(front, lambda head: _occlude(head, rows))


def _check(front: Front) -> None:
    if len(front) == 0:
        raise InputError("the front has no members, so there is nothing to explain")


def _shape(front: Front) -> HeadShape:
    n_features, *hidden, n_outputs = front.dense_head.widths
    return HeadShape(n_features, tuple(hidden), n_outputs)


def _readers(front: Front) -> Indices:
    counts = np.zeros(front.dense_head.n_features, dtype=np.int64)
    for head in front.heads:
        counts[head.inputs] += 1
    return counts


def _mean_over_readers(front: Front, measure: Any) -> Values:
    """Mean of a measure (a head to one value per input) over the members that read a feature."""
    total = np.zeros(front.dense_head.n_features)
    counts = np.zeros(front.dense_head.n_features, dtype=np.int64)
    for head in front.heads:
        with np.errstate(over="ignore", invalid="ignore"):
            values = measure(head)
        if np.isfinite(values).all():
            total[head.inputs] += values
            counts[head.inputs] += 1
    means: Values = total / np.maximum(counts, 1)
    return means


def _occlude(head: TrainedHead, rows: npt.NDArray[np.floating]) -> Values:
    """Importance of the inputs of one head, shape (inputs,).

    With input j at its mean the first layer gives Z - (z_j - mean z_j) w_j, z being the rows as it reads them. So
    no product over all inputs is done again.
    """
    standard = head.prepare(rows)
    centred: Floats = standard - standard.mean(axis=0)
    weights, bias = head.weights[0], head.biases[0]
    first = standard @ weights if bias is None else standard @ weights + bias
    untouched = _upwards(head, first)
    if not np.isfinite(untouched).all():
        return np.full(len(head.inputs), np.nan)
    changes = np.zeros(len(head.inputs))
    step = max(1, _CHUNK // max(first.size, untouched.size, 1))
    for start in range(0, len(changes), step):
        part = slice(start, start + step)
        without = first - centred.T[part, :, None] * weights[part, None, :]
        outputs = _upwards(head, without.reshape(-1, first.shape[1])).reshape(-1, *untouched.shape)
        if head.task == "classification":
            classes = untouched.argmax(axis=1)[:, None]
            before = np.take_along_axis(_softmax(untouched), classes, axis=1)
            after = np.take_along_axis(_softmax(outputs), classes[None], axis=2)
            changes[part] = np.abs(after - before).mean(axis=(1, 2), dtype=np.float64)
        else:
            changes[part] = np.abs(outputs - untouched).mean(axis=(1, 2), dtype=np.float64)
    return changes


def _upwards(head: TrainedHead, first: Floats) -> Floats:
    """Outputs from what the first layer gives before its activation; regression targets stay standardised."""
    values = first
    for weights, bias in zip(head.weights[1:], head.biases[1:], strict=True):
        values = np.maximum(values, 0.0) @ weights
        if bias is not None:
            values = values + bias
    return values


def _softmax(logits: Floats) -> Floats:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: Floats = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities


def _csv(rows: list[dict[str, Any]]) -> str:
    return csv_text(rows[0], (row.values() for row in rows))
