"""Labelled images in memory, to train and prune whole networks: built in, from files, folders or data sets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError, printable, whole_number
from moevoprune.features.decoding import UnreadableImageError, open_regular
from moevoprune.features.feature_set import FeatureSet
from moevoprune.features.image_set import SKIP_ADVICE, ImageSet
from moevoprune.features.images import find_images
from moevoprune.features.npz_files import open_archive, read_array
from moevoprune.features.preprocessing import Preprocessing

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

__all__ = ["BUILT_IN", "LabelledImages", "Normalisation", "load_images", "to_tensor"]

Array = npt.NDArray[Any]

BUILT_IN = ("digits",)

# all pixels are held in memory: beyond this a slip, or an archive made to fill it, is likelier than a wish
_MOST_BYTES = 4 * 2**30
_LARGEST_SIDE = 4096
_BLOCK_BYTES = 1 << 25
_SMALLEST_DEVIATION = 1e-6


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images of one size with their classes, split into training and test part; validated and read-only.

    Parameters
    ----------
    name : str
        Name for reports; not part of the content hash.
    X_train, X_test : ndarray, shape (n, H, W, C)
        Pixels: uint8 (0..255), or floating point (finite; the full range is 0..1), which is kept as float32.
    y_train, y_test : ndarray of int64, shape (n,)
        Classes 0..C-1; every class has training images, and there are at least two.
    class_names : tuple of str, optional
        One name for each class. Left empty, the names are "0", "1", ...
    notes : tuple of str
        What a user should be told, one line each.

    Raises
    ------
    InputError
        An array breaks one of these rules; the message names it.
    """

    name: str
    X_train: Array = field(repr=False)
    y_train: Array = field(repr=False)
    X_test: Array = field(repr=False)
    y_test: Array = field(repr=False)
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            object.__setattr__(self, f"X_{part}", _pixels(f"X_{part}", getattr(self, f"X_{part}")))
            _check_integers(f"y_{part}", getattr(self, f"y_{part}"))
        train, test = self.X_train, self.X_test
        if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
            raise InputError(
                f"X_test has {test.dtype} images of shape {test.shape[1:]} but X_train {train.dtype} ones of"
                f" {train.shape[1:]}; prepare both parts in the same way"
            )
        # the rules for labels are those of a feature set
        checked = FeatureSet(
            X_train=np.zeros((len(train), 1), dtype=np.float32),
            y_train=self.y_train,
            X_test=np.zeros((len(test), 1), dtype=np.float32),
            y_test=self.y_test,
            class_names=self.class_names,
            name=self.name,
        )
        for key in ("y_train", "y_test", "class_names", "name"):
            object.__setattr__(self, key, getattr(checked, key))

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image, in the order that networks take."""
        height, width, channels = self.X_train.shape[1:]
        return int(channels), int(height), int(width)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 in hexadecimal (64 characters) over pixels, labels and class names."""
        arrays = {key: getattr(self, key) for key in ("X_train", "y_train", "X_test", "y_test")}
        head = {
            "class_names": self.class_names,
            "arrays": [[key, array.dtype.name, list(array.shape)] for key, array in arrays.items()],
        }
        digest = hashlib.sha256(json.dumps(head).encode("ascii") + b"\0")
        for array in arrays.values():
            # the byte order is fixed so that the hash is the same on every machine
            digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Normalisation:
    """Per channel, what is subtracted from a pixel and what the result is divided by.

    Parameters
    ----------
    mean, std
        One number for each channel, in units of the full range (0..1); finite, and `std` at least 1e-6.

    Raises
    ------
    InputError
        A number is none of these, or there are not equally many.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            try:
                numbers = tuple(float(number) for number in getattr(self, name))
            except (TypeError, ValueError):
                raise InputError(f"{name} = {getattr(self, name)!r}: give one number for each channel") from None
            object.__setattr__(self, name, numbers)
        if not self.mean or len(self.mean) != len(self.std):
            raise InputError(
                f"mean has {len(self.mean)} numbers and std {len(self.std)}: give one for each channel"
            )
        if not np.isfinite(self.mean + self.std).all() or min(self.std) < _SMALLEST_DEVIATION:
            raise InputError(
                f"mean {self.mean} and std {self.std}: give finite numbers, and std of at least"
                f" {_SMALLEST_DEVIATION:g}"
            )

    @classmethod
    def of(cls, images: LabelledImages) -> Normalisation:
        """Mean and standard deviation of each channel over the training images.

        A channel that never changes is divided by 1.
        """
        pixels = images.X_train
        count = pixels[..., 0].size
        axes = (0, 1, 2)
        mean = sum(block.sum(axes, dtype=np.float64) for block in _full_range_blocks(pixels)) / count
        # around the mean, as the squares of what is far from it would lose digits
        squares = sum(((block - mean) ** 2).sum(axes, dtype=np.float64) for block in _full_range_blocks(pixels))
        std = np.sqrt(squares / count)
        return cls(tuple(mean.tolist()), tuple(np.where(std < _SMALLEST_DEVIATION, 1.0, std).tolist()))


def to_tensor(images: Array, normalisation: Normalisation) -> Tensor:
    """Turn images into the input of a network.

    Parameters
    ----------
    images : ndarray, shape (n, H, W, C)
        uint8, or float32 with the full range 0..1.
    normalisation
        Of as many channels.

    Returns
    -------
    Tensor, shape (n, C, H, W)
        float32, contiguous. Apart from this result, little memory is used.

    Raises
    ------
    InputError
        The number of channels is another.
    """
    import torch

    n, height, width, channels = images.shape
    if channels != len(normalisation.mean):
        raise InputError(
            f"the images have {channels} channels but mean and std are for {len(normalisation.mean)}:"
            " give one number for each channel"
        )
    result: npt.NDArray[np.float32] = np.empty((n, channels, height, width), dtype=np.float32)
    mean, std = (np.array(numbers, dtype=np.float32) for numbers in (normalisation.mean, normalisation.std))
    start = 0
    for block in _full_range_blocks(images):
        result[start : start + len(block)] = ((block - mean) / std).transpose(0, 3, 1, 2)
        start += len(block)
    return torch.from_numpy(result)


def load_images(
    source: str | Path,
    size: int | None = None,
    root: str | Path | None = None,
    download: bool = False,
    skip_bad: bool = False,
    test_fraction: float = 0.25,
    split_seed: int = 0,
) -> LabelledImages:
    """Load labelled images by what a user calls them.

    Parameters
    ----------
    source : str or Path
        - "digits": scikit-learn's 1,797 handwritten digits, 8x8 grey pixels (write "./digits" for a folder);
        - the path of an .npz file with uint8 `X_train` and `X_test`, (n, H, W, C) or (n, H, W), integer `y_train`
          and `y_test`, and optionally `class_names` (strings);
        - a folder of images or the name of a data set of torchvision, see
          :func:`moevoprune.features.images.find_images`; images become 8-bit RGB, and those of a validation part
          are training images.
    size : int, optional
        For folders and data sets: the shorter side is resized to so many pixels, then the centre is cut out. By
        default images stay as they are, and must be of one size.
    root, download, skip_bad
        For folders and data sets; see :func:`moevoprune.features.images.find_images`.
    test_fraction, split_seed
        Share of each class that becomes the test part, and the seed of the split, where the source has no split of
        its own. Images with the same content stay in one part (but for the digits, which are all different).

    Returns
    -------
    LabelledImages
        All of them, in memory.

    Raises
    ------
    InputError
        There is no such source, or something about it is not as above; the message says what and where.
    """
    if size is not None:
        size = whole_number("size", size, 1, _LARGEST_SIDE)
    path = Path(source)
    if source in BUILT_IN or path.suffix == ".npz":
        if size is not None or root is not None or download:
            raise InputError(
                f"{printable(str(source))}: size, root and download are for folders and data sets; leave them out"
            )
        return _digits(test_fraction, split_seed) if source in BUILT_IN else _from_npz(path)
    return _from_set(find_images(source, root, download, skip_bad), size, skip_bad, test_fraction, split_seed)


# --- sources ---------------------------------------------------------------------------------------


def _digits(test_fraction: float, split_seed: int) -> LabelledImages:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 16.0).astype(np.float32).reshape(-1, 8, 8, 1)
    try:
        x_train, x_test, y_train, y_test = train_test_split(
            images, labels, test_size=float(test_fraction), stratify=labels, random_state=split_seed
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"digits cannot be split with test_fraction = {test_fraction!r}: {error}") from None
    return LabelledImages("digits", x_train, y_train, x_test, y_test)


def _from_npz(path: Path) -> LabelledImages:
    try:
        with open_regular(path) as file, open_archive(file) as archive:
            members = set(archive.namelist())
            arrays: dict[str, Array] = {}
            for key in ("X_train", "y_train", "X_test", "y_test"):
                if f"{key}.npy" not in members:
                    raise InputError(f"has no array {key!r}; save X_train, y_train, X_test and y_test")
                arrays[key] = read_array(archive, key, _MOST_BYTES)
                if key.startswith("X_"):
                    arrays[key] = _stored_pixels(key, arrays[key])
            names: tuple[str, ...] = ()
            if "class_names.npy" in members:
                names = _stored_names(read_array(archive, "class_names", _MOST_BYTES))
        return LabelledImages(name=path.stem, class_names=names, **arrays)  # type: ignore[arg-type]
    except UnreadableImageError as error:
        raise InputError(f"{printable(str(path))}: {error.reason}; check the path") from None
    except InputError as error:
        raise InputError(f"{printable(str(path))}: {error}") from None


def _stored_pixels(name: str, array: Array) -> Array:
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        raise InputError(
            f"{name} is {array.dtype} of shape {array.shape}; save uint8 of shape (n, H, W, channels) or (n, H, W)"
        )
    return array if array.ndim == 4 else array[..., np.newaxis]


def _stored_names(array: Array) -> tuple[str, ...]:
    try:
        if array.ndim == 1 and array.dtype.kind == "U":
            return tuple(array.tolist())
    except ValueError:  # bytes that are no text
        pass
    raise InputError("class_names is no 1-D array of strings; save one string for each class")


def _from_set(
    images: ImageSet, size: int | None, skip_bad: bool, test_fraction: float, split_seed: int
) -> LabelledImages:
    if not images.class_names:
        raise InputError(
            f"{images.name}: its images lie in no class folders: arrange them as CLASS/* or {{train,test}}/CLASS/*"
        )
    pixels, bad = _decoded(images, size)
    if bad:
        if not skip_bad:
            index, reason = next(iter(bad.items()))
            raise InputError(f"{images.where(index)}: {reason}; {SKIP_ADVICE}")
        smaller = images.without(bad)
        # a class without training images is gone as a whole
        there = set(smaller.keys)
        pixels = pixels[[position for position, key in enumerate(images.keys) if key in there]]
        images = smaller
    if images.parts is None:
        images = images.split(test_fraction, split_seed, [hashlib.sha256(image.data).digest() for image in pixels])
    train = np.sort(np.concatenate([images.rows("train"), images.rows("val")]))
    test = images.rows("test")
    try:
        return LabelledImages(
            images.name,
            pixels[train],
            images.labels[train],
            pixels[test],
            images.labels[test],
            images.class_names,
            notes=(*images.notes, *(f"left out: {line}" for line in images.skipped)),
        )
    except InputError as error:
        raise InputError(f"{images.name}: {error}") from None


def _decoded(images: ImageSet, size: int | None) -> tuple[npt.NDArray[np.uint8], dict[int, str]]:
    """All images as (n, H, W, 3), and why some of them, which stay empty, cannot be read."""
    prepare = None if size is None else Preprocessing(resize=size, crop=size).cropped
    result: npt.NDArray[np.uint8] | None = None
    first = ""
    bad: dict[int, str] = {}
    for index in range(len(images)):
        try:
            image: Image = images.open(index)
        except UnreadableImageError as error:
            bad[index] = error.reason
            continue
        if prepare is not None:
            image = prepare(image)
        if result is None:
            first, result = images.where(index), _room(images, image.height, image.width)
        if result.shape[1:3] != (image.height, image.width):
            raise InputError(
                f"{images.where(index)} has {image.width} x {image.height} pixels but {first}"
                f" {result.shape[2]} x {result.shape[1]}: give the size that they are all to have"
            )
        result[index] = np.asarray(image)
    if result is None:
        raise InputError(f"{images.name}: none of the images can be read (first: {bad[0]}); check the source")
    return result, bad


def _room(images: ImageSet, height: int, width: int) -> npt.NDArray[np.uint8]:
    n_bytes = len(images) * height * width * 3
    if n_bytes > _MOST_BYTES:
        raise InputError(
            f"{images.name}: {len(images):,} images of {width} x {height} pixels take {n_bytes / 2**30:.0f} GiB,"
            f" more than {_MOST_BYTES / 2**30:.0f}: give a smaller size, or fewer images"
        )
    return np.zeros((len(images), height, width, 3), dtype=np.uint8)


# --- checking and converting arrays ----------------------------------------------------------------


def _pixels(name: str, value: object) -> Array:
    if not isinstance(value, np.ndarray) or not (value.dtype == np.uint8 or value.dtype.kind == "f"):
        found = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise InputError(f"{name} is {found}; give a uint8 array (0..255), or floats with the full range 0..1")
    if value.ndim != 4 or 0 in value.shape:
        raise InputError(f"{name} has shape {value.shape}; give at least one image, (n, height, width, channels)")
    if value.dtype.kind == "f":
        with np.errstate(over="ignore"):
            value = value.astype(np.float32, copy=False)
        if not np.isfinite(value).all():
            raise InputError(f"{name} holds numbers that are not finite; remove such images")
    result = np.ascontiguousarray(value).view()
    result.flags.writeable = False
    return result


def _check_integers(name: str, value: object) -> None:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu":
        found = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise InputError(f"{name} is {found}; give an array of integers, the classes 0..C-1")


def _full_range_blocks(images: Array) -> Iterator[npt.NDArray[np.float32]]:
    """Some images at a time, as float32 in units of the full range."""
    at_once = max(1, _BLOCK_BYTES // (4 * images[0].size))
    for start in range(0, len(images), at_once):
        block = images[start : start + at_once]
        yield block.astype(np.float32) / np.float32(255) if images.dtype == np.uint8 else block
