"""The whole way to a small network: choose the threshold, train, construct, retrain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moevoprune.construction.construction import construct
from moevoprune.construction.network import start_network, train_network
from moevoprune.construction.settings import ConstructionSettings
from moevoprune.construction.sweep import Sweep, retrain_seed, sweep
from moevoprune.errors import InputError, whole_number
from moevoprune.features import FeatureSet
from moevoprune.features.folds import training_part
from moevoprune.heads.head import TrainedHead
from moevoprune.search.problem import LARGEST_SEED

__all__ = ["Built", "build_network", "refine"]


@dataclass(frozen=True, eq=False)
class Built:
    """A large network and the small one that was made of it, both of the whole training part.

    Attributes
    ----------
    sweep
        What the threshold was chosen by.
    large
        The large network, trained.
    constructed
        The small network with the large one's weights, not retrained.
    refined
        The small network, retrained.
    """

    sweep: Sweep
    large: TrainedHead
    constructed: TrainedHead
    refined: TrainedHead


def build_network(features: FeatureSet, settings: ConstructionSettings | None = None, seed: int = 1) -> Built:
    """Construct a small network for a task.

    Parameters
    ----------
    features
        The data; the test part is not looked at.
    settings
        None for the defaults.
    seed
        Seed of everything random, at least 0.

    Raises
    ------
    InputError
        The data are left in files, there are too few rows for the folds, or training diverges.

    Examples
    --------
    >>> from moevoprune.construction.tables import open_table, split_table
    >>> features = split_table(open_table("wine"), seed=1)
    >>> built = build_network(features, ConstructionSettings(hidden=(8, 8), epochs=2, cv=2), seed=1)
    >>> len(built.refined.widths)
    4
    """
    settings = ConstructionSettings() if settings is None else settings
    seed = whole_number("seed", seed, 0, LARGEST_SEED)
    if features.is_mapped:
        raise InputError(f"{features.name}: networks are constructed in memory: give an .npz file, not a folder")
    swept = sweep(features, settings, seed)
    rows, targets = training_part(features)
    rows, decay = np.asarray(rows), swept.weight_decay
    start = start_network(rows, targets, settings.hidden, features.n_outputs, seed)
    large = train_network(start, rows, targets, settings.training(len(rows), decay), seed)
    return Built(swept, large, *refine(features, large, swept.epsilon, settings, decay, seed))


def refine(
    features: FeatureSet,
    large: TrainedHead,
    epsilon: float,
    settings: ConstructionSettings,
    weight_decay: float,
    seed: int,
) -> tuple[TrainedHead, TrainedHead]:
    """Make a small network of a large one with a threshold, and retrain it, on the whole training part.

    Parameters
    ----------
    features
        The data; the test part is not looked at.
    large
        The large network, trained on the training part.
    epsilon
        Threshold of the variability, at least 0.
    settings
        How the small network is retrained.
    weight_decay
        L2 penalty of the retraining.
    seed
        That of the large network's training.

    Returns
    -------
    constructed, refined : TrainedHead
        The small network before and after retraining.
    """
    part, targets = training_part(features)
    rows = np.asarray(part)
    constructed = construct(large, rows, epsilon, settings.measure).network
    retraining = settings.retraining(len(rows), weight_decay)
    return constructed, train_network(constructed, rows, targets, retraining, retrain_seed(seed))
