"""What a report says about one run, or about several beside one another, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from moevoprune.errors import InputError, printable
from moevoprune.fronts.explanation import Explanation, explain_front, quality_objective
from moevoprune.fronts.front import Front
from moevoprune.fronts.landmarks import CLOSE, find_landmarks
from moevoprune.fronts.report.facts import Fact, asked_facts, commands, data_facts, version_facts
from moevoprune.fronts.report.heat import view_heat
from moevoprune.fronts.report.masks import FULL, draw_grid
from moevoprune.fronts.report.members import FrontView, class_labels, view_front
from moevoprune.fronts.report.pictures import Picture, read_picture
from moevoprune.fronts.report.record import read_run
from moevoprune.fronts.report.tables import (
    Table,
    baselines,
    class_rows,
    correlations,
    ensembles,
    file_table,
    generations,
    member_table,
    named_table,
    robustness,
)
from moevoprune.fronts.run_folder import EXPLANATION, FIGURES, PREDICTIONS, entry
from moevoprune.fronts.wording import bare, counted, measure_name, short_number, unit

__all__ = ["Frequency", "RunReport", "SeveralRuns", "describe_run", "describe_several"]

_LISTED = 20
# heat maps are the largest part of a page: so many characters of them, and so many pictures
_MOST_HEAT_MAP_TEXT = 3_500_000
_MOST_HEAT_MAPS = 12


@dataclass(frozen=True)
class Frequency:
    """How often features or hidden units are active over the front.

    Attributes
    ----------
    summary
        In one sentence.
    grids
        A picture of all of them per kind, with a caption.
    bars
        The most frequent: name, share of the members, members, strength.
    what, strength
        What the bars are about, and what the strength is.
    """

    summary: str
    grids: tuple[tuple[Markup, str], ...]
    bars: tuple[tuple[str, float, str, str], ...]
    what: str
    strength: str


@dataclass(frozen=True, eq=False)
class RunReport:
    """Everything about one run.

    Attributes
    ----------
    key
        Starts the identifiers of its section.
    name
        Name of the run folder.
    data_hash
        SHA-256 of its data; None where that is not known.
    headline
        The result in one or two sentences.
    merged
        For a merged front: from which runs, and what that means; "" for a run of its own.
    asked, data
        Facts about the question and about the data.
    classes
        Rows per class; None in regression or where they are not known.
    view
        The front for the plot; None where it has no members.
    named, members
        The members worth naming, and all of them.
    convergence
        Per generation; None where there is no history.
    pictures
        Figures by name: ``front3d``, ``parallel``, ``convergence``, ``windows``, ``robustness``.
    baselines, ensembles, robustness
        Comparisons, where they were made.
    correlations
        Of the objectives; None where there is nothing to correlate.
    frequency
        None where the front has no members.
    heat_maps
        Pictures of ``moevoprune explain``.
    settings
        Text of the settings file.
    versions, commands, files
        How to reproduce the run, and what it left.
    left_out
        What is not in the page, and why.
    """

    key: str
    name: str
    data_hash: str | None
    headline: tuple[str, ...]
    merged: str
    asked: tuple[Fact, ...]
    data: tuple[Fact, ...]
    classes: Table | None
    view: FrontView | None
    named: Table | None
    members: Table
    convergence: Table | None
    pictures: Mapping[str, Picture]
    baselines: Table | None
    ensembles: tuple[Table, ...]
    robustness: tuple[Table, ...]
    correlations: Table | None
    frequency: Frequency | None
    heat_maps: tuple[Picture, ...]
    settings: str
    versions: tuple[Fact, ...]
    commands: tuple[Fact, ...]
    files: Table
    left_out: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class SeveralRuns:
    """What several runs are together.

    Attributes
    ----------
    runs
        A row for each.
    merged
        The merged front for the plot; None where the fronts cannot be merged or have no members.
    named
        Its members worth naming.
    note
        About the merged front, or why there is none.
    """

    runs: Table
    merged: FrontView | None
    named: Table | None
    note: str


def describe_run(folder: Path, front: Front, key: str, with_pictures: bool = True) -> RunReport:
    """Gather what a report says about a run.

    Parameters
    ----------
    folder
        The run folder. Of its files only the front is needed; the others are read where they are.
    front
        Its front.
    key
        Starts the identifiers of its section, unique in the page.
    with_pictures
        Whether to put the run's figures into the page; with many runs they would make it large.
    """
    run = read_run(folder)
    left_out: list[str] = []
    view = None
    if len(front):
        view = view_front(front, key, view_heat(folder, front, class_labels(front), left_out))
        left_out += _left_out_of(view)
    if not with_pictures:
        left_out.append("figures: there are too many runs in one page")
    return RunReport(
        key=key,
        name=run.name,
        data_hash=entry(run.record, "data", "sha256"),
        headline=_headline(front),
        merged=_merged_note(front, f"{len(run.merged_from)} runs: {', '.join(run.merged_from)}")
        if run.merged_from
        else "",
        asked=asked_facts(run, front),
        data=data_facts(run, front),
        classes=class_rows(front),
        view=view,
        named=None if view is None else named_table(view, front),
        members=member_table(front, view),
        convergence=generations(front),
        pictures=_pictures(folder, run.name) if with_pictures else {},
        baselines=baselines(run),
        ensembles=ensembles(folder, front, left_out),
        robustness=robustness(folder, left_out),
        correlations=correlations(front),
        frequency=_frequency(front, view),
        heat_maps=_heat_maps(folder, left_out) if with_pictures else (),
        settings=run.settings_text,
        versions=version_facts(run),
        commands=commands(run),
        files=file_table(folder),
        left_out=tuple(left_out),
    )


def describe_several(reports: Sequence[RunReport], fronts: Sequence[Front]) -> SeveralRuns:
    """Set runs beside one another, and merge their fronts where they are of one problem.

    Parameters
    ----------
    reports, fronts
        Of the runs, in the same order.
    """
    rows = []
    for report, front in zip(reports, fronts, strict=True):
        metric = short_number(front.dense_test)
        if report.view is None:
            rows.append((report.name, "0", "n/a", "n/a", "n/a", "n/a", metric))
            continue
        knee, best = front.knee(), front.best(quality_objective(front))
        rows.append(
            (
                report.name,
                f"{len(front):,}",
                short_number(front.hypervolume()),
                counted(front, int(front.active[knee])),
                short_number(float(front.test[knee])),
                short_number(float(front.test[best])),
                metric,
            )
        )
    metrics = {front.test_metric for front in fronts}
    metric = measure_name(metrics.pop()) if len(metrics) == 1 else "score"
    header = (
        "run",
        "members",
        "hypervolume",
        "knee keeps",
        f"knee, test {metric}",
        f"best member, test {metric}",
        f"unpruned, test {metric}",
    )
    table = Table("The runs", header, tuple(rows), "Best is best on validation rows. Hypervolume is on them, too.")
    heads = {(front.dense_head.widths, front.class_names) for front in fronts}
    if len(heads) > 1 or len({report.data_hash for report in reports} - {None}) > 1:
        return SeveralRuns(table, None, None, "The runs are about different data or heads: no merged front.")
    try:
        front = Front.merge(fronts)
    except InputError:
        return SeveralRuns(
            table, None, None, "The runs differ in encoding, objectives or number of bits: no merged front."
        )
    if len(front) == 0:
        return SeveralRuns(table, None, None, "No run has members: there is nothing to merge.")
    view = view_front(front, "merged")
    return SeveralRuns(table, view, named_table(view, front), _merged_note(front, f"{len(fronts)} runs"))


def _merged_note(front: Front, runs: str) -> str:
    return (
        f"The merged front of {runs}. It holds the {len(front):,} members that no member of any run dominates. "
        "Each run measured its members on folds of its own, so a merged front flatters itself a little more than "
        "a single one. Members are numbered anew."
    )


def _headline(front: Front) -> tuple[str, ...]:
    metric = measure_name(front.test_metric)
    dense = f"the unpruned head has {short_number(front.dense_test)}"
    if len(front) == 0:
        return (f"The search found no feasible mask; {dense} test {metric}.",)
    landmarks = find_landmarks(front)
    knee, close = landmarks.knee, landmarks.close
    count = "1 head" if len(front) == 1 else f"{len(front):,} heads"
    sentences = [
        f"{count}; the knee keeps {int(front.active[knee]):,} of {front.n_bits:,} {unit(front.encoding)} and has "
        f"{short_number(float(front.test[knee]))} test {metric}; {dense}."
    ]
    if close != knee:
        sentences.append(
            f"The smallest head within {bare(str(CLOSE))} of the best on validation rows keeps "
            f"{int(front.active[close]):,} and has {short_number(float(front.test[close]))}."
        )
    return tuple(sentences)


def _frequency(front: Front, view: FrontView | None) -> Frequency | None:
    if view is None:
        return None
    explanation = explain_front(front)
    grids = []
    for index, group in enumerate(view.grid.groups):
        # of the members: the dense head, the last, keeps everything
        cells = (view.grid.part(index)[:-1] > 0).mean(axis=0)
        label = f"Share of the members that keep each of the {group.count:,} {group.label}"
        levels = np.ceil(FULL * cells).astype(np.uint8)
        grids.append((draw_grid(group, levels, label), f"{label}: the stronger the colour, the more."))
    if not explanation.prunes_features and explanation.units is not None:
        return Frequency(_units_summary(explanation), tuple(grids), _unit_bars(explanation), "hidden unit", "")
    bars = [
        (
            str(feature),
            float(explanation.frequency[feature]),
            f"{explanation.members[feature]:,}",
            short_number(float(explanation.strength[feature])),
        )
        for feature in explanation.top(_LISTED).tolist()
    ]
    members = explanation.members
    by_all = int((members == explanation.n_members).sum())
    summary = (
        f"{explanation.n_members:,} members read {int((members > 0).sum()):,} of {len(members):,} features; "
        f"{by_all:,} of them {'is' if by_all == 1 else 'are'} read by all."
    )
    return Frequency(summary, tuple(grids), tuple(bars), "feature", explanation.strength_name)


def _units_summary(explanation: Explanation) -> str:
    units = explanation.units
    members = units.members if units is not None else np.zeros(0, np.int64)
    return (
        f"{explanation.n_members:,} members; {int((members > 0).sum()):,} of {len(members):,} hidden units are "
        f"active in some, {int((members == explanation.n_members).sum()):,} in all. The encoding prunes no "
        "features: every head reads all."
    )


def _unit_bars(explanation: Explanation) -> tuple[tuple[str, float, str, str], ...]:
    units = explanation.units
    if units is None:
        return ()
    deep = len(set(units.layers.tolist())) > 1
    return tuple(
        (
            f"{units.layers[i] + 1}:{units.units[i]}" if deep else str(units.units[i]),
            float(units.members[i] / explanation.n_members),
            f"{units.members[i]:,}",
            "",
        )
        for i in units.order()[:_LISTED].tolist()
    )


def _pictures(folder: Path, name: str) -> dict[str, Picture]:
    wanted = {
        "front3d": ("The front in its first three objectives, in space", "The first three objectives."),
        "parallel": (
            "The members as lines across their objectives and the test score",
            "Every member is a line; better is up on every axis.",
        ),
        "convergence": (
            "Hypervolume and best value over the evaluations",
            "Hypervolume and the best value of the first objective over the evaluations.",
        ),
        "windows": (
            "Test scores of ensembles of the members in each window of validation scores",
            "Members of each window of validation scores vote.",
        ),
        "robustness": (
            "Test scores of members and ensembles under disturbances of rising severity",
            "Test scores under disturbances of rising severity.",
        ),
    }
    found = {
        figure: read_picture(folder / FIGURES / f"{figure}.png", f"{alt} (run {name})", caption)
        for figure, (alt, caption) in wanted.items()
    }
    return {figure: picture for figure, picture in found.items() if picture is not None}


def _heat_maps(folder: Path, left_out: list[str]) -> tuple[Picture, ...]:
    files = folder / EXPLANATION / FIGURES
    paths = sorted(files.glob("explain_*.png")) if files.is_dir() else []
    shown: list[Picture] = []
    for path in paths:
        about = printable(path.stem.removeprefix("explain_")).replace("_", " ")
        alt = f"Heat maps: where the heads look in images ({about})"
        room = _MOST_HEAT_MAP_TEXT - sum(len(picture.address) for picture in shown)
        picture = read_picture(path, alt, f"Heat maps: {about}.", photo=True) if room > 0 else None
        if picture is not None and len(picture.address) <= room and len(shown) < _MOST_HEAT_MAPS:
            shown.append(picture)
    if len(shown) < len(paths):
        left_out.append(f"{len(paths) - len(shown)} of {len(paths)} pictures of {EXPLANATION}/{FIGURES}")
    return tuple(shown)


def _left_out_of(view: FrontView) -> list[str]:
    left = []
    predictions = view.front.predictions
    if predictions is None:
        left.append(f"confusion matrices: the run has no {PREDICTIONS} (it was written by an older version)")
    elif predictions.task == "classification" and not view.confusions:
        left.append(f"confusion matrices: {len(view.classes):,} classes are too many")
    if not view.grid.groups:
        left.append("pictures of the masks: they have too many bits")
    return left
