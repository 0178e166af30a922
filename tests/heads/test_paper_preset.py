"""The paper preset against what the published Keras program gave on the same features and masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.metrics import roc_auc_score

from moevoprune.heads.encodings import HeadMask, HeadShape, make_encoding
from moevoprune.heads.settings import HeadSettings
from moevoprune.heads.trainer import HeadStack, PopulationTrainer
from moevoprune.objectives import accuracy, auroc, max_softmax_score

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "reference_run"
needs_reference_run = pytest.mark.skipif(
    not (FOLDER / "results.json").is_file(), reason=f"{FOLDER} is not here: the published program's results"
)
SEED = 0


@pytest.fixture(scope="module")
def data() -> dict[str, npt.NDArray[Any]]:
    with np.load(FOLDER / "features.npz") as arrays:
        return {name: arrays[name] for name in ("X_train", "y_train", "X_test", "y_test", "X_ood")}


def train(data: dict[str, npt.NDArray[Any]], bits: npt.NDArray[Any], **changes: Any) -> list[HeadStack]:
    settings = HeadSettings.preset("paper", **changes)
    n_rows, n_features = data["X_train"].shape
    shape = HeadShape(n_features, settings.hidden, int(data["y_train"].max()) + 1)
    encoding = make_encoding("features", shape)
    masks: list[HeadMask] = [encoding.decode(row) for row in bits]
    trainer = PopulationTrainer(
        data["X_train"].astype(np.float32), data["y_train"].astype(np.int64), shape, settings, SEED, "cpu"
    )
    return list(trainer.fit(masks, [np.arange(n_rows)]))


def logits(stack: HeadStack, features: npt.NDArray[Any]) -> torch.Tensor:
    rows = torch.from_numpy(features[:, stack.mask.inputs].astype(np.float32))
    return stack.forward(rows, 0)[0]


@pytest.fixture(scope="module")
def stacks(data: dict[str, npt.NDArray[Any]]) -> list[HeadStack]:
    return train(data, np.load(FOLDER / "masks.npy").astype(np.bool_))


@needs_reference_run
@pytest.mark.slow
def test_accuracy_and_loss_are_those_of_the_published_program(
    data: dict[str, npt.NDArray[Any]], stacks: list[HeadStack]
) -> None:
    runs = json.loads((FOLDER / "results.json").read_text())["runs"]
    labels = torch.from_numpy(data["y_test"].astype(np.int64))
    accuracies = [accuracy(logits(stack, data["X_test"]), labels).item() for stack in stacks]
    losses = np.array([stack.train_loss[0] for stack in stacks])
    expected = np.array([run["keras"]["final_train_loss"] for run in runs])
    print("accuracy", np.round(accuracies, 4), "mean", np.mean(accuracies))
    print("loss / keras loss", np.round(losses / expected, 4))
    assert [run["mask"] for run in runs] == list(range(len(stacks)))
    assert [int(stack.epochs[0]) for stack in stacks] == [run["epochs"] for run in runs]
    assert np.mean(accuracies) == pytest.approx(0.811, abs=0.02)
    np.testing.assert_allclose(losses, expected, rtol=0.1)


@needs_reference_run
def test_ood_auroc_is_exact(data: dict[str, npt.NDArray[Any]], stacks: list[HeadStack]) -> None:
    for stack in stacks:
        inside, outside = (max_softmax_score(logits(stack, data[part]), 1000.0) for part in ("X_test", "X_ood"))
        is_outside = np.r_[np.zeros(len(inside)), np.ones(len(outside))]
        expected = roc_auc_score(is_outside, -torch.cat([inside, outside]).numpy())
        found = auroc(inside, outside).item()
        print("AUROC", round(found, 4))
        assert found == pytest.approx(expected, abs=1e-9)


@needs_reference_run
def test_the_empty_mask_tells_nothing_out_of_distribution(data: dict[str, npt.NDArray[Any]]) -> None:
    (stack,) = train(data, np.zeros((1, data["X_train"].shape[1]), dtype=np.bool_), epochs=20)
    inside, outside = (max_softmax_score(logits(stack, data[part]), 1000.0) for part in ("X_test", "X_ood"))
    assert auroc(inside, outside).item() == 0.5
