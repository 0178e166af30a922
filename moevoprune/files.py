"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moevoprune.errors import InputError

__all__ = ["atomic_path", "sync_folder", "write_text"]


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
        reason = error.strerror or str(error)
        raise InputError(
            f"{target}: cannot be written ({reason}): free some space or choose another folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


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
