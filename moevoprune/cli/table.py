"""A front as a table in the terminal."""

from __future__ import annotations

import numpy as np

from moevoprune.fronts.front import Front

__all__ = ["front_table"]


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
        cells.append([f"{v:.4f}" if isinstance(v, float) else str(v) for v in rows[i].values()])
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    lines[1:] = [line + marks[i] for line, i in zip(lines[1:], chosen, strict=True)]
    if len(chosen) < len(rows):
        lines.append(f"({len(chosen) - 1} of {len(front)} members shown)")
    return "\n".join(lines)
