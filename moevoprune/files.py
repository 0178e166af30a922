"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moevoprune.errors import InputError

__all__ = ["atomic_path", "write_error", "write_text"]


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
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{target.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise write_error(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_error(target: Path, error: OSError) -> InputError:
    """One line for a path that cannot be written."""
    reason = error.strerror or str(error)
    return InputError(f"{target}: cannot be written ({reason}): free some space or choose another folder")


def _sync_folder(folder: Path) -> None:
    # the rename itself must survive a power loss; some file systems cannot open folders
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
