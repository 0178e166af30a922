"""What a run folder holds: the names of its files, and its record.

Commands import this module for ``--help`` too: nothing in it takes time to import.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moevoprune.errors import InputError, printable
from moevoprune.files import read_text

__all__ = [
    "ABOUT",
    "ENSEMBLES",
    "ENSEMBLES_CSV",
    "EXPLANATION",
    "FIGURES",
    "FRONT",
    "FRONT_CSV",
    "HEADS",
    "JOURNAL",
    "MEASURED",
    "MEMBER_MAPS",
    "MERGED_FROM",
    "PREDICTIONS",
    "RECORD",
    "REPORT",
    "ROBUSTNESS",
    "ROBUSTNESS_FIGURE",
    "SETTINGS",
    "WINDOWS_CSV",
    "WINDOWS_FIGURE",
    "entry",
    "folder_name",
    "list_at",
    "number_at",
    "read_record",
]

SETTINGS, RECORD, JOURNAL = "config.toml", "run.json", "evaluations.journal"
FRONT, FRONT_CSV, HEADS, PREDICTIONS = "front.npz", "front.csv", "heads.safetensors", "predictions.npz"
ENSEMBLES, ENSEMBLES_CSV, WINDOWS_CSV = "ensembles.json", "ensembles.csv", "windows.csv"
MEMBER_MAPS, ROBUSTNESS, REPORT = "member_maps.npz", "robustness.csv", "report.html"
# folders in it
FIGURES, EXPLANATION = "figures", "explanation"
WINDOWS_FIGURE, ROBUSTNESS_FIGURE = f"{FIGURES}/windows.png", f"{FIGURES}/robustness.png"

MEASURED = (
    ENSEMBLES,
    ENSEMBLES_CSV,
    WINDOWS_CSV,
    WINDOWS_FIGURE,
    ROBUSTNESS,
    ROBUSTNESS_FIGURE,
    MEMBER_MAPS,
)
"""What was measured on one front, whose members go by their numbers: of no use beside another one."""

ABOUT: Mapping[str, str] = {
    SETTINGS: "the settings",
    RECORD: "versions, data hash, seed, seconds",
    JOURNAL: "every mask evaluated; what makes --resume exact",
    FRONT: "masks and objective values",
    FRONT_CSV: "the members as a table",
    HEADS: "the trained heads",
    PREDICTIONS: "what the members predict for validation and test rows",
    ENSEMBLES: "ensembles: who votes with what weight, and the scores",
    ENSEMBLES_CSV: "the ensembles as a table",
    WINDOWS_CSV: "ensembles of the members in windows of validation scores",
    MEMBER_MAPS: "small heat maps of every member over a few test images",
    ROBUSTNESS: "accuracy under noise and corruptions",
    REPORT: "one page about it all",
}
"""What each file holds, in words."""

_LARGEST = 1e300

MERGED_FROM = "merged_from"
"""Where the record of a merged front has the names of its runs; the other runs have no such entry."""


def folder_name(run: Path) -> str:
    """Name of a run folder, also where it is given as ``.``; fit to be shown and written."""
    try:
        name = run.resolve().name
    except (OSError, RuntimeError):
        # a loop of links: what is in it cannot be read, and that is said elsewhere
        name = run.name
    return printable(name) or "run"


def read_record(run: str | Path) -> dict[str, Any]:
    """What a run says of itself, ``run.json``; nothing for a front that was saved from Python.

    Parameters
    ----------
    run
        The run folder.

    Raises
    ------
    InputError
        The file cannot be read, or is damaged.
    """
    path = Path(run) / RECORD
    try:
        record = json.loads(read_text(path))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path}: is damaged: it is no JSON") from None
    return record if isinstance(record, dict) else {}


def entry(record: Any, *keys: str) -> Any:
    """Value deep in a record; None where there is none."""
    for key in keys:
        record = record.get(key) if isinstance(record, Mapping) else None
    return record


def number_at(record: Any, *keys: str) -> int | float | None:
    """A number deep in a record; None where there is none, or something else."""
    value = entry(record, *keys)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    # whole numbers of JSON have no limit
    return value if abs(value) < _LARGEST else None


def list_at(record: Any, *keys: str) -> list[Any]:
    """A list deep in a record; empty where there is none, or something else."""
    value = entry(record, *keys)
    return value if isinstance(value, list) else []
