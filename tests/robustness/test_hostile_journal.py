"""Journals with good checksums that somebody forged: a resumed run ends in a front or in one line.

They can lie about the values of masks, and are believed: a journal is as trustworthy as who gave it.
"""

from __future__ import annotations

import json
import shutil
import zlib

import numpy as np
import pytest

from moevoprune import Front
from moevoprune.cli.main import main

QUICK = ["--pop", "4", "--gens", "2", "--cv", "2", "--set", "epochs=1", "--set", "hidden=[4]", "--jobs", "1"]


def forged(record):
    text = (record if isinstance(record, str) else json.dumps(record)).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


@pytest.fixture(scope="module")
def run(small_features, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    small_features.save(folder / "f.npz")
    words = ["run", str(folder / "f.npz"), "--out", str(folder / "run"), "--no-baselines", "--quiet"]
    assert main([*words, *QUICK]) == 0
    return folder / "run"


def others(lines):
    """By what they claim: lines of forged journals, of which the first is the header."""
    header, *records = (json.loads(line[9:]) for line in lines)
    key = next(name for name, value in records[0].items() if isinstance(value, list))
    changed = lambda value: [forged({**record, key: [value] * len(record[key])}) for record in records]  # noqa: E731
    return {
        "perfect": [lines[0], *changed(1.0)],
        "absurd": [lines[0], *changed(-1e300)],
        "not a number": [lines[0], *(forged(json.dumps({**records[0], key: ["NaN"] * 3})) for _ in range(3))],
        "infinite": [lines[0], *changed(float("inf"))],
        "words": [lines[0], *changed("__import__('os').mkdir('owned')")],
        "too few values": [lines[0], *(forged({**record, key: record[key][:1]}) for record in records)],
        "too many values": [lines[0], *(forged({**record, key: record[key] * 1000}) for record in records)],
        "other bits": [lines[0], *(forged({**record, "m": "A" * 10_000}) for record in records)],
        "twice, with other values": [*lines, *changed(0.5)],
        "a thousand times": [lines[0], *lines[1:] * 1000],
        "other objectives": [forged({**header, "objectives": ["x"] * 50}), *lines[1:]],
        "a giant mask": [forged({**header, "n_bits": 10**12}), *lines[1:]],
        "another version": [forged({**header, "version": 10**30}), *lines[1:]],
        "nested": [forged("[" * 10_000 + "]" * 10_000), *lines[1:]],
        "no header": lines[1:],
    }


KINDS = (
    *("perfect", "absurd", "not a number", "infinite", "words", "too few values", "too many values", "other bits"),
    *("twice, with other values", "a thousand times", "other objectives", "a giant mask", "another version"),
    *("nested", "no header"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_forged_journal_ends_in_a_front_or_one_line(kind, run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    shutil.copytree(
        run, folder, ignore=shutil.ignore_patterns("*.npz", "*.safetensors", "*.html", "figures", "run.json")
    )
    journal = folder / "evaluations.journal"
    journal.write_bytes(b"".join(others(journal.read_bytes().splitlines(keepends=True))[kind]))
    code = main(["run", "--out", str(folder), "--resume", "--no-baselines", "--quiet"])
    said = capsys.readouterr().err
    if code == 0:
        front = Front.load(folder)
        assert len(front) > 0
        # what is measured now is not what the journal says
        assert ((front.test >= 0) & (front.test <= 1)).all()
        assert np.isfinite(front.values).all()
    else:
        assert code == 2
        assert said.startswith("moevoprune: error: ")
        assert said.count("\n") == 1
    assert not (tmp_path / "owned").exists()


def test_all_kinds_are_tried(run):
    lines = (run / "evaluations.journal").read_bytes().splitlines(keepends=True)
    assert set(others(lines)) == set(KINDS)
