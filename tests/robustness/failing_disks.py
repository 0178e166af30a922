"""Commands on disks that fail: every file operation of a command is made to fail, one run per operation and fault.

An undisturbed run counts the operations that change files in its folders: files opened for writing, writes, fsync,
closing, renames, new folders, removals. Then the command runs again and again, and its k-th operation fails:

* ``full``: half of what is written arrives, after that there is no space (ENOSPC); ``quota``: the same, EDQUOT
* ``error``: this operation fails with EIO, later ones work
* ``stale``: nothing works any more, also reading (ESTALE, as on a network file system whose server went away)
* ``readonly``: nothing can be changed any more, not even removed (EROFS)
* ``removed``, ``replaced``: the folder disappears, or a file lies in its place
* ``nosync``: every fsync fails, from the start (EINVAL); ``nolinks``: neither links nor locks (ENOTSUP)

After each: the exit code is 2 (or the command carried on, to the same results), stderr has one line, no file is
half written and no temporary one is left where removing works. Then the disk is mended and the command given again
(resumed where it has --resume; construct, which has none, into an empty folder): the results are those of the
undisturbed run, byte for byte.

With --mount the same commands run on real small file systems: tmpfs of several sizes, full from somewhere in the
middle, and one that is mounted read-only during the run. That needs root or user namespaces.
"""

from __future__ import annotations

import argparse
import builtins
import contextlib
import errno
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

FAULTS = ("full", "quota", "error", "stale", "readonly", "removed", "replaced")
FROM_THE_START = ("nosync", "nolinks")
_ERRNO = {
    "full": errno.ENOSPC,
    "quota": errno.EDQUOT,
    "error": errno.EIO,
    "stale": errno.ESTALE,
    "readonly": errno.EROFS,
    "nosync": errno.EINVAL,
    "nolinks": errno.ENOTSUP,
}
# what a full disk still does
_NEEDS_SPACE = {"open", "write", "fsync", "mkdir", "close"}


class Disk:
    """Counts the file operations below a folder while it is entered, and lets one fail.

    Parameters
    ----------
    folder
        What lies on the disk.
    fault
        One of ``FAULTS`` or ``FROM_THE_START``, or None for a disk that works.
    at
        Number of the operation that fails first, from 1.

    Attributes
    ----------
    operations
        Their names with their files, in order.
    """

    def __init__(self, folder: Path, fault: str | None = None, at: int = 0) -> None:
        self.folder = Path(os.path.abspath(folder))
        self.fault = fault
        self.at = at
        self.operations: list[str] = []
        self._stack = contextlib.ExitStack()
        self._real_open, self._real_os_open = io.open, os.open
        self._descriptors: dict[int, str] = {}
        self._broken = False

    def __enter__(self) -> Disk:
        put = self._stack.enter_context
        real = {name: getattr(os, name) for name in ("replace", "rename", "mkdir", "unlink", "remove", "rmdir")}
        for owner in (io, builtins):
            put(mock.patch.object(owner, "open", self._open))
        put(mock.patch.object(os, "open", self._os_open))
        put(mock.patch.object(os, "fsync", self._fsync(os.fsync)))
        for name in ("link", "symlink"):
            put(mock.patch.object(os, name, self._link(getattr(os, name))))
        for name, function in real.items():
            put(mock.patch.object(os, name, self._on_path(name, function)))
        with contextlib.suppress(ImportError):
            import fcntl

            for name in ("flock", "lockf"):
                put(mock.patch.object(fcntl, name, self._lock(getattr(fcntl, name))))
        # Python 3.10 has pathlib keep the functions that it found on import
        accessor = getattr(pathlib, "_NormalAccessor", None)
        for name in ("open", "mkdir", "unlink", "replace", "rename", "rmdir") if accessor else ():
            function = self._open if name == "open" else getattr(os, name)
            put(mock.patch.object(accessor, name, staticmethod(function)))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def fails(self, operation: str, path: str) -> bool:
        """Take note of an operation; whether it is to fail."""
        self.operations.append(f"{operation} {os.path.relpath(path, self.folder)}")
        if self.fault is None or self.fault in FROM_THE_START:
            return False
        now = len(self.operations) == self.at
        if now and self.fault in ("removed", "replaced"):
            self._take_away()
        if now and self.fault != "error":
            self._broken = True
        if self.fault in ("removed", "replaced"):
            return False
        if self.fault in ("full", "quota"):
            return self._broken and operation in _NEEDS_SPACE
        return now or self._broken

    def error(self, path: str) -> OSError:
        """What a failing operation raises."""
        number = _ERRNO[str(self.fault)]
        return OSError(number, os.strerror(number), path)

    def _take_away(self) -> None:
        with mock.patch.object(os, "open", self._real_os_open):
            moved = self.folder.with_name(f"{self.folder.name}-{time.monotonic_ns()}")
            os.rename.__wrapped__(self.folder, moved)  # type: ignore[attr-defined]
            if self.fault == "replaced":
                with self._real_open(self.folder, "w") as file:
                    file.write("somebody else's")

    def _ours(self, path: object) -> str | None:
        if not isinstance(path, str | bytes | os.PathLike):
            return None
        name = os.path.abspath(os.fsdecode(path))
        return name if Path(name).is_relative_to(self.folder) else None

    def _open(self, file: Any, mode: str = "r", buffering: int = -1, *more: Any, **named: Any) -> Any:
        path = self._ours(file)
        if path is None or not set(mode) & set("wxa+"):
            if path is not None and self.fault == "stale" and self._broken:
                raise self.error(path)
            return self._real_open(file, mode, buffering, *more, **named)
        if self.fails("open", path):
            raise self.error(path)
        raw = _File(self, path, mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        kind = io.BufferedRandom if "+" in mode else io.BufferedWriter
        buffered = kind(raw)
        if "b" in mode:
            return buffered
        text = io.TextIOWrapper(buffered, *more, **named)
        text.mode = mode  # type: ignore[misc]
        return text

    def _os_open(self, path: Any, flags: int, *more: Any, **named: Any) -> int:
        name = self._ours(path)
        changing = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if name is not None and (self.fails("open", name) if changing else self.fault == "stale" and self._broken):
            raise self.error(name)
        descriptor = self._real_os_open(path, flags, *more, **named)
        if name is not None:
            self._descriptors[descriptor] = name
        return descriptor

    def _fsync(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def fsync(descriptor: int) -> None:
            path = self._ours(_name_of(descriptor) or self._descriptors.get(descriptor))
            if path is not None and (self.fails("fsync", path) or self.fault == "nosync"):
                raise self.error(path)
            real(descriptor)

        return fsync

    def _link(self, real: Callable[..., None]) -> Callable[..., None]:
        def link(source: Any, target: Any, *more: Any, **named: Any) -> None:
            path = self._ours(target)
            if path is not None and (self.fault == "nolinks" or self.fails("link", path)):
                raise self.error(path)
            real(source, target, *more, **named)

        return link

    def _lock(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def lock(file: Any, *more: Any) -> Any:
            if self.fault == "nolinks":
                raise self.error(str(file))
            return real(file, *more)

        return lock

    def _on_path(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def operate(path: Any, *more: Any, **named: Any) -> Any:
            target = self._ours(more[0] if name in ("replace", "rename") else path)
            # a folder that is there already, a file that is not: these change nothing
            idle = target is not None and (
                (name == "mkdir" and os.path.exists(target))
                or (name in ("unlink", "remove") and not os.path.lexists(target))
            )
            if target is not None and "dir_fd" not in named and not idle and self.fails(name, target):
                raise self.error(target)
            return real(path, *more, **named)

        operate.__wrapped__ = real  # type: ignore[attr-defined]
        return operate


class _File(io.FileIO):
    """A file on a :class:`Disk`."""

    def __init__(self, disk: Disk, path: str, mode: str) -> None:
        self._disk = disk
        self._path = path
        super().__init__(path, mode)

    def write(self, data: Any) -> int:
        disk = self._disk
        already = disk._broken
        if disk.fails("write", self._path):
            half = len(memoryview(data).cast("B")) // 2
            if disk.fault in ("full", "quota") and half and not already:
                return super().write(memoryview(data).cast("B")[:half])
            raise disk.error(self._path)
        return super().write(data)

    def truncate(self, size: int | None = None) -> int:
        if self._disk.fails("truncate", self._path):
            raise self._disk.error(self._path)
        return super().truncate(size)

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        if self._disk.fails("close", self._path):
            raise self._disk.error(self._path)


def _name_of(descriptor: int) -> str | None:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return None


# --- commands ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """A command that is attacked.

    Attributes
    ----------
    name
        Its name.
    words
        What is typed; ``{disk}`` is the folder that fails, ``{desk}`` one with its inputs.
    again
        What is added when it is given again.
    results
        Patterns of the files that must be the same bytes in the end.
    begins_with
        A folder beside the inputs that the disk starts as a copy of.
    """

    name: str
    words: tuple[str, ...]
    results: tuple[str, ...]
    again: tuple[str, ...] = ()
    begins_with: str | None = None

    def argv(self, desk: Path, disk: Path, again: bool = False) -> list[str]:
        words = (*self.words, *(self.again if again else ()))
        return [word.format(disk=disk, desk=desk) for word in words]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_HEADS = _words("--cv 2 --set epochs=2 --set hidden=8 --objectives accuracy,active_neurons --device cpu --quiet")
_SMALL = ["--pop", "4", "--gens", "2", "--algorithm", "nsga2"]
_BACKBONE = _words("--backbone mobilenet_v2 --backbone-arg width_mult=0.1 --weights none --size 32")
_FILTERS = _words("--budget 8 --pop 4 --search-images 32 --epochs 1 --jobs 1 --quiet")
_CONSTRUCT = _words("--hidden 4 --epochs 2 --cv 2 --weight-decay 0.01 --epsilon 0,1 --budget 0 --jobs 1 --quiet")
_FRONT = ("front.csv", "front.npz", "heads.safetensors", "predictions.npz", "evaluations.journal")

COMMANDS = (
    Command(
        "run",
        ("run", "{desk}/small.npz", "--out", "{disk}/r", "--jobs", "1", "--no-baselines", *_SMALL, *_HEADS),
        tuple(f"r/{name}" for name in _FRONT),
        ("--resume",),
    ),
    Command(
        "sweep",
        ("sweep", "{desk}/small.npz", "--seeds", "2", "--jobs", "1", "--fronts-only", "--out", "{disk}/s",
         *_SMALL, *_HEADS),
        (*(f"s/small-seed{seed}/{name}" for seed in (1, 2) for name in _FRONT),),
        ("--resume",),
    ),
    Command(
        "compare",
        ("compare", "{desk}/small.npz", "--methods", "dense,anova", "--seeds", "1", "--budget", "6", "--jobs", "1",
         "--out", "{disk}/c", *_HEADS),
        ("c/members.csv",),
        ("--resume",),
    ),
    Command(
        "extract",
        ("extract", "{desk}/colours", "--out", "{disk}/new/f.npz", "--device", "cpu", "--batch-size", "4",
         "--quiet", *_BACKBONE),
        ("new/f.npz",),
    ),
    Command(
        "filters",
        ("filters", "{desk}/bars.npz", "--network", "{desk}/networks.py:small", "--out", "{disk}/f", *_FILTERS),
        ("f/small/guided/front.csv", "f/small/guided/front.npz", "f/small/guided/evaluations.journal"),
        ("--resume",),
    ),
    Command(
        "construct",
        ("construct", "linnerud", "--out", "{disk}/o", *_CONSTRUCT),
        ("o/sweep.csv", "o/linnerud.safetensors"),
    ),
    Command(
        "export",
        ("export", "{disk}", "--member", "knee", "--to", "{disk}/knee.safetensors"),
        ("knee.safetensors",),
        begins_with="finished",
    ),
    Command(
        "ensemble", ("ensemble", "{disk}"), ("ensembles.csv", "windows.csv", "ensembles.json"),
        begins_with="finished",
    ),
    Command("report", ("report", "{disk}"), ("report.html",), begins_with="finished"),
    Command("plot", ("plot", "{disk}"), ("figures/*.png",), begins_with="finished"),
)  # fmt: skip

_NETWORKS = """
from torch import nn

def small(n_classes, in_channels):
    return nn.Sequential(
        nn.Conv2d(in_channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, n_classes),
    )
"""


def lay_out(desk: Path, seed: int = 7) -> None:
    """Write the inputs of all commands into a folder: features, images, a network, a finished run."""
    from PIL import Image

    from moevoprune.cli.main import main

    generator = np.random.default_rng(seed)
    centres = np.zeros((3, 14))
    centres[:, :5] = generator.normal(scale=1.5, size=(3, 5))
    labels = generator.permutation(np.repeat([0, 1, 2], 30))
    rows = (centres[labels] + generator.normal(size=(90, 14))).astype(np.float32)
    np.savez(desk / "small.npz", X_train=rows[:60], y_train=labels[:60], X_test=rows[60:], y_test=labels[60:])
    images = generator.integers(0, 120, (60, 6, 6), dtype=np.uint8)
    labels = np.arange(60) % 2
    images[labels == 0, 2:4, :] += 100
    parts = {"X_train": images[:40], "y_train": labels[:40], "X_test": images[40:], "y_test": labels[40:]}
    np.savez(desk / "bars.npz", **parts)
    (desk / "networks.py").write_text(_NETWORKS, encoding="utf-8")
    for number in range(16):
        path = desk / "colours" / ("red", "green")[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 100, (40, 36, 3), dtype=np.uint8)
        pixels[..., number % 2] += 120
        Image.fromarray(pixels).save(path)
    words = COMMANDS[0].argv(desk, desk / "made")
    if main(words) != 0:
        raise RuntimeError("the undisturbed run failed")
    shutil.move(desk / "made" / "r", desk / "finished")


@dataclass
class Outcome:
    """What a command did on a disk."""

    code: int
    stderr: str
    problems: list[str] = field(default_factory=list)


def give(command: Command, desk: Path, disk: Path, again: bool = False) -> Outcome:
    """Give a command in this process; what it keeps for other runs lies on the same disk."""
    from moevoprune.cli.main import main

    said = io.StringIO()
    problems = []
    with (
        mock.patch.dict(os.environ, {"MOEVOPRUNE_CACHE": str(disk / "cache")}),
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        try:
            code = main(command.argv(desk, disk, again))
        except SystemExit as left:
            code = int(left.code or 0)
        except Exception as error:
            code = -1
            problems.append(f"{type(error).__name__}: {error}")
    return Outcome(code, said.getvalue(), problems)


def give_again(command: Command, desk: Path, disk: Path) -> Outcome:
    """Give a command on a mended disk, in the way that it advises where it refuses the first."""
    outcome = give(command, desk, disk, again=True)
    if "leave --resume out" in outcome.stderr:
        # the disk came back empty
        return give(command, desk, disk)
    if command.name == "construct" and "choose another --out folder" in outcome.stderr:
        # it has no --resume, and writes nothing over
        begin(command, desk, disk)
        return give(command, desk, disk)
    return outcome


def begin(command: Command, desk: Path, disk: Path) -> None:
    """Make the disk what it is before the command."""
    shutil.rmtree(disk, ignore_errors=True)
    if command.begins_with is None:
        disk.mkdir()
    else:
        shutil.copytree(desk / command.begins_with, disk)


def results_of(command: Command, disk: Path) -> dict[str, bytes]:
    """The files that must be the same bytes in the end."""
    found = {path for pattern in command.results for path in disk.glob(pattern)}
    return {str(path.relative_to(disk)): path.read_bytes() for path in sorted(found)}


def half_written(disk: Path) -> list[str]:
    """Files that are not whole: they cannot be read, or are temporary ones that somebody forgot."""
    from moevoprune.locks import LOCK

    wrong = []
    for path in sorted(disk.rglob("*")) if disk.is_dir() else []:
        name = str(path.relative_to(disk))
        if path.is_dir() or "cache" in path.parts:
            continue
        if path.name.startswith("."):
            # what a lock leaves behind locks nobody out
            if path.name != LOCK and path.suffix != ".lock":
                wrong.append(f"{name} is left over")
            continue
        try:
            _read(path)
        except Exception as error:
            wrong.append(f"{name} cannot be read: {type(error).__name__}: {error}")
    return wrong


def _read(path: Path) -> None:
    from PIL import Image
    from safetensors import safe_open

    from moevoprune.search.journal import EvaluationJournal

    content = path.read_bytes()
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise ValueError("damaged")
    elif path.suffix == ".json":
        json.loads(content)
    elif path.suffix == ".journal":
        EvaluationJournal.read(path)
    elif path.suffix == ".png":
        with Image.open(path) as image:
            image.load()
    elif path.suffix == ".safetensors":
        with safe_open(path, framework="numpy") as file:
            file.keys()
    elif path.suffix == ".html":
        if not content.rstrip().endswith(b"</html>"):
            raise ValueError("cut short")
    elif path.suffix in (".csv", ".toml", ".md") and not content.endswith(b"\n"):
        raise ValueError("cut short")


def wrong_with(outcome: Outcome, disk: Path, fault: str) -> list[str]:
    """Everything about a failed command that should not be so."""
    wrong = list(outcome.problems)
    lines = outcome.stderr.strip().splitlines()
    # 1: some runs of a sweep failed
    if outcome.code not in (0, 1, 2):
        wrong.append(f"exit code {outcome.code}")
    if outcome.code in (1, 2) and (len(lines) != 1 or not lines[0].startswith("moevoprune: error: ")):
        wrong.append(f"{len(lines)} lines on stderr: {outcome.stderr!r}")
    if "Errno" in outcome.stderr:
        wrong.append(f"says a number: {outcome.stderr!r}")
    if "Traceback" in outcome.stderr:
        wrong.append("a traceback")
    unremovable = fault in ("readonly", "stale")
    wrong += [one for one in half_written(disk) if not (unremovable and one.endswith("left over"))]
    return wrong


def attack(
    command: Command, desk: Path, folder: Path, fault: str, at: int, expected: dict[str, bytes]
) -> tuple[str, list[str]]:
    """Let one operation of a command fail, look at what is left, mend the disk and give the command again.

    Returns
    -------
    operation, wrong
        What failed, and all that should not be so.
    """
    disk = folder / "disk"
    begin(command, desk, disk)
    with Disk(disk, fault, at) as failing:
        outcome = give(command, desk, disk)
    operation = failing.operations[at - 1] if 0 < at <= len(failing.operations) else "from the start"
    if fault == "replaced" and disk.is_file():
        disk.unlink()
    wrong = wrong_with(outcome, disk, fault)
    for taken in folder.glob("disk-*"):
        # nobody can remove a temporary file from a folder that is elsewhere by now
        wrong += [one for one in half_written(taken) if not one.endswith("left over")]
        # removed when all was written: nobody can notice
        finished = outcome.code == 0 and results_of(command, taken) == expected
        shutil.rmtree(taken)
        if finished:
            return operation, wrong
    # a disk that was taken away comes back empty; inputs that lay on it are laid there again
    if command.begins_with is not None and fault in ("removed", "replaced"):
        begin(command, desk, disk)
    disk.mkdir(exist_ok=True)
    if outcome.code != 0:
        resumed = give_again(command, desk, disk)
        if resumed.code != 0:
            wrong.append(f"given again it ends with {resumed.code}: {resumed.stderr!r} {resumed.problems}")
    if results_of(command, disk) != expected:
        if outcome.code == 0 and fault in ("removed", "replaced"):
            return operation, [*wrong, "says nothing of a folder that is gone"]
        wrong.append("other results")
    return operation, [f"{one} (first: {outcome.code}, {outcome.stderr.strip()[:200]})" for one in wrong]


def undisturbed(command: Command, desk: Path, folder: Path) -> tuple[list[str], dict[str, bytes]]:
    """Operations and results of a command on a disk that works."""
    disk = folder / "disk"
    begin(command, desk, disk)
    with Disk(disk) as counting:
        outcome = give(command, desk, disk)
    expected = results_of(command, disk)
    if outcome.code != 0 or not expected:
        raise RuntimeError(f"{command.name} failed undisturbed: {outcome}")
    return counting.operations, expected


def points(operations: Sequence[str], most: int | None, seed: int) -> list[int]:
    """Numbers of the operations that are to fail, from 1.

    Parameters
    ----------
    operations
        Those of an undisturbed run.
    most
        None for the first and the last of each stretch of like ones, 0 for all, else so many drawn at random.
    seed
        Of the drawing.
    """
    if most == 0:
        return list(range(1, len(operations) + 1))
    last = len(operations) - 1
    ends = [
        number + 1
        for number, name in enumerate(operations)
        if number in (0, last) or name != operations[number - 1] or name != operations[number + 1]
    ]
    if most is None or len(ends) <= most:
        return ends
    return sorted(map(int, np.random.default_rng(seed).choice(ends, most, replace=False)))


def attack_all(
    commands: Sequence[Command], faults: Sequence[str], desk: Path, folder: Path, most: int | None, seed: int
) -> Iterator[tuple[str, str, int, int, list[str]]]:
    """Attack commands; yields command, fault, operations, attacks and everything that was wrong."""
    for command in commands:
        operations, expected = undisturbed(command, desk, folder)
        for number, fault in enumerate(faults):
            chosen = [0] if fault in FROM_THE_START else points(operations, most, seed + number)
            wrong = []
            for at in chosen:
                operation, found = attack(command, desk, folder, fault, at, expected)
                wrong += [f"{command.name}, {fault} at {at} ({operation}): {one}" for one in found]
            yield command.name, fault, len(operations), len(chosen), wrong


# --- real file systems -------------------------------------------------------------------------------


def mount(disk: Path, kilobytes: int) -> None:
    """Mount a small file system in memory."""
    disk.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)], check=True)


def attack_mounted(command: Command, desk: Path, folder: Path, sizes: Sequence[int]) -> Iterator[list[str]]:
    """Give a command on real file systems that are too small, enlarge them, and give it again."""
    _, expected = undisturbed(command, desk, folder)
    # over the folder of the undisturbed run: pages name it
    disk = folder / "disk"
    for size in sizes:
        mount(disk, size)
        try:
            if command.begins_with is not None:
                try:
                    shutil.copytree(desk / command.begins_with, disk, dirs_exist_ok=True)
                except shutil.Error:
                    yield []
                    continue
            first = give(command, desk, disk)
            wrong = wrong_with(first, disk, "full")
            wrong += wrong_when_mended(command, desk, disk, first, "size=64m", expected)
            yield [f"{command.name} on {size} KiB: {one} (first: {first.stderr.strip()[:200]})" for one in wrong]
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=True)


def wrong_when_mended(
    command: Command, desk: Path, disk: Path, first: Outcome, options: str, expected: dict[str, bytes]
) -> list[str]:
    """Mount a disk anew such that it works; what is wrong with going on there, and with what comes out."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)
    wrong = []
    if first.code != 0 and give_again(command, desk, disk).code != 0:
        wrong.append("given again it fails")
    if results_of(command, disk) != expected:
        wrong.append("other results")
    return wrong


def attack_read_only(command: Command, desk: Path, folder: Path, after: int) -> list[str]:
    """Give a command whose file system is mounted read-only after so many operations; then make it writable."""
    _, expected = undisturbed(command, desk, folder)
    # over the folder of the undisturbed run: pages name it
    disk = folder / "disk"
    mount(disk, 65536)
    try:
        if command.begins_with is not None:
            shutil.copytree(desk / command.begins_with, disk, dirs_exist_ok=True)
        with _ReadOnlyAfter(disk, after):
            first = give(command, desk, disk)
        wrong = wrong_with(first, disk, "readonly")
        wrong += wrong_when_mended(command, desk, disk, first, "rw", expected)
        return [f"{command.name}, read-only after {after}: {one} ({first.stderr.strip()[:200]})" for one in wrong]
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


class _ReadOnlyAfter(Disk):
    """A disk that is really mounted read-only as soon as no file is open for writing there."""

    def __init__(self, folder: Path, after: int) -> None:
        super().__init__(folder)
        self._after = after
        self._done = False

    def fails(self, operation: str, path: str) -> bool:
        if not self._done and len(self.operations) >= self._after:
            asked = ["mount", "-o", "remount,ro", str(self.folder)]
            # refused while a file is open for writing: tried again at the next operation
            self._done = subprocess.run(asked, capture_output=True, check=False).returncode == 0
        return super().fails(operation, path)


def may_mount() -> bool:
    """Whether this process may mount file systems in a namespace of its own."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return False
    tried = [unshare, "-r", "-m", "sh", "-c", "mount -t tmpfs -o size=64k tmpfs /mnt"]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0


def _in_namespace(arguments: Sequence[str]) -> int:
    words = ["unshare", "-r", "-m", sys.executable, __file__, "--in-namespace", *arguments]
    return subprocess.run(words, check=False).returncode


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ", ".join(command.name for command in COMMANDS)
    parser.add_argument("--commands", metavar="A,B", help=f"those to attack (default: all: {names})")
    parser.add_argument("--faults", metavar="A,B", help="those to try (default: all)")
    parser.add_argument(
        "--points",
        type=int,
        metavar="N",
        help="operations per command and fault, drawn at random; 0 for all "
        "(default: the first and the last of each stretch of like ones)",
    )
    parser.add_argument("--seed", type=int, default=0, help="draws the operations (default: 0)")
    parser.add_argument("--mount", action="store_true", help="real small file systems instead of injected faults")
    parser.add_argument("--in-namespace", action="store_true", help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Attack, print a summary, and return 1 where anything was lost."""
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(words)
    if arguments.mount and not arguments.in_namespace:
        if not may_mount():
            print("file systems cannot be mounted here: needs Linux, unshare, and root or user namespaces")
            return 1
        return _in_namespace(words)
    import torch

    from moevoprune.fronts.plots import style

    torch.set_num_threads(1)
    style.DPI = 30
    wanted = arguments.commands.split(",") if arguments.commands else [command.name for command in COMMANDS]
    commands = [command for command in COMMANDS if command.name in wanted]
    faults = arguments.faults.split(",") if arguments.faults else [*FAULTS, *FROM_THE_START]
    lost = tried = 0
    with tempfile.TemporaryDirectory() as scratch:
        desk, folder = Path(scratch, "desk"), Path(scratch, "attacked")
        desk.mkdir()
        folder.mkdir()
        lay_out(desk)
        for name, fault, n_operations, n_tried, wrong in (
            _mounted(commands, desk, folder, arguments.points, arguments.seed)
            if arguments.mount
            else attack_all(commands, faults, desk, folder, arguments.points, arguments.seed)
        ):
            tried += n_tried
            lost += len(wrong)
            print(
                f"{name}, {fault}: {n_tried} attacks ({n_operations} operations), {len(wrong)} wrong", flush=True
            )
            for one in wrong:
                print(f"  {one}", flush=True)
    print(f"{tried} attacks, {lost} wrong")
    return 1 if lost else 0


def _mounted(
    commands: Sequence[Command], desk: Path, folder: Path, most: int | None, seed: int
) -> Iterator[tuple[str, str, int, int, list[str]]]:
    for command in commands:
        operations, _ = undisturbed(command, desk, folder)
        used = sum(path.stat().st_size for path in (folder / "disk").rglob("*") if path.is_file()) // 1024
        sizes = [4 * page for page in range(1, used // 4 + 2)]
        if most:
            sizes = sizes[:: -(-len(sizes) // most)]
        wrong = [one for found in attack_mounted(command, desk, folder, sizes) for one in found]
        yield command.name, "full tmpfs", len(operations), len(sizes), wrong
        after = points(operations, most, seed)
        wrong = [one for number in after for one in attack_read_only(command, desk, folder, number)]
        yield command.name, "read-only tmpfs", len(operations), len(after), wrong


if __name__ == "__main__":
    sys.exit(main())
