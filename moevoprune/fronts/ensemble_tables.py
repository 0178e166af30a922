"""Scores of ensembles, windows and single heads: the rows, the tables made of them, their files."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from moevoprune.errors import InputError
from moevoprune.files import read_text, write_text
from moevoprune.fronts.run_folder import ENSEMBLES, ENSEMBLES_CSV, WINDOWS_CSV
from moevoprune.fronts.tables import aligned, csv_text
from moevoprune.fronts.wording import short_number

__all__ = [
    "BEST_MEMBER",
    "DENSE",
    "KNEE_MEMBER",
    "EnsembleRow",
    "EnsembleStudy",
    "WindowResult",
    "load_study",
]

BEST_MEMBER, KNEE_MEMBER, DENSE = "best member", "knee member", "dense head"

_FORMAT = 1


@dataclass(frozen=True)
class EnsembleRow:
    """One ensemble, or a single head beside them.

    Attributes
    ----------
    name
        Name of the way its members were chosen, or one of :data:`BEST_MEMBER` (by validation; of equals fewest
        bits), :data:`KNEE_MEMBER` and :data:`DENSE`.
    how
        The same in words.
    voting
        ``"soft"``, ``"hard"``, or None of a single head.
    members
        Number of members.
    union_features
        Features that they read together.
    union_fraction
        The same as a share of all features.
    parameters
        Non-zero weights, and biases, of the members.
    validation
        Accuracy, or R², on the validation rows, by the heads that were trained without a row's fold.
    test
        The same on the test rows, by the retrained heads.
    ece
        Expected calibration error on the test rows, 15 bins; None in regression.
    ood_auroc, ood_fpr95
        How well out-of-distribution rows are told from the test rows, by the weighted mean of the members'
        scores; None where there are no such rows, or an output is not finite.
    best_member
        Number of the member with the best validation accuracy among these; None of the dense head.
    best_member_test
        That member's accuracy, or R², on the test rows.
    numbers
        Numbers of the members in the front; none of the dense head.
    weights
        Weight of each, with a sum of 1.
    """

    name: str
    how: str
    voting: str | None
    members: int
    union_features: int
    union_fraction: float
    parameters: int
    validation: float
    test: float
    ece: float | None
    ood_auroc: float | None
    ood_fpr95: float | None
    best_member: int | None
    best_member_test: float | None
    numbers: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class WindowResult:
    """Members of one window of validation accuracy, on the test rows; MO-EvoPruneDeepTL's plot.

    Attributes
    ----------
    low, high
        Percentiles of the members' validation accuracies.
    members
        Number of members in the window.
    hard, soft
        Test accuracy of their majority vote, as in the papers, and of their mean probabilities. In regression the
        R² of their mean prediction, and NaN for the majority.
    best_member
        Largest test accuracy of a member of the window, as in the papers: chosen by the test rows, so no one could
        have picked it.
    best_by_validation
        Test accuracy of the member with the best validation accuracy.
    mean_member
        Mean test accuracy of the members.
    ood_auroc
        How well out-of-distribution rows are told from the test rows by the mean of the members' scores, for
        either vote. What the papers took for an ensemble's score is not known; this is the choice of this package.
        Like the next three NaN where there are no such rows or an output is not finite.
    ood_best_member
        Largest such AUROC of a member of the window: chosen by the test rows, so no one could have picked it.
    ood_best_by_selection
        The AUROC of the member that had the best one in the search, on other out-of-distribution rows; NaN where
        it was no objective.
    ood_mean_member
        Mean AUROC of the members.
    """

    low: int
    high: int
    members: int
    hard: float
    soft: float
    best_member: float
    best_by_validation: float
    mean_member: float
    ood_auroc: float = math.nan
    ood_best_member: float = math.nan
    ood_best_by_selection: float = math.nan
    ood_mean_member: float = math.nan


@dataclass(frozen=True)
class EnsembleStudy:
    """Ensembles of a front, scored on the test rows.

    Attributes
    ----------
    metric
        ``"accuracy"`` or ``"r2"``.
    n_features
        Features that there are.
    ood_score
        Name of the score behind the out-of-distribution columns; None where there are none.
    ensembles
        The ensembles, then the single heads.
    windows
        One entry per window of :data:`moevoprune.fronts.ensemble_ways.WINDOWS`.
    """

    metric: str
    n_features: int
    ood_score: str | None
    ensembles: tuple[EnsembleRow, ...]
    windows: tuple[WindowResult, ...]

    def row(self, name: str, voting: str | None = "soft") -> EnsembleRow:
        """Return an ensemble by its way and voting, or a single head by its name.

        Raises
        ------
        KeyError
            There is none.
        """
        for row in self.ensembles:
            if row.name == name and row.voting in (voting, None):
                return row
        raise KeyError(name)

    def headline(self) -> str:
        """One line on the default ensemble, beside its best member and the dense head."""
        ensemble, dense = self.row("default"), self.row(DENSE)
        metric = "accuracy" if self.metric == "accuracy" else "R²"
        plural = "" if ensemble.members == 1 else "s"
        return (
            f"an ensemble of {ensemble.members} member{plural}, {ensemble.union_features:,} of "
            f"{self.n_features:,} features together: test {metric} {short_number(ensemble.test)}; its best member "
            f"{short_number(ensemble.best_member_test)}, the dense head {short_number(dense.test)}"
        )

    def to_rows(self) -> list[dict[str, Any]]:
        """One plain dictionary per ensemble; columns that none has a value in are left out."""
        rows = []
        for row in self.ensembles:
            plain = asdict(row)
            del plain["numbers"], plain["weights"]
            rows.append({_column(name, self.metric): value for name, value in plain.items()})
        optional = ("ece", "ood_auroc", "ood_fpr95")
        empty = [name for name in optional if all(row[name] is None for row in rows)]
        return [{name: value for name, value in row.items() if name not in empty} for row in rows]

    def to_csv(self) -> str:
        """Return :meth:`to_rows` as CSV text, numbers to six digits after the point."""
        rows = self.to_rows()
        return csv_text(rows[0], (row.values() for row in rows))

    def windows_to_csv(self) -> str:
        """Return the windows as CSV text, numbers to six digits after the point; NaN is an empty cell.

        Columns on out-of-distribution rows that none has a value in are left out.
        """
        rows = [_plain(asdict(window)) for window in self.windows]
        names = [
            field.name
            for field in fields(WindowResult)
            if not field.name.startswith("ood_") or any(row[field.name] is not None for row in rows)
        ]
        return csv_text(names, ([row[name] for name in names] for row in rows))

    def to_markdown(self) -> str:
        """Return the table for people: members, features, and scores on the test rows in per cent."""
        header, *cells = self._cells()
        rule = ["---", "---", *["---:"] * (len(header) - 2)]
        return "".join(f"| {' | '.join(line)} |\n" for line in (header, rule, *cells))

    def to_text(self) -> str:
        """Return the same table for a terminal."""
        return "\n".join(aligned(self._cells(), left=2))

    def _cells(self) -> list[list[str]]:
        """Header and rows of the table for people."""
        classes, ood = self.metric != "r2", self.ood_score is not None
        scale = 100.0 if classes else 1.0
        header = ["ensemble", "voting", "members", "features", "parameters"]
        header += ["test accuracy %" if classes else "test R²", "its best member"]
        header += ["ECE %"] * classes + ["OoD AUROC %", "FPR95 %"] * ood
        table = [header]
        for row in self.ensembles:
            cells = [row.name, row.voting or "", f"{row.members}", f"{row.union_features}", f"{row.parameters}"]
            cells += [_cell(row.test, scale), _cell(row.best_member_test, scale)]
            cells += [_cell(row.ece, 100.0)] * classes
            cells += [_cell(row.ood_auroc, 100.0), _cell(row.ood_fpr95, 100.0)] * ood
            table.append(cells)
        return table

    def to_json(self) -> str:
        """Return everything as JSON text, which :func:`load_study` reads.

        An object with ``format`` (1), ``metric``, ``n_features``, ``ood_score``, ``ensembles`` and ``windows``.
        The last two are lists of objects with the attributes of :class:`EnsembleRow` and :class:`WindowResult`;
        null stands for what is not known.
        """
        return json.dumps(_plain({"format": _FORMAT, **asdict(self)}), indent=1, allow_nan=False) + "\n"

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``ensembles.csv``, ``windows.csv`` and ``ensembles.json`` into a folder, which must exist.

        Raises
        ------
        InputError
            A file cannot be written.
        """
        folder = Path(folder)
        contents = {
            ENSEMBLES_CSV: self.to_csv(),
            WINDOWS_CSV: self.windows_to_csv(),
            ENSEMBLES: self.to_json(),
        }
        for name, text in contents.items():
            write_text(folder / name, text)
        return [folder / name for name in contents]


def load_study(folder: str | Path) -> EnsembleStudy:
    """Read ``ensembles.json`` of a folder.

    Raises
    ------
    InputError
        The file is missing, cannot be read or is damaged.
    """
    from pydantic import TypeAdapter, ValidationError

    path = Path(folder) / ENSEMBLES
    again = "write it again with moevoprune ensemble"
    try:
        content = json.loads(read_text(path))
        if content.pop("format") != _FORMAT:
            raise InputError(f"{path}: is of another format than this version reads: {again}")
        for window in content["windows"]:
            window.update({name: math.nan for name, value in window.items() if value is None})
        study: EnsembleStudy = TypeAdapter(EnsembleStudy).validate_python(content)
    except FileNotFoundError:
        raise InputError(f"{path}: not found: {again}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except InputError:
        raise
    except (ValidationError, ValueError, RecursionError, AttributeError, KeyError, TypeError):
        raise InputError(f"{path}: is damaged: {again}") from None
    return study


def _column(name: str, metric: str) -> str:
    """Name of a column in a table: what is measured is said there."""
    return {"validation": f"validation_{metric}", "test": f"test_{metric}"}.get(
        name, f"best_member_test_{metric}" if name == "best_member_test" else name
    )


def _cell(value: float | None, scale: float) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if scale == 1 else f"{scale * value:.1f}"


def _plain(value: Any) -> Any:
    """Plain values for JSON, which has no NaN and no infinity."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
