"""``moevoprune sweep``: problems and seeds as runs of their own, many at a time.

The command's options are part of every ``--help``, so what takes seconds to import is imported where it is used.
"""

from __future__ import annotations

import math
import shlex
import statistics
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moevoprune.cli.options import add_engine_options, add_image_options, add_search_options
from moevoprune.errors import InputError, printable, whole_number
from moevoprune.fronts.run_folder import RECORD, number_at, read_record
from moevoprune.fronts.tables import aligned, csv_text
from moevoprune.fronts.wording import bare

if TYPE_CHECKING:
    from moevoprune.cli.building import Voice
    from moevoprune.cli.run import Extras
    from moevoprune.cli.sweeping import Problem, SweepRun
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
    parser.add_argument(
        "--fronts-only",
        action="store_true",
        help="write fronts and their records only: no baselines, figures, ensembles and reports",
    )
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    add_image_options(parser)


def sweep(arguments: Namespace) -> int:
    """Carry out ``moevoprune sweep``; returns the exit code."""
    with ExitStack() as held:
        return _sweep(arguments, held)


def _sweep(arguments: Namespace, held: ExitStack) -> int:
    from moevoprune.cli.building import INTERRUPTED, Voice, asked_folder, free_folder
    from moevoprune.cli.run import Extras, is_finished
    from moevoprune.cli.sweeping import FRONTS_ONLY, check_folders, run_locally, tidy
    from moevoprune.files import make_folder, remove_leftovers, write_text
    from moevoprune.locks import only_writer

    say = Voice(arguments.quiet)
    seeds = _seeds(arguments.seeds)
    out = asked_folder(arguments, "sweep")
    held.enter_context(only_writer(out))
    on_ray = _check_engine(arguments)
    extras = FRONTS_ONLY if arguments.fronts_only else Extras(not arguments.no_baselines)
    problems = _problems(arguments, None if arguments.quiet else say)
    if out is None:
        out = free_folder(Path("sweeps"), "-".join(problem.name for problem in problems[:3])[:100])
        held.enter_context(only_writer(out))
    runs = [problem.of_seed(seed, out) for problem in problems for seed in seeds]
    check_folders(runs, arguments.resume)
    # a long run that starts last leaves the other cores idle at the end
    todo = sorted((run for run in runs if not is_finished(run.out, extras.pages)), key=lambda run: -run.size)
    jobs = _jobs(arguments.jobs, todo)
    try:
        make_folder(out)
    except OSError as error:
        raise InputError(f"{out}: cannot be made ({error.strerror}): choose another --out folder") from None
    remove_leftovers(out)
    tidy(runs)

    where = "on Ray" if on_ray else f"{jobs} at a time"
    say(f"problems: {len(problems)}, seeds: {len(seeds)}; {len(todo)} of {len(runs)} to run, {where}, into {out}")
    go_on = f"to go on: {_command(arguments, out)}"
    failed: dict[Path, str] = {}
    done = len(runs) - len(todo)
    try:
        if on_ray:
            results = _run_on_ray(todo, problems, arguments.address, extras)
        else:
            results = run_locally(todo, jobs, extras)
        with closing(results):
            for run, why in results:
                done += 1
                if why is not None:
                    failed[run.out] = why
                say(printable(f"{run.name} seed {run.seed}: {why or _brief(run)}   ({done}/{len(runs)})"))
    except KeyboardInterrupt:
        finished = sum(is_finished(run.out, extras.pages) for run in runs)
        say(f"interrupted: {finished} of {len(runs)} runs are finished; {go_on}")
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
        if arguments.quiet:
            first, why = next(iter(failed.items()))
            told = f"{len(failed)} of {len(runs)} runs failed, the first is {first}: {why}; {go_on}"
            print(f"moevoprune: error: {printable(told)}", file=sys.stderr)
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


def _problems(arguments: Namespace, say: Voice | None) -> list[Problem]:
    """Load every problem once: what cannot be used is said before anything is written."""
    from moevoprune.cli.config import set_value
    from moevoprune.cli.processes import free_name
    from moevoprune.cli.run import search_options
    from moevoprune.cli.sweeping import resolve

    for assignment in arguments.set or []:
        key = set_value({}, assignment)
        instead = {"seed": "--seeds", "compute.engine": "--engine", "compute.address": "--address"}.get(key)
        if key in ("compute.actors", "compute.jobs"):
            instead = "--jobs"
        if instead:
            raise InputError(f"--set {assignment}: a sweep does not take {key}; use {instead}")
    problems: list[Problem] = []
    for source in arguments.problem:
        name = free_name(source, {problem.name.casefold() for problem in problems})
        problems.append(resolve(name, source, search_options(arguments), arguments.set or [], say))
    return problems


def _jobs(asked: int | None, runs: Sequence[SweepRun]) -> int:
    from moevoprune.cli.sweeping import usable_jobs

    return usable_jobs(None if asked is None else whole_number("--jobs", asked, 1, 1024), runs)


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
    for flag in ("no_baselines", "fronts_only"):
        if getattr(arguments, flag):
            words.append(f"--{flag.replace('_', '-')}")
    # options on images are many: who has typed them has them still
    return shlex.join([*words, "--resume"])


def _run_on_ray(
    runs: Sequence[SweepRun], problems: Sequence[Problem], address: str | None, extras: Extras
) -> Generator[tuple[SweepRun, str | None], None, None]:
    """Send whole runs to a Ray; their folders come back as bytes, so that no folder need be shared."""
    from moevoprune.cli.run import add_member_maps
    from moevoprune.cli.sweeping import why_of
    from moevoprune.locks import only_writer
    from moevoprune.search.ray_engine import connect, disconnect

    if not runs:
        return
    ray = connect(address)
    waiting: dict[Any, SweepRun] = {}
    held = ExitStack()
    try:
        features = {problem.name: ray.put(problem.features) for problem in problems}
        on_gpu = runs[0].config.compute.device.startswith("cuda")
        remote = ray.remote(_carry_out_elsewhere).options(num_cpus=1, num_gpus=1 if on_gpu else 0)
        for run in runs:
            try:
                held.enter_context(only_writer(run.out))
            except InputError as in_use:
                yield run, why_of(in_use)
                continue
            config = run.config.model_dump_json()
            data, begun = features[run.name], _read_folder(run.out)
            # heat maps need the images, which are here
            waiting[remote.remote(config, data, begun, replace(extras, maps=False))] = run
        while waiting:
            done, _ = ray.wait(list(waiting), num_returns=1, timeout=1.0)
            for reference in done:
                run = waiting.pop(reference)
                try:
                    error, files = ray.get(reference)
                except ray.exceptions.RayError as lost:
                    error, files = why_of(lost), {}
                if error is None:
                    _write_folder(run.out, files)
                    if extras.maps:
                        add_member_maps(run.out, run.config)
                yield run, error
    finally:
        for reference in waiting:
            ray.cancel(reference, force=True)
        disconnect()
        held.close()


def _carry_out_elsewhere(
    settings: str, features: FeatureSet, begun: dict[str, bytes], extras: Extras
) -> tuple[str | None, dict[str, bytes]]:
    """Carry out a run on a machine of the cluster; returns why it failed, and the files of its folder."""
    from tempfile import TemporaryDirectory

    from moevoprune.cli.config import RunConfig
    from moevoprune.cli.sweeping import search_into, why_of

    with TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        try:
            _write_folder(out, begun)
            error = search_into(RunConfig.model_validate_json(settings), features, out, extras)
        except Exception as raised:
            error = why_of(raised)
        return error, _read_folder(out)


def _read_folder(folder: Path) -> dict[str, bytes]:
    """Files of a folder by their paths in it; nothing where there is no folder."""
    from moevoprune.locks import LOCK

    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != LOCK)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _write_folder(folder: Path, files: dict[str, bytes]) -> None:
    """Write the files of a run folder; its record comes last, as that says that it is whole."""
    from moevoprune.files import atomic_path, make_folder

    for name in sorted(files, key=lambda name: name == RECORD):
        path = folder / name
        make_folder(path.parent)
        with atomic_path(path) as temporary:
            temporary.write_bytes(files[name])


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


def _line(run: SweepRun) -> _Line:
    front = run.front()
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


def _lines(runs: Sequence[SweepRun]) -> list[_Line]:
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


def _brief(run: SweepRun) -> str:
    line = _line(run)
    return f"{line.members:.0f} members, hypervolume {bare(f'{line.hypervolume:.4f}')}, {line.seconds:.0f} s"


def _csv(lines: Sequence[_Line]) -> str:
    header = [head.replace(" ", "_") for head in _HEADS]
    return csv_text(header, ([line.problem, line.seed, *line.numbers] for line in lines))
