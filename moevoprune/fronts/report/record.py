"""The files of a run folder that a report can do without: its settings and its record."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moevoprune.errors import printable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["RunFiles", "get", "list_at", "number_at", "read_run"]


@dataclass(frozen=True, eq=False)
class RunFiles:
    """What a run folder holds beside its front.

    Attributes
    ----------
    folder
        The run folder.
    record
        ``run.json``; empty where it is missing or broken.
    settings
        ``config.toml``, likewise.
    settings_text
        The text of that file, or "".
    """

    folder: Path
    record: Mapping[str, Any]
    settings: Mapping[str, Any]
    settings_text: str

    @property
    def name(self) -> str:
        """Name of the folder."""
        return printable(self.folder.resolve().name) or "run"


def read_run(folder: Path) -> RunFiles:
    """Read the record and the settings of a run; a file that is missing or broken is empty.

    Parameters
    ----------
    folder
        The run folder.
    """
    record: Any = {}
    settings: dict[str, Any] = {}
    text = _text(folder / "config.toml")
    with suppress(ValueError, RecursionError):
        record = json.loads(_text(folder / "run.json") or "{}")
    with suppress(ValueError, RecursionError):
        settings = tomllib.loads(text)
    lines = "\n".join(printable(line) for line in text.splitlines())
    return RunFiles(folder, record if isinstance(record, dict) else {}, settings, lines)


def get(record: Any, *keys: str) -> Any:
    """A value deep in a record; None where there is none."""
    for key in keys:
        record = record.get(key) if isinstance(record, Mapping) else None
    return record


def number_at(record: Any, *keys: str) -> int | float | None:
    """A number deep in a record; None where there is none, or something else."""
    value = get(record, *keys)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def list_at(record: Any, *keys: str) -> list[Any]:
    """A list deep in a record; empty where there is none, or something else."""
    value = get(record, *keys)
    return value if isinstance(value, list) else []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
