"""What is measured of finished runs: once each, several at a time, kept in their folders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Any

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from moevoprune.cli.processes import run_tasks
from moevoprune.cli.sweeping import SweepRun, usable_jobs
from moevoprune.files import write_text
from moevoprune.fronts.tables import csv_rows, csv_text

__all__ = ["measured"]

Rows = list[dict[str, Any]]
Measure = Callable[[SweepRun], Rows]


def measured(
    runs: Sequence[SweepRun],
    measure: Measure,
    name: str,
    jobs: int | None = None,
    say: Callable[[str], None] | None = None,
) -> Rows:
    """Measure runs that are not measured yet, and read what was measured of all of them.

    Parameters
    ----------
    runs
        Finished ones.
    measure
        Makes rows of a run, at least one, all with the same keys: words, and numbers, of which six digits after
        the point are kept. A function of a module, where several run at a time.
    name
        Of the CSV file in the run folder. What is there is not measured again.
    jobs
        How many at a time; None for one per usable core.
    say
        Told when a run is measured.

    Returns
    -------
    list of dict
        The rows of the first run, those of the second and so on, as they were read: every number is a float.
        Before what was measured come the run's ``data``, ``seed`` and ``encoding``.
    """
    todo = [run for run in runs if not (run.out / name).exists()]
    with closing(run_tasks(partial(_keep, measure, name), todo, usable_jobs(jobs, todo))) as results:
        for done, (run, _) in enumerate(results, start=1):
            if say is not None:
                say(f"{run.variant}, {run.name}, seed {run.seed}: measured   ({done}/{len(todo)})")
    return [row for run in runs for row in _read(run, name)]


def _keep(measure: Measure, name: str, run: SweepRun) -> None:
    with threadpool_limits(1):
        rows = measure(run)
    write_text(run.out / name, csv_text(rows[0], (row.values() for row in rows)))


def _read(run: SweepRun, name: str) -> Rows:
    header, *rows = csv_rows((run.out / name).read_text(encoding="utf-8"))
    known = {"data": run.name, "seed": run.seed, "encoding": run.config.problem.encoding}
    return [known | {key: _value(text) for key, text in zip(header, row, strict=True)} for row in rows]


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
