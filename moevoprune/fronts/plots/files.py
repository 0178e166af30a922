"""The figures that every run folder has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes

from moevoprune.fronts.front import Front
from moevoprune.fronts.plots.convergence import plot_convergence
from moevoprune.fronts.plots.front_2d import plot_front
from moevoprune.fronts.plots.front_3d import plot_front_3d
from moevoprune.fronts.plots.pairs import plot_pairs
from moevoprune.fronts.plots.parallel import plot_parallel
from moevoprune.fronts.plots.style import make_folder, save_figure

__all__ = ["save_figures"]


def save_figures(front: Front, folder: str | Path) -> list[Path]:
    """Write ``front.png``, ``front3d.png``, ``pairs.png``, ``parallel.png`` and ``convergence.png``.

    Parameters
    ----------
    front
        What to draw. With fewer than three objectives there are no ``front3d.png`` and ``pairs.png``.
    folder
        Where to write; made where missing.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    InputError
        The folder or a file cannot be written.
    """
    folder = Path(folder)
    make_folder(folder)
    figures: dict[str, Callable[[Front], Axes]] = {"front": plot_front}
    if len(front.axes) >= 3:
        figures |= {"front3d": plot_front_3d, "pairs": plot_pairs}
    figures |= {"parallel": plot_parallel, "convergence": plot_convergence}
    return [save_figure(draw(front), folder / f"{name}.png") for name, draw in figures.items()]
