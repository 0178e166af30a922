"""Arrays into .npz files, in blocks where they are too large for memory; the same arrays give the same bytes."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy_format

__all__ = ["write_array", "write_blocks", "write_names"]

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
