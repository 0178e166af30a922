"""What a run folder says of itself."""

from __future__ import annotations

import pytest

from moevoprune.errors import InputError
from moevoprune.fronts.run_folder import ABOUT, MEASURED, RECORD, entry, list_at, number_at, read_record


def test_records_of_all_kinds(tmp_path):
    assert read_record(tmp_path) == {}
    path = tmp_path / RECORD
    path.write_text('{"seed": 3}')
    assert read_record(tmp_path) == {"seed": 3}
    path.write_text("[1]")
    assert read_record(tmp_path) == {}
    for content in (b"{", b"\xff", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"run\.json: is damaged"):
            read_record(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        read_record(tmp_path)


def test_values_deep_in_a_record():
    record = {"data": {"rows": 7, "names": ["a"], "yes": True}, "none": None}
    assert entry(record, "data", "rows") == 7
    assert entry(record, "data", "rows", "more") is None
    assert entry(record, "none", "rows") is entry([], "data") is None
    assert number_at(record, "data", "rows") == 7
    assert number_at(record, "data", "yes") is number_at(record, "data", "names") is None
    assert list_at(record, "data", "names") == ["a"]
    assert list_at(record, "data", "rows") == list_at(record, "nothing") == []


def test_every_file_measured_on_a_front_is_described():
    assert {name for name in MEASURED if "/" not in name} <= set(ABOUT)
