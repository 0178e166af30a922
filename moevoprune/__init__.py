"""Evolutionary multi-objective pruning of transfer-learning heads.

The public names are loaded when first used, so that ``import moevoprune`` is fast and works without the parts
that are not needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moevoprune.errors import InputError
    from moevoprune.features import FeatureSet, load_features
    from moevoprune.features.backbone_settings import BackboneSettings
    from moevoprune.features.extraction import extract
    from moevoprune.filters.problem import FilterPruningProblem
    from moevoprune.fronts.evolve import evolve
    from moevoprune.fronts.front import Front
    from moevoprune.heads.head import TrainedHead
    from moevoprune.heads.settings import HeadSettings
    from moevoprune.objectives import Candidate, Objective
    from moevoprune.search.problem import PruningProblem
    from moevoprune.search.sampling import DensitySampling, MaskSampling

_HOME = {
    "BackboneSettings": "moevoprune.features.backbone_settings",
    "Candidate": "moevoprune.objectives",
    "DensitySampling": "moevoprune.search.sampling",
    "FeatureSet": "moevoprune.features",
    "FilterPruningProblem": "moevoprune.filters.problem",
    "Front": "moevoprune.fronts.front",
    "HeadSettings": "moevoprune.heads.settings",
    "InputError": "moevoprune.errors",
    "MaskSampling": "moevoprune.search.sampling",
    "Objective": "moevoprune.objectives",
    "PruningProblem": "moevoprune.search.problem",
    "TrainedHead": "moevoprune.heads.head",
    "evolve": "moevoprune.fronts.evolve",
    "extract": "moevoprune.features.extraction",
    "load_features": "moevoprune.features",
}

__all__ = [
    "BackboneSettings",
    "Candidate",
    "DensitySampling",
    "FeatureSet",
    "FilterPruningProblem",
    "Front",
    "HeadSettings",
    "InputError",
    "MaskSampling",
    "Objective",
    "PruningProblem",
    "TrainedHead",
    "evolve",
    "extract",
    "load_features",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("moevoprune")
    if name not in _HOME:
        raise AttributeError(f"module 'moevoprune' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
