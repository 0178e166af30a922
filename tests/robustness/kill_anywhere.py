"""Kill commands anywhere, resume them, and compare what they write with undisturbed runs, byte for byte.

    python tests/robustness/kill_anywhere.py [--commands run,extract] [--kills 50] [--seed 1]

Half of the kills (SIGKILL) come at random moments, half right before, within or after a file operation: between a
file's write and its rename, between the rename and the fsync of the folder, in the middle of a record. After each
kill every file that has its final name must be whole. Then the documented command goes on, perhaps killed again.
In the end all files must be those of an undisturbed run, but for times that were measured, and no others be there.

Exits with 1 where anything was lost, and leaves the folders of those attempts.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # before anything computes: forked children have no threads but their own
    os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
    sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from kills import Kill, Operation, Outcome, run_forked

__all__ = [
    "CASES",
    "Case",
    "Desk",
    "Harness",
    "Loss",
    "Tally",
    "check_whole",
    "check_whole_folder",
    "draw_nothing",
    "prepare",
]

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}(\.\w+)?")
_LOCK = re.compile(r"\.moevoprune\.lock|\..+\.lock")
# measured anew by every run
_MEASURED = re.compile(r"second|latency|date|^time")
_SECONDS_TO_END = 30.0
_LONGEST = 300.0


class Loss(AssertionError):
    """Something is not as it must be after a kill, or after the resume."""


# ---------------------------------------------------------------------------------------------- what is run


class Desk:
    """Small data that the commands run on."""

    def __init__(self, folder: Path) -> None:
        self.features = folder / "small.npz"
        self.images = folder / "colours"
        self.pictures = folder / "bars.npz"
        self.network = folder / "networks.py"
        self.table = folder / "table.csv"
        generator = np.random.default_rng(7)
        self._make_features(generator)
        self._make_images(generator)
        self._make_network(generator)
        self._make_table(generator)

    def _make_features(self, generator: np.random.Generator) -> None:
        from moevoprune import FeatureSet

        labels = np.arange(120) % 3
        rows = generator.normal(size=(120, 14))
        rows[:, :5] += generator.normal(scale=1.5, size=(3, 5))[labels]
        FeatureSet(rows[:80], labels[:80], rows[80:], labels[80:], class_names=("a", "b", "c")).save(self.features)

    def _make_images(self, generator: np.random.Generator) -> None:
        from PIL import Image

        for label, name in enumerate(("red", "green")):
            (self.images / name).mkdir(parents=True)
            for number in range(12):
                pixels = generator.integers(0, 100, (40, 36, 3), dtype=np.uint8)
                pixels[..., label] += 120
                Image.fromarray(pixels).save(self.images / name / f"{number:02}.png")

    def _make_network(self, generator: np.random.Generator) -> None:
        labels = np.arange(90) % 3
        images = generator.integers(0, 120, (90, 6, 6), dtype=np.uint8)
        images[labels == 0, 2:4, :] += 100
        images[labels == 1, :, 2:4] += 100
        np.savez(self.pictures, X_train=images[:60], y_train=labels[:60], X_test=images[60:], y_test=labels[60:])
        self.network.write_text(
            "from torch import nn\n\n\n"
            "def small(n_classes, in_channels):\n"
            "    return nn.Sequential(\n"
            "        nn.Conv2d(in_channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),\n"
            "        nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),\n"
            "        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, n_classes),\n"
            "    )\n",
            encoding="utf-8",
        )

    def _make_table(self, generator: np.random.Generator) -> None:
        rows = generator.normal(size=(90, 4))
        kind = np.where(rows[:, 0] + rows[:, 1] > 0, "high", "low")
        lines = [
            ",".join([*(f"{value:.4f}" for value in row), name]) for row, name in zip(rows, kind, strict=True)
        ]
        self.table.write_text("\n".join(["a,b,c,d,kind", *lines]) + "\n", encoding="utf-8")


_HEADS = ("--cv", "2", "--set", "hidden=6", "--set", "epochs=2")
_SEARCH = ("--pop", "6", "--gens", "3", *_HEADS)
_BACKBONE = (
    "--backbone",
    "mobilenet_v2",
    "--backbone-arg",
    "width_mult=0.1",
    "--weights",
    "none",
    "--size",
    "32",
    "--batch-size",
    "4",
)


@dataclass(frozen=True)
class Case:
    """A command, and how it goes on after a kill.

    Attributes
    ----------
    start, resume
        Arguments of the command and of the documented command that goes on, for a desk and an output.
    measured
        Patterns of files that hold measured times, and are compared without them.
    loose
        Patterns of files that are drawings or pages of measured times: they need only be there, whole.
    out
        Name of the output.
    """

    start: Callable[[Desk, Path], list[str]]
    resume: Callable[[Desk, Path], list[str]]
    measured: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()
    out: str = "out"


def _words(*words: object) -> list[str]:
    return [str(word) for word in words]


def _run(desk: Desk, out: Path) -> list[str]:
    return _words("run", desk.features, "--out", out, "--seed", 3, "--jobs", 1, *_SEARCH)


def _run_on_images(desk: Desk, out: Path) -> list[str]:
    return _words("run", desk.images, "--out", out, "--jobs", 1, *_BACKBONE, *_SEARCH, "--no-baselines")


def _resume_run(desk: Desk, out: Path) -> list[str]:
    return _words("run", "--out", out, "--resume", "--jobs", 1)


def _resume_run_on_images(desk: Desk, out: Path) -> list[str]:
    return [*_resume_run(desk, out), "--no-baselines"]


def _extract(desk: Desk, out: Path) -> list[str]:
    return _words("extract", desk.images, "--out", out, *_BACKBONE)


def _compare(desk: Desk, out: Path) -> list[str]:
    methods = ("--methods", "dense,anova,nsga2", "--seeds", 2, "--budget", 12)
    return _words("compare", desk.features, "--out", out, "--jobs", 1, *methods, *_HEADS)


def _resume_compare(desk: Desk, out: Path) -> list[str]:
    return _words("compare", "--out", out, "--resume", "--jobs", 1)


def _sweep(desk: Desk, out: Path) -> list[str]:
    return _words(
        "sweep",
        desk.features,
        "--out",
        out,
        "--seeds",
        3,
        "--jobs",
        1,
        "--fronts-only",
        *_SEARCH,
        "--no-baselines",
    )


def _resume_sweep(desk: Desk, out: Path) -> list[str]:
    return [*_sweep(desk, out), "--resume"]


def _filters(desk: Desk, out: Path) -> list[str]:
    search = ("--budget", 12, "--pop", 6, "--search-images", 30, "--epochs", 1, "--jobs", 1)
    return _words("filters", desk.pictures, "--network", f"{desk.network}:small", "--out", out, *search)


def _resume_filters(desk: Desk, out: Path) -> list[str]:
    return _words("filters", "--network", f"{desk.network}:small", "--out", out, "--resume", "--jobs", 1)


def _construct(desk: Desk, out: Path) -> list[str]:
    quick = ("--hidden", "8,6", "--epochs", 3, "--cv", 2, "--epsilon", "0,1", "--budget", 6, "--jobs", 1)
    return _words("construct", desk.table, "--target", "kind", "--out", out, *quick)


CASES: dict[str, Case] = {
    "run": Case(_run, _resume_run, ("run.json", "ensembles.json", "report.html")),
    "images": Case(_run_on_images, _resume_run_on_images, ("run.json", "ensembles.json", "report.html")),
    "extract": Case(_extract, _extract, out="out.npz"),
    "compare": Case(_compare, _resume_compare, ("compare.csv", "cells/*.json"), ("compare.md", "figures/*.png")),
    "sweep": Case(_sweep, _resume_sweep, ("sweep.csv", "*/run.json")),
    "filters": Case(
        _filters, _resume_filters, ("filters.csv", "*/scores.json", "*/search.json"), ("filters.md", "front.png")
    ),
    "construct": Case(_construct, _construct, ("construct.csv",), ("construct.md",)),
}


# ---------------------------------------------------------------------------------------------- what is whole


def check_whole_folder(folder: Path) -> None:
    """Check every file below a folder that has its final name.

    Raises
    ------
    Loss
        One is not whole.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not _TEMPORARY.fullmatch(path.name) and not _LOCK.fullmatch(path.name):
            check_whole(path)


def check_whole(path: Path) -> None:
    """Check one file by reading all of it as what its name says.

    Raises
    ------
    Loss
        It is cut short, or cannot be read.
    """
    kind = path.suffix if path.suffix in _READERS else path.name
    try:
        _READERS[kind](path)
    except Exception as error:
        raise Loss(f"{path}: is not whole: {type(error).__name__}: {error}") from error


def _read_npz(path: Path) -> None:
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
        for name in archive.files:
            archive[name]


def _read_safetensors(path: Path) -> None:
    from safetensors.numpy import load_file

    load_file(path)


def _read_toml(path: Path) -> None:
    from moevoprune.cli.config import parse_config, read_toml

    parse_config(read_toml(path), str(path))


def _read_png(path: Path) -> None:
    from PIL import Image

    with Image.open(path) as image:
        image.load()


def _read_csv(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    widths = {len(row) for row in csv.reader(io.StringIO(text))}
    assert text.endswith("\n"), "the last line is cut short"
    assert len(widths) == 1, "the rows are of different lengths"


def _read_ending(path: Path, ending: str) -> None:
    assert path.read_text(encoding="utf-8").endswith(ending), "the end is missing"


def _read_journal(path: Path) -> None:
    """A journal grows: its last record may be cut short, and is then cut off. All before must be good."""
    *lines, _ = path.read_bytes().split(b"\n")
    for line in lines:
        assert line[:8] == b"%08x" % zlib.crc32(line[9:]), "a record is damaged"


def _read_batches(path: Path) -> None:
    """As a journal; and a line is written after its rows are."""
    *lines, _ = path.read_bytes().split(b"\n")
    with open(path.with_name("rows.f32"), "rb") as rows:
        size = rows.seek(0, os.SEEK_END)
        batches = [json.loads(line) for line in lines]
        images = sum(len(batch["images"]) for batch in batches)
        assert not images or size >= 4 * images, "rows are missing"
        width = None
        rows.seek(0)
        for batch in batches:
            if width is None:
                # the width is in the checksum of the first batch alone
                widths = range(1, size // (4 * len(batch["images"])) + 1)
                width = next(w for w in widths if _crc(rows, 0, w, batch) == batch["crc"])
                rows.seek(0)
            assert zlib.crc32(rows.read(4 * width * len(batch["images"]))) == batch["crc"], "rows are damaged"


def _crc(rows: Any, start: int, width: int, batch: dict[str, Any]) -> int:
    rows.seek(start)
    return zlib.crc32(rows.read(4 * width * len(batch["images"])))


_READERS: dict[str, Callable[[Path], object]] = {
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    ".png": _read_png,
    ".csv": _read_csv,
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".toml": _read_toml,
    ".md": lambda path: _read_ending(path, "\n"),
    ".html": lambda path: _read_ending(path, "</html>"),
    ".journal": _read_journal,
    ".jsonl": _read_batches,
    # read together with the lines that promise them, up to which they may be cut short
    ".f32": lambda path: path.stat(),
    "lock": lambda path: path.stat(),
}


# ---------------------------------------------------------------------------------------------- what is the same


def contents(out: Path, case: Case) -> dict[str, object]:
    """What a command has written, by name: bytes, without measured times where there are any."""
    if out.is_file():
        return {out.name: out.read_bytes()}
    found: dict[str, object] = {}
    for path in sorted(out.rglob("*")):
        if path.is_file():
            name = path.relative_to(out).as_posix()
            if any(fnmatch(name, pattern) for pattern in case.loose):
                found[name] = "whole"
            elif any(fnmatch(name, pattern) for pattern in case.measured):
                found[name] = _without_times(path)
            else:
                found[name] = path.read_bytes()
    return found


def _without_times(path: Path) -> object:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return _plain(json.loads(text))
    if path.suffix == ".csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        return [{key: value for key, value in row.items() if not _MEASURED.search(key)} for row in rows]
    return re.sub(r"\d+(\.\d+)? (s|seconds|min)\b", "SECONDS", text)


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items() if not _MEASURED.search(key)}
    return [_plain(entry) for entry in value] if isinstance(value, list) else value


# ---------------------------------------------------------------------------------------------- the harness


@dataclass
class Tally:
    """What was done to a command."""

    by_time: int = 0
    by_operation: Counter[str] = field(default_factory=Counter)
    resumes: int = 0
    in_a_row: int = 0
    workers: int = 0
    losses: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """All of them."""
        return self.by_time + sum(self.by_operation.values()) + self.workers

    def __str__(self) -> str:
        at = ", ".join(f"{count} {where}" for where, count in sorted(self.by_operation.items()))
        return (
            f"{self.kills} kills ({self.by_time} at random moments; {at or 'none at operations'}; {self.workers} "
            f"with worker processes), {self.in_a_row} after another kill, {self.resumes} resumed to the end; "
            f"lost: {len(self.losses) or 'nothing'}"
        )


class Harness:
    """Kills one command.

    Parameters
    ----------
    name
        Key of :data:`CASES`.
    desk
        The data.
    work
        Folder for attempts.
    generator
        Of kills.
    twice
        Whether two undisturbed runs are compared, to see that they are the same.

    Attributes
    ----------
    operations : tuple of Operation
        File operations of the undisturbed command.
    expected : dict
        What it wrote.
    tally : Tally
        What was done.
    """

    def __init__(self, name: str, desk: Desk, work: Path, generator: random.Random, twice: bool = True) -> None:
        self.case = CASES[name]
        self._name, self._desk, self._work, self._random = name, desk, work, generator
        self._number = 0
        self.tally = Tally()
        self.expected, self.operations, self._seconds = self._undisturbed("first")
        if twice:
            # without what had to be loaded: children of now on have it
            again, _, self._seconds = self._undisturbed("second")
            self.compare(again, "two undisturbed runs")

    @property
    def finished(self) -> Path:
        """What the undisturbed command wrote."""
        return self._work / "first" / "files" / self.case.out

    def _undisturbed(self, attempt: str) -> tuple[dict[str, object], tuple[Operation, ...], float]:
        outcome, out = self._call(self._work / attempt, self.case.start)
        if outcome.code != 0:
            raise Loss(f"{self._name}: the undisturbed run ends with {outcome.code}: {outcome.said}")
        check_whole_folder(out.parent)
        return contents(out, self.case), outcome.operations, outcome.seconds

    def _call(
        self, attempt: Path, arguments: Callable[[Desk, Path], list[str]], kill: Kill | None = None
    ) -> tuple[Outcome, Path]:
        files = attempt / "files"
        files.mkdir(parents=True, exist_ok=True)
        out = files / self.case.out
        log = attempt / "said.txt"
        outcome = run_forked(
            _main_of(attempt),
            arguments(self._desk, out),
            files,
            log,
            kill,
            {"MOEVOPRUNE_CACHE": str(files / "cache")},
        )
        _load_modules(attempt / "modules.json")
        return outcome, out

    def kill(self, kills: Sequence[Kill]) -> None:
        """Start the command anew, kill it as often as asked, resume it, and compare.

        Raises
        ------
        Loss
            Something was lost.
        """
        self._number += 1
        attempt = self._work / f"attempt{self._number:03}"
        arguments, history = self.case.start, []
        for kill in kills:
            outcome, out = self._call(attempt, arguments, kill)
            history.append(str(kill))
            self._count(kill, outcome, first=len(history) == 1)
            check_whole_folder(out.parent)
            if outcome.code is not None:
                self._check_code(outcome, out, history)
            if outcome.code in (None, 0):
                arguments = self.case.resume
        self._resume(attempt, history)
        shutil.rmtree(attempt)

    def _resume(self, attempt: Path, history: list[str], apart: Sequence[str] = ()) -> None:
        outcome, out = self._call(attempt, self.case.resume)
        if outcome.code == 2 and "holds no" in outcome.said:
            # killed before there was anything to resume; the message says what to do
            outcome, out = self._call(attempt, self.case.start)
        elif (
            outcome.code == 2
            and self._name == "construct"
            and ("already" in outcome.said or "holds" in outcome.said)
        ):
            # killed while results were written: it does not write over them
            outcome, out = self._call(attempt / "another", self.case.start)
        if outcome.code != 0:
            raise Loss(
                f"{self._name}, killed {history}: the resume ends with {outcome.code}: {outcome.said[-2000:]}"
            )
        self.tally.resumes += 1
        check_whole_folder(out.parent)
        self._check_leftovers(out, history)
        found = contents(out, self.case)
        same = {name: self.expected.get(name) if name in apart else content for name, content in found.items()}
        self.compare(same, f"killed {history}")

    def _check_code(self, outcome: Outcome, out: Path, history: list[str]) -> None:
        allowed = outcome.code == 0 or (
            outcome.code == 2 and ("holds" in outcome.said or "already" in outcome.said)
        )
        if not allowed:
            raise Loss(f"{self._name}, killed {history}: ends with {outcome.code}: {outcome.said[-2000:]}")

    def _check_leftovers(self, out: Path, history: list[str]) -> None:
        folder = out.parent if out.is_file() else out
        left = [
            str(path.relative_to(folder))
            for path in folder.rglob("*")
            if _TEMPORARY.fullmatch(path.name) or _LOCK.fullmatch(path.name)
        ]
        if left:
            raise Loss(f"{self._name}, killed {history}: left after the resume: {left}")

    def compare(self, found: dict[str, object], what: str) -> None:
        """Compare with what the undisturbed command wrote.

        Raises
        ------
        Loss
            Something differs.
        """
        names = sorted(found.keys() ^ self.expected.keys())
        if names:
            raise Loss(f"{self._name}, {what}: files that are not in both: {names}")
        differing = [name for name, content in found.items() if content != self.expected[name]]
        if differing:
            raise Loss(f"{self._name}, {what}: other content than that of an undisturbed run: {differing}")

    def _count(self, kill: Kill, outcome: Outcome, first: bool) -> None:
        if outcome.code is not None:
            if first and kill.seconds is not None:
                # it was over before: the machine is less busy than when the undisturbed run was measured
                self._seconds = min(self._seconds, kill.seconds)
            return
        self.tally.in_a_row += not first
        if kill.operation is None:
            self.tally.by_time += 1
        else:
            known = first and kill.operation <= len(self.operations)
            kind = self.operations[kill.operation - 1].kind if known else "operation of a resume"
            self.tally.by_operation[f"{kill.phase} {kind}"] += 1

    def random_kill(self, by_time: bool) -> Kill:
        """A kill at any moment, or at any operation, where rare kinds are as likely as frequent ones."""
        if by_time:
            return Kill(seconds=self._random.uniform(0.0, self._seconds))
        kind = self._random.choice(sorted({operation.kind for operation in self.operations}))
        places = [number for number, done in enumerate(self.operations, start=1) if done.kind == kind]
        phases: list[Any] = ["before", "after"]
        return Kill(
            operation=self._random.choice(places),
            phase=self._random.choice([*phases, "within", "within"] if kind == "write" else phases),
        )

    def kill_often(self, kills: int) -> None:
        """Kill at random until that has been done so many times; losses are in the tally."""
        while self.tally.kills < kills and len(self.tally.losses) < 5:
            row = self._random.choices((1, 2, 3), (6, 2, 1))[0]
            row = min(row, kills - self.tally.kills)
            by_operation = sum(self.tally.by_operation.values())
            planned = [self.random_kill(by_time=self.tally.by_time <= by_operation) for _ in range(row)]
            try:
                self.kill(planned)
            except Loss as loss:
                self.tally.losses.append(f"{loss}\n  see {self._work / f'attempt{self._number:03}'}")

    def kill_with_workers(self, kills: int) -> None:
        """Kill a real process that has workers; they must end too, and the run be resumed as any other."""
        for _ in range(kills):
            self._number += 1
            attempt = self._work / f"attempt{self._number:03}"
            try:
                self._kill_with_workers(attempt)
                # the settings of the run, and the page that lists them, say how many processes there were
                self._resume(attempt, ["with workers"], apart=("config.toml", "report.html"))
                shutil.rmtree(attempt)
            except Loss as loss:
                self.tally.losses.append(f"{loss}\n  see {attempt}")

    def _kill_with_workers(self, attempt: Path) -> None:
        files = attempt / "files"
        files.mkdir(parents=True)
        arguments = self.case.start(self._desk, files / self.case.out)
        if "--jobs" in arguments:
            arguments[arguments.index("--jobs") + 1] = "2"
        environment = {**os.environ, "MOEVOPRUNE_CACHE": str(files / "cache")}
        with open(attempt / "said.txt", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "moevoprune", *arguments],
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        _wait_for(lambda: process.poll() is not None or len(list(_processes_of(process.pid))) > 1, _LONGEST)
        with suppress(subprocess.TimeoutExpired):
            process.wait(self._random.uniform(0.0, self._seconds))
        had_workers = len(list(_processes_of(process.pid))) > 1
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.tally.workers += had_workers and process.returncode == -signal.SIGKILL
        if not _wait_for(lambda: not list(_processes_of(process.pid)), _SECONDS_TO_END):
            left = list(_processes_of(process.pid))
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            raise Loss(f"{self._name}: {len(left)} worker processes outlive the main process")
        check_whole_folder(files)


def _wait_for(done: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.05)
    return done()


def _processes_of(session: int) -> Iterator[int]:
    """Living processes of a session."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                state, _, _, of = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(of) == session and state != "Z":
                    yield int(entry.name)


def _main_of(attempt: Path) -> Callable[[Sequence[str]], int]:
    def command(arguments: Sequence[str]) -> int:
        from moevoprune.cli.main import main

        before = set(sys.modules)
        code = main(arguments)
        names = sorted(set(sys.modules) - before)
        (attempt / "modules.json").write_text(json.dumps(names))
        return code

    return command


def _load_modules(file: Path) -> None:
    """Import what a child had to import, so that the next need not."""
    if file.exists():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in json.loads(file.read_text()):
                if name.partition(".")[0] in (
                    "moevoprune",
                    "torch",
                    "sklearn",
                    "matplotlib",
                    "pymoo",
                    "scipy",
                    "PIL",
                ):
                    with suppress(Exception):
                        importlib.import_module(name)


def prepare() -> None:
    """Make this process fit to be forked."""
    import torch

    torch.set_num_threads(1)


def draw_nothing() -> None:
    """Write figures as files like others, but with nothing on them: drawing takes most of a small run's time."""
    from matplotlib.figure import Figure
    from PIL import Image

    def blank(_: Figure, path: Path, **__: object) -> None:
        Image.new("RGB", (8, 8)).save(path, format="png")

    Figure.savefig = blank  # type: ignore[method-assign]


def main() -> int:
    """Carry out the script; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", default=",".join(CASES), help="default: %(default)s")
    parser.add_argument("--kills", type=int, default=50, help="of each command (default: %(default)s)")
    parser.add_argument(
        "--workers", type=int, default=5, help="of these with worker processes (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the kills (default: %(default)s)")
    parser.add_argument("--work", type=Path, help="folder for attempts (default: a temporary one)")
    parser.add_argument("--draw", action="store_true", help="draw figures, instead of writing blank ones")
    asked = parser.parse_args()
    prepare()
    if not asked.draw:
        draw_nothing()
    work = asked.work or Path(tempfile.mkdtemp(prefix="kill-anywhere-"))
    (work / "desk").mkdir(parents=True, exist_ok=True)
    desk = Desk(work / "desk")
    losses: list[str] = []
    total = 0
    for name in asked.commands.split(","):
        started = time.monotonic()
        (work / name).mkdir()
        harness = Harness(name, desk, work / name, random.Random(f"{asked.seed} {name}"))
        # of the others one process does all
        if name in ("run", "compare", "sweep"):
            harness.kill_with_workers(min(asked.workers, asked.kills))
        harness.kill_often(asked.kills)
        print(f"{name}: {harness.tally}; {time.monotonic() - started:.0f} s", flush=True)
        for loss in harness.tally.losses:
            print(f"  {loss}", flush=True)
        losses += harness.tally.losses
        total += harness.tally.kills
    print(f"{total} kills, lost: {len(losses) or 'nothing'}")
    if not losses and asked.work is None:
        shutil.rmtree(work)
    return 1 if losses else 0


if __name__ == "__main__":
    sys.exit(main())
