"""From the data settings of a run to features: files, images through a backbone, out-of-distribution rows."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moevoprune.cli.config import RunConfig, absolute_source, exists, parse_value
from moevoprune.errors import InputError
from moevoprune.features import FeatureSet, load_features
from moevoprune.features.backbone_settings import BackboneSettings
from moevoprune.features.backbones import same_backbone
from moevoprune.features.data_sets import is_data_set
from moevoprune.features.feature_folder import is_feature_folder
from moevoprune.features.images import find_images
from moevoprune.features.ood import OodRows, rows_of, with_ood
from moevoprune.objectives import resolve_objectives

if TYPE_CHECKING:
    from moevoprune.features.extraction import Extraction, Extractor

__all__ = ["extract_images", "image_options", "load_data", "locate_images", "ood_rows"]

Say = Callable[[str], None]

_MOST_LISTED = 20


def image_options(arguments: Namespace) -> dict[str, tuple[str, Any]]:
    """Options on images and backbones by the key of the setting they change; see :func:`configure`.

    Raises
    ------
    InputError
        A ``--backbone-arg`` has no ``=``.
    """
    numbers = {
        f"backbone.{name}": (f"--{name}", None if values is None else list(values))
        for name in ("mean", "std")
        if (values := getattr(arguments, name)) is not None
    }
    return {
        "backbone.name": ("--backbone", arguments.backbone),
        "backbone.args": ("--backbone-arg", _backbone_arguments(arguments.backbone_arg)),
        "backbone.weights": ("--weights", _typed("backbone.weights", arguments.weights)),
        "backbone.layer": ("--layer", arguments.layer),
        "backbone.size": ("--size", arguments.size),
        "backbone.crop": ("--crop", arguments.crop),
        "backbone.interpolation": ("--interpolation", arguments.interpolation),
        **numbers,
        "data.root": ("--root", _typed("data.root", arguments.root)),
        "data.download": ("--download", arguments.download),
        "data.test_fraction": ("--test-fraction", arguments.test_fraction),
        "data.split_seed": ("--split-seed", arguments.split_seed),
        "data.skip_bad": ("--skip-bad", arguments.skip_bad),
        "data.ood": ("--ood", _ood_paths(arguments.ood)),
        "compute.full_precision": ("--full-precision", arguments.full_precision),
        "compute.workers": ("--workers", arguments.workers),
        "compute.image_batch": ("--batch-size", arguments.batch_size),
    }


def from_here(key: str, text: str) -> str:
    """Make a path that was typed absolute, as written settings are read from elsewhere; other words stay.

    Parameters
    ----------
    key
        Dotted key of the setting.
    text
        Its value.
    """
    if key == "data.features":
        return absolute_source(text, Path.cwd())
    if not text.strip():
        raise InputError(f"{key} is empty: give a path, or leave it out")
    if key == "data.root" or (key in ("data.images", "data.ood", "backbone.weights") and exists(Path(text))):
        return str(Path(text).absolute())
    return text


def locate_images(data: dict[str, Any], where: str) -> None:
    """Make relative image folders and out-of-distribution sources absolute, from ``root``.

    Parameters
    ----------
    data
        The raw data section; changed in place.
    where
        What its settings belong to, for messages.

    Raises
    ------
    InputError
        A source is neither there nor the name of a torchvision data set.
    """
    root = data.get("root")
    folder = Path(root) if isinstance(root, str) else None
    if isinstance(images := data.get("images"), str):
        data["images"] = _located(images, folder, where, "images")
    ood = data.get("ood", [])
    ood = [ood] if isinstance(ood, str) else ood
    if isinstance(ood, list | tuple) and all(isinstance(source, str) for source in ood):
        data["ood"] = [_located(source, folder, where, "out-of-distribution images") for source in ood]


def load_data(config: RunConfig, say: Say | None = None) -> FeatureSet:
    """Load the features that a run is about, or extract them; with out-of-distribution rows where asked for.

    Parameters
    ----------
    config
        Settings of the run.
    say
        Told of what happens while images are read; None to be quiet.

    Raises
    ------
    InputError
        The data cannot be used.
    """
    extraction = extractor = None
    if config.data.images is None:
        features = load_features(config.data.features or "", config.data.task)
    else:
        if config.data.task == "regression":
            raise InputError(
                f"{config.data.images}: classes of images are no regression targets: leave out the task"
            )
        _check_objectives(config)
        extractor, extraction = extract_images(config, say)
        features = extraction.to_feature_set()
    if not config.data.ood:
        return features
    sources, records = ood_rows(config, features, extractor, extraction, say)
    features = with_ood(features, sources, config.data.split_seed)
    return replace(features, extraction=json.dumps({**_record_of(features), "ood": records}))


def _open_extractor(backbone: BackboneSettings, config: RunConfig, say: Say | None = None) -> Extractor:
    """Load a backbone, with what the settings say about computing.

    Parameters
    ----------
    backbone
        Which one.
    config
        Settings of the run.
    say
        Told of what a user should know; None to be quiet.
    """
    from moevoprune.features.extraction import Extractor

    extractor = Extractor(
        backbone,
        config.compute.device,
        config.compute.image_batch,
        config.compute.workers,
        config.compute.full_precision,
        config.data.skip_bad,
        progress=_Bar() if say is not None else None,
    )
    if say is not None:
        for note in extractor.backbone.notes:
            say(note)
    return extractor


def extract_images(config: RunConfig, say: Say | None = None) -> tuple[Extractor, Extraction]:
    """Extract the labelled images of the settings.

    Parameters
    ----------
    config
        Settings of the run; with images.
    say
        Told of what was found; None to be quiet.
    """
    data = config.data
    source = data.images or ""
    # before the backbone, whose weights may have to be downloaded
    images = find_images(source, *_where(source, config), data.skip_bad)
    extractor = _open_extractor(config.backbone or BackboneSettings(), config, say)
    extraction = extractor.extract(images, test_fraction=data.test_fraction, split_seed=data.split_seed)
    if say is not None:
        _tell(extraction, extractor, say)
    return extractor, extraction


def ood_rows(
    config: RunConfig,
    features: FeatureSet | None,
    extractor: Extractor | None,
    beside: Extraction | None,
    say: Say | None = None,
) -> tuple[list[OodRows], list[dict[str, object]]]:
    """Rows of every out-of-distribution source of the settings, and a record of each.

    Parameters
    ----------
    config
        Settings of the run.
    features
        The in-distribution features, where they came from a file: images go through the backbone they name.
    extractor, beside
        The backbone and the in-distribution images, where they came from images.
    say
        Told of what was found; None to be quiet.

    Raises
    ------
    InputError
        A source cannot be used, or its features are another network's.
    """
    sources: list[OodRows] = []
    records: list[dict[str, object]] = []
    own = beside.record if beside is not None else _record_of(features)
    for source in config.data.ood:
        if source.endswith(".npz") or is_feature_folder(source):
            loaded = load_features(source)
            rows, record = rows_of(loaded), _record_of(loaded)
            records.append({"source": source, "sha256": loaded.content_hash})
        else:
            if extractor is None:
                extractor = _open_extractor(config.backbone or _recorded_backbone(features, source), config, say)
            images = extractor.extract_ood(source, *_where(source, config), beside)
            if say is not None:
                _tell(images, extractor, say)
            rows, record = images.as_ood(), images.record
            known = ("images_sha256", "n_skipped", "skipped")
            records.append({"source": source, **{name: record[name] for name in known}})
        width = beside.n_features if beside is not None else features.n_features if features is not None else None
        if width is not None and rows.rows.shape[1] != width:
            raise InputError(
                f"{source}: has {rows.rows.shape[1]} features, but the task has {width}: take them from the same "
                "backbone layer"
            )
        if not same_backbone(own, record):
            raise InputError(
                f"{source}: its features come from another network, other weights, another layer or preprocessing "
                "than the task's: extract both in the same way"
            )
        sources.append(rows)
    return sources, records


def _check_objectives(config: RunConfig) -> None:
    """Find slips before images are read, which may take hours."""
    if config.problem.objectives is not None:
        objectives = resolve_objectives(config.problem.objectives, "classification")
        wanting = [objective.name for objective in objectives if "ood" in objective.needs]
        if wanting and not config.data.ood:
            raise InputError(f"{wanting[0]} needs out-of-distribution rows: add --ood PATH")


def _record_of(features: FeatureSet | None) -> dict[str, Any]:
    """How features were made, where they say so."""
    try:
        record = json.loads(features.extraction if features is not None else "")
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _where(source: str, config: RunConfig) -> tuple[str | None, bool]:
    """Root and download of a torchvision data set; a folder has neither."""
    return (None, False) if Path(source).is_absolute() else (config.data.root, config.data.download)


def _recorded_backbone(features: FeatureSet | None, source: str) -> BackboneSettings:
    """The backbone that a feature set says it was made with."""
    try:
        return BackboneSettings.model_validate_json(json.dumps(_record_of(features)["backbone"]["settings"]))
    except (ValueError, TypeError, KeyError):
        name = features.name if features is not None else "the features"
        raise InputError(
            f"{source}: is no .npz of features, and {name} does not say which backbone images must go through: "
            "name it with --backbone, or extract them first (moevoprune extract)"
        ) from None


def _tell(extraction: Extraction, extractor: Extractor, say: Say) -> None:
    for note in extraction.notes:
        say(note)
    skipped = extraction.skipped
    if skipped:
        say(f"{extraction.images.name}: skipped {len(skipped)} files that are no images:")
        for line in skipped[:_MOST_LISTED]:
            say(f"  {line}")
        if len(skipped) > _MOST_LISTED:
            say(f"  and {len(skipped) - _MOST_LISTED} more")
    say(
        f"{extraction.images.name}: {len(extraction.images)} images through {extractor.backbone.settings.name} "
        f"({extractor.backbone.layer}): {extraction.n_features} features, {extraction.n_computed} computed now"
    )


def _located(source: str, root: Path | None, where: str, what: str) -> str:
    if not source.strip():
        raise InputError(f"{where or 'IMAGES'}: the name of the {what} is empty: give a folder or a data set")
    path = Path(source).expanduser()
    # torchvision keeps some data sets in a folder of their name: with a root the name is meant
    if root is not None and source.isidentifier() and is_data_set(source):
        return source
    candidate = path if root is None else root / path
    if exists(candidate):
        return str(candidate.resolve())
    if is_data_set(source):
        return source
    if root is None or path.is_absolute() or not where.endswith(".toml"):
        looked = "" if root is None or path.is_absolute() else f", neither here nor in {root}"
        raise InputError(f"{what} {source!r}: no such folder, file or torchvision data set{looked}")
    raise InputError(
        f"{where}: {what} {source!r} are not there: no folder {candidate}; the head of that file says where they "
        "come from and how to lay them out; say where they are with --root DIR"
    )


def _backbone_arguments(assignments: list[str] | None) -> dict[str, Any] | None:
    if assignments is None:
        return None
    arguments = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise InputError(f"--backbone-arg {assignment}: write it as key=value, e.g. width_mult=0.35")
        arguments[key.strip()] = parse_value(text.strip())
    return arguments


def _typed(key: str, text: str | None) -> str | None:
    return None if text is None else from_here(key, text)


def _ood_paths(given: list[str] | None) -> list[str] | None:
    return None if given is None else [from_here("data.ood", source) for source in given]


class _Bar:
    """A progress bar with images per second on standard error, where that is a terminal."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._stage = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if sys.stderr is None:
            return
        if stage == "waiting":
            print("waiting for another process that extracts through the same backbone", file=sys.stderr)
            return
        if stage != self._stage:
            if self._bar is not None:
                self._bar.close()
            self._stage = stage
            self._bar = tqdm(
                desc=stage, total=total, initial=done, unit=" images", disable=None, leave=False, file=sys.stderr
            )
        self._bar.update(done - self._bar.n)
        if done >= total:
            self._bar.close()
            self._stage = ""
