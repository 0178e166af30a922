"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from moevoprune.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "atomic_path",
    "cache_folder",
    "check_folder",
    "load_toml",
    "make_folder",
    "open_regular",
    "ordered_safetensors",
    "read_text",
    "remove_leftovers",
    "sync_folder",
    "write_text",
]

# of records and tables, which have some kilobytes; forged ones may have any size
_MOST_TEXT = 2**26
# of settings; reading a key of many parts takes time by the square of their number, minutes for 40 kB
_MOST_TOML, _MOST_POINTS = 2**20, 100
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}(\.\w+)?")


def check_folder(folder: Path, option: str) -> None:
    """Find out before the work whether a folder can be made and written to, without making it.

    Parameters
    ----------
    folder
        It, or what is to be made.
    option
        Of the command line, that named it.

    Raises
    ------
    InputError
        Something else is in its place, or in that of a folder above it, or the folder there cannot be written to.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        raise InputError(f"{option} {folder}: {there} is no folder that can be written to: choose another")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{option} {folder}: {there} cannot be written to: choose another")


def make_folder(folder: Path) -> None:
    """Make a folder and those above it where they are missing, such that they survive a power loss.

    Parameters
    ----------
    folder
        May be there already.

    Raises
    ------
    OSError
        It cannot be made.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    # what is written in a folder is of no use where the folder itself is lost
    for path in reversed(missing):
        sync_folder(path.parent)


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading, and only a regular one: a FIFO would wait for ever, and a device has no end.

    Raises
    ------
    OSError
        It is absent, may not be read, or is something else.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        return open(path, "rb")
    except ValueError as error:  # a character that no path can hold
        raise OSError(errno.EINVAL, f"is no possible path: {error}", str(path)) from None


def read_text(path: Path, most_bytes: int = _MOST_TEXT) -> str:
    """Read a regular text file in UTF-8; the byte order mark of Windows' editors is left out.

    Parameters
    ----------
    path
        The file.
    most_bytes
        Its size at most.

    Raises
    ------
    OSError
        As :func:`open_regular`, or the file is larger.
    UnicodeDecodeError
        It is no such text.
    """
    with open_regular(path) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"is larger than {most_bytes / 2**20:.3g} MiB", str(path))
    return content.decode("utf-8-sig").replace("\r\n", "\n")


def load_toml(path: Path) -> tuple[str, dict[str, Any]]:
    """Read a TOML file of settings: its text, and what it says.

    Raises
    ------
    OSError
        As :func:`read_text`.
    ValueError
        It is no TOML in UTF-8, or has lines that no settings need and that would take minutes to read.
    RecursionError
        It is nested too deep.
    """
    text = read_text(path, _MOST_TOML)
    for number, line in enumerate(text.splitlines(), start=1):
        if line.count(".") > _MOST_POINTS:
            raise ValueError(f"line {number} has more than {_MOST_POINTS} points: write it as several lines")
    return text, tomllib.loads(text)


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Give a temporary name to write to; it takes the target's place when the block ends well.

    Parameters
    ----------
    target
        Final path; its folder must exist.

    Yields
    ------
    Path
        A name in the same folder, with the same suffix, that does not exist yet.

    Raises
    ------
    InputError
        The file cannot be written (full disk, read-only folder); nothing is left behind.
    """
    target = Path(target)
    temporary = target.with_name(f".{target.stem[:80]}.{secrets.token_hex(4)}{target.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
        sync_folder(target.parent)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
        advice = "free some space and try again" if full else "choose an existing, writable folder"
        raise InputError(f"{target}: cannot be written ({error.strerror or error}): {advice}") from error
    finally:
        # on a read-only file system even this fails, and there is nothing to remove
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def cache_folder(chosen: Path | None = None) -> Path | None:
    """Folder for what can be computed again: the one chosen, MOEVOPRUNE_CACHE, or the user's; may not exist.

    Parameters
    ----------
    chosen
        Used as it is where given.

    Returns
    -------
    Path or None
        None where the user has no home folder.
    """
    if chosen is not None:
        return Path(chosen)
    from_environment = os.environ.get("MOEVOPRUNE_CACHE")
    if from_environment:
        return Path(from_environment)
    import platformdirs

    try:
        return platformdirs.user_cache_path("moevoprune")
    except (OSError, RuntimeError):
        return None


def remove_leftovers(folder: Path, target: str | None = None) -> None:
    """Remove temporary files of :func:`atomic_path` that a killed process has left in a folder.

    Parameters
    ----------
    folder
        Where to look.
    target
        Name of the file that they were to become; None for any.
    """
    start = "." if target is None else f".{Path(target).stem[:80]}."
    if folder.is_dir():
        for path in folder.iterdir():
            if _TEMPORARY.fullmatch(path.name) and path.name.startswith(start):
                # a folder of such a name, or one that cannot be written to: what is in the way says so itself
                with suppress(OSError):
                    path.unlink()


def write_text(target: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    try:
        content = text.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"{target}: holds a name that is not UTF-8: rename that file or folder") from None
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def ordered_safetensors(content: bytes) -> bytes:
    """Put the metadata of a safetensors file in the order of their names.

    The library writes them in an order that differs from one call to the next, and files of the same values would
    differ.

    Parameters
    ----------
    content
        What ``safetensors.numpy.save`` or ``safetensors.torch.save`` gave.

    Returns
    -------
    bytes
        The same tensors and metadata, the same for the same values.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    # tensors start at a multiple of eight bytes
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, memoryview(content)[start:]))


def sync_folder(folder: Path) -> None:
    """Make renames and new names in a folder survive a power loss, where the file system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
