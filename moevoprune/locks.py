"""One writer at a time: locks that end with the process that holds them, however it ends."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from moevoprune.errors import InputError, printable
from moevoprune.files import make_folder

__all__ = ["LOCK", "claim", "only_writer", "only_writer_of"]

LOCK = ".moevoprune.lock"
"""Name of the lock in a folder that is written to. What a killed process leaves of it locks nobody out."""

_LONGEST_NOTE = 300


@contextmanager
def only_writer(folder: Path | None) -> Iterator[None]:
    """Keep other processes from writing to a folder, which is made where it is missing.

    Whoever only reads is not kept from it. Where the file system has no locks, or the folder cannot be written to,
    nobody is kept from anything; a folder that was made here and stays empty is removed again.

    Parameters
    ----------
    folder
        The folder; None for none, which does nothing.

    Raises
    ------
    InputError
        Another process, or another part of this one, writes to it.
    """
    if folder is None:
        yield
        return
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    # whoever writes there says why that cannot be
    with suppress(OSError):
        make_folder(folder)
    try:
        with _locked(folder / LOCK, f"{folder}", "choose another --out folder"):
            yield
    finally:
        with suppress(OSError):
            for path in missing:
                path.rmdir()


@contextmanager
def only_writer_of(file: Path) -> Iterator[None]:
    """Keep other processes from writing a file, whose folder must exist, as :func:`only_writer` does for a folder.

    Parameters
    ----------
    file
        The file, which may be missing.

    Raises
    ------
    InputError
        Another process, or another part of this one, is writing it.
    """
    with _locked(file.with_name(f".{file.name[:80]}.lock"), f"{file}", "choose another file"):
        yield


def claim(descriptor: int, wait: bool = False) -> bool:
    """Lock an open file until it is closed, also by the end of the process.

    Parameters
    ----------
    descriptor
        Of the file, open for writing.
    wait
        Whether to wait until nobody else holds it.

    Returns
    -------
    bool
        False where somebody else holds it. True where it is ours, or where the system has no locks that let
        others read on.
    """
    if os.name != "posix":
        return True
    from filelock import lock_descriptor

    try:
        return lock_descriptor(descriptor, blocking=wait)
    except OSError:  # a file system without locks
        return True


@contextmanager
def _locked(path: Path, what: str, instead: str) -> Iterator[None]:
    from filelock import FileLock, Timeout

    # not filelock's own way for file systems without locks: that lock would outlive a crash
    lock = FileLock(path, mode=0o666, blocking=False, fallback_to_soft=False, on_acquired=_sign)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"{what}: another process{_holder(path)} is writing to it: wait until that has ended, or {instead}"
        ) from None
    except OSError:
        yield
        return
    try:
        yield
    finally:
        # while it is still ours: what has this name later may be another's
        with suppress(OSError):
            path.unlink()
        lock.release()


def _sign(descriptor: int) -> None:
    """Write into a lock whose it is; on a full disk it stays unsigned."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()} {platform.node()}\n".encode())


def _holder(path: Path) -> str:
    """Who has signed a lock, in words; empty where nobody can tell."""
    try:
        with open(path, "rb") as file:
            pid, _, host = file.read(_LONGEST_NOTE).decode("utf-8").strip().partition(" ")
    except (OSError, UnicodeDecodeError):
        return ""
    if not (pid.isascii() and pid.isdigit()):
        return ""
    return f" ({pid})" if host == platform.node() else f" ({pid} on {printable(host)})"
