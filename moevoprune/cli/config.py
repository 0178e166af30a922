"""The settings of a run: read from TOML and the command line, checked, resolved, and written again."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from moevoprune.errors import InputError, describe_validation_error, nearest
from moevoprune.features.backbone_settings import BackboneSettings
from moevoprune.features.sources import BUILT_IN
from moevoprune.files import load_toml
from moevoprune.heads.settings import PRESETS, HeadSettings
from moevoprune.search.algorithms import ALGORITHMS, DEFAULT_ALGORITHM, DEFAULT_POP_SIZES, checked_parts
from moevoprune.search.loop import default_end
from moevoprune.search.problem import DEFAULT_ODIN_EPSILON, LARGEST_SEED

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "RunConfig",
    "absolute_source",
    "changed_settings",
    "exists",
    "image_settings",
    "parse_config",
    "parse_value",
    "read_toml",
    "set_value",
    "to_toml",
]

# of no meaning where no images are read
_IMAGE_DATA = ("images", "root", "download", "test_fraction", "split_seed", "skip_bad")
_IMAGE_COMPUTE = ("image_batch", "workers", "full_precision")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DataConfig(_Section):
    """Where the features, or the images to extract them from, come from."""

    features: str | None = None
    images: str | None = None
    task: Literal["classification", "regression"] | None = None
    ood: tuple[str, ...] = ()
    root: str | None = None
    download: bool = False
    test_fraction: float = Field(default=0.25, gt=0, lt=1)
    split_seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    skip_bad: bool = False

    @field_validator("ood", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _one_source(self) -> DataConfig:
        if (self.features is None) == (self.images is None):
            raise ValueError("give one of features (a name or an .npz file) and images (a folder or data set)")
        return self

    @property
    def source(self) -> str:
        """What was given, features or images."""
        return self.features or self.images or ""


class ProblemConfig(_Section):
    """What is searched for."""

    encoding: str = "features"
    objectives: tuple[str, ...] | None = None
    cv: int | None = Field(default=None, ge=1)
    repeats: int = Field(default=1, ge=1, le=1000)
    min_active: int = Field(default=1, ge=0)
    max_active: int | None = Field(default=None, ge=1)
    noise: float = Field(default=1.0, gt=0, le=1e6, allow_inf_nan=False)
    odin_epsilon: float = Field(default=DEFAULT_ODIN_EPSILON, ge=0, le=1e6, allow_inf_nan=False)

    @field_validator("objectives", mode="before")
    @classmethod
    def _list_to_tuple(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [name.strip() for name in value.split(",") if name.strip()]
        return tuple(value) if isinstance(value, list) else value


class SearchConfig(_Section):
    """How it is searched."""

    # the upper bounds are far beyond use: they catch slips before they ask for more memory than there is
    algorithm: str = DEFAULT_ALGORITHM
    pop: int | None = Field(default=None, ge=2, le=100_000)
    gens: int | None = Field(default=None, ge=1, le=10_000_000)
    budget: int | None = Field(default=None, ge=1, le=1_000_000_000)
    # None where nothing is left out: so nothing of it is written either
    leave_out: tuple[str, ...] | None = None

    @field_validator("algorithm")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in ALGORITHMS:
            raise ValueError(f"unknown algorithm{nearest(value, ALGORITHMS)}: use one of {', '.join(ALGORITHMS)}")
        return value

    @field_validator("leave_out", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        if isinstance(value, str):
            # quotes in a list get lost on the way through a shell
            value = [name.strip() for name in value.strip("[] ").split(",") if name.strip()]
        return tuple(value) if isinstance(value, list) else value

    @field_validator("leave_out")
    @classmethod
    def _known_parts(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        try:
            return checked_parts(value or ()) or None
        except InputError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _fit_together(self) -> SearchConfig:
        if self.gens is not None and self.budget is not None:
            raise ValueError("gens and budget both end the search: give one of them")
        if self.leave_out and self.algorithm != DEFAULT_ALGORITHM:
            raise ValueError(
                f"leave_out is about the parts of the algorithm {DEFAULT_ALGORITHM}, not of {self.algorithm}: "
                "give one of the two alone"
            )
        return self

    def resolved(self) -> dict[str, Any]:
        """All settings, with the defaults of the algorithm where something was left open."""
        gens, budget = default_end(self.algorithm, self.gens, self.budget)
        pop = DEFAULT_POP_SIZES[self.algorithm] if self.pop is None else self.pop
        return {
            "algorithm": self.algorithm,
            "pop": pop,
            "gens": gens,
            "budget": budget,
            "leave_out": self.leave_out,
        }


class ComputeConfig(_Section):
    """Where it is computed."""

    device: str = "auto"
    chunk: int | None = Field(default=None, ge=1)
    engine: Literal["local", "ray"] = "local"
    address: str | None = Field(default=None, min_length=1)
    actors: int | None = Field(default=None, ge=1, le=100_000)
    jobs: int | None = Field(default=None, ge=1, le=1024)
    image_batch: int | None = Field(default=None, ge=1, le=1_000_000)
    workers: int | None = Field(default=None, ge=0, le=1024)
    full_precision: bool = False


class RunConfig(_Section):
    """Everything that defines a run."""

    seed: int = Field(default=1, ge=0, le=LARGEST_SEED)
    data: DataConfig
    backbone: BackboneSettings | None = None
    problem: ProblemConfig = ProblemConfig()
    head: HeadSettings = HeadSettings()
    search: SearchConfig = SearchConfig()
    compute: ComputeConfig = ComputeConfig()


def read_toml(path: Path, base: Path | None = None) -> dict[str, Any]:
    """Read a TOML file; relative paths of features, weights and ``data.root`` are made absolute.

    Parameters
    ----------
    path
        The file.
    base
        Folder that relative paths start from; None for the file's. Images and out-of-distribution sources start
        from ``data.root``, by default this folder.

    Raises
    ------
    InputError
        The file cannot be read or is no TOML.
    """
    try:
        _, raw = load_toml(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not a text file in UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not valid TOML: {error}") from None
    base = path.parent if base is None else base
    data, backbone = raw.get("data"), raw.get("backbone")
    if isinstance(data, dict):
        if isinstance(data.get("features"), str):
            data["features"] = absolute_source(data["features"], base)
        if ("images" in data or data.get("ood")) and isinstance(data.get("root", ""), str):
            try:
                data["root"] = str((base / data.get("root", "")).resolve())
            except (OSError, ValueError):
                raise InputError(f"{path}: data.root is not a possible path") from None
    weights = backbone.get("weights") if isinstance(backbone, dict) else None
    # a word such as "default" is no file there
    if isinstance(weights, str) and exists(base / weights):
        backbone["weights"] = str((base / weights).resolve())  # type: ignore[index]
    return raw


def exists(path: Path) -> bool:
    """Whether something is there; a path that cannot exist is not."""
    try:
        return path.exists() or path.is_symlink()
    except (OSError, ValueError):
        return False


def absolute_source(features: str, folder: Path) -> str:
    """Make the path of a features file absolute; the name of a built-in set stays as it is."""
    if features in BUILT_IN:
        return features
    try:
        return str((folder / features).resolve())
    except (OSError, ValueError):
        raise InputError(f"data.features = {features[:60]!r}: is not a possible path") from None


def set_value(raw: dict[str, Any], assignment: str) -> str:
    """Apply one ``key=value`` of ``--set``; the key may be dotted, or a name that only one section has.

    Returns
    -------
    str
        The dotted key.

    Raises
    ------
    InputError
        The assignment has no ``=``, or the key is unknown.
    """
    key, equals, text = assignment.partition("=")
    key = key.strip()
    if not equals or not key:
        raise InputError(f"--set {assignment}: write it as key=value, e.g. --set epochs=40")
    known = _known_keys()
    path = key if key in known else known.get(f"*.{key}")
    if path is None:
        every = [name.removeprefix("*.") for name in known]
        hint = nearest(key, every) or f"; known keys: {', '.join(k for k in known if '*' not in k)}"
        raise InputError(f"--set {assignment}: unknown key {key!r}{hint}")
    section, _, name = path.rpartition(".")
    target = raw
    if section:
        target = raw.setdefault(section, {})
        if not isinstance(target, dict):
            raise InputError(f"--set {assignment}: {section!r} is not a section in the problem file")
    target[name] = parse_value(text.strip())
    return path


def parse_config(raw: dict[str, Any], where: str, options: Mapping[str, str] | None = None) -> RunConfig:
    """Check raw settings; ``head.preset`` is replaced by the settings it stands for.

    Parameters
    ----------
    raw
        As read from TOML.
    where
        What to call them in a message.
    options
        For settings that came from the command line, by their dotted keys: what to call them instead.

    Raises
    ------
    InputError
        A key is unknown (the message has the nearest valid one), or a value is of the wrong type or range.
    """
    raw = dict(raw)
    head = raw.get("head")
    if isinstance(head, dict):
        head = dict(head)
        preset = head.pop("preset", "default")
        if not isinstance(preset, str) or preset not in PRESETS:
            hint = nearest(preset, PRESETS) if isinstance(preset, str) else ""
            raise InputError(f"{where}: head.preset = {preset!r}{hint}: use one of {', '.join(sorted(PRESETS))}")
        raw["head"] = {**PRESETS[preset], **head}
    try:
        return RunConfig.model_validate(raw)
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors(include_url=False)[0]["loc"])
        where = (options or {}).get(key, where)
        raise InputError(describe_validation_error(error, where, _keys_at)) from None


def to_toml(config: RunConfig) -> str:
    """Write settings as TOML that :func:`parse_config` reads back to the same."""
    raw = _relevant(config)
    return tomli_w.dumps({key: _without_none(value) for key, value in raw.items() if value is not None})


def image_settings(keys: Iterable[str]) -> list[str]:
    """Those of the dotted keys that say how images are read, or from where."""
    wanted = {f"data.{name}" for name in _IMAGE_DATA} | {f"compute.{name}" for name in _IMAGE_COMPUTE}
    return [key for key in keys if key in wanted or key.startswith("backbone.")]


def changed_settings(old: RunConfig, new: RunConfig) -> list[str]:
    """Settings that give another run, as ``key: old → new``.

    Where the data lie does not matter, nor where and by how many individuals are trained, how they are chunked and
    images are read.
    """
    before, after = _flat(old), _flat(new)
    keys = dict.fromkeys([*after, *before])
    return [f"{key}: {before.get(key)} → {after.get(key)}" for key in keys if before.get(key) != after.get(key)]


def _flat(config: RunConfig) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in _relevant(config).items():
        if isinstance(value, dict):
            flat.update({f"{key}.{name}": entry for name, entry in value.items()})
        else:
            flat[key] = value
    # what the data are, the journal knows by their content
    where = ("features", "images", "ood", "root", "download", "skip_bad")
    how = ("chunk", "engine", "address", "actors", "jobs", "image_batch", "workers")
    for irrelevant in (
        *(f"data.{name}" for name in where),
        *(f"compute.{name}" for name in how),
        "backbone.weights",
    ):
        flat.pop(irrelevant, None)
    return flat


def _relevant(config: RunConfig) -> dict[str, Any]:
    """Settings as plain values, without those about images where none are read."""
    raw = config.model_dump(mode="json")
    if config.data.images is None and not config.data.ood:
        raw["backbone"] = None
        for section, names in (("data", (*_IMAGE_DATA, "ood")), ("compute", _IMAGE_COMPUTE)):
            for name in names:
                raw[section].pop(name)
    return raw


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(entry) for key, entry in value.items() if entry is not None}
    return value


def _sections() -> dict[str, type[BaseModel]]:
    return {
        "data": DataConfig,
        "backbone": BackboneSettings,
        "problem": ProblemConfig,
        "head": HeadSettings,
        "search": SearchConfig,
        "compute": ComputeConfig,
    }


def _known_keys() -> dict[str, str]:
    """Map every accepted spelling of a key, ``section.key`` or ``*.key``, to its dotted path."""
    keys = {"seed": "seed"}
    for section, model in _sections().items():
        names = [*model.model_fields, *(["preset"] if section == "head" else [])]
        for name in names:
            keys[f"{section}.{name}"] = f"{section}.{name}"
            keys[f"*.{name}"] = f"{section}.{name}"
    return keys


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    if len(location) > 1 and location[0] in _sections():
        extra = ["preset"] if location[0] == "head" else []
        return [*_sections()[str(location[0])].model_fields, *extra]
    return list(RunConfig.model_fields)


def parse_value(text: str) -> Any:
    """Read a value as TOML would; what TOML cannot read is a string."""
    try:
        # whole, so that nothing behind a line break is lost
        (value,) = tomllib.loads(f"value = {text}").values()
    except (ValueError, RecursionError):
        return text
    return value
