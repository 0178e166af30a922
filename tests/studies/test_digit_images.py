"""The digits as image files, read back."""

from __future__ import annotations

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from moevoprune.studies.digit_images import digits_as_images


def test_they_are_the_first_forty_of_each_class(tmp_path):
    folder = digits_as_images(tmp_path / "new" / "digits")
    assert len(list(folder.rglob("*.png"))) == 10 * 40
    digits = load_digits()
    for digit in (0, 7):
        places = np.flatnonzero(digits.target == digit)[:40]
        for place in (0, 39):
            pixels = np.asarray(Image.open(folder / str(digit) / f"{place:03}.png"))
            # 16 levels of grey, 255 / 16 apart, cut to whole ones
            np.testing.assert_array_equal(pixels, digits.images[places[place]] * 255 // 16)
