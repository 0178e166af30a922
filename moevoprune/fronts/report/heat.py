"""Heat maps of every member over a few images, as plain values for the page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moevoprune.errors import InputError
from moevoprune.fronts.report.pictures import data_address
from moevoprune.fronts.run_folder import MEMBER_MAPS

if TYPE_CHECKING:
    from moevoprune.fronts.front import Front
    from moevoprune.fronts.member_maps import MemberMaps

__all__ = ["HeatView", "view_heat"]

# as the figures of ``moevoprune explain`` have it: opacity and colour both say how strong it is
_COOLEST, _HOTTEST, _MOST_ALPHA = 0.25, 0.98, 0.85
_COLORS = 32
_MOST_IMAGES = 24
_MOST_BYTES = 2_000_000


@dataclass(frozen=True, eq=False)
class HeatView:
    """Heat maps that belong to a front.

    Attributes
    ----------
    maps
        Of all members and, last, of the dense head.
    classes
        Names of the classes.
    shown
        Number of images that the page has room for, the first ones.
    """

    maps: MemberMaps
    classes: tuple[str, ...]
    shown: int

    def caption(self, member: int, image: int) -> str:
        """What a member says of an image, and whether that is right; -1 is the dense head."""
        guess, label = int(self.maps.predicted[member, image]), int(self.maps.labels[image])
        if guess < 0:
            return "no prediction"
        text = f"{self.classes[guess]}, {100 * float(self.maps.confidence[member, image]):.0f} %"
        if label < 0:
            return text
        return f"✓ {text}" if guess == label else f"✗ {text}; it is {self.classes[label]}"

    def overlay(self, member: int, image: int) -> str:
        """Address of a picture with a member's heat laid over it."""
        from PIL import Image

        with Image.open(io.BytesIO(self.maps.thumbnails[image]), formats=["JPEG"]) as photo:
            grey = photo.convert("L")
        heat = Image.fromarray(self.maps.heat[member, image]).resize(grey.size, Image.Resampling.BICUBIC)
        strength = np.asarray(heat, dtype=np.float64)[..., None] / 255
        color = np.array(self._colors, dtype=np.float64)[
            np.round(strength[..., 0] * (_COLORS - 1)).astype(np.int64)
        ]
        alpha = _MOST_ALPHA * strength
        blend = (1 - alpha) * np.asarray(grey, dtype=np.float64)[..., None] + alpha * color
        packed = io.BytesIO()
        Image.fromarray(np.round(blend).astype(np.uint8)).save(packed, "jpeg", quality=82)
        return data_address(packed.getvalue(), "jpeg")

    def to_data(self) -> dict[str, Any]:
        """As plain values for the page's script."""
        _, _, rows, columns = self.maps.heat.shape
        return {
            "photos": [data_address(photo, "jpeg") for photo in self.maps.thumbnails[: self.shown]],
            "rows": rows,
            "columns": columns,
            "heat": base64.b64encode(np.ascontiguousarray(self.maps.heat[:, : self.shown]).tobytes()).decode(
                "ascii"
            ),
            "colors": self._colors,
            "alpha": _MOST_ALPHA,
            "captions": [
                [self.caption(member, image) for image in range(self.shown)]
                for member in range(len(self.maps.heat))
            ],
        }

    @cached_property
    def _colors(self) -> list[list[int]]:
        import matplotlib

        colors = matplotlib.colormaps["inferno"](np.linspace(_COOLEST, _HOTTEST, _COLORS))
        rounded: list[list[int]] = np.round(255 * colors[:, :3]).astype(np.int64).tolist()
        return rounded


def view_heat(folder: Path, front: Front, classes: tuple[str, ...], left_out: list[str]) -> HeatView | None:
    """Heat maps of a run folder; None where there are none, or none of this front.

    Parameters
    ----------
    folder
        The run folder.
    front
        Its front.
    classes
        Names of its classes.
    left_out
        Is told what the page has no room for, or what cannot be read.
    """
    if not (folder / MEMBER_MAPS).exists():
        return None
    from moevoprune.fronts.member_maps import load_member_maps

    try:
        maps = load_member_maps(folder)
    except InputError:
        maps = None
    if maps is None or not _belongs(maps, front, len(classes)):
        left_out.append(f"heat maps of the members: {MEMBER_MAPS} is damaged, or of another front")
        return None
    per_image = int(np.prod(maps.heat.shape)) // max(len(maps), 1)
    room = min(_MOST_IMAGES, _MOST_BYTES // max(per_image, 1))
    sizes = np.cumsum([len(photo) for photo in maps.thumbnails])
    shown = min(len(maps), room, int((sizes <= _MOST_BYTES).sum()))
    if shown < len(maps):
        left_out.append(f"heat maps of {len(maps) - shown} of {len(maps)} images")
    return HeatView(maps, classes, shown) if shown else None


def _belongs(maps: MemberMaps, front: Front, n_classes: int) -> bool:
    labels = (maps.labels, maps.predicted)
    return maps.n_members == len(front) and all(((part >= -1) & (part < n_classes)).all() for part in labels)
