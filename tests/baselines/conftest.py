"""Ranking data made of small feature sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moevoprune import HeadSettings
from moevoprune.baselines import RankingData
from moevoprune.features.folds import training_part
from moevoprune.heads.encodings import HeadShape, make_encoding
from moevoprune.heads.scaling import Scaling
from moevoprune.heads.trainer import PopulationTrainer


def build(
    features, encoding="features", hidden=(8,), evaluate=None, seed=3, dtype=torch.float32, **changes
) -> RankingData:
    head = HeadSettings(**{"hidden": hidden, "epochs": 6, "batch_size": 16, **changes})
    rows, targets = training_part(features)
    scaling = Scaling.fit(rows, targets, head.standardise)
    prepared, targets = scaling.apply(rows), scaling.apply_to_targets(targets)
    made = make_encoding(encoding, HeadShape(features.n_features, hidden, features.n_outputs))
    trainer = PopulationTrainer(prepared, targets, made.shape, head, seed, "cpu", dtype)
    return RankingData(prepared, targets, features.task, made, head, seed, trainer, evaluate)


@pytest.fixture(scope="session")
def ranking_data():
    return build


@pytest.fixture(scope="session")
def several_features(small_features, small_regression):
    """Both tasks, by name."""
    return {"classification": small_features, "regression": small_regression}


@pytest.fixture(scope="session")
def with_constants():
    """Put constant features at some places of a feature set."""
    from moevoprune import FeatureSet

    def make(features, places=(4, 9), value=3.1):
        rows = np.array(features.X_train)
        rows[:, list(places)] = value
        return FeatureSet(rows, features.y_train, features.X_test, features.y_test, task=features.task)

    return make
