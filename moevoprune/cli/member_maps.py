"""Heat maps of all members, made where a run on images ends."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError, printable

if TYPE_CHECKING:
    from PIL.Image import Image

    from moevoprune.cli.config import RunConfig
    from moevoprune.features.backbones import Backbone
    from moevoprune.features.image_set import ImageSet
    from moevoprune.fronts.front import Front
    from moevoprune.fronts.member_maps import MemberMaps

__all__ = ["member_maps_of_run", "pick_images"]

# about so many images, with a few of each class where classes are few
_FEW, _MOST = 8, 12


def member_maps_of_run(
    config: RunConfig, front: Front, say: Callable[[str], None] | None = None
) -> MemberMaps | None:
    """Draw coarse heat maps of a few test images for every member of a run's front.

    It costs loading the backbone, and about ten images. Nothing here stops a run that has its front.

    Parameters
    ----------
    config
        Settings of the run.
    front
        Its front.
    say
        Told the reason where there are no maps; None to be quiet.

    Returns
    -------
    MemberMaps or None
        None where the run's features did not come from images, the backbone has no feature map, the front has no
        members, or the images cannot be read any more.
    """
    from moevoprune.fronts.member_maps import make_member_maps

    if config.data.images is None or len(front) == 0:
        return None
    try:
        backbone, images = _open(config)
        if backbone.feature_map is None:
            raise InputError(
                f"{backbone.settings.name} ends in tokens, not in a feature map that could be laid over an image"
            )
        chosen = pick_images(images)
        known = {printable(name): number for number, name in enumerate(front.class_names)}
        numbers = [known.get(printable(name), -1) for name in images.class_names]
        return make_member_maps(
            front,
            backbone,
            list(chosen.values()),
            [numbers[images.labels[index]] for index in chosen],
            [images.keys[index].replace("\\", "/").rsplit("/", 1)[-1] for index in chosen],
        )
    except InputError as error:
        if say is not None:
            say(f"heat maps of the members are left out: {error}")
        return None


def pick_images(images: ImageSet) -> dict[int, Image]:
    """Choose test images to show: evenly spread over each class, of one class after the other.

    Two or more of each class where there are few classes, one each of 5 to 12; of more classes, 12 spread evenly.

    Parameters
    ----------
    images
        With parts and classes.

    Returns
    -------
    dict
        At most 12 images, decoded, by their numbers; those that cannot be read are passed over.

    Raises
    ------
    InputError
        There are none.
    """
    from moevoprune.features.decoding import UnreadableImageError
    from moevoprune.fronts.predictions import evenly

    def readable(indices: npt.NDArray[np.int64]) -> Iterator[tuple[int, Image]]:
        for index in indices.tolist():
            with suppress(UnreadableImageError):
                yield index, images.open(index)

    test = images.rows("test")
    labels = images.labels[test]
    classes = np.unique(labels)
    each = max(1, _FEW // max(len(classes), 1))
    chosen: dict[int, Image] = {}
    for label in classes[evenly(len(classes), _MOST)]:
        members = test[labels == label]
        for part in np.array_split(members, min(each, len(members))):
            # from the middle of its part on, the next readable one
            around = np.concatenate([part[len(part) // 2 :], part[: len(part) // 2]])
            chosen.update(itertools.islice(readable(around), 1))
    if not chosen:
        raise InputError(f"{images.name}: not one of the test images can be read")
    return chosen


def _open(config: RunConfig) -> tuple[Backbone, ImageSet]:
    """The backbone of a run and its images, divided as they were."""
    from moevoprune.cli.data import extract_images
    from moevoprune.device import resolve_device
    from moevoprune.features.backbone_settings import BackboneSettings
    from moevoprune.features.backbones import load_backbone
    from moevoprune.features.images import find_images

    data = config.data
    source = data.images or ""
    is_folder = Path(source).is_absolute()
    images = find_images(
        source, None if is_folder else data.root, not is_folder and data.download, skip_bad=data.skip_bad
    )
    if images.parts is None:
        # the split asks for the content of all images; their features are in the cache
        extractor, extraction = extract_images(config)
        return extractor.backbone, extraction.images
    return load_backbone(config.backbone or BackboneSettings(), resolve_device(config.compute.device)), images
