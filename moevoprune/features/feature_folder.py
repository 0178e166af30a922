"""Feature folders: one ``.npy`` file per array, mapped into memory and read in blocks of rows.

For sets that do not fit in memory. What is read of a mapped file stays in the operating system's page cache, which
gives way to programs that need memory; nothing here holds more than a block of :data:`BLOCK_BYTES` at once.
"""

from __future__ import annotations

import errno
import mmap
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard, cast

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy_format

from moevoprune.errors import InputError, printable, words_of
from moevoprune.features.npz_files import n_elements, read_header
from moevoprune.files import sync_folder

__all__ = [
    "BLOCK_BYTES",
    "MapReference",
    "MappedRows",
    "converted_blocks",
    "is_feature_folder",
    "is_mapped",
    "map_array",
    "row_blocks",
    "write_folder",
]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

# of a block of rows in float32: it stays in a core's cache while it is worked on
BLOCK_BYTES = 2**20

_MARKS = ("X_train.npy", "y_train.npy", "X_test.npy", "y_test.npy")
_MAPPED_KINDS = (np.dtype("<f2"), np.dtype("<f4"))


def is_feature_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder of feature arrays: one with a required array in it, such as ``X_train.npy``.

    A folder of images has none of them; where only some are there, the others are what is missing.
    """
    try:
        return os.path.isdir(path) and any(os.path.lexists(os.path.join(path, name)) for name in _MARKS)
    except (OSError, ValueError):
        return False


def is_mapped(array: object) -> TypeGuard[np.memmap[Any, Any]]:
    """Whether an array is a whole file of features, mapped read-only and used as it is on disk.

    That is float16 or float32 in C order; a part of a mapped array is not one.
    """
    return (
        isinstance(array, np.memmap)
        and isinstance(array.base, mmap.mmap)
        and array.filename is not None
        and array.mode == "r"
        and array.dtype in _MAPPED_KINDS
        and array.flags.c_contiguous
    )


def row_blocks(array: Array | MappedRows) -> Iterator[slice]:
    """Slices that cut an array into blocks of rows, of :data:`BLOCK_BYTES` in float32 at most (or one row)."""
    width = int(np.prod(array.shape[1:], dtype=np.int64))
    step = max(BLOCK_BYTES // (4 * max(width, 1)), 1)
    for start in range(0, array.shape[0], step):
        yield slice(start, min(start + step, array.shape[0]))


def converted_blocks(array: Array, kind: npt.DTypeLike) -> Iterator[Array]:
    """Blocks of rows of an array in another number format, see :func:`row_blocks`; a single value is one block."""
    for piece in row_blocks(array) if array.ndim else [...]:
        # float16 rounds tiny numbers to 0
        with np.errstate(under="ignore"):
            block = np.asarray(array[piece]).astype(kind, copy=False)
        yield block


def map_array(path: Path) -> Array:
    """Map an ``.npy`` file into memory, read-only; an array without elements is made in memory.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    ndarray
        A :class:`numpy.memmap` where there is something to map.

    Raises
    ------
    InputError
        The file is not there, is no ``.npy`` file, holds objects, is in Fortran order, or its size is not what
        its header says.
    """
    name = path.name
    try:
        if not path.is_file():
            there = path.exists() or path.is_symlink()
            raise InputError(f"{name} is {'no regular file' if there else 'missing'}; save it with np.save")
        with open(path, "rb") as file:
            shape, fortran, kind = read_header(file)
            start = file.tell()
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InputError(f"{name} cannot be read ({words_of(error)}); check its permissions") from None
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{name} is not an .npy file, or is damaged ({error}); save it with np.save") from None
    if kind.hasobject:
        raise InputError(
            f"{name} holds pickled objects, which are never read; save plain arrays of numbers (or of strings, "
            "for class_names)"
        )
    count = n_elements(shape)
    if start + count * kind.itemsize != size:
        raise InputError(
            f"{name} has {size} bytes, but its header of {kind} {shape} asks for {start + count * kind.itemsize}; "
            "the file is damaged or was not written to its end: write it again"
        )
    if fortran and len(shape) > 1:
        raise InputError(
            f"{name} is in Fortran order, where a row is scattered over the file; save np.ascontiguousarray(...)"
        )
    try:
        if count == 0:
            return np.zeros(shape, dtype=kind)
        return np.memmap(path, dtype=kind, mode="r", offset=start, shape=shape)
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(f"{name} cannot be mapped ({words_of(error)}); write it again") from None


@dataclass(frozen=True)
class MapReference:
    """Where a mapped array lies: what travels to another process in its place.

    Attributes
    ----------
    path
        Absolute path of the file.
    kind, shape, offset
        Number format, shape, and first byte of the array in the file.
    stamp
        Size of the file and time of its last change, so that another file is not taken for it.
    """

    path: str
    kind: str
    shape: tuple[int, ...]
    offset: int
    stamp: tuple[int, int]

    @classmethod
    def of(cls, array: np.memmap[Any, Any]) -> MapReference:
        """Refer to an array of :func:`map_array`."""
        path = os.path.abspath(cast(str, array.filename))
        return cls(path, array.dtype.str, array.shape, array.offset, _stamp(path))

    def open(self) -> np.memmap[Any, Any]:
        """Map the array.

        Raises
        ------
        InputError
            The file is gone or has changed.
        """
        if _stamp(self.path) != self.stamp:
            raise InputError(f"{printable(self.path)}: has changed while it was in use; start again")
        return np.memmap(self.path, np.dtype(self.kind), "r", self.offset, self.shape)


def _stamp(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise InputError(f"{printable(path)}: cannot be read ({words_of(error)}); leave it in place") from None
    return status.st_size, status.st_mtime_ns


class MappedRows:
    """Rows of one or more arrays, one after the other, that are read when they are asked for.

    Pickled, mapped arrays become their paths: another process maps the files itself.

    Parameters
    ----------
    parts
        Arrays of shape (rows, features), mapped ones or others; at least one.
    """

    def __init__(self, parts: Sequence[Array]) -> None:
        # made now: processes that start later must not take a file that was put there since for this one
        self._prepare(parts, [MapReference.of(part) if is_mapped(part) else part for part in parts])

    def _prepare(self, parts: Sequence[Array], references: list[MapReference | Array]) -> None:
        self._parts = tuple(parts)
        self._references = references
        # plain views: fancy indexing is faster on them
        self._views = [np.asarray(part) for part in self._parts]
        self._starts = np.cumsum([0, *(len(part) for part in self._parts)])

    def __getstate__(self) -> list[MapReference | Array]:
        return self._references

    def __setstate__(self, state: list[MapReference | Array]) -> None:
        self._prepare([part.open() if isinstance(part, MapReference) else part for part in state], state)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and features."""
        return int(self._starts[-1]), int(self._parts[0].shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, index: Indices) -> Floats:
        """Copy rows out, in the order asked for.

        Parameters
        ----------
        index
            Row numbers, shape (n,), each from 0 to the number of rows less one.

        Returns
        -------
        ndarray of float32, shape (n, features)

        Raises
        ------
        IndexError
            A row number is out of range.
        """
        if len(index) and not (index.min() >= 0 and index.max() < len(self)):
            raise IndexError(f"row numbers {index.min()} to {index.max()} of {len(self)} rows")
        if len(self._views) == 1:
            return self._views[0][index].astype(np.float32, copy=False)
        rows = np.empty((len(index), self.shape[1]), dtype=np.float32)
        places = np.searchsorted(self._starts, index, side="right") - 1
        for place, view in enumerate(self._views):
            here = places == place
            rows[here] = view[index[here] - self._starts[place]]
        return rows

    def blocks(self) -> Iterator[Floats]:
        """All rows in order, as float32, some at a time; see :func:`row_blocks`."""
        for view in self._views:
            for piece in row_blocks(view):
                yield view[piece].astype(np.float32)


def write_folder(path: Path, arrays: Mapping[str, Array], kinds: Mapping[str, str]) -> None:
    """Write arrays as a feature folder, which is there whole or not at all.

    Parameters
    ----------
    path
        The folder; nothing, or an empty folder, may be there. Its parent must exist.
    arrays
        By name.
    kinds
        Number format of those that are to be written in another one than they have, which must hold their values.

    Raises
    ------
    InputError
        Something is there already, or the folder cannot be written.
    """
    shown = printable(str(path))
    # what is at the end of a link is replaced, as the link itself cannot become a folder
    path = Path(os.path.realpath(path))
    with _whole_folder(path, shown) as temporary:
        for name, array in arrays.items():
            kind = np.dtype(kinds.get(name, array.dtype.str))
            with open(temporary / f"{name}.npy", "xb") as file:
                header = {"descr": kind.str, "fortran_order": False, "shape": array.shape}
                npy_format.write_array_header_1_0(file, header)
                for block in converted_blocks(array, kind):
                    file.write(block.tobytes())
                file.flush()
                os.fsync(file.fileno())


@contextmanager
def _whole_folder(path: Path, shown: str) -> Iterator[Path]:
    """Give a new folder beside a path, which takes that path when the block ends well."""
    temporary = path.with_name(f".{path.name[:80]}.{secrets.token_hex(4)}")
    try:
        if path.is_dir() and any(path.iterdir()):
            raise InputError(f"{shown}: is there already, and not empty; give another name, or remove it first")
        temporary.mkdir()
        yield temporary
        sync_folder(temporary)
        os.rename(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
        advice = "free some space and try again" if full else "give a new folder in an existing, writable one"
        raise InputError(f"{shown}: cannot be written ({error.strerror or error}); {advice}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
