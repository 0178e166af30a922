"""What a user says about a backbone: network, weights, layer, preprocessing."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = ["BackboneSettings"]


class BackboneSettings(BaseModel):
    """Which network, with which weights, gives the features, and how images are prepared for it.

    Parameters
    ----------
    name
        A classification model of torchvision, e.g. ``"resnet50"``; see
        :func:`~moevoprune.features.backbones.available_backbones`.
    args
        Arguments of its constructor, e.g. ``{"width_mult": 0.35}``.
    weights
        ``"default"`` (torchvision's best, downloaded once), ``"none"`` (random), the name of other weights of the
        model such as ``"IMAGENET1K_V1"``, or the path of a state dict (``torch.save`` or ``.safetensors``).
    layer
        Node whose output is used instead of the penultimate pooled features; see
        :func:`~moevoprune.features.backbones.backbone_layers`. Feature
        maps are averaged over space, tokens over tokens.
    size
        Length of the shorter side that images are resized to, in pixels; by default what the weights ask for.
    crop
        Side of the square cut from the centre, in pixels.
    mean, std
        Of the three channels, in units of the full range (0..1).
    interpolation
        How images are resized.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = "resnet50"
    args: dict[str, bool | int | float | str | list[Any]] = Field(default_factory=dict)
    weights: str = Field(default="default", min_length=1)
    layer: str | None = Field(default=None, min_length=1)
    # beyond 4096 a slip is likelier than a wish, and one feature map would fill the memory
    size: int | None = Field(default=None, ge=1, le=4096)
    crop: int | None = Field(default=None, ge=1, le=4096)
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = None

    @field_validator("args")
    @classmethod
    def _check_plain(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not all(map(_is_plain, value.values())):
            raise ValueError("give numbers of at most 64 bits, words, true, false, or lists of these")
        return value

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _list_to_tuple(cls, value: Any) -> Any:
        # TOML knows lists only
        return tuple(value) if isinstance(value, list) else value

    @field_validator("mean", "std")
    @classmethod
    def _check_finite(cls, value: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
        if value is not None and not all(math.isfinite(number) for number in value):
            raise ValueError("give three finite numbers")
        return value

    @field_validator("std")
    @classmethod
    def _check_positive(cls, value: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
        if value is not None and min(value) < 1e-6:
            raise ValueError("give three numbers of at least 1e-6")
        return value


def _is_plain(value: object, depth: int = 8) -> bool:
    """Whether a value can be written as TOML and read again: whole numbers of 64 bits, no endless nesting."""
    if isinstance(value, list):
        return depth > 0 and all(_is_plain(entry, depth - 1) for entry in value)
    return isinstance(value, str | float) or (isinstance(value, int) and -(2**63) <= value < 2**63)
