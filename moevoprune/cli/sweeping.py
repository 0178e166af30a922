"""Many runs, each into a folder of its own: what ``moevoprune sweep`` and the experiments have in common."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moevoprune.cli.building import INTERRUPTED, Voice, alone, build_problem, configure, read_problem
from moevoprune.cli.config import RunConfig, changed_settings, exists, parse_config, read_toml
from moevoprune.cli.processes import features_of, free_name, run_in_processes, run_tasks
from moevoprune.cli.run import Extras, check_text, is_finished, run_problem
from moevoprune.device import usable_cores
from moevoprune.errors import InputError, words_of
from moevoprune.features import FeatureSet
from moevoprune.files import remove_leftovers
from moevoprune.fronts.front import Front
from moevoprune.fronts.run_folder import SETTINGS, entry, read_record
from moevoprune.locks import only_writer

__all__ = [
    "FRONTS_ONLY",
    "Problem",
    "SweepRun",
    "WantedRun",
    "check_folders",
    "resolve",
    "run_locally",
    "run_wanted",
    "search_into",
    "tidy",
    "usable_jobs",
    "why_of",
]

FRONTS_ONLY = Extras(baselines=False, pages=False, maps=False)


@dataclass(frozen=True)
class WantedRun:
    """A run that is asked for.

    Attributes
    ----------
    source
        What ``moevoprune run`` takes: a shipped problem's name, a TOML file, features, or images.
    seed
        Seed of everything random.
    variant
        What the settings are called, fit for a folder name.
    settings
        Settings by their dotted keys, e.g. ``{"search.algorithm": "nsga2"}``; they replace those of the source.
    """

    source: str
    seed: int
    variant: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Problem:
    """A problem of a sweep, with its data.

    Attributes
    ----------
    name
        What it is called.
    asked, config
        Its settings as they were given, and with everything filled in that was left open.
    features
        Its data.
    """

    name: str
    asked: RunConfig
    config: RunConfig
    features: FeatureSet

    def of_seed(self, seed: int, out: Path, variant: str = "") -> SweepRun:
        """Make the run of a seed; its folder lies in ``out``."""
        return SweepRun(
            self.name,
            self.config.model_copy(update={"seed": seed}),
            out / f"{self.name}-seed{seed}",
            self.features.content_hash,
            self.features.n_train * self.features.n_features,
            variant,
        )


@dataclass(frozen=True)
class SweepRun:
    """A run with resolved settings, and where it goes.

    Attributes
    ----------
    name
        Name of the problem.
    config
        Its resolved settings, the seed among them.
    out
        The run folder.
    sha256
        Content hash that the data must have.
    size
        Training rows times features: the longest runs go first.
    variant
        Name of the settings, where there are several.
    """

    name: str
    config: RunConfig
    out: Path
    sha256: str
    size: int
    variant: str = ""

    @property
    def seed(self) -> int:
        """Seed of everything random."""
        return self.config.seed

    def front(self) -> Front:
        """Load the front of the finished run.

        Raises
        ------
        InputError
            It is not there.
        """
        return Front.load(self.out)

    def features(self) -> FeatureSet:
        """Load the data.

        Raises
        ------
        InputError
            They cannot be read, or have changed.
        """
        return features_of(self.config, self.sha256)


def run_wanted(
    wanted: Sequence[WantedRun],
    out: Path,
    jobs: int | None = None,
    say: Callable[[str], None] | None = None,
    extras: Extras = FRONTS_ONLY,
) -> list[SweepRun]:
    """Carry out runs, many at a time, each into ``out/VARIANT/NAME-seedS``; finished ones stay as they are.

    Parameters
    ----------
    wanted
        What is asked for; a source may be there with several variants and seeds.
    out
        Folder of the run folders. What an earlier call left there is gone on with.
    jobs
        Runs at a time; None for one per usable core.
    say
        Told when a run is finished.
    extras
        What the run folders hold besides settings, journal, front and record; by default nothing.

    Returns
    -------
    list of SweepRun
        In the order they were asked for.

    Raises
    ------
    InputError
        A source or a setting cannot be used, a folder holds another run, or a run failed; the others are finished.
    """
    runs = _runs(wanted, out, say)
    check_folders(runs, resume=True)
    todo = [run for run in runs if not is_finished(run.out, extras.pages)]
    tidy(runs)
    todo.sort(key=lambda run: -run.size)
    failed = {}
    done = len(runs) - len(todo)
    with closing(run_locally(todo, usable_jobs(jobs, todo), extras)) as results:
        for run, why in results:
            done += 1
            if why is not None:
                failed[run.out] = why
            if say is not None:
                say(f"{run.variant}, {run.name}, seed {run.seed}: {why or 'finished'}   ({done}/{len(runs)})")
    if failed:
        where, why = next(iter(failed.items()))
        raise InputError(
            f"{len(failed)} of {len(runs)} runs failed, the first is {where}: {why}; the same command goes on"
        )
    return runs


def _runs(wanted: Sequence[WantedRun], out: Path, say: Callable[[str], None] | None) -> list[SweepRun]:
    """Load every source and resolve every variant once: what cannot be used is said before anything is written."""
    names: dict[str, str] = {}
    found: dict[tuple[str, str], Problem] = {}
    runs = []
    for one in wanted:
        if one.source not in names:
            names[one.source] = free_name(one.source, {name.casefold() for name in names.values()})
        key = one.source, one.variant
        if key not in found:
            options = {name: (f"{one.variant}: {name}", value) for name, value in one.settings.items()}
            loaded = [problem for (source, _), problem in found.items() if source == one.source]
            found[key] = resolve(names[one.source], one.source, options, (), say, loaded)
        runs.append(found[key].of_seed(one.seed, out / one.variant, one.variant))
    return runs


def resolve(
    name: str,
    source: str,
    options: Mapping[str, tuple[str, Any]],
    assignments: Sequence[str],
    say: Callable[[str], None] | None = None,
    loaded: Sequence[Problem] = (),
) -> Problem:
    """Read a source, change its settings, and fill in what they leave open.

    Parameters
    ----------
    name
        What to call the problem.
    source
        As of :class:`WantedRun`.
    options, assignments
        As of :func:`moevoprune.cli.building.configure`.
    say
        Told what happens while images are read.
    loaded
        Problems whose data need not be loaded again where they are the same.

    Raises
    ------
    InputError
        The source or a setting cannot be used.
    """
    where, raw = read_problem(source)
    asked = configure(raw, where, options, assignments)
    check_text(asked)
    same = (
        other.features
        for other in loaded
        if (other.asked.data, other.asked.backbone) == (asked.data, asked.backbone)
    )
    try:
        config, problem = build_problem(alone(asked), next(same, None), say)
    except InputError as error:
        # there are several sources: which one is it?
        said, path = str(error), Path(source)
        named = path.name in said or said.startswith(f"{path.stem}:")
        raise InputError(said if named else f"{source}: {said}") from None
    with problem:
        # of one machine with all its cores, where somebody continues a run by itself
        config = config.model_copy(update={"compute": config.compute.model_copy(update={"jobs": None})})
        return Problem(name, asked, config, problem.features)


def check_folders(runs: Sequence[SweepRun], resume: bool) -> None:
    """Refuse folders that hold something else than these runs.

    Raises
    ------
    InputError
        One does, or holds a run that is not to be resumed.
    """
    for run in runs:
        if not exists(run.out / SETTINGS):
            continue
        if not resume:
            raise InputError(
                f"{run.out}: holds another run: add --resume to continue, or choose another --out folder"
            )
        path = run.out / SETTINGS
        changes = changed_settings(parse_config(read_toml(path), str(path)), run.config)
        data = entry(read_record(run.out), "data", "sha256")
        if data is not None and data != run.sha256:
            changes.append("the data have changed")
        if changes:
            raise InputError(
                f"{run.out}: cannot resume, settings changed ({'; '.join(changes[:3])}): give the same settings, "
                "or choose another folder"
            )


def tidy(runs: Sequence[SweepRun]) -> None:
    """Remove what a killed process has left in the folders of runs, also of finished ones, which nobody opens."""
    for run in runs:
        if not run.out.is_dir():
            continue
        # one that somebody else writes to is theirs to tidy
        with suppress(InputError), only_writer(run.out):
            remove_leftovers(run.out)


def usable_jobs(asked: int | None, runs: Sequence[SweepRun]) -> int:
    """How many runs go on at a time: as many as asked for, else one per usable core, or one on CUDA."""
    if asked is not None:
        return min(asked, max(len(runs), 1))
    if any(run.config.compute.device.startswith("cuda") for run in runs):
        return 1
    return max(1, min(usable_cores(), len(runs)))


@dataclass(frozen=True)
class _Task:
    """A run as a process of its own gets it."""

    run: SweepRun
    extras: Extras


def run_locally(
    runs: Sequence[SweepRun], jobs: int, extras: Extras
) -> Generator[tuple[SweepRun, str | None], None, None]:
    """Run what is to be run; where a process ends unexpectedly, the others' runs are taken up again one by one.

    Parameters
    ----------
    runs
        In the order in which they begin.
    jobs
        How many at a time, each in a process of its own.
    extras
        What the run folders hold besides the front.

    Yields
    ------
    run, why
        As they are finished; why a run failed, None where it did not.
    """
    waiting = {run.out: _Task(run, extras) for run in runs}
    run_all = run_tasks
    while waiting:
        try:
            with closing(run_all(_carry_out, list(waiting.values()), jobs)) as results:
                for task, error in results:
                    del waiting[task.run.out]
                    yield task.run, error
        except BrokenProcessPool:
            if run_all is run_in_processes:
                # the first was the one under way
                task = waiting.pop(next(iter(waiting)))
                yield task.run, "its process ended unexpectedly (not enough memory?)"
            run_all, jobs = run_in_processes, 1


def _carry_out(task: _Task) -> str | None:
    """Carry out a run; returns why it failed, None where it did not."""
    try:
        return search_into(task.run.config, task.run.features(), task.run.out, task.extras)
    except Exception as error:
        # whatever it is: the other runs have nothing to do with it
        return why_of(error)


def search_into(config: RunConfig, features: FeatureSet, out: Path, extras: Extras) -> str | None:
    """Carry out or complete one run, quietly and with one thread.

    Raises
    ------
    InputError
        As :func:`moevoprune.cli.run.run_problem`.
    KeyboardInterrupt
        It was interrupted.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # one thread, as in the trainer: results must not depend on the threads, nor seconds on the other runs
    with only_writer(out), threadpool_limits(1):
        _, problem = build_problem(alone(config), features)
        with problem:
            code = run_problem(config, problem, out, True, Voice(quiet=True), extras)
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    return None


def why_of(error: Exception) -> str:
    """Say in words why a run failed."""
    said = words_of(error)
    return said if isinstance(error, InputError) else f"{type(error).__name__}: {said}"
