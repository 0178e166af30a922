"""Figures, drawn without pyplot: no display, no global state, the same bytes for the same data.

Every ``plot_*(data, ax=None)`` draws on the axes given, or on that of a new figure, and returns it.
"""

from moevoprune.fronts.plots.attainment import plot_attainment
from moevoprune.fronts.plots.comparison import plot_comparison, save_comparison
from moevoprune.fronts.plots.convergence import plot_convergence
from moevoprune.fronts.plots.files import save_figures
from moevoprune.fronts.plots.frequency import plot_frequency, plot_importance, save_frequency
from moevoprune.fronts.plots.front_2d import plot_front
from moevoprune.fronts.plots.front_3d import plot_front_3d
from moevoprune.fronts.plots.pairs import plot_pairs
from moevoprune.fronts.plots.parallel import plot_parallel
from moevoprune.fronts.plots.robustness import plot_robustness
from moevoprune.fronts.plots.style import save_figure
from moevoprune.fronts.plots.windows import plot_window_means, plot_windows

__all__ = [
    "plot_attainment",
    "plot_comparison",
    "plot_convergence",
    "plot_frequency",
    "plot_front",
    "plot_front_3d",
    "plot_importance",
    "plot_pairs",
    "plot_parallel",
    "plot_robustness",
    "plot_window_means",
    "plot_windows",
    "save_comparison",
    "save_figure",
    "save_figures",
    "save_frequency",
]
