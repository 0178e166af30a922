"""The command line: ``moevoprune``."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from moevoprune.cli import (
    compare_runs,
    construct,
    ensemble,
    explain,
    export,
    filters,
    report,
    robustness,
    sweep,
)
from moevoprune.cli.options import OneLineParser, add_engine_options, add_image_options, add_search_options
from moevoprune.errors import InputError, RunWarning, one_line, printable, printable_lines, words_of
from moevoprune.fronts.run_folder import ENSEMBLES, FIGURES, WINDOWS_FIGURE

__all__ = ["main"]

_DESCRIPTION = """\
Evolve a Pareto front of small, accurate, robust heads on the features of a frozen, pretrained network.

  moevoprune run                          the built-in digits problem, into runs/digits-seed1
  moevoprune run IMAGES --backbone NAME   your own images, in class folders, through a torchvision network
  moevoprune run features.npz --out DIR   your own features (X_train, y_train, X_test, y_test)
  moevoprune show DIR                     the front as a table
  moevoprune explain DIR --images IMAGES  which features matter, and where in the images they look
  moevoprune compare features.npz         the search against other ways to prune, on your features
  moevoprune sweep A.npz B.npz --seeds 5  several problems and seeds, each a run of its own
  moevoprune extract IMAGES --out F.npz   images to features, without a search
  moevoprune filters IMAGES --network N   prune the filters of a whole convolutional network
  moevoprune construct TABLE.csv          a small feed-forward network out of a large one
"""


def _build_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="moevoprune", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=OneLineParser)

    run = commands.add_parser(
        "run",
        help="evolve a front and write a run folder",
        description="Evolve a Pareto front of masked heads and write it, with figures, into a run folder.",
    )
    run.add_argument(
        "problem",
        nargs="?",
        metavar="PROBLEM",
        help="a shipped problem's name, a .toml file, a .npz or a folder of features, a folder of images or the "
        "name of a torchvision data set (default: digits)",
    )
    run.add_argument("--out", metavar="DIR", help="run folder (default: a new one under runs/)")
    run.add_argument("--seed", type=int, metavar="N", help="seed of everything random (default: 1)")
    add_search_options(run)
    add_engine_options(run)
    run.add_argument(
        "--actors",
        type=int,
        metavar="N",
        help="of --engine ray: processes that train heads, each on a core or GPU of its own (default: one for "
        "each that the cluster has)",
    )
    run.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="processes that train heads side by side on this machine; changes nothing but time (default: one per "
        "usable core; 1 on CUDA)",
    )
    run.add_argument("--resume", action="store_true", help="continue the run in --out DIR")
    run.add_argument(
        "--no-baselines",
        action="store_true",
        help="leave out the line that sets the front beside four quick rankings",
    )
    run.add_argument("--quiet", action="store_true", help="print errors only")
    add_image_options(run)

    extract = commands.add_parser(
        "extract",
        help="images to features, through a torchvision network",
        description="Send images once through a frozen torchvision network and write the features, with labels "
        "and split, into an .npz that `moevoprune run` takes. Interrupted, the same command goes on from there.",
    )
    extract.add_argument(
        "images",
        metavar="IMAGES",
        help="a folder {train,test}/CLASS/* or CLASS/*, or the name of a torchvision data set",
    )
    extract.add_argument("--out", metavar="FILE.npz", required=True, help="file to write")
    extract.add_argument("--half", action="store_true", help="store float16: half the size, 3 significant digits")
    extract.add_argument("--device", metavar="D", help="auto (default), cpu, cuda or cuda:N")
    extract.add_argument("--quiet", action="store_true", help="print errors only")
    add_image_options(extract)

    compare = commands.add_parser(
        "compare",
        help="set the search beside other ways to prune",
        description="Run several methods on the same data, folds, trainer and test rows, with several seeds, and "
        "write tables and figures into a folder.",
    )
    compare.add_argument(
        "data",
        nargs="*",
        metavar="DATA",
        help="shipped problems' names, .toml files, .npz files of features, folders of images or torchvision "
        "data sets' names (default: digits)",
    )
    compare.add_argument(
        "--methods",
        metavar="A,B,C",
        help="guided (the default search), reference (the published one), nsga2 (plain), dense (the unpruned "
        "head), anova, mutual_information, l1_path, weight_magnitude, gradual_magnitude, neuron_norm, "
        "recursive_elimination, random, best_fixed (default: all but nsga2)",
    )
    compare.add_argument("--seeds", type=int, metavar="N", help="run seeds 1 to N (default: 3)")
    compare.add_argument(
        "--budget", type=int, metavar="N", help="evaluations of each search (default: 600); baselines need none"
    )
    compare.add_argument("--out", metavar="DIR", help="folder (default: a new one under comparisons/)")
    compare.add_argument(
        "--objectives",
        metavar="A,B,C",
        help="as for run; accuracy (for regression r2) must be among them",
    )
    compare.add_argument("--cv", type=int, metavar="K", help="folds that score a mask, as for run")
    compare.add_argument("--device", metavar="D", help="auto (default), cpu, cuda or cuda:N")
    compare.add_argument(
        "--set",
        action="append",
        metavar="KEY=VALUE",
        help="any other setting of all DATA, as for run, e.g. --set encoding=neurons, --set preset=paper; "
        "may be repeated",
    )
    compare.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="methods run at a time, each in its process (default: one per usable core; 1 on CUDA)",
    )
    compare.add_argument(
        "--resume",
        action="store_true",
        help="continue the comparison in --out DIR, with its DATA and settings; --methods and --seeds may add "
        "to it",
    )
    compare.add_argument("--quiet", action="store_true", help="print errors only")
    add_image_options(compare)

    for name, module, function in (
        ("explain", explain, explain.explain),
        ("ensemble", ensemble, ensemble.ensemble),
        ("robustness", robustness, robustness.robustness),
        ("export", export, export.export),
        ("report", report, report.report),
        ("compare-runs", compare_runs, compare_runs.compare_runs),
        ("sweep", sweep, sweep.sweep),
        ("filters", filters, filters.filters),
        ("construct", construct, construct.construct),
    ):
        added = commands.add_parser(name, help=module.HELP, description=module.DESCRIPTION)
        module.add_arguments(added)
        added.set_defaults(carry_out=function)

    show = commands.add_parser("show", help="print a run's front as a table", description="Print a run's front.")
    show.add_argument("run", metavar="RUN", help="a run folder")
    plot = commands.add_parser(
        "plot", help="write a run's figures again", description="Write a run's figures again."
    )
    plot.add_argument("run", metavar="RUN", help="a run folder")
    commands.add_parser("problems", help="list the shipped problems", description="List the shipped problems.")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        Arguments without the program's name; None for those of the process.

    Returns
    -------
    int
        Exit code: 0, 1 where runs of a sweep failed, 2 for bad input, 130 after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        # names of files and classes must not stop a run on a terminal that cannot show them
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    parser = _build_parser()
    for word in argv or ():
        # no shell can give these, but callers in Python can, and most words become paths
        if "\0" in word or not _encodes(word):
            parser.error(f"{word!r} holds a character that no file name can have")
    arguments = parser.parse_args(argv)
    try:
        with _plain_warnings():
            return _dispatch(parser, arguments)
    except InputError as error:
        # names in files and settings of others must not steer the terminal
        print(f"moevoprune: error: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        # a second Ctrl-C while Python shuts down would only print a traceback
        with suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("moevoprune: interrupted", file=sys.stderr)
        return 130
    except (MemoryError, RuntimeError) as error:
        from moevoprune.memory import is_out_of_memory, refused_size

        if not is_out_of_memory(error):
            raise
        size = refused_size(error)
        print(
            f"moevoprune: error: not enough memory{f' ({size} were refused)' if size else ''}: use fewer hidden "
            "units, individuals, features or rows",
            file=sys.stderr,
        )
        return 2
    except BrokenPipeError:
        # the reader of our output went away, e.g. `moevoprune show RUN | head`
        sys.stderr.close()
        return 0
    except OSError as error:
        print(f"moevoprune: error: {_trouble(error)}", file=sys.stderr)
        return 2


def _encodes(word: str) -> bool:
    try:
        os.fsencode(word)
    except UnicodeEncodeError:
        return False
    return True


def _dispatch(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    # imported late: torch takes seconds, and --help should not
    if arguments.version:
        from importlib.metadata import version

        print(f"moevoprune {version('moevoprune')}")
    elif arguments.command == "run":
        from moevoprune.cli.run import run

        return run(arguments)
    elif arguments.command == "extract":
        from moevoprune.cli.extract import extract

        return extract(arguments)
    elif hasattr(arguments, "carry_out"):
        code: int = arguments.carry_out(arguments)
        return code
    elif arguments.command == "compare":
        from moevoprune.cli.compare import compare

        return compare(arguments)
    elif arguments.command == "show":
        from moevoprune.cli.table import front_table, objectives_line
        from moevoprune.fronts.front import Front

        front = Front.load(arguments.run)
        print(printable_lines(front_table(front)))
        if len(front):
            print(printable_lines(f"\n{objectives_line(front)}"))
    elif arguments.command == "plot":
        for path in _plot(Path(arguments.run)):
            print(printable(str(path)))
    elif arguments.command == "problems":
        from moevoprune.cli.problems import describe_problem, shipped_problems

        for name, path in shipped_problems().items():
            print(f"{name:<12} {describe_problem(path)}")
    else:
        parser.print_help()
    return 0


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print warnings about a run in one line, without the place in the program that they come from."""
    usual = warnings.formatwarning

    def in_one_line(message: Warning | str, category: type[Warning], *place: object, **named: object) -> str:
        if issubclass(category, RunWarning):
            return f"moevoprune: warning: {printable(str(message))}\n"
        return printable_lines(usual(message, category, *place, **named))  # type: ignore[arg-type]

    warnings.formatwarning = in_one_line
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _trouble(error: OSError) -> str:
    """What a file system says, and of which file."""
    return one_line(f"{error.filename}: {words_of(error)}" if error.filename else words_of(error))


def _plot(run: Path) -> list[Path]:
    """Write the figures of a run folder again: those of its front, and that of its ensembles where it has any."""
    from moevoprune.fronts.ensemble_tables import load_study
    from moevoprune.fronts.front import Front
    from moevoprune.fronts.plots import plot_windows, save_figure, save_figures

    written = save_figures(Front.load(run), run / FIGURES)
    if (run / ENSEMBLES).exists():
        written.append(save_figure(plot_windows(load_study(run).windows), run / WINDOWS_FIGURE))
    return written


if __name__ == "__main__":
    sys.exit(main())
