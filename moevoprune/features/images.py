"""Sets of labelled images, from folders or torchvision data sets: found and named here, decoded one by one."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import operator
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError, nearest, printable, whole_number
from moevoprune.features.decoding import (
    UnreadableImageError,
    open_image,
    open_regular,
    silenced_warnings,
    to_rgb,
)

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["PARTS", "ImageSet", "find_images", "is_data_set"]

PARTS = ("train", "val", "test")

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
_SKIP = "add --skip-bad to leave it out"
_BLOCK = 1 << 20
_MAX_LISTED = 3


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images by name, with their classes and parts; pixels are read on request.

    Within a part (and in a set without parts), images are ordered by class, then by key; items of a data
    set by class, then by number. An instance can be pickled; apart from its key, an image costs nine
    bytes.

    Parameters
    ----------
    name : str
        Name for reports: the folder's or the data set's.
    keys : tuple of str
        One unique name for each image: its path below the folder, with "/", or "train/17" for an item of
        a torchvision data set. It may hold anything a file name can: see :meth:`where` for messages.
    labels : ndarray of int64, shape (n,)
        Classes 0..C-1, or all -1 where the images have no classes.
    class_names : tuple of str
        One name for each class; empty where there are none.
    parts : ndarray of int8, shape (n,), or None
        Indices into :data:`PARTS`; None where the set is not split yet.
    skipped : tuple of str
        What was left out because it is bad, each "WHERE: reason".
    notes : tuple of str
        What a user should be told, one line each.
    """

    name: str
    keys: tuple[str, ...] = field(repr=False)
    labels: Array = field(repr=False)
    class_names: tuple[str, ...] = field(repr=False)
    parts: Array | None = field(repr=False)
    _source: _Folder | _DataSets = field(repr=False)
    skipped: tuple[str, ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.keys)

    def open(self, index: int) -> Image:
        """Decode one image into 8-bit RGB.

        Raises
        ------
        UnreadableImageError
            The image cannot be decoded.
        """
        return self._source.open(self.keys[index])

    def digest(self, index: int) -> bytes:
        """Return the SHA-256 of one image's content.

        Of a file these are its bytes, of an item of a data set its mode, size and RGB pixels.

        Raises
        ------
        UnreadableImageError
            The file cannot be read, or the item not be decoded.
        """
        return self._source.digest(self.keys[index])

    def where(self, index: int) -> str:
        """Return a printable line that leads a user to one image."""
        return self._source.where(self.keys[index])

    def rows(self, part: str) -> npt.NDArray[np.int64]:
        """Return the indices of one part's images, in the order its feature rows have.

        Raises
        ------
        ValueError
            The set is not split yet.
        """
        number = PARTS.index(part)
        if self.parts is None:
            raise ValueError(f"{self.name} is not split yet")
        return np.flatnonzero(self.parts == number).astype(np.int64)

    def select(self, indices: Sequence[int] | npt.NDArray[np.integer[Any]]) -> ImageSet:
        """Return the set of some of the images, in their present order, with all classes."""
        chosen = np.unique(np.asarray(indices, dtype=np.int64))
        return replace(
            self,
            keys=tuple(self.keys[index] for index in chosen.tolist()),
            labels=_frozen(self.labels[chosen]),
            parts=None if self.parts is None else _frozen(self.parts[chosen]),
        )

    def without(self, reasons: Mapping[int, str]) -> ImageSet:
        """Leave images out and list them among the skipped ones.

        A class left without training images goes too, with its images in other parts.

        Parameters
        ----------
        reasons : mapping of int to str
            Why, for each index that is left out.

        Raises
        ------
        InputError
            No images are left, or none of a part that had some.
        """
        keep = np.ones(len(self), dtype=bool)
        keep[list(reasons)] = False
        skipped = [f"{printable(self.keys[index])}: {printable(reasons[index])}" for index in sorted(reasons)]
        names, labels = self.class_names, self.labels
        if names:
            training = keep if self.parts is None else keep & (self.parts == 0)
            alive = np.bincount(labels[training], minlength=len(names)) > 0
            for label in np.flatnonzero(~alive):
                lost = int(np.sum(keep & (labels == label)))
                others = f"; with it go {_count(lost, 'image')} of other parts" if lost else ""
                skipped.append(f"class {printable(names[label])!r}: no training image is left{others}")
            keep &= alive[labels]
            labels = (np.cumsum(alive) - 1)[labels]
            names = tuple(name for name, lives in zip(names, alive, strict=True) if lives)
        for part, title in enumerate(PARTS):
            had = np.ones(len(self), dtype=bool) if self.parts is None else self.parts == part
            if had.any() and not (keep & had).any():
                whose = "" if self.parts is None else f" of the {title} part"
                raise InputError(
                    f"{self.name}: none of the images{whose} can be used (first: {skipped[0]}); check the folder"
                )
        smaller = replace(self, labels=_frozen(labels), class_names=names, skipped=(*self.skipped, *skipped))
        return smaller.select(np.flatnonzero(keep))

    def split(self, test_fraction: float, seed: int, digests: Sequence[bytes]) -> ImageSet:
        """Split into a training and a test part, class by class.

        Of a class with n images, ``round(test_fraction * n)`` are for the test, but at least one and at
        most n - 1. Images with the same content always go to the same part, be they of one class or of
        two, so that the numbers can differ where there are many of those. Which images it are depends on
        nothing but keys, classes, equality of contents, fraction and seed.

        Parameters
        ----------
        test_fraction : float
            Between 0 and 1, both excluded.
        seed : int
            At least 0.
        digests : sequence of bytes
            The content of each image, as :meth:`digest` tells it.

        Returns
        -------
        ImageSet
            The same images in the same order, with their parts, and a note about classes that the test
            part lacks.

        Raises
        ------
        InputError
            A setting is out of range, the set has parts already, or nothing can be tested.
        """
        if self.parts is not None:
            raise InputError(f"{self.name} has a test part already; leave out the test fraction")
        try:
            fraction = float(test_fraction)
        except (TypeError, ValueError):
            fraction = float("nan")
        if not 0 < fraction < 1:
            raise InputError(f"the test fraction is {test_fraction!r}; use a number between 0 and 1, such as 0.25")
        seed = whole_number("seed", seed, 0)
        strata = np.unique(self.labels, return_inverse=True)[1].astype(np.int64)
        test = _choose_test(strata, _groups(self, digests), fraction, np.random.default_rng(seed))
        if not test.any():
            raise InputError(
                f"{self.name}: no class has two different images, so there is nothing to test with; add images"
            )
        return replace(
            self,
            parts=_frozen(np.where(test, PARTS.index("test"), PARTS.index("train")).astype(np.int8)),
            notes=(*self.notes, *_untested(self, test)),
        )

    def twins(self, digests: Sequence[bytes]) -> list[tuple[str, str]]:
        """Return the test images whose content is in the training or validation part as well.

        Parameters
        ----------
        digests : sequence of bytes
            The content of each image, as :meth:`digest` tells it.

        Returns
        -------
        list of (str, str)
            For every such test image the key of its first twin, and its own.
        """
        if self.parts is None:
            return []
        _check_digests(self, digests)
        first: dict[bytes, int] = {}
        for part in ("train", "val"):
            for index in self.rows(part).tolist():
                first.setdefault(digests[index], index)
        return [
            (self.keys[first[digests[index]]], self.keys[index])
            for index in self.rows("test").tolist()
            if digests[index] in first
        ]


def find_images(
    source: str | Path, root: str | Path | None = None, download: bool = False, skip_bad: bool = False
) -> ImageSet:
    """Find images and their classes in a folder or a torchvision data set.

    A folder holds ``train/CLASS/*`` and ``test/CLASS/*``, with or without ``val/CLASS/*``, or
    ``CLASS/*``, which is not split yet, or images without any folders, which have no classes. As in
    torchvision's ImageFolder, classes are the sorted names of the folders, which are searched in depth.
    Every file counts as an image, whatever its name, but for hidden and system files; none is opened.

    Parameters
    ----------
    source : str or Path
        A folder, or the name of a class of ``torchvision.datasets``, in any case of letters.
    root : str or Path, optional
        Where the data set lies; only for one of torchvision. Given, a data set of the name comes before a
        folder of the name.
    download : bool
        Let torchvision download the data set if it is not there.
    skip_bad : bool
        Leave out what cannot be an image, and list it, instead of stopping.

    Returns
    -------
    ImageSet
        Everything found.

    Raises
    ------
    InputError
        There is no such folder or data set, or something about it is not as above.
    """
    text = os.fspath(source)
    if not text:
        raise InputError("the source of the images is empty; give a folder or the name of a torchvision data set")
    folder = Path(text)
    try:
        is_folder, exists = folder.is_dir(), folder.exists()
    except (OSError, ValueError) as error:
        raise InputError(f"{printable(text)!r} cannot be read ({_words(error)}): check the path") from None
    # only a bare word names a data set, and only then is it worth importing torchvision
    word = text if isinstance(source, str) and re.fullmatch(r"[A-Za-z]\w*", text) else None

    trouble = ""
    if word is not None and (root is not None or not is_folder):
        known: dict[str, str] = {}
        try:
            known = _data_set_names()
        except InputError as error:
            trouble = str(error)
        if word.lower() in known:
            return _find_data_set(known[word.lower()], root, download, skip_bad)
    if is_folder:
        if root is not None or download:
            raise InputError(
                f"{printable(text)!r} is a folder of images, but --root and --download belong to"
                " torchvision data sets; leave them out"
            )
        return _find_in_folder(folder, skip_bad)
    if exists:
        raise InputError(f"{printable(text)!r} is a file; give the folder of images it is in")
    if trouble:
        raise InputError(f"there is no folder {printable(text)!r}, and {trouble}")
    hint = nearest(word.lower(), known) if word is not None else ""
    hint = re.sub(r"'(\w+)'", lambda match: repr(known[match[1]]), hint)
    raise InputError(
        f"{printable(text)!r}: no such folder, and no torchvision data set of that name"
        f"{hint or '; check the path, or give a data set such as CIFAR10 with --root'}"
    )


# --- folders ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Folder:
    """Image files below a folder; a key is a path with "/"."""

    folder: str

    def _path(self, key: str) -> Path:
        return Path(self.folder, *key.split("/"))

    def open(self, key: str) -> Image:
        return open_image(self._path(key))

    def digest(self, key: str) -> bytes:
        sha = hashlib.sha256()
        with open_regular(self._path(key)) as file:
            try:
                while block := file.read(_BLOCK):
                    sha.update(block)
            except OSError as error:
                raise UnreadableImageError(f"cannot be read ({_words(error)})") from None
        return sha.digest()

    def where(self, key: str) -> str:
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
                    f"{printable(str(self.folder))}: cannot be read ({_words(error)}): check its permissions"
                ) from None
            self.bad(key, f"cannot be read ({_words(error)})", f"check its permissions, or {_SKIP}")
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
        self.bad(key, what, f"remove it, or {_SKIP}")

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
        more = f" (and {_count(len(keys) - 1, 'more file')})" if len(keys) > 1 and not self.skip_bad else ""
        for key in keys:
            self.bad(key, f"{reason}{more}", "move it into a class folder, remove it, or add --skip-bad")

    def notes(self) -> tuple[str, ...]:
        """Return the lines about what was passed over."""
        notes = []
        if self._system:
            files = _count(len(self._system), "system file")
            notes.append(f"left out {files}, e.g. {printable(self._system[0])}")
        if self._loops:
            links = _count(len(self._loops), "link")
            notes.append(f"left out {links} to folders that are read already, e.g. {printable(self._loops[0])}")
        return tuple(notes)

    def _identity(self, key: str) -> object:
        try:
            status = os.stat(self.folder / key)
        except OSError:  # listing it will say why
            return key
        # some file systems of Windows number nothing
        return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(self.folder / key)


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
        labels=_frozen(labels.astype(np.int64)),
        class_names=class_names,
        parts=None if parts is None else _frozen(parts),
        _source=_Folder(str(folder)),
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
            search.bad(key, "lies beside the parts", f"move it away, or {_SKIP}")
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
                f"add some, rename or remove the folder, or {_SKIP}",
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


# --- splitting -------------------------------------------------------------------------------------


def _check_digests(images: ImageSet, digests: Sequence[bytes]) -> None:
    if len(digests) != len(images):
        raise ValueError(f"{len(digests)} digests for {len(images)} images")


def _groups(images: ImageSet, digests: Sequence[bytes]) -> Array:
    """Number the images by content; equal numbers mean equal contents, in order of the first of each."""
    _check_digests(images, digests)
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(bytes(digest), len(numbers)) for digest in digests], dtype=np.int64)


def _choose_test(
    strata: Array, groups: Array, fraction: float, generator: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Choose the rows of the test part; `strata` and `groups` are numbers without gaps."""
    totals = np.bincount(strata)
    wanted = np.array([min(max(round(fraction * n), 1), n - 1) for n in totals.tolist()])
    sizes = np.bincount(groups)
    chance = generator.random(len(sizes))
    rank = generator.permutation(len(sizes))

    members: dict[int, list[int]] = defaultdict(list)
    for row in np.flatnonzero(sizes[groups] > 1).tolist():
        members[int(groups[row])].append(row)
    # what each group of twins takes from each class
    takes = {group: np.unique(strata[rows], return_counts=True) for group, rows in members.items()}
    twins = sorted(takes, key=lambda group: int(rank[group]))
    in_test = np.zeros(len(sizes), dtype=bool)
    taken = np.zeros(len(totals), dtype=np.int64)

    def take(group: int) -> None:
        in_test[group] = True
        classes, counts = takes[group]
        taken[classes] += counts

    def fits(group: int, most: Array) -> bool:
        classes, counts = takes[group]
        return not in_test[group] and bool(np.all(taken[classes] + counts <= most[classes]))

    # twins first, by chance and not by size, or the test part would be full of them; single images
    # then make the numbers come out
    for group in twins:
        if chance[group] < fraction and fits(group, wanted):
            take(group)
    single = np.flatnonzero(sizes[groups] == 1)
    single = single[np.lexsort((rank[groups[single]], strata[single]))]
    bounds = np.searchsorted(strata[single], np.arange(len(totals) + 1))
    for stratum in range(len(totals)):
        rows = single[bounds[stratum] : bounds[stratum + 1]][: max(0, wanted[stratum] - taken[stratum])]
        in_test[groups[rows]] = True
        taken[stratum] += len(rows)
    for group in twins:
        if fits(group, wanted):
            take(group)
    # a class whose twins are too many for its share: rather too large a share than none
    for group in sorted(twins, key=lambda group: (int(sizes[group]), int(rank[group]))):
        if fits(group, totals - 1) and np.any(taken[takes[group][0]] == 0):
            take(group)
    return np.asarray(in_test[groups], dtype=bool)


def _untested(images: ImageSet, test: npt.NDArray[np.bool_]) -> list[str]:
    """Say which classes the test part lacks."""
    if not images.class_names:
        return []
    n_classes = len(images.class_names)
    totals = np.bincount(images.labels, minlength=n_classes)
    tested = np.bincount(images.labels[test], minlength=n_classes)
    notes = []
    for lacking, reason in (
        ((totals == 1), "one image only"),
        ((totals > 1) & (tested == 0), "too many images that equal one another"),
    ):
        found = [images.class_names[label] for label in np.flatnonzero(lacking)]
        if found:
            listed = ", ".join(repr(printable(name)) for name in found[:_MAX_LISTED])
            more = f" and {len(found) - _MAX_LISTED} more" if len(found) > _MAX_LISTED else ""
            which = "class" if len(found) == 1 else "classes"
            notes.append(f"no test images of {which} {listed}{more}: {reason}, kept for training")
    return notes


# --- torchvision's data sets -----------------------------------------------------------------------

_GENERAL = ("VisionDataset", "ImageFolder", "DatasetFolder")
# known to hold no images with one class each, or not in files that torchvision reads by itself: said
# before anybody downloads gigabytes
# fmt: off
_REFUSED = frozenset((
    "CREStereo", "CarlaStereo", "CelebA", "Cityscapes", "CocoCaptions", "CocoDetection", "ETH3DStereo",
    "FallingThingsStereo", "Flickr30k", "Flickr8k", "FlyingChairs", "FlyingThings3D", "HD1K", "HMDB51",
    "InStereo2k", "Kinetics", "Kitti", "Kitti2012Stereo", "Kitti2015Stereo", "KittiFlow", "LFWPairs", "LSUN",
    "LSUNClass", "Middlebury2014Stereo", "MovingMNIST", "PhotoTour", "SBDataset", "SBU", "SceneFlowStereo",
    "Sintel", "SintelStereo", "UCF101", "VOCDetection", "VOCSegmentation", "WIDERFace",
))
# fmt: on
# arguments that have no default or whose meaning no rule can tell
_FIXED: dict[str, dict[str, str]] = {"EMNIST": {"split": "balanced"}, "INaturalist": {"version": "2021_train"}}
_NO_SPLIT = "no such split"


@dataclass(frozen=True)
class _DataSets:
    """Items of one torchvision data set, which has one object for each part; a key is "PART/INDEX"."""

    name: str
    by_part: Mapping[str, Any]

    def _image(self, key: str) -> Image:
        part, _, index = key.rpartition("/")
        return _item(self.by_part[part], int(index))[0]

    def open(self, key: str) -> Image:
        return _rgb(self._image(key))

    def digest(self, key: str) -> bytes:
        image = self._image(key)
        mode = image.mode
        rgb = _rgb(image)
        sha = hashlib.sha256(f"{mode} {rgb.width} {rgb.height} ".encode())
        sha.update(rgb.tobytes())
        return sha.digest()

    def where(self, key: str) -> str:
        return f"{self.name} {key}"


@dataclass(frozen=True)
class _Part:
    """A part of a data set as torchvision has it: its numbers of classes may be any."""

    part: int
    prefix: str
    labels: Array
    names: tuple[str, ...] | None


def _torchvision_datasets() -> Any:
    try:
        # versions of torch and torchvision that do not match warn, or fail in any way
        with silenced_warnings():
            import torchvision.datasets
    except Exception as error:
        raise InputError(
            f"torchvision data sets need a working torchvision ({_words(error)}):"
            " pip install torch torchvision in matching versions"
        ) from None
    return torchvision.datasets


def _data_set_names() -> dict[str, str]:
    """Return the names of torchvision's data sets, by their names in lower case."""
    module = _torchvision_datasets()
    return {
        name.lower(): name
        for name, found in sorted(vars(module).items())
        if inspect.isclass(found) and issubclass(found, module.VisionDataset) and name not in _GENERAL
    }


def is_data_set(name: str) -> bool:
    """Whether torchvision has a data set of this name, case aside; not where it cannot be imported."""
    try:
        return name.lower() in _data_set_names()
    except InputError:
        return False


def _find_data_set(name: str, root: str | Path | None, download: bool, skip_bad: bool) -> ImageSet:
    maker = _Maker(name, root, download)
    notes: list[str] = []
    by_part: dict[str, Any] = {}
    found: list[_Part] = []
    skipped: list[str] = []

    def add(part: str, prefix: str, arguments: Mapping[str, object]) -> bool:
        data = maker.make(arguments)
        labels = _item_labels(data, name, prefix, skip_bad, skipped)
        if labels is None:
            return False
        by_part[prefix] = data
        found.append(_Part(PARTS.index(part), prefix, labels, _class_titles(data, labels)))
        return True

    for argument, value in _FIXED.get(name, {}).items():
        notes.append(f"{name}: the {argument} {value!r} is used")
    unsplit = False
    fixed = _FIXED.get(name, {})
    no_labels = f"torchvision's {name} gives no labels with its"
    if "train" in maker.accepted:
        for part, flag in (("train", True), ("test", False)):
            if not add(part, part, {**fixed, "train": flag}):
                raise InputError(f"{no_labels} {part} images: give folders of images instead")
    elif "split" in maker.accepted:
        splits = maker.splits()
        train = _first_of(("train", "trainval", "train-standard"), splits)
        val = _first_of(("val", "valid", "validation"), splits)
        if train is None or ("test" not in splits and val is None):
            raise InputError(
                f"torchvision's {name} has the splits {', '.join(splits)}, among which no train and test parts"
                " can be told: give folders of images instead"
            )
        if not add("train", train, {"split": train}):
            raise InputError(f"{no_labels} {train} images: give folders of images instead")
        tested = "test" in splits and add("test", "test", {"split": "test"})
        if val is not None and not add("val" if tested else "test", val, {"split": val}):
            raise InputError(f"{no_labels} {val} images: give folders of images instead")
        if not tested:
            if val is None:
                raise InputError(f"{no_labels} test images: give folders of images instead")
            notes.append(f"{name}: {val} is the test part, since there are no labels for test images")
    else:
        unsplit = True
        if not add("train", "all", fixed):
            raise InputError(f"{no_labels} images: give folders of images instead")
    return _joined(name, found, _DataSets(name, by_part), unsplit, skip_bad, skipped, notes)


class _Maker:
    """Makes the objects of one torchvision data set."""

    def __init__(self, name: str, root: str | Path | None, download: bool) -> None:
        self.name = name
        self._kind = getattr(_torchvision_datasets(), name)
        self._download = download
        parameters = _parameters(self._kind)
        self.accepted = frozenset(parameters)
        if name in _REFUSED:
            raise InputError(
                f"torchvision's {name} is not a classification data set that can be read here:"
                " give folders of images, CLASS/*"
            )
        known = {"root", "train", "split", *_FIXED.get(name, {})}
        needed = [key for key, p in parameters.items() if p.default is p.empty and key not in known]
        if needed:
            raise InputError(
                f"torchvision's {name} needs arguments that cannot be given here ({', '.join(needed)}):"
                " give folders of images, CLASS/*"
            )
        self._common: dict[str, object] = {}
        self._root = ""
        if "root" in self.accepted:
            if root is None:
                raise InputError(
                    f"torchvision's {name} needs --root, the folder where it lies or is downloaded to"
                )
            # workers may have another current folder
            self._root = os.path.abspath(os.path.expanduser(root))
            if not download and not os.path.isdir(self._root):
                raise InputError(
                    f"--root {printable(str(root))!r} is not a folder;"
                    f" give the one where {name} lies{self._advice()}"
                )
            self._common["root"] = self._root
        if "download" in self.accepted:
            # always, since for some of them the default is to download
            self._common["download"] = download
        if "loader" in self.accepted:
            # then the same files give the same images as in a folder
            self._common["loader"] = _load

    def make(self, arguments: Mapping[str, object]) -> Any:
        """Construct the data set, or one part of it."""
        try:
            data = self._construct(arguments)
            empty = len(data) == 0
        except Exception as error:  # damaged files: a dozen kinds
            said = (
                re.split(r"\.? *You can (?:use|set) download=True", str(error))[0].rstrip(". ")
                or type(error).__name__
            )
            raise InputError(
                f"torchvision's {self.name} cannot be read from {printable(self._root)}"
                f" ({printable(said)[:200]}): check --root{self._advice()}"
            ) from None
        if empty:
            raise InputError(f"torchvision's {self.name} in {printable(self._root)} is empty: check --root")
        return data

    def splits(self) -> tuple[str, ...]:
        """Return the splits the data set knows."""
        # no table: the installed version is asked, whose refusal lists what it would take
        try:
            self._construct({"split": _NO_SPLIT, **({"download": False} if "download" in self.accepted else {})})
        except Exception as error:
            listed = re.search(r"Valid values are \{(.*)\}", str(error))
            if listed:
                return tuple(re.findall(r"'([^']*)'", listed[1]))
        # making these says what is wrong
        return ("train", "test")

    def _construct(self, arguments: Mapping[str, object]) -> Any:
        # its progress must not mix with the results of a command
        with silenced_warnings(), contextlib.redirect_stdout(sys.stderr):
            return self._kind(**{**self._common, **arguments})

    def _advice(self) -> str:
        if "download" not in self.accepted:
            return f" (torchvision cannot download {self.name}; put it there)"
        return " and the connection" if self._download else ", or add --download"


def _parameters(kind: type) -> dict[str, inspect.Parameter]:
    """Return what a class can be made with, following ``**kwargs`` to the classes it builds on."""
    found: dict[str, inspect.Parameter] = {}
    for level in kind.__mro__:
        if "__init__" not in vars(level):
            continue
        own = list(inspect.signature(vars(level)["__init__"]).parameters.values())[1:]
        passes_on = False
        for parameter in own:
            if parameter.kind is parameter.VAR_KEYWORD:
                passes_on = True
            elif parameter.kind is not parameter.VAR_POSITIONAL:
                found.setdefault(parameter.name, parameter)
        if not passes_on:
            break
    return found


def _load(path: str | Path) -> Image:
    return open_image(Path(path))


def _first_of(wanted: Iterable[str], there: Sequence[str]) -> str | None:
    return next((name for name in wanted if name in there), None)


def _item(data: Any, index: int) -> tuple[Image, object]:
    """Return an item's image and target.

    Raises
    ------
    UnreadableImageError
        The item cannot be had.
    InputError
        It is not an image with one target.
    """
    try:
        with silenced_warnings():
            item = data[index]
    except UnreadableImageError:
        raise
    except Exception as error:  # damaged files: a dozen kinds
        raise UnreadableImageError(f"cannot be read ({_words(error)})") from None
    image = _as_image(item[0]) if isinstance(item, tuple) and len(item) == 2 else None
    if image is None:
        raise InputError(_not_classification(data, "its items are not pairs of an image and a class"))
    return image, item[1]


def _target(data: Any, index: int) -> object:
    """Return an item's target alone."""
    image, target = _item(data, index)
    # a data set that opens files and leaves them so would run out of them here
    if getattr(image, "fp", None) is not None:
        with contextlib.suppress(UnreadableImageError):
            _rgb(image)
    return target


def _rgb(image: Image) -> Image:
    try:
        return to_rgb(image)
    except UnreadableImageError:
        # decoding to the end would have closed the file
        image.close()
        raise


def _as_image(value: object) -> Image | None:
    import PIL.Image

    if isinstance(value, PIL.Image.Image):
        return value
    try:
        array = np.asarray(value)
    except Exception:  # a tensor on another device, or anything at all
        return None
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
        array = np.moveaxis(array, 0, 2)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        return None
    return PIL.Image.fromarray(np.ascontiguousarray(array))


def _not_classification(data: Any, reason: str) -> str:
    return f"torchvision's {type(data).__name__} is not a classification data set: {reason}"


def _label(data: Any, target: Any) -> int | None:
    """Return an item's target as a class, None where it has none.

    Raises
    ------
    InputError
        It is neither.
    """
    if target is None:
        return None
    try:
        number = operator.index(target.item() if hasattr(target, "item") else target)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(_not_classification(data, "its targets are not single whole numbers")) from None
    return number if number >= 0 else None


def _item_labels(data: Any, name: str, prefix: str, skip_bad: bool, skipped: list[str]) -> Array | None:
    """Return the label of every item (-1: left out), or None where the data set does not tell them."""
    n_items = len(data)
    listed = _listed_labels(data, n_items)
    if listed is not None:
        for index in {0, n_items - 1}:
            try:
                target = _target(data, index)
            except UnreadableImageError:
                # stopped at or left out when its features are wanted
                continue
            if _label(data, target) != (listed[index] if listed[index] >= 0 else None):
                # the list means something else
                listed = None
                break
    if listed is not None:
        return None if (listed < 0).any() else listed

    labels = np.full(n_items, -1, dtype=np.int64)
    for index in range(n_items):
        try:
            target = _target(data, index)
        except UnreadableImageError as error:
            # without the item there is no label
            if not skip_bad:
                raise InputError(
                    f"{name} {prefix}/{index}: {error.reason}: download it again, or {_SKIP}"
                ) from None
            skipped.append(f"{prefix}/{index}: {error.reason}")
            continue
        label = _label(data, target)
        if label is None:
            return None
        labels[index] = label
    return labels


def _listed_labels(data: Any, n_items: int) -> Array | None:
    """Return the labels of a data set that lists them, which saves decoding every image."""
    # what torchvision's data sets call them; whether it is them is checked on items
    for attribute in ("targets", "labels", "_labels", "y"):
        labels = _numbers(getattr(data, attribute, None), n_items)
        if labels is not None:
            return labels
    for attribute in ("samples", "_samples", "_flat_character_images", "index"):
        pairs = getattr(data, attribute, None)
        if isinstance(pairs, list) and pairs and isinstance(pairs[0], tuple) and len(pairs[0]) == 2:
            for column in (1, 0):
                labels = _numbers([pair[column] for pair in pairs], n_items)
                if labels is not None:
                    return labels
    return None


def _numbers(value: object, n_items: int) -> Array | None:
    if value is None or isinstance(value, str):
        return None
    try:
        array = np.asarray(value)
    except Exception:  # something else of that name
        return None
    return array.astype(np.int64) if array.shape == (n_items,) and array.dtype.kind in "iu" else None


def _class_titles(data: Any, labels: Array) -> tuple[str, ...] | None:
    for attribute in ("classes", "categories", "all_categories", "_characters"):
        listed = getattr(data, attribute, None)
        if not isinstance(listed, list | tuple) or len(listed) <= labels.max():
            continue
        titles = [", ".join(map(str, title)) if isinstance(title, list | tuple) else title for title in listed]
        if all(isinstance(title, str) for title in titles):
            return tuple(titles)
    return None


def _joined(
    name: str,
    found: Sequence[_Part],
    source: _DataSets,
    unsplit: bool,
    skip_bad: bool,
    skipped: list[str],
    notes: Sequence[str],
) -> ImageSet:
    """Bring the parts of a data set under the classes of its training part, 0..C-1."""
    train = next(part for part in found if part.part == 0)
    names = train.names
    used = np.unique(train.labels[train.labels >= 0])
    titles = tuple(str(label) if names is None else names[label] for label in used.tolist())
    keys: list[str] = []
    labels: list[Array] = []
    parts: list[Array] = []
    for part in sorted(found, key=lambda part: part.part):
        numbers = part.labels
        if names is not None and part.names is not None and part.names != names and len(set(names)) == len(names):
            # the part numbers classes its own way, as image folders with other classes do
            place = {title: number for number, title in enumerate(names)}
            table = np.array([place.get(title, len(names) + n) for n, title in enumerate(part.names)])
            numbers = np.where(numbers < 0, -1, table[numbers])
        strange = np.flatnonzero((numbers >= 0) & ~np.isin(numbers, used))
        if len(strange):
            label = int(part.labels[strange[0]])
            title = str(label) if part.names is None else part.names[label]
            reason = f"{train.prefix} has no images of class {printable(title)!r}"
            if not skip_bad:
                raise InputError(f"{name} {part.prefix}/{strange[0]}: {reason}: {_SKIP}")
            skipped += [f"{part.prefix}/{index}: {reason}" for index in strange.tolist()]
            numbers = numbers.copy()
            numbers[strange] = -1
        rows = np.flatnonzero(numbers >= 0)
        if not len(rows):
            raise InputError(f"{name}: {part.prefix} has no images that can be used: check the data set")
        rows = rows[np.argsort(numbers[rows], kind="stable")]
        keys += [f"{part.prefix}/{row}" for row in rows.tolist()]
        labels.append(np.searchsorted(used, numbers[rows]))
        parts.append(np.full(len(rows), part.part, dtype=np.int8))
    return ImageSet(
        name=name,
        keys=tuple(keys),
        labels=_frozen(np.concatenate(labels).astype(np.int64)),
        class_names=titles,
        parts=None if unsplit else _frozen(np.concatenate(parts)),
        _source=source,
        skipped=tuple(skipped),
        notes=tuple(notes),
    )


# --- words and arrays ------------------------------------------------------------------------------


def _frozen(array: Array) -> Array:
    array = np.array(array, copy=True)
    array.flags.writeable = False
    return array


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _words(error: Exception) -> str:
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return printable(" ".join(str(said).split()))[:200]
