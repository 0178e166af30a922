"""Finding images in folders and torchvision data sets, naming what is wrong with them, and splitting them."""

from __future__ import annotations

import csv
import hashlib
import os
import pickle
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import torchvision.datasets
from hypothesis import given, settings
from hypothesis import strategies as st

from moevoprune import InputError
from moevoprune.features import data_sets
from moevoprune.features.decoding import UnreadableImageError
from moevoprune.features.image_folders import FolderImages
from moevoprune.features.image_set import PARTS, ImageSet
from moevoprune.features.images import find_images


def picture(path: Path, colour: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (3, 2), (colour % 256, colour // 256, 7)).save(path)
    return path


def folder(place: Path, *files: str) -> Path:
    """Write a different image to each path."""
    for number, file in enumerate(files):
        picture(place / file, number)
    return place


def by_part(found: ImageSet) -> dict[str, list[str]]:
    parts = {part: [found.keys[index] for index in found.rows(part)] for part in PARTS}
    return {part: keys for part, keys in parts.items() if keys}


def said(source: str | Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        find_images(source, **options)
    assert str(caught.value).isprintable()
    return str(caught.value)


def digests(found: ImageSet) -> list[bytes]:
    return [found.digest(index) for index in range(len(found))]


# --- layouts ---------------------------------------------------------------------------------------


def test_class_folders(tmp_path: Path) -> None:
    found = find_images(folder(tmp_path / "pets", "b/2.png", "b/10.png", "a/x.png", "B/y.png", "a/deep/er/w.png"))
    assert found.name == "pets"
    assert found.class_names == ("B", "a", "b")
    assert found.keys == ("B/y.png", "a/deep/er/w.png", "a/x.png", "b/10.png", "b/2.png")
    assert found.labels.tolist() == [0, 1, 1, 2, 2]
    assert found.labels.dtype == np.int64
    assert found.parts is None
    assert (found.skipped, found.notes) == ((), ())
    assert found.open(0).getpixel((0, 0)) == (3, 0, 7)
    assert found.digest(2) == hashlib.sha256((tmp_path / "pets/a/x.png").read_bytes()).digest()
    assert found.where(2) == str(tmp_path / "pets/a/x.png")
    with pytest.raises(ValueError, match="not split"):
        found.rows("train")


def test_classes_and_files_are_those_of_image_folder(tmp_path: Path) -> None:
    folder(tmp_path, "Zoo/1.png", "a b/2.png", "a b/sub/3.png", "ü/4.png", "0/5.png", "0/z/6.png", "0/a.png")
    theirs = torchvision.datasets.ImageFolder(tmp_path)
    ours = find_images(tmp_path)
    assert list(ours.class_names) == theirs.classes
    expected = {(os.path.relpath(path, tmp_path), label) for path, label in theirs.samples}
    assert set(zip(ours.keys, ours.labels.tolist(), strict=True)) == expected


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_parts(tmp_path: Path, val: str) -> None:
    folder(tmp_path, "Train/b/1.png", "Train/a/2.png", "test/b/3.png", "test/a/4.png", f"{val}/b/5.png")
    found = find_images(tmp_path)
    assert by_part(found) == {
        "train": ["Train/a/2.png", "Train/b/1.png"],
        "val": [f"{val}/b/5.png"],
        "test": ["test/a/4.png", "test/b/3.png"],
    }
    assert found.labels.tolist() == [0, 1, 1, 0, 1]
    assert found.parts is not None
    assert (found.parts.dtype, found.parts.tolist()) == (np.int8, [0, 0, 1, 2, 2])
    assert found.class_names == ("a", "b")


def test_images_without_classes(tmp_path: Path) -> None:
    found = find_images(folder(tmp_path, "b.png", "a.jpg"))
    assert found.keys == ("a.jpg", "b.png")
    assert found.labels.tolist() == [-1, -1]
    assert found.class_names == ()


def test_train_and_test_can_be_classes(tmp_path: Path) -> None:
    assert find_images(folder(tmp_path / "x", "train/1.png", "bus/2.png", "car/3.png")).class_names == (
        "bus",
        "car",
        "train",
    )
    assert find_images(folder(tmp_path / "y", "test/1.png", "control/2.png")).class_names == ("control", "test")


def test_relative_folder_survives_a_change_of_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "here", "a/1.png")
    monkeypatch.chdir(tmp_path / "here")
    found = find_images(".")
    monkeypatch.chdir(tmp_path)
    assert found.name == "here"
    assert found.open(0).size == (3, 2)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("train/a/1.png", "val/a/2.png"), ["has train and val but no test", "rename val to test", "merge"]),
        (("train/a/1.png",), ["has train but no test", "{}/train"]),
        (("test/a/1.png",), ["has test but no train"]),
        (("val/a/1.png", "test/a/1.png"), ["has val and test but no train"]),
        (
            ("train/a/1.png", "test/a/1.png", "test/aa/2.png"),
            ["{}/test/aa", "train holds no images of class 'aa'"],
        ),
        (("train/a/1.png", "test/a/1.png", "extra/2.png"), ["{}/extra", "lies beside the parts"]),
        (("train/a/1.png", "test/a/1.png", "val/a/1.png", "valid/a/1.png"), ["val and valid both mean"]),
        (("train/a/1.png", "train/b.png", "test/a/1.png"), ["{}/train/b.png: lies outside the class folders"]),
        (("train/a/1.png", "test/a/1.png", "c.png"), ["{}/c.png: lies outside the class folders"]),
        (
            ("a/1.png", "b/2.png", "c.png", "d.txt.png"),
            ["{}/c.png: lies outside", "and 1 more file)", "--skip-bad"],
        ),
    ],
)
def test_layouts_that_stop(tmp_path: Path, files: Sequence[str], words: Sequence[str]) -> None:
    message = said(folder(tmp_path, *files))
    for word in words:
        assert word.format(tmp_path) in message


def test_empty_class_folder(tmp_path: Path) -> None:
    folder(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "c" / "inner").mkdir(parents=True)
    (tmp_path / "c" / ".DS_Store").write_bytes(b"x")
    message = said(tmp_path)
    assert message.startswith(f"{tmp_path}/c: class folder 'c' holds no images: remove it, or add --skip-bad")
    found = find_images(tmp_path, skip_bad=True)
    assert found.class_names == ("a", "b")
    assert found.skipped == ("c: class folder 'c' holds no images",)
    assert found.notes == ("left out 1 system file, e.g. c/.DS_Store",)


def test_class_only_in_test_is_skipped_on_request(tmp_path: Path) -> None:
    folder(tmp_path, "train/a/1.png", "train/c/1.png", "test/a/2.png", "test/b/3.png", "test/c/9.png")
    (tmp_path / "train" / "b").mkdir()
    found = find_images(tmp_path, skip_bad=True)
    assert found.class_names == ("a", "c")
    assert by_part(found)["test"] == ["test/a/2.png", "test/c/9.png"]
    assert len(found.skipped) == 2


def test_nothing_to_find(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no images" in said(tmp_path / "empty")
    (tmp_path / "empty" / ".hidden").write_bytes(b"")
    assert "holds no images" in said(tmp_path / "empty")
    (tmp_path / "empty" / "a").mkdir()
    assert "holds no images" in said(tmp_path / "empty", skip_bad=True)
    picture(tmp_path / "file.png")
    assert "is a file" in said(tmp_path / "file.png")
    assert "no such folder, and no torchvision data set" in said(tmp_path / "absent")
    assert "source of the images is empty" in said("")
    assert "no such folder" in said("a\x1b[31m\nb/c")
    folder(tmp_path / "good", "a/1.png")
    for options in ({"root": "x"}, {"download": True}):
        assert "leave them out" in said(tmp_path / "good", **options)


def test_every_suffix_counts_and_nothing_is_opened(tmp_path: Path) -> None:
    folder(tmp_path, "a/1.png")
    (tmp_path / "a" / "notes.txt").write_text("no image")
    found = find_images(tmp_path)
    assert found.keys == ("a/1.png", "a/notes.txt")
    with pytest.raises(UnreadableImageError, match="is text"):
        found.open(1)


def test_system_files_give_one_note(tmp_path: Path) -> None:
    folder(tmp_path, "a/1.png", "b/2.png")
    for file in ("a/.DS_Store", "a/Thumbs.db", "b/desktop.ini", "b/._2.png", ".DS_Store"):
        (tmp_path / file).write_bytes(b"?")
    folder(tmp_path, "a/.ipynb_checkpoints/1.png", ".git/x.png", "__MACOSX/a/1.png")
    found = find_images(tmp_path)
    assert found.keys == ("a/1.png", "b/2.png")
    assert found.class_names == ("a", "b")
    assert found.notes == ("left out 8 system files, e.g. .DS_Store",)


@pytest.mark.parametrize("kind", ["fifo", "socket", "broken", "itself", "to_fifo"])
@pytest.mark.parametrize("where", ["a/odd", "a/deep/odd", "odd"])
def test_special_files_stop_or_are_skipped(
    tmp_path: Path, kind: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder(tmp_path / "set", "a/1.png", "a/deep/2.png", "b/3.png")
    odd = tmp_path / "set" / where
    monkeypatch.chdir(odd.parent)
    if kind == "fifo":
        os.mkfifo(odd)
    elif kind == "socket":
        server = socket.socket(socket.AF_UNIX)
        server.bind("odd")
        server.close()
    elif kind == "to_fifo":
        os.mkfifo(tmp_path / "pipe")
        odd.symlink_to(tmp_path / "pipe")
    else:
        odd.symlink_to("absent" if kind == "broken" else "odd")
    what = (
        "is a broken link" if kind in ("broken", "itself") else "is not a regular file (a FIFO, socket or device)"
    )
    assert said(tmp_path / "set").startswith(f"{odd}: {what}: remove it")
    found = find_images(tmp_path / "set", skip_bad=True)
    assert found.skipped == (f"{where}: {what}",)
    assert len(found) == 3


def test_links_are_followed_but_not_for_ever(tmp_path: Path) -> None:
    folder(tmp_path / "set", "a/1.png", "a/in/2.png", "b/3.png")
    folder(tmp_path / "away", "c/4.png", "5.png")
    (tmp_path / "set/c").symlink_to(tmp_path / "away/c")
    (tmp_path / "set/b/5.png").symlink_to(tmp_path / "away/5.png")
    (tmp_path / "set/a/in/up").symlink_to("..")
    (tmp_path / "set/a/in/top").symlink_to(tmp_path / "set")
    (tmp_path / "set/b/twice").symlink_to(tmp_path / "set/b")
    found = find_images(tmp_path / "set")
    assert found.keys == ("a/1.png", "a/in/2.png", "b/3.png", "b/5.png", "c/4.png")
    assert found.notes == ("left out 3 links to folders that are read already, e.g. a/in/top",)
    assert found.open(4).size == (3, 2)


@pytest.mark.skipif(sys.platform != "linux", reason="needs names that are no text")
def test_odd_names_are_printable_in_messages(tmp_path: Path) -> None:
    place = os.fsencode(tmp_path) + b"/a/bad\xff\x1b[31m\n.png"
    picture(tmp_path / "a" / "x.png").rename(os.fsdecode(place))
    picture(tmp_path / "b" / "x.png")
    found = find_images(tmp_path)
    assert found.open(0).size == (3, 2)
    assert len(found.digest(0)) == 32
    assert found.where(0).isprintable()
    os.remove(place)
    os.mkfifo(place)
    assert "bad??[31m?.png: is not a regular file" in said(tmp_path)
    assert find_images(tmp_path / "..", skip_bad=True).skipped[-1].isprintable()


def test_unreadable_folder(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    folder(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "b").chmod(0)
    try:
        assert f"{tmp_path}/b: cannot be read (Permission denied)" in said(tmp_path)
    finally:
        (tmp_path / "b").chmod(0o755)


def test_vanished_files(tmp_path: Path) -> None:
    found = find_images(folder(tmp_path, "a/1.png"))
    (tmp_path / "a/1.png").unlink()
    for read in (found.open, found.digest):
        with pytest.raises(UnreadableImageError, match="No such file"):
            read(0)
    os.mkfifo(tmp_path / "a/1.png")
    for read in (found.open, found.digest):
        with pytest.raises(UnreadableImageError, match="not a regular file"):
            read(0)


def test_pickling_and_memory(tmp_path: Path) -> None:
    found = find_images(folder(tmp_path, "train/a/1.png", "test/a/2.png"))
    again = pickle.loads(pickle.dumps(found))
    assert again.keys == found.keys
    assert again.open(1).tobytes() == found.open(1).tobytes()
    assert len(repr(found)) < 100
    with pytest.raises(ValueError, match="read-only"):
        found.labels[0] = 1


def test_citrus_leaves(shared_data: Path) -> None:
    found = find_images(shared_data / "images" / "leaves_citrus")
    assert found.class_names == ("black_spot", "canker", "greening", "healthy")
    assert np.bincount(found.labels[found.rows("train")]).tolist() == [128, 122, 153, 44]
    assert np.bincount(found.labels[found.rows("test")]).tolist() == [43, 41, 51, 14]
    assert found.open(0).size == (256, 256)
    assert len(digests(found)) == 596


# --- splitting -------------------------------------------------------------------------------------


def loose_set(labels: Sequence[int], n_classes: int) -> ImageSet:
    order = sorted(labels)
    keys = tuple(f"{label}/{index:04d}" for index, label in enumerate(order))
    source = FolderImages("/nowhere")
    names = tuple(map(str, range(n_classes)))
    return ImageSet("set", keys, np.array(order, dtype=np.int64), names, None, source)


def different(found: ImageSet) -> list[bytes]:
    return [key.encode() for key in found.keys]


def test_split_is_stratified() -> None:
    found = loose_set([0] * 171 + [1] * 163 + [2] * 204 + [3] * 58, 4)
    halves = found.split(0.25, 0, different(found))
    assert np.bincount(halves.labels[halves.rows("test")]).tolist() == [43, 41, 51, 14]
    assert np.bincount(halves.labels[halves.rows("train")]).tolist() == [128, 122, 153, 44]
    assert halves.keys == found.keys
    for part in ("train", "test"):
        rows = halves.rows(part)
        assert (np.diff(rows) > 0).all()
    assert len(halves.rows("val")) == 0
    assert halves.notes == ()


def test_split_follows_the_seed_and_not_the_place(tmp_path: Path) -> None:
    files = [f"{name}/{index}.png" for name in "ab" for index in range(10)]
    folder(tmp_path / "one", *files)
    shutil.copytree(tmp_path / "one", tmp_path / "elsewhere" / "two")
    first, second = find_images(tmp_path / "one"), find_images(tmp_path / "elsewhere" / "two")
    splits = [found.split(0.3, 5, digests(found)) for found in (first, second)]
    assert by_part(splits[0]) == by_part(splits[1])
    others = [by_part(first.split(0.3, seed, digests(first)))["test"] for seed in range(6)]
    assert len({tuple(test) for test in others}) > 1


def test_split_is_fair() -> None:
    found = loose_set([0] * 12, 1)
    # the first three images equal one another
    contents = [b"twin"] * 3 + different(found)[3:]
    times = Counter(key for seed in range(600) for key in by_part(found.split(0.25, seed, contents))["test"])
    shares = np.array([times[key] / 600 for key in found.keys])
    assert np.abs(shares - 0.25).max() < 0.08
    assert times[found.keys[0]] == times[found.keys[1]] == times[found.keys[2]]


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_split_properties(data: st.DataObject) -> None:
    n_classes = data.draw(st.integers(1, 4))
    sizes = data.draw(st.lists(st.integers(1, 12), min_size=n_classes, max_size=n_classes))
    found = loose_set([label for label, size in enumerate(sizes) for _ in range(size)], n_classes)
    across = data.draw(st.booleans())
    kinds = data.draw(st.lists(st.integers(0, 9), min_size=len(found), max_size=len(found)))
    contents = [
        f"{kind} {0 if across else label}".encode()
        for kind, label in zip(kinds, found.labels.tolist(), strict=True)
    ]
    fraction = data.draw(st.floats(0.01, 0.99))
    seed = data.draw(st.integers(0, 9))
    try:
        split = found.split(fraction, seed, contents)
    except InputError:
        # a test part needs a class of which something can be left for training
        assert (
            all(len({contents[i] for i in np.flatnonzero(found.labels == c)}) == 1 for c in range(n_classes))
            or across
        )
        return
    assert split.twins(contents) == []
    again = found.split(fraction, seed, contents)
    assert by_part(split) == by_part(again)
    test = np.zeros(len(found), dtype=bool)
    test[split.rows("test")] = True
    for label in range(n_classes):
        rows = np.flatnonzero(found.labels == label)
        assert (~test[rows]).any()
        kinds_here = Counter(contents[row] for row in rows)
        if not across:
            assert test[rows].any() == (len(kinds_here) > 1)
        if not across and max(kinds_here.values()) == 1 and len(rows) > 1:
            assert test[rows].sum() == min(max(round(fraction * len(rows)), 1), len(rows) - 1)


def test_twins_stay_together_across_classes() -> None:
    found = loose_set([0] * 20 + [1] * 20, 2)
    contents = different(found)
    contents[3] = contents[25] = b"same"
    for seed in range(20):
        split = found.split(0.5, seed, contents)
        assert split.parts is not None
        assert split.parts[3] == split.parts[25]
        assert np.bincount(split.labels[split.rows("test")]).tolist() == [10, 10]


def test_classes_that_cannot_be_tested_are_noted() -> None:
    found = loose_set([0] * 5 + [1] + [2] * 3, 3)
    contents = [*different(found)[:6], b"x", b"x", b"x"]
    split = found.split(0.2, 0, contents)
    assert split.notes == (
        "no test images of class '1': one image only, kept for training",
        "no test images of class '2': too many images that equal one another, kept for training",
    )
    assert np.bincount(split.labels[split.rows("test")], minlength=3).tolist() == [1, 0, 0]
    many = loose_set([0] * 4 + [1, 2, 3, 4, 5], 6)
    assert many.split(0.2, 0, different(many)).notes == (
        "no test images of classes '1', '2', '3' and 2 more: one image only, kept for training",
    )


def test_split_without_classes(tmp_path: Path) -> None:
    found = find_images(folder(tmp_path, *(f"{index}.png" for index in range(8))))
    split = found.split(0.25, 1, digests(found))
    assert [len(split.rows(part)) for part in PARTS] == [6, 0, 2]


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan"), "half", None])
def test_bad_fractions(fraction: Any) -> None:
    found = loose_set([0, 0, 1, 1], 2)
    with pytest.raises(InputError, match=r"test fraction is .*; use a number between 0 and 1"):
        found.split(fraction, 0, different(found))


def test_bad_splits(tmp_path: Path) -> None:
    found = loose_set([0, 0, 1, 1], 2)
    with pytest.raises(InputError, match="seed = -1"):
        found.split(0.5, -1, different(found))
    with pytest.raises(ValueError, match="3 digests for 4 images"):
        found.split(0.5, 0, different(found)[:3])
    with pytest.raises(InputError, match="no class has two different images"):
        found.split(0.5, 0, [b"", b"", b"1", b"1"])
    with pytest.raises(InputError, match="has a test part already"):
        found.split(0.5, 0, different(found)).split(0.5, 0, different(found))


def test_twins_across_given_parts(tmp_path: Path) -> None:
    folder(
        tmp_path, "train/a/1.png", "train/a/2.png", "train/b/3.png", "val/a/4.png", "test/a/5.png", "test/b/6.png"
    )
    shutil.copy(tmp_path / "train/a/2.png", tmp_path / "test/b/copy.png")
    shutil.copy(tmp_path / "train/a/2.png", tmp_path / "train/b/copy.png")
    shutil.copy(tmp_path / "val/a/4.png", tmp_path / "test/a/0.png")
    shutil.copy(tmp_path / "test/b/6.png", tmp_path / "test/b/7.png")
    found = find_images(tmp_path)
    assert found.twins(digests(found)) == [
        ("val/a/4.png", "test/a/0.png"),
        ("train/a/2.png", "test/b/copy.png"),
    ]
    assert loose_set([0, 0], 1).twins([b"", b""]) == []


def test_select_and_without(tmp_path: Path) -> None:
    folder(
        tmp_path,
        "train/a/1.png",
        "train/a/2.png",
        "train/b/3.png",
        "train/c/4.png",
        "test/a/5.png",
        "test/b/6.png",
    )
    found = find_images(tmp_path)
    chosen = found.select([4, 0, 3])
    assert chosen.keys == ("train/a/1.png", "train/c/4.png", "test/a/5.png")
    assert chosen.labels.tolist() == [0, 2, 0]
    assert chosen.class_names == found.class_names

    less = found.without({0: "is\x1b empty", 2: "is text"})
    assert less.keys == ("train/a/2.png", "train/c/4.png", "test/a/5.png")
    assert (less.class_names, less.labels.tolist()) == (("a", "c"), [0, 1, 0])
    assert less.skipped == (
        "train/a/1.png: is? empty",
        "train/b/3.png: is text",
        "class 'b': no training image is left; with it go 1 image of other parts",
    )
    assert [less.open(index).getpixel((0, 0)) for index in range(3)] == [(n, 0, 7) for n in (1, 3, 4)]
    with pytest.raises(InputError, match="none of the images of the test part can be used"):
        found.without({4: "x", 5: "x"})
    with pytest.raises(InputError, match="none of the images can be used"):
        loose_set([0], 1).without({0: "x"})
    assert found.without({}).keys == found.keys


# --- torchvision's data sets -----------------------------------------------------------------------


def write_idx(path: Path, array: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """MNIST in its own format: 30 training and 20 test images, whose first pixel is their number."""
    for name, n_items in (("train", 30), ("t10k", 20)):
        pixels = np.zeros((n_items, 28, 28))
        pixels[:, 0, 0] = np.arange(n_items)
        write_idx(tmp_path / "MNIST/raw" / f"{name}-images-idx3-ubyte", pixels)
        write_idx(tmp_path / "MNIST/raw" / f"{name}-labels-idx1-ubyte", np.arange(n_items) * 7 % 10)
    return tmp_path


def test_train_flag(mnist: Path) -> None:
    found = find_images("mnist", root=mnist)
    assert found.name == "MNIST"
    assert found.class_names[:2] == ("0 - zero", "1 - one")
    assert [len(found.rows(part)) for part in PARTS] == [30, 0, 20]
    train = found.rows("train")
    assert [found.keys[row] for row in train[:6]] == [f"train/{i}" for i in (0, 10, 20, 3, 13, 23)]
    for row in (0, 7, 29, 30, 49):
        number = int(found.keys[row].split("/")[1])
        assert found.labels[row] == number * 7 % 10
        assert found.open(row).getpixel((0, 0)) == (number,) * 3
    assert found.where(30) == f"MNIST {found.keys[30]}"
    again = pickle.loads(pickle.dumps(found))
    assert again.digest(4) == found.digest(4)
    # the pixel numbers of the parts overlap
    assert len(found.twins(digests(found))) == 20


def test_digest_of_an_item_is_its_pixels(mnist: Path) -> None:
    found = find_images("MNIST", root=mnist)
    rgb = found.open(0)
    assert found.digest(0) == hashlib.sha256(b"L 28 28 " + rgb.tobytes()).digest()
    assert len(set(digests(found))) == 30


def test_data_set_comes_first_where_root_is_given(mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mnist)
    assert len(find_images("MNIST", root=".")) == 50
    # without it, the folder: MNIST/raw/* looks like one class
    assert find_images("MNIST").class_names == ("raw",)


def test_absent_or_damaged_data_set(tmp_path: Path, mnist: Path) -> None:
    assert said("CIFAR10") == "torchvision's CIFAR10 needs --root, the folder where it lies or is downloaded to"
    message = said("cifar10", root=tmp_path)
    assert message == (
        f"torchvision's CIFAR10 cannot be read from {tmp_path} (Dataset not found or corrupted):"
        " check --root, or add --download"
    )
    assert "is not a folder" in said("CIFAR10", root=tmp_path / "absent")
    assert "add --download" in said("CIFAR10", root=tmp_path / "absent")
    labels = mnist / "MNIST/raw/train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:20])
    assert "torchvision's MNIST cannot be read" in said("MNIST", root=mnist)
    assert "torchvision cannot download ImageNet" in said("ImageNet", root=tmp_path)
    # one of those that would download by default
    assert "SEMEION cannot be read" in said("semeion", root=tmp_path)


def test_download_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    asked = []

    class Offline(torchvision.datasets.VisionDataset):  # type: ignore[misc]
        def __init__(self, root: str, train: bool = True, download: bool = True, loader: Any = None) -> None:
            asked.append((root, train, download, loader is data_sets._load))
            print("Downloading")
            raise RuntimeError("no connection\nat all")

    monkeypatch.setattr(torchvision.datasets, "Offline", Offline, raising=False)
    message = said("offline", root=tmp_path / "new", download=True)
    assert "(no connection?at all): check --root and the connection" in message
    said("offline", root=tmp_path)
    assert asked == [(str(tmp_path / "new"), True, True, True), (str(tmp_path), True, False, True)]
    assert capsys.readouterr().out == ""


def test_split_argument(tmp_path: Path) -> None:
    # RenderedSST2 reads folders: train, valid and test
    base = tmp_path / "rendered-sst2"
    for part, n_items in (("train", 3), ("valid", 2), ("test", 1)):
        for label in ("negative", "positive"):
            folder(base / part / label, *(f"{index}.png" for index in range(n_items)))
    found = find_images("RenderedSST2", root=tmp_path)
    assert [len(found.rows(part)) for part in PARTS] == [6, 4, 2]
    assert found.class_names == ("negative", "positive")
    assert found.keys[6] == "val/0"
    # its files are decoded as those in folders are
    (base / "train/negative/1.png").write_bytes(b"hello")
    with pytest.raises(UnreadableImageError, match="is text"):
        find_images("RenderedSST2", root=tmp_path).open(1)


def test_split_argument_with_trainval(tmp_path: Path) -> None:
    base = tmp_path / "oxford-iiit-pet"
    names = ["Abyssinian_1", "Abyssinian_2", "beagle_1", "beagle_2"]
    folder(base / "images", *(f"{name}.jpg" for name in names))
    (base / "annotations").mkdir()
    lines = [f"{name} {1 + index // 2} {1 + index // 2} 1\n" for index, name in enumerate(names)]
    (base / "annotations/trainval.txt").write_text(lines[0] + lines[2])
    (base / "annotations/test.txt").write_text(lines[1] + lines[3])
    found = find_images("oxfordiiitpet", root=tmp_path)
    assert by_part(found) == {"train": ["trainval/0", "trainval/1"], "test": ["test/0", "test/1"]}
    assert found.class_names == ("Abyssinian", "Beagle")


def test_val_stands_for_a_test_part_without_labels(tmp_path: Path) -> None:
    # as CLEVRClassification, which counts from 3
    class Counted(torchvision.datasets.VisionDataset):  # type: ignore[misc]
        def __init__(self, root: str, split: str = "train", download: bool = False) -> None:
            torchvision.datasets.utils.verify_str_arg(split, "split", ("train", "val", "test"))
            self._labels = [None] * 2 if split == "test" else [5, 3, 4, 3]

        def __len__(self) -> int:
            return len(self._labels)

        def __getitem__(self, index: int) -> Any:
            return PIL.Image.new("L", (2, 2), index), self._labels[index]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torchvision.datasets, "Counted", Counted, raising=False)
        found = find_images("Counted", root=tmp_path)
    assert found.keys == tuple(f"{part}/{i}" for part in ("train", "val") for i in (1, 3, 2, 0))
    assert found.class_names == ("3", "4", "5")
    assert found.labels.tolist() == [0, 0, 1, 2] * 2
    assert [len(found.rows(part)) for part in PARTS] == [4, 0, 4]
    assert found.notes == ("Counted: val is the test part, since there are no labels for test images",)


def test_parts_that_number_classes_their_own_way(tmp_path: Path) -> None:
    base = tmp_path / "country211"
    folder(
        base,
        "train/AB/1.png",
        "train/CD/1.png",
        "train/EF/1.png",
        "valid/CD/1.png",
        "test/EF/1.png",
        "test/CD/2.png",
    )
    found = find_images("Country211", root=tmp_path)
    assert found.class_names == ("AB", "CD", "EF")
    assert found.labels.tolist() == [0, 1, 2, 1, 1, 2]
    folder(base, "test/ZZ/1.png")
    assert "train has no images of class 'ZZ'" in said("Country211", root=tmp_path)
    found = find_images("Country211", root=tmp_path, skip_bad=True)
    assert found.skipped == ("test/2: train has no images of class 'ZZ'",)
    assert by_part(found)["test"] == ["test/0", "test/1"]


def test_unsplit_data_sets(tmp_path: Path) -> None:
    folder(tmp_path / "eurosat/2750", "Forest/1.jpg", "River/1.jpg", "Forest/2.jpg")
    found = find_images("EuroSAT", root=tmp_path)
    assert found.parts is None
    assert found.keys == ("all/0", "all/1", "all/2")
    assert (found.class_names, found.labels.tolist()) == (("Forest", "River"), [0, 0, 1])

    folder(tmp_path / "caltech101/101_ObjectCategories", "ant/image_0001.jpg", "bee/image_0001.jpg")
    (tmp_path / "caltech101/101_ObjectCategories/BACKGROUND_Google").mkdir()
    found = find_images("Caltech101", root=tmp_path)
    assert (found.class_names, found.labels.tolist()) == (("ant", "bee"), [0, 1])
    assert found.open(1).mode == "RGB"


def test_data_set_without_names_or_root() -> None:
    class Small(torchvision.datasets.FakeData):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(40, (3, 6, 6), 5)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torchvision.datasets, "Small", Small, raising=False)
        found = find_images("small")
        split = found.split(0.25, 0, digests(found))
    assert found.class_names == ("0", "1", "2", "3", "4")
    small = Small()
    for row in range(40):
        index = int(found.keys[row].split("/")[1])
        assert found.labels[row] == small[index][1]
    assert found.open(0).tobytes() == small[int(found.keys[0][4:])][0].tobytes()
    assert len(split.rows("test")) == pytest.approx(10, abs=2)


def test_emnist_has_both_a_split_and_a_flag(tmp_path: Path) -> None:
    for part, n_items in (("train", 50), ("test", 47)):
        raw = tmp_path / "EMNIST/raw"
        write_idx(raw / f"emnist-balanced-{part}-images-idx3-ubyte", np.zeros((n_items, 28, 28)))
        write_idx(raw / f"emnist-balanced-{part}-labels-idx1-ubyte", np.arange(n_items) % 47)
    found = find_images("EMNIST", root=tmp_path)
    assert [len(found.rows(part)) for part in PARTS] == [50, 0, 47]
    assert len(found.class_names) == 47
    assert found.notes == ("EMNIST: the split 'balanced' is used",)


def test_gtsrb_and_fer2013(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # lists of pairs, without names of classes
    base = tmp_path / "gtsrb"
    for index in range(4):
        place = base / f"GTSRB/Training/{index % 2:05d}/{index}.ppm"
        picture(place, index)
    picture(base / "GTSRB/Final_Test/Images/0.ppm")
    with (base / "GT-final_test.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=";").writerows([["Filename", "ClassId"], ["0.ppm", 1]])
    found = find_images("GTSRB", root=tmp_path)
    assert (found.class_names, found.labels.tolist()) == (("0", "1"), [0, 0, 1, 1, 1])

    monkeypatch.setattr(torchvision.datasets.fer2013, "check_integrity", lambda *a, **k: True)
    (tmp_path / "fer2013").mkdir()
    pixels = " ".join(["9"] * 48 * 48)
    rows = [("emotion", "pixels"), (3, pixels), (6, pixels)]
    with (tmp_path / "fer2013/train.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    with (tmp_path / "fer2013/test.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("pixels",), (pixels,)])
    assert "gives no labels with its test images" in said("FER2013", root=tmp_path)


def test_targets_list_that_means_something_else(tmp_path: Path) -> None:
    class Odd(torchvision.datasets.VisionDataset):  # type: ignore[misc]
        def __init__(self, root: str, broken: int = -1) -> None:
            self.labels = [9, 9, 9]
            self.broken = broken

        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            if index == Odd.bad:
                raise OSError("disk\nerror")
            return Odd.image, torch.tensor(index % 2) if Odd.target is None else Odd.target

        bad = -1
        image: Any = np.zeros((3, 4, 5), dtype=np.uint8)
        target: Any = None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torchvision.datasets, "Odd", Odd, raising=False)
        found = find_images("Odd", root=tmp_path)
        assert found.labels.tolist() == [0, 0, 1]
        assert found.open(0).size == (5, 4)
        patch.setattr(Odd, "bad", 1)
        assert "Odd all/1: cannot be read (disk error)" in said("Odd", root=tmp_path)
        assert find_images("Odd", root=tmp_path, skip_bad=True).skipped == ("all/1: cannot be read (disk error)",)
        with pytest.raises(UnreadableImageError, match="disk error"):
            found.open(2)
        patch.setattr(Odd, "bad", -1)
        for target in ({"boxes": []}, "cat", torch.zeros(4), (1, 2), 1.5):
            patch.setattr(Odd, "target", target)
            assert "is not a classification data set" in said("Odd", root=tmp_path)
        patch.setattr(Odd, "target", None)
        for image in (torch.zeros(3, 4, 4), "text", None):
            patch.setattr(Odd, "image", image)
            assert "is not a classification data set" in said("Odd", root=tmp_path)


@pytest.mark.parametrize("name", ["VOCDetection", "celeba", "CocoDetection", "Kinetics", "LFWPairs"])
def test_other_tasks_are_refused_before_anything_is_downloaded(tmp_path: Path, name: str) -> None:
    assert "is not a classification data set" in said(name, root=tmp_path, download=True)


def test_every_data_set_has_parts_or_a_reason(tmp_path: Path) -> None:
    """What each class of the installed torchvision would be asked for."""
    plans = {}
    for name in data_sets.data_set_names().values():
        if name in data_sets._REFUSED or name == "FakeData":
            continue
        maker = data_sets._Maker(name, tmp_path, False)
        if "train" in maker.accepted:
            plans[name] = "flag"
        elif "split" in maker.accepted:
            splits = maker.splits()
            assert splits != ("train", "test") or name in (
                "GTSRB",
                "Food101",
                "StanfordCars",
                "FER2013",
                "PCAM",
            ), name
            plans[name] = ",".join(splits)
        else:
            plans[name] = "none"
    assert plans["CIFAR10"] == plans["EMNIST"] == plans["QMNIST"] == plans["USPS"] == "flag"
    assert plans["EuroSAT"] == plans["Caltech101"] == plans["SEMEION"] == plans["SUN397"] == "none"
    assert plans["Flowers102"] == plans["DTD"] == plans["RenderedSST2"] == "train,val,test"
    assert plans["Country211"] == "train,valid,test"
    assert plans["ImageNet"] == plans["Imagenette"] == "train,val"
    assert plans["STL10"] == "train,train+unlabeled,unlabeled,test"
    assert plans["FGVCAircraft"] == "train,val,trainval,test"
    assert plans["SVHN"] == "train,test,extra"
    assert plans["Places365"].startswith("train-standard,train-challenge,val")
    assert "download" in data_sets._Maker("QMNIST", tmp_path, True).accepted
    assert "download" not in data_sets._Maker("ImageNet", tmp_path, True).accepted


def test_unknown_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "did you mean 'CIFAR10'?" in said("cifar11", root=tmp_path)
    assert "check the path, or give a data set" in said("qqqqqqq")
    assert "no torchvision data set" in said("ImageFolder", root=tmp_path)
    assert "no torchvision data set" in said(Path("CIFAR10"))


@pytest.mark.parametrize(
    "failure", ["ModuleNotFoundError('No module named torchvision')", "RuntimeError('no nms')"]
)
def test_without_torchvision(tmp_path: Path, failure: str) -> None:
    folder(tmp_path, "a/1.png")
    code = f"""
import sys

class Broken:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torchvision":
            raise {failure}

sys.meta_path.insert(0, Broken())
import moevoprune
from moevoprune.features.images import find_images
print(find_images({str(tmp_path)!r}).open(0).size)
try:
    find_images("CIFAR10", root=".")
except moevoprune.InputError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    size, message = run.stdout.splitlines()
    assert size == "(3, 2)"
    assert "torchvision data sets need a working torchvision (no nms" in message or "No module named" in message
    assert message.endswith("pip install torch torchvision in matching versions")
