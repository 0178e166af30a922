"""``moevoprune report``: one HTML page about a run.

The command's options are part of every ``--help``, so what takes seconds to import is imported where it is used.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from moevoprune.errors import InputError, printable
from moevoprune.fronts.run_folder import REPORT, folder_name

__all__ = ["DESCRIPTION", "HELP", "add_arguments", "report"]

HELP = "one HTML page about a run"
DESCRIPTION = (
    "Write one self-contained HTML page about a run, or about several beside one another with their merged front: "
    "what was asked, the front as an interactive plot, comparisons, settings, and how to repeat it. It opens in "
    "any browser and loads nothing."
)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    parser.add_argument("run", nargs="+", metavar="RUN", help="run folders; the fronts of several are merged, too")
    parser.add_argument(
        "--out",
        metavar="FILE.html",
        help="file to write (default: RUN/report.html; for several runs a new one under reports/)",
    )
    parser.add_argument("--quiet", action="store_true", help="print errors only")


def report(arguments: Namespace) -> int:
    """Carry out the command; returns the exit code."""
    from moevoprune.fronts.report import write_report

    runs = [Path(run) for run in arguments.run]
    path = write_report(runs, _out_file(arguments.out, runs))
    if not arguments.quiet:
        print(f"written to {printable(str(path))}")
    return 0


def _out_file(out: str | None, runs: list[Path]) -> Path:
    if out is not None:
        if Path(out).suffix.lower() not in (".html", ".htm"):
            raise InputError(f"--out {out!r}: name a file that ends in .html")
        return Path(out)
    if len(runs) == 1:
        return runs[0] / REPORT
    name, number = folder_name(runs[0]), 1
    path = Path("reports") / f"{name}.html"
    while path.exists():
        number += 1
        path = Path("reports") / f"{name}-{number}.html"
    return path
