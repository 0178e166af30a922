"""How much memory is free: what does not fit is refused before it is read, not when the machine has run out."""

from __future__ import annotations

import os
from pathlib import Path

from moevoprune.errors import InputError
from moevoprune.files import open_regular

__all__ = ["check_room", "check_whole_file", "free_memory"]

_MEMINFO, _CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def free_memory() -> int | None:
    """Bytes of memory that can still be used, on Linux, also in a container; None where that is not known."""
    known = [free for free in (_free_of_machine(_MEMINFO), _free_of_group(_CGROUP)) if free is not None]
    return min(known, default=None)


def check_room(n_bytes: int, what: str, advice: str) -> None:
    """Refuse what does not fit into memory.

    Parameters
    ----------
    n_bytes
        What it takes.
    what
        What it is, for the message.
    advice
        What to do about it.

    Raises
    ------
    InputError
        It takes more than is free.
    """
    free = free_memory()
    if free is not None and n_bytes > free:
        raise InputError(
            f"{what} takes {n_bytes / 2**30:.3g} GiB of memory, of which {free / 2**30:.3g} GiB are free: {advice}"
        )


def check_whole_file(path: Path, copies: int = 1) -> None:
    """Make sure that a library may be given a file that it reads whole.

    Parameters
    ----------
    path
        The file.
    copies
        How often the library holds its content at once.

    Raises
    ------
    OSError
        It is absent, may not be read, or is no regular file.
    InputError
        It does not fit into memory.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
    check_room(copies * size, str(path), "is it the right file?")


def _free_of_machine(meminfo: Path) -> int | None:
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
        (available,) = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        return int(available) * 1024
    except (OSError, ValueError, IndexError):
        return None


def _free_of_group(folder: Path) -> int | None:
    """What the group of processes may still use (version 2); None where there is no limit."""
    try:
        limit, used = (int((folder / f"memory.{name}").read_text(encoding="ascii")) for name in ("max", "current"))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
        # files that were read are kept in memory as long as nobody else needs it
        return max(limit - used + int(stat["inactive_file"]) + int(stat["active_file"]), 0)
    except (OSError, ValueError, KeyError):
        return None
