"""Tables of a report: members, generations, comparisons, files."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moevoprune.errors import InputError, printable
from moevoprune.fronts.front import Front
from moevoprune.fronts.report.members import FrontView, class_labels, named_members
from moevoprune.fronts.report.record import RunFiles
from moevoprune.fronts.run_folder import (
    ABOUT,
    ENSEMBLES,
    EXPLANATION,
    FIGURES,
    ROBUSTNESS,
    entry,
    list_at,
    number_at,
)
from moevoprune.fronts.wording import bare, capitalised, file_size, measure_name, objective_name, short_number

__all__ = [
    "Table",
    "baselines",
    "class_rows",
    "correlations",
    "ensembles",
    "file_table",
    "generations",
    "member_table",
    "named_table",
    "robustness",
]

_MOST_LISTED_FILES = 60
_MOST_LISTED_CLASSES = 60


@dataclass(frozen=True)
class Table:
    """A table whose rows start with their heading.

    Attributes
    ----------
    caption
        What it is.
    header
        Headings of the columns.
    rows
        Text of the cells; the first of each row is its heading.
    note
        Stands below it.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def class_rows(front: Front) -> Table | None:
    """Rows of each class; None in regression, or where the rows are not known."""
    predictions, names = front.predictions, class_labels(front)
    if predictions is None or not names:
        return None
    _, first = np.unique(predictions.validation_rows, return_index=True)
    validation = np.bincount(predictions.validation_targets[first].astype(np.int64), minlength=len(names))
    test = np.bincount(predictions.test_targets.astype(np.int64), minlength=len(names))
    rows = [
        (name, f"{ours:,}", f"{theirs:,}")
        for name, ours, theirs in zip(names, validation.tolist(), test.tolist(), strict=True)
    ]
    shown = rows[:_MOST_LISTED_CLASSES]
    note = f"The first {len(shown)} of {len(rows):,} classes." if len(shown) < len(rows) else ""
    return Table("Rows per class", ("class", "validation rows", "test rows"), tuple(shown), note)


def named_table(view: FrontView, front: Front) -> Table:
    """The members worth naming, and the unpruned head."""
    roles = named_members(front)
    rows = [
        (f"Member {member}: {', '.join(words)}", *(column.texts[member] for column in view.columns))
        for member, words in roles.items()
    ]
    rows.append(("Unpruned head", *(column.texts[-1] for column in view.columns)))
    return Table(
        "Members worth naming",
        ("head", *(column.label for column in view.columns)),
        tuple(rows),
        "Objectives are measured on validation rows, with heads trained on folds. The search chose by them, so "
        "they flatter the members; the test rows took no part in it.",
    )


def member_table(front: Front, view: FrontView | None) -> Table:
    """All members and the unpruned head; no rows where there is no view."""
    if view is None:
        return Table("All members", ("head",), ())
    rows = [
        (view.labels[member], *(column.texts[member] for column in view.columns))
        for member in range(len(view.labels))
    ]
    return Table("All members", ("head", *(column.label for column in view.columns)), tuple(rows))


def generations(front: Front) -> Table | None:
    """How the search went on; None where there is no history."""
    evaluations, volume = front.history.get("evaluations"), front.history.get("hypervolume")
    if evaluations is None or volume is None or len(evaluations) == 0:
        return None
    columns: list[tuple[str, list[str]]] = [
        ("evaluations", [f"{value:,.0f}" for value in evaluations]),
        ("hypervolume", [bare(f"{value:.4f}") for value in volume]),
    ]
    further = {"archive_size": "members", "best": f"best {objective_name(front, front.axes[0])}"}
    for name, label in further.items():
        column = front.history.get(name)
        if column is not None and len(column) == len(evaluations):
            whole = name == "archive_size"
            columns.append((label, [f"{value:,.0f}" if whole else short_number(float(value)) for value in column]))
    rows = zip(
        (str(generation + 1) for generation in range(len(evaluations))),
        *(texts for _, texts in columns),
        strict=True,
    )
    return Table("Every generation", ("generation", *(label for label, _ in columns)), tuple(rows))


def baselines(run: RunFiles) -> Table | None:
    """The front beside the best baseline; None where none were tried."""
    compared = entry(run.record, "baselines")
    measures = {"test_hypervolume": "test hypervolume", "test_hypervolume_log": "with active bits on a log scale"}
    values = {who: [number_at(compared, who, measure) for measure in measures] for who in ("front", "baseline")}
    if any(value is None for column in values.values() for value in column):
        return None
    words = [measure_name(str(name)) for name in list_at(compared, "tried")]
    best = measure_name(str(entry(compared, "best")))
    return Table(
        "Test hypervolume of the front and of the best baseline",
        ("method", *measures.values()),
        (
            ("this front", *(short_number(value) for value in values["front"])),
            (f"{printable(best)} (best baseline)", *(short_number(value) for value in values["baseline"])),
        ),
        f"Baselines tried: {printable(', '.join(words))}. Test hypervolume is the area under the best test score "
        "that a method has at each size, as a share of the whole; larger is better.",
    )


def ensembles(folder: Path, front: Front, left_out: list[str]) -> tuple[Table, ...]:
    """Ensembles and windows of a run folder's study; none where there is no study.

    Parameters
    ----------
    folder
        The run folder.
    front
        Its front.
    left_out
        Is told what cannot be read.
    """
    if not (folder / ENSEMBLES).exists():
        return ()
    from moevoprune.fronts.ensemble_tables import load_study

    try:
        study = load_study(folder)
    except InputError:
        left_out.append(f"ensembles: {ENSEMBLES} cannot be read")
        return ()
    voters = max((number for row in study.ensembles for number in row.numbers), default=0)
    if (study.metric, study.n_features) != (front.test_metric, front.dense_head.n_features) or voters >= len(
        front
    ):
        left_out.append(f"ensembles: {ENSEMBLES} is about another front")
        return ()
    metric = measure_name(study.metric)
    further = {
        "ECE": [row.ece for row in study.ensembles],
        "OoD AUROC": [row.ood_auroc for row in study.ensembles],
        "OoD FPR at 95 % TPR": [row.ood_fpr95 for row in study.ensembles],
    }
    known = {name: values for name, values in further.items() if any(value is not None for value in values)}
    rows = [
        (
            printable(row.name).replace("_", " ") + (f" ({printable(row.voting)} voting)" if row.voting else ""),
            f"{row.members:,}",
            f"{row.union_features:,} of {study.n_features:,}",
            f"{row.parameters:,}",
            short_number(row.validation),
            short_number(row.test),
            short_number(row.best_member_test),
            *(short_number(values[place]) for values in known.values()),
        )
        for place, row in enumerate(study.ensembles)
    ]
    header = (
        "ensemble",
        "members",
        "features in the union",
        "parameters",
        f"validation {metric}",
        f"test {metric}",
        f"its best member, test {metric}",
        *known,
    )
    tables = [
        Table(
            "Ensembles and single heads",
            header,
            tuple(rows),
            "Members are chosen by validation rows; the best member is the best of them on validation rows.",
        )
    ]
    if study.windows:
        windows = [
            (
                f"{window.low}–{window.high}",
                f"{window.members:,}",
                short_number(window.hard),
                short_number(window.soft),
                short_number(window.best_by_validation),
                short_number(window.best_member),
                short_number(window.mean_member),
            )
            for window in study.windows
        ]
        tables.append(
            Table(
                f"Windows of validation {metric}",
                (
                    "percentiles",
                    "members",
                    "hard vote",
                    "soft vote",
                    "best member by validation",
                    "best member by test",
                    "mean member",
                ),
                tuple(windows),
                f"Test {metric}. The best member by test is chosen with the test rows, as in the papers: nobody "
                "could have picked it.",
            )
        )
    return tuple(tables)


def robustness(folder: Path, left_out: list[str]) -> tuple[Table, ...]:
    """Test scores by kind and severity of disturbance; none where they were not measured.

    Parameters
    ----------
    folder
        The run folder.
    left_out
        Is told what cannot be read.
    """
    if not (folder / ROBUSTNESS).exists():
        return ()
    from moevoprune.fronts.robustness import load_robustness

    try:
        curves = load_robustness(folder) or []
    except InputError:
        left_out.append(f"robustness: {ROBUSTNESS} cannot be read")
        return ()
    tables = []
    for kind, group in itertools.groupby(curves, key=lambda curve: curve.kind):
        alike = list(group)
        severities = alike[0].severities
        rows = [
            (
                printable(curve.name),
                *(
                    f"{short_number(mean)} ± {short_number(error)}"
                    for mean, error in zip(curve.accuracy, curve.error, strict=True)
                ),
            )
            for curve in alike
            if curve.severities == severities
        ]
        tables.append(
            Table(
                f"{capitalised(printable(kind).replace('_', ' '))}: test score by severity",
                ("head", *("none" if severity == 0 else f"{severity:g}" for severity in severities)),
                tuple(rows),
            )
        )
    return tuple(tables)


def correlations(front: Front) -> Table | None:
    """Rank correlations of the objectives; None where there is nothing to correlate."""
    if len(front) < 2 or len(front.axes) < 2:
        return None
    names = [objective_name(front, axis) for axis in front.axes]
    rows = [
        (name, *("n/a" if math.isnan(value) else f"{value:+.2f}" for value in row))
        for name, row in zip(names, front.correlations().tolist(), strict=True)
    ]
    return Table(
        "Spearman's rank correlation of the objectives over the members",
        ("objective", *names),
        tuple(rows),
        "Near +1 or −1 two objectives order the members alike or the other way round: one of them tells little "
        "that is new.",
    )


def file_table(folder: Path) -> Table:
    """The files that a run has left."""
    try:
        paths = sorted(
            path
            for part in (folder, folder / FIGURES, folder / EXPLANATION)
            if part.is_dir()
            for path in part.iterdir()
            if path.is_file() and not path.name.startswith(".")
        )
        rows = [
            (printable(str(path.relative_to(folder))), file_size(path.stat().st_size), ABOUT.get(path.name, ""))
            for path in paths
        ]
    except OSError:
        rows = []
    note = f"The first {_MOST_LISTED_FILES} of {len(rows):,} files." if len(rows) > _MOST_LISTED_FILES else ""
    return Table("Files of the run", ("file", "size", "what it holds"), tuple(rows[:_MOST_LISTED_FILES]), note)
