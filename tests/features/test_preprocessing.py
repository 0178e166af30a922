"""Preparing images: the same as torchvision's transforms, and safe for images of any shape."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models

from moevoprune.errors import InputError
from moevoprune.features.backbone_settings import BackboneSettings
from moevoprune.features.preprocessing import Preprocessing, default_preprocessing, resolve_preprocessing


def _picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    generator = np.random.default_rng(width * 10_000 + height)
    # smooth and noisy at once
    rows = np.linspace(0, 200, height)[:, None, None] + generator.integers(0, 56, (height, width, 3))
    return Image.fromarray(rows.astype(np.uint8)).convert(mode)


WEIGHTS = [
    models.ResNet50_Weights.DEFAULT,
    models.ResNet18_Weights.DEFAULT,
    models.EfficientNet_B0_Weights.DEFAULT,
    models.EfficientNet_V2_L_Weights.DEFAULT,
    models.ViT_B_16_Weights.IMAGENET1K_V1,
    models.ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1,
    models.Swin_V2_T_Weights.DEFAULT,
    models.Inception_V3_Weights.DEFAULT,
]


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_same_as_torchvision_bit_for_bit(weights):
    ours, theirs = default_preprocessing(weights), weights.transforms()
    for size in ((300, 401), (640, 480), (20, 30), (ours.resize, ours.resize), (1, 1), (500, 63)):
        picture = _picture(*size)
        tensor = ours(picture)
        assert tensor.shape == (3, ours.crop, ours.crop)
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, theirs(picture)), size


def test_every_model_has_defaults():
    for name in models.list_models(module=models):
        for weights in models.get_model_weights(name):
            preprocessing = default_preprocessing(weights)
            assert preprocessing.crop <= preprocessing.resize
            assert preprocessing.interpolation in ("bilinear", "bicubic")
    assert default_preprocessing(None) == Preprocessing(256, 224)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(2000, 200), (90, 1001), (3, 400)])
def test_elongated_images_are_as_good_as_torchvisions(size, interpolation):
    preprocessing = Preprocessing(64, 48, interpolation=interpolation, mean=(0, 0, 0), std=(1, 1, 1))
    theirs = models.ResNet18_Weights.DEFAULT.transforms(
        crop_size=48,
        resize_size=64,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        interpolation=_mode(interpolation),
    )
    picture = _picture(*size)
    # Pillow computes in 8 bits, so one level more or less is rounding
    assert float((preprocessing(picture) - theirs(picture)).abs().max()) <= 2 / 255


def _mode(word: str) -> object:
    from torchvision.transforms import InterpolationMode

    return InterpolationMode(word)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(1, 50_000), (50_000, 1), (7, 30_000)])
def test_a_line_takes_no_room(size, interpolation):
    tensor = Preprocessing(4096, 64, interpolation=interpolation)(_picture(*size))
    assert tensor.shape == (3, 64, 64)
    assert bool(torch.isfinite(tensor).all())


def test_other_modes_are_converted():
    picture = _picture(30, 40)
    preprocessing = Preprocessing(32, 32)
    assert torch.equal(preprocessing(picture.convert("RGBA")), preprocessing(picture))
    grey = picture.convert("L")
    assert torch.equal(preprocessing(grey), preprocessing(grey.convert("RGB")))


def test_pickles_and_records():
    preprocessing = Preprocessing(100, 90, interpolation="bicubic")
    assert pickle.loads(pickle.dumps(preprocessing)) == preprocessing
    assert json.loads(json.dumps(preprocessing.record())) == {
        "resize": 100,
        "crop": 90,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "interpolation": "bicubic",
    }


@pytest.mark.parametrize(
    ("given", "resize", "crop"),
    [
        ({}, 256, 224),
        ({"size": 300}, 300, 224),
        ({"size": 128}, 128, 128),
        ({"crop": 128}, 256, 128),
        ({"crop": 300}, 300, 300),
        ({"size": 64, "crop": 32}, 64, 32),
        ({"size": 64, "crop": 64}, 64, 64),
    ],
)
def test_settings_change_defaults(given, resize, crop):
    settings = BackboneSettings(**given, std=[1.0, 2.0, 3.0], interpolation="lanczos")
    resolved = resolve_preprocessing(Preprocessing(), settings)
    assert resolved == Preprocessing(resize, crop, std=(1.0, 2.0, 3.0), interpolation="lanczos")


def test_a_crop_larger_than_the_size():
    with pytest.raises(InputError, match="crop 65 is larger than size 64"):
        resolve_preprocessing(Preprocessing(), BackboneSettings(size=64, crop=65))
    with pytest.raises(InputError, match="cropped to 65"):
        Preprocessing(64, 65)
    with pytest.raises(InputError, match="cropped to 0"):
        Preprocessing(64, 0)
