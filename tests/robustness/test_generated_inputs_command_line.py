"""Command lines that nobody means: one line and exit code 2, and the folder is left as it was."""

from __future__ import annotations

import argparse
import contextlib
import io
import os

import numpy as np
import pytest
from generating import EXAMPLES, REPEATABLE, in_time
from hypothesis import given, settings
from hypothesis import strategies as st

from moevoprune.cli import main as command_line
from moevoprune.errors import printable

# none of these can be worked on, whatever else is asked for
_UNUSABLE = (
    "absent", "absent.npz", "absent.toml", "absent.csv", "garbage.npz", "garbage.toml", "garbage.csv",
    "empty", "loop", "fifo.npz",
    "/dev/zero", "\0", "a" * 5000, "é\u202e.npz", "half", "with\nnewline.npz", "../absent", "~nobody/x",
    "http://x/y.npz", "empty.npz", "=1+1",
)  # fmt: skip
_VALUES = (
    "", "0", "-1", "1", "2.5", "nan", "inf", "1e999", "9" * 30, "9" * 5000, "0x" + "f" * 5000, "true",
    "[1,2]", "[" * 3000, "a=b", "=",
    "epochs=-1", "hidden=[0]", "seed=0x" + "f" * 5000, "x" * 2000, "\x1b[2J", "\ud800", "guided", "accuracy",
    "knee", "out", "garbage.npz",
    "empty", "/dev/null/x", "cpu", "cuda:99", "ray", "absent.npz", "../x", "A,B", ",", "--", "-", "None",
)  # fmt: skip


def _options() -> dict[str, list[tuple[str, int | str | None]]]:
    """Options of every command, with the number of their values."""
    parser = command_line._build_parser()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return {
        name: [(option, action.nargs) for action in added._actions for option in action.option_strings]
        for name, added in commands.choices.items()
    }


_OPTIONS = _options()
_TAKE_NOTHING = ("problems",)


@st.composite
def _bad_command_lines(draw):
    command = draw(st.sampled_from(sorted(set(_OPTIONS) - set(_TAKE_NOTHING))))
    words = [command]
    for option, nargs in draw(st.lists(st.sampled_from(_OPTIONS[command]), max_size=3)):
        if option in ("-h", "--help"):
            continue
        count = nargs if isinstance(nargs, int) else 1
        words += [option, *(draw(st.sampled_from(_VALUES)) for _ in range(count))]
    # in front: an option may take all that follows
    return [words[0], draw(st.sampled_from(_UNUSABLE)), *words[1:]]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("MOEVOPRUNE_CACHE", str(place / "cache"))
    for name in ("garbage.npz", "garbage.toml", "garbage.csv"):
        (place / name).write_bytes(np.random.default_rng(1).bytes(200))
    (place / "empty").mkdir()
    (place / "half").mkdir()
    (place / "half" / "front.npz").write_bytes(b"PK\x03\x04")
    (place / "half" / "config.toml").write_text("[data]\nfeatures = 'absent.npz'\n")
    (place / "empty.npz").touch()
    (place / "loop").symlink_to("loop")
    if hasattr(os, "mkfifo"):
        os.mkfifo(place / "fifo.npz")
    return place


def _carry_out(words: list[str]) -> tuple[int, str, str]:
    said, wrong = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(wrong):
        try:
            code = command_line.main(words)
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, said.getvalue(), wrong.getvalue()


def _tree(place):
    """Everything in a folder; of files also their size and last change."""
    return {
        (str(path), *((path.lstat().st_size, path.lstat().st_mtime_ns) if path.is_file() else ()))
        for path in place.rglob("*")
    }


def test_bad_command_lines_are_refused_in_one_line(workplace):
    before, tried = _tree(workplace.parent), 0

    @settings(max_examples=EXAMPLES["command lines"], **REPEATABLE)
    @given(_bad_command_lines())
    def attack(words):
        nonlocal tried, before
        tried += 1
        with in_time():
            code, _, wrong = _carry_out(words)
        assert code == 2, (code, wrong)
        (line,) = wrong.splitlines()
        assert "error: " in line
        assert line == printable(line)
        assert len(line) < 1000
        # compared anew, so that the first to change something is the one that is named
        changed, before = _tree(workplace.parent) ^ before, _tree(workplace.parent)
        assert changed == set()

    attack()
    assert tried >= EXAMPLES["command lines"]


def test_what_only_tells_something_succeeds(workplace):
    before = _tree(workplace.parent)
    for words in (["problems"], ["--version"], [], ["--help"], *([name, "--help"] for name in _OPTIONS)):
        code, said, wrong = _carry_out(words)
        assert (code, wrong) == (0, "")
        assert said
    assert _tree(workplace.parent) == before
