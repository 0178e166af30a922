"""Comparisons over seeds as tables, and the folder that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from moevoprune.construction.comparison import METHODS, Comparison
from moevoprune.construction.storing import StoredNetwork
from moevoprune.construction.tables import Table
from moevoprune.features import FeatureSet
from moevoprune.files import write_text
from moevoprune.fronts.tables import csv_text, markdown_code, markdown_table
from moevoprune.fronts.wording import bare

__all__ = ["TOLERATED", "DataResult", "method_table", "report", "verdict_table", "write_results"]

TOLERATED = {"accuracy": 0.005, "r2": 0.01}
"""How far below the large network's test score counts as no loss."""

GONE = 0.7
"""Share of the parameters that is to be gone."""

# the same to within the error of adding floats up
_EQUAL = 1e-12

TABLE, SCORES, SWEEP, FIGURES = "construct.md", "construct.csv", "sweep.csv", "figures"

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DataResult:
    """All seeds on one data set.

    Attributes
    ----------
    name
        Of the data set, fit for a file name.
    data
        What the networks were trained on.
    comparisons
        One per seed, at least one.
    """

    name: str
    data: Table | FeatureSet
    comparisons: tuple[Comparison, ...]

    @property
    def metric(self) -> str:
        """``"accuracy"`` or ``"r2"``."""
        return self.comparisons[0].metric

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods that were carried out, in the order of :data:`~moevoprune.construction.comparison.METHODS`."""
        done = {score.method for score in self.comparisons[0].scores}
        return tuple(method for method in METHODS if method in done)

    def test(self, method: str) -> Values:
        """Test scores of a method, shape (seeds,)."""
        return np.array([comparison[method].test for comparison in self.comparisons])

    def parameters(self, method: str) -> float:
        """Parameters of a method's network, mean over the seeds."""
        return float(np.mean([comparison[method].parameters for comparison in self.comparisons]))

    def gone(self, method: str) -> float:
        """Share of the large network's parameters that a method's network lacks."""
        return 1.0 - self.parameters(method) / self.parameters("large")

    def margin(self, other: str) -> float:
        """Test score of the refined network less another's, mean over the seeds."""
        return float((self.test("refined") - self.test(other)).mean())

    @property
    def without_loss(self) -> bool:
        """Whether enough parameters are gone and the score is that of the large network, or better."""
        return self.gone("refined") >= GONE and self.margin("large") >= -TOLERATED[self.metric] - _EQUAL

    @property
    def beats_scratch(self) -> bool:
        """Whether the refined network is at least as good as the same shape trained from scratch."""
        return self.margin("scratch") >= -_EQUAL


def method_table(results: Sequence[DataResult]) -> list[list[str]]:
    """One row per data set and method, for :func:`~moevoprune.fronts.tables.aligned`."""
    table = [["data", "method", "units", "parameters", "gone", "score", "test"]]
    for result in results:
        for method in result.methods:
            widths = np.mean([comparison[method].widths for comparison in result.comparisons], axis=0)
            table.append(
                [
                    result.name,
                    METHODS[method],
                    "-".join(f"{width:.0f}" for width in widths),
                    f"{result.parameters(method):,.0f}",
                    f"{100 * result.gone(method):.1f} %",
                    _METRIC_NAMES[result.metric],
                    _with_error(result.test(method)),
                ]
            )
    return table


def verdict_table(results: Sequence[DataResult]) -> list[list[str]]:
    """One row per data set: what is gone, and how the refined network stands beside the others."""
    others = ("large", "scratch", "magnitude", "evolved", "sklearn")
    table = [
        ["data", "gone", *(f"against {other}" for other in others), "70 % gone, no loss", "as good as scratch"]
    ]
    for result in results:
        margins = [_signed(result.margin(other)) if other in result.methods else "n/a" for other in others]
        verdicts = [_yes(result.without_loss), _yes(result.beats_scratch)]
        table.append([result.name, f"{100 * result.gone('refined'):.1f} %", *margins, *verdicts])
    return table


def report(results: Sequence[DataResult], command: str) -> str:
    """The tables as Markdown, with what they mean.

    Parameters
    ----------
    results
        One per data set.
    command
        What was typed.
    """
    seeds = [comparison.seed for comparison in results[0].comparisons]
    lines = [
        "# Constructed networks",
        "",
        markdown_code(command),
        "",
        f"{_seed_words(seeds)} Splits, folds, start weights and "
        "the order of rows change with the seed. Threshold and weight decay are chosen by cross-validation inside "
        "the training part; the test part is scored once.",
        "",
        *markdown_table(verdict_table(results)),
        "",
        f"No loss: at most {100 * TOLERATED['accuracy']:g} points of accuracy, or {bare(str(TOLERATED['r2']))} of "
        'R², below the large network. "Against" are differences of mean test scores, positive where the '
        "constructed network is better.",
        "",
        *markdown_table(method_table(results)),
        "",
        "Choices by seed:",
        "",
        *markdown_table(_choice_table(results)),
        "",
    ]
    return "\n".join(lines)


def write_results(out: Path, results: Sequence[DataResult], command: str) -> list[Path]:
    """Write tables, figures and the networks of the first seed.

    Parameters
    ----------
    out
        The folder; made where missing.
    results
        One per data set.
    command
        What was typed.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    InputError
        The folder or a file cannot be written.
    """
    from moevoprune.construction.figure import plot_sweeps
    from moevoprune.fronts.plots.style import make_folder, save_figure

    make_folder(out)
    written = [out / TABLE, out / SCORES, out / SWEEP]
    for path, text in zip(written, (report(results, command), _scores(results), _sweeps(results)), strict=True):
        write_text(path, text)
    for result in results:
        sweeps = [comparison.built.sweep for comparison in result.comparisons]
        axes = plot_sweeps(result.name, result.metric, sweeps)
        written.append(save_figure(axes, out / FIGURES / f"{result.name}.png"))
        network = out / f"{result.name}.safetensors"
        StoredNetwork.of(result.comparisons[0].built.refined, result.data).save(network)
        written.append(network)
    return written


_METRIC_NAMES = {"accuracy": "accuracy", "r2": "R²"}


def _scores(results: Sequence[DataResult]) -> str:
    rows = [
        (
            result.name,
            comparison.seed,
            score.method,
            "-".join(map(str, score.widths)),
            score.parameters,
            comparison.metric,
            score.test,
        )
        for result in results
        for comparison in result.comparisons
        for score in comparison.scores
    ]
    return csv_text(("data", "seed", "method", "units", "parameters", "metric", "test"), rows)


def _sweeps(results: Sequence[DataResult]) -> str:
    rows = [
        (
            result.name,
            comparison.seed,
            point.epsilon,
            point.parameters,
            "-".join(f"{width:.1f}" for width in point.widths),
            point.score,
            point.error_against(comparison.built.sweep.large),
            int(point is comparison.built.sweep.points[comparison.built.sweep.chosen]),
        )
        for result in results
        for comparison in result.comparisons
        for point in (comparison.built.sweep.large, *comparison.built.sweep.points)
    ]
    header = ("data", "seed", "epsilon", "parameters", "units", "score", "error_of_difference_to_large", "chosen")
    return csv_text(header, rows)


def _choice_table(results: Sequence[DataResult]) -> list[list[str]]:
    table = [["data", "seed", "weight decay", "epsilon", "units", "test, large", "test, refined"]]
    for result in results:
        for comparison in result.comparisons:
            sweep, refined = comparison.built.sweep, comparison["refined"]
            table.append(
                [
                    result.name,
                    str(comparison.seed),
                    f"{sweep.weight_decay:g}",
                    f"{sweep.epsilon:g}",
                    "-".join(map(str, refined.widths)),
                    bare(f"{comparison['large'].test:.4f}"),
                    bare(f"{refined.test:.4f}"),
                ]
            )
    return table


def _with_error(values: Values) -> str:
    mean = bare(f"{values.mean():.4f}")
    if len(values) < 2:
        return mean
    return f"{mean} ±{bare(f'{values.std(ddof=1) / np.sqrt(len(values)):.4f}')}"


def _signed(value: float) -> str:
    # without a sign before a zero that was rounded
    return bare(f"{round(value, 4) + 0.0:+.4f}")


def _yes(held: bool) -> str:
    return "yes" if held else "no"


def _seed_words(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"Seed {seeds[0]}."
    return f"Means over seeds {seeds[0]} to {seeds[-1]}, ± the standard error over the seeds."
