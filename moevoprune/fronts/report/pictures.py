"""Pictures as ``data:`` addresses, so that the page is one file."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from moevoprune.features.decoding import silenced_warnings
from moevoprune.files import open_regular

__all__ = ["Picture", "data_address", "read_picture"]

_MOST_WIDTH = 1600
_MOST_PIXELS = 40_000_000
# what the pages of other formats can hold, and more than any picture is worth
_MOST_HEIGHT, _MOST_BYTES = 16_000, 4_000_000


@dataclass(frozen=True)
class Picture:
    """A picture in the page.

    Attributes
    ----------
    address
        Its content, as a ``data:`` address.
    width, height
        In pixels.
    alt
        What it shows, for those who do not see it.
    caption
        What stands below it.
    """

    address: str
    width: int
    height: int
    alt: str
    caption: str


def data_address(content: bytes, kind: str) -> str:
    """Make a ``data:`` address of an image's bytes; ``kind`` is ``png`` or ``jpeg``."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def read_picture(path: Path, alt: str, caption: str, photo: bool = False) -> Picture | None:
    """Read an image file and make it small; None where there is none that can be read.

    Parameters
    ----------
    path
        The file.
    alt, caption
        See :class:`Picture`.
    photo
        Whether it is of photographs, which JPEG holds best, and not of lines.
    """
    from PIL import Image

    try:
        with open_regular(path) as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            return None
        # of a size that Pillow warns of, and this function refuses
        with silenced_warnings(), Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            large = image.width * image.height > _MOST_PIXELS or image.height > _MOST_HEIGHT
            if large:
                return None
            small = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        # an optional picture that is missing or broken must not cost the report
        return None
    shrunk = small.width > _MOST_WIDTH
    if not photo and not shrunk:
        return Picture(data_address(content, "png"), *small.size, alt=alt, caption=caption)
    if shrunk:
        small.thumbnail((_MOST_WIDTH, small.height))
    packed = io.BytesIO()
    kind = "jpeg" if photo else "png"
    small.save(packed, kind, quality=82)
    return Picture(data_address(packed.getvalue(), kind), *small.size, alt=alt, caption=caption)
