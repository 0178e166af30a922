"""Tables as text: comma-separated values for files, aligned columns for a terminal, and Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from moevoprune.errors import printable

__all__ = ["aligned", "csv_text", "markdown_table", "markdown_text"]


def csv_text(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Write a table as CSV text: numbers to six digits after the point, None as an empty cell.

    Parameters
    ----------
    header
        Names of the columns.
    rows
        Cells of each row, in that order.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([f"{cell:.6f}" if isinstance(cell, float) else cell for cell in row])
    return text.getvalue()


def aligned(table: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lay a table out in columns of one width each, two blanks apart.

    Parameters
    ----------
    table
        Cells of each row, equally many, at least one row; the header is the first.
    left
        So many columns from the left are aligned at their left edge, the others at their right.

    Returns
    -------
    list of str
        A line per row.
    """
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def markdown_text(text: str) -> str:
    """Text of others in Markdown: names of classes or folders must not open a cell, a tag or a line.

    Parameters
    ----------
    text
        As it was found.
    """
    return printable(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def markdown_table(table: Sequence[Sequence[str]]) -> list[str]:
    """Lay a table out in Markdown, all columns but the first aligned at their right edge.

    Parameters
    ----------
    table
        Cells of each row, equally many; the header is the first. What would end a cell is escaped already, see
        :func:`markdown_text`.

    Returns
    -------
    list of str
        A line per row, and one below the header.
    """
    head, *rows = (f"| {' | '.join(row)} |" for row in table)
    return [head, "|---" + "|---:" * (len(table[0]) - 1) + "|", *rows]
