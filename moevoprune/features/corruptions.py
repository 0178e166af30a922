"""Image corruptions of rising severity, in the spirit of ImageNet-C (Hendrycks & Dietterich, arXiv 1903.12261).

Kinds and strengths are those published with ImageNet-C for crops of 224 pixels. What is ours: lengths (of blurs)
grow with the side of the image; the variance of noise does too, which for 32 pixels comes near CIFAR-10-C's
strengths; blurs are computed in other ways, with the published standard deviations. JPEG's blocks have 8 pixels at
any size, so it is the stronger the smaller an image is.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError, nearest, printable, whole_number

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["CORRUPTIONS", "MAX_SEVERITY", "Corruption", "corrupt", "resolve_corruptions"]

Floats = npt.NDArray[np.float64]
Corruption = Callable[["Image", int, np.random.Generator], "Image"]

MAX_SEVERITY = 5

# side in pixels of the images that the strengths below were made for
_SIDE = 224
_NOISE = (0.08, 0.12, 0.18, 0.26, 0.38)
_PHOTONS = (60.0, 25.0, 12.0, 5.0, 3.0)
_BLUR = (1.0, 2.0, 3.0, 4.0, 6.0)
_MOTION = (3.0, 5.0, 8.0, 12.0, 15.0)
_BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)
_CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)
_QUALITY = (25, 18, 15, 10, 7)
_PIXELATE = (0.6, 0.5, 0.4, 0.3, 0.25)


def gaussian_noise(image: Image, severity: int, generator: np.random.Generator) -> Image:
    """Add Gaussian noise to each pixel and colour.

    At 224 pixels its standard deviation is .08 to .38 of the full range.
    """
    deviation = _NOISE[severity - 1] * math.sqrt(_scale(image))
    values = _values(image)
    return _image(values + deviation * generator.standard_normal(values.shape))


def shot_noise(image: Image, severity: int, generator: np.random.Generator) -> Image:
    """Count photons: Poisson noise with, at 224 pixels, a mean of 60 to 3 photons at full brightness."""
    photons = _PHOTONS[severity - 1] / _scale(image)
    return _image(generator.poisson(_values(image) * photons) / photons)


def gaussian_blur(image: Image, severity: int, generator: np.random.Generator) -> Image:
    """Blur by a Gaussian, at 224 pixels with a standard deviation of 1 to 6 pixels; Pillow's approximation."""
    from PIL import ImageFilter

    return image.filter(ImageFilter.GaussianBlur(_BLUR[severity - 1] * _scale(image)))


def motion_blur(image: Image, severity: int, generator: np.random.Generator) -> Image:
    """Blur towards one side, along a line at most 45 degrees off the horizontal.

    The weights are half a Gaussian, at 224 pixels with a standard deviation of 3 to 15 pixels, cut off at 2.5 of
    these. Beyond its edges the image is mirrored.
    """
    from PIL import Image as pillow

    deviation = _MOTION[severity - 1] * _scale(image)
    reach = 2.5 * deviation
    angle = generator.uniform(-math.pi / 4, math.pi / 4)
    # a step of at most a pixel leaves no gaps
    steps = np.linspace(0.0, reach, math.ceil(reach) + 1)
    weights = np.exp(-0.5 * (steps / deviation) ** 2)
    margin = math.ceil(reach) + 1
    around = np.pad(np.asarray(image), ((margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    source = pillow.fromarray(around)
    total = np.zeros((image.height, image.width, 3), np.float32)
    for step, weight in zip(steps, weights / weights.sum() / 255.0, strict=True):
        shift = (1, 0, margin + step * math.cos(angle), 0, 1, margin + step * math.sin(angle))
        moved = source.transform(image.size, pillow.Transform.AFFINE, shift, pillow.Resampling.BILINEAR)
        total += np.float32(weight) * np.asarray(moved)
    return _image(total)


def brightness(image: Image, severity: int, generator: np.random.Generator) -> Image:
    """Add .1 to .5 of the full range to the value of each pixel (HSV); its hue and saturation stay."""
    values = _values(image)
    value = values.max(axis=2, keepdims=True)
    raised = np.minimum(value + _BRIGHTNESS[severity - 1], 1.0)
    # at a fixed hue and saturation, colours are proportional to the value; black has neither, and becomes grey
    return _image(np.where(value > 0, values * raised / np.where(value > 0, value, 1.0), raised))


def contrast(image: Image, severity: int, generator: np.random.Generator) -> Image:
    """Bring each colour nearer to its mean over the image: to .4 to .05 of the distance."""
    values = _values(image)
    mean = values.mean(axis=(0, 1))
    return _image(mean + _CONTRAST[severity - 1] * (values - mean))


def jpeg(image: Image, severity: int, generator: np.random.Generator) -> Image:
    """Compress as JPEG of quality 25 to 7 (libjpeg's scale from 1 to 95)."""
    from PIL import Image as pillow

    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY[severity - 1])
    with pillow.open(file) as compressed:
        return compressed.convert("RGB")


def pixelate(image: Image, severity: int, generator: np.random.Generator) -> Image:
    """Shrink to .6 to .25 of the side, and enlarge again without smoothing."""
    from PIL import Image as pillow

    share = _PIXELATE[severity - 1]
    small = (max(int(image.width * share), 1), max(int(image.height * share), 1))
    return image.resize(small, pillow.Resampling.BOX).resize(image.size, pillow.Resampling.NEAREST)


CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType(
    {
        "gaussian_noise": gaussian_noise,
        "shot_noise": shot_noise,
        "gaussian_blur": gaussian_blur,
        "motion_blur": motion_blur,
        "brightness": brightness,
        "contrast": contrast,
        "jpeg": jpeg,
        "pixelate": pixelate,
    }
)
"""Corruptions by name: functions of an 8-bit RGB image, a severity from 1 to 5, and a random generator."""


def corrupt(image: Image, name: str, severity: int, generator: np.random.Generator) -> Image:
    """Corrupt an image.

    Parameters
    ----------
    image
        A Pillow image as the network is to see it, resized and cropped; modes other than RGB are converted.
    name
        One of :data:`CORRUPTIONS`.
    severity
        1 (slight) to 5 (heavy); 0 leaves the image as it is.
    generator
        Where random numbers come from: the same ones give the same image.

    Returns
    -------
    PIL.Image.Image
        A new 8-bit RGB image of the same size.

    Raises
    ------
    InputError
        There is no such corruption or severity.
    """
    (name,) = resolve_corruptions([name])
    severity = whole_number("severity", severity, 0, MAX_SEVERITY)
    rgb = image.convert("RGB")
    return rgb if severity == 0 else CORRUPTIONS[name](rgb, severity, generator)


def resolve_corruptions(names: Iterable[str] | None) -> tuple[str, ...]:
    """Check names of corruptions.

    Parameters
    ----------
    names
        Some of :data:`CORRUPTIONS`; None for all.

    Returns
    -------
    tuple of str
        Each name once.

    Raises
    ------
    InputError
        A name is unknown, or there is none.
    """
    chosen = tuple(dict.fromkeys(CORRUPTIONS if names is None else names))
    for name in chosen:
        if name not in CORRUPTIONS:
            raise InputError(
                f"unknown corruption {printable(name)!r}{nearest(name, CORRUPTIONS)}: use some of "
                f"{', '.join(CORRUPTIONS)}"
            )
    if not chosen:
        raise InputError(f"no corruption is named: use some of {', '.join(CORRUPTIONS)}")
    return chosen


def _scale(image: Image) -> float:
    """Side of the image in units of that which the strengths were made for."""
    return min(image.size) / _SIDE


def _values(image: Image) -> Floats:
    """Pixels from 0 to 1, shape (height, width, 3)."""
    values: Floats = np.asarray(image) / 255.0
    return values


def _image(values: npt.NDArray[np.floating]) -> Image:
    from PIL import Image as pillow

    return pillow.fromarray(np.round(np.clip(values, 0.0, 1.0) * 255).astype(np.uint8))
