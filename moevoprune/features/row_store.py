"""Feature rows on disk by what they were made from: an extraction that is killed goes on where it was."""

from __future__ import annotations

import json
import os
import secrets
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError
from moevoprune.files import make_folder, sync_folder
from moevoprune.locks import claim

__all__ = ["RowStore"]

Rows = npt.NDArray[np.float32]
Digests = npt.NDArray[np.bytes_]

_ROWS, _LOG, _LOCK = "rows.f32", "batches.jsonl", "lock"
_DIGEST_BYTES = 32
_BLOCK = 2**22
_SECONDS_BETWEEN_SYNCS = 1.0


class RowStore:
    """Rows of float32 in a folder, found by the SHA-256 of the image they belong to.

    Two files: the rows, and a log with one line per batch that names the images of its rows and holds a checksum.
    Rows count once their line is there. What a killed process or a power cut left behind the last good line is
    cut off when the store is opened again. A killed process loses one batch at most; a power cut that, and what
    was added in the second before, as the disk is waited for no more often.

    Use it as a context manager. While it is open no other process can open it; a second one waits.

    Parameters
    ----------
    folder
        Where to keep it; made where missing.
    width
        Features in a row.
    waiting
        Called before waiting for another process.

    Raises
    ------
    InputError
        The folder cannot be made, read or written.
    """

    def __init__(self, folder: Path, width: int, waiting: Callable[[], None] = lambda: None) -> None:
        self._folder = folder
        self.width = width
        self._bytes_per_row = 4 * width
        self._waiting = waiting
        self._token = b""
        self._lock = -1
        self._known: Digests = _as_digests([])
        self._unsynced = False
        self._synced_at = 0.0

    def __enter__(self) -> RowStore:
        with self._failing_plainly():
            make_folder(self._folder)
            self._lock = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        if not claim(self._lock):
            self._waiting()
            claim(self._lock, wait=True)
        try:
            self._token = self._mark()
            self._recover()
            sync_folder(self._folder)
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._unsynced and self._is_there():
                self._sync()
        except InputError:
            # of two errors the first says what went wrong
            if error is None:
                raise
        finally:
            self._release()

    def __len__(self) -> int:
        return len(self._known)

    def find(self, digests: Sequence[bytes]) -> npt.NDArray[np.int64]:
        """Numbers of the rows of images, -1 where there is none, shape (len(digests),).

        Parameters
        ----------
        digests
            SHA-256 of each image, 32 bytes.
        """
        wanted = _as_digests(digests)
        numbers: npt.NDArray[np.int64] = np.full(len(wanted), -1, dtype=np.int64)
        if len(self._known) == 0:
            return numbers
        order = np.argsort(self._known, kind="stable")
        places = np.searchsorted(self._known, wanted, sorter=order)
        candidates = order[np.minimum(places, len(order) - 1)]
        found = self._known[candidates] == wanted
        numbers[found] = candidates[found]
        return numbers

    def append(self, digests: Sequence[bytes], rows: Rows) -> None:
        """Add a batch.

        Parameters
        ----------
        digests
            SHA-256 of each image, 32 bytes.
        rows
            Their features, shape (len(digests), width).

        Raises
        ------
        InputError
            The disk is full or the folder not writable; the batches added before are safe.
        """
        self._check_still_there()
        data = np.ascontiguousarray(rows, dtype="<f4").tobytes()
        line = {"crc": zlib.crc32(data), "images": [digest.hex() for digest in digests]}
        with self._failing_plainly():
            # first the rows: a line of the log promises that they are there
            with open(self._folder / _ROWS, "ab") as file:
                file.write(data)
            with open(self._folder / _LOG, "ab") as log:
                log.write(json.dumps(line).encode("ascii") + b"\n")
        self._unsynced = True
        if time.monotonic() - self._synced_at > _SECONDS_BETWEEN_SYNCS:
            self._sync()
        self._known = np.concatenate([self._known, _as_digests(digests)])

    def read(self, numbers: npt.NDArray[np.int64]) -> Rows:
        """Rows by their numbers, shape (len(numbers), width).

        Raises
        ------
        InputError
            The store has been removed, or made anew, since the numbers were asked for.
        """
        self._check_still_there()
        rows: Rows = np.empty((len(numbers), self.width), dtype=np.float32)
        if len(numbers) == 0:
            return rows
        # runs of neighbours are read in one go
        starts = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 2) != 1)
        with self._failing_plainly(), open(self._folder / _ROWS, "rb") as file:
            for start, end in zip(starts, [*starts[1:], len(numbers)], strict=True):
                file.seek(int(numbers[start]) * self._bytes_per_row)
                # not mapped into memory, where pages that were read count as memory in use
                part = np.fromfile(file, dtype="<f4", count=int(end - start) * self.width)
                if len(part) < (end - start) * self.width:
                    raise self._gone()
                rows[start:end] = part.reshape(-1, self.width)
        return rows

    def _sync(self) -> None:
        """Wait until the disk has all that was added, rows before the lines that promise them."""
        with self._failing_plainly():
            for name in (_ROWS, _LOG):
                with open(self._folder / name, "rb+") as file:
                    os.fsync(file.fileno())
        self._unsynced = False
        self._synced_at = time.monotonic()

    def _recover(self) -> None:
        known: list[bytes] = []
        length = 0
        for digests, line_length in self._good_batches():
            known += digests
            length += line_length
        self._known = _as_digests(known)
        with self._failing_plainly():
            for name, size in ((_ROWS, len(known) * self._bytes_per_row), (_LOG, length)):
                with open(self._folder / name, "ab") as file:
                    if file.tell() != size:
                        file.truncate(size)

    def _good_batches(self) -> Iterator[tuple[list[bytes], int]]:
        """Images and length of the line of every batch up to the first damaged one."""
        rows, log = self._folder / _ROWS, self._folder / _LOG
        if not (rows.exists() and log.exists()):
            return
        with self._failing_plainly(), open(rows, "rb") as row_file, open(log, "rb") as log_file:
            for line in log_file:
                batch = _parse(line)
                if batch is None:
                    return
                digests, crc = batch
                if _checksum(row_file, len(digests) * self._bytes_per_row) != crc:
                    return
                yield digests, len(line)

    def _mark(self) -> bytes:
        """What tells this store from one that is made in its place, kept in the lock file."""
        with self._failing_plainly():
            token = os.pread(self._lock, 64, 0)
            if not token:
                token = secrets.token_hex(16).encode("ascii")
                os.pwrite(self._lock, token, 0)
        return token

    def _check_still_there(self) -> None:
        if not self._is_there():
            raise self._gone()

    def _is_there(self) -> bool:
        try:
            return (self._folder / _LOCK).read_bytes() == self._token
        except OSError:
            return False

    def _gone(self) -> InputError:
        return InputError(
            f"{self._folder}: was removed or changed by another program while it was used: extract again"
        )

    def _release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @contextmanager
    def _failing_plainly(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"{self._folder}: extracted features cannot be kept there ({error.strerror or error}): free some "
                "space, or set the environment variable MOEVOPRUNE_CACHE to another folder"
            ) from error


def _as_digests(digests: Sequence[bytes]) -> Digests:
    # numpy drops zero bytes at the end, which does no harm where all have one length
    return np.array(digests, dtype=f"S{_DIGEST_BYTES}")


def _parse(line: bytes) -> tuple[list[bytes], int] | None:
    """Images and checksum of a line of the log; None for one that is damaged or cut short."""
    if not line.endswith(b"\n"):
        return None
    try:
        raw: Any = json.loads(line)
        digests, crc = [bytes.fromhex(digest) for digest in raw["images"]], raw["crc"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not digests or type(crc) is not int or any(len(digest) != _DIGEST_BYTES for digest in digests):
        return None
    return digests, crc


def _checksum(file: Any, length: int) -> int | None:
    """CRC-32 of the next bytes of a file, None where there are fewer."""
    crc = 0
    while length > 0:
        block = file.read(min(length, _BLOCK))
        if not block:
            return None
        crc = zlib.crc32(block, crc)
        length -= len(block)
    return crc
