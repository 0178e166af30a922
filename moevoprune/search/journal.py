"""Append-only journal of evaluated masks: the checkpoint of a run.

A resumed run replays the algorithm from its seed and takes the values of masks that it meets again from
the journal, so the journal is all the state that must survive a kill. It is a text file with one record a
line, each line ``crc32-hex SPACE json``; the checksum tells a whole record from one torn by a kill, a full
disk or a damaged block. Nothing in it is pickled.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import io
import json
import math
import os
import re
import stat
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError
from moevoprune.files import sync_folder
from moevoprune.locks import claim

__all__ = ["EvaluationJournal"]

FORMAT = "moevoprune-journal"
VERSION = 1

_HEADER_START = b' {"format": "' + FORMAT.encode() + b'"'
# A foreign file without line ends must not be read whole just to learn that it is no journal.
_MAX_HEADER_BYTES = 1 << 20
_FLUSH_BYTES = 1 << 20
# "NAME (HASH)"
_CONTENT = re.compile(r"\(([0-9a-f]{16})\)$")
_SHOWN_CHANGES = 3
_SHOWN_CHARS = 70
_BLOCK = 4096
# far beyond what any head has: a forged header must not ask for more memory than there is
_MOST_BITS = 10**9
# of a float in JSON, with what separates it from the next
_LONGEST_NUMBER = 32


@dataclass
class _Content:
    """What a journal file holds; ``header`` is None if it was torn before its header was complete."""

    header: dict[str, Any] | None
    # one record behind the other: an object for each would take several times the memory
    packed: bytearray = field(default_factory=bytearray)
    values: array[float] = field(default_factory=lambda: array("d"))
    damaged: int = 0
    end: int = 0  # offset just behind the last good record
    size: int = 0  # of the whole file


class EvaluationJournal:
    """Journal of evaluated masks and their objective values, open for appending.

    Made by :meth:`create` or :meth:`resume`; a context manager that closes the file. One of them has it at a
    time: the file is locked until it is closed, or its process ends. Readers are not kept out.

    Attributes
    ----------
    path : Path
        The journal file.
    n_bits : int
        Bits of a mask, at least 1.
    objectives : tuple of str
        Names of the objectives, in the order of the values.
    damaged : int
        Damaged records that resuming skipped because good ones follow them.
    """

    def __init__(
        self, path: Path, file: io.FileIO, n_bits: int, objectives: tuple[str, ...], content: _Content
    ) -> None:
        self.path = path
        self.n_bits = n_bits
        self.objectives = objectives
        self.damaged = content.damaged
        self._file = file
        self._content = content
        self._end = content.end
        # Own buffer, not Python's: after a failed write it must be known which records reached the file.
        self._pending = bytearray()

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        identity: Mapping[str, object],
        n_bits: int,
        objectives: Sequence[str],
    ) -> EvaluationJournal:
        """Start a new journal; its header is on disk when this returns.

        Parameters
        ----------
        path : path
            File to create, in an existing folder.
        identity : mapping
            Settings that the values depend on: str to str, int, finite float, bool or a list of these.
        n_bits : int
            Bits of a mask, at least 1.
        objectives : sequence of str
            Names of the objectives, at least one.

        Raises
        ------
        InputError
            If the file exists, cannot be written, or an argument is not as described.
        """
        target = Path(path)
        header = _make_header(target, identity, n_bits, objectives)
        try:
            file = open(target, "xb+", buffering=0)  # noqa: SIM115 - kept open by the journal
        except FileExistsError:
            raise InputError(f"{target} already exists; resume it or use a new folder") from None
        except OSError as error:
            raise InputError(
                f"cannot create {target}: {_reason(error)}; check that its folder exists and is writable"
            ) from error
        journal = cls(target, file, int(n_bits), tuple(objectives), _Content(header))
        _claim(target, file)
        try:
            journal._write_header(header)
        except BaseException:
            _close_quietly(file)
            with contextlib.suppress(OSError):
                target.unlink()
            raise
        return journal

    @classmethod
    def resume(
        cls,
        path: str | os.PathLike[str],
        identity: Mapping[str, object],
        n_bits: int,
        objectives: Sequence[str],
    ) -> EvaluationJournal:
        """Open an existing journal for appending and read its records into :attr:`entries`.

        A torn or damaged tail is cut off the file. A damaged record that good ones follow is skipped and
        counted in :attr:`damaged`. A file that ends before its header is complete (a kill during
        :meth:`create`) is an empty journal and is started afresh.

        Parameters
        ----------
        path, identity, n_bits, objectives
            As in :meth:`create`; all but the path must equal those of the journal.

        Raises
        ------
        InputError
            If the file is missing, is not a journal, belongs to other settings, cannot be written, or somebody
            else has it open for writing.
        """
        target = Path(path)
        header = _make_header(target, identity, n_bits, objectives)
        content = _load(target)
        if content.header is not None:
            _check_same_run(target, content.header, header)
        try:
            file = open(target, "rb+", buffering=0)  # noqa: SIM115 - kept open by the journal
        except OSError as error:
            raise _write_error(target, error) from error
        _claim(target, file)
        if os.fstat(file.fileno()).st_size != content.size:
            # somebody else has written until now
            file.close()
            return cls.resume(path, identity, n_bits, objectives)
        journal = cls(target, file, int(n_bits), tuple(objectives), content)
        try:
            if file.seek(0, os.SEEK_END) > content.end:
                file.truncate(content.end)
                os.fsync(file.fileno())
            if content.header is None:
                journal._write_header(header)
        except OSError as error:
            _close_quietly(file)
            raise _write_error(target, error) from error
        except BaseException:
            _close_quietly(file)
            raise
        return journal

    @staticmethod
    def check(
        path: str | os.PathLike[str],
        identity: Mapping[str, object],
        n_bits: int,
        objectives: Sequence[str],
    ) -> None:
        """Check that :meth:`resume` would find the journal of this run; reads no records and changes nothing.

        Parameters
        ----------
        path, identity, n_bits, objectives
            As in :meth:`resume`.

        Raises
        ------
        InputError
            If the file is missing, is not a journal or belongs to other settings.
        """
        target = Path(path)
        header = _make_header(target, identity, n_bits, objectives)
        content = _load(target, records=False)
        if content.header is not None:
            _check_same_run(target, content.header, header)

    @staticmethod
    def read(
        path: str | os.PathLike[str],
    ) -> tuple[dict[str, Any], npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
        """Read a journal without changing it, also while a run writes to it.

        Returns
        -------
        header : dict
            The header record: ``format``, ``version``, ``identity``, ``n_bits`` and ``objectives``.
        masks : bool array of shape (n, n_bits)
            The evaluated masks, in order of evaluation. One byte a bit in memory.
        values : float64 array of shape (n, n_objectives)
            Their objective values, exactly as written.

        Raises
        ------
        InputError
            If the file is missing, is not a journal or holds no complete header.
        """
        target = Path(path)
        content = _load(target)
        if content.header is None:
            raise InputError(f"{target} holds no complete header, so nothing was recorded in it; resume the run")
        n_bits, n_obj = content.header["n_bits"], len(content.header["objectives"])
        values = np.array(content.values, dtype=np.float64).reshape(-1, n_obj)
        return content.header, _unpacked(content.packed, n_bits), values

    @property
    def entries(self) -> list[tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]]:
        """Records found by :meth:`resume`, oldest first; empty for a new journal.

        Pairs of a mask (bool, shape (n_bits,)) and its values (float64, shape (n_objectives,)). The list
        is built at each access and takes a byte for each bit of each mask: for long runs with large masks
        use :meth:`iter_entries`.
        """
        return list(self.iter_entries())

    def iter_entries(self) -> Iterator[tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]]:
        """Yield the pairs of :attr:`entries` one at a time; only packed masks are kept in memory."""
        for masks, values in self.iter_blocks():
            yield from zip(masks, values, strict=True)

    def iter_blocks(self) -> Iterator[tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]]:
        """Yield :attr:`entries` some thousands at a time.

        Yields
        ------
        masks, values
            Bool of shape (n, n_bits), and float64 of shape (n, n_objectives).
        """
        width, n_obj = _packed_bytes(self.n_bits), len(self.objectives)
        for start in range(0, len(self._content.packed) // width, _BLOCK):
            end = start + _BLOCK
            masks = _unpacked(self._content.packed[start * width : end * width], self.n_bits)
            yield masks, np.array(self._content.values[start * n_obj : end * n_obj]).reshape(-1, n_obj)

    def forget_entries(self) -> None:
        """Give back the memory of :attr:`entries`, which is empty from then on; the file keeps them."""
        self._content = _Content(self._content.header)

    def append(self, masks: npt.NDArray[np.bool_], values: npt.NDArray[np.float64]) -> None:
        """Add records to the buffer; they are safe on disk after :meth:`sync`.

        Parameters
        ----------
        masks : bool array of shape (n, n_bits)
            Evaluated masks.
        values : float array of shape (n, n_objectives)
            Their values, finite.

        Raises
        ------
        InputError
            If an array is not as described (then none of the records is kept), or the file cannot be
            written (then they stay in the buffer, and a later :meth:`sync` tries again).
        """
        self._check_open()
        bits = np.asarray(masks)
        if bits.dtype != np.bool_ or bits.ndim != 2 or bits.shape[1] != self.n_bits:
            raise InputError(
                f"masks for {self.path} are {bits.dtype} of shape {bits.shape}; "
                f"give a bool array of shape (n, {self.n_bits})"
            )
        try:
            numbers = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"values for {self.path} are not numbers; give a float array") from error
        if numbers.shape != (len(bits), len(self.objectives)):
            raise InputError(
                f"values for {self.path} have shape {numbers.shape}; "
                f"give one row a mask and one column an objective: ({len(bits)}, {len(self.objectives)})"
            )
        if not np.isfinite(numbers).all():
            row, column = np.argwhere(~np.isfinite(numbers))[0]
            raise InputError(
                f"value {numbers[row, column]} of objective {self.objectives[column]!r}, row {row}, "
                f"is not finite; {self.path} keeps finite values only, so mend the objective"
            )
        for packed, row_values in zip(np.packbits(bits, axis=1), numbers.tolist(), strict=True):
            record = {"m": base64.b64encode(packed.tobytes()).decode("ascii"), "v": row_values}
            self._pending += _line(record)
        if len(self._pending) > _FLUSH_BYTES:
            self._flush()

    def sync(self) -> None:
        """Write the buffer and wait until the disk has it; call once a generation.

        Raises
        ------
        InputError
            If the file cannot be written: it then ends with its last whole record, and the records that it
            lacks stay in the buffer. Or if it has been removed.
        """
        self._check_open()
        self._flush()
        if not os.path.lexists(self.path):
            # the system would go on writing to a file that nobody can find any more
            raise InputError(f"{self.path} was removed while it was written to; start the run again")
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _write_error(self.path, error) from error

    def close(self) -> None:
        """Sync and close the file; closing twice does nothing.

        Raises
        ------
        InputError
            If the buffer cannot be written; the file is closed all the same.
        """
        if self._file.closed:
            return
        try:
            self.sync()
        except BaseException:
            _close_quietly(self._file)
            raise
        try:
            self._file.close()
        except OSError as error:
            raise _write_error(self.path, error) from error

    def __enter__(self) -> EvaluationJournal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        # The error under way says what went wrong first; a full disk would only be told a second time.
        with contextlib.suppress(InputError):
            self.close()

    def _check_open(self) -> None:
        if self._file.closed:
            raise ValueError(f"the journal {self.path} is closed")

    def _write_header(self, header: dict[str, Any]) -> None:
        self._pending += _line(header)
        self.sync()
        sync_folder(self.path.parent)

    def _flush(self) -> None:
        """Write the buffer at the end of the last good record; on failure cut a torn record off."""
        # A copy, as no view of the buffer may be alive when the buffer is cut after a failed write.
        data = bytes(self._pending)
        written = 0
        try:
            # Always from the known end: a write that was interrupted is then written over, not behind.
            self._file.seek(self._end)
            while written < len(data):
                written += self._file.write(data[written:]) or 0
        except OSError as error:
            whole = data.rfind(b"\n", 0, written) + 1
            self._end += whole
            del self._pending[:whole]
            # Should this fail as well, resuming cuts the torn record off.
            with contextlib.suppress(OSError):
                self._file.truncate(self._end)
            raise _write_error(self.path, error) from error
        self._end += written
        self._pending.clear()


def _close_quietly(file: io.FileIO) -> None:
    # the error under way says what went wrong first; a file system may say it again on closing
    with contextlib.suppress(OSError):
        file.close()


def _claim(path: Path, file: io.FileIO) -> None:
    """Lock a journal, or close it where somebody else has it."""
    if not claim(file.fileno()):
        file.close()
        raise InputError(
            f"{path} is being written by another search; wait until that has ended, or use another file"
        )


def _line(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record, allow_nan=False).encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _parse_line(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line, or None if the line is torn or damaged."""
    if line[-1:] != b"\n" or line[8:9] != b" " or line[:8] != b"%08x" % zlib.crc32(line[9:-1]):
        return None
    try:
        record = json.loads(line[9:-1])
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _parse_entry(line: bytes, n_bits: int, n_obj: int) -> tuple[bytes, list[float]] | None:
    record = _parse_line(line)
    if record is None:
        return None
    mask, values = record.get("m"), record.get("v")
    if not isinstance(mask, str) or not isinstance(values, list) or len(values) != n_obj:
        return None
    try:
        packed = base64.b64decode(mask, validate=True)
        numbers = [float(value) for value in values]
    except (binascii.Error, ValueError, TypeError, OverflowError):
        return None
    if len(packed) != _packed_bytes(n_bits) or not all(map(math.isfinite, numbers)):
        return None
    return packed, numbers


def _unpacked(packed: bytearray, n_bits: int) -> npt.NDArray[np.bool_]:
    rows = np.frombuffer(packed, dtype=np.uint8).reshape(-1, _packed_bytes(n_bits))
    return np.unpackbits(rows, axis=1, count=n_bits).view(np.bool_)


def _packed_bytes(n_bits: int) -> int:
    return (n_bits + 7) // 8


def _load(path: Path, records: bool = True) -> _Content:
    """Read a journal file, or its header alone; the records behind its last good one are left out."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise InputError(f"{path} is not a file; give the journal of a run")
        with open(path, "rb") as file:
            content = _load_lines(path, file) if records else _load_header(path, file)
            content.size = file.seek(0, os.SEEK_END)
            return content
    except FileNotFoundError:
        raise InputError(f"there is no journal {path}; check the folder, or start the run anew") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {_reason(error)}; check the file and its permissions") from error


def _load_lines(path: Path, file: io.BufferedReader) -> _Content:
    content = _load_header(path, file)
    if content.header is None:
        return content
    n_bits, n_obj = content.header["n_bits"], len(content.header["objectives"])
    offset, bad = content.end, 0
    # a forged line without an end must not be read whole: its pieces are damaged records
    longest = 2 * _packed_bytes(n_bits) + _LONGEST_NUMBER * n_obj + _MAX_HEADER_BYTES
    while line := file.readline(longest):
        offset += len(line)
        entry = _parse_entry(line, n_bits, n_obj)
        if entry is None:
            bad += 1
            continue
        content.packed += entry[0]
        content.values.extend(entry[1])
        content.damaged += bad
        content.end, bad = offset, 0
    return content


def _load_header(path: Path, file: io.BufferedReader) -> _Content:
    first = file.readline(_MAX_HEADER_BYTES)
    if not first.endswith(b"\n") and _is_torn_header(first):
        return _Content(None)
    header = _parse_line(first)
    if header is None or header.get("format") != FORMAT:
        raise InputError(f"{path} is not a {FORMAT}, or its first line is damaged; use a new folder")
    if header.get("version") != VERSION:
        raise InputError(
            f"{path} is a journal of format version {header.get('version')}, this program reads version "
            f"{VERSION}; use the program that wrote it, or a new folder"
        )
    try:
        # The same rules as for writing, so that readers can rely on what a header holds.
        _make_header(path, header["identity"], header["n_bits"], header["objectives"])
    except (KeyError, InputError):
        raise InputError(f"{path} has a journal header that lacks a field; use a new folder") from None
    return _Content(header, end=len(first))


def _is_torn_header(data: bytes) -> bool:
    """Tell the beginning of a header line from the content of a foreign file."""
    # After a power cut some file systems leave zeros where the data had not arrived.
    text = data.rstrip(b"\0")
    start = text[8 : 8 + len(_HEADER_START)]
    return len(data) < _MAX_HEADER_BYTES and (
        all(byte in b"0123456789abcdef" for byte in text[:8]) and _HEADER_START.startswith(start)
    )


def _make_header(path: Path, identity: object, n_bits: object, objectives: object) -> dict[str, Any]:
    if isinstance(n_bits, bool) or not isinstance(n_bits, int | np.integer) or not 1 <= n_bits <= _MOST_BITS:
        raise InputError(f"n_bits of {path} is {n_bits!r}; give the bits of a mask, 1 to {_MOST_BITS:,}")
    if not isinstance(objectives, list | tuple) or not objectives:
        raise InputError(f"objectives of {path} are {objectives!r}; give a list of at least one name")
    if not all(isinstance(name, str) for name in objectives):
        raise InputError(f"objectives of {path} are {objectives!r}; give their names as strings")
    if not isinstance(identity, Mapping):
        raise InputError(f"the identity of {path} is {type(identity).__name__}; give a mapping of settings")
    for key, value in identity.items():
        parts = value if isinstance(value, list | tuple) else [value]
        if not isinstance(key, str) or not all(map(_is_plain, parts)):
            raise InputError(
                f"identity entry {key!r} of {path} is {_short(repr(value))}; "
                "give a string key with a str, int, finite float or bool, or a list of these"
            )
    header = {
        "format": FORMAT,
        "version": VERSION,
        "identity": {key: list(v) if isinstance(v, tuple) else v for key, v in identity.items()},
        "n_bits": int(n_bits),
        "objectives": list(objectives),
    }
    if len(_line(header)) >= _MAX_HEADER_BYTES:
        raise InputError(f"the identity of {path} is larger than 1 MiB; put a digest of the large entries in it")
    return header


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _check_same_run(path: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    before = _flat_header(old)
    after = _flat_header(new)
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    if not keys:
        return
    shown = "; ".join(_change(key, before.get(key), after.get(key)) for key in keys[:_SHOWN_CHANGES])
    more = f" and {len(keys) - _SHOWN_CHANGES} more" if len(keys) > _SHOWN_CHANGES else ""
    raise InputError(
        f"{path} belongs to a run with other settings, {shown}{more}; use a new folder or the same settings"
    )


def _flat_header(header: dict[str, Any]) -> dict[str, str]:
    """Settings as JSON text, which unlike ``==`` tells 1 from True."""
    items = {
        **header["identity"],
        "n_bits": header["n_bits"],
        "objectives": header["objectives"],
    }
    if isinstance(data := items.get("data"), str) and (content := _CONTENT.search(data)):
        # the same data may lie under another name now
        items["data"] = content[1]
    return {key: json.dumps(value, ensure_ascii=False) for key, value in items.items()}


def _change(key: str, old: str | None, new: str | None) -> str:
    before, after = ("absent" if text is None else text for text in (old, new))
    if _short(before) == _short(after):
        # Long texts that differ only behind what would be shown of them.
        pairs = enumerate(zip(before, after, strict=False))
        skip = next((i for i, (a, b) in pairs if a != b), min(len(before), len(after))) - 10
        before, after = "…" + before[skip:], "…" + after[skip:]
    return f"{key}: {_short(before)} → {_short(after)}"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _write_error(path: Path, error: OSError) -> InputError:
    full = error.errno in {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
    advice = "free some space and resume" if full else "check the disk and the file's permissions and resume"
    return InputError(f"cannot write {path}: {_reason(error)}; {advice}")
