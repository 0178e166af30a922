"""Thousands of damaged files: every reader gives a sound value or refuses in one line."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from generating import EXAMPLES, REPEATABLE, in_time
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import STRUCTURES, Step, damaged, npy_with, packed
from readers import READERS

_NUMBERS = st.integers(0, 2**32 - 1)
_STEPS = st.lists(st.tuples(st.integers(0, 2**16 - 1), _NUMBERS, _NUMBERS), min_size=1, max_size=4)
# a search that took something is remembered as nothing spent where its file is damaged
_NEVER_REFUSE = ("filter_cost",)


@pytest.fixture(autouse=True)
def _no_waiting_for_disks(monkeypatch):
    # what is written here to be read again need not survive a power loss
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused_in_one_line(name, tmp_path):
    reader, folder = READERS[name], tmp_path / "folder"
    seeds = reader.seeds(folder)
    outcomes: list[bool] = []

    @settings(max_examples=EXAMPLES[name], **REPEATABLE)
    @given(seed=st.integers(0, len(seeds) - 1), steps=_STEPS)
    def attack(seed: int, steps: list[Step]) -> None:
        with in_time():
            outcomes.append(reader.accepts(damaged(reader.kind, seeds[seed], steps), folder))

    attack()
    assert len(outcomes) >= EXAMPLES[name]
    # damage that is always or never found would show nothing
    assert any(outcomes)
    assert not all(outcomes) or name in _NEVER_REFUSE


@pytest.mark.parametrize("name", READERS)
def test_any_bytes_are_read_or_refused_in_one_line(name, tmp_path):
    reader, folder = READERS[name], tmp_path / "folder"
    start = reader.seeds(folder)[0][:8]
    tried = 0

    @settings(max_examples=EXAMPLES["any bytes"], **REPEATABLE)
    @given(st.binary(max_size=300), st.booleans())
    def attack(content: bytes, looks_right: bool) -> None:
        nonlocal tried
        tried += 1
        with in_time():
            reader.accepts(start + content if looks_right else content, folder)

    attack()
    assert tried >= EXAMPLES["any bytes"]


@pytest.mark.parametrize("name", READERS)
def test_valid_files_are_read(name, tmp_path):
    seeds = READERS[name].seeds(tmp_path / "folder")
    assert all(READERS[name].accepts(seed, tmp_path / "folder") for seed in seeds)


class _Payload:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", READERS)
def test_pickles_are_never_run(name, tmp_path):
    reader, folder, ran = READERS[name], tmp_path / "folder", tmp_path / "ran"
    payload = pickle.dumps(_Payload(ran))
    pickle.loads(payload).close()
    assert ran.exists(), "the payload itself does nothing"
    ran.unlink()
    seeds = reader.seeds(folder)
    array = npy_with("|O", "(1,)", payload)
    inside = [
        packed([(f"{key}.npy", array)])
        for key in ("X_train", "masks", "format", "keys", "data.pkl", "archive/data.pkl")
    ]
    members = packed(
        [("archive/data.pkl", payload), ("archive/version", b"3\n"), ("archive/byteorder", b"little")]
    )
    steps = [(2 * place, place, 17) for place in range(12)]
    for content in (
        payload,
        array,
        b"\0" + array,
        members,
        *inside,
        *(damaged(reader.kind, array, [s]) for s in steps),
    ):
        accepted = reader.accepts(content, folder)
        assert not ran.exists(), "a pickle was run"
        assert not accepted or name in _NEVER_REFUSE or reader.kind in ("json", "csv"), name
    assert reader.accepts(seeds[0], folder)


def test_enough_is_tried():
    assert set(STRUCTURES) >= {reader.kind for reader in READERS.values()}
    many = [n * (len(READERS) if name == "any bytes" else 1) for name, n in EXAMPLES.items()]
    print(f"{sum(many):,} generated inputs")
    assert sum(many) >= 10_000
