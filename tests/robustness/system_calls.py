"""What this process asks of the system, as Python's audit events tell: files written, programs, the network."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Calls", "recorded"]

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# which of an event's arguments are paths that it changes
_CHANGING = {
    **dict.fromkeys(
        ("os.mkdir", "os.rmdir", "os.remove", "os.truncate", "os.chmod", "os.chown", "os.utime"), (0,)
    ),
    **dict.fromkeys(("os.rename", "os.link", "shutil.move"), (0, 1)),
    **dict.fromkeys(("os.symlink", "shutil.copyfile", "shutil.copytree"), (1,)),
    **dict.fromkeys(("shutil.rmtree", "tempfile.mkstemp", "tempfile.mkdtemp", "sqlite3.connect"), (0,)),
}
_PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn")
_NETWORK = (
    *("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.sendto"),
    *("urllib.Request", "http.client.connect", "ftplib.connect", "smtplib.connect"),
)


@dataclass
class Calls:
    """What was asked for while it was recorded."""

    changed: set[Path] = field(default_factory=set)
    programs: list[str] = field(default_factory=list)
    network: list[str] = field(default_factory=list)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            by_flags = isinstance(flags, int) and bool(flags & _WRITING)
            if by_flags or (isinstance(mode, str) and set(mode) & set("wax+")):
                self._change(path)
        elif event in _CHANGING:
            for place in _CHANGING[event]:
                self._change(arguments[place], _folder_of(event, arguments, place))
        elif event in _PROGRAMS:
            self.programs.append(f"{event} {arguments[:2]}")
        elif event in _NETWORK and not _is_of_this_machine(arguments):
            self.network.append(f"{event} {arguments[1:]}")

    def _change(self, path: object, folder: str = "") -> None:
        # descriptors are those of files that were opened before
        if isinstance(path, str | bytes | os.PathLike):
            self.changed.add(Path(os.path.abspath(os.path.join(folder, os.fsdecode(path)))))


# where these events have the descriptor of the folder that a relative path starts from
_FOLDERS = {"os.remove": (1,), "os.rmdir": (1,), "os.mkdir": (2,), "os.rename": (2, 3), "os.symlink": (None, 2)}


def _folder_of(event: str, arguments: tuple[Any, ...], place: int) -> str:
    """Folder that a relative path starts from; "" for the current one."""
    at = dict(enumerate(_FOLDERS.get(event, ()))).get(place)
    descriptor = -1 if at is None or at >= len(arguments) else arguments[at]
    return os.readlink(f"/proc/self/fd/{descriptor}") if isinstance(descriptor, int) and descriptor >= 0 else ""


def _is_of_this_machine(arguments: tuple[Any, ...]) -> bool:
    """Whether processes of this machine talk through a file."""
    return len(arguments) == 2 and isinstance(arguments[1], str | bytes) and hasattr(arguments[0], "family")


_listening: list[Calls] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    for calls in _listening:
        calls.hear(event, arguments)


@contextmanager
def recorded() -> Iterator[Calls]:
    """Record until the block ends; the hook itself stays, as Python never takes one back."""
    if not getattr(sys, "_moevoprune_hook", False):
        sys._moevoprune_hook = True  # type: ignore[attr-defined]
        sys.addaudithook(_hook)
    calls = Calls()
    _listening.append(calls)
    try:
        yield calls
    finally:
        _listening.remove(calls)
