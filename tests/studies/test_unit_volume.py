"""The published hypervolume against counting on a grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moevoprune import InputError, PruningProblem, evolve
from moevoprune.studies.unit_volume import member_scores, unit_hypervolume


@pytest.fixture(scope="module")
def front(small_features, quick_head):
    generator = np.random.default_rng(5)
    features = replace(small_features, X_ood=generator.normal(scale=3, size=(90, 14)))
    objectives = ["accuracy", "active_neurons", "ood_auroc"]
    return evolve(PruningProblem(features, objectives=objectives, head=quick_head, seed=1), pop_size=8, n_gen=3)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_it_is_the_dominated_share_of_the_unit_cube(front, part):
    if part == "validation":
        accuracy, auroc = front.column("accuracy"), front.column("ood_auroc")
    else:
        accuracy, auroc = front.test, front.test_columns["ood_auroc"]
    gains = np.column_stack([accuracy, 1 - front.active / 14, auroc])
    # exact: the cube cut at every value of every member
    edges = [np.unique([0.0, 1.0, *column]) for column in gains.T]
    lengths = [np.diff(edge) for edge in edges]
    corners = np.stack(np.meshgrid(*(edge[1:] for edge in edges), indexing="ij"), axis=-1)
    inside = (corners[..., None, :] <= gains).all(axis=-1).any(axis=-1)
    volume = np.einsum("ijk,i,j,k->", inside.astype(float), *lengths)
    assert unit_hypervolume(front, part) == pytest.approx(volume, abs=1e-12)
    assert member_scores(front, part)[:, 1] == pytest.approx(front.masks.mean(axis=1))


def test_bad_input(front):
    with pytest.raises(InputError, match="validation or test"):
        unit_hypervolume(front, "training")
    with pytest.raises(InputError, match="ood_auroc"):
        unit_hypervolume(replace(front, test_columns={}, dense_test_columns={}), "test")
