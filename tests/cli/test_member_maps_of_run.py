"""Heat maps of all members, where a run on images ends."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from moevoprune import HeadSettings, PruningProblem, evolve
from moevoprune.cli.building import configure
from moevoprune.cli.data import load_data
from moevoprune.cli.member_maps import member_maps_of_run, pick_images
from moevoprune.errors import InputError
from moevoprune.features import backbones
from moevoprune.features.images import find_images

pytest.importorskip("torchvision")

BACKBONE = {"name": "mobilenet_v2", "args": {"width_mult": 0.1}, "weights": "none", "size": 64}


def photo(path, colour, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 100, (40, 36, 3), dtype=np.uint8)
    pixels[..., colour] += 120
    Image.fromarray(pixels).save(path)


@pytest.fixture(params=[True, False], ids=["parts", "no parts"])
def colours(request, tmp_path, monkeypatch):
    """Settings and front of a run on two classes of images, in a folder with parts or without."""
    monkeypatch.setenv("MOEVOPRUNE_CACHE", str(tmp_path / "cache"))
    for label, name in enumerate(("red", "green")):
        for number in range(8):
            part = ("train", "test")[number % 2] if request.param else "."
            photo(tmp_path / "colours" / part / name / f"{number}.png", label, 100 * label + number)
    raw = {"data": {"images": str(tmp_path / "colours")}, "backbone": dict(BACKBONE)}
    config = configure(raw, "settings", {}, [])
    problem = PruningProblem(load_data(config), head=HeadSettings(hidden=(4,), epochs=2), cv=2, seed=1)
    front = evolve(problem, pop_size=4, n_gen=1, seed=1)
    return SimpleNamespace(config=config, front=front, folder=tmp_path / "colours", parts=request.param)


def test_a_run_on_images(colours, monkeypatch):
    maps = member_maps_of_run(colours.config, colours.front, pytest.fail)
    # of the test part, which is a half or a quarter
    assert len(maps) == (8 if colours.parts else 4)
    assert maps.n_members == len(colours.front)
    # the classes are in order of their names
    np.testing.assert_array_equal(maps.labels, [0] * (len(maps) // 2) + [1] * (len(maps) // 2))
    if colours.parts:
        assert maps.keys == ("1.png", "3.png", "5.png", "7.png") * 2
    assert maps.heat.shape[2:] == (2, 2)

    # what is gone stops nothing
    said = []
    if colours.parts:
        tokens = SimpleNamespace(feature_map=None, settings=SimpleNamespace(name="vit"))
        with monkeypatch.context() as patch:
            patch.setattr(backbones, "load_backbone", lambda settings, device: tokens)
            assert member_maps_of_run(colours.config, colours.front, said.append) is None
        assert said.pop().startswith("heat maps of the members are left out: vit ends in tokens")
    colours.folder.rename(colours.folder.with_name("elsewhere"))
    assert member_maps_of_run(colours.config, colours.front, said.append) is None
    assert len(said) == 1
    assert str(colours.folder) in said[0]
    assert member_maps_of_run(colours.config, colours.front) is None


def test_a_run_on_features():
    config = configure({"data": {"features": "digits"}}, "settings", {}, [])
    assert member_maps_of_run(config, [None], pytest.fail) is None


@pytest.mark.parametrize(("n_classes", "expected"), [(2, 8), (3, 6), (5, 5), (12, 12), (30, 12)])
def test_a_few_images_of_each_class(tmp_path, n_classes, expected):
    for label in range(n_classes):
        for number in range(5):
            part = "train" if number == 0 else "test"
            photo(tmp_path / part / f"class{label:02}" / f"{number}.png", label % 3, number)
    images = find_images(tmp_path)
    chosen = pick_images(images)
    assert len(chosen) == expected
    assert set(chosen) <= set(images.rows("test").tolist())
    labels = images.labels[list(chosen)]
    assert len(set(labels.tolist())) == min(n_classes, 12)
    assert (np.diff(labels) >= 0).all()
    assert all(image.size == (36, 40) for image in chosen.values())


def test_images_that_cannot_be_read_are_passed_over(tmp_path):
    for name in ("red", "green"):
        for number in range(5):
            photo(tmp_path / ("train" if number == 0 else "test") / name / f"{number}.png", 0, number)
    for number in (1, 2, 3):
        (tmp_path / "test" / "red" / f"{number}.png").write_text("no image")
    images = find_images(tmp_path)
    assert [images.keys[i] for i in pick_images(images)][4:] == ["test/red/4.png"]
    for path in (tmp_path / "test").rglob("*.png"):
        path.write_text("no image")
    with pytest.raises(InputError, match="not one of the test images"):
        pick_images(images)
