"""``moevoprune construct``: a small feed-forward network out of a large one, after ODF2NNA.

The command's options are part of every ``--help``, so what takes seconds to import is imported where it is used.
"""

from __future__ import annotations

import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moevoprune.errors import InputError, whole_number
from moevoprune.files import check_folder, remove_leftovers
from moevoprune.fronts.wording import short_number

if TYPE_CHECKING:
    from moevoprune.cli.building import Voice
    from moevoprune.construction.comparison import Comparison
    from moevoprune.construction.results import DataResult
    from moevoprune.construction.settings import ConstructionSettings
    from moevoprune.construction.tables import Table
    from moevoprune.features import FeatureSet

__all__ = ["DESCRIPTION", "HELP", "add_arguments", "construct"]

HELP = "a small feed-forward network out of a large one, for a table or features"
DESCRIPTION = (
    "Train a large feed-forward network, keep the units whose output varies enough over the rows, retrain "
    "the small network that they make (after ODF2NNA), and set it beside others of its size. The threshold is "
    "chosen by cross-validation. Writes tables, figures and the network."
)

_DEFAULT_BUDGET = 60
_MOST_SEEDS = 1000
_QUICK: dict[str, Any] = {
    "hidden": (64, 64),
    "epochs": 20,
    "epsilons": (0.5, 1.0, 1.5),
    "weight_decay": 0.03,
    "cv": 3,
    "repeats": 1,
}
_QUICK_BUDGET = 20


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    parser.add_argument(
        "data",
        nargs="*",
        metavar="DATA",
        help="a .csv file with a header, a .npz file of features, or a set bundled with scikit-learn: "
        "breast_cancer, wine, digits, diabetes, linnerud (default: these five)",
    )
    table = parser.add_argument_group("tables", "of a CSV file")
    table.add_argument("--target", metavar="A[,B]", help="column to predict; several for regression")
    table.add_argument("--drop", metavar="A[,B]", help="columns to leave out")
    table.add_argument(
        "--task",
        metavar="T",
        help="classification or regression (default: regression for broken numbers, more than 20 different ones, "
        "or several targets)",
    )
    table.add_argument(
        "--test-fraction",
        type=float,
        metavar="F",
        help="share of the rows to hold back as test rows, where the data come without a split (default: 0.25)",
    )
    network = parser.add_argument_group("networks")
    network.add_argument("--hidden", metavar="A,B", help="hidden units of the large network (default: 128,128)")
    network.add_argument(
        "--epochs",
        type=int,
        metavar="N",
        help="epochs of the large network (default: 600 steps' worth, at least 30)",
    )
    network.add_argument(
        "--retrain-epochs", type=int, metavar="N", help="epochs that retrain the small one (default: half as many)"
    )
    network.add_argument("--learning-rate", type=float, metavar="R", help="first step size (default: 0.003)")
    network.add_argument(
        "--weight-decay", type=float, metavar="W", help="L2 penalty (default: chosen by cross-validation)"
    )
    network.add_argument("--batch-size", type=int, metavar="N", help="rows per step (default: 32)")
    choice = parser.add_argument_group("choice of the small network")
    choice.add_argument(
        "--epsilon", metavar="E[,E]", help="threshold to use, or several to choose from (default: 10 from 0 to 4)"
    )
    choice.add_argument(
        "--measure",
        metavar="M",
        help="what is compared with it: contribution (default), relative_deviation, share_of_largest or deviation",
    )
    choice.add_argument("--cv", type=int, metavar="K", help="folds of the cross-validation (default: 5)")
    choice.add_argument(
        "--tolerance",
        type=float,
        metavar="S",
        help="the smallest network is chosen that scores at most this much below the best (default: 0.005)",
    )
    choice.add_argument(
        "--budget",
        type=int,
        metavar="N",
        help=f"evaluations of the evolutionary search beside it (default: {_DEFAULT_BUDGET}; 0 leaves it out)",
    )
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds to run (default: 1)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="the first of them (default: 1)")
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="seeds and data sets at a time (default: one per usable core)"
    )
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes: smaller in all respects")
    parser.add_argument(
        "--to", metavar="FILE", help="also export the network of the first seed: .onnx, .pt2 or .safetensors"
    )
    parser.add_argument("--out", metavar="DIR", help="folder (default: a new one under constructions/)")
    parser.add_argument("--quiet", action="store_true", help="print errors only")


@dataclass(frozen=True, eq=False)
class _Task:
    """One data set with one seed."""

    name: str
    data: Table | FeatureSet
    settings: ConstructionSettings
    seed: int
    budget: int
    test_share: float


def construct(arguments: Namespace) -> int:
    """Carry out ``moevoprune construct``; returns the exit code."""
    with ExitStack() as held:
        return _construct(arguments, held)


def _construct(arguments: Namespace, held: ExitStack) -> int:
    from moevoprune.cli.building import Voice
    from moevoprune.cli.processes import run_tasks
    from moevoprune.construction.results import FIGURES, DataResult, write_results
    from moevoprune.locks import only_writer

    say = Voice(arguments.quiet)
    held.enter_context(only_writer(Path(arguments.out) if arguments.out else None))
    tasks = _tasks(arguments)
    names = list(dict.fromkeys(task.name for task in tasks))
    out = _out_folder(arguments.out, names)
    if arguments.out is None:
        held.enter_context(only_writer(out))
    for folder in (out, out / FIGURES):
        remove_leftovers(folder)
    _check_export(arguments.to, names, out)
    jobs = _jobs(arguments.jobs, len(tasks))
    seeds = len(tasks) // len(names)
    say(f"data sets: {len(names)}, seeds: {seeds}; {min(jobs, len(tasks))} at a time, into {out}")
    for line in dict.fromkeys(_about(task) for task in tasks):
        say(line)
    finished: dict[tuple[str, int], Comparison] = {}
    try:
        with closing(run_tasks(_carry_out, tasks, jobs)) as done:
            for task, comparison in done:
                finished[task.name, task.seed] = comparison
                say(_progress(task, comparison, len(finished), len(tasks)))
    except BrokenProcessPool:
        raise InputError("a worker process ended unexpectedly (not enough memory?): try fewer --jobs") from None
    first = {task.name: task.data for task in reversed(tasks)}
    results = [
        DataResult(name, first[name], tuple(finished[name, task.seed] for task in tasks if task.name == name))
        for name in names
    ]
    written = write_results(out, results, _command(arguments))
    _print_tables(results, say)
    if arguments.to is not None:
        say(_export(tasks[0], results[0], Path(arguments.to)))
    say(f"\nwritten to {out}: {', '.join(str(path.relative_to(out)) for path in written)}")
    return 0


def _carry_out(task: _Task) -> Comparison:
    from moevoprune.construction.comparison import compare_methods
    from moevoprune.construction.tables import split_table

    return compare_methods(
        split_table(task.data, task.seed, task.test_share), task.settings, task.seed, task.budget
    )


def _tasks(arguments: Namespace) -> list[_Task]:
    from moevoprune.cli.processes import free_name
    from moevoprune.construction.tables import BUNDLED, TEST_SHARE, Table, open_table, split_table
    from moevoprune.search.problem import LARGEST_SEED

    settings = _settings(arguments)
    count = whole_number("--seeds", arguments.seeds, 1, _MOST_SEEDS)
    first = whole_number("--seed", arguments.seed, 0, LARGEST_SEED - count)
    budget = _QUICK_BUDGET if arguments.quick else _DEFAULT_BUDGET
    budget = budget if arguments.budget is None else whole_number("--budget", arguments.budget, 0)
    share = TEST_SHARE if arguments.test_fraction is None else arguments.test_fraction
    if not 0 < share < 1:
        raise InputError(f"--test-fraction = {share}: use a number between 0 and 1")
    target, drop = (_words(option, getattr(arguments, option)) for option in ("target", "drop"))
    tasks: list[_Task] = []
    names: list[str] = []
    for source in arguments.data or BUNDLED:
        data = open_table(source, target, arguments.task, drop)
        if arguments.test_fraction is not None and not isinstance(data, Table):
            raise InputError(f"{source}: has test rows of its own: leave --test-fraction out")
        names.append(free_name(source, {name.casefold() for name in names}))
        # too few rows of a class are found here, not after the first data set
        split_table(data, first, share)
        tasks += [_Task(names[-1], data, settings, seed, budget, share) for seed in range(first, first + count)]
    return tasks


def _settings(arguments: Namespace) -> ConstructionSettings:
    from moevoprune.construction.settings import ConstructionSettings

    given = {
        "hidden": _numbers("--hidden", arguments.hidden, int),
        "epsilons": _numbers("--epsilon", arguments.epsilon, float),
        "measure": arguments.measure,
        "epochs": arguments.epochs,
        "retrain_epochs": arguments.retrain_epochs,
        "learning_rate": arguments.learning_rate,
        "weight_decay": arguments.weight_decay,
        "batch_size": arguments.batch_size,
        "cv": arguments.cv,
        "tolerance": arguments.tolerance,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    return ConstructionSettings.checked(**{**(_QUICK if arguments.quick else {}), **chosen})


def _numbers(option: str, text: str | None, kind: Callable[[str], Any]) -> tuple[Any, ...] | None:
    if text is None:
        return None
    try:
        return tuple(kind(word) for word in text.split(","))
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise InputError(f"{option} {text}: use {what}, separated by commas") from None


def _words(option: str, text: str | None) -> list[str]:
    if text is None:
        return []
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise InputError(f"--{option} is empty: name a column, or leave it out")
    return words


def _jobs(asked: int | None, n_tasks: int) -> int:
    from moevoprune.device import usable_cores

    return min(usable_cores(), n_tasks) if asked is None else whole_number("--jobs", asked, 1, 1024)


def _check_export(target: str | None, names: Sequence[str], out: Path) -> None:
    if target is None:
        return
    from moevoprune.fronts.export import check_installed, format_of

    check_installed(format_of(Path(target)))
    if len(names) > 1:
        raise InputError(f"--to {target}: one file holds one network: name one DATA")
    if Path(target).absolute() in [file.absolute() for file in _files(out, names)]:
        raise InputError(f"--to {target}: is a file of the --out folder: choose another name")
    if Path(target).is_dir():
        raise InputError(f"--to {target}: is a folder: name a file")
    check_folder(Path(target).absolute().parent, "--to")


def _out_folder(asked: str | None, names: Sequence[str]) -> Path:
    from moevoprune.cli.building import free_folder
    from moevoprune.construction.results import SCORES

    if asked == "":
        raise InputError("--out is empty: name a folder, or leave it out")
    if asked is None:
        return free_folder(Path("constructions"), names[0] if len(names) == 1 else f"{len(names)}-sets")
    out = Path(asked)
    if (out / SCORES).exists():
        raise InputError(f"{asked}: holds other constructed networks: choose another --out folder")
    there = next((file for file in _files(out, names) if file.exists()), None)
    if there is not None:
        raise InputError(f"{there}: is there already: choose another --out folder")
    check_folder(out, "--out")
    return out


def _files(out: Path, names: Sequence[str]) -> list[Path]:
    """What will be written."""
    from moevoprune.construction.results import FIGURES, SCORES, SWEEP, TABLE

    figures = [out / FIGURES / f"{name}.png" for name in names]
    return [*(out / name for name in (TABLE, SCORES, SWEEP)), *figures, *(out / f"{n}.safetensors" for n in names)]


def _about(task: _Task) -> str:
    """What is to be learnt from a data set."""
    from moevoprune.construction.tables import Table

    data = task.data
    # of a file of features, what is learnt from
    features = data.rows if isinstance(data, Table) else data.X_train
    targets = data.targets if isinstance(data, Table) else data.y_train
    outputs = len(data.class_names) or (1 if targets.ndim == 1 else targets.shape[1])
    what = f"{outputs} classes" if data.class_names else f"{outputs} target{'' if outputs == 1 else 's'}"
    return f"{task.name}: {data.task}, {len(features):,} rows, {features.shape[1]:,} features, {what}"


def _progress(task: _Task, comparison: Comparison, number: int, total: int) -> str:
    large, refined = comparison["large"], comparison["refined"]
    gone = 100 * (1 - refined.parameters / large.parameters)
    return (
        f"[{number}/{total}] {task.name}, seed {task.seed}: epsilon {comparison.built.sweep.epsilon:g}, "
        f"{gone:.1f} % of {large.parameters:,} parameters gone, test {short_number(refined.test)} "
        f"(large {short_number(large.test)})"
    )


def _print_tables(results: Sequence[DataResult], say: Voice) -> None:
    from moevoprune.construction.results import method_table, verdict_table
    from moevoprune.fronts.tables import aligned

    say("\ntest scores (R² for regression):")
    for line in aligned(method_table(results), left=2):
        say(line)
    say("\nthe constructed, retrained network against the others (difference of the test scores):")
    for line in aligned(verdict_table(results)):
        say(line)


def _export(task: _Task, result: DataResult, target: Path) -> str:
    from moevoprune.construction.tables import split_table
    from moevoprune.fronts.export import export_head

    built = result.comparisons[0].built
    rows = split_table(task.data, task.seed, task.test_share).X_test
    names = result.data.class_names
    exported = export_head(built.refined, target, rows, class_names=names, member="constructed", batches=())
    return f"\nexported to {target} ({exported.format}); it differs from the network by {exported.difference:.1g}"


def _command(arguments: Namespace) -> str:
    """What was typed, but for what does not change the results."""
    words = ["moevoprune", "construct", *arguments.data]
    for name in (
        *("target", "drop", "task", "test_fraction", "hidden", "epochs", "retrain_epochs", "learning_rate"),
        *("weight_decay", "batch_size", "epsilon", "measure", "cv", "tolerance", "budget", "seeds", "seed"),
    ):
        value = getattr(arguments, name)
        if value is not None and not (name in ("seeds", "seed") and value == 1):
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join([*words, "--quick"] if arguments.quick else words)
