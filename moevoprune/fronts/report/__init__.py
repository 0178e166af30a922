"""One self-contained HTML page about a run: what was asked, the front to play with, how to repeat it."""

from moevoprune.fronts.report.page import write_report

__all__ = ["write_report"]
