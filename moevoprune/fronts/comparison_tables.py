"""A comparison of methods summed up over seeds, as Markdown and as CSV."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from moevoprune.baselines import BASELINES
from moevoprune.fronts.comparison import (
    COLUMNS,
    METHODS,
    PERCENTAGES,
    QUALITY,
    MethodResult,
    picked,
    score,
    validation_hypervolume,
)
from moevoprune.fronts.statistics import p_text, t_test
from moevoprune.fronts.tables import csv_text, markdown_code, markdown_table, markdown_text
from moevoprune.fronts.wording import bare

__all__ = [
    "DataSummary",
    "Estimate",
    "MethodSummary",
    "comparison_table",
    "members_csv",
    "scores_csv",
    "summarise",
]

Values = npt.NDArray[np.float64]

_PICKED = (5, 25)
# the same to within the error of adding floats up
_EQUAL = 1e-12

_COUNTED = (
    "Hypervolume is that of the members' (test error, share of active bits) up to the point (1, 1); log is the "
    "same with the bits on a log scale, log(active) / log(bits). The dense head alone has none: its share is 1.",
    "Accuracy at P % is the best test accuracy among the members with at most P % of the bits; of regression it "
    "is R², or 0 where that is negative.",
    "Of a baseline all masks at its default sizes are members, of a search all non-dominated masks that it ever "
    "evaluated. Which of them are worth having is read off the test rows, alike for all methods.",
    "Trainings are heads trained: one per mask and fold, one per member on all training rows, those that tell a "
    "search which rankings to trust, and those that a baseline ranks or prunes by. Seconds are all that a method "
    "does, without loading the data.",
    "± is the standard error over the seeds; p is of a two-sided paired t-test over the seeds.",
)


@dataclass(frozen=True)
class Estimate:
    """Mean over seeds.

    Attributes
    ----------
    mean
        Over the seeds that have the value.
    error
        Standard error of that mean; NaN with fewer than two.
    """

    mean: float
    error: float


@dataclass(frozen=True)
class MethodSummary:
    """One method on one data set.

    Attributes
    ----------
    method
        Its name.
    by_seed
        All values, by seed and column; None where there is none.
    estimates
        Their means, by column; None where no seed has the value. Besides the columns of :func:`score` there are
        ``validation_hypervolume``, ``loss`` (that less the test hypervolume), and ``picked_validation_P`` and
        ``picked_test_P`` for the member picked by validation at P %.
    """

    method: str
    by_seed: Mapping[int, Mapping[str, float | None]]
    estimates: Mapping[str, Estimate | None]

    def mean(self, column: str) -> float:
        """Mean of a column, NaN where it has none."""
        estimate = self.estimates[column]
        return math.nan if estimate is None else estimate.mean

    def differences(self, other: MethodSummary, column: str) -> Values:
        """Values of the method less another's, over the seeds that both have; shape (seeds,)."""
        pairs = [
            (self.by_seed[seed][column], other.by_seed[seed][column])
            for seed in sorted(self.by_seed.keys() & other.by_seed.keys())
        ]
        return np.array([a - b for a, b in pairs if a is not None and b is not None], dtype=np.float64)


@dataclass(frozen=True)
class DataSummary:
    """All methods on one data set.

    Attributes
    ----------
    data
        Its name.
    n_bits
        Length of a mask.
    methods
        Best test hypervolume first.
    winners
        By quality column: the methods with the best mean.
    champion
        ``guided``, or where it was not run the method with the best test hypervolume.
    p_values
        By method other than the champion, for both test hypervolumes: of a paired two-sided t-test against the
        champion. None with fewer than two seeds, or where all seeds differ by the same.
    """

    data: str
    n_bits: int
    methods: tuple[MethodSummary, ...]
    winners: Mapping[str, frozenset[str]]
    champion: str
    p_values: Mapping[str, Mapping[str, float | None]]

    def __getitem__(self, method: str) -> MethodSummary:
        """Look up the summary of a method; KeyError where it was not run."""
        for summary in self.methods:
            if summary.method == method:
                return summary
        raise KeyError(method)


def summarise(results: Iterable[MethodResult]) -> tuple[DataSummary, ...]:
    """Sum results up over their seeds, data set by data set in order of appearance.

    Parameters
    ----------
    results
        At most one per data set, method and seed.
    """
    groups: dict[str, dict[str, list[MethodResult]]] = {}
    for result in results:
        groups.setdefault(result.data, {}).setdefault(result.method, []).append(result)
    return tuple(_summarise_data(data, methods) for data, methods in groups.items())


def _summarise_data(data: str, groups: Mapping[str, list[MethodResult]]) -> DataSummary:
    methods = [_summarise_method(method, results) for method, results in groups.items()]
    methods.sort(key=lambda summary: (-summary.mean("test_hypervolume"), METHODS.index(summary.method)))
    winners = {}
    for column in QUALITY:
        means = {m.method: m.mean(column) for m in methods if m.estimates[column] is not None}
        winners[column] = frozenset(m for m, mean in means.items() if mean >= max(means.values()) - _EQUAL)
    champion = next((m for m in methods if m.method == "guided"), methods[0])
    p_values = {
        m.method: {
            column: t_test(champion.differences(m, column))
            for column in ("test_hypervolume", "test_hypervolume_log")
        }
        for m in methods
        if m is not champion
    }
    n_bits = next(iter(groups.values()))[0].n_bits
    return DataSummary(data, n_bits, tuple(methods), winners, champion.method, p_values)


def _summarise_method(method: str, results: list[MethodResult]) -> MethodSummary:
    by_seed = {result.seed: _measures(result) for result in results}
    columns = next(iter(by_seed.values())).keys()
    return MethodSummary(method, by_seed, {c: _estimate([row[c] for row in by_seed.values()]) for c in columns})


def _measures(result: MethodResult) -> dict[str, float | None]:
    row: dict[str, float | None] = {k: v for k, v in score(result).items() if k not in ("data", "method", "seed")}
    row["validation_hypervolume"] = validation_hypervolume(result)
    row["loss"] = validation_hypervolume(result) - score(result)["test_hypervolume"]
    for percent in _PICKED:
        chosen = picked(result, percent / 100)
        row[f"picked_validation_{percent}"], row[f"picked_test_{percent}"] = chosen or (None, None)
    return row


def _estimate(values: list[float | None]) -> Estimate | None:
    known = np.array([value for value in values if value is not None], dtype=np.float64)
    if not len(known):
        return None
    error = known.std(ddof=1) / math.sqrt(len(known)) if len(known) > 1 else math.nan
    return Estimate(float(known.mean()), float(error))


def comparison_table(results: Iterable[MethodResult], command: str, notes: Sequence[str] = ()) -> str:
    """Lay results out as a Markdown document.

    Parameters
    ----------
    results
        What to show, as for :func:`summarise`.
    command
        The command line that made them.
    notes
        Lines for the head, e.g. the date, the machine and versions.

    Returns
    -------
    str
        Per data set a table of all scores, best test hypervolume first and the best of each quality column bold;
        a line on how guided does against the best baseline and the reference; and a table of what is lost from
        validation to test.
    """
    lines = ["# Comparison of pruning methods", "", markdown_code(command), ""]
    for note in notes:
        lines += [note, ""]
    lines += [*(f"* {line}" for line in _COUNTED), ""]
    for summary in summarise(results):
        seeds = max(len(method.by_seed) for method in summary.methods)
        lines += [f"## {markdown_text(summary.data)}", ""]
        lines += [f"{summary.n_bits:,} bits, {seeds} seed{'s' if seeds > 1 else ''}", ""]
        lines += [*_main_table(summary), ""]
        lines += [line for verdict in _verdicts(summary) for line in (verdict, "")]
        lines += [*_loss_table(summary), ""]
    return "\n".join(lines)


def _main_table(summary: DataSummary) -> list[str]:
    heads = ["test hypervolume", "log", "best test accuracy", *(f"at {p} %" for p in PERCENTAGES)]
    table = [["method", *heads, "trainings", "seconds"]]
    for method in summary.methods:
        cells = [method.method]
        for column in QUALITY:
            cell = _plus_minus(method.estimates[column])
            cells.append(f"**{cell}**" if method.method in summary.winners[column] else cell)
        cells.append(_plus_minus(method.estimates["trainings"], _thousands))
        cells.append(_plus_minus(method.estimates["seconds"], _seconds))
        table.append(cells)
    return markdown_table(table)


def _loss_table(summary: DataSummary) -> list[str]:
    heads = ["validation hypervolume", "test hypervolume", "loss"]
    columns = ["validation_hypervolume", "test_hypervolume", "loss"]
    for percent in _PICKED:
        heads += [f"picked at {percent} %: validation", "test"]
        columns += [f"picked_validation_{percent}", f"picked_test_{percent}"]
    rows = [[method.method, *(_plus_minus(method.estimates[c]) for c in columns)] for method in summary.methods]
    return markdown_table([["method", *heads], *rows])


def _verdicts(summary: DataSummary) -> list[str]:
    """One line on guided against the best baseline, one on guided against the reference."""
    names = [method.method for method in summary.methods]
    if "guided" not in names:
        return []
    guided, verdicts = summary["guided"], []
    baselines = [method for method in summary.methods if method.method in BASELINES]
    scales = {"linear": "test_hypervolume", "log": "test_hypervolume_log"}
    if baselines:
        parts = []
        for scale, column in scales.items():
            best = max(baselines, key=lambda method: method.mean(column))
            parts.append(f"{scale}, {best.method}: {_against(summary, guided, best, column)}")
        verdicts.append(f"Guided less the best baseline: {'; '.join(parts)}.")
    if "reference" in names:
        reference = summary["reference"]
        parts = [f"{scale} {_against(summary, guided, reference, column)}" for scale, column in scales.items()]
        ratio = guided.mean("seconds") / max(reference.mean("seconds"), 1e-9)
        verdicts.append(f"Guided less the reference: {'; '.join(parts)}; {ratio:.2f} times its seconds.")
    return verdicts


def _against(summary: DataSummary, ours: MethodSummary, other: MethodSummary, column: str) -> str:
    differences = ours.differences(other, column)
    if not len(differences):
        return "n/a"
    p_value = p_text(summary.p_values[other.method][column])
    return f"{_signed(float(differences.mean()))} (worst seed {_signed(float(differences.min()))}, {p_value})"


def _plus_minus(estimate: Estimate | None, form: Any = None) -> str:
    if estimate is None:
        return ""
    form = form or _short
    mean = str(form(estimate.mean))
    return mean if math.isnan(estimate.error) else f"{mean} ± {form(estimate.error)}"


def _short(value: float) -> str:
    return bare(f"{value:.4f}")


def _signed(value: float) -> str:
    return bare(f"{value:+.4f}")


def _thousands(value: float) -> str:
    return f"{value:,.0f}"


def _seconds(value: float) -> str:
    return f"{value:,.1f}"


def scores_csv(results: Iterable[MethodResult]) -> str:
    """One row of :data:`COLUMNS` per result as CSV text, numbers to six digits after the point."""
    return csv_text(COLUMNS, (score(result).values() for result in results))


def members_csv(results: Iterable[MethodResult]) -> str:
    """One row per member of every result as CSV text; R² is what it is here, also where it is negative."""
    columns = ("data", "method", "seed", "active", "active_fraction", "validation", "test")
    rows = (
        (result.data, result.method, result.seed, int(active), float(active / result.n_bits), validation, test)
        for result in results
        for active, validation, test in zip(
            result.active.tolist(), result.validation.tolist(), result.test.tolist(), strict=True
        )
    )
    return csv_text(columns, rows)
