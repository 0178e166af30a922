"""The problems that ship with the package."""

from __future__ import annotations

from pathlib import Path

import moevoprune
from moevoprune.errors import InputError, nearest
from moevoprune.features.data_sets import is_data_set

__all__ = ["find_problem", "shipped_problems"]


def shipped_problems() -> dict[str, Path]:
    """Names and files of the shipped problems, sorted by name."""
    package = Path(moevoprune.__file__).parent
    # inside the wheel the folder lies in the package, in a checkout beside it
    for folder in (package / "problems", package.parent / "problems"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.toml"))}
    return {}


def describe_problem(path: Path) -> str:
    """Return the first sentence of the comment at the head of a problem file."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return " ".join(lines).split(": ")[0].split(". ")[0]


def find_problem(name: str) -> Path | None:
    """Turn what a user typed into a path: of a shipped problem, a TOML file, a features file or a folder.

    Returns
    -------
    Path or None
        None for the name of a torchvision data set.

    Raises
    ------
    InputError
        It is none of these.
    """
    shipped = shipped_problems()
    if name in shipped:
        return shipped[name]
    path = Path(name)
    try:
        exists = path.exists()
    except (OSError, ValueError):
        raise InputError(f"{name[:60]!r}...: is not a possible path") from None
    if path.suffix in (".toml", ".npz"):
        if not exists:
            raise InputError(f"{path}: no such file; shipped problems are: {', '.join(shipped)}")
        return path
    if exists and path.is_dir() and name:
        return path
    if exists and name:
        raise InputError(f"{path}: is neither a .toml problem nor a .npz of features nor a folder of images")
    if is_data_set(name):
        return None
    raise InputError(
        f"unknown problem {name!r}{nearest(name, shipped)}: use a shipped one ({', '.join(shipped)}), "
        "a .toml file, a .npz or a folder of features, a folder of images or a torchvision data set's name"
    )
