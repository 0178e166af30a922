"""Labelled images by name, with their parts: what image folders and torchvision data sets become."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError, printable, whole_number

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["PARTS", "SKIP_ADVICE", "ImageSet", "ImageSource", "counted", "frozen"]

PARTS = ("train", "val", "test")
SKIP_ADVICE = "add --skip-bad to leave it out"

_MAX_LISTED = 3

Array = npt.NDArray[Any]


class ImageSource(Protocol):
    """Where images come from, each by its key; it travels to worker processes, so it can be pickled."""

    def open(self, key: str) -> Image:
        """Decode an image into 8-bit RGB."""

    def digest(self, key: str) -> bytes:
        """SHA-256 of its content."""

    def where(self, key: str) -> str:
        """A line that leads a user to it."""

    def is_still(self, key: str, digest: bytes) -> bool:
        """Whether its content is still that of a digest, as far as it can change."""


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
    _source: ImageSource = field(repr=False)
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

    def is_still(self, index: int, digest: bytes) -> bool:
        """Whether an image's content is still that of a digest; items of a data set are taken not to change."""
        return self._source.is_still(self.keys[index], digest)

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
            labels=frozen(self.labels[chosen]),
            parts=None if self.parts is None else frozen(self.parts[chosen]),
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
                others = f"; with it go {counted(lost, 'image')} of other parts" if lost else ""
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
        smaller = replace(self, labels=frozen(labels), class_names=names, skipped=(*self.skipped, *skipped))
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
            parts=frozen(np.where(test, PARTS.index("test"), PARTS.index("train")).astype(np.int8)),
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


def frozen(array: Array) -> Array:
    """A copy that cannot be written to."""
    array = np.array(array, copy=True)
    array.flags.writeable = False
    return array


def counted(number: int, what: str) -> str:
    """A number with its noun."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
