"""Arrays into .npz files, in blocks where they are too large for memory, and back, without pickles.

The same arrays give the same bytes.
"""

from __future__ import annotations

import math
import os
import sys
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy_format

from moevoprune.errors import InputError, words_of
from moevoprune.features.free_memory import check_room
from moevoprune.files import open_regular

__all__ = [
    "n_elements",
    "open_archive",
    "read_array",
    "read_arrays",
    "read_header",
    "write_array",
    "write_blocks",
    "write_names",
]

Array = npt.NDArray[Any]

_NAMES_AT_ONCE = 1024
# a stored byte is itself, and deflate writes at least one bit for 258 bytes twice over (zlib.net/zlib_tech.html)
_MOST_EXPANSION = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}
_FOR_LESS_MEMORY = "save fewer rows, or float16, or a folder (FeatureSet.save_folder)"


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


def read_array(
    archive: zipfile.ZipFile, name: str, most_bytes: int | None = None, becomes: npt.DTypeLike | None = None
) -> Array:
    """Read an array; pickled objects are refused, and what does not fit in memory, before it is read.

    Parameters
    ----------
    archive
        Open for reading.
    name
        Name of the array, which is there.
    most_bytes
        Refuse an array that takes more memory. None for any size.
    becomes
        Number format that the array is going to be copied to, which takes memory too; None where it is not copied.

    Raises
    ------
    InputError
        The array is damaged, holds pickled objects or does not fit in memory.
    """
    member = archive.getinfo(f"{name}.npy")
    if most_bytes is not None and member.file_size > most_bytes:
        raise InputError(f"array {name!r} is larger than {_size(most_bytes)}; save fewer rows")
    try:
        _check_packing(archive, member)
        with archive.open(member) as content:
            shape, _, kind = read_header(cast(BinaryIO, content))
            start = content.tell()
        if kind.hasobject:
            raise InputError(
                f"array {name!r} holds pickled objects, which are never read;"
                " save plain arrays of numbers (or of strings, for class_names)"
            )
        count = n_elements(shape)
        if start + count * kind.itemsize != member.file_size:
            raise ValueError(f"{member.file_size} bytes do not hold {kind} {shape}")
        copied = 0 if becomes is None or kind == np.dtype(becomes) else count * np.dtype(becomes).itemsize
        check_room(count * kind.itemsize + copied, f"array {name!r}", _FOR_LESS_MEMORY)
        with archive.open(member) as content:
            # at the end of the member zipfile compares the checksum
            array: Array = npy_format.read_array(content, allow_pickle=False)
            content.read(1)
    except InputError:
        raise
    except MemoryError:
        raise InputError(f"array {name!r} does not fit in memory; {_FOR_LESS_MEMORY}") from None
    except Exception as error:  # untrusted bytes: zipfile, zlib and NumPy raise a dozen kinds here
        raise InputError(
            f"array {name!r} cannot be read ({words_of(error)}); the file is damaged: write it again"
        ) from None
    return array


def read_arrays(path: Path) -> dict[str, Array]:
    """Read all arrays of an .npz file; see :func:`read_array`.

    Raises
    ------
    OSError
        There is no such regular file, or it may not be read.
    InputError
        It is no .npz file, or one of its arrays cannot be read.
    """
    with open_regular(path) as file, open_archive(file) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        return {name: read_array(archive, name) for name in names}


def read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the head of an .npy file: shape, whether it is in Fortran order, and number format.

    Raises
    ------
    ValueError
        It is no such file, or is damaged.
    """
    readers = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
    try:
        version = npy_format.read_magic(file)
        if version not in readers:
            raise ValueError(f"version {version} of the format is not known")
        shape, fortran, kind = readers[version](file)
    except Exception as error:  # untrusted bytes: NumPy raises several kinds here
        raise ValueError(words_of(error)) from None
    if any(isinstance(length, bool) or length < 0 for length in shape):
        raise ValueError(f"the shape is {shape}")
    # NumPy leaves sides of 0 out when it looks whether a shape is too large
    if 0 in shape and n_elements(tuple(filter(None, shape))) * max(kind.itemsize, 1) > sys.maxsize:
        raise ValueError(f"the shape {shape} is too large")
    if not kind.itemsize and n_elements(shape):
        # any number of them fits into an empty file
        raise ValueError(f"its elements of {kind} have no size")
    return shape, fortran, kind


def n_elements(shape: tuple[int, ...]) -> int:
    """Elements of an array, as an integer of Python: those of a forged shape overflow NumPy's."""
    return math.prod(shape)


def _check_packing(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Refuse sizes that no packing gives, so that a small file never stands for more than its thousandfold.

    Raises
    ------
    ValueError
        The member is not packed as NumPy does it, or its size cannot be right.
    """
    if member.compress_type not in _MOST_EXPANSION:
        raise ValueError("it is packed in another way than np.savez_compressed does it")
    file = cast(BinaryIO, archive.fp)
    if member.compress_size > file.seek(0, os.SEEK_END):
        raise ValueError("it is larger than its file")
    if member.file_size > member.compress_size * _MOST_EXPANSION[member.compress_type]:
        raise ValueError("its size is forged")


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.3g} GiB" if n_bytes >= 2**27 else f"{n_bytes / 2**20:.3g} MiB"
