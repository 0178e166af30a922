"""Figure of ensembles of windows of validation accuracy, beside single members."""

from __future__ import annotations

from typing import Literal

from matplotlib.axes import Axes

from moevoprune.fronts.plots import plot_window_means
from moevoprune.fronts.plots.style import MEDIUM, SMALL, new_figure
from moevoprune.studies.ensemble_gains import Studies

__all__ = ["plot_ensemble_windows"]

# both rows of the figure share it
_LEGEND = (
    "ensemble: soft vote; of AUROC the mean score",
    "ensemble: majority vote",
    "member best on test",
    "member best on validation; of AUROC in the search",
    "mean of members",
)
_MEASURES: tuple[Literal["accuracy", "ood_auroc"], ...] = ("accuracy", "ood_auroc")


def plot_ensemble_windows(studies: Studies) -> Axes:
    """Draw the windows of every data set, means over seeds with intervals: accuracy above, AUROC below.

    Parameters
    ----------
    studies
        Of every data set.

    Returns
    -------
    Axes
        The first panel.
    """
    figure = new_figure((4.2 * len(studies) + 0.6, 6.6))
    axes = figure.subplots(len(_MEASURES), len(studies), squeeze=False)
    for column, (name, seeds) in enumerate(studies.items()):
        windows = [study.windows for study in seeds]
        for ax, measure in zip(axes[:, column], _MEASURES, strict=True):
            plot_window_means(windows, measure, ax)
            ax.get_legend().remove()
            ax.tick_params(axis="x", labelsize=SMALL - 2)
            ax.set_xlabel("percentiles of validation accuracy; members", fontsize=SMALL)
            ax.set_ylabel(ax.get_ylabel() if column == 0 else "")
        axes[0, column].set_title(name, fontsize=MEDIUM)
    figure.legend(
        axes[0, 0].get_legend_handles_labels()[0][::-1],
        _LEGEND,
        loc="outside upper left",
        ncols=min(2 * len(studies) - 1, 3),
        frameon=False,
        fontsize=SMALL,
    )
    first: Axes = axes[0, 0]
    return first
