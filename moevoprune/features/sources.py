"""Feature sets by name: a built-in one or a file."""

from __future__ import annotations

from pathlib import Path

from moevoprune.errors import InputError, nearest
from moevoprune.features.digits import load_digits_features
from moevoprune.features.feature_set import FeatureSet, Task

__all__ = ["BUILT_IN", "load_features"]

BUILT_IN = ("digits",)


def load_features(source: str | Path, task: Task | None = None) -> FeatureSet:
    """Load a built-in feature set by its name, or one from an .npz file or a folder of .npy files.

    Parameters
    ----------
    source : str or Path
        "digits" for the built-in set (write "./digits" for a file of that name), or the path of an .npz
        file or of a folder with `X_train.npy` and the others in it; see :meth:`FeatureSet.load`.
    task : {"classification", "regression"}, optional
        Overrides the file's task; see :meth:`FeatureSet.load`.

    Returns
    -------
    FeatureSet
        The validated features.

    Raises
    ------
    InputError
        If `source` is neither, if the file is not a valid feature set, or if a built-in set is asked
        for with a task that is not its own.
    """
    # a Path drops the "./", so only a plain string can name a built-in set
    if source == "digits":
        if task not in (None, "classification"):
            raise InputError(f"digits is a classification set; leave out task={task!r}")
        return load_digits_features()
    path = Path(source)
    try:
        found = path.exists()
    except (OSError, ValueError):
        # the reader says precisely what is wrong with such a path
        found = True
    if not found:
        hint = nearest(str(source).lower(), BUILT_IN) or "; check the name or give the path of an .npz file"
        raise InputError(
            f"{str(source)!r} is neither a built-in feature set ({', '.join(BUILT_IN)}) nor an existing file{hint}"
        )
    return FeatureSet.load(path, task)
