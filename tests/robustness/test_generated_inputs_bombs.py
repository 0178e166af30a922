"""Files that would fill the memory, wait for ever or write elsewhere: refused before that happens."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from generating import in_time
from mutations import checksummed, forged, npy_with, packed
from readers import READERS, is_read

from moevoprune import InputError, load_features
from moevoprune.features import free_memory
from moevoprune.features.npz_files import read_arrays
from moevoprune.search.journal import EvaluationJournal

_MIB = 2**20


@pytest.fixture
def little_memory(monkeypatch):
    """A machine with 16 MiB to spare."""
    monkeypatch.setattr(free_memory, "free_memory", lambda: 16 * _MIB)


def _peak(action) -> int:
    """Bytes that an action held at most."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _zeros(n_bytes: int, shape: str | None = None) -> bytes:
    return npy_with("<f4", shape or f"({n_bytes // 16}, 4)", bytes(n_bytes))


def _set_with(**members: bytes) -> list[tuple[str, bytes]]:
    arrays = {"X_train": np.eye(3, 4), "y_train": np.arange(3), "X_test": np.eye(3, 4), "y_test": np.arange(3)}
    whole = {}
    for name, array in arrays.items():
        file = io.BytesIO()
        np.lib.format.write_array(file, array)
        whole[name] = file.getvalue()
    return [(f"{name}.npy", content) for name, content in {**whole, **members}.items()]


def _claiming(n_bytes: int, content: bytes) -> bytes:
    """An archive whose first member claims a size, in its own head and in the directory."""
    small = packed(_set_with(X_train=content))
    return forged(small, 0, 4, n_bytes) if n_bytes < 2**32 else small


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_bombs_are_refused_before_they_are_unpacked(method, little_memory, tmp_path):
    path = tmp_path / "bomb.npz"
    path.write_bytes(packed(_set_with(X_train=_zeros(64 * _MIB)), method))
    assert path.stat().st_size < _MIB / 10
    said = []

    def load():
        with pytest.raises(InputError) as caught:
            load_features(path)
        said.append(str(caught.value))

    assert _peak(load) < 4 * _MIB
    if method == zipfile.ZIP_DEFLATED:
        assert "array 'X_train' takes 0.0625 GiB of memory, of which 0.0156 GiB are free" in said[0]
    else:
        assert "packed in another way" in said[0]


def test_what_fits_is_read_without_a_copy(tmp_path):
    path = tmp_path / "large.npz"
    content = bytearray(_zeros(64 * _MIB, "(65536, 256)"))
    content[-4:] = struct.pack("<f", 1.5)
    labels = npy_with("|u1", "(65536,)", (bytes(range(3)) * 65536)[:65536])
    test = npy_with("|u1", "(3, 256)", bytes(768))
    path.write_bytes(packed(_set_with(X_train=bytes(content), y_train=labels, X_test=test), zipfile.ZIP_DEFLATED))
    found = []
    assert _peak(lambda: found.append(load_features(path))) < 1.3 * 64 * _MIB
    assert found[0].X_train[-1, -1] == 1.5
    assert not found[0].X_train.flags.writeable


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("<f4", "(1000000000000, 2)"),
        ("<f4", "(4611686018427387904, 4)"),
        ("<f4", "(9223372036854775808, 1)"),
        ("<f4", "(-4, -4)"),
        ("<f4", "(2147483647, 2147483647, 4)"),
        ("<f4", "(9223372036854775808, 0)"),
        ("<f4", "(4611686018427387904, 0)"),
        ("<f4", f"({'0, ' * 80})"),
        ("|S0", "(9223372036854775808,)"),
        ("<U0", "(1000000000000, 2)"),
    ],
)
@pytest.mark.parametrize("n_bytes", [0, 64])
def test_giant_declared_shapes_are_refused_before_memory_is_asked_for(kind, shape, n_bytes, tmp_path):
    path = tmp_path / "forged.npz"
    content = npy_with(kind, shape, bytes(n_bytes))
    for archive in (packed(_set_with(X_train=content)), _claiming(2**32 - 2, content)):
        path.write_bytes(archive)
        assert _peak(lambda: is_read(lambda: load_features(path)) and pytest.fail("was read")) < 4 * _MIB
    folder = tmp_path / "features"
    folder.mkdir()
    for name, array in _set_with(X_train=content):
        (folder / name).write_bytes(array)
    assert _peak(lambda: is_read(lambda: load_features(folder)) and pytest.fail("was read")) < 4 * _MIB


@pytest.mark.parametrize("name", ["front", "predictions", "member_maps", "filter_front"])
def test_bombs_in_a_run_folder(name, little_memory, tmp_path):
    reader, folder = READERS[name], tmp_path / "run"
    (seed, *_) = reader.seeds(folder)
    with zipfile.ZipFile(io.BytesIO(seed)) as archive:
        members = [(member, archive.read(member)) for member in archive.namelist()]
    assert reader.accepts(packed(members, zipfile.ZIP_DEFLATED), folder)
    # packed, it fills the memory that is left; stored, it claims what its file does not hold
    full, claimed = _zeros(64 * _MIB), _zeros(64, "(16000000, 4)")
    for place in range(len(members)):
        changed = list(members)
        changed[place] = (members[place][0], claimed if place else full)
        content = packed(changed, zipfile.ZIP_STORED if place else zipfile.ZIP_DEFLATED)
        refused: list[bool] = []
        assert _peak(lambda: refused.append(not reader.accepts(content, folder))) < 8 * _MIB  # noqa: B023
        assert refused == [True], members[place][0]


@pytest.mark.parametrize("character", [b"\0\xd8\0\0", b"\0\0\x11\0", b"\xff" * 4])
def test_class_names_of_what_is_no_character(character, tmp_path):
    path = tmp_path / "names.npz"
    path.write_bytes(packed(_set_with(class_names=npy_with("<U1", "(3,)", 3 * character))))
    # half a pair is shown as "?", numbers beyond Unicode are no text
    assert is_read(lambda: load_features(path)) == (character == b"\0\xd8\0\0")


def test_class_names_that_would_become_millions_of_objects(tmp_path):
    path = tmp_path / "names.npz"
    names = npy_with("<U1", f"({20 * _MIB},)", bytes(80 * _MIB))
    path.write_bytes(packed(_set_with(class_names=names), zipfile.ZIP_DEFLATED))
    assert _peak(lambda: is_read(lambda: load_features(path)) and pytest.fail("was read")) < 4 * _MIB


def test_a_journal_line_without_an_end_is_not_held_in_memory(tmp_path):
    path = tmp_path / "evaluations.journal"
    with EvaluationJournal.create(path, {}, 8, ["a"]) as journal:
        journal.append(np.ones((2, 8), bool), np.ones((2, 1)))
    with path.open("ab") as file:
        file.truncate(path.stat().st_size + 200 * _MIB)
    found = []
    assert _peak(lambda: found.append(EvaluationJournal.read(path)[1])) < 8 * _MIB
    assert len(found[0]) == 2
    # a good record behind it counts
    with path.open("ab") as file:
        file.write(b"\n" + checksummed(b'{"m": "gA==", "v": [0.5]}'))
    assert _peak(lambda: found.append(EvaluationJournal.read(path)[1])) < 8 * _MIB
    assert found[1].tolist()[2] == [True] + 7 * [False]


@pytest.mark.parametrize("n_bits", [10**9 + 1, 2**63, 10**400], ids=["many", "beyond 64 bits", "400 digits"])
def test_journals_of_masks_that_no_head_has(n_bits, tmp_path):
    path = tmp_path / "evaluations.journal"
    start = '{"format": "moevoprune-journal", "version": 1, "identity": {}, "objectives": ["a"], '
    header = f'{start}"n_bits": {n_bits}}}'
    path.write_bytes(checksummed(header.encode()))
    assert not is_read(lambda: EvaluationJournal.read(path))


def test_tables_whose_first_line_never_ends(tmp_path):
    reader, folder = READERS["csv"], tmp_path / "table"
    reader.seeds(folder)
    for content in (b"a" * 20 * _MIB, b"a," * 200_000, b"a," * 10 * _MIB):
        with in_time():
            assert not reader.accepts(content, folder)


_SPECIAL = {
    "a FIFO": lambda path: os.mkfifo(path),
    "a device without an end": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path),
    "a folder": lambda path: path.mkdir(),
    "an empty file": lambda path: path.touch(),
    "a sparse file of a tebibyte": lambda path: _sparse(path, 2**40),
}
# of these, a damaged file is as good as none; and a journal that has no header yet is started afresh
_SAY_NOTHING = ("filter_cost", "record")


def _sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
@pytest.mark.parametrize("what", _SPECIAL)
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_ordinary_file_is_refused_at_once(name, what, tmp_path):
    reader, folder = READERS[name], tmp_path / "folder"
    reader.seeds(folder)
    target = folder / ("features/y_train.npy" if name == "feature_folder" else reader.file)
    read = (
        (lambda: load_features(folder / "features")) if name == "feature_folder" else (lambda: reader.read(folder))
    )
    target.unlink()
    try:
        _SPECIAL[what](target)
    except OSError as error:
        pytest.skip(f"this file system has no such thing: {error}")
    with in_time(20):
        refused = not is_read(read)
    assert refused or name in _SAY_NOTHING or (name, what) == ("journal", "an empty file")


def test_names_in_archives_lead_nowhere(tmp_path):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    names = [
        "../../escaped.npy",
        str(tmp_path / "escaped.npy"),
        "..\\escaped.npy",
        "C:\\escaped.npy",
        "X_val.npy/../../escaped.npy",
    ]
    path = inside / "features.npz"
    path.write_bytes(packed([*_set_with(), *((name, _zeros(64)) for name in names)]))
    load_features(path)
    read_arrays(path)
    assert [found.name for found in sorted(tmp_path.rglob("*")) if found.is_file()] == ["features.npz"]


def test_free_memory_of_machine_and_container(tmp_path, monkeypatch):
    meminfo, group = tmp_path / "meminfo", tmp_path / "group"
    group.mkdir()
    monkeypatch.setattr(free_memory, "_MEMINFO", meminfo)
    monkeypatch.setattr(free_memory, "_CGROUP", group)
    assert free_memory.free_memory() is None
    free_memory.check_room(2**60, "anything", "nothing is known, so nothing is refused")
    meminfo.write_text("MemTotal:  9000 kB\nMemAvailable:  5000 kB\n")
    assert free_memory.free_memory() == 5000 * 1024
    for name, text in {
        "max": "max",
        "current": "3000000",
        "stat": "anon 5\nactive_file 500\ninactive_file 1500\n",
    }.items():
        (group / f"memory.{name}").write_text(text)
    assert free_memory.free_memory() == 5000 * 1024
    (group / "memory.max").write_text("4000000\n")
    assert free_memory.free_memory() == 1_002_000
    with pytest.raises(InputError, match=r"^it takes 1 GiB of memory, of which 0\.000933 GiB are free: buy some$"):
        free_memory.check_room(2**30, "it", "buy some")
