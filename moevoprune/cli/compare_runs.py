"""``moevoprune compare-runs``: runs of several seeds side by side.

The command's options are part of every ``--help``, so what takes seconds to import is imported where it is used.
"""

from __future__ import annotations

import json
import math
import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moevoprune.errors import InputError, printable
from moevoprune.fronts.run_folder import (
    FIGURES,
    FRONT,
    MEASURED,
    MERGED_FROM,
    RECORD,
    SETTINGS,
    entry,
    folder_name,
    read_record,
)
from moevoprune.fronts.tables import aligned, csv_text, markdown_code, markdown_table, markdown_text
from moevoprune.fronts.wording import bare, unit

if TYPE_CHECKING:
    from moevoprune.fronts.front import Front
    from moevoprune.fronts.seeds import RunScores, SeedComparison

__all__ = ["DESCRIPTION", "HELP", "add_arguments", "compare_runs"]

HELP = "runs of several seeds side by side, and their merged front"
DESCRIPTION = (
    "Set runs of several seeds, or of several searches, on the same problem and data side by side: hypervolume "
    "and its spread, what the runs attain at each size, how far their masks agree, and their merged front."
)

_TABLE, _SCORES, _MERGED = "compare-runs.md", "runs.csv", "merged"
_ATTAINMENT, _FRONT = "attainment.png", "front.png"
_HEADS = ("run", "seed", "search", "members", "in merged")
_EXPLAINED = (
    "Members are those of a run's front; in merged are those that no member of any run dominates. The merged "
    "front chooses among all runs by values that each run measured on its own folds, so it flatters itself a "
    "little more than a single one.",
    "Knee is the member nearest to the ideal point: its active bits, its quality on the validation folds (val), "
    "and on the test rows, which took no part in the choice.",
    "hv val is the hypervolume of the members' (validation error, share of active bits) up to the point (1, 1), "
    "hv test that of test errors, hv log the same with the bits on a log scale, log(active) / log(bits). Of "
    "regression R² counts as accuracy. hv all is the hypervolume of all objectives on validation, as a share of "
    "the box that the runs have in common.",
    "Mean, sd (sample standard deviation), min and max are over the runs.",
    "Attainment: the median surface is what at least half of the runs reach with at most so many bits; the band "
    "lies between what one and what all of them reach. On the test rows the best member for a size is read off "
    "these rows themselves, alike for all runs, as it is for hv test.",
)
# by measure, as in the table
_MEASURED = {
    "knee_active": "knee bits",
    "knee_validation": "knee val",
    "knee_test": "knee test",
    "validation_hypervolume": "hv val",
    "test_hypervolume": "hv test",
    "test_hypervolume_log": "hv log",
    "hypervolume": "hv all",
}


@dataclass(frozen=True)
class _Run:
    """One run: what it is called, and what its files say of it."""

    name: str
    seed: int | None
    search: str | None
    evaluations: int | None
    settings: dict[str, Any]


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    parser.add_argument("run", nargs="+", metavar="RUN", help="run folders, at least two, on the same data")
    parser.add_argument("--out", metavar="DIR", help="folder (default: a new one under comparisons/)")
    parser.add_argument("--quiet", action="store_true", help="print errors only")


def compare_runs(arguments: Namespace) -> int:
    """Carry out ``moevoprune compare-runs``; returns the exit code."""
    from moevoprune.cli.building import Voice
    from moevoprune.cli.runs import load_fronts
    from moevoprune.files import write_text
    from moevoprune.fronts.plots import plot_attainment, plot_front, save_figure
    from moevoprune.fronts.seeds import compare_fronts

    say = Voice(arguments.quiet)
    folders = [Path(run) for run in arguments.run]
    _check_folders(folders)
    out = _out_folder(arguments.out, folders)
    fronts = load_fronts(folders)
    _check_alike(folders, fronts)
    runs = _describe(folders)
    comparison = compare_fronts(fronts)

    table, notes = _table(runs, comparison), _notes(runs)
    save_figure(plot_attainment(comparison.attainments), out / FIGURES / _ATTAINMENT)
    save_figure(plot_front(comparison.merged), out / FIGURES / _FRONT)
    comparison.merged.save(out / _MERGED)
    _write_about_merged(out / _MERGED, folders[0], runs)
    write_text(out / _SCORES, _csv(runs, comparison))
    command = shlex.join(["moevoprune", "compare-runs", *arguments.run])
    write_text(out / _TABLE, _markdown(command, table, comparison, notes))

    for line in [*aligned(table), "", *_sentences(comparison), *notes]:
        say(printable(line))
    written = [_TABLE, _SCORES, f"{_MERGED}/", f"{FIGURES}/{_ATTAINMENT}", f"{FIGURES}/{_FRONT}"]
    say("")
    say(printable(f"written to {out}: {', '.join(written)}"))
    return 0


def _check_folders(folders: Sequence[Path]) -> None:
    if len(folders) < 2:
        runs = sorted(path.parent for path in folders[0].glob("*/front.npz"))
        if runs:
            raise InputError(
                f"{folders[0]}: is a folder of runs, not a run: give the runs, e.g. {runs[0]} and the others in it"
            )
        raise InputError(
            f"{folders[0]}: is a single run, and compare-runs sets several beside one another: give at least two"
        )
    seen: dict[Path, Path] = {}
    for folder in folders:
        try:
            place = folder.resolve()
        except (OSError, RuntimeError):
            raise InputError(f"{folder}: is a loop of links: name the run folder itself") from None
        if place in seen:
            raise InputError(f"{folder}: was named twice: a run beside itself has no spread; name it once")
        seen[place] = folder


def _out_folder(out: str | None, folders: Sequence[Path]) -> Path:
    from moevoprune.cli.building import free_folder

    if out == "":
        raise InputError("--out is empty: name a folder, or leave it out")
    if out is None:
        name = folder_name(folders[0])
        return free_folder(Path("comparisons"), f"{name}-and-{len(folders) - 1}-more")
    # its figures would take the place of the run's own
    if (Path(out) / FRONT).exists():
        raise InputError(f"{out}: is a run folder: choose another --out folder")
    return Path(out)


def _check_alike(folders: Sequence[Path], fronts: Sequence[Front]) -> None:
    """Say in which way a run is about something else than the first one."""
    first = fronts[0]
    for folder, front in zip(folders, fronts, strict=True):
        for what, ours, theirs in (
            ("encoding", front.encoding, first.encoding),
            ("list of objectives", ", ".join(front.objectives), ", ".join(first.objectives)),
            ("number of bits", front.n_bits, first.n_bits),
        ):
            if ours != theirs:
                raise InputError(
                    f"{folder}: its {what} ({ours}) is not that of {folders[0]} ({theirs}): give runs of one "
                    "problem"
                )


def _describe(folders: Sequence[Path]) -> list[_Run]:
    from moevoprune.cli.config import exists, read_toml

    names = [folder_name(folder) for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    runs = []
    for folder, name in zip(folders, names, strict=True):
        record = read_record(folder)
        # a front that was saved from Python has no settings
        settings = read_toml(folder / SETTINGS) if exists(folder / SETTINGS) else {}
        search = entry(settings, "search", "algorithm")
        runs.append(
            _Run(
                name=name,
                seed=_whole(entry(record, "seed")),
                search=search if isinstance(search, str) else None,
                evaluations=_whole(entry(record, "evaluations")),
                settings=settings,
            )
        )
    return runs


def _write_about_merged(merged: Path, first: Path, runs: Sequence[_Run]) -> None:
    """Give the merged front what commands ask a run folder for: where its data are, and what they were."""
    from moevoprune.files import read_text, write_text

    for name in (SETTINGS, *MEASURED):
        # of an earlier comparison in this folder
        (merged / name).unlink(missing_ok=True)
    record = read_record(first)
    kept: dict[str, Any] = {name: record[name] for name in ("data", "extraction") if name in record}
    kept[MERGED_FROM] = [run.name for run in runs]
    write_text(merged / RECORD, json.dumps(kept, indent=2) + "\n")
    if (first / SETTINGS).exists():
        write_text(merged / SETTINGS, read_text(first / SETTINGS))


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None


def _notes(runs: Sequence[_Run]) -> list[str]:
    """Tell of settings that make the runs' validation values differ in kind."""
    different = []
    for section in ("problem", "head"):
        sections = [run.settings.get(section) for run in runs]
        tables = [table for table in sections if isinstance(table, dict)]
        for key in sorted({key for table in tables for key in table}):
            values = [str(table.get(key)) for table in tables]
            if len(set(values)) > 1:
                different.append(f"{section}.{key} ({', '.join(dict.fromkeys(values))})")
    if not different:
        return []
    return [f"the runs differ in {'; '.join(different)}: their validation values are not measured alike"]


def _table(runs: Sequence[_Run], comparison: SeedComparison) -> list[list[str]]:
    """Cells of the table: a line per run, the merged front, and what sums the runs up."""
    lines = [[*_HEADS, *_MEASURED.values()]]
    for run, scores in zip(runs, comparison.runs, strict=True):
        about = ["-" if value is None else str(value) for value in (run.seed, run.search)]
        lines.append([run.name, *about, *_cells(scores)])
    lines.append(["merged", "", "", *_cells(comparison.merged_scores)])
    spreads = {measure: comparison.spread(measure) for measure in _MEASURED}
    for name, attribute in (("mean", "mean"), ("sd", "deviation"), ("min", "low"), ("max", "high")):
        values = [
            _number(measure, None if spread is None else getattr(spread, attribute))
            for measure, spread in spreads.items()
        ]
        lines.append([name, *[""] * (len(_HEADS) - 1), *values])
    return lines


def _cells(scores: RunScores) -> list[str]:
    measured = [_number(measure, getattr(scores, measure)) for measure in _MEASURED]
    return [str(scores.members), str(scores.in_merged), *measured]


def _number(measure: str, value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    if measure == "knee_active":
        return f"{value:.1f}".removesuffix(".0")
    return bare(f"{value:.4f}" if abs(value) < 10 else f"{value:.5g}")


def _sentences(comparison: SeedComparison) -> list[str]:
    """What the runs have in common, in words."""
    agreement, merged = comparison.agreement, comparison.merged
    total, bit = sum(run.members for run in comparison.runs), unit(merged.encoding, 1)
    correlation = "none" if math.isnan(agreement.frequency) else _two(agreement.frequency)
    return [
        f"{len(merged)} of {total} members make up the merged front",
        f"agreement, mean over pairs of runs: Jaccard index of the knees' {bit}s {_two(agreement.knees)} "
        f"(by chance {_two(agreement.knees_by_chance)}); rank correlation of how often each {bit} is active "
        f"{correlation}",
    ]


def _markdown(
    command: str, table: Sequence[Sequence[str]], comparison: SeedComparison, notes: Sequence[str]
) -> str:
    parts = [
        "# Runs side by side",
        "",
        markdown_code(command),
        "",
        *markdown_table([[markdown_text(cell) for cell in line] for line in table]),
        "",
    ]
    for sentence in [*_sentences(comparison), *notes]:
        parts += [markdown_text(f"{sentence[0].upper()}{sentence[1:]}."), ""]
    parts += [
        f"![Attainment surfaces: what one, half and all of the runs reach at each size]({FIGURES}/{_ATTAINMENT})",
        "",
        f"![The merged front]({FIGURES}/{_FRONT})",
        "",
        *(f"* {line}" for line in _EXPLAINED),
    ]
    return "\n".join(parts) + "\n"


def _csv(runs: Sequence[_Run], comparison: SeedComparison) -> str:
    """A row per run and one for the merged front as CSV text, numbers to six digits after the point."""
    rows = [
        {"run": run.name, "seed": run.seed, "search": run.search, "evaluations": run.evaluations, **asdict(scores)}
        for run, scores in zip(runs, comparison.runs, strict=True)
    ]
    rows.append({**dict.fromkeys(rows[0]), "run": "merged", **asdict(comparison.merged_scores)})
    return csv_text(rows[0], (row.values() for row in rows))


def _two(value: float) -> str:
    return bare(f"{value:.2f}")
