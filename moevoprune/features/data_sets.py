"""Torchvision's data sets as labelled images: which of them, which parts, which labels."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import operator
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError, printable, words_of
from moevoprune.features.decoding import UnreadableImageError, open_image, silenced_warnings, to_rgb
from moevoprune.features.image_set import PARTS, SKIP_ADVICE, ImageSet, frozen
from moevoprune.features.vision import import_torchvision

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["DataSetImages", "data_set_names", "find_data_set", "is_data_set"]

Array = npt.NDArray[Any]

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
class DataSetImages:
    """Items of one torchvision data set, which has one object for each part; a key is "PART/INDEX"."""

    name: str
    by_part: Mapping[str, Any]

    def _image(self, key: str) -> Image:
        part, _, index = key.rpartition("/")
        return _item(self.by_part[part], int(index))[0]

    def open(self, key: str) -> Image:
        """See :class:`ImageSource`."""
        return _rgb(self._image(key))

    def digest(self, key: str) -> bytes:
        """Of mode, size and RGB pixels."""
        image = self._image(key)
        mode = image.mode
        rgb = _rgb(image)
        sha = hashlib.sha256(f"{mode} {rgb.width} {rgb.height} ".encode())
        sha.update(rgb.tobytes())
        return sha.digest()

    def is_still(self, key: str, digest: bytes) -> bool:
        """See :class:`ImageSource`."""
        return True

    def where(self, key: str) -> str:
        """See :class:`ImageSource`."""
        return f"{self.name} {key}"


@dataclass(frozen=True)
class _Part:
    """A part of a data set as torchvision has it: its numbers of classes may be any."""

    part: int
    prefix: str
    labels: Array
    names: tuple[str, ...] | None


def _torchvision_datasets() -> Any:
    return import_torchvision("torchvision data sets").datasets


def data_set_names() -> dict[str, str]:
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
        return name.lower() in data_set_names()
    except InputError:
        return False


def find_data_set(name: str, root: str | Path | None, download: bool, skip_bad: bool) -> ImageSet:
    """Find the images of a torchvision data set; see :func:`moevoprune.features.images.find_images`."""
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
    return _joined(name, found, DataSetImages(name, by_part), unsplit, skip_bad, skipped, notes)


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
        raise UnreadableImageError(f"cannot be read ({words_of(error)})") from None
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
                    f"{name} {prefix}/{index}: {error.reason}: download it again, or {SKIP_ADVICE}"
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
    source: DataSetImages,
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
                raise InputError(f"{name} {part.prefix}/{strange[0]}: {reason}: {SKIP_ADVICE}")
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
        labels=frozen(np.concatenate(labels).astype(np.int64)),
        class_names=titles,
        parts=None if unsplit else frozen(np.concatenate(parts)),
        _source=source,
        skipped=tuple(skipped),
        notes=tuple(notes),
    )
