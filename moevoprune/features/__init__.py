"""Feature sets: what a frozen backbone says about the rows of a task."""

from moevoprune.features.digits import load_digits_features
from moevoprune.features.feature_set import FeatureSet
from moevoprune.features.sources import load_features

__all__ = ["FeatureSet", "load_digits_features", "load_features"]
