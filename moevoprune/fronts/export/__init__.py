"""Heads as small files of their own, which need no moevoprune to be used."""

from __future__ import annotations

from moevoprune.fronts.export.exporting import Exported, Numbers, export_head, random_rows
from moevoprune.fronts.export.formats import FORMATS, check_installed, format_of
from moevoprune.fronts.export.modules import compact_head, multiply_adds

__all__ = [
    "FORMATS",
    "Exported",
    "Numbers",
    "check_installed",
    "compact_head",
    "export_head",
    "format_of",
    "multiply_adds",
    "random_rows",
]
