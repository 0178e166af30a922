"""Commands that are killed: after some seconds, or right before, within or right after a chosen file operation.

A command runs in a forked child, so that what takes seconds to import is imported once.
"""

from __future__ import annotations

import builtins
import io
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

__all__ = ["FileOperations", "Kill", "Operation", "Outcome", "Phase", "run_forked"]

Phase = Literal["before", "within", "after"]
_FAILED = 70
_LONGEST = 600.0


@dataclass(frozen=True)
class Kill:
    """When to kill: after some seconds, or at a file operation, counted from 1.

    Within a write means that half of it has reached the file; of other operations it means before.
    """

    seconds: float | None = None
    operation: int | None = None
    phase: Phase = "before"

    def __str__(self) -> str:
        if self.operation is None:
            return f"after {self.seconds:.2f} s"
        return f"{self.phase} file operation {self.operation}"


class Operation(NamedTuple):
    """What was done to which file; of one that was renamed also its new name."""

    kind: str
    path: str
    target: str | None = None


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code, None where it was killed; seconds; the file operations that it did."""

    code: int | None
    seconds: float
    said: str
    operations: tuple[Operation, ...]


class FileOperations:
    """Counts what this process does to files below a folder, and kills it at one of these operations.

    Parameters
    ----------
    folder
        Operations on other files do not count.
    kill
        Where to kill; one after seconds is left to others.
    """

    def __init__(self, folder: Path, kill: Kill | None = None) -> None:
        self._folder = os.path.realpath(folder)
        self._kill = kill
        self.done: list[Operation] = []

    def watch(self) -> None:
        """Take the place of the functions that change files, until the process ends."""
        for name in ("replace", "rename", "unlink", "mkdir", "rmdir"):
            self._replace(name)
        real_fsync, real_open = os.fsync, builtins.open

        def fsync(descriptor: int) -> None:
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            kind = "fsync of a folder" if os.path.isdir(path) else "fsync"
            self._step(kind, path, lambda: real_fsync(descriptor))

        def opened(file: Any, mode: str = "r", buffering: int = -1, *more: Any, **named: Any) -> Any:
            if isinstance(file, int) or not set(mode) & set("wax+") or not self._is_watched(file):
                return real_open(file, mode, buffering, *more, **named)
            return self._open_watched(file, mode, buffering, *more, **named)

        os.fsync = fsync
        builtins.open = io.open = opened  # type: ignore[assignment]

    def _replace(self, name: str) -> None:
        real: Callable[..., Any] = getattr(os, name)

        def counted(path: Any, *more: Any, **named: Any) -> Any:
            target = more[0] if name in ("replace", "rename") else None
            return self._step(name, path, lambda: real(path, *more, **named), target=target)

        setattr(os, name, counted)

    def _open_watched(
        self,
        file: Any,
        mode: str,
        buffering: int,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> Any:
        operations = self

        class Watched(io.FileIO):
            def write(self, data: Any) -> int:
                view = memoryview(data).cast("B")
                written: int = operations._step(
                    "write",
                    file,
                    lambda: super(Watched, self).write(view),
                    lambda: super(Watched, self).write(view[: (len(view) + 1) // 2]),
                )
                return written

            def truncate(self, size: int | None = None) -> int:
                length: int = operations._step("truncate", file, lambda: super(Watched, self).truncate(size))
                return length

        plain = mode.replace("b", "").replace("t", "")
        raw: Watched = self._step("open", file, lambda: Watched(file, plain))
        if buffering == 0:
            return raw
        buffered: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

    def _is_watched(self, path: Any) -> bool:
        try:
            whole = os.path.realpath(os.fsdecode(path))
        except TypeError:
            return False
        return whole == self._folder or whole.startswith(self._folder + os.sep)

    def _step(
        self,
        kind: str,
        path: Any,
        act: Callable[[], Any],
        half: Callable[[], Any] | None = None,
        target: Any = None,
    ) -> Any:
        if not self._is_watched(path):
            return act()
        names = [os.path.realpath(os.fsdecode(name)) for name in (path, target) if name is not None]
        self.done.append(Operation(kind, *names))
        chosen = self._kill is not None and self._kill.operation == len(self.done)
        if not chosen:
            place = len(self.done) - 1
            try:
                return act()
            except OSError:
                self.done[place] = Operation(f"failed {kind}", *names)
                raise
        assert self._kill is not None
        if self._kill.phase == "within" and half is not None:
            half()
        elif self._kill.phase == "after":
            act()
        os.kill(os.getpid(), signal.SIGKILL)


def run_forked(
    command: Callable[[Sequence[str]], int],
    arguments: Sequence[str],
    folder: Path,
    log: Path,
    kill: Kill | None = None,
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    """Carry out a command in a child of this process.

    Parameters
    ----------
    command
        Takes the arguments, and returns an exit code.
    arguments
        For the command.
    folder
        File operations below it count.
    log
        File for what is said; beside it are the operations of a child that came to its end.
    kill
        When to kill it; None lets it end.
    environment
        Variables to set.
    """
    record = log.with_suffix(".operations")
    record.unlink(missing_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _be_the_child(command, arguments, folder, log, record, kill, environment or {})
    status = _wait(child, started, kill.seconds if kill is not None else None)
    seconds = time.monotonic() - started
    said = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    if os.WIFSIGNALED(status):
        return Outcome(None, seconds, said, ())
    done = tuple(Operation(*operation) for operation in json.loads(record.read_text()))
    return Outcome(os.WEXITSTATUS(status), seconds, said, done)


def _be_the_child(
    command: Callable[[Sequence[str]], int],
    arguments: Sequence[str],
    folder: Path,
    log: Path,
    record: Path,
    kill: Kill | None,
    environment: Mapping[str, str],
) -> None:
    code = _FAILED
    operations = FileOperations(folder, kill)
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        # of a test that captures what is printed
        sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(n, "w"), line_buffering=True) for n in (1, 2))
        os.environ.update(environment)
        operations.watch()
        try:
            code = command(arguments)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else _FAILED
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        record.write_text(json.dumps(operations.done))
        # nothing that the parent wanted done at its end is the child's to do
        os._exit(code)


def _wait(child: int, started: float, seconds: float | None) -> int:
    """Wait for a child, or kill it when its time has come; returns its status."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        passed = time.monotonic() - started
        if passed > _LONGEST or (seconds is not None and passed >= seconds):
            os.kill(child, signal.SIGKILL)
            return os.waitpid(child, 0)[1]
        time.sleep(0.002)
