"""The digits as image files, for trials of what takes images without any of one's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

__all__ = ["digits_as_images"]

_CLASSES, _PER_CLASS = 10, 40
# grey levels of the data set, from 0
_WHITE = 16


def digits_as_images(folder: Path) -> Path:
    """Write 40 of scikit-learn's digits per class as PNG files of 8 x 8 pixels.

    Parameters
    ----------
    folder
        Gets a folder per class, ``0`` to ``9``; made where it is missing.

    Returns
    -------
    Path
        The folder.
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    for digit in range(_CLASSES):
        (folder / str(digit)).mkdir(parents=True, exist_ok=True)
        for place, row in enumerate(pixels[labels == digit][:_PER_CLASS]):
            image = Image.fromarray((row.reshape(8, 8) * 255 / _WHITE).astype(np.uint8))
            image.save(folder / str(digit) / f"{place:03}.png")
    return folder
