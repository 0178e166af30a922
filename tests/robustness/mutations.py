"""Damage that is done to valid files: to their bytes, and to what is behind checksums, headers and packing.

A *step* is three whole numbers: what is done, where, and with what. The same steps damage a file in the same way,
so that hypothesis can shrink them, and a fuzzer can draw them.
"""

from __future__ import annotations

import ast
import io
import json
import struct
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tomli_w

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Step = tuple[int, int, int]

_CHUNKS = (
    b"\0" * 8, b"\xff" * 8, b"\x80\0\0\0", b"\xff\xff\xff\x7f", b"PK\x03\x04", b"\x93NUMPY", b"\n", b"\r", b"\0",
    b"\x1b[2J", "\u202e".encode(), b"\xed\xa0\x80", b"\xef\xbb\xbf", b"(" * 64, b"[" * 2000, b"9" * 5000,
    b"0x" + b"f" * 5000,
    b"1e999", b"nan", b"-1", b"'", b'"', b",", b";", b"=", b".", b"{}", b"../../x",
)  # fmt: skip
_KINDS = (
    "<f4", "<f8", ">f4", "<f2", "|b1", "<i8", "<u8", ">i2", "<c16", "<M8[ns]", "<m8", "<U3", "<U0", "|S5",
    "|S0", "|O", "|V7",
    "<U99999999", "<f16", "[('a', '<f4')]", "[('a', '|O')]", "(3,)f4", "wrong", "", "<i4,<i4",
)  # fmt: skip
_SHAPES = (
    "()", "(0,)", "(0, 4)", "(4, 0)", "(2, 3)", "(-1,)", "(-1, -1)", "(True,)", "(1, 1, 1, 1)",
    "(9223372036854775807,)",
    "(9223372036854775808,)", "(4294967296, 4294967296)", "(1000000000000, 2)", "(3.0,)", "('a',)", "[2, 3]",
    "None",
    "(" + "1, " * 80 + ")", "(-9223372036854775808, -1)", "(4294967296, 4294967296, 0)",
)  # fmt: skip
_NAMES = (
    "../x.npy", "/tmp/x.npy", "C:\\x.npy", "x.npy", "", "X_train", "X_train.npy", "X_train.npy\0", "\n.npy",
    "\u202e.npy",
          "history_.npy", "test_accuracy.npy", "class_names.npy", "a" * 3000 + ".npy",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"), 2**31, 2**63,
    2**64, -(2**63),
    10**400, 10**4000, "", "a", "x" * 3000, "\ud800", "\x1b[31m", "<script>", "=1+1", "a\nb", "../../x",
    "/dev/zero", "0x" + "f" * 5000,
    [], {}, [[]], [None], {"a": None}, {"": {}}, [1, 2], ["a", "b"], "nan", "default", "digits", 10_000_000,
)  # fmt: skip
_TEXTS = (
    "nan", "inf", "-inf", "1e999", "9" * 400, "1,5", "", '"', "NULL", "true", "\0", "\ud800", "=1+1", "é", "0x1",
    "1_000", "a" * 2000, "2020-01-01", "-0", " ", "\u2028",
)  # fmt: skip


def damaged(kind: str, content: bytes, steps: Sequence[Step]) -> bytes:
    """Damage a file.

    Parameters
    ----------
    kind
        A key of :data:`STRUCTURES`, or anything else for plain bytes.
    content
        The file.
    steps
        What is done to it. Even first numbers damage the structure where there is one, others the bytes.
    """
    structure = STRUCTURES.get(kind)
    for what, where, amount in steps:
        done = structure(content, (what // 2, where, amount)) if structure and what % 2 == 0 else None
        content = _bytes(content, (what // 2, where, amount)) if done is None else done
    return content


def _bytes(content: bytes, step: Step) -> bytes:
    what, where, amount = step
    at = where % (len(content) + 1)
    length = 1 + amount % 64
    chunk = _CHUNKS[amount % len(_CHUNKS)]
    options: tuple[Callable[[], bytes], ...] = (
        lambda: (
            content[:at] + bytes([content[at] ^ 1 << amount % 8]) + content[at + 1 :]
            if at < len(content)
            else content
        ),
        lambda: content[:at],
        lambda: content[:at] + chunk + content[at:],
        lambda: content[:at] + chunk + content[at + len(chunk) :],
        lambda: content[:at] + content[at + length :],
        lambda: content[: at + length] + content[at:],
        lambda: content[:at] + bytes([amount % 256]) + content[at + 1 :],
        lambda: content[amount % (len(content) + 1) :][:length] + content,
        lambda: content[:at] + bytes(length) + content[at + length :],
    )
    return options[what % len(options)]()


# --- JSON, TOML and what is wrapped around JSON ----------------------------------------------------


def changed(value: Any, step: Step) -> Any:
    """Replace, remove, add or double one thing somewhere in nested lists and mappings."""
    what, where, amount = step
    if isinstance(value, dict | list) and value and where % 8:
        places = list(value) if isinstance(value, dict) else list(range(len(value)))
        place = places[where // 8 % len(places)]
        copy = dict(value) if isinstance(value, dict) else list(value)
        if where // 8 % 7 == 0 and what % 2:
            if isinstance(copy, dict) and amount % 2:
                copy[_word(amount)] = copy.pop(place)
            else:
                del copy[place]  # type: ignore[arg-type]
        else:
            copy[place] = changed(value[place], (what // 2, where // 8 // len(places), amount))
        return copy
    if isinstance(value, list) and what % 3 == 0:
        return [*value, *(value[:1] or [_value(amount)])] * (1 + amount % 3)
    if isinstance(value, dict) and what % 3 == 0:
        return {**value, _word(amount): _value(amount // 7)}
    if isinstance(value, str) and what % 3 == 0 and value:
        at = amount % len(value)
        return (
            value[:at] + str(_VALUES[amount % 37]) + value[at + amount % 5 :] if amount % 37 != 19 else value[:at]
        )
    if isinstance(value, int | float) and abs(value) < 2**80 and what % 3 == 0:
        return value + (-1, 1, 0.5, 1 << amount % 70)[amount % 4]
    return _value(amount)


def _word(amount: int) -> str:
    words = ("", "a", "X", "data", "head", "\x1b", "x" * 300, "preset", "features", "format", "n_bits", "about")
    return words[amount % len(words)]


def _value(amount: int) -> Any:
    if amount % 97 == 0:
        nested: Any = 1
        for _ in range(400 + amount % 5 * 300):
            nested = [nested]
        return nested
    return _VALUES[amount % len(_VALUES)]


def _dumped(value: Any) -> bytes | None:
    unlimited = getattr(sys, "set_int_max_str_digits", None)
    limit = sys.get_int_max_str_digits() if unlimited else 0
    try:
        if unlimited:
            unlimited(0)
        return json.dumps(value).encode("ascii")
    except (ValueError, RecursionError):
        return None
    finally:
        if unlimited:
            unlimited(limit)


def _json(content: bytes, step: Step) -> bytes | None:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return _dumped(changed(value, step))


def _toml(content: bytes, step: Step) -> bytes | None:
    try:
        return tomli_w.dumps(changed(tomllib.loads(content.decode()), step)).encode()
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


def checksummed(text: bytes) -> bytes:
    """One line of a journal, with the checksum that belongs to it."""
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _journal(content: bytes, step: Step) -> bytes | None:
    what, where, amount = step
    lines = content.splitlines(keepends=True)
    if not lines:
        return None
    at = where % len(lines)
    text = lines[at][9:].rstrip(b"\n")
    options: tuple[Callable[[], list[bytes]], ...] = (
        lambda: [checksummed(_json(text, (what // 5, where // len(lines), amount)) or text)],
        lambda: [checksummed(_json(text, (what // 5, where // len(lines), amount)) or text)],
        lambda: [checksummed(_bytes(text, (what // 5, where // len(lines), amount)))],
        lambda: [lines[at]] * (amount % 4),
        lambda: [lines[amount % len(lines)]],
    )
    return b"".join([*lines[:at], *options[what % 5](), *lines[at + 1 :]])


def _safetensors(content: bytes, step: Step) -> bytes | None:
    what, where, amount = step
    try:
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        assert isinstance(header, dict)
    except (ValueError, RecursionError, struct.error, AssertionError, OverflowError):
        return None
    body = content[8 + length :]
    about = header.get("__metadata__")
    if what % 4 == 0:
        return content[: 8 + length] + _bytes(body, (what // 4, where, amount))
    if what % 4 == 1 and isinstance(about, dict) and isinstance(about.get("about"), str):
        inner = _json(about["about"].encode(), (what // 4, where, amount))
        header = {**header, "__metadata__": {**about, "about": (inner or b"").decode()}}
        text = _dumped(header)
    else:
        text = _json(content[8 : 8 + length], (what // 4, where, amount))
    return None if text is None else struct.pack("<Q", len(text)) + text + body


def _csv(content: bytes, step: Step) -> bytes | None:
    what, where, amount = step
    rows = [line.split(",") for line in content.decode("utf-8", "replace").split("\n")]
    row = rows[where % len(rows)]
    column = where // len(rows) % len(row)
    text = _TEXTS[amount % len(_TEXTS)]
    if what % 6 < 3:
        row[column] = text
    elif what % 6 == 3:
        row.insert(column, text)
    elif what % 6 == 4:
        rows.insert(where % len(rows), row)
    else:
        for each in rows:
            each[min(column, len(each) - 1)] = text
    return "\n".join(map(",".join, rows)).encode("utf-8", "surrogatepass")


# --- .npy and .npz ---------------------------------------------------------------------------------


def npy_with(descr: str, shape: str, data: bytes, fortran: str = "False", version: int = 1) -> bytes:
    """An .npy file whose header says whatever it is told to say."""
    shown = descr if descr.startswith(("[", "(")) else repr(descr)
    header = f"{{'descr': {shown}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode("latin1", "replace")
    size = struct.pack("<H", len(header) % 2**16) if version == 1 else struct.pack("<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + size + header + data


def _npy(content: bytes, step: Step) -> bytes | None:
    what, where, amount = step
    try:
        size, start = (struct.unpack("<H", content[8:10])[0], 10)
        header, data = ast.literal_eval(content[start : start + size].decode("latin1")), content[start + size :]
        kind, shape, fortran = str(header["descr"]), str(header["shape"]), str(header["fortran_order"])
    except (ValueError, KeyError, TypeError, SyntaxError, struct.error, RecursionError, MemoryError):
        return None
    descr, other = _KINDS[where % len(_KINDS)], _SHAPES[amount % len(_SHAPES)]
    options: tuple[Callable[[], bytes], ...] = (
        lambda: npy_with(descr, shape, data, fortran),
        lambda: npy_with(kind, other, data, fortran),
        lambda: npy_with(descr, other, data, fortran),
        lambda: npy_with(kind, shape, data, ("True", "1", "None")[amount % 3]),
        lambda: npy_with(kind, shape, data, fortran, version=1 + amount % 4),
        lambda: npy_with(kind, shape, _bytes(data, (where, where // 9, amount)), fortran),
        lambda: _array(where, amount),
        lambda: npy_with(kind, shape, data[: amount % (len(data) + 1)], fortran),
    )
    return options[what % len(options)]()


def _array(where: int, amount: int) -> bytes:
    """A whole, valid array that does not belong there."""
    shapes = ((), (0,), (3,), (1, 1), (4, 2), (2, 3, 4), (0, 5))
    kinds = ("f4", "f8", "f2", "i8", "u8", "?", "c8", "U2", "S2", "M8[s]", ">f4", "i1")
    array = np.full(shapes[where % len(shapes)], amount % 3, dtype="u1").astype(kinds[amount % len(kinds)])
    if array.dtype.kind == "f" and array.size:
        array.flat[0] = (np.nan, np.inf, -1, 1e4)[where // 7 % 4]
    file = io.BytesIO()
    np.lib.format.write_array(file, array)
    return file.getvalue()


def packed(members: Sequence[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file, of whatever names, also repeated ones."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=method)
    return file.getvalue()


def forged(content: bytes, at: int, field: int, value: int) -> bytes:
    """Change what a zip file says of one of its members: flags, method, checksum, sizes or place."""
    places = [i for i in range(len(content) - 4) if content[i : i + 4] == b"PK\x01\x02"]
    if not places:
        return content
    place = places[at % len(places)]
    offset, form = ((8, "<H"), (10, "<H"), (16, "<I"), (20, "<I"), (24, "<I"), (42, "<I"))[field % 6]
    raw = struct.pack(form, value % 256 ** struct.calcsize(form))
    (local,) = struct.unpack("<I", content[place + 42 : place + 46])
    content = content[: place + offset] + raw + content[place + offset + len(raw) :]
    if offset != 42 and value % 3 and content[local : local + 4] == b"PK\x03\x04":
        there = local + offset - 2
        content = content[:there] + raw + content[there + len(raw) :]
    return content


def _npz(content: bytes, step: Step) -> bytes | None:
    what, where, amount = step
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(member.file_size for member in archive.infolist()) > 2**22:
                return None
            members = [(name, archive.read(name)) for name in archive.namelist()]
    except Exception:  # damaged already: zipfile raises a dozen kinds
        return None
    if not members:
        return None
    at = where % len(members)
    name, inner = members[at]
    deeper = (what // 12, where // len(members), amount)

    def replaced(*instead: tuple[str, bytes]) -> bytes:
        return packed([*members[:at], *instead, *members[at + 1 :]])

    options: tuple[Callable[[], bytes], ...] = (
        lambda: replaced((name, _npy(inner, deeper) or inner)),
        lambda: replaced((name, _npy(inner, deeper) or inner)),
        lambda: replaced((name, _npy(inner, deeper) or inner)),
        lambda: replaced((name, _npy(inner, deeper) or inner)),
        lambda: replaced((name, _bytes(inner, deeper))),
        lambda: replaced(),
        lambda: replaced((name, inner), (name, members[amount % len(members)][1])),
        lambda: replaced((_NAMES[amount % len(_NAMES)], inner)),
        lambda: replaced((name, inner), (_NAMES[amount % len(_NAMES)], members[amount % len(members)][1])),
        lambda: replaced((name, members[amount % len(members)][1])),
        lambda: packed(members, (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)[amount % 3]),
        lambda: forged(
            content, where, what // 12, (0, 1, 8, 9, 12, 14, 93, 2**31, 2**32 - 1, amount)[amount % 10]
        ),
    )
    return options[what % len(options)]()


def _folder_array(content: bytes, step: Step) -> bytes | None:
    """A byte that chooses one file of a folder, and the .npy file itself."""
    changed_file = _npy(content[1:], step)
    return None if changed_file is None else content[:1] + changed_file


STRUCTURES: dict[str, Callable[[bytes, Step], bytes | None]] = {
    "npz": _npz,
    "folder": _folder_array,
    "json": _json,
    "toml": _toml,
    "csv": _csv,
    "journal": _journal,
    "safetensors": _safetensors,
}
