"""Labelled images from all sources, and what networks are given of them."""

from __future__ import annotations

import io
import struct
import zipfile

import numpy as np
import pytest
import torch
from numpy.lib import format as npy_format
from PIL import Image
from sklearn.datasets import load_digits

from moevoprune.errors import InputError
from moevoprune.filters import images as images_module
from moevoprune.filters.images import LabelledImages, Normalisation, load_images, to_tensor


@pytest.fixture
def arrays():
    """Ten training and four test images of 6x5 pixels, two classes."""
    generator = np.random.default_rng(3)
    return {
        "X_train": generator.integers(0, 256, (10, 6, 5, 3), dtype=np.uint8),
        "y_train": np.arange(10) % 2,
        "X_test": generator.integers(0, 256, (4, 6, 5, 3), dtype=np.uint8),
        "y_test": np.arange(4) % 2,
    }


def _refused(*arguments, **settings):
    with pytest.raises(InputError) as caught:
        load_images(*arguments, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _save(folder, arrays, **changes):
    path = folder / "set.npz"
    np.savez(path, **{key: value for key, value in {**arrays, **changes}.items() if value is not None})
    return path


# --- digits ----------------------------------------------------------------------------------------


def test_digits_are_split_by_class_and_seed():
    digits = load_images("digits")
    assert digits.shape == (1, 8, 8)
    assert digits.n_classes == 10
    assert (len(digits.y_train), len(digits.y_test)) == (1347, 450)
    # every image is in one part, with its own label
    pixels, labels = load_digits(return_X_y=True)
    expected = sorted((*image, label) for image, label in zip(pixels.tolist(), labels.tolist(), strict=True))
    found = np.concatenate([digits.X_train, digits.X_test]).reshape(-1, 64) * 16
    both = np.column_stack([found, np.concatenate([digits.y_train, digits.y_test])])
    assert sorted(map(tuple, both.tolist())) == expected
    shares = np.bincount(digits.y_test) / np.bincount(labels)
    assert abs(shares - 0.25).max() < 0.005

    assert load_images("digits").content_hash == digits.content_hash
    other = load_images("digits", split_seed=1, test_fraction=0.5)
    assert len(other.y_test) == 899
    assert other.content_hash != digits.content_hash


def test_digits_take_no_settings_of_other_sources():
    assert "leave them out" in _refused("digits", size=16)
    assert "test_fraction" in _refused("digits", test_fraction=2.0)


# --- files -----------------------------------------------------------------------------------------


def test_npz_is_read_as_it_was_written(tmp_path, arrays):
    path = _save(tmp_path, arrays, class_names=np.array(["ant", "bee"]))
    found = load_images(path)
    assert found.name == "set"
    assert found.class_names == ("ant", "bee")
    assert found.shape == (3, 6, 5)
    for key, array in arrays.items():
        np.testing.assert_array_equal(getattr(found, key), array)
    with pytest.raises(ValueError, match="read-only"):
        found.X_train[0] = 0

    grey = load_images(_save(tmp_path, arrays, X_train=arrays["X_train"][..., 0], X_test=arrays["X_test"][..., 0]))
    assert grey.shape == (1, 6, 5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"y_test": None}, "no array 'y_test'"),
        ({"X_train": np.zeros((10, 6, 5, 3))}, "save uint8"),
        ({"X_train": np.zeros((10, 30), np.uint8)}, "save uint8"),
        ({"X_train": np.zeros((9, 6, 5, 3), np.uint8)}, "9 rows but y_train has 10"),
        ({"X_test": np.zeros((4, 5, 5, 3), np.uint8)}, "prepare both parts"),
        ({"X_test": np.zeros((0, 6, 5, 3), np.uint8), "y_test": np.zeros(0, int)}, "at least one image"),
        ({"y_train": np.zeros(10, int)}, "only one class"),
        ({"y_train": np.linspace(0, 1, 10)}, "array of integers"),
        ({"y_test": np.array([0, 1, 2, 0])}, "label 2"),
        ({"class_names": np.array(["one"])}, "class_names has 1 names"),
        ({"class_names": np.array([1, 2])}, "one string for each class"),
        ({"class_names": np.array([None, "b"], dtype=object)}, "pickled objects"),
    ],
)
def test_bad_npz_is_one_clear_line(tmp_path, arrays, changes, words):
    path = _save(tmp_path, arrays, **changes)
    message = _refused(path)
    assert message.startswith(str(path))
    assert words in message


def test_files_that_are_no_npz(tmp_path, arrays):
    assert "check the path" in _refused(tmp_path / "absent.npz")
    (tmp_path / "folder.npz").mkdir()
    assert "is a folder" in _refused(tmp_path / "folder.npz")
    np.save(tmp_path / "one.npy", arrays["X_train"])
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    assert "single .npy array" in _refused(tmp_path / "one.npz")
    content = _save(tmp_path, arrays).read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    assert "cut short" in _refused(tmp_path / "cut.npz")


def test_giant_arrays_are_refused_before_they_are_read(tmp_path, arrays, monkeypatch):
    path = _save(tmp_path, arrays)
    monkeypatch.setattr(images_module, "_MOST_BYTES", 500)
    assert "'X_train' is larger" in _refused(path)
    monkeypatch.undo()

    # a shape without its bytes
    header = io.BytesIO()
    npy_format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**16, 8, 8, 3)})
    with zipfile.ZipFile(tmp_path / "claim.npz", "w") as archive:
        for key in arrays:
            archive.writestr(f"{key}.npy", header.getvalue())
    assert "'X_train' " in _refused(tmp_path / "claim.npz")


# --- folders and data sets -------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Ten images of 20x12 pixels in two classes."""
    generator = np.random.default_rng(5)
    for number in range(10):
        place = tmp_path / "photos" / ("ant" if number < 6 else "bee")
        place.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (12, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
    return tmp_path / "photos"


def test_folder_is_split_and_brought_to_a_size(folder):
    found = load_images(folder, size=6)
    assert found.class_names == ("ant", "bee")
    assert found.X_train.dtype == np.uint8
    assert found.shape == (3, 6, 6)
    # a quarter of each class: 2 of 6 (1.5 rounded to even) and 1 of 4
    assert np.bincount(found.y_test).tolist() == [2, 1]
    # Pillow's own resizing: 12 -> 6 rows and 20 -> 10 columns, of which the middle 6 stay
    expected = {
        np.asarray(Image.open(path).resize((10, 6), Image.Resampling.BILINEAR))[:, 2:8].tobytes()
        for path in folder.rglob("*.png")
    }
    assert {image.tobytes() for image in np.concatenate([found.X_train, found.X_test])} == expected
    assert load_images(folder).shape == (3, 12, 20)


def test_parts_of_a_folder_stay_parts(folder, tmp_path):
    for part, numbers in {"train": (0, 1, 6), "val": (2, 7), "test": (3, 8)}.items():
        for number in numbers:
            label = "ant" if number < 6 else "bee"
            target = tmp_path / "parts" / part / label
            target.mkdir(parents=True, exist_ok=True)
            (folder / label / f"{number}.png").rename(target / f"{number}.png")
    found = load_images(tmp_path / "parts")
    assert (len(found.y_train), len(found.y_test)) == (5, 2)
    tested = {image.tobytes() for image in found.X_test}
    assert tested == {np.asarray(Image.open(p)).tobytes() for p in (tmp_path / "parts/test").rglob("*.png")}


def test_images_of_several_sizes_need_one(folder):
    Image.new("RGB", (9, 7)).save(folder / "bee" / "small.png")
    assert "give the size that they are all to have" in _refused(folder)
    assert load_images(folder, size=4).shape == (3, 4, 4)


def test_what_is_no_image_stops_or_is_left_out(folder):
    (folder / "ant" / "broken.png").write_bytes((folder / "ant" / "0.png").read_bytes()[:60])
    message = _refused(folder)
    assert "broken.png" in message
    assert "--skip-bad" in message
    found = load_images(folder, skip_bad=True)
    assert len(found.y_train) + len(found.y_test) == 10
    assert any("broken.png" in note for note in found.notes)


def test_sources_that_are_none(folder, monkeypatch):
    assert "no such folder" in _refused(folder / "absent")
    assert "class folders" in _refused(folder / "ant")
    assert "size = 0" in _refused(folder, size=0)
    monkeypatch.setattr(images_module, "_MOST_BYTES", 1000)
    assert "give a smaller size" in _refused(folder)


def test_data_set_of_torchvision(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    generator = np.random.default_rng(1)
    expected = {}
    for part, name, count in (("train", "train", 30), ("test", "t10k", 20)):
        pixels = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(
            struct.pack(">iiii", 2051, *pixels.shape) + pixels.tobytes()
        )
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 2049, count) + labels.tobytes())
        expected[part] = pixels[np.argsort(labels, kind="stable")]
    found = load_images("MNIST", root=tmp_path)
    assert found.shape == (3, 28, 28)
    for part, pixels in expected.items():
        np.testing.assert_array_equal(getattr(found, f"X_{part}"), np.stack([pixels] * 3, axis=-1))


# --- arrays ----------------------------------------------------------------------------------------


def test_content_hash_is_of_the_content(arrays):
    one = LabelledImages("one", **arrays)
    assert LabelledImages("other", **arrays).content_hash == one.content_hash
    assert LabelledImages("one", **arrays, class_names=("a", "b")).content_hash != one.content_hash
    changed = arrays["X_test"].copy()
    changed[3, 5, 4, 2] ^= 1
    assert LabelledImages("one", **{**arrays, "X_test": changed}).content_hash != one.content_hash


@pytest.mark.parametrize("pixels", [np.full((10, 6, 5, 3), np.nan), np.zeros((10, 6, 5, 3), int), [[1]]])
def test_pixels_are_bytes_or_finite_floats(arrays, pixels):
    with pytest.raises(InputError, match="X_train"):
        LabelledImages("bad", **{**arrays, "X_train": pixels})


def test_normalisation_of_the_training_images(arrays, monkeypatch):
    arrays["X_train"][..., 1] = 70
    labelled = LabelledImages("set", **arrays)
    # several blocks
    monkeypatch.setattr(images_module, "_BLOCK_BYTES", 4 * 90 * 3)
    found = Normalisation.of(labelled)
    scaled = arrays["X_train"].astype(np.float64).reshape(-1, 3) / 255
    np.testing.assert_allclose(found.mean, scaled.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose([found.std[0], found.std[2]], scaled.std(axis=0)[[0, 2]], rtol=1e-6)
    assert found.std[1] == 1

    tensor = to_tensor(labelled.X_test, found)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    expected = (arrays["X_test"] / 255.0 - np.array(found.mean)) / np.array(found.std)
    np.testing.assert_allclose(tensor.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-5)
    # floats are in units of the full range already
    floats = to_tensor((labelled.X_test / 255).astype(np.float32), found)
    torch.testing.assert_close(floats, tensor, atol=1e-5, rtol=0)


def test_normalisation_must_fit(arrays):
    with pytest.raises(InputError, match="one for each channel"):
        Normalisation((0.5, 0.5), (1.0,))
    with pytest.raises(InputError, match="at least 1e-06"):
        Normalisation((0.5,), (0.0,))
    with pytest.raises(InputError, match="3 channels"):
        to_tensor(arrays["X_test"], Normalisation((0.5,), (1.0,)))
