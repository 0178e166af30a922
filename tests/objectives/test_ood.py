"""Confidence scores and the area under the ROC, against scikit-learn and by counting pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from moevoprune.errors import InputError
from moevoprune.objectives import auroc, max_softmax_score

# Few distinct values, so that most pairs are ties.
TIED = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=30)
FREE = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30)


def by_sklearn(score_in: np.ndarray, score_out: np.ndarray) -> float:
    truth = np.r_[np.zeros(len(score_in)), np.ones(len(score_out))]
    return float(roc_auc_score(truth, -np.r_[score_in, score_out]))


@settings(max_examples=100, deadline=None)
@given(score_in=TIED | FREE, score_out=TIED | FREE)
def test_auroc_counts_pairs(score_in: list[float], score_out: list[float]) -> None:
    value = auroc(torch.tensor(score_in, dtype=torch.float64), torch.tensor(score_out, dtype=torch.float64))
    won = sum((a > b) + 0.5 * (a == b) for a in score_in for b in score_out)
    assert value.item() == won / (len(score_in) * len(score_out))
    assert value.item() == pytest.approx(by_sklearn(np.array(score_in), np.array(score_out)), abs=1e-12)


@pytest.mark.parametrize("levels", [2, 5, 50, 10**9])
def test_auroc_matches_sklearn_on_many_rows(levels: int) -> None:
    rng = np.random.default_rng(levels)
    score_in = rng.integers(0, levels, 700) / levels + 0.2
    score_out = rng.integers(0, levels, 300) / levels
    value = auroc(torch.as_tensor(score_in), torch.as_tensor(score_out)).item()
    assert value == pytest.approx(by_sklearn(score_in, score_out), abs=1e-12)


def test_auroc_of_constant_scores_is_half() -> None:
    assert auroc(torch.full((7,), 0.3), torch.full((5,), 0.3)).item() == 0.5


def test_auroc_direction_and_infinities() -> None:
    low, high = torch.tensor([-math.inf, 0.1]), torch.tensor([0.2, math.inf])
    assert auroc(high, low).item() == 1.0
    assert auroc(low, high).item() == 0.0
    assert auroc(torch.tensor([math.inf]), torch.tensor([math.inf])).item() == 0.5


def test_auroc_batched_is_looped_and_broadcasts() -> None:
    generator = torch.Generator().manual_seed(0)
    score_in = torch.randint(0, 6, (3, 4, 20), generator=generator).float()
    score_out = torch.randint(0, 6, (4, 15), generator=generator).double()
    value = auroc(score_in, score_out)
    assert value.shape == (3, 4)
    assert value.dtype == torch.float64
    for i in range(3):
        for j in range(4):
            assert value[i, j] == auroc(score_in[i, j], score_out[j])


def test_auroc_takes_non_contiguous_and_integer_scores() -> None:
    scores = torch.arange(12).reshape(6, 2).T
    assert auroc(scores, scores).tolist() == [0.5, 0.5]
    big = 2**53
    assert auroc(torch.tensor([big + 1]), torch.tensor([big])).item() == 1.0


def test_auroc_mixed_types_invent_no_ties() -> None:
    above = torch.tensor([0.5 + 1e-12], dtype=torch.float64)
    assert auroc(above, torch.tensor([0.5], dtype=torch.float32)).item() == 1.0


@pytest.mark.parametrize(
    ("score_in", "score_out", "message"),
    [
        (torch.zeros(0), torch.zeros(3), "score_in has shape"),
        (torch.zeros(2, 3), torch.zeros(2, 0), "score_out has shape"),
        (torch.tensor(1.0), torch.zeros(3), "score_in has shape"),
        (torch.tensor([0.0, math.nan]), torch.zeros(3), "score_in holds NaN"),
        (torch.zeros(3), torch.tensor([math.nan]), "score_out holds NaN"),
        (torch.zeros(2, 3), torch.zeros(4, 3), "do not broadcast"),
    ],
)
def test_auroc_refuses(score_in: torch.Tensor, score_out: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        auroc(score_in, score_out)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1000.0])
def test_max_softmax_is_the_softmax_of_scaled_logits(temperature: float) -> None:
    logits = torch.randn(4, 9, 5, generator=torch.Generator().manual_seed(1))
    score = max_softmax_score(logits, temperature)
    expected = torch.softmax(logits.double() / temperature, -1).amax(-1)
    assert score.dtype == torch.float64
    assert score.shape == (4, 9)
    torch.testing.assert_close(score, expected, rtol=1e-14, atol=0)


def test_a_high_temperature_keeps_rows_apart() -> None:
    logits = torch.randn(2000, 10, generator=torch.Generator().manual_seed(2))
    rows = len(torch.unique(logits, dim=0))
    assert len(torch.unique(max_softmax_score(logits, 1000.0))) == rows
    assert len(torch.unique(torch.softmax(logits / 1000.0, -1).amax(-1))) < rows


def test_max_softmax_of_large_equal_and_bad_logits() -> None:
    logits = torch.tensor([[1e30, 0.0], [3.0, 3.0], [math.nan, 0.0], [-math.inf, 0.0]])
    score = max_softmax_score(logits).tolist()
    assert score[0] == 1.0
    assert score[1] == 0.5
    assert math.isnan(score[2])
    assert score[3] == 1.0


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_max_softmax_refuses_a_bad_temperature(temperature: float) -> None:
    with pytest.raises(InputError, match="temperature"):
        max_softmax_score(torch.zeros(2, 2), temperature)


@pytest.mark.parametrize("shape", [(3,), (3, 0)])
def test_max_softmax_refuses_logits_without_classes(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="logits have shape"):
        max_softmax_score(torch.zeros(shape))
