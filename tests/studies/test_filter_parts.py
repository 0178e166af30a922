"""Folders of filter studies: others for other images, settings and weights."""

from __future__ import annotations

import numpy as np
import pytest

from moevoprune import InputError
from moevoprune.filters.settings import PruningSettings
from moevoprune.studies.filter_parts import FilterPart, prune_parts


@pytest.fixture
def source(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 255, (24, 8, 8), dtype=np.uint8)
    labels = np.arange(24) % 2
    path = tmp_path / "dots.npz"
    np.savez(path, X_train=pixels[:16], y_train=labels[:16], X_test=pixels[16:], y_test=labels[16:])
    return str(path)


def folder(source, work, seed=1, **settings):
    part = FilterPart.load(source, PruningSettings.checked({"networks": ("cnn",), **settings}), work)
    (pruning,) = part.prunings(seed, 1, print)
    assert pruning.folder.relative_to(work).parts[1:] == (f"seed{seed}", "cnn")
    return pruning.folder.relative_to(work).parts[0]


def test_a_folder_is_named_after_all_that_results_depend_on(source, tmp_path):
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"some")
    name = folder(source, tmp_path)
    assert name.startswith("dots-")
    # more seeds are added to the same folder
    assert folder(source, tmp_path, seed=2, seeds=5) == name
    others = [
        folder(source, tmp_path, epochs=3),
        folder(source, tmp_path, mean=(0.5,), std=(0.2,)),
        folder(source, tmp_path, weights=str(weights)),
    ]
    weights.write_bytes(b"others")
    others.append(folder(source, tmp_path, weights=str(weights)))
    assert len({name, *others}) == 5


def test_a_part_in_a_line(source, tmp_path):
    part = FilterPart.load(source, PruningSettings.checked({"networks": ("cnn", "resnet")}), tmp_path)
    start = "dots: 16 training and 8 test images of 8 x 8 x 1, 2 classes; cnn, resnet, trained here first. "
    assert part.describe().startswith(start)


def test_images_of_one_name_are_refused(source, tmp_path):
    part = FilterPart.load(source, PruningSettings.checked({}), tmp_path / "work")
    with pytest.raises(InputError, match="same name"):
        prune_parts([part, part], [1], 1, print)
    assert not (tmp_path / "work").exists()
