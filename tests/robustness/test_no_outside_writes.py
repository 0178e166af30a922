"""No command writes outside its output and cache folders, and none reaches for the network unless asked to."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import pytest
from commands import COMMANDS, FAST, prepare
from system_calls import recorded

from moevoprune.cli.main import main
from moevoprune.fronts.plots import style

# torch and others look at the machine with these
_HARMLESS_PROGRAMS = ("uname", "lscpu", "ldconfig", "gcc", "cc", "ld", "objdump", "nvidia-smi", "file", "git")


@pytest.fixture(
    scope="module", params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["features", "images"]
)
def desk(request, tmp_path_factory):
    """A current folder, a home, a cache and a folder for temporary files, each of their own."""
    root = tmp_path_factory.mktemp("desk")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("here", "home", "cache", "temporary"):
            (root / name).mkdir()
        patch.setattr(style, "DPI", 30)
        patch.chdir(root / "here")
        patch.setenv("HOME", str(root / "home"))
        patch.setenv("MOEVOPRUNE_CACHE", str(root / "cache"))
        patch.setenv("TMPDIR", str(root / "temporary"))
        patch.setattr(tempfile, "tempdir", str(root / "temporary"))
        for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
            patch.delenv(name, raising=False)
        prepare(root / "here", request.param)
        yield root, request.param


def everything(folder: Path) -> dict[Path, tuple[int, int]]:
    return {
        path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*") if not path.is_dir()
    } | {path: (0, 0) for path in folder.rglob("*") if path.is_dir()}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_write_where_they_are_told_and_ask_nobody(name, desk, capsys):
    root, images = desk
    if images is (name in FAST):
        pytest.skip("is tried with the other desk")
    out = root / "out" / name.replace(" ", "_")
    out.mkdir(parents=True)
    command = COMMANDS[name]
    before, inherited = everything(root), set(os.listdir("/dev/shm")) if Path("/dev/shm").is_dir() else set()
    with recorded() as calls:
        code = command.carry_out(out)
    assert code == (2 if name == "error" else 0), capsys.readouterr().err
    allowed = [out, root / "cache", *(root / "here" / place for place in command.also)]
    # temporary files may be there while a command works
    outside = {path for path in calls.changed if not any(path.is_relative_to(place) for place in allowed)}
    outside = {path for path in outside if not path.is_relative_to(root / "temporary")}
    devices = {Path(os.devnull), Path("/dev/tty")}
    assert {path for path in outside - devices if not str(path).startswith("/dev/shm/")} == set()
    assert calls.network == []
    assert [call for call in calls.programs if not any(word in call for word in _HARMLESS_PROGRAMS)] == []
    after = everything(root)
    changed = {path for path in {*before, *after} if before.get(path) != after.get(path)}
    assert {path for path in changed if not any(path.is_relative_to(place) for place in allowed)} == set()
    if name == "error":
        assert not any(path.is_relative_to(out) for path in changed)
    # none of those of this process is left in shared memory
    if Path("/dev/shm").is_dir():
        assert not {found for found in set(os.listdir("/dev/shm")) - inherited if str(os.getpid()) in found}


def test_the_record_would_show_each_kind(tmp_path):
    """The checks above would notice."""
    folder = os.open(tmp_path, os.O_RDONLY)
    with recorded() as calls:
        os.mkdir("f", dir_fd=folder)
        (tmp_path / "a").write_text("x")
        os.mkdir(tmp_path / "b")
        os.rename(tmp_path / "a", tmp_path / "c")
        (tmp_path / "d").symlink_to("c")
        os.unlink(tmp_path / "d")
        with open(os.open(tmp_path / "e", os.O_CREAT | os.O_WRONLY), "wb"):
            pass
        subprocess.run([sys.executable, "-c", ""], check=True)
        with socket.socket() as one:
            one.settimeout(0.01)
            one.connect_ex(("127.0.0.1", 9))
        for ask in (
            lambda: socket.getaddrinfo("127.0.0.1", 9),
            lambda: urllib.request.urlopen("http://127.0.0.1:9"),
        ):
            try:
                ask()
            except OSError:
                continue
        (tmp_path / "c").read_text()
    os.close(folder)
    assert calls.changed >= {tmp_path / name for name in "abcdef"}
    assert len(calls.programs) == 1
    assert {call.split()[0] for call in calls.network} >= {
        "socket.connect",
        "socket.getaddrinfo",
        "urllib.Request",
    }


def test_only_weights_that_are_asked_for_are_downloaded(desk, tmp_path, capsys, monkeypatch):
    """``--weights default`` is the default, and the one thing that asks; offline it is one line."""
    root, images = desk
    if not images:
        (root / "here" / "images" / "a").mkdir(parents=True, exist_ok=True)
    asked = []

    def refuse(request, *_, **__):
        asked.append(getattr(request, "full_url", request))
        raise OSError("no network in this test")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("torch.hub.urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    words = ["extract", "images", "--backbone", "squeezenet1_1", "--size", "32", "--out", str(tmp_path / "f.npz")]
    if images:
        assert main(words) == 2
        assert asked == ["https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth"]
        error = capsys.readouterr().err
        assert "cannot be downloaded" in error.splitlines()[-1]
    # a data set of torchvision is not fetched without --download
    asked.clear()
    assert main(["extract", "MNIST", "--root", str(tmp_path), *words[2:], "--weights", "none"]) == 2
    assert "add --download" in capsys.readouterr().err
    assert asked == []
