"""What all benchmarks share: clocks that take turns, the machine's description, synthetic data, and the report."""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from moevoprune.device import usable_cores
from moevoprune.errors import InputError
from moevoprune.features import FeatureSet
from moevoprune.files import write_text
from moevoprune.heads.encodings import HeadMask, HeadShape, make_encoding

RESULTS = Path(__file__).parent / "results"

Bits = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


class Clock:
    """Wall and processor time of some work that is done several times.

    Parameters
    ----------
    work
        What is timed.
    units
        How much work one call is, e.g. masks times epochs; times are given per unit.

    Attributes
    ----------
    result
        What the work returned last.
    """

    def __init__(self, work: Callable[[], Any], units: float = 1.0) -> None:
        self._work = work
        self.units = units
        self.result: Any = None
        self._wall: list[float] = []
        self._cpu: list[float] = []

    def run(self) -> None:
        """Do the work once more."""
        # as timeit does: whoever happens to fill up the garbage should not pay for all that is there
        gc.disable()
        try:
            wall, cpu = time.perf_counter(), _cpu_seconds()
            self.result = self._work()
            self._wall.append((time.perf_counter() - wall) / self.units)
            self._cpu.append((_cpu_seconds() - cpu) / self.units)
        finally:
            gc.enable()

    @property
    def seconds(self) -> float:
        """Wall seconds per unit in the fastest run: what disturbs a run only ever makes it slower."""
        return min(self._wall)

    @property
    def cpu_seconds(self) -> float:
        """Processor seconds per unit in the run that took fewest, of this process and its finished children."""
        return min(self._cpu)

    @property
    def all_seconds(self) -> list[float]:
        """Wall seconds per unit of every run."""
        return list(self._wall)


def take_turns(clocks: Sequence[Clock], repeats: int) -> None:
    """Run every clock once, then all of them once more, ...: what slows the machine down hits all alike."""
    for _ in range(repeats):
        for clock in clocks:
            clock.run()


def spread(ours: Clock, other: Clock) -> tuple[float, float]:
    """Lowest and highest ratio of the other's time to ours that any two of their runs give."""
    return min(other.all_seconds) / max(ours.all_seconds), max(other.all_seconds) / min(ours.all_seconds)


def _cpu_seconds() -> float:
    times = os.times()
    # process_time is fine-grained; children, once they have ended, are there in ticks only
    return time.process_time() + times.children_user + times.children_system


@dataclass(frozen=True)
class Case:
    """One measured figure.

    Attributes
    ----------
    name
        What was measured.
    ratio
        The figure: times faster than the baseline, or a share of it.
    baseline
        What it was measured against.
    at_least, at_most
        The target, where there is one.
    details
        Further plain values for the JSON file.
    """

    name: str
    ratio: float
    baseline: str
    at_least: float | None = None
    at_most: float | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.at_least is not None:
            return self.ratio >= self.at_least
        return None if self.at_most is None else self.ratio <= self.at_most

    def verdict(self, unit: str = "") -> str:
        """Say the target and whether it is met, for a table cell."""
        if self.met is None:
            return ""
        limit = self.at_least if self.at_least is not None else self.at_most
        sign = "≥" if self.at_least is not None else "≤"
        shown = f"{100 * limit:g} %" if unit == "%" and limit is not None else f"{limit:g}{unit}"
        return f"{sign} {shown}: {'met' if self.met else 'not met'}"

    def without_target(self) -> Case:
        """The same figure, not judged."""
        return Case(self.name, self.ratio, self.baseline, details=self.details)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; a ratio that is not finite has no place there."""
        if not math.isfinite(self.ratio):
            raise ValueError(f"{self.name}: the ratio is {self.ratio}")
        known = {"name": self.name, "ratio": self.ratio, "baseline": self.baseline}
        target = {"at_least": self.at_least, "at_most": self.at_most, "met": self.met}
        return {**known, **{key: value for key, value in target.items() if value is not None}, **self.details}


class Report:
    """Prints Markdown as it comes, and writes it and the cases at the end.

    Parameters
    ----------
    name
        Name of the benchmark, and of its file in ``benchmarks/results``.
    title
        Heading.
    arguments
        What :func:`make_parser` parsed.
    """

    def __init__(self, name: str, title: str, arguments: argparse.Namespace) -> None:
        self._name = name
        self._arguments = arguments
        self._lines: list[str] = []
        self._cases: list[Case] = []
        self._started = time.monotonic()
        self._write(f"# {title}", "", f"`{_command(name, arguments.argv)}`", "")
        self._write(f"{date.today().isoformat()}; {describe_machine()}", "")
        if arguments.quick:
            self._write("**Quick: tiny settings, to see that it runs; the figures mean nothing.**", "")

    def text(self, *sentences: str) -> None:
        """Print a paragraph."""
        self._write(" ".join(sentences), "")

    def section(self, heading: str) -> None:
        """Print a heading of the second level."""
        self._write(f"## {heading}", "")

    def table(self, *columns: str) -> None:
        """Begin a table; all columns but the first hold numbers."""
        self._write(f"| {' | '.join(columns)} |", "|---" + "|---:" * (len(columns) - 1) + "|")

    def row(self, *cells: str) -> None:
        """Print a line of the table."""
        self._write(f"| {' | '.join(cells)} |")

    def end_table(self) -> None:
        """Print the empty line that ends a table."""
        self._write("")

    def case(self, case: Case) -> Case:
        """Take a figure down; returns it, without its target in a quick run, which is too small for any."""
        case = case.without_target() if self._arguments.quick else case
        self._cases.append(case)
        return case

    def close(self) -> int:
        """Write what was asked for; returns the exit code."""
        judged = [case for case in self._cases if case.met is not None]
        if judged:
            missed = [case.name for case in judged if not case.met]
            self.text(f"Targets met: {len(judged) - len(missed)} of {len(judged)}.", *_not_met(missed))
        self.text(f"The whole run took {time.monotonic() - self._started:.0f} s.")
        if self._arguments.json is not None:
            write_text(self._arguments.json, json.dumps([case.to_dict() for case in self._cases], indent=2) + "\n")
        if self._arguments.save is not None:
            self._arguments.save.mkdir(parents=True, exist_ok=True)
            write_text(self._arguments.save / f"{self._name}.md", "\n".join(self._lines))
        return 0

    def _write(self, *lines: str) -> None:
        self._lines += lines
        print("\n".join(lines), flush=True)


def _not_met(names: Sequence[str]) -> list[str]:
    return [f"Not met: {'; '.join(names)}."] if names else []


def _command(name: str, argv: Sequence[str]) -> str:
    """The command line, with files and folders by their names: where they lie is nobody's business."""
    shown = []
    before = ""
    for argument in argv:
        # what only says where to write is no part of what was measured
        is_place = argument.startswith(("--json", "--save")) or (
            before in ("--json", "--save") and not argument.startswith("-")
        )
        if not is_place:
            shown.append(Path(argument).name if os.sep in argument else argument)
        before = argument
    return shlex.join(["python", f"benchmarks/{name}.py", *shown])


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Parser with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(
        description=(description or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the cases to this file")
    parser.add_argument(
        "--save",
        type=Path,
        nargs="?",
        const=RESULTS,
        metavar="FOLDER",
        help="also write the report into this folder (without FOLDER: benchmarks/results)",
    )
    parser.add_argument("--quick", action="store_true", help="tiny settings, to see that it runs")
    return parser


def parse(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, quick: dict[str, Any] | None = None
) -> argparse.Namespace:
    """Parse the arguments; with ``--quick`` the options not given have the ``quick`` values."""
    given = sys.argv[1:] if argv is None else list(argv)
    if "--quick" in given:
        parser.set_defaults(**(quick or {}))
    arguments = parser.parse_args(given)
    arguments.argv = given
    return arguments


def start(main: Callable[[], int]) -> None:
    """Run a benchmark's ``main`` on one thread; bad input ends it with one line and code 2."""
    torch.set_num_threads(1)
    try:
        sys.exit(main())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def describe_machine() -> str:
    """CPU model, cores, versions, threads and what else was running; no host name."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        model = models[0] if models else model
    n_threads = torch.get_num_threads()
    text = (
        f"{model}, {usable_cores()} cores; {platform.system()}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, {n_threads} thread{'s' * (n_threads != 1)}"
    )
    if hasattr(os, "getloadavg"):
        text += f"; load average before the run {os.getloadavg()[0]:.1f}"
    return text


def make_task(n_rows: int, n_features: int, n_classes: int, seed: int = 0) -> tuple[Floats, Labels]:
    """Features like pooled ReLU activations: about a third zeros, classes that overlap."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n_rows) % n_classes)
    centres = 0.15 * rng.normal(size=(n_classes, n_features))
    values = 0.25 + centres[labels] + 0.65 * rng.normal(size=(n_rows, n_features))
    return np.maximum(values, 0).astype(np.float32), labels.astype(np.int64)


def make_masks(encoding: str, share: float, shape: HeadShape, n_masks: int, seed: int = 0) -> list[HeadMask]:
    """Random masks with exactly this share of their bits active."""
    decoder = make_encoding(encoding, shape)
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(n_masks):
        bits = np.zeros(decoder.n_bits, dtype=np.bool_)
        bits[rng.permutation(decoder.n_bits)[: max(round(share * decoder.n_bits), 1)]] = True
        masks.append(decoder.decode(bits))
    return masks


def small_task(seed: int = 0) -> FeatureSet:
    """A task for quick runs: 4 classes, 48 features, 96 training and 48 test rows."""
    features, labels = make_task(144, 48, 4, seed)
    return FeatureSet(features[:96], labels[:96], features[96:], labels[96:], name="synthetic")


def plural(number: int, noun: str) -> str:
    """A number and a noun, e.g. ``1 mask`` or ``16 masks``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean, NaN of nothing."""
    return statistics.fmean(values) if len(values) else float("nan")
