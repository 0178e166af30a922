"""``moevoprune sweep``: problems and seeds as runs of their own, many at a time.

The command's options are part of every ``--help``, so what takes seconds to import is imported where it is used.
"""

from __future__ import annotations

import math
import shlex
import statistics
from argparse import ArgumentParser, Namespace
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moevoprune.cli.options import add_engine_options, add_image_options, add_search_options
from moevoprune.errors import InputError, printable, whole_number, words_of
from moevoprune.fronts.run_folder import RECORD, entry, number_at, read_record
from moevoprune.fronts.tables import aligned, csv_text
from moevoprune.fronts.wording import bare

if TYPE_CHECKING:
    from moevoprune.cli.building import Voice
    from moevoprune.cli.config import RunConfig
    from moevoprune.features import FeatureSet

__all__ = ["DESCRIPTION", "HELP", "add_arguments", "sweep"]

HELP = "several problems and seeds, each as a run of its own"
DESCRIPTION = (
    "Run every problem with every seed, many at a time, each into a run folder DIR/NAME-seedS as `moevoprune run` "
    "writes it, and sum them up in sweep.csv. A run that fails stops no other."
)

TABLE = "sweep.csv"
_FAILED = 1
_DEFAULT_SEEDS = 3
_MOST_SEEDS = 100_000
_HEADS = ("problem", "seed", "members", "hypervolume", "dense test", "best test", "seconds")
_EXPLAINED = (
    "hypervolume: of all objectives on validation; dense test: the unpruned head on the test rows; best test: the "
    "member that is best on validation, on the test rows"
)


@dataclass(frozen=True)
class _Run:
    """One run of a sweep: a problem, by its resolved settings, with a seed."""

    name: str
    config: RunConfig
    out: Path
    sha256: str
    size: int

    @property
    def seed(self) -> int:
        return self.config.seed


@dataclass(frozen=True)
class _Problem:
    """A problem of a sweep: its name, its resolved settings, and what its data are."""

    name: str
    config: RunConfig
    features: FeatureSet | None
    sha256: str
    size: int


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    parser.add_argument(
        "problem",
        nargs="+",
        metavar="PROBLEM",
        help="shipped problems' names, .toml files, .npz files or folders of features, folders of images or "
        "torchvision data sets' names",
    )
    parser.add_argument(
        "--seeds", metavar="N|A,B,C", help="run seeds 1 to N, or those of a list, e.g. 3,7 (default: 3)"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="folder of the run folders (default: a new one under sweeps/)"
    )
    add_search_options(parser)
    add_engine_options(parser)
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="runs at a time on this machine, each in its process (default: one per usable core; 1 on CUDA)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="leave finished runs of DIR as they are, and continue the others"
    )
    parser.add_argument(
        "--no-baselines", action="store_true", help="leave out what sets each front beside four quick rankings"
    )
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    add_image_options(parser)


def sweep(arguments: Namespace) -> int:
    """Carry out ``moevoprune sweep``; returns the exit code."""
    from moevoprune.cli.building import INTERRUPTED, Voice, asked_folder, free_folder
    from moevoprune.cli.run import is_finished
    from moevoprune.files import write_text

    say = Voice(arguments.quiet)
    seeds = _seeds(arguments.seeds)
    out = asked_folder(arguments, "sweep")
    on_ray = _check_engine(arguments)
    problems = _problems(arguments, on_ray, None if arguments.quiet else say)
    if out is None:
        out = free_folder(Path("sweeps"), "-".join(problem.name for problem in problems[:3])[:100])
    runs = [
        _Run(
            problem.name,
            problem.config.model_copy(update={"seed": seed}),
            out / f"{problem.name}-seed{seed}",
            problem.sha256,
            problem.size,
        )
        for problem in problems
        for seed in seeds
    ]
    _check_folders(runs, arguments.resume)
    # a long run that starts last leaves the other cores idle at the end
    todo = sorted((run for run in runs if not is_finished(run.out)), key=lambda run: -run.size)
    jobs = _jobs(arguments.jobs, todo)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be made ({error.strerror}): choose another --out folder") from None

    where = "on Ray" if on_ray else f"{jobs} at a time"
    say(f"problems: {len(problems)}, seeds: {len(seeds)}; {len(todo)} of {len(runs)} to run, {where}, into {out}")
    go_on = f"to go on: {_command(arguments, out)}"
    failed: dict[Path, str] = {}
    done = len(runs) - len(todo)
    try:
        if on_ray:
            results = _run_on_ray(todo, problems, arguments)
        else:
            results = _run_locally(todo, jobs, not arguments.no_baselines)
        with closing(results):
            for run, why in results:
                done += 1
                if why is not None:
                    failed[run.out] = why
                say(printable(f"{run.name} seed {run.seed}: {why or _brief(run)}   ({done}/{len(runs)})"))
    except KeyboardInterrupt:
        say(f"interrupted: {sum(is_finished(run.out) for run in runs)} of {len(runs)} runs are finished; {go_on}")
        return INTERRUPTED
    lines = _lines([run for run in runs if run.out not in failed])
    write_text(out / TABLE, _csv(lines))
    say("")
    for line in aligned([_HEADS, *(_cells(line) for line in lines)]):
        say(printable(line))
    say(f"\n{_EXPLAINED}")
    say(f"written to {out / TABLE}")
    for problem in problems:
        folders = [str(run.out) for run in runs if run.name == problem.name and run.out not in failed]
        if len(folders) > 1:
            say(
                printable(
                    f"the merged front of {problem.name}: {shlex.join(['moevoprune', 'compare-runs', *folders])}"
                )
            )
    if failed:
        say(f"\nfailed, {len(failed)} of {len(runs)}:")
        for folder, why in failed.items():
            say(printable(f"  {folder}: {why}"))
        say(go_on)
        return _FAILED
    return 0


def _seeds(text: str | None) -> list[int]:
    from moevoprune.search.problem import LARGEST_SEED

    words = [word.strip() for word in (str(_DEFAULT_SEEDS) if text is None else text).split(",") if word.strip()]
    try:
        numbers = [int(word) for word in words]
    except ValueError:
        numbers = []
    if not numbers:
        raise InputError(f"--seeds {text}: use the number of seeds, or a list such as 1,5,9")
    if "," not in (text or ""):
        return list(range(1, whole_number("--seeds", numbers[0], 1, _MOST_SEEDS) + 1))
    return list(dict.fromkeys(whole_number("--seeds", number, 0, LARGEST_SEED) for number in numbers))


def _check_engine(arguments: Namespace) -> bool:
    """Whether the runs go to Ray, after a look at whether they could."""
    if arguments.engine != "ray":
        if arguments.address is not None:
            raise InputError("--address is about Ray: add --engine ray, or leave it out")
        return False
    if arguments.jobs is not None:
        raise InputError("--jobs is about this machine, and Ray knows its own: leave it out")
    from moevoprune.search.ray_engine import import_ray

    import_ray()
    return True


def _problems(arguments: Namespace, keep_features: bool, say: Voice | None) -> list[_Problem]:
    """Load every problem once: what cannot be used is said before anything is written."""
    from moevoprune.cli.building import alone, build_problem, configure, read_problem
    from moevoprune.cli.config import set_value
    from moevoprune.cli.processes import free_name
    from moevoprune.cli.run import check_text, search_options

    for assignment in arguments.set or []:
        key = set_value({}, assignment)
        instead = {"seed": "--seeds", "compute.engine": "--engine", "compute.address": "--address"}.get(key)
        if key in ("compute.actors", "compute.jobs"):
            instead = "--jobs"
        if instead:
            raise InputError(f"--set {assignment}: a sweep does not take {key}; use {instead}")
    names: list[str] = []
    problems = []
    for source in arguments.problem:
        where, raw = read_problem(source)
        names.append(free_name(source, {name.casefold() for name in names}))
        asked = configure(raw, where, search_options(arguments), arguments.set or [])
        check_text(asked)
        config, problem = build_problem(alone(asked), say=say)
        features = problem.features
        # of one machine with all its cores, where somebody continues a run by itself
        config = config.model_copy(update={"compute": config.compute.model_copy(update={"jobs": None})})
        problems.append(
            _Problem(
                names[-1],
                config,
                features if keep_features else None,
                features.content_hash,
                features.n_train * features.n_features,
            )
        )
    return problems


def _check_folders(runs: Sequence[_Run], resume: bool) -> None:
    """Refuse folders that hold something else than these runs."""
    from moevoprune.cli.config import changed_settings, exists, parse_config, read_toml
    from moevoprune.fronts.run_folder import SETTINGS

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
                "or choose another --out folder"
            )


def _jobs(asked: int | None, runs: Sequence[_Run]) -> int:
    from moevoprune.device import usable_cores

    if asked is not None:
        return min(whole_number("--jobs", asked, 1, 1024), max(len(runs), 1))
    if any(run.config.compute.device.startswith("cuda") for run in runs):
        return 1
    return max(1, min(usable_cores(), len(runs)))


def _command(arguments: Namespace, out: Path) -> str:
    """The command that goes on with this sweep."""
    words = ["moevoprune", "sweep", *arguments.problem, "--out", str(out)]
    for name in (
        "seeds",
        "algorithm",
        "pop",
        "gens",
        "encoding",
        "objectives",
        "cv",
        "device",
        "engine",
        "address",
        "jobs",
    ):
        value = getattr(arguments, name)
        if value is not None:
            words += [f"--{name}", str(value)]
    for assignment in arguments.set or []:
        words += ["--set", assignment]
    if arguments.no_baselines:
        words.append("--no-baselines")
    # options on images are many: who has typed them has them still
    return shlex.join([*words, "--resume"])


@dataclass(frozen=True)
class _Task:
    """A run as a process of its own gets it."""

    run: _Run
    baselines: bool


def _run_locally(
    runs: Sequence[_Run], jobs: int, baselines: bool
) -> Generator[tuple[_Run, str | None], None, None]:
    """Run what is to be run; where a process ends unexpectedly, the others' runs are taken up again one by one."""
    from concurrent.futures.process import BrokenProcessPool

    from moevoprune.cli.processes import run_in_processes, run_tasks

    waiting = {run.out: _Task(run, baselines) for run in runs}
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
    from moevoprune.cli.processes import features_of

    try:
        features = features_of(task.run.config, task.run.sha256)
        return _search(task.run.config, features, task.run.out, task.baselines, maps=True)
    except Exception as error:
        # whatever it is: the other runs have nothing to do with it
        return _words(error)


def _search(config: RunConfig, features: FeatureSet, out: Path, baselines: bool, maps: bool) -> str | None:
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    from moevoprune.cli.building import INTERRUPTED, Voice, alone, build_problem
    from moevoprune.cli.run import run_problem

    # one thread, as in the trainer: results must not depend on the threads, nor seconds on the other runs
    with threadpool_limits(1):
        _, problem = build_problem(alone(config), features)
        with problem:
            code = run_problem(config, problem, out, True, Voice(quiet=True), baselines, maps)
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    return None


def _run_on_ray(
    runs: Sequence[_Run], problems: Sequence[_Problem], arguments: Namespace
) -> Generator[tuple[_Run, str | None], None, None]:
    """Send whole runs to a Ray; their folders come back as bytes, so that no folder need be shared."""
    from moevoprune.cli.run import add_member_maps
    from moevoprune.search.ray_engine import connect, disconnect

    if not runs:
        return
    ray = connect(arguments.address)
    waiting: dict[Any, _Run] = {}
    try:
        features = {problem.name: ray.put(problem.features) for problem in problems}
        on_gpu = runs[0].config.compute.device.startswith("cuda")
        remote = ray.remote(_carry_out_elsewhere).options(num_cpus=1, num_gpus=1 if on_gpu else 0)
        for run in runs:
            config = run.config.model_dump_json()
            data, begun = features[run.name], _read_folder(run.out)
            waiting[remote.remote(config, data, begun, not arguments.no_baselines)] = run
        while waiting:
            done, _ = ray.wait(list(waiting), num_returns=1, timeout=1.0)
            for reference in done:
                run = waiting.pop(reference)
                try:
                    error, files = ray.get(reference)
                except ray.exceptions.RayError as lost:
                    error, files = _words(lost), {}
                if error is None:
                    _write_folder(run.out, files)
                    add_member_maps(run.out, run.config)
                yield run, error
    finally:
        for reference in waiting:
            ray.cancel(reference, force=True)
        disconnect()


def _carry_out_elsewhere(
    settings: str, features: FeatureSet, begun: dict[str, bytes], baselines: bool
) -> tuple[str | None, dict[str, bytes]]:
    """Carry out a run on a machine of the cluster; returns why it failed, and the files of its folder."""
    from tempfile import TemporaryDirectory

    from moevoprune.cli.config import RunConfig

    with TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        try:
            _write_folder(out, begun)
            error = _search(RunConfig.model_validate_json(settings), features, out, baselines, maps=False)
        except Exception as raised:
            error = _words(raised)
        return error, _read_folder(out)


def _read_folder(folder: Path) -> dict[str, bytes]:
    """Files of a folder by their paths in it; nothing where there is no folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _write_folder(folder: Path, files: dict[str, bytes]) -> None:
    """Write the files of a run folder; its record comes last, as that says that it is whole."""
    from moevoprune.files import atomic_path

    for name in sorted(files, key=lambda name: name == RECORD):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_bytes(files[name])


def _words(error: Exception) -> str:
    said = words_of(error)
    return said if isinstance(error, InputError) else f"{type(error).__name__}: {said}"


@dataclass(frozen=True)
class _Line:
    """A line of the table: a run, or the mean or standard deviation of a problem's runs."""

    problem: str
    seed: str
    members: int | float
    hypervolume: float
    dense_test: float
    best_test: float
    seconds: float

    @property
    def numbers(self) -> tuple[float, ...]:
        return self.members, self.hypervolume, self.dense_test, self.best_test, self.seconds


def _line(run: _Run) -> _Line:
    from moevoprune.fronts.front import Front

    front = Front.load(run.out)
    quality = front.test_metric if front.test_metric in front.objectives else front.objectives[0]
    best = float(front.test_scores()[front.best(quality)]) if len(front) else math.nan
    seconds = number_at(read_record(run.out), "seconds")
    return _Line(
        run.name,
        str(run.seed),
        len(front),
        front.hypervolume(),
        front.dense_test,
        best,
        math.nan if seconds is None else float(seconds),
    )


def _lines(runs: Sequence[_Run]) -> list[_Line]:
    """Lines of finished runs, those of each problem with their mean and standard deviation."""
    lines = []
    for name in dict.fromkeys(run.name for run in runs):
        own = [_line(run) for run in runs if run.name == name]
        columns = list(zip(*(line.numbers for line in own), strict=True))
        lines += own
        lines.append(_Line(name, "mean", *(statistics.fmean(column) for column in columns)))
        if len(own) > 1:
            lines.append(_Line(name, "sd", *(statistics.stdev(column) for column in columns)))
    return lines


def _cells(line: _Line) -> list[str]:
    scores = [bare(f"{value:.4f}") for value in (line.hypervolume, line.dense_test, line.best_test)]
    members = f"{line.members:.1f}".removesuffix(".0")
    return [line.problem, line.seed, members, *scores, f"{line.seconds:.1f}"]


def _brief(run: _Run) -> str:
    line = _line(run)
    return f"{line.members:.0f} members, hypervolume {bare(f'{line.hypervolume:.4f}')}, {line.seconds:.0f} s"


def _csv(lines: Sequence[_Line]) -> str:
    header = [head.replace(" ", "_") for head in _HEADS]
    return csv_text(header, ([line.problem, line.seed, *line.numbers] for line in lines))
