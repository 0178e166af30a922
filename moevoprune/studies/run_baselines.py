"""Baselines beside finished runs: on the problem and folds of a run, at a size asked for, kept in its folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from moevoprune.cli.building import alone, build_problem
from moevoprune.cli.processes import run_tasks
from moevoprune.cli.sweeping import SweepRun, usable_jobs
from moevoprune.errors import InputError
from moevoprune.files import write_text
from moevoprune.fronts.comparison import MethodResult, run_method

__all__ = ["BASELINES_FOLDER", "WantedBaseline", "run_baselines"]

BASELINES_FOLDER = "baselines"


@dataclass(frozen=True)
class WantedBaseline:
    """A baseline that is asked for.

    Attributes
    ----------
    run
        The run whose problem it prunes: data, encoding, head, folds and seed.
    method
        A key of :data:`moevoprune.baselines.BASELINES`.
    size
        Active bits of its mask, from 1 to all; ``best_fixed`` chooses its own.
    """

    run: SweepRun
    method: str
    size: int

    @property
    def file(self) -> Path:
        """Where its result is kept."""
        return self.run.out / BASELINES_FOLDER / f"{self.method}-{self.size}.json"


def run_baselines(
    wanted: Sequence[WantedBaseline], jobs: int | None = None, say: Callable[[str], None] | None = None
) -> list[MethodResult]:
    """Carry out baselines, many at a time; those whose result is kept are not repeated.

    Parameters
    ----------
    wanted
        What is asked for; the runs' folders are there.
    jobs
        How many at a time; None for one per usable core.
    say
        Told how far it is, a tenth at a time.

    Returns
    -------
    list of MethodResult
        In the order they were asked for, each with one member: validation score on the run's folds, and test score
        of the head retrained on all training rows.

    Raises
    ------
    InputError
        A method or a size cannot be used, data cannot be read or have changed, or a folder cannot be written.
    """
    kept = [_kept(one) for one in wanted]
    todo = list(dict.fromkeys(one for one, result in zip(wanted, kept, strict=True) if result is None))
    done = {}
    runs = list({one.run.out: one.run for one in todo}.values())
    with closing(run_tasks(_carry_out, todo, usable_jobs(jobs, runs))) as results:
        for one, result in results:
            done[one] = result
            if say is not None and 10 * len(done) // len(todo) > 10 * (len(done) - 1) // len(todo):
                say(f"baselines: {len(done)} of {len(todo)} finished")
    return [result or done[one] for one, result in zip(wanted, kept, strict=True)]


def _kept(wanted: WantedBaseline) -> MethodResult | None:
    """Result of an earlier call; None where there is none, or it is damaged or another's."""
    try:
        result = MethodResult.from_json(wanted.file.read_text(encoding="utf-8"))
    except (InputError, OSError, UnicodeDecodeError):
        return None
    same = (result.data, result.method, result.seed) == (wanted.run.name, wanted.method, wanted.run.seed)
    return result if same and len(result.active) == 1 else None


def _carry_out(wanted: WantedBaseline) -> MethodResult:
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    run = wanted.run
    # one thread, as in the runs: results must not depend on the threads
    with threadpool_limits(1):
        _, problem = build_problem(alone(run.config), run.features())
        with problem:
            result = run_method(problem, wanted.method, run.seed, 1, [wanted.size])
    result = replace(result, data=run.name)
    try:
        wanted.file.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{wanted.file.parent}: cannot be made ({error.strerror})") from None
    write_text(wanted.file, result.to_json())
    return result
