"""Tables as text: comma-separated values for files, aligned columns for a terminal, and Markdown."""

from __future__ import annotations

import csv
import io
import math
import numbers
import re
from collections.abc import Iterable, Sequence
from typing import Any

from moevoprune.errors import printable, printable_lines

__all__ = ["aligned", "csv_rows", "csv_text", "markdown_code", "markdown_table", "markdown_text"]

# what starts a formula in a spreadsheet, at the start of a cell or behind what separates cells in other countries;
# with the apostrophes that a name has before it, so that they can be told from ours
_FORMULA = re.compile(r"(^|[;\n])(?=\s*'*[=+\-@＝＋－＠])")
_DEFUSED = re.compile(r"(^|[;\n])'(?=\s*'*[=+\-@＝＋－＠])")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)

# an underscore within a word means nothing
_MARKED = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")
# what makes a line a heading, a quotation or a part of a list
_LINE_START = re.compile(r"^(\s*)(?=#|>|[-+]\s)|^(\s*\d+)(?=[.)]\s)")
# numbers below and from there on are written with a power of ten
_SMALL, _LARGE = 1e-4, 1e15
# what becomes a link without being marked as one
_ADDRESS = re.compile(r"((?:https?|ftp)|\bwww)([:.])", re.IGNORECASE)


def csv_text(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Write a table as CSV text: numbers to six digits after the point, None as an empty cell.

    Numbers that would be mostly noughts so, as .00000012 or 1e30, have a power of ten.

    Text that a spreadsheet would take for a formula gets an apostrophe in front; :func:`csv_rows` takes it away.
    Characters that would steer a terminal become "?".

    Parameters
    ----------
    header
        Names of the columns.
    rows
        Cells of each row, in that order.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_csv_cell, header))
    for row in rows:
        writer.writerow(map(_csv_cell, row))
    return text.getvalue()


def _csv_cell(cell: Any) -> Any:
    if isinstance(cell, float):
        plain = cell == 0 or not math.isfinite(cell) or _SMALL <= abs(cell) < _LARGE
        return f"{cell:.6f}" if plain else f"{cell:.6e}"
    if cell is None or isinstance(cell, numbers.Number):
        return cell
    text = printable_lines(str(cell))
    return text if _NUMBER.fullmatch(text) else _FORMULA.sub(r"\1'", text)


def csv_rows(text: str) -> list[list[str]]:
    """Read what :func:`csv_text` wrote: the cells of each row, the header first.

    Raises
    ------
    ValueError
        It is no such text.
    """
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise ValueError(str(error)) from None
    return [[_DEFUSED.sub(r"\1", cell) for cell in row] for row in rows]


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
    """Text of others in Markdown: names of classes or folders stay what they are, letter by letter.

    They open no cell, tag, line, link, picture, formula or code, and are not set in bold or italics. A picture
    would be fetched from where a name says.

    Parameters
    ----------
    text
        As it was found.
    """
    escaped = _MARKED.sub(r"\\\g<0>", printable(text).replace("&", "&amp;")).replace("<", "&lt;")
    escaped = _LINE_START.sub(r"\g<0>\\", escaped)
    return _ADDRESS.sub(lambda found: f"{found[1]}&#{ord(found[2])};", escaped)


def markdown_code(text: str) -> str:
    """Text of others as code in a line of Markdown; backticks in it do not end it.

    Parameters
    ----------
    text
        As it was found; not for a table, whose cells a "|" ends also here.
    """
    line = printable(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    # blanks at both ends are taken off, and part fence and text
    blank = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{blank}{line}{blank}{fence}"


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
