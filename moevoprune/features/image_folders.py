"""Images in folders: which files belong to which class and part."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError, nearest, printable, words_of
from moevoprune.features.decoding import UnreadableImageError, open_image, open_regular
from moevoprune.features.image_set import PARTS, SKIP_ADVICE, ImageSet, counted, frozen

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["FolderImages", "find_in_folder"]

Array = npt.NDArray[Any]

# folder names in lower case, and the part each of them means
_PART_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_SYSTEM_FILES = ("thumbs.db", "desktop.ini", "__macosx")
_BLOCK = 1 << 20
_MAX_LISTED = 3


@dataclass(frozen=True)
class FolderImages:
    """Image files below a folder; a key is a path with "/"."""

    folder: str

    def _path(self, key: str) -> Path:
        return Path(self.folder, *key.split("/"))

    def open(self, key: str) -> Image:
        """See :class:`ImageSource`."""
        return open_image(self._path(key))

    def digest(self, key: str) -> bytes:
        """See :class:`ImageSource`."""
        sha = hashlib.sha256()
        with open_regular(self._path(key)) as file:
            try:
                while block := file.read(_BLOCK):
                    sha.update(block)
            except OSError as error:
                raise UnreadableImageError(f"cannot be read ({words_of(error)})") from None
        return sha.digest()

    def is_still(self, key: str, digest: bytes) -> bool:
        """See :class:`ImageSource`."""
        return self.digest(key) == digest

    def where(self, key: str) -> str:
        """See :class:`ImageSource`."""
        return printable(str(self._path(key)))


class _Search:
    """One walk through a folder: what is bad stops it or is listed, what is a system file is counted."""

    def __init__(self, folder: Path, skip_bad: bool) -> None:
        self.folder = folder
        self.skip_bad = skip_bad
        self.skipped: list[str] = []
        self._system: list[str] = []
        self._loops: list[str] = []

    def bad(self, key: str, reason: str, advice: str) -> None:
        """Stop because of something bad, or list it."""
        if not self.skip_bad:
            raise InputError(f"{printable(str(self.folder / key))}: {reason}: {advice}")
        self.skipped.append(f"{printable(key)}: {reason}")

    def entries(self, key: str) -> Iterator[tuple[str, str, os.DirEntry[str]]]:
        """Yield (kind, key, entry) of a folder's content by name; kinds are "file", "folder" and "bad"."""
        try:
            with os.scandir(self.folder / key) as scan:
                found = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            if not key:
                raise InputError(
                    f"{printable(str(self.folder))}: cannot be read ({words_of(error)}): check its permissions"
                ) from None
            self.bad(key, f"cannot be read ({words_of(error)})", f"check its permissions, or {SKIP_ADVICE}")
            return
        for entry in found:
            below = f"{key}/{entry.name}" if key else entry.name
            if entry.name.startswith(".") or entry.name.lower() in _SYSTEM_FILES:
                self._system.append(below)
                continue
            try:
                if entry.is_file():
                    yield "file", below, entry
                elif entry.is_dir():
                    yield "folder", below, entry
                else:
                    yield "bad", below, entry
            except OSError:  # a link that leads to itself
                yield "bad", below, entry

    def special(self, key: str) -> None:
        """Report what is neither a file nor a folder."""
        path = self.folder / key
        try:
            broken = path.is_symlink() and not path.exists()
        except (OSError, RuntimeError):  # Python 3.10 - 3.12 on a link that leads to itself
            broken = True
        what = "is a broken link" if broken else "is not a regular file (a FIFO, socket or device)"
        self.bad(key, what, f"remove it, or {SKIP_ADVICE}")

    def class_files(self, key: str, above: Sequence[str]) -> list[str]:
        """Return the sorted keys of all files below a class folder.

        Parameters
        ----------
        key
            The class folder.
        above
            Keys of the folders it lies in; a link back to one of them is not followed.
        """
        files: list[str] = []
        seen = {self._identity(outer) for outer in above}

        def walk(inner: str) -> None:
            identity = self._identity(inner)
            if identity in seen:
                self._loops.append(inner)
                return
            seen.add(identity)
            for kind, below, _ in self.entries(inner):
                if kind == "file":
                    files.append(below)
                elif kind == "folder":
                    walk(below)
                else:
                    self.special(below)

        walk(key)
        return sorted(files)

    def classes(self, key: str, above: Sequence[str]) -> dict[str, list[str]]:
        """Return the files of each class folder, by sorted class name; other files are bad."""
        found: dict[str, list[str]] = {}
        loose: list[str] = []
        for kind, below, entry in self.entries(key):
            if kind == "folder":
                found[entry.name] = self.class_files(below, above)
            elif kind == "file":
                loose.append(below)
            else:
                self.special(below)
        self.loose(loose, "lies outside the class folders")
        for name in sorted(found):
            if not found[name]:
                below = f"{key}/{name}" if key else name
                self.bad(
                    below,
                    f"class folder {printable(name)!r} holds no images",
                    "remove it, or add --skip-bad to leave the class out",
                )
                del found[name]
        return dict(sorted(found.items()))

    def loose(self, keys: Sequence[str], reason: str) -> None:
        """Report files where only folders belong."""
        more = f" (and {counted(len(keys) - 1, 'more file')})" if len(keys) > 1 and not self.skip_bad else ""
        for key in keys:
            self.bad(key, f"{reason}{more}", "move it into a class folder, remove it, or add --skip-bad")

    def notes(self) -> tuple[str, ...]:
        """Return the lines about what was passed over."""
        notes = []
        if self._system:
            files = counted(len(self._system), "system file")
            notes.append(f"left out {files}, e.g. {printable(self._system[0])}")
        if self._loops:
            links = counted(len(self._loops), "link")
            notes.append(f"left out {links} to folders that are read already, e.g. {printable(self._loops[0])}")
        return tuple(notes)

    def _identity(self, key: str) -> object:
        try:
            status = os.stat(self.folder / key)
        except OSError:  # listing it will say why
            return key
        # some file systems of Windows number nothing
        return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(self.folder / key)


def find_in_folder(folder: Path, skip_bad: bool) -> ImageSet:
    """Find the images of a folder; see :func:`moevoprune.features.images.find_images`."""
    try:
        return _find_in_folder(folder, skip_bad)
    except RecursionError:
        raise InputError(f"{printable(str(folder))}: its folders are nested too deep: flatten them") from None


def _find_in_folder(folder: Path, skip_bad: bool) -> ImageSet:
    # workers may have another current folder, and what is asked for must not move with it
    folder = Path(os.path.abspath(folder))
    name = printable(folder.name) or "images"
    search = _Search(folder, skip_bad)
    top = list(search.entries(""))
    folders = [key for kind, key, _ in top if kind == "folder"]
    by_part: dict[str, list[str]] = defaultdict(list)
    for key in folders:
        if key.lower() in _PART_NAMES:
            by_part[_PART_NAMES[key.lower()]].append(key)
    named = sum(len(keys) for keys in by_part.values())

    keys: list[str]
    # "train" and "test" can be classes too, but hardly both of them
    if folders and (named == len(folders) or ("train" in by_part and len(by_part) > 1)):
        keys, labels, class_names, parts = _parted(search, top, by_part)
    else:
        # entries are read once more; what was counted on the first reading must not count twice
        search = _Search(folder, skip_bad)
        parts = None
        if folders:
            found = search.classes("", [""])
            class_names = tuple(found)
            keys = [key for files in found.values() for key in files]
            labels = np.repeat(np.arange(len(found)), [len(files) for files in found.values()])
        else:
            class_names = ()
            keys = []
            for kind, key, _ in search.entries(""):
                if kind == "file":
                    keys.append(key)
                else:
                    search.special(key)
            labels = np.full(len(keys), -1)
    if not keys:
        raise InputError(
            f"{printable(str(folder))}: holds no images; give a folder with one folder of images for each class"
        )
    return ImageSet(
        name=name,
        keys=tuple(keys),
        labels=frozen(labels.astype(np.int64)),
        class_names=class_names,
        parts=None if parts is None else frozen(parts),
        _source=FolderImages(str(folder)),
        skipped=tuple(search.skipped),
        notes=search.notes(),
    )


def _parted(
    search: _Search, top: list[tuple[str, str, os.DirEntry[str]]], by_part: Mapping[str, list[str]]
) -> tuple[list[str], Array, tuple[str, ...], Array]:
    """Read a folder that is split into parts."""
    shown = printable(str(search.folder))
    for part, folders in by_part.items():
        if len(folders) > 1:
            raise InputError(
                f"{shown}: {' and '.join(sorted(folders))} both mean the {part} part; merge or rename one of them"
            )
    if "train" not in by_part:
        there = " and ".join(by_part[part][0] for part in PARTS if part in by_part)
        raise InputError(f"{shown}: has {there} but no train; add the training images as train/CLASS/*")
    if "test" not in by_part:
        train = by_part["train"][0]
        if "val" in by_part:
            val = by_part["val"][0]
            raise InputError(
                f"{shown}: has {train} and {val} but no test; rename {val} to test,"
                f" or merge both into plain class folders, which are then split"
            )
        raise InputError(
            f"{shown}: has {train} but no test; add test/CLASS/*,"
            f" or give {printable(str(search.folder / train))}, whose images are then split"
        )
    loose = []
    for kind, key, _ in top:
        if kind == "bad":
            search.special(key)
        elif kind == "file":
            loose.append(key)
        elif key.lower() not in _PART_NAMES:
            search.bad(key, "lies beside the parts", f"move it away, or {SKIP_ADVICE}")
    search.loose(loose, "lies outside the class folders")

    keys: list[str] = []
    labels: list[Array] = []
    parts: list[Array] = []
    names: tuple[str, ...] = ()
    for number, part in enumerate(PARTS):
        if part not in by_part:
            continue
        folder = by_part[part][0]
        found = search.classes(folder, ["", folder])
        if part == "train":
            names = tuple(found)
        for name in [name for name in found if name not in names]:
            train = by_part["train"][0]
            hint = nearest(name, names).replace("did you mean", "is it")
            search.bad(
                f"{folder}/{name}",
                f"{train} holds no images of class {printable(name)!r}{printable(hint)}",
                f"add some, rename or remove the folder, or {SKIP_ADVICE}",
            )
            del found[name]
        if not found:
            empty = printable(str(search.folder / folder))
            raise InputError(f"{empty}: holds no images in class folders; sort them into {part}/CLASS/*")
        for name, files in found.items():
            keys += files
            labels.append(np.full(len(files), names.index(name)))
            parts.append(np.full(len(files), number, dtype=np.int8))
    return keys, np.concatenate(labels), names, np.concatenate(parts)
