"""Backbones by their names, and the settings of searches on the features of each."""

from __future__ import annotations

from pathlib import Path

from moevoprune.cli.config import exists, read_toml
from moevoprune.errors import InputError
from moevoprune.studies.study import Settings

__all__ = ["backbone_variants"]

_WEIGHT_FILES = (".pth", ".pt", ".safetensors")


def backbone_variants(
    names: str,
    common: Settings,
    weights: str = "default",
    size: int | None = None,
    weights_folder: Path | None = None,
) -> dict[str, Settings]:
    """Settings of the searches on every backbone's features, by the names of the backbones.

    Parameters
    ----------
    names
        With commas between: networks of torchvision, and TOML files that describe one in their section
        ``[backbone]``, as for ``moevoprune run``. The name of these is that of the file.
    common
        Settings of all searches, by their dotted keys.
    weights
        Of networks that are no files: ``"default"`` or ``"none"``.
    size
        Pixels that networks which are no files see; None for each one's own.
    weights_folder
        Where weights of TOML files lie; None for beside the file.

    Raises
    ------
    InputError
        There is no name, one is there twice, or a file does not describe a backbone or lacks its weights.
    """
    listed = [name.strip() for name in names.split(",") if name.strip()]
    of_network: dict[str, object] = {"backbone.weights": weights}
    if size is not None:
        of_network |= {"backbone.size": size, "backbone.crop": size}
    found = dict(
        _described(Path(name), weights_folder)
        if name.endswith(".toml")
        else (name, {"backbone.name": name, **of_network})
        for name in listed
    )
    if not found or len(found) < len(listed):
        raise InputError(f"--backbones {names}: name at least one, and each once")
    return {name: {**common, **own} for name, own in found.items()}


def _described(path: Path, weights_folder: Path | None) -> tuple[str, Settings]:
    """Name and settings of a backbone that a TOML file describes."""
    raw = read_toml(path).get("backbone")
    if not isinstance(raw, dict):
        raise InputError(f"{path}: has no section [backbone]")
    weights = raw.get("weights")
    if isinstance(weights, str) and weights.endswith(_WEIGHT_FILES):
        # of a file beside this one the path is absolute already
        file = (weights_folder or path.parent) / weights
        if not exists(file):
            raise InputError(f"{path}: its weights {weights} are not in {file.parent}: name the --weights-folder")
        raw["weights"] = str(file.absolute())
    return path.stem, {f"backbone.{key}": value for key, value in raw.items()}
