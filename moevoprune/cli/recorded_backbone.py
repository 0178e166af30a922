"""The backbone that a run's features came from, as its record names it.

What takes seconds to import is imported where it is used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moevoprune.errors import InputError
from moevoprune.fronts.run_folder import RECORD, entry

if TYPE_CHECKING:
    import torch

    from moevoprune.features.backbones import Backbone

__all__ = ["recorded_backbone"]


def recorded_backbone(
    runs: Sequence[Path],
    records: Sequence[Mapping[str, Any]],
    weights: str | None,
    device: torch.device | str,
    *,
    n_features: int | None = None,
    advice: str = "",
) -> Backbone:
    """Load the backbone that all runs have in common, and make sure that it is the recorded one.

    Parameters
    ----------
    runs
        Folders of the runs, for messages.
    records
        What their ``run.json`` holds, in the same order.
    weights
        File of the weights, where it has moved since the run; None for the recorded place.
    device
        Where to put the weights.
    n_features
        Length of the feature rows that the runs' heads read, to be checked; None to check nothing.
    advice
        What to do where the features did not come from images, added to that message.

    Raises
    ------
    InputError
        The features of a run were not extracted from images, or came through another backbone than the first
        run's; the backbone cannot be loaded; or its weights or its width are not those of the record.
    """
    from pydantic import ValidationError

    from moevoprune.features.backbone_settings import BackboneSettings
    from moevoprune.features.backbones import load_backbone

    settings, digest = _common(runs, records, advice)
    if weights is not None:
        settings["weights"] = weights
    where = f"{runs[0] / RECORD}"
    try:
        # by way of JSON, as lists of the record are tuples in the settings
        checked = BackboneSettings.model_validate_json(json.dumps(settings))
    except ValidationError:
        raise InputError(f"{where}: the settings of the backbone are damaged") from None
    try:
        backbone = load_backbone(checked, device)
    except InputError as error:
        moved = "" if weights is not None else "; if they have moved, add --weights FILE"
        raise InputError(f"{error}{moved}") from None
    if digest is not None and backbone.weights_sha256 != digest:
        raise InputError(
            f"{checked.weights}: are other weights than those that {where} records (SHA-256 "
            f"{backbone.weights_sha256[:12]}..., not {digest[:12]}...): name the run's own with --weights FILE"
        )
    if n_features is not None and backbone.feature_size != n_features:
        raise InputError(
            f"{runs[0]}: its heads read {n_features} features, but the backbone of its record gives "
            f"{backbone.feature_size}: {RECORD} is not that run's"
        )
    return backbone


def _common(
    runs: Sequence[Path], records: Sequence[Mapping[str, Any]], advice: str
) -> tuple[dict[str, Any], str | None]:
    """Settings of the backbone that all runs have in common, and the hash of its weights."""
    from moevoprune.features.backbones import same_backbone

    backbones = [entry(record, "extraction", "backbone") for record in records]
    for run, backbone in zip(runs, backbones, strict=True):
        if not isinstance(entry(backbone, "settings"), dict):
            raise InputError(
                f"{run}: its features were not extracted from images by moevoprune, so there is no telling which "
                f"network gave them{advice}"
            )
        if not same_backbone({"backbone": backbone}, {"backbone": backbones[0]}):
            raise InputError(f"{run}: its features came through another backbone than those of {runs[0]}")
    digest = backbones[0].get("weights_sha256")
    return dict(backbones[0]["settings"]), digest if isinstance(digest, str) else None
