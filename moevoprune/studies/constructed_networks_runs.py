"""Comparisons of constructed networks over data sets and seeds; finished ones are read, the others carried out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pathlib import Path

from moevoprune.cli.processes import free_name, run_tasks
from moevoprune.construction.records import ComparisonRecord, ComparisonTask, carry_out
from moevoprune.construction.settings import ConstructionSettings
from moevoprune.construction.tables import Table, open_table, split_table
from moevoprune.device import usable_cores
from moevoprune.errors import InputError
from moevoprune.studies.saying import number

__all__ = ["Records", "describe_task", "run_comparisons", "wanted_comparisons"]

Records = Mapping[str, Sequence[ComparisonRecord]]
"""By data set: a record for each seed."""


def wanted_comparisons(
    sources: Iterable[str], seeds: Sequence[int], settings: ConstructionSettings, budget: int, folder: Path
) -> list[ComparisonTask]:
    """Every data set with every seed; what cannot be used is found before anything is trained.

    Parameters
    ----------
    sources
        Of the data, see :func:`~moevoprune.construction.tables.open_table`.
    seeds
        At least one.
    settings, budget, folder
        As in :class:`~moevoprune.construction.records.ComparisonTask`.

    Returns
    -------
    list of ComparisonTask
        By data set, then by seed.

    Raises
    ------
    InputError
        Data cannot be read, or have too few rows to be split.
    """
    tasks: list[ComparisonTask] = []
    taken: set[str] = set()
    for source in sources:
        data = open_table(source)
        name = free_name(source, taken)
        taken.add(name.casefold())
        split_table(data, seeds[0])
        tasks += [ComparisonTask(name, data, settings, seed, budget, folder) for seed in seeds]
    return tasks


def run_comparisons(
    tasks: Sequence[ComparisonTask], jobs: int | None, say: Callable[[str], None]
) -> dict[str, list[ComparisonRecord]]:
    """Carry out the comparisons that have no record yet, many at a time, and read the others.

    Parameters
    ----------
    tasks
        What is wanted.
    jobs
        How many at a time; None for one per usable core.
    say
        Told of each that is finished.

    Returns
    -------
    dict of list of ComparisonRecord
        By data set; the records are in the order of the tasks.

    Raises
    ------
    InputError
        As :func:`~moevoprune.construction.records.carry_out`, or a worker process came to an end.
    """
    found = {(task.name, task.seed): task.stored() for task in tasks}
    missing = [task for task in tasks if found[task.name, task.seed] is None]
    at_once = min(jobs or usable_cores(), max(1, len(missing)))
    say(f"{len(tasks)} runs, {len(tasks) - len(missing)} of them finished already")
    try:
        with closing(run_tasks(carry_out, missing, at_once)) as done:
            for count, (task, record) in enumerate(done, 1):
                found[task.name, task.seed] = record
                say(f"[{count}/{len(missing)}] {_progress(task, record)}")
    except BrokenProcessPool:
        raise InputError("a worker process ended unexpectedly (not enough memory?): try fewer --jobs") from None
    records: dict[str, list[ComparisonRecord]] = {}
    for (name, _), stored in found.items():
        if stored is not None:
            records.setdefault(name, []).append(stored)
    return records


def describe_task(task: ComparisonTask) -> str:
    """One line about the data of a comparison."""
    features = task.features
    if isinstance(task.data, Table):
        split = "a quarter of the rows, drawn by the seed, is the test part"
    else:
        split = "with a test part of its own"
    outputs = (
        f"{features.n_classes} classes" if features.task == "classification" else f"{features.n_outputs} target(s)"
    )
    return (
        f"{task.name}: {features.task}, {features.n_train:,} training and {features.n_test:,} test rows, "
        f"{features.n_features:,} features, {outputs}; {split}"
    )


def _progress(task: ComparisonTask, record: ComparisonRecord) -> str:
    gone, large, refined = 100 * record.gone("refined"), record["large"].test, record["refined"].test
    return (
        f"{task.name}, seed {task.seed}: {gone:.1f} % of the parameters gone, "
        f"test {number(large)} → {number(refined)}"
    )
