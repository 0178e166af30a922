"""Images by what a user calls them: a folder, or the name of a torchvision data set."""

from __future__ import annotations

import os
import re
from pathlib import Path

from moevoprune.errors import InputError, nearest, printable, words_of
from moevoprune.features.data_sets import data_set_names, find_data_set
from moevoprune.features.image_folders import find_in_folder
from moevoprune.features.image_set import ImageSet

__all__ = ["find_images"]


def find_images(
    source: str | Path, root: str | Path | None = None, download: bool = False, skip_bad: bool = False
) -> ImageSet:
    """Find images and their classes in a folder or a torchvision data set.

    A folder holds ``train/CLASS/*`` and ``test/CLASS/*``, with or without ``val/CLASS/*``, or
    ``CLASS/*``, which is not split yet, or images without any folders, which have no classes. As in
    torchvision's ImageFolder, classes are the sorted names of the folders, which are searched in depth.
    Every file counts as an image, whatever its name, but for hidden and system files; none is opened.

    Parameters
    ----------
    source : str or Path
        A folder, or the name of a class of ``torchvision.datasets``, in any case of letters.
    root : str or Path, optional
        Where the data set lies; only for one of torchvision. Given, a data set of the name comes before a
        folder of the name.
    download : bool
        Let torchvision download the data set if it is not there.
    skip_bad : bool
        Leave out what cannot be an image, and list it, instead of stopping.

    Returns
    -------
    ImageSet
        Everything found.

    Raises
    ------
    InputError
        There is no such folder or data set, or something about it is not as above.
    """
    text = os.fspath(source)
    if not text:
        raise InputError("the source of the images is empty; give a folder or the name of a torchvision data set")
    folder = Path(text)
    try:
        is_folder, exists = folder.is_dir(), folder.exists()
    except (OSError, ValueError) as error:
        raise InputError(f"{printable(text)!r} cannot be read ({words_of(error)}): check the path") from None
    # only a bare word names a data set, and only then is it worth importing torchvision
    word = text if isinstance(source, str) and re.fullmatch(r"[A-Za-z]\w*", text) else None

    trouble = ""
    if word is not None and (root is not None or not is_folder):
        known: dict[str, str] = {}
        try:
            known = data_set_names()
        except InputError as error:
            trouble = str(error)
        if word.lower() in known:
            return find_data_set(known[word.lower()], root, download, skip_bad)
    if is_folder:
        if root is not None or download:
            raise InputError(
                f"{printable(text)!r} is a folder of images, but --root and --download belong to"
                " torchvision data sets; leave them out"
            )
        return find_in_folder(folder, skip_bad)
    if exists:
        raise InputError(f"{printable(text)!r} is a file; give the folder of images it is in")
    if trouble:
        raise InputError(f"there is no folder {printable(text)!r}, and {trouble}")
    hint = nearest(word.lower(), known) if word is not None else ""
    hint = re.sub(r"'(\w+)'", lambda match: repr(known[match[1]]), hint)
    raise InputError(
        f"{printable(text)!r}: no such folder, and no torchvision data set of that name"
        f"{hint or '; check the path, or give a data set such as CIFAR10 with --root'}"
    )
