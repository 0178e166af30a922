"""What experiments share: their options, their runs, and the three files that each of them ends with.

Searches go through the sweep: every (settings, data set, seed) is a run folder of its own below ``--work``,
finished ones are not run again, and those begun are gone on with.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from matplotlib.axes import Axes

from moevoprune import FeatureSet, InputError, load_features
from moevoprune.cli.building import read_problem
from moevoprune.cli.data import locate_images
from moevoprune.cli.options import OneLineParser
from moevoprune.cli.sweeping import SweepRun, WantedRun, run_wanted
from moevoprune.errors import printable, whole_number
from moevoprune.features.class_subsets import without_class
from moevoprune.files import check_folder, write_text
from moevoprune.fronts.plots import save_figure
from moevoprune.fronts.plots.style import make_folder
from moevoprune.fronts.tables import csv_text

__all__ = ["INTERRUPTED", "MOST_EVALUATIONS", "Settings", "Study", "last_class_as_ood", "run_study"]

INTERRUPTED = 130
MOST_EVALUATIONS = 1_000_000
"""Of a search of an experiment."""

_LONGEST_NAME = 200
_ONE_SEED = "**One seed: there are no intervals and no tests, and nothing can be concluded about any claim.**"
_DATA_HELP = "what `moevoprune run` takes: features .npz, problem .toml, folders of images (default: digits)"

Settings = Mapping[str, Any]


@dataclass
class Study:
    """One call of an experiment: what was asked for, and what has come out so far.

    Attributes
    ----------
    name
        Of the experiment.
    arguments
        What was typed.
    sections, rows
        Markdown sections and lines of the CSV file, added to by the experiment.
    """

    name: str
    arguments: argparse.Namespace
    sections: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def seeds(self) -> range:
        """The seeds, from 1."""
        return range(1, self.arguments.seeds + 1)

    @property
    def quick(self) -> bool:
        """Whether this is the form that takes minutes."""
        return bool(self.arguments.quick)

    @property
    def stem(self) -> str:
        """What the names of the results' files begin with."""
        return f"{self.arguments.name}_quick" if self.quick else str(self.arguments.name)

    @property
    def command(self) -> str:
        """What was typed, without folders."""
        words = sys.argv[1:]
        for option in ("--work", "--out", "--name", "--jobs"):
            while option in words:
                place = words.index(option)
                del words[place : place + 2]
            words = [word for word in words if not word.startswith(f"{option}=")]
        # a word may be several files, with commas between
        named = (",".join(Path(part).name or part for part in word.split(",")) for word in words)
        return printable(shlex.join(["python", f"experiments/{self.name}.py", *named])).replace("`", "'")

    def sweep(
        self,
        variants: Mapping[str, Settings],
        sources: Sequence[str] | Mapping[str, Settings] | None = None,
        seeds: Iterable[int] | None = None,
    ) -> list[SweepRun]:
        """Run every variant on every source with every seed; variants are settings by their dotted keys.

        Sources may have settings of their own, as those of :meth:`with_others_as_ood`.
        """
        named = self.arguments.data if sources is None else sources
        own = named if isinstance(named, Mapping) else {source: {} for source in named}
        wanted = [
            WantedRun(source, seed, variant, {**own[source], **settings})
            for source in own
            for variant, settings in variants.items()
            for seed in (self.seeds if seeds is None else seeds)
        ]
        return run_wanted(wanted, self.arguments.work, self.arguments.jobs, self.say)

    def with_others_as_ood(self, sources: Sequence[str] | None = None) -> dict[str, Settings]:
        """Every data set, with the setting that makes the others its out-of-distribution rows.

        So has MO-EvoPruneDeepTL (arXiv 2302.10253). Of a data set that is alone the last class becomes these rows,
        in a file below ``--work``.

        Raises
        ------
        InputError
            A data set names no features or images, or the only one is of images or has no class to spare.
        """
        sources = self.arguments.data if sources is None else sources
        if len(set(sources)) == 1:
            features = _alone(sources[0])
            path = self.arguments.work.absolute() / "data" / f"{features.name}.npz"
            make_folder(path.parent)
            features.save(path)
            return {sources[0]: {"data.features": str(path)}}
        data = {source: _data_of(source) for source in sources}
        return {source: {"data.ood": [data[other] for other in data if other != source]} for source in data}

    def say(self, line: str) -> None:
        """Print a line at once."""
        print(printable(line), flush=True)

    def write(self, title: str, about: str, ax: Axes) -> None:
        """Write the experiment's Markdown, CSV and the figure that ``ax`` is part of, and print the first.

        Of a single seed the Markdown says that nothing was tested.
        """
        folder = self.arguments.out
        stem = self.stem
        try:
            folder.mkdir(parents=True, exist_ok=True)
            names = list(dict.fromkeys(key for row in self.rows for key in row))
            write_text(
                folder / f"{stem}.csv",
                csv_text(names, ([_cell(row.get(key)) for key in names] for row in self.rows)),
            )
            save_figure(ax, folder / f"{stem}.png")
            notes = [about] if len(self.seeds) > 1 else [about, _ONE_SEED]
            figure = f"![{title}]({quote(stem)}.png)"
            text = "\n\n".join([f"# {title}", *notes, *self.sections, figure]) + "\n"
            write_text(folder / f"{stem}.md", text)
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be written ({error.strerror}): choose another --out folder"
            ) from None
        print(f"\n{text}\nwritten to {folder / stem}.md, .csv and .png", flush=True)


def run_study(
    name: str,
    document: str | None,
    carry_out: Callable[[Study], None],
    seeds: int,
    quick: Mapping[str, Any],
    add_options: Callable[[argparse.ArgumentParser], None] | None = None,
    data: Sequence[str] = ("digits",),
    data_help: str = _DATA_HELP,
) -> int:
    """Read the command line, carry out an experiment, and say in one line what is wrong with its input.

    Parameters
    ----------
    name
        Of the experiment.
    document
        Its docstring, for ``--help``.
    carry_out
        The experiment.
    seeds
        Seeds of its full form.
    quick
        Options as ``--quick`` sets them, where they are not typed.
    add_options
        Adds options of its own.
    data, data_help
        Data sets where none are named, and what ``--help`` says of them.

    Returns
    -------
    int
        Exit code.
    """
    parser = OneLineParser(
        prog=f"{name}.py",
        description=document,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "data",
        nargs="*",
        default=list(data),
        help=data_help,
    )
    parser.add_argument("--seeds", type=int, default=seeds, help=f"run seeds 1 to N (default: {seeds})")
    parser.add_argument("--jobs", type=int, help="runs at a time (default: one per core)")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"a form of minutes: {', '.join(f'{key} {value}' for key, value in quick.items())}",
    )
    parser.add_argument(
        "--work", type=Path, default=Path("runs") / name, help=f"folder of the run folders (default: runs/{name})"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(sys.argv[0]).parent / "results",
        help="folder of the results, a .md, a .csv and a .png file (default: experiments/results)",
    )
    parser.add_argument("--name", default=name, help=f"what these files are called (default: {name})")
    if add_options is not None:
        add_options(parser)
    arguments = parser.parse_args()
    if arguments.quick:
        parser.set_defaults(**quick)
        arguments = parser.parse_args()
        # its runs are others than those of the full form
        arguments.work = arguments.work / "quick"
    try:
        whole_number("--seeds", arguments.seeds, 1, 1000)
        if arguments.jobs is not None:
            whole_number("--jobs", arguments.jobs, 1, 1024)
        if not arguments.name or Path(arguments.name).name != arguments.name:
            raise InputError(f"--name {arguments.name}: is no plain file name: folders go into --out")
        if len(os.fsencode(arguments.name)) > _LONGEST_NAME:
            raise InputError(f"--name: is longer than {_LONGEST_NAME} bytes: choose a shorter one")
        # what cannot be written in the end is said before hours of searches
        for option in ("work", "out"):
            check_folder(getattr(arguments, option), f"--{option}")
        carry_out(Study(name, arguments))
    except InputError as error:
        print(f"{name}: error: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command goes on", file=sys.stderr)
        return INTERRUPTED
    return 0


def last_class_as_ood(features: FeatureSet) -> FeatureSet:
    """Make the last class out-of-distribution rows: its training rows serve the search, its test rows the test."""
    last = features.n_classes - 1
    return replace(
        without_class(features, last),
        X_ood=features.X_train[features.y_train == last],
        X_ood_test=features.X_test[features.y_test == last],
    )


def _cell(value: Any) -> Any:
    """What a CSV file shows: nothing for what is not defined."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _alone(source: str) -> FeatureSet:
    """Features of the only data set, its last class made out-of-distribution rows."""
    where = _data_of(source)
    if "images" in read_problem(source)[1]["data"]:
        raise InputError(
            f"{source}: no class of images can be made out-of-distribution rows: name a second set of images, or "
            "extract features (moevoprune extract)"
        )
    features = load_features(where)
    if features.task == "classification" and features.n_classes < 3:
        raise InputError(
            f"{source}: has too few classes to make one of them out-of-distribution rows: name a second data set"
        )
    return last_class_as_ood(features)


def _data_of(source: str) -> str:
    """Where the features, or images, of a data set are, as ``data.ood`` takes it."""
    where, raw = read_problem(source)
    data = raw.get("data", {})
    locate_images(data, where)
    found = data.get("features", data.get("images"))
    if not isinstance(found, str):
        raise InputError(f"{where}: names neither features nor images")
    return found
