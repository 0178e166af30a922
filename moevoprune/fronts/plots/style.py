"""What the figures share: colours, sizes, scales, and how a figure becomes a file.

Nothing here uses pyplot or rcParams: figures leave no global state behind, and need no display.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from moevoprune import files
from moevoprune.errors import InputError, printable
from moevoprune.files import atomic_path
from moevoprune.fronts.front import Axis, Front

Values = npt.NDArray[np.float64]

# Okabe and Ito's palette: told apart by people with any common colour vision
BLUE, SKY, VERMILLION, BLACK = "#0072B2", "#56B4E9", "#D55E00", "#000000"
ORANGE, GREEN, PURPLE = "#E69F00", "#009E73", "#CC79A7"
GREY, RULE, INK = "#6E6E6E", "#E6E6E6", "#222222"
# viridis without its yellow end, which is hard to see on white
SIZES = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0.0, 0.9, 256)), name="moevoprune")
# of the dense head's level, of the second of two lines
DASHED = (0, (4, 3))

DPI = 150
SMALL, MEDIUM = 8.5, 10.0

TIGHT_LEGEND: dict[str, Any] = {"borderaxespad": 0.3, "columnspacing": 1.3, "handletextpad": 0.5}
# in a row above the axes
TOP_LEGEND: dict[str, Any] = {
    "loc": "lower left",
    "bbox_to_anchor": (0.0, 1.0),
    "frameon": False,
    "fontsize": SMALL,
    **TIGHT_LEGEND,
}
# of a name that is longer nothing more can be read in a figure
_LONGEST = 1000
NO_MEMBERS = "no members:\nthe search found no feasible mask"


def save_figure(ax: Axes, path: str | Path) -> Path:
    """Write the whole figure that an axes belongs to as a PNG; the same bytes for the same drawing.

    Parameters
    ----------
    ax
        What a ``plot_*`` function returned.
    path
        The file; its folder is made where missing.

    Raises
    ------
    InputError
        The folder or the file cannot be written.
    """
    path = Path(path)
    make_folder(path.parent)
    figure: Any = ax.figure
    with atomic_path(path) as temporary, any_letters():
        # no software tag: the bytes should depend on what is drawn only
        # of an axes in a subfigure the whole one
        figure.figure.savefig(temporary, dpi=DPI, format="png", metadata={"Software": None})
    return path


@contextmanager
def any_letters() -> Iterator[None]:
    """Lay out and draw names in letters that the font lacks, which become boxes, without warnings."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        yield


def make_folder(folder: Path) -> None:
    """Make a folder where it is missing; InputError where that cannot be."""
    try:
        files.make_folder(folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror}): choose another folder") from error


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty figure of a size in inches."""
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def new_axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """The axes given, or where there is none that of a new figure of a size in inches."""
    return new_figure(size).add_subplot() if ax is None else ax


def say(ax: Axes, message: str) -> Axes:
    """Put a message where the data would be."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, message, transform=ax.transAxes, ha="center", va="center", fontsize=MEDIUM + 1, color=GREY)
    return ax


def panels(ax: Axes, rows: int, columns: int, gap: tuple[float, float]) -> list[list[Axes]]:
    """Divide the place of an axes into small ones, row by row from the top; the axes itself is no longer seen.

    Parameters
    ----------
    ax
        Whose place to divide. The panels are its children, and move and scale with it.
    rows, columns
        How many.
    gap
        Between panels, across and up, as shares of a panel.
    """
    ax.set_axis_off()
    width, height = 1 / (columns + (columns - 1) * gap[0]), 1 / (rows + (rows - 1) * gap[1])
    return [
        [
            ax.inset_axes((j * width * (1 + gap[0]), (rows - 1 - i) * height * (1 + gap[1]), width, height))
            for j in range(columns)
        ]
        for i in range(rows)
    ]


def plain(ax: Axes) -> None:
    """Leave of the frame no more than the line at the bottom."""
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(labelsize=SMALL, length=3)
    ax.tick_params(axis="y", length=0)


def rule(ax: Axes, axis: Literal["x", "y"] = "y") -> None:
    """Draw faint lines at the ticks, behind the data."""
    ax.grid(axis=axis, color=RULE, linewidth=0.7)
    ax.set_axisbelow(True)


def style_bar(bar: Any, label: str) -> None:
    """Name a colour bar and leave its frame out."""
    bar.set_label(label, fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL - 0.5, length=2)
    bar.outline.set_visible(False)


def size_range(front: Front) -> tuple[float, float]:
    """Ends of a logarithmic scale of the numbers of active bits."""
    # a head without any active bit has no logarithm
    low = max(int(front.active.min()), 1)
    return float(low), float(max(front.n_bits, low + 1))


def scale_sizes(ax: Axes, sizes: Values) -> None:
    """Make the x axis one of numbers of active bits: logarithmic where they span more than a decade."""
    low, high = float(sizes.min()), float(sizes.max())
    if low > 0 and high > 10 * low:
        scale_log_sizes(ax, low, high)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(whole))


def scale_log_sizes(ax: Axes, low: float, high: float) -> None:
    """Make the x axis a logarithmic one of numbers of active bits, from ``low`` to ``high``."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(10, subs=multiples(low, high), numticks=30))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_formatter(FuncFormatter(whole))


def spans_decade(axis: Axis, values: Values) -> bool:
    """Whether an objective is to be drawn on a logarithmic scale."""
    # sizes only: of scores it is the difference that counts, not the ratio
    return axis.name == "active_neurons" and bool(values.min() > 0 and values.max() > 10 * values.min())


def multiples(low: float, high: float) -> tuple[float, ...]:
    """Multiples of the powers of ten to label: few enough not to touch."""
    return (1.0, 2.0, 5.0) if high / low < 10**3.5 else (1.0,)


def whole(value: float, _: int | None = None) -> str:
    """Text of a tick: a whole number."""
    return f"{value:,.0f}"


def plain_text(text: str, most: int = 60) -> str:
    """Text of somebody else's as one short line, in which a dollar sign does not start a formula."""
    line = " ".join(printable(text[:_LONGEST]).split())
    # a word that is too long for the line is cut, not left out
    short = textwrap.shorten(line, most, placeholder="...") if " " in line[:most] else line[:most]
    return short.replace("$", r"\$")
