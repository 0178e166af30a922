"""The row store: what is appended is found again, whatever happened in between."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from moevoprune import InputError
from moevoprune.features.row_store import RowStore

WIDTH = 5


def digests(*names: object) -> list[bytes]:
    return [hashlib.sha256(str(name).encode()).digest() for name in names]


def rows(*numbers: int) -> np.ndarray:
    return np.array([np.arange(WIDTH) + 10.0 * number for number in numbers], dtype=np.float32)


def fill(folder: Path) -> None:
    with RowStore(folder, WIDTH) as store:
        store.append(digests(1, 2, 3), rows(1, 2, 3))
        store.append(digests(4, 5), rows(4, 5))
        store.append(digests(6), rows(6))


def test_rows_are_found_by_their_image_in_any_order(tmp_path):
    fill(tmp_path / "store")
    with RowStore(tmp_path / "store", WIDTH) as store:
        assert len(store) == 6
        numbers = store.find(digests(6, "absent", 2, 3, 1, 2))
        assert (numbers >= 0).tolist() == [True, False, True, True, True, True]
        np.testing.assert_array_equal(store.read(numbers[numbers >= 0]), rows(6, 2, 3, 1, 2))
        assert store.read(numbers[:0]).shape == (0, WIDTH)
        assert store.find([]).tolist() == []


def test_an_empty_store_knows_nothing(tmp_path):
    with RowStore(tmp_path / "a" / "b", WIDTH) as store:
        assert len(store) == 0
        assert store.find(digests(1, 2)).tolist() == [-1, -1]


def test_digests_that_end_in_zero_bytes_are_told_apart(tmp_path):
    one, other = b"a" * 31 + b"\0", b"a" * 30 + b"\0\0"
    with RowStore(tmp_path, WIDTH) as store:
        store.append([one], rows(1))
        assert store.find([one, other]).tolist() == [0, -1]


@pytest.mark.parametrize("cut", range(1, 60, 7))
@pytest.mark.parametrize("name", ["rows.f32", "batches.jsonl"])
def test_what_was_cut_short_is_lost_and_nothing_else(tmp_path, name, cut):
    fill(tmp_path)
    size = (tmp_path / name).stat().st_size
    os.truncate(tmp_path / name, size - cut)
    with RowStore(tmp_path, WIDTH) as store:
        # rows: the last batch has 20 bytes, the one before 40; log: its last line has more than is cut
        whole = 3 if name == "rows.f32" and cut > 4 * WIDTH else 5
        assert len(store) == whole
        store.append(digests("new"), rows(9))
    with RowStore(tmp_path, WIDTH) as store:
        assert len(store) == whole + 1
        np.testing.assert_array_equal(store.read(store.find(digests(1, "new"))), rows(1, 9))


def test_a_damaged_block_ends_the_store_before_it(tmp_path):
    fill(tmp_path)
    data = bytearray((tmp_path / "rows.f32").read_bytes())
    data[4 * WIDTH * 3 + 1] ^= 0xFF
    (tmp_path / "rows.f32").write_bytes(data)
    with RowStore(tmp_path, WIDTH) as store:
        assert len(store) == 3
        assert (tmp_path / "rows.f32").stat().st_size == 3 * 4 * WIDTH


@pytest.mark.parametrize(
    "line",
    [
        b"\x00\x01",
        b"[]",
        b"{}",
        b'{"crc": true, "images": ["' + b"00" * 32 + b'"]}',
        b'{"crc": 1, "images": []}',
        b'{"crc": 1, "images": ["zz"]}',
        b'{"crc": 1, "images": ["00"]}',
        b'{"crc": 1, "images": 3}',
        b"[" * 100_000,
    ],
)
def test_a_forged_log_is_not_believed(tmp_path, line):
    fill(tmp_path)
    first = (tmp_path / "batches.jsonl").read_bytes().splitlines()[0]
    (tmp_path / "batches.jsonl").write_bytes(first + b"\n" + line + b"\n")
    with RowStore(tmp_path, WIDTH) as store:
        assert len(store) == 3


def test_the_log_is_plain_json(tmp_path):
    fill(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "batches.jsonl").read_text().splitlines()]
    assert [len(line["images"]) for line in lines] == [3, 2, 1]


def test_a_folder_that_cannot_be_made_is_said_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="MOEVOPRUNE_CACHE"), RowStore(tmp_path / "file" / "store", WIDTH):
        pass


def test_a_second_process_waits(tmp_path):
    code = (
        "import sys, numpy, pathlib\n"
        "from moevoprune.features.row_store import RowStore\n"
        "with RowStore(pathlib.Path(sys.argv[1]), 5) as store:\n"
        "    print(len(store), flush=True)\n"
    )
    with RowStore(tmp_path, WIDTH) as store:
        other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        time.sleep(1.0)
        assert other.poll() is None
        store.append(digests(1), rows(1))
    out, _ = other.communicate(timeout=60)
    assert out.strip() == "1"


def test_a_store_that_was_replaced_is_neither_written_nor_read(tmp_path):
    store = RowStore(tmp_path / "s", WIDTH)
    with store:
        store.append(digests(1, 2), rows(1, 2))
        numbers = store.find(digests(1, 2))
        shutil.rmtree(tmp_path / "s")
        with RowStore(tmp_path / "s", WIDTH) as other:
            other.append(digests(8, 9), rows(8, 9))
        with pytest.raises(InputError, match="removed or changed"):
            store.append(digests(3), rows(3))
    with pytest.raises(InputError, match="removed or changed"):
        store.read(numbers)
    with RowStore(tmp_path / "s", WIDTH) as other:
        assert len(other) == 2


def test_rows_that_are_gone_are_missed(tmp_path):
    store = RowStore(tmp_path, WIDTH)
    with store:
        store.append(digests(1, 2), rows(1, 2))
    os.truncate(tmp_path / "rows.f32", WIDTH * 4)
    with pytest.raises(InputError, match="removed or changed"):
        store.read(store.find(digests(1, 2)))
