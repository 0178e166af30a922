"""Masks as grids of small cells, one per feature or hidden unit."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from moevoprune.fronts.front import Front
from moevoprune.heads.encodings import Encoding, HeadMask, HeadShape, make_encoding

__all__ = ["FULL", "SHADES", "Group", "MaskGrid", "draw_grid", "kept_text", "mask_grid"]

Levels = npt.NDArray[np.uint8]

# level of a kept feature; 0 is empty
FULL = 15
# colours that the levels above 0 are drawn in
SHADES = 5
_WIDTHS = (8, 16, 20, 32, 40, 64, 80, 128)
# more cells, or more of them over all members, would make a slow page of specks
_MOST_CELLS = 12_800
_MOST_BYTES = 2_000_000


@dataclass(frozen=True)
class Group:
    """Cells that stand for the same kind of thing.

    Attributes
    ----------
    label
        What they are.
    count
        Number of cells.
    columns
        Cells in a row.
    """

    label: str
    count: int
    columns: int


@dataclass(frozen=True, eq=False)
class MaskGrid:
    """The masks of all members.

    Attributes
    ----------
    groups
        The grids to draw, e.g. features and hidden units; empty where there would be too many cells.
    levels
        0 to :data:`FULL` for every cell of all groups, shape (members + 1, cells). A bit is either; where bits are
        single connections, it is the share of an input's connections that are kept. The dense head is last.
    binary
        Whether every cell is a bit.
    summaries
        What is kept in words, per member and, last, for the dense head.
    """

    groups: tuple[Group, ...]
    levels: Levels
    binary: bool
    summaries: tuple[str, ...]

    def part(self, group: int) -> Levels:
        """Levels of one group of cells, shape (members + 1, cells of the group)."""
        start = sum(earlier.count for earlier in self.groups[:group])
        return self.levels[:, start : start + self.groups[group].count]

    def to_data(self) -> dict[str, Any]:
        """As plain values for the page's script: the levels packed into 1 or 4 bits each, in base64."""
        bits = self.levels > 0 if self.binary else np.unpackbits(self.levels[..., None], axis=2)[..., 4:]
        packed = np.packbits(bits.reshape(len(self.levels), -1), axis=1)
        return {
            "groups": [{"label": g.label, "count": g.count, "columns": g.columns} for g in self.groups],
            "depth": 1 if self.binary else 4,
            "full": FULL,
            "shades": SHADES,
            "stride": packed.shape[1],
            "cells": base64.b64encode(packed.tobytes()).decode("ascii"),
            "summaries": list(self.summaries),
        }


def mask_grid(front: Front) -> MaskGrid:
    """Lay out the masks of a front, and the dense head's.

    Parameters
    ----------
    front
        The front.
    """
    n_features, *hidden, n_outputs = front.dense_head.widths
    shape = HeadShape(n_features, tuple(hidden), n_outputs)
    encoding = make_encoding(front.encoding, shape)
    every_bit = np.concatenate([front.masks, encoding.dense()[None]])
    masks = [encoding.decode(bits) for bits in every_bit]
    by_connection = masks[-1].connections is not None
    if by_connection:
        kinds = [("features", n_features)]
        rows = [_connection_levels(mask, n_features, width=(hidden or [n_outputs])[0]) for mask in masks]
        summaries = [
            f"{int(bits.sum()):,} of {front.n_bits:,} connections; "
            f"{len(mask.inputs):,} of {n_features:,} features are read"
            for bits, mask in zip(every_bit, masks, strict=True)
        ]
    else:
        pruned = _pruned_parts(encoding, shape)
        kinds = [(label, count) for label, count, _ in pruned]
        rows = [_bit_levels(mask, pruned) for mask in masks]
        summaries = [
            ", ".join(f"{len(_part(mask, layer)):,} of {count:,} {label}" for label, count, layer in pruned)
            for mask in masks
        ]
    levels = np.stack(rows)
    cells = levels.shape[1]
    drawn = 0 < cells <= _MOST_CELLS and levels.size // (2 if by_connection else 8) <= _MOST_BYTES
    return MaskGrid(
        groups=tuple(Group(label, count, _columns(count)) for label, count in kinds) if drawn else (),
        levels=levels if drawn else np.zeros((len(masks), 0), np.uint8),
        binary=not by_connection,
        summaries=tuple(summaries),
    )


def draw_grid(group: Group, levels: Levels, label: str) -> Markup:
    """Draw one grid as an SVG.

    Parameters
    ----------
    group
        What to draw.
    levels
        0 to :data:`FULL` for each cell, shape (cells,).
    label
        What it shows, for those who do not see it.
    """
    rows = -(-group.count // group.columns)
    shades = -(-levels.astype(np.int64) * SHADES // FULL)
    paths = [
        Markup('<path class="shade{}" d="{}"/>').format(
            shade, _cells(np.flatnonzero(shades == shade), group.columns)
        )
        for shade in range(1, SHADES + 1)
    ]
    return Markup('<svg class="grid" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>').format(
        group.columns,
        rows,
        label,
        Markup('<path class="shade0" d="{}"/>').format(_cells(range(group.count), group.columns)),
        Markup("").join(paths),
    )


def kept_text(levels: Levels) -> str:
    """Numbers of the kept cells of a group of bits, from 0: "3, 17, 40"."""
    return ", ".join(str(cell) for cell in np.flatnonzero(levels)) or "none"


def _cells(indices: Sequence[int] | npt.NDArray[np.int64], columns: int) -> str:
    return "".join(f"M{index % columns} {index // columns}h.86v.86h-.86z" for index in indices)


def _columns(count: int) -> int:
    """Cells in a row, so that a grid is somewhat wider than high: 40 for 1,280."""
    return next((width for width in _WIDTHS if width * width >= 1.25 * count), _WIDTHS[-1])


def _pruned_parts(encoding: Encoding, shape: HeadShape) -> list[tuple[str, int, int | None]]:
    """Label, number and hidden layer (None: the features) of everything that has bits."""
    nothing = encoding.decode(np.zeros(encoding.n_bits, dtype=np.bool_))
    parts: list[tuple[str, int, int | None]] = []
    if len(nothing.inputs) < shape.n_features:
        parts.append(("features", shape.n_features, None))
    for layer, (units, width) in enumerate(zip(nothing.hidden, shape.hidden, strict=True)):
        if len(units) < width:
            label = "hidden units" if len(shape.hidden) == 1 else f"units of hidden layer {layer + 1}"
            parts.append((label, width, layer))
    return parts


def _part(mask: HeadMask, layer: int | None) -> npt.NDArray[np.int64]:
    return mask.inputs if layer is None else mask.hidden[layer]


def _bit_levels(mask: HeadMask, parts: Sequence[tuple[str, int, int | None]]) -> Levels:
    cells = []
    for _, count, layer in parts:
        kept = np.zeros(count, np.uint8)
        kept[_part(mask, layer)] = FULL
        cells.append(kept)
    return np.concatenate([*cells, np.zeros(0, np.uint8)])


def _connection_levels(mask: HeadMask, n_features: int, width: int) -> Levels:
    """Share of each input's connections into the first layer that are kept; any at all is at least level 1."""
    levels = np.zeros(n_features, np.uint8)
    if mask.connections is not None:
        levels[mask.inputs] = np.ceil(FULL * mask.connections[0].sum(axis=1) / width)
    return levels
