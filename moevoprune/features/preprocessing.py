"""From an image to the tensor a backbone was trained on: resize, centre crop, normalise."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from moevoprune.errors import InputError
from moevoprune.features.vision import import_torchvision

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from moevoprune.features.backbone_settings import BackboneSettings

__all__ = ["Preprocessing", "default_preprocessing", "resolve_preprocessing"]

# Beyond this ratio of the sides only the part that the crop keeps is resized. It would be possible for all images,
# but the plain way alone is torchvision's bit for bit.
_EXTREME_RATIO = 8


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image before the backbone sees it; the same as torchvision's transforms of its weights.

    Instances can be pickled, so that worker processes can use them.

    Parameters
    ----------
    resize
        Length of the shorter side after resizing, in pixels.
    crop
        Side of the square cut from the centre, in pixels; at most `resize`.
    mean, std
        Of the red, green and blue channel, in units of the full range (0..1): `mean` is subtracted, then the
        result is divided by `std`.
    interpolation
        ``"nearest"``, ``"bilinear"``, ``"bicubic"`` or ``"lanczos"``; all but the first smooth when they shrink.

    Raises
    ------
    InputError
        The crop is larger than the resized image, or a length is not positive.
    """

    resize: int = 256
    crop: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= self.resize:
            raise InputError(
                f"images are resized to {self.resize} pixels and cropped to {self.crop}:"
                " give a crop that is at least 1 and at most the size"
            )

    def __call__(self, image: Image) -> Tensor:
        """Prepare one image.

        Parameters
        ----------
        image
            A Pillow image; modes other than RGB are converted.

        Returns
        -------
        Tensor, shape (3, crop, crop)
            float32.

        Raises
        ------
        InputError
            torchvision cannot be imported.
        """
        return self.normalised(self.cropped(image))

    def cropped(self, image: Image) -> Image:
        """Resize an image and cut out its centre: what the network sees of it.

        Parameters
        ----------
        image
            A Pillow image; modes other than RGB are converted.

        Returns
        -------
        PIL.Image.Image
            8-bit RGB, crop x crop pixels.

        Raises
        ------
        InputError
            torchvision cannot be imported.
        """
        functional = import_torchvision().transforms.functional
        if image.mode != "RGB":
            image = image.convert("RGB")
        if max(image.size) > _EXTREME_RATIO * min(image.size):
            return self._resized_centre(image)
        mode = functional.InterpolationMode(self.interpolation)
        resized = functional.resize(image, [self.resize], interpolation=mode, antialias=True)
        cut: Image = functional.center_crop(resized, [self.crop])
        return cut

    def normalised(self, image: Image) -> Tensor:
        """Turn what :meth:`cropped` gave into the network's input, shape (3, crop, crop), float32."""
        functional = import_torchvision().transforms.functional
        import torch

        values = functional.convert_image_dtype(functional.pil_to_tensor(image), torch.float32)
        tensor: Tensor = functional.normalize(values, list(self.mean), list(self.std))
        return tensor

    def record(self) -> dict[str, object]:
        """Return the values in plain types, for JSON or TOML."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    def _resized_centre(self, image: Image) -> Image:
        """Resize what the crop keeps: a line of 1 x 5000 pixels would become 256 x 1,280,000 otherwise."""
        from PIL import Image as pillow

        resample = {
            "nearest": pillow.Resampling.NEAREST,
            "bilinear": pillow.Resampling.BILINEAR,
            "bicubic": pillow.Resampling.BICUBIC,
            "lanczos": pillow.Resampling.LANCZOS,
        }[self.interpolation]
        shorter = min(image.size)
        box = [0.0] * 4
        for axis, length in enumerate(image.size):
            # lengths and rounding are torchvision's
            full = self.resize if length == shorter else int(self.resize * length / shorter)
            start = round((full - self.crop) / 2.0)
            box[axis] = start * length / full
            box[axis + 2] = min((start + self.crop) * length / full, length)
        left, top, right, bottom = box
        return image.resize((self.crop, self.crop), resample, box=(left, top, right, bottom))


def default_preprocessing(weights: Any) -> Preprocessing:
    """Read the transforms of a member of a torchvision weights enumeration.

    Parameters
    ----------
    weights
        The member, or None for a model without weights, which gets what most ImageNet models use.

    Raises
    ------
    InputError
        The transforms are no resizing, cropping and normalising.
    """
    if weights is None:
        return Preprocessing()
    transforms = weights.transforms()
    try:
        return Preprocessing(
            resize=int(transforms.resize_size[0]),
            crop=int(transforms.crop_size[0]),
            mean=tuple(transforms.mean),
            std=tuple(transforms.std),
            interpolation=str(transforms.interpolation.value),
        )
    except (AttributeError, IndexError, TypeError) as error:
        raise InputError(f"the transforms of {weights} are of an unknown kind ({error})") from None


def resolve_preprocessing(defaults: Preprocessing, settings: BackboneSettings) -> Preprocessing:
    """Put the user's settings over the defaults of the weights.

    A `size` alone that is smaller than the default crop lowers the crop to it; a `crop` alone that is larger than
    the default size raises the size to it.

    Raises
    ------
    InputError
        Both are given, and the crop is larger.
    """
    size, crop = settings.size, settings.crop
    if size is not None and crop is not None and crop > size:
        raise InputError(f"crop {crop} is larger than size {size}: give a crop of at most the size")
    resize = size if size is not None else max(defaults.resize, crop or 0)
    given = {
        name: value for name in ("mean", "std", "interpolation") if (value := getattr(settings, name)) is not None
    }
    return replace(defaults, resize=resize, crop=crop if crop is not None else min(defaults.crop, resize), **given)
