"""Fronts and comparisons as tables in the terminal."""

from __future__ import annotations

import math

import numpy as np

from moevoprune.fronts.comparison import QUALITY
from moevoprune.fronts.comparison_tables import DataSummary, Estimate
from moevoprune.fronts.front import Front
from moevoprune.fronts.tables import aligned
from moevoprune.fronts.wording import bare

__all__ = ["comparison_lines", "front_table", "objectives_line"]


def front_table(front: Front, most: int | None = None) -> str:
    """Lay out a front as text, one line per member, with the knee and the best member marked.

    Parameters
    ----------
    front
        What to show.
    most
        Show about so many members, spread evenly over the front; None for all.
    """
    rows = front.to_rows()
    marks = dict.fromkeys(range(len(rows)), "")
    if len(front):
        marks[front.knee()] += " knee"
        marks[front.best(front.objectives[0])] += f" best {front.objectives[0]}"
    chosen = list(range(len(rows)))
    if most is not None and len(rows) > most:
        spread = {int(i) for i in np.linspace(0, len(rows) - 1, most)}
        chosen = sorted(spread | {i for i, mark in marks.items() if mark})
    cells = [list(rows[0])]
    for i in chosen:
        cells.append([_number(v) if isinstance(v, float) else str(v) for v in rows[i].values()])
    lines = aligned(cells, left=0)
    lines[1:] = [line + marks[i] for line, i in zip(lines[1:], chosen, strict=True)]
    if len(chosen) < len(rows):
        lines.append(f"({len(chosen) - 1} of {len(front)} members shown)")
    return "\n".join(lines)


def objectives_line(front: Front) -> str:
    """One line on a front's objectives together: hypervolume in all of them, and how far they repeat each other.

    Parameters
    ----------
    front
        What to sum up.
    """
    pairs = [f"{one} / {other} {_signed(value)}" for one, other, value in front.correlated_pairs()]
    volume = bare(f"{front.hypervolume():.4f}")
    text = f"hypervolume of all {len(front.objectives)} objectives, validation: {volume}"
    return f"{text}; rank correlations over the front: {', '.join(pairs)}" if pairs else text


def comparison_lines(summary: DataSummary) -> list[str]:
    """Lay out the methods on one data set as lines of at most 120 characters, the best values marked by a star.

    Parameters
    ----------
    summary
        What to show.
    """
    heads = ["test hv", "log", "best", "at 2 %", "5 %", "10 %", "25 %"]
    cells = [[summary.data[:22], *heads, "trainings", "seconds"]]
    for method in summary.methods:
        row = [method.method]
        for column in QUALITY:
            star = "*" if method.method in summary.winners[column] else " "
            row.append(_cell(method.estimates[column], "hypervolume" in column) + star)
        cells.append([*row, f"{method.mean('trainings'):.0f}", f"{method.mean('seconds'):.1f}"])
    return aligned(cells)


def _number(value: float) -> str:
    return f"{value:.4f}" if value == 0 or 5e-5 <= abs(value) < 1e9 else f"{value:.4e}"


def _signed(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:+.2f}"


def _cell(estimate: Estimate | None, with_error: bool) -> str:
    if estimate is None:
        return "-"
    text = bare(f"{estimate.mean:.4f}")
    if with_error and not math.isnan(estimate.error):
        text += f" ±{bare(f'{estimate.error:.4f}')}"
    return text
