"""Arrays into .npz files, in blocks where they are too large for memory, and back, without pickles.

The same arrays give the same bytes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy_format

from moevoprune.errors import InputError, words_of

__all__ = ["open_archive", "read_array", "write_array", "write_blocks", "write_names"]

Array = npt.NDArray[Any]

_NAMES_AT_ONCE = 1024


def write_blocks(
    archive: zipfile.ZipFile, name: str, blocks: Iterable[Array], shape: tuple[int, ...], kind: str
) -> None:
    """Write an array that is never whole in memory.

    Parameters
    ----------
    archive
        Open for writing.
    name
        Name of the array.
    blocks
        Its rows, some at a time.
    shape
        Its whole shape.
    kind
        Its number format, as ``numpy.dtype`` takes it.
    """
    # opened by name, a member has zipfile's fixed date
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        header = {"descr": np.dtype(kind).str, "fortran_order": False, "shape": shape}
        npy_format.write_array_header_1_0(cast(BinaryIO, member), header)
        for block in blocks:
            member.write(np.ascontiguousarray(block, dtype=kind).tobytes())


def write_array(archive: zipfile.ZipFile, name: str, array: Array) -> None:
    """Write an array; see :func:`write_blocks`."""
    write_blocks(archive, name, [array], array.shape, array.dtype.str)


def write_names(archive: zipfile.ZipFile, name: str, names: Sequence[str]) -> None:
    """Write strings, at least one, as an array; see :func:`write_blocks`."""
    kind = f"<U{max(len(text) for text in names)}"
    starts = range(0, len(names), _NAMES_AT_ONCE)
    blocks = (np.array(names[start : start + _NAMES_AT_ONCE], dtype=kind) for start in starts)
    write_blocks(archive, name, blocks, (len(names),), kind)


def open_archive(file: BinaryIO) -> zipfile.ZipFile:
    """Open an .npz file for reading.

    Raises
    ------
    InputError
        It is none, or it is cut short.
    """
    try:
        magic = file.read(6)
        if magic == b"\x93NUMPY":
            raise InputError("is a single .npy array, not an .npz file; save all arrays with np.savez")
        file.seek(0)
        return zipfile.ZipFile(file)
    except InputError:
        raise
    except Exception as error:  # zipfile raises many kinds for a damaged directory of members
        raise InputError(
            f"is not an .npz file, or is cut short ({words_of(error)}); write it again with np.savez"
        ) from None


def read_array(archive: zipfile.ZipFile, name: str, most_bytes: int | None = None) -> Array:
    """Read an array; pickled objects are refused.

    Parameters
    ----------
    archive
        Open for reading.
    name
        Name of the array, which is there.
    most_bytes
        Refuse an array that takes more memory, before anything of it is read. None for any size.

    Raises
    ------
    InputError
        The array is damaged, holds pickled objects or does not fit in memory.
    """
    # zipfile never gives more of a member than this, whatever shape the array claims
    if most_bytes is not None and archive.getinfo(f"{name}.npy").file_size > most_bytes:
        raise InputError(f"array {name!r} is larger than {most_bytes / 2**30:.3g} GiB; save fewer rows")
    try:
        with archive.open(f"{name}.npy") as member:
            array: Array = npy_format.read_array(member, allow_pickle=False)
            # at the end of the member zipfile compares the checksum
            if member.read(1):
                raise ValueError("bytes left over after the array")
    except MemoryError:
        raise InputError(f"array {name!r} does not fit in memory; save fewer rows or float16") from None
    except Exception as error:  # untrusted bytes: zipfile, zlib and NumPy raise a dozen kinds here
        if "allow_pickle" in str(error):
            raise InputError(
                f"array {name!r} holds pickled objects, which are never read;"
                " save plain arrays of numbers (or of strings, for class_names)"
            ) from None
        raise InputError(
            f"array {name!r} cannot be read ({words_of(error)}); the file is damaged: write it again"
        ) from None
    return array
