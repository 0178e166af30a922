import errno
import json
import math
import os
import tempfile
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from moevoprune.errors import InputError
from moevoprune.search.journal import EvaluationJournal

IDENTITY = {"data": "sha256:ab", "seed": 1, "lr": 0.1, "deterministic": True, "layers": [64, 32]}
OBJECTIVES = ["accuracy", "active"]
N_BITS = 11


@pytest.fixture
def no_fsync(monkeypatch):
    """For tests that open hundreds of journals: the disk would take most of their time."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def records(n, n_bits=N_BITS, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((n, n_bits)) < 0.5, rng.normal(size=(n, len(OBJECTIVES))) * 10.0 ** rng.integers(
        -9, 9, (n, 1)
    )


def write(path, masks, values):
    with EvaluationJournal.create(path, IDENTITY, N_BITS, OBJECTIVES) as journal:
        journal.append(masks, values)


def resume(path, **changes):
    return EvaluationJournal.resume(
        path,
        {**IDENTITY, **changes.pop("identity", {})},
        **{"n_bits": N_BITS, "objectives": OBJECTIVES, **changes},
    )


def assert_entries(journal, masks, values):
    entries = journal.entries
    assert len(entries) == len(masks)
    for (mask, value), wanted_mask, wanted_value in zip(entries, masks, values, strict=True):
        assert mask.dtype == np.bool_
        assert value.dtype == np.float64
        np.testing.assert_array_equal(mask, wanted_mask)
        assert value.tobytes() == np.asarray(wanted_value, dtype=float).tobytes()


def test_round_trip(tmp_path):
    path = tmp_path / "evaluations.journal"
    masks, values = records(7)
    with EvaluationJournal.create(path, IDENTITY, N_BITS, OBJECTIVES) as journal:
        assert journal.entries == []
        journal.append(masks[:3], values[:3])
        journal.sync()
        header, seen, _ = EvaluationJournal.read(path)
        assert header == {
            "format": "moevoprune-journal",
            "version": 1,
            "identity": IDENTITY,
            "n_bits": N_BITS,
            "objectives": OBJECTIVES,
        }
        np.testing.assert_array_equal(seen, masks[:3])
        journal.append(masks[:0], values[:0])
        journal.append(masks[3:5], values[3:5])
    with resume(path) as journal:
        assert_entries(journal, masks[:5], values[:5])
        assert journal.damaged == 0
        journal.append(masks[5:], values[5:])
        assert len(journal.entries) == 5
    _, read_masks, read_values = EvaluationJournal.read(path)
    assert read_masks.dtype == np.bool_
    np.testing.assert_array_equal(read_masks, masks)
    assert read_values.tobytes() == values.tobytes()


def test_format_is_as_documented(tmp_path):
    path = tmp_path / "j"
    masks, values = records(2)
    write(path, masks, values)
    lines = path.read_bytes().split(b"\n")
    assert lines.pop() == b""
    for line in lines:
        crc, text = line.split(b" ", 1)
        assert int(crc, 16) == zlib.crc32(text)
    assert json.loads(lines[1].split(b" ", 1)[1])["v"] == values[0].tolist()


def test_empty_journal_reads_as_empty_arrays(tmp_path):
    write(tmp_path / "j", *records(0))
    _, masks, values = EvaluationJournal.read(tmp_path / "j")
    assert masks.shape == (0, N_BITS)
    assert values.shape == (0, 2)


@pytest.mark.usefixtures("no_fsync")
def test_kill_at_every_byte(tmp_path):
    masks, values = records(5)
    whole = tmp_path / "whole"
    write(whole, masks[:4], values[:4])
    data = whole.read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == 10]
    path = tmp_path / "torn"
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        complete = max(sum(end <= cut for end in ends) - 1, 0)
        with resume(path) as journal:
            assert_entries(journal, masks[:complete], values[:complete])
            assert journal.damaged == 0
            journal.append(masks[4:], values[4:])
        keep = [*range(complete), 4]
        _, read_masks, read_values = EvaluationJournal.read(path)
        np.testing.assert_array_equal(read_masks, masks[keep])
        np.testing.assert_array_equal(read_values, values[keep])
        # Nothing of the torn record is left: the file is what an undisturbed run would have written.
        fresh = tmp_path / "fresh"
        write(fresh, masks[keep], values[keep])
        assert path.read_bytes() == fresh.read_bytes()
        fresh.unlink()


@pytest.mark.parametrize("tail", [b"\0" * 50, b"garbage\n", b"00000000 {}\nmore\n\0\0\n\0", b"\n\n"])
def test_garbage_tail_is_cut_off(tmp_path, tail):
    masks, values = records(3)
    path = tmp_path / "j"
    write(path, masks, values)
    good = path.read_bytes()
    path.write_bytes(good + tail)
    np.testing.assert_array_equal(EvaluationJournal.read(path)[1], masks)
    assert path.read_bytes() == good + tail
    with resume(path) as journal:
        assert_entries(journal, masks, values)
        assert journal.damaged == 0
    assert path.read_bytes() == good


@pytest.mark.usefixtures("no_fsync")
@pytest.mark.parametrize("flip", [1, 32, 128])
def test_flipped_byte_loses_only_its_record(tmp_path, flip):
    masks, values = records(3)
    path = tmp_path / "j"
    write(path, masks, values)
    data = path.read_bytes()
    lines = data.split(b"\n")
    start = len(lines[0]) + 1 + len(lines[1]) + 1
    for at in range(start, start + len(lines[2])):
        damaged = bytearray(data)
        damaged[at] ^= flip
        if damaged[at] == 10:
            continue
        path.write_bytes(damaged)
        with resume(path) as journal:
            assert_entries(journal, masks[[0, 2]], values[[0, 2]])
            assert journal.damaged == 1
            journal.append(masks[1:2], values[1:2])
        np.testing.assert_array_equal(EvaluationJournal.read(path)[1], masks[[0, 2, 1]])


def test_damaged_records_are_counted_once_each(tmp_path):
    masks, values = records(5)
    path = tmp_path / "j"
    write(path, masks, values)
    lines = path.read_bytes().split(b"\n")
    for i in (2, 4):
        lines[i] = lines[i][:-1] + b"?"
    path.write_bytes(b"\n".join(lines))
    with resume(path) as journal:
        assert_entries(journal, masks[[0, 2, 4]], values[[0, 2, 4]])
        assert journal.damaged == 2


def test_lost_line_end_damages_two_records_as_one_line(tmp_path):
    masks, values = records(4)
    path = tmp_path / "j"
    write(path, masks, values)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], lines[1], lines[2] + b"?" + lines[3], lines[4], b""]))
    with resume(path) as journal:
        assert_entries(journal, masks[[0, 3]], values[[0, 3]])
        assert journal.damaged == 1


def line(record):
    text = json.dumps(record).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


@pytest.mark.parametrize(
    "record",
    [
        [],
        {},
        {"m": "AAA=", "v": [1.0]},
        {"m": "AA==", "v": [1.0, 2.0]},
        {"m": "????", "v": [1.0, 2.0]},
        {"m": "é", "v": [1.0, 2.0]},
        {"m": 3, "v": [1.0, 2.0]},
        {"m": "AAA=", "v": [1.0, None]},
        {"m": "AAA=", "v": [1.0, math.inf]},
        {"m": "AAA=", "v": [1.0, 10**400]},
    ],
)
def test_sound_checksum_over_nonsense_counts_as_damaged(tmp_path, record):
    masks, values = records(2)
    path = tmp_path / "j"
    write(path, masks, values)
    head, first, second, _ = path.read_bytes().split(b"\n")
    path.write_bytes(head + b"\n" + first + b"\n" + line(record) + second + b"\n")
    with resume(path) as journal:
        assert_entries(journal, masks, values)
        assert journal.damaged == 1


@settings(max_examples=60, deadline=None)
@given(
    masks=hnp.arrays(bool, st.tuples(st.integers(0, 4), st.just(13))),
    data=st.data(),
)
def test_floats_are_exact(masks, data):
    values = data.draw(
        hnp.arrays(np.float64, (len(masks), 3), elements=st.floats(allow_nan=False, allow_infinity=False))
    )
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        path = Path(folder) / "j"
        with EvaluationJournal.create(path, {}, 13, ["a", "b", "c"]) as journal:
            journal.append(masks, values)
        _, read_masks, read_values = EvaluationJournal.read(path)
        np.testing.assert_array_equal(read_masks, masks)
        assert read_values.tobytes() == values.tobytes()
        with EvaluationJournal.resume(path, {}, 13, ["a", "b", "c"]) as journal:
            assert_entries(journal, masks, values)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"identity": {"seed": 2}}, ["seed: 1 → 2"]),
        ({"identity": {"deterministic": 1}}, ["deterministic: true → 1"]),
        ({"identity": {"layers": [64, 16]}}, ["layers: [64, 32] → [64, 16]"]),
        ({"identity": {"extra": "x"}}, ['extra: absent → "x"']),
        ({"n_bits": 12}, ["n_bits: 11 → 12"]),
        ({"objectives": ["accuracy", "macs"]}, ['objectives: ["accuracy", "active"] → ["accuracy", "macs"]']),
        (
            {"identity": {"seed": 2, "lr": 0.2, "layers": [1], "data": "sha256:cd"}, "n_bits": 5},
            ['data: "sha256:ab" → "sha256:cd"', "seed: 1 → 2", "lr: 0.1 → 0.2", "and 2 more"],
        ),
    ],
)
def test_changed_identity_is_named(tmp_path, changes, told):
    path = tmp_path / "j"
    write(path, *records(2))
    before = path.read_bytes()
    with pytest.raises(InputError) as caught:
        resume(path, **changes)
    message = str(caught.value)
    for text in [*told, str(path), "new folder or the same settings"]:
        assert text in message
    if len(told) == 4:
        assert "layers" not in message
    assert path.read_bytes() == before


def test_changes_behind_a_long_common_part_are_shown(tmp_path):
    path = tmp_path / "j"
    EvaluationJournal.create(path, {"files": ["x" * 500 + "1"]}, 3, ["a"]).close()
    with pytest.raises(InputError, match=r'x1"\] → …x+2"\];'):
        EvaluationJournal.resume(path, {"files": ["x" * 500 + "2"]}, 3, ["a"])


def test_order_of_identity_and_tuples_do_not_matter(tmp_path):
    path = tmp_path / "j"
    EvaluationJournal.create(path, {"a": 1, "b": (1, 2)}, 3, ["x"]).close()
    EvaluationJournal.resume(path, {"b": [1, 2], "a": 1}, 3, ("x",)).close()


def test_existing_file_is_not_overwritten(tmp_path):
    path = tmp_path / "j"
    write(path, *records(2))
    before = path.read_bytes()
    with pytest.raises(InputError, match="already exists"):
        EvaluationJournal.create(path, IDENTITY, N_BITS, OBJECTIVES)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [
        b"hello",
        b"\n",
        b"not a journal\n",
        b"\x80\x04pickle",
        b'deadbeef {"format": "another"',
        b'00000000 {"format": "moevoprune-journal", "version": 1}\n',
        line([1]),
        line({"format": "other", "version": 1}),
        line({"format": "moevoprune-journal", "version": 1}),
        line({"format": "moevoprune-journal", "version": 1, "identity": {}, "n_bits": 0, "objectives": ["a"]}),
        line({"format": "moevoprune-journal", "version": 1, "identity": {}, "n_bits": 3, "objectives": "a"}),
        b"0" * (2 << 20),
    ],
)
def test_foreign_files_are_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "j"
    path.write_bytes(content)
    for opening in (lambda: resume(path), lambda: EvaluationJournal.read(path)):
        with pytest.raises(InputError, match="journal"):
            opening()
    assert path.read_bytes() == content


def test_other_format_version_is_named(tmp_path):
    path = tmp_path / "j"
    path.write_bytes(line({"format": "moevoprune-journal", "version": 2}))
    with pytest.raises(InputError, match="version 2, this program reads version 1"):
        resume(path)


def test_missing_file_folder_and_torn_header(tmp_path):
    for opening in (resume, EvaluationJournal.read):
        with pytest.raises(InputError, match="there is no journal"):
            opening(tmp_path / "none")
        with pytest.raises(InputError, match="not a file"):
            opening(tmp_path)
    with pytest.raises(InputError, match="cannot create"):
        EvaluationJournal.create(tmp_path / "none" / "j", IDENTITY, N_BITS, OBJECTIVES)
    (tmp_path / "torn").write_bytes(b'12345678 {"format": "moevo')
    with pytest.raises(InputError, match="no complete header"):
        EvaluationJournal.read(tmp_path / "torn")
    (tmp_path / "zeros").write_bytes(b"\0" * 300)
    resume(tmp_path / "zeros").close()
    assert EvaluationJournal.read(tmp_path / "zeros")[0]["identity"] == IDENTITY


@pytest.mark.parametrize(
    ("masks", "values", "match"),
    [
        (np.zeros((1, N_BITS), int), np.zeros((1, 2)), "int64"),
        (np.zeros((1, N_BITS + 1), bool), np.zeros((1, 2)), "shape"),
        (np.zeros(N_BITS, bool), np.zeros((1, 2)), "shape"),
        (np.zeros((2, N_BITS), bool), np.zeros((1, 2)), "shape"),
        (np.zeros((1, N_BITS), bool), np.zeros((1, 3)), "shape"),
        (np.zeros((1, N_BITS), bool), np.array([["a", "b"]]), "not numbers"),
        (np.zeros((2, N_BITS), bool), np.array([[0, 0], [0, np.nan]]), "'active', row 1, is not finite"),
        (np.zeros((1, N_BITS), bool), np.array([[np.inf, 0]]), "'accuracy', row 0, is not finite"),
    ],
)
def test_bad_records_are_refused_whole(tmp_path, masks, values, match):
    path = tmp_path / "j"
    journal = EvaluationJournal.create(path, IDENTITY, N_BITS, OBJECTIVES)
    with pytest.raises(InputError, match=match):
        journal.append(masks, values)
    journal.close()
    assert len(EvaluationJournal.read(path)[1]) == 0


@pytest.mark.parametrize(
    ("identity", "n_bits", "objectives"),
    [
        ({"a": {}}, 3, ["x"]),
        ({"a": None}, 3, ["x"]),
        ({"a": [[1]]}, 3, ["x"]),
        ({"a": math.nan}, 3, ["x"]),
        ({"a": np.int64(3)}, 3, ["x"]),
        ({1: 1}, 3, ["x"]),
        ([], 3, ["x"]),
        ({}, 0, ["x"]),
        ({}, True, ["x"]),
        ({}, 2.0, ["x"]),
        ({}, 3, []),
        ({}, 3, "x"),
        ({}, 3, [1]),
        ({"a": "x" * (1 << 20)}, 3, ["x"]),
    ],
)
def test_bad_headers_are_refused(tmp_path, identity, n_bits, objectives):
    with pytest.raises(InputError):
        EvaluationJournal.create(tmp_path / "j", identity, n_bits, objectives)
    assert not (tmp_path / "j").exists()


class FullDisk:
    """A file that takes so many bytes more, then reports a full disk."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self.file.write(data[: self.room])
        self.room -= written
        return written


@pytest.mark.usefixtures("no_fsync")
def test_full_disk_leaves_whole_records(tmp_path):
    masks, values = records(4)
    whole = tmp_path / "whole"
    write(whole, masks, values)
    data = whole.read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == 10]
    for room in range(ends[-1] - ends[1]):
        path = tmp_path / f"j{room}"
        write(path, masks[:1], values[:1])
        journal = resume(path)
        file = journal._file
        journal._file = FullDisk(file, room)
        journal.append(masks[1:], values[1:])
        with pytest.raises(InputError, match="No space left on device; free some space and resume"):
            journal.sync()
        fitting = max(end for end in ends if end <= ends[1] + room)
        assert path.read_bytes() == data[:fitting]
        if room % 2:
            with pytest.raises(InputError, match="No space left"):
                journal.close()
            assert file.closed
            with resume(path) as again:
                n = len(again.entries)
                assert_entries(again, masks[:n], values[:n])
                again.append(masks[n:], values[n:])
        else:
            journal._file = file  # space was freed: nothing of the buffer is lost
            journal.close()
        assert path.read_bytes() == data
        path.unlink()


def test_error_under_way_is_not_hidden_by_a_full_disk(tmp_path):
    masks, values = records(2)
    journal = EvaluationJournal.create(tmp_path / "j", IDENTITY, N_BITS, OBJECTIVES)
    file = journal._file
    journal._file = FullDisk(file, 5)
    with pytest.raises(RuntimeError, match="first"), journal:  # noqa: PT012
        journal.append(masks, values)
        raise RuntimeError("first")
    assert file.closed


def test_records_appended_before_an_error_are_kept(tmp_path):
    masks, values = records(2)
    journal = EvaluationJournal.create(tmp_path / "j", IDENTITY, N_BITS, OBJECTIVES)
    with pytest.raises(RuntimeError, match="killed"), journal:  # noqa: PT012
        journal.append(masks, values)
        raise RuntimeError("killed")
    np.testing.assert_array_equal(EvaluationJournal.read(tmp_path / "j")[1], masks)


def test_failing_fsync_is_told(tmp_path, monkeypatch):
    def fail(handle):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    journal = EvaluationJournal.create(tmp_path / "j", IDENTITY, N_BITS, OBJECTIVES)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(InputError, match=r"cannot write .*: Input/output error; check the disk"):
            journal.sync()
        with pytest.raises(InputError, match="cannot write"):
            EvaluationJournal.create(tmp_path / "other", IDENTITY, N_BITS, OBJECTIVES)
        assert not (tmp_path / "other").exists()
    journal.close()


def test_real_write_failure(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "j"
    masks, values = records(400)
    journal = EvaluationJournal.create(path, IDENTITY, N_BITS, OBJECTIVES)
    journal.append(masks, values)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9001, hard))
    try:
        with pytest.raises(InputError, match="cannot write"):
            journal.sync()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert 8900 < path.stat().st_size <= 9001
    assert path.read_bytes()[-1:] == b"\n"
    journal.close()
    np.testing.assert_array_equal(EvaluationJournal.read(path)[1], masks)


def test_every_generation_is_synced_and_the_folder_once(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(os.fstat(handle).st_mode), real(handle))[1])
    journal = EvaluationJournal.create(tmp_path / "j", IDENTITY, N_BITS, OBJECTIVES)
    assert len(synced) == 2
    journal.append(*records(3))
    assert len(synced) == 2
    journal.sync()
    assert len(synced) == 3
    journal.close()


def test_closed_journal_refuses_use(tmp_path):
    journal = EvaluationJournal.create(tmp_path / "j", IDENTITY, N_BITS, OBJECTIVES)
    journal.close()
    journal.close()
    with pytest.raises(ValueError, match="closed"):
        journal.append(*records(1))
    with pytest.raises(ValueError, match="closed"):
        journal.sync()


def test_large_masks_stay_packed(tmp_path):
    n_bits, n = 80_000, 200
    masks, values = records(n, n_bits)
    path = tmp_path / "j"
    tracemalloc.start()
    try:
        with EvaluationJournal.create(path, IDENTITY, n_bits, OBJECTIVES) as journal:
            for i in range(0, n, 20):
                journal.append(masks[i : i + 20], values[i : i + 20])
        assert tracemalloc.get_traced_memory()[1] < 6e6
        assert path.stat().st_size < n * (n_bits / 8 * 4 / 3 + 150)
        tracemalloc.reset_peak()
        with resume(path, n_bits=n_bits) as journal:
            # 2 MB packed; 16 MB as bool arrays.
            assert tracemalloc.get_traced_memory()[1] < 5e6
            for (mask, value), wanted, wanted_value in zip(journal.iter_entries(), masks, values, strict=True):
                assert (mask == wanted).all()
                assert (value == wanted_value).all()
    finally:
        tracemalloc.stop()
