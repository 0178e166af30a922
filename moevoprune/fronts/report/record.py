"""What a report reads of a run folder beside its front: settings and record, where they are there and sound."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moevoprune.errors import InputError, printable
from moevoprune.files import load_toml
from moevoprune.fronts.run_folder import MERGED_FROM, SETTINGS, folder_name, list_at, read_record

__all__ = ["RunFiles", "read_run"]


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
        return folder_name(self.folder)

    @property
    def merged_from(self) -> tuple[str, ...]:
        """Names of the runs whose fronts were merged into this one; empty for a run of its own."""
        return tuple(printable(str(name)) for name in list_at(self.record, MERGED_FROM))


def read_run(folder: Path) -> RunFiles:
    """Read the record and the settings of a run; a file that is missing or broken is empty.

    Parameters
    ----------
    folder
        The run folder.
    """
    record: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    text = ""
    with suppress(InputError):
        record = read_record(folder)
    with suppress(OSError, ValueError, RecursionError):
        text, settings = load_toml(folder / SETTINGS)
    return RunFiles(folder, record, settings, "\n".join(printable(line) for line in text.splitlines()))
