"""Corruptions of images: held to closed forms, and to other implementations."""

from __future__ import annotations

import colorsys
import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from moevoprune.errors import InputError
from moevoprune.features.corruptions import CORRUPTIONS, corrupt, resolve_corruptions


def generator(seed=3):
    return np.random.default_rng(seed)


def plain(side=224, level=128):
    return Image.new("RGB", (side, side), (level, level, level))


def picture(side=96, seed=0):
    """Smooth shapes, fine grain, and colour."""
    rng = np.random.default_rng(seed)
    coarse = np.asarray(Image.fromarray(rng.integers(20, 220, (6, 6, 3), dtype=np.uint8)).resize((side, side)))
    return Image.fromarray(np.clip(coarse + rng.normal(0, 6, coarse.shape), 0, 255).astype(np.uint8))


def values(image):
    return np.asarray(image).astype(np.float64)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size", [(224, 224), (33, 70), (1, 1)])
def test_every_corruption_keeps_size_and_mode(name, size):
    image = picture().resize(size)
    before = np.asarray(image).copy()
    for severity in range(6):
        result = corrupt(image, name, severity, generator())
        assert (result.mode, result.size) == ("RGB", size)
    np.testing.assert_array_equal(np.asarray(image), before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_damage_rises_with_severity(name):
    image = picture(224)
    damage = [
        np.abs(values(corrupt(image, name, severity, generator())) - values(image)).mean() for severity in range(6)
    ]
    assert damage[0] == 0
    assert (np.diff(damage) > 0).all(), damage


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_random_numbers_come_from_the_generator_alone(name):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, other = (np.asarray(corrupt(picture(), name, 3, generator(seed))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    is_random = name in ("gaussian_noise", "shot_noise", "motion_blur")
    assert np.array_equal(first, other) != is_random
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_gaussian_noise_has_the_published_deviation_and_grows_with_the_side():
    # at a severity at which nothing is clipped
    for side in (224, 56):
        noise = values(corrupt(plain(side), "gaussian_noise", 1, generator())) - 128
        assert noise.std() / 255 == pytest.approx(0.08 * np.sqrt(side / 224), rel=0.03)
        assert abs(noise.mean()) < 0.7


def test_shot_noise_has_the_variance_of_photons():
    for side, level in ((224, 128), (224, 40), (112, 128)):
        noise = values(corrupt(plain(side, level), "shot_noise", 1, generator())) / 255
        photons = 60 * 224 / side
        assert noise.mean() == pytest.approx(level / 255, rel=0.01)
        assert noise.var() == pytest.approx(level / 255 / photons, rel=0.03)


def test_gaussian_blur_is_scipy_s():
    image = picture(112)
    for severity, deviation in ((1, 0.5), (3, 1.5), (5, 3.0)):
        expected = gaussian_filter(values(image), (deviation, deviation, 0), mode="nearest")
        assert np.abs(values(corrupt(image, "gaussian_blur", severity, generator())) - expected).mean() < 1.2


def test_motion_blur_spreads_a_point_along_the_line():
    dot = np.zeros((225, 225, 3), dtype=np.uint8)
    dot[110:115, 110:115] = 255
    mass = values(corrupt(Image.fromarray(dot), "motion_blur", 3, generator()))[..., 0]
    angle = generator().uniform(-np.pi / 4, np.pi / 4)
    y, x = np.mgrid[:225, :225]
    centre = (mass * x).sum() / mass.sum() - 112, (mass * y).sum() / mass.sum() - 112
    # half a Gaussian of 8 pixels, cut off at 20: its mean by numerical integration
    steps = np.linspace(0, 20, 10_001)
    weights = np.exp(-0.5 * (steps / 8) ** 2)
    mean = (steps * weights).sum() / weights.sum()
    np.testing.assert_allclose(centre, [-mean * np.cos(angle), -mean * np.sin(angle)], atol=0.5)
    assert mass.sum() == pytest.approx(25 * 255, rel=0.03)


def test_motion_blur_leaves_a_plain_picture_alone():
    assert np.abs(values(corrupt(plain(64), "motion_blur", 5, generator())) - 128).max() <= 1


def test_brightness_raises_the_value_of_hsv():
    image = picture(12)
    pixels = np.asarray(image).copy()
    pixels[0, 0] = 0
    result = values(corrupt(Image.fromarray(pixels), "brightness", 3, generator()))
    for y in range(12):
        for x in range(12):
            hue, saturation, value = colorsys.rgb_to_hsv(*(pixels[y, x] / 255))
            expected = np.array(colorsys.hsv_to_rgb(hue, saturation, min(value + 0.3, 1))) * 255
            np.testing.assert_allclose(result[y, x], expected, atol=0.51)


def test_contrast_comes_nearer_to_the_mean():
    image = picture()
    mean = values(image).mean(axis=(0, 1))
    expected = mean + 0.1 * (values(image) - mean)
    np.testing.assert_allclose(values(corrupt(image, "contrast", 4, generator())), expected, atol=0.51)


def test_jpeg_is_pillow_s_at_the_published_quality():
    image = picture()
    for severity, quality in ((1, 25), (5, 7)):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        with Image.open(file) as expected:
            np.testing.assert_array_equal(
                np.asarray(corrupt(image, "jpeg", severity, generator())), np.asarray(expected)
            )


def test_pixelate_makes_blocks_of_means():
    image = picture(80)
    result = values(corrupt(image, "pixelate", 5, generator()))
    # Pillow rounds twice, after either direction
    means = values(image).reshape(20, 4, 20, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(result, means.repeat(4, axis=0).repeat(4, axis=1), atol=1.01)


def test_other_modes_become_rgb():
    assert corrupt(Image.new("L", (8, 8), 9), "jpeg", 0, generator()).mode == "RGB"
    assert corrupt(Image.new("RGBA", (8, 8)), "contrast", 2, generator()).mode == "RGB"


@pytest.mark.parametrize("severity", [-1, 6, 1.5, True, "3"])
def test_severities_that_do_not_exist(severity):
    with pytest.raises(InputError, match="severity"):
        corrupt(plain(8), "jpeg", severity, generator())


def test_names():
    assert resolve_corruptions(None) == tuple(CORRUPTIONS)
    assert resolve_corruptions(["jpeg", "contrast", "jpeg"]) == ("jpeg", "contrast")
    with pytest.raises(InputError, match="did you mean 'contrast'"):
        resolve_corruptions(["contrst"])
    with pytest.raises(InputError, match="no corruption is named"):
        resolve_corruptions([])
