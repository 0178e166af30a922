"""Facts of a report: the question, the data, the versions, the commands."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from moevoprune.errors import printable
from moevoprune.fronts.front import Front
from moevoprune.fronts.report.members import class_labels
from moevoprune.fronts.report.record import RunFiles
from moevoprune.fronts.run_folder import entry, list_at, number_at
from moevoprune.fronts.wording import direction, objective_name

__all__ = ["Fact", "asked_facts", "commands", "data_facts", "version_facts"]


@dataclass(frozen=True)
class Fact:
    """A name and what is to be said under it."""

    name: str
    value: str


def asked_facts(run: RunFiles, front: Front) -> tuple[Fact, ...]:
    """What the run was asked to do."""
    settings, record = run.settings, run.record
    source = (
        entry(settings, "data", "features") or entry(settings, "data", "images") or entry(record, "data", "name")
    )
    hidden = "–".join(str(width) for width in front.dense_head.widths)
    objectives = "; ".join(f"{objective_name(front, axis)} ({direction(axis.maximise)})" for axis in front.axes)
    return (
        *_facts(
            ("Problem", source),
            ("Task", front.dense_head.task),
            ("Objectives", objectives),
            ("Encoding", f"{front.encoding}: {front.n_bits:,} bits"),
            ("Unpruned head", f"widths {hidden}, {front.dense_head.n_parameters:,} parameters"),
        ),
        *(_merged_facts(run) if run.merged_from else _search_facts(run)),
    )


def _merged_facts(run: RunFiles) -> tuple[Fact, ...]:
    # settings and record are the first run's: its seed, search and budget are not those of the others
    return _facts(
        ("Merged from", ", ".join(run.merged_from)),
        ("Scored on", "folds of the training rows, each run's own"),
    )


def _search_facts(run: RunFiles) -> tuple[Fact, ...]:
    """How a run searched, and on what it scored masks."""
    settings, record = run.settings, run.record
    size, generations = number_at(settings, "search", "pop"), number_at(settings, "search", "gens")
    most, evaluations = number_at(settings, "search", "budget"), number_at(record, "evaluations")
    budget = []
    if size and generations:
        budget.append(f"{generations} generations of {size}")
    if most:
        budget.append(f"at most {most:,} evaluations")
    if evaluations:
        seconds = number_at(record, "seconds")
        took = "" if seconds is None else f" in {_duration(seconds)}"
        budget.append(f"{evaluations:,} masks evaluated{took}")
    folds = number_at(settings, "problem", "cv")
    repeats = number_at(settings, "problem", "repeats") or 1
    diverged = number_at(record, "diverged")
    scored = None
    if folds is not None:
        scored = "a 25 % hold-out of the training rows" if folds == 1 else f"{folds} folds of the training rows"
        scored += f", {repeats} times" if repeats != 1 else ""
    return _facts(
        ("Scored on", scored),
        ("Algorithm", entry(settings, "search", "algorithm")),
        ("Budget", "; ".join(budget)),
        ("Seed", entry(record, "seed") if entry(record, "seed") is not None else entry(settings, "seed")),
        ("Interrupted", "yes: the front is what was found until then" if entry(record, "interrupted") else None),
        ("Diverged", f"{diverged:,} masks, scored worst" if diverged else None),
    )


def data_facts(run: RunFiles, front: Front) -> tuple[Fact, ...]:
    """Where the rows came from, and how many there are."""
    record = run.record
    extraction = entry(record, "extraction")
    backbone = entry(extraction, "backbone")
    arguments = entry(backbone, "args")
    name = entry(backbone, "name")
    if name and isinstance(arguments, Mapping) and arguments:
        name = f"{name} ({', '.join(f'{key} = {value}' for key, value in arguments.items())})"
    weights = entry(backbone, "weights_name") or entry(backbone, "weights")
    prepared = entry(backbone, "preprocessing")
    ood = ", ".join(str(entry(part, "source")) for part in list_at(extraction, "ood")) or ", ".join(
        str(part) for part in list_at(run.settings, "data", "ood")
    )
    if not ood and "ood_auroc" in front.test_columns:
        ood = "rows that came with the data"
    predictions = front.predictions
    rows = test = None
    if predictions is not None:
        rows = f"{len(np.unique(predictions.validation_rows)):,}, each predicted by heads trained without it"
        test = f"{len(predictions.test_targets):,}, not seen by the search"
    training = number_at(record, "data", "training_rows")
    classes = class_labels(front)
    skipped = number_at(extraction, "n_skipped")
    return _facts(
        ("Name", entry(record, "data", "name")),
        ("Training rows", None if training is None else f"{training:,}"),
        ("Validation rows", rows),
        ("Test rows", test),
        ("Classes", len(classes) if classes else None),
        ("Targets", front.dense_head.widths[-1] if not classes else None),
        ("Features", f"{front.dense_head.n_features:,}"),
        ("SHA-256", entry(record, "data", "sha256")),
        ("Images", entry(extraction, "images")),
        ("Split", entry(extraction, "split")),
        ("Skipped files", f"{skipped:,}" if skipped else None),
        ("Backbone", name),
        ("Weights", weights),
        ("Layer", entry(backbone, "layer")),
        (
            "Preprocessing",
            ", ".join(f"{key} {value}" for key, value in prepared.items())
            if isinstance(prepared, Mapping)
            else None,
        ),
        ("Out-of-distribution", ood),
    )


def version_facts(run: RunFiles) -> tuple[Fact, ...]:
    """What the run was made with."""
    packages = entry(run.record, "packages")
    return _facts(
        ("moevoprune", entry(run.record, "moevoprune")),
        ("Python", entry(run.record, "python")),
        *(packages.items() if isinstance(packages, Mapping) else ()),
        ("Device", entry(run.record, "device")),
        ("Threads", entry(run.record, "threads")),
    )


def commands(run: RunFiles) -> tuple[Fact, ...]:
    """Commands for the folder that holds the run folder."""
    name = shlex.quote(run.name)
    commands = [
        ("The same run again, into another folder", f"moevoprune run {name}/config.toml --out {name}-again"),
        ("The front as a table", f"moevoprune show {name}"),
        ("Which features matter", f"moevoprune explain {name}"),
        ("This page again", f"moevoprune report {name}"),
    ]
    once_more = run.settings_text and not run.merged_from
    return tuple(Fact(*command) for command in (commands if once_more else commands[1:]))


def _facts(*pairs: tuple[str, Any]) -> tuple[Fact, ...]:
    """Facts of which something is known."""
    return tuple(
        Fact(printable(str(name)), printable(str(value)))
        for name, value in pairs
        if value is not None and value != ""
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
