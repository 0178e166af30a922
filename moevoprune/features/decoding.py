"""Image files as 8-bit RGB: what torchvision's ImageFolder gives, except where that is plainly wrong."""

from __future__ import annotations

import codecs
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from moevoprune.errors import printable, words_of

if TYPE_CHECKING:
    from PIL.Image import Image, Transpose

__all__ = ["UnreadableImageError", "open_image", "open_regular", "silenced_warnings", "to_rgb"]

_ORIENTATION = 0x0112
# formats in which Pillow's mode "I" always stands for 16 bits, however dark the image
_SIXTEEN_BIT_FORMATS = ("PNG", "PPM")
# of Pillow's forty formats those of photographs and scans: a picture named .jpg may be any of these. Others are
# programs (EPS, which needs Ghostscript), need further programs (WMF, GRIB), or are read by code that few use
_FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "HEIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "SGI", "TGA"),
    *("TIFF", "WEBP"),
)
# how other formats start, and what they are
_OTHERS = (
    (b"%!PS", "PostScript, a program"),
    (b"\xc5\xd0\xd3\xc6", "PostScript, a program"),
    (b"%PDF", "a PDF document"),
    (b"8BPS", "a Photoshop file"),
)
_BLOCK = 1 << 20


class UnreadableImageError(Exception):
    """A file or item that does not give an image.

    Parameters
    ----------
    reason : str
        Why; kept as one printable line in the attribute of the same name. It does not name the file.
    """

    def __init__(self, reason: str) -> None:
        self.reason = printable(" ".join(reason.split()))
        super().__init__(self.reason)


def open_image(source: Path | BinaryIO) -> Image:
    """Decode an image into 8-bit RGB.

    Parameters
    ----------
    source : Path or binary file
        A regular file, or an open one that can seek.

    Returns
    -------
    PIL.Image.Image
        Mode "RGB", decoded in full, without ties to the file. See :func:`to_rgb` for how.

    Raises
    ------
    UnreadableImageError
        Whatever is wrong: no such file, no image, a damaged one, one too large for
        ``PIL.Image.MAX_IMAGE_PIXELS`` (Pillow's limit: twice that number).
    """
    if isinstance(source, str | os.PathLike):
        with open_regular(Path(source)) as file:
            return _decode(file)
    return _decode(source)


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading, and only a regular one: opening a FIFO would wait for ever.

    Raises
    ------
    UnreadableImageError
        It is absent, may not be read, or is no regular file.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UnreadableImageError("is a folder")
        if not stat.S_ISREG(mode):
            raise UnreadableImageError("is not a regular file (a FIFO, socket or device)")
        return path.open("rb")
    except (OSError, ValueError) as error:
        raise UnreadableImageError(f"cannot be read ({words_of(error)})") from None


def to_rgb(image: Image) -> Image:
    """Convert any image Pillow has opened to 8-bit RGB.

    The EXIF orientation is applied (a corrupt EXIF block is ignored); 16-bit greyscale is scaled to 8
    bits, where Pillow would clip it; everything else is ``image.convert("RGB")``, which drops
    transparency: what lies under transparent pixels shows, as in torchvision. Of several frames the
    present one, the first after opening, is taken.

    Returns
    -------
    PIL.Image.Image
        A new image of mode "RGB".

    Raises
    ------
    UnreadableImageError
        The pixels cannot be decoded or have no range to scale from.
    """
    with silenced_warnings():
        try:
            return _converted(image)
        except UnreadableImageError:
            raise
        except Exception as error:  # untrusted bytes: Pillow's plugins raise a dozen kinds
            raise UnreadableImageError(_complaint(error)) from None


# --- decoding --------------------------------------------------------------------------------------


def _decode(file: BinaryIO) -> Image:
    import PIL.Image

    with silenced_warnings():
        try:
            with PIL.Image.open(file, formats=_known_formats()) as image:
                return to_rgb(image)
        except UnreadableImageError:
            raise
        except PIL.UnidentifiedImageError:
            raise UnreadableImageError(_unidentified(file)) from None
        except Exception as error:  # untrusted bytes: Pillow's plugins raise a dozen kinds
            raise UnreadableImageError(_complaint(error)) from None


def _known_formats() -> list[str]:
    """Those of the formats that this Pillow has, plugins such as pillow-heif included."""
    import PIL.Image

    PIL.Image.init()
    return [name for name in _FORMATS if name in PIL.Image.OPEN]


def _converted(image: Image) -> Image:
    if 0 in image.size:
        raise UnreadableImageError(f"has no pixels ({image.width} x {image.height})")
    # a transposed image no longer knows its format
    origin = image.format
    image.load()
    method = _orientation(image)
    if method is not None:
        image = image.transpose(method)
    if image.mode == "F":
        raise UnreadableImageError("floating-point images have no fixed range: convert to 8 or 16 bit")
    if image.mode == "I" or image.mode.startswith("I;"):
        return _scaled(image, origin)
    if image.mode in ("La", "RGBa"):
        # Pillow knows the way to RGB only from colours not multiplied by alpha
        image = image.convert(image.mode.upper())
    return image.convert("RGB")


def _orientation(image: Image) -> Transpose | None:
    # not ImageOps.exif_transpose: that writes the block anew, which fails on many damaged ones
    from PIL.Image import Transpose

    methods = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    if image.format == "TIFF":
        # turned while loading; Pillow before 11 leaves the tag as it was
        return None
    try:
        return methods.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a damaged block says nothing about the pixels
        return None


def _scaled(image: Image, origin: str | None) -> Image:
    """Bring integers of more than 8 bits to 8, in blocks: a large image must not need many times its size."""
    import PIL.Image

    values: npt.NDArray[Any] = np.asarray(image)
    wide = True
    if image.mode == "I":
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            raise UnreadableImageError(
                f"its 32-bit values run from {low} to {high}, which is no fixed range: convert to 8 or 16 bit"
            )
        wide = origin in _SIXTEEN_BIT_FORMATS or high > 255
    result = np.empty(values.shape, dtype=np.uint8)
    rows = max(1, _BLOCK // values.shape[1])
    for top in range(0, len(values), rows):
        block = values[top : top + rows].astype(np.uint32)
        # 65535 = 255 * 257, and an odd divisor leaves no halves to round
        result[top : top + rows] = (block + 128) // 257 if wide else block
    return PIL.Image.fromarray(result).convert("RGB")


# --- warnings --------------------------------------------------------------------------------------


class _InThisThread(threading.local):
    """Stands in a warning filter where the pattern of the message would be; matches all or nothing."""

    depth = 0

    def match(self, text: str) -> bool:
        return self.depth > 0


_SILENT = _InThisThread()
_FILTER = ("ignore", _SILENT, Warning, None, 0)


@contextmanager
def silenced_warnings() -> Iterator[None]:
    """Keep warnings of this thread to themselves, without touching those of other threads.

    Pillow warns of large images and of odd metadata, which is not news to anyone who has a million
    files. `warnings.catch_warnings` swaps the filters of the whole process and, left by two threads
    in the wrong order, leaves the wrong ones behind. So one filter stays in place that asks which
    thread it is in.
    """
    filters = cast("list[Any]", warnings.filters)
    # looked for each time: pytest, for one, puts other filters in place for every test
    if not filters or filters[0] is not _FILTER:
        filters.insert(0, _FILTER)
    _SILENT.depth += 1
    try:
        yield
    finally:
        _SILENT.depth -= 1


# --- words -----------------------------------------------------------------------------------------


def _complaint(error: Exception) -> str:
    import PIL.Image

    if isinstance(error, PIL.Image.DecompressionBombError):
        numbers = [int(number) for number in re.findall(r"(\d+) pixels", str(error))]
        if len(numbers) == 2:
            size, limit = (f"{number / 1e6:,.6g}" for number in numbers)
            return (
                f"has {size} megapixels, more than the limit of {limit}: make it smaller,"
                " or raise PIL.Image.MAX_IMAGE_PIXELS"
            )
    if isinstance(error, MemoryError):
        return "does not fit in memory: make it smaller"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read ({words_of(error)})"
    return f"is damaged or cut short ({words_of(error)})"


def _unidentified(file: BinaryIO) -> str:
    try:
        file.seek(0)
        start = file.read(512)
    except (OSError, ValueError) as error:
        return f"cannot be read ({words_of(error)})"
    if not start:
        return "is empty (0 bytes)"
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the image: fetch it with 'git lfs pull'"
    other = next((what for magic, what in _OTHERS if start.startswith(magic)), None)
    if other is not None:
        return f"is {other}: convert it to PNG"
    if not start.strip(b"\0"):
        return "holds only zero bytes at its start: copy it again"
    try:
        # incremental: the last character may be cut
        text = codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        text = ""
    if text and all(char.isprintable() or char in "\t\r\n\f" for char in text):
        return f"is text, not an image (it starts with {' '.join(text.split())[:30]!r})"
    return "is not an image in a usual format (JPEG, PNG, TIFF, WebP ...), or is damaged at its start"
