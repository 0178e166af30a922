"""Files that were made to run code, to fill the memory, or never to end: one line, and nothing runs."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import signal
import socket
import struct
import sys
import tarfile
import zipfile
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save as save_safetensors

from moevoprune import FeatureSet, Front, InputError
from moevoprune.cli.config import read_toml
from moevoprune.cli.main import main
from moevoprune.features.decoding import UnreadableImageError, open_image
from moevoprune.features.images import find_images
from moevoprune.features.weights import read_state
from moevoprune.filters.networks import load_weights

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="FIFOs and device files are those of Linux")

QUICK = ["--pop", "4", "--gens", "2", "--cv", "2", "--set", "epochs=1", "--set", "hidden=[4]", "--jobs", "1"]


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, made: Path) -> None:
        self._made = made

    def __reduce__(self):
        return os.mkdir, (str(self._made),)


@contextmanager
def limited(seconds: int = 60):
    """Fail where something would wait for ever."""

    def late(*_):
        raise AssertionError("does not end")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def error_of(capsys, *arguments):
    """The one line of a command that is given something of no use."""
    with limited():
        code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert code == 2, captured
    (line,) = captured.err.splitlines()
    assert line.startswith("moevoprune: error: ")
    return line


# --- code in files of weights and arrays ------------------------------------------------------------


def _zip_state(path, payload):
    torch.save({"a": torch.zeros(2), "b": payload}, path)


def _legacy_state(path, payload):
    torch.save({"a": torch.zeros(2), "b": payload}, path, _use_new_zipfile_serialization=False)


def _bare_pickle(path, payload):
    path.write_bytes(pickle.dumps({"a": payload}))


def _oldest_pickle(path, payload):
    path.write_bytes(pickle.dumps(payload, protocol=0))


def _tar(path, payload):
    content = pickle.dumps(payload)
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def _script(path, payload):
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(str(path))
    _plant(path, payload)


def _program(path, payload):
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),)), path)
    _plant(path, payload)


def _plant(path, payload):
    """Put the payload into every pickle of an archive."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, pickle.dumps(payload) if name.endswith((".pkl", ".pt")) else content)


WITH_CODE = {
    "zip.pt": _zip_state,
    "legacy.pth": _legacy_state,
    "pickle.pt": _bare_pickle,
    "protocol0.bin": _oldest_pickle,
    "old.tar": _tar,
    "script.pt": _script,
    "program.pt2": _program,
    "renamed.safetensors": _zip_state,
}


@pytest.mark.parametrize("name", WITH_CODE)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
def test_no_state_dict_runs_code(name, tmp_path, capsys, monkeypatch):
    path, made = tmp_path / name, tmp_path / "owned"
    WITH_CODE[name](path, Payload(made))
    for read in (read_state, lambda path: load_weights(torch.nn.Linear(2, 2), path)):
        with pytest.raises(InputError) as caught, limited():
            read(path)
        assert str(path) in str(caught.value)
    monkeypatch.setenv("MOEVOPRUNE_CACHE", str(tmp_path / "cache"))
    pictures(tmp_path / "images")
    line = error_of(
        *(capsys, "extract", tmp_path / "images", "--backbone", "squeezenet1_1", "--size", "32"),
        *("--weights", path, "--out", tmp_path / "f.npz"),
    )
    assert name in line
    assert not made.exists()


def test_the_payloads_would_run(tmp_path):
    """The check above would notice."""
    _bare_pickle(tmp_path / "p", Payload(tmp_path / "owned"))
    pickle.loads((tmp_path / "p").read_bytes())
    assert (tmp_path / "owned").is_dir()


@pytest.mark.parametrize("kind", ["object array", "bare pickle", "pickled names", "pickled npy"])
def test_no_archive_of_arrays_runs_code(kind, small_features, tmp_path, capsys):
    path, made = tmp_path / "f.npz", tmp_path / "owned"
    arrays = {name: getattr(small_features, name) for name in ("X_train", "y_train", "X_test", "y_test")}
    trap = np.array([Payload(made)] * 3, dtype=object)
    if kind == "object array":
        np.savez(path, **{**arrays, "X_train": trap})
    elif kind == "pickled names":
        np.savez(path, **arrays, class_names=trap)
    elif kind == "bare pickle":
        path.write_bytes(pickle.dumps(Payload(made)))
    else:
        np.savez(path, **arrays)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("X_ood.npy", pickle.dumps(Payload(made)))
    assert "f.npz" in error_of(capsys, "run", path, "--out", tmp_path / "run", *QUICK)
    assert not made.exists()
    assert not (tmp_path / "run").exists()


def test_code_of_users_runs_only_where_the_command_line_names_it(tmp_path, capsys, monkeypatch):
    """A folder of somebody else's names a Python file in its settings: resuming does not run it."""
    monkeypatch.chdir(tmp_path)
    made, code, out = tmp_path / "owned", tmp_path / "net.py", tmp_path / "out"
    pixels = np.random.default_rng(5).integers(0, 255, (60, 6, 6), dtype=np.uint8)
    np.savez(
        "bars.npz", X_train=pixels[:40], y_train=np.arange(40) % 2, X_test=pixels[40:], y_test=np.arange(20) % 2
    )
    quick = [
        "--budget",
        "6",
        "--pop",
        "6",
        "--search-images",
        "20",
        "--epochs",
        "0",
        "--jobs",
        "1",
        "--no-baselines",
    ]
    assert main(["filters", "bars.npz", "--network", "cnn", "--out", str(out), "--quiet", *quick]) == 0
    code.write_text(f"import os\nos.mkdir({str(made)!r})\n")
    settings = out / "settings.json"
    for path in (f"{code}:net", "net.py:net"):
        stored = json.loads(settings.read_text())
        stored["settings"]["networks"] = [path]
        settings.write_text(json.dumps(stored))
        assert f"--network {path}" in error_of(capsys, "filters", "--out", out, "--resume")
        assert not made.exists()
        # another one than that which the user names is refused, too
        error_of(capsys, "filters", "--out", out, "--resume", "--network", "cnn")
        assert not made.exists()
    error_of(capsys, "filters", "bars.npz", "--network", f"{code}:net", "--out", tmp_path / "new")
    assert made.is_dir()


# --- what never ends ------------------------------------------------------------


@pytest.fixture(scope="module")
def run(small_features, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    small_features.save(folder / "f.npz")
    assert main(["run", str(folder / "f.npz"), "--out", str(folder / "run"), "--quiet", *QUICK]) == 0
    robust = ["--noise", "1", "--repeats", "1", "--quiet"]
    assert main(["robustness", str(folder / "run"), *robust]) == 0
    return folder / "run"


RUN_FILES = (
    *("config.toml", "run.json", "front.npz", "heads.safetensors", "predictions.npz", "evaluations.journal"),
    *("ensembles.json", "robustness.csv", "member_maps.npz", "figures/front3d.png"),
)
COMMANDS = {
    "show": ["show", "R"],
    "plot": ["plot", "R"],
    "report": ["report", "R", "--out", "O/r.html"],
    "explain": ["explain", "R", "--out", "O/e"],
    "ensemble": ["ensemble", "R", "--out", "O/n"],
    "robustness": ["robustness", "R", "--noise", "1", "--repeats", "1", "--out", "O/b"],
    "export": ["export", "R", "--to", "O/h.safetensors"],
    "compare-runs": ["compare-runs", "R", "R2", "--out", "O/c"],
    "run": ["run", "--out", "R", "--resume", "--no-baselines"],
}


@pytest.mark.parametrize("name", RUN_FILES)
@pytest.mark.parametrize("kind", ["FIFO", pytest.param("device", marks=pytest.mark.slow), "folder"])
def test_a_run_folder_with_a_file_without_end(kind, name, run, tmp_path, capsys):
    """Refused or left out, at once: a FIFO would be waited for, ``/dev/zero`` read for ever."""
    quick = ("show", "report") if kind == "FIFO" else ("report",)
    for command in COMMANDS if kind == "device" else quick:
        folder = tmp_path / command
        shutil.copytree(run, folder / "R")
        shutil.copytree(run, folder / "R2")
        (folder / "O").mkdir()
        place = folder / "R" / name
        place.unlink(missing_ok=True)
        {"FIFO": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "folder": Path.mkdir}[kind](place)
        words = [str(folder / word) if word[:1] in "RO" else word for word in COMMANDS[command]]
        with limited():
            code = main(words)
        captured = capsys.readouterr()
        assert code in (0, 2), captured
        assert captured.err.count("\n") == (code == 2), captured.err
        assert "Traceback" not in captured.err


@pytest.mark.parametrize("kind", ["FIFO", "/dev/zero", "/dev/stdin", "socket", "loop", "folder"])
@pytest.mark.parametrize(
    "words",
    [
        ["run", "P", "--out", "out"],
        ["filters", "P", "--network", "cnn", "--out", "out"],
        ["filters", "F", "--network", "cnn", "--weights", "P", "--out", "out"],
        ["construct", "P", "--out", "out"],
        ["extract", "I", "--weights", "P", "--out", "out"],
    ],
)
@pytest.mark.parametrize("suffix", [".npz", ".toml", ".csv", ".pt", ".safetensors"])
def test_an_argument_that_is_no_regular_file(kind, words, suffix, small_features, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOEVOPRUNE_CACHE", str(tmp_path / "cache"))
    place = tmp_path / f"x{suffix}"
    if kind == "FIFO":
        os.mkfifo(place)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"x{suffix}")
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to(place.name if kind == "loop" else kind)
    pixels = np.zeros((8, 6, 6), np.uint8)
    np.savez("pixels", X_train=pixels, y_train=np.arange(8) % 2, X_test=pixels, y_test=np.arange(8) % 2)
    pictures(tmp_path / "images")
    given = {"P": str(place), "F": "pixels.npz", "I": "images"}
    error_of(capsys, *(given.get(word, word) for word in words))
    assert not (tmp_path / "out").exists()


# --- absurd sizes ------------------------------------------------------------


ABSURD_TOML = {
    "large": b"# " + b"x" * 2**20,
    "nested": b"a = " + b"[" * 100_000 + b"]" * 100_000,
    "nested tables": b"a = " + b"{a=" * 20_000 + b"1" + b"}" * 20_000,
    "long key": b"a" + b".a" * 20_000 + b" = 1",
    "long header": b"[a" + b".a" * 20_000 + b"]",
    "long quoted key": b'"a"' + b'."a"' * 20_000 + b" = 1",
    "long number": b"seed = " + b"9" * 500_000,
    "large float": b"seed = 1e" + b"9" * 1000,
    "date": b"seed = 9999-99-99T99:99:99Z",
    "keys": b"\n".join(b"k%d = 1" % number for number in range(60_000)),
    "null": b'[data]\nfeatures = "a\\u0000b"',
    "FIFO path": b'[data]\nfeatures = "pipe.npz"',
    "device path": b'[data]\nfeatures = "/dev/zero"',
    "device images": b'[data]\nimages = "/dev/zero"',
    "device weights": b'[data]\nimages = "."\n[backbone]\nname = "resnet18"\nweights = "/dev/zero"',
    "not UTF-8": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("what", ABSURD_TOML)
def test_absurd_settings(what, tmp_path, capsys):
    path = tmp_path / "problem.toml"
    path.write_bytes(ABSURD_TOML[what])
    os.mkfifo(tmp_path / "pipe.npz")
    # reading the long keys took 16 s each, and by the square of their length more
    with limited(20):
        assert len(error_of(capsys, "run", path, "--out", tmp_path / "out")) < 600
    assert not (tmp_path / "out").exists()


def test_a_hundred_megabytes_of_settings_are_not_read(tmp_path):
    path = tmp_path / "problem.toml"
    with path.open("wb") as file:
        file.truncate(100 * 2**20)
    with pytest.raises(InputError, match="larger than 1 MiB"):
        read_toml(path)


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2**40) + b"{}",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 60_000) + b"[" * 60_000,
        b"{" * 8,
        b"",
        *(
            struct.pack("<Q", len(header)) + header
            for header in (
                b'{"a":{"dtype":"F32","shape":[99999999999,99999999999],"data_offsets":[0,4]}}',
                b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,9223372036854775807]}}',
                b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}' + b" " * 9,
                b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}',
                b'{"__metadata__":{"a":1}}',
            )
        ),
    ],
)
def test_absurd_headers_of_safetensors(content, run, tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content + bytes(8))
    for read in (read_state, lambda path: load_weights(torch.nn.Linear(2, 2), path)):
        with pytest.raises(InputError), limited():
            read(path)
    shutil.copytree(run, tmp_path / "R")
    shutil.copy(path, tmp_path / "R" / "heads.safetensors")
    with pytest.raises(InputError), limited():
        Front.load(tmp_path / "R")


def test_heads_of_somebody_else(run, tmp_path):
    shutil.copytree(run, tmp_path / "R")
    (tmp_path / "R" / "heads.safetensors").write_bytes(save_safetensors({"x": np.zeros(3, np.float32)}))
    with pytest.raises(InputError):
        Front.load(tmp_path / "R")


# --- pictures ------------------------------------------------------------


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, *more, data=b""):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = data or zlib.compress(bytes((3 * width + 1) * height) if width * height < 1e6 else bytes(2**20))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", header), *more, chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    )


def gif(frames):
    file = io.BytesIO()
    some = [Image.new("L", (8, 8), shade % 256) for shade in range(frames)]
    some[0].save(file, "GIF", save_all=True, append_images=some[1:])
    return file.getvalue()


def tiff(tag, kind, count, value):
    entries = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 64)]
    entries = sorted([*(entry for entry in entries if entry[0] != tag), (tag, kind, count, value)])
    return (
        b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries))
        + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(200)
    )  # fmt: skip


BOMB = zlib.compress(bytes(200 * 2**20), 9)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(owned) (w) file\nshowpage\n"
BAD_PICTURES = {
    "100,000 x 100,000": png(100_000, 100_000),
    "2**31 x 1": png(2**31 - 1, 1),
    "pixels missing": png(10_000, 10_000),
    "EPS": EPS,
    "EPS with preview": b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, len(EPS)) + bytes(20) + EPS,
    "PDF": b"%PDF-1.7\n1 0 obj<</OpenAction<</S/JavaScript/JS(app.alert(1))>>>>endobj\n",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "WMF": struct.pack("<IHhhhhHIH", 0x9AC6CDD7, 0, 0, 0, 9, 9, 96, 0, 0) + b"\x01\0\x09\0\0\3" + bytes(99),
    "PSD": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 8, 8, 8, 3) + bytes(99),
    "FITS": b"SIMPLE  =                    T" + b" " * 2850,
    "GRIB": b"GRIB\0\0\0\1" + bytes(99),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(99),
    "MPEG": b"\x00\x00\x01\xb3" + bytes(99),
    "no bytes": b"",
    "cut short": png(64, 64)[:60],
    "iCCP of 200 MB": png(8, 8, chunk(b"iCCP", b"icc\0\0" + BOMB)),
    "giant width in TIFF": tiff(256, 4, 1, 2**31),
    "ZIP": b"PK\3\4" + bytes(99),
    "JPEG 2000 header": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(99),
    "ICO of a bomb": struct.pack("<HHHBBBBHHII", 0, 1, 1, 8, 8, 0, 0, 1, 32, 200, 22) + png(60_000, 60_000),
}
GOOD_PICTURES = {
    "GIF of 3,000 frames": gif(3000),
    "zTXt of 200 MB, whose picture is fine": png(8, 8, chunk(b"tEXt", b"a\0b")),
    "giant strip in TIFF": tiff(279, 4, 2**31, 8),
    "giant tag in TIFF": tiff(700, 7, 2**31 - 1, 8),
}


@pytest.mark.parametrize("what", BAD_PICTURES)
def test_hostile_pictures_are_refused(what, tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program was started"))
    path = tmp_path / "x.jpg"
    path.write_bytes(BAD_PICTURES[what])
    with limited(30), pytest.raises(UnreadableImageError) as caught, memory_of_at_most(2**29):
        open_image(path)
    assert "\n" not in caught.value.reason


@pytest.mark.parametrize("what", GOOD_PICTURES)
def test_pictures_with_ballast_are_read(what, tmp_path):
    path = tmp_path / "x.jpg"
    path.write_bytes(GOOD_PICTURES[what])
    with limited(30), memory_of_at_most(2**28):
        assert open_image(path).size == (8, 8)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_text_bombs_do_not_fill_the_memory(kind, tmp_path):
    path = tmp_path / "x.png"
    packed = b"a\0\0" + BOMB if kind == b"zTXt" else b"a\0\1\0\0\0" + BOMB
    path.write_bytes(png(8, 8, *[chunk(kind, packed)] * 20))
    with limited(30), memory_of_at_most(2**28), suppress(UnreadableImageError):
        open_image(path)


@contextmanager
def memory_of_at_most(more: int):
    """Fail where the address space grows by more than so many bytes."""
    resource = pytest.importorskip("resource")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# --- folders of pictures ------------------------------------------------------------


def pictures(folder, per_class=4):
    for label, name in enumerate(("red", "green")):
        for number in range(per_class):
            (folder / name).mkdir(parents=True, exist_ok=True)
            shades = np.random.default_rng(9 * label + number).integers(0, 255, (34, 34, 3), dtype=np.uint8)
            Image.fromarray(shades).save(folder / name / f"{number}.png")
    return folder


def test_a_folder_full_of_traps(tmp_path, capsys, monkeypatch):
    """Every file is listed with its reason in a line of its own; the others are read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOEVOPRUNE_CACHE", str(tmp_path / "cache"))
    images, outside = pictures(tmp_path / "images", 6), pictures(tmp_path / "outside", 1)
    red = images / "red"
    os.mkfifo(red / "pipe.jpg")
    (red / "folder.jpg").mkdir()
    (red / "loop.jpg").symlink_to("loop.jpg")
    (red / "gone.jpg").symlink_to("nowhere")
    (red / "zero.jpg").symlink_to("/dev/zero")
    (red / "up").symlink_to("..")
    (red / "a\nskipped 0 files\x1b[2J.jpg").write_bytes(b"")
    (red / "\u202egpj.exe").write_bytes(b"MZ")
    for what, content in BAD_PICTURES.items():
        (red / f"{what.replace('/', '')}.jpg").write_bytes(content)
    (images / "blue").symlink_to(outside / "green")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("images/red/socket.jpg")
    backbone = ["--backbone", "squeezenet1_1", "--weights", "none", "--size", "32"]
    error_of(capsys, "extract", "images", *backbone, "--out", "f.npz")
    with limited(120):
        assert (
            main(["extract", "images", *backbone, "--skip-bad", "--out", "f.npz", "--test-fraction", "0.3"]) == 0
        )
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "\u202e" not in said
    record = json.loads(FeatureSet.load(tmp_path / "f.npz").extraction)
    assert len(record["skipped"]) == record["n_skipped"] >= len(BAD_PICTURES) + 6
    assert all(line.isprintable() for line in record["skipped"])
    assert f"skipped {record['n_skipped']} files" in said
    # links are followed where they lead, also out of the folder: they are the user's own
    assert FeatureSet.load(tmp_path / "f.npz").class_names == ("blue", "green", "red")


def test_links_that_make_a_folder_endless(tmp_path):
    images = pictures(tmp_path / "images")
    deep = images / "red"
    for number in range(30):
        (deep / f"again{number}").symlink_to(images)
        (deep / f"other{number}").symlink_to(images / "green")
    with limited(30):
        assert len(find_images(images)) <= 3 * 8
