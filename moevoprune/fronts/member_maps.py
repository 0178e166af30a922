"""Where every member of a front looks: coarse heat maps of a few images for all members at once."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from moevoprune.errors import InputError, printable, words_of
from moevoprune.features.npz_files import read_arrays
from moevoprune.files import atomic_path
from moevoprune.fronts.front import Front
from moevoprune.fronts.run_folder import MEMBER_MAPS
from moevoprune.heads.head import TrainedHead

if TYPE_CHECKING:
    from PIL.Image import Image

    from moevoprune.features.backbones import Backbone

__all__ = ["MemberMaps", "grad_cam_of_heads", "load_member_maps", "make_member_maps"]

Floats = npt.NDArray[np.float32]


_FORMAT = 1
_THUMBNAIL, _QUALITY = 160, 80
# values of a feature map and of its gradients held at a time: 64 MB each
_CHUNK = 2**24


@dataclass(frozen=True, eq=False)
class MemberMaps:
    """Grad-CAM heat maps of a few images, for every member of a front and, last, for the dense head.

    Attributes
    ----------
    keys
        Names of the images, printable.
    labels
        True classes, numbers of the front's classes, -1 where that is not known, shape (images,).
    thumbnails
        JPEG files of what the network sees, at most 160 x 160 pixels.
    heat
        For the logit of the class that a head predicts, as coarse as the backbone's last feature map: 255 where
        the map of this head and image is strongest, 0 where nothing speaks for the class; uint8, shape
        (members + 1, images, h, w).
    predicted
        Predicted classes, -1 for a head that has diverged, shape (members + 1, images).
    confidence
        Softmax probability of that class, 0 for a head that has diverged, float16, shape (members + 1, images).
    """

    keys: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    thumbnails: tuple[bytes, ...]
    heat: npt.NDArray[np.uint8]
    predicted: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def n_members(self) -> int:
        """Number of members, the dense head not counted."""
        return len(self.heat) - 1

    def save(self, folder: str | Path) -> Path:
        """Write ``member_maps.npz`` into a folder that exists.

        Raises
        ------
        InputError
            The file cannot be written.
        """
        path = Path(folder) / MEMBER_MAPS
        with atomic_path(path) as temporary:
            np.savez_compressed(
                temporary,
                allow_pickle=False,
                format=np.array(_FORMAT),
                keys=np.array(self.keys, dtype=np.str_),
                labels=self.labels,
                thumbnails=np.frombuffer(b"".join(self.thumbnails), dtype=np.uint8),
                thumbnail_ends=np.cumsum([len(thumbnail) for thumbnail in self.thumbnails], dtype=np.int64),
                heat=self.heat,
                predicted=self.predicted,
                confidence=self.confidence,
            )
        return path


def load_member_maps(folder: str | Path) -> MemberMaps | None:
    """Read the ``member_maps.npz`` of a run folder; None where there is none.

    Raises
    ------
    InputError
        The file cannot be read, or is damaged.
    """
    path = Path(folder) / MEMBER_MAPS
    try:
        return _from_arrays(read_arrays(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{path}: is damaged or of another version ({words_of(error)}): remove it, and no heat maps are shown"
        ) from None


def make_member_maps(
    front: Front, backbone: Backbone, images: Sequence[Image], labels: npt.ArrayLike, keys: Sequence[str]
) -> MemberMaps:
    """Explain what each member and the dense head predict for some images.

    Each image goes once through the part of the backbone below its last feature map, and all heads share the map.

    Parameters
    ----------
    front
        Whose heads to explain; a classification.
    backbone
        The network that its features came from; with a feature map.
    images
        As decoded, neither resized nor cropped, at least one.
    labels
        True classes, numbers of the front's classes, or -1; shape (images,).
    keys
        Names of the images.

    Raises
    ------
    InputError
        The heads predict no classes or read other features, the backbone has no feature map, or there is no image.
    """
    if front.dense_head.task != "classification":
        raise InputError("heat maps of all members need classes: regression heads predict none")
    if not images or len(keys) != len(images) or np.shape(labels) != (len(images),):
        raise InputError(f"{len(images)} images, {len(keys)} names: give at least one image, and a label for each")
    if backbone.feature_size != front.dense_head.n_features:
        raise InputError(
            f"the heads read {front.dense_head.n_features} features, but {backbone.settings.name} gives "
            f"{backbone.feature_size}: use the backbone that the features came from"
        )
    lower, upper = backbone.split_at_map()
    preparation = backbone.preprocessing
    crops = [preparation.cropped(image) for image in images]
    with torch.no_grad():
        # one by one: a large map of many images would not fit in memory everywhere
        maps = torch.cat([lower(preparation.normalised(crop)[None].to(backbone.device)) for crop in crops])
    heat, outputs = grad_cam_of_heads(upper, [*front.heads, front.dense_head], maps)
    finite: npt.NDArray[np.bool_] = np.all(np.isfinite(outputs), axis=2)
    logits = np.where(finite[..., None], outputs, 0.0).astype(np.float64)
    exponentials = np.exp(logits - logits.max(axis=2, keepdims=True))
    certainty = exponentials.max(axis=2) / exponentials.sum(axis=2)
    strongest = heat.max(axis=(2, 3), keepdims=True)
    relative = np.divide(heat, strongest, out=np.zeros_like(heat), where=strongest > 0)
    return MemberMaps(
        keys=tuple(printable(key) for key in keys),
        labels=np.asarray(labels, dtype=np.int64),
        thumbnails=tuple(_thumbnail(crop) for crop in crops),
        heat=np.round(255 * relative).astype(np.uint8),
        predicted=np.where(finite, logits.argmax(axis=2), -1).astype(np.int64),
        confidence=np.where(finite, certainty, 0.0).astype(np.float16),
    )


def grad_cam_of_heads(
    upper: torch.nn.Module, heads: Sequence[TrainedHead], maps: torch.Tensor
) -> tuple[Floats, Floats]:
    """Grad-CAM of the predicted class's logit, for many heads on the same feature maps.

    The same as captum's ``LayerGradCam`` for each head in turn (Selvaraju et al., arXiv 1610.02391): the channels
    of the map, weighted by the mean gradient of the logit, added up, and cut off at 0. Heads differ only above the
    features, so that their gradients with respect to the features are made first, one small matrix each, and one
    pass then takes those of all heads down through ``upper``.

    Parameters
    ----------
    upper
        From feature maps, shape (n, c, h, w), to all features, shape (n, n_features); in evaluation mode.
    heads
        Classification heads on these features.
    maps
        Feature maps of the images, shape (n, c, h, w), on the device of `upper`.

    Returns
    -------
    heat : ndarray, shape (heads, n, h, w)
        In units of the logit, 0 and up; 0 for a head that has diverged.
    outputs : ndarray, shape (heads, n, classes)
        Logits.
    """
    maps = maps.detach()
    with torch.no_grad():
        # a copy: an activation that works in place would change the maps
        features = upper(maps.clone())
    outputs, slopes = zip(*(_slopes(head, features) for head in heads), strict=True)
    by_image = torch.stack(slopes, dim=1)
    step = max(1, _CHUNK // max(maps[0].numel(), 1))
    heat = []
    for image, of_heads in zip(maps, by_image, strict=True):
        weights = torch.cat([_down(upper, image, part) for part in of_heads.split(step)])
        heat.append(torch.einsum("mc,chw->mhw", weights, image).relu())
    # a diverged head's gradient is no number; it has no heat
    found = torch.nan_to_num(torch.stack(heat, dim=1), nan=0.0, posinf=0.0)
    return found.cpu().numpy(), torch.stack(outputs).cpu().numpy()


def _slopes(head: TrainedHead, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A head's logits, and the gradient of the largest with respect to all features, shape (n, n_features)."""
    inputs = torch.from_numpy(head.inputs).to(features.device)
    read = features.detach().index_select(1, inputs).requires_grad_()
    with torch.enable_grad():
        logits = head.to_module().to(features.device)(read)
        (slopes,) = torch.autograd.grad(logits.max(dim=1).values.sum(), read)
    everything = torch.zeros_like(features).index_copy_(1, inputs, slopes)
    return logits.detach(), everything


def _down(upper: torch.nn.Module, image: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
    """Take gradients with respect to the features, shape (m, n_features), to the channels' means, shape (m, c)."""
    many = image.expand(len(slopes), *image.shape).clone().requires_grad_()
    with torch.enable_grad():
        (gradients,) = torch.autograd.grad(upper(many.clone()), many, slopes)
    return gradients.mean(dim=(2, 3))


def _thumbnail(crop: Image) -> bytes:
    small = crop.copy()
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return file.getvalue()


def _from_arrays(arrays: dict[str, npt.NDArray[Any]]) -> MemberMaps:
    joined, ends = arrays["thumbnails"], arrays["thumbnail_ends"]
    keys, labels, heat = arrays["keys"], arrays["labels"], arrays["heat"]
    predicted, confidence = arrays["predicted"], arrays["confidence"]
    fits = (
        int(arrays["format"]) == _FORMAT
        and keys.ndim == 1
        and keys.dtype.kind == "U"
        and joined.ndim == 1
        and joined.dtype == heat.dtype == np.uint8
        and labels.shape == ends.shape == keys.shape
        and all(array.dtype.kind == "i" for array in (labels, ends, predicted))
        and heat.ndim == 4
        and min(heat.shape[0], *heat.shape[2:]) > 0
        and predicted.shape == confidence.shape == heat.shape[:2]
        and heat.shape[1] == len(keys)
        and confidence.dtype == np.float16
        and bool(((confidence >= 0) & (confidence <= 1)).all())
        and bool((labels >= -1).all() and (predicted >= -1).all())
        and bool((np.diff(ends, prepend=0, append=len(joined)) >= 0).all())
        and (int(ends[-1]) if len(ends) else 0) == len(joined)
    )
    if not fits:
        raise ValueError("the arrays do not fit together")
    starts = [0, *ends.tolist()]
    thumbnails = tuple(joined[start:end].tobytes() for start, end in zip(starts, ends.tolist(), strict=False))
    for thumbnail in thumbnails:
        _check_thumbnail(thumbnail)
    return MemberMaps(
        keys=tuple(printable(str(key)) for key in keys),
        labels=labels.astype(np.int64),
        thumbnails=thumbnails,
        heat=heat,
        predicted=predicted.astype(np.int64),
        confidence=confidence,
    )


def _check_thumbnail(content: bytes) -> None:
    """Raise ValueError for what is no small JPEG."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            if max(image.size) > _THUMBNAIL:
                raise ValueError("too large")
            image.load()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError("no image") from error
