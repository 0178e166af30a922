"""Confidence scores and the ROC, against scikit-learn, pytorch-ood and by counting pairs."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from sklearn.metrics import roc_auc_score, roc_curve

from moevoprune.errors import InputError
from moevoprune.objectives import (
    OOD_SCORES,
    auroc,
    energy_score,
    fpr_at_tpr,
    max_softmax_score,
    odin_perturb,
    ood_score,
)

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


# --- energy -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1000.0])
def test_energy_is_the_scaled_log_sum_of_exponentials(temperature: float) -> None:
    logits = 30 * torch.randn(4, 9, 5, generator=torch.Generator().manual_seed(1))
    score = energy_score(logits, temperature)
    assert score.dtype == torch.float64
    assert score.shape == (4, 9)
    expected = temperature * logsumexp(logits.double().numpy() / temperature, axis=-1)
    np.testing.assert_allclose(score.numpy(), expected, rtol=1e-13)
    # unlike a softmax, it sees what all logits have in common
    torch.testing.assert_close(energy_score(logits + 5, temperature), score + 5, rtol=1e-6, atol=1e-5)


def test_energy_of_large_and_bad_logits() -> None:
    score = energy_score(torch.tensor([[1e30, 0.0], [math.nan, 0.0], [math.inf, 0.0]], dtype=torch.float64))
    assert score[0] == 1e30
    assert score[1:].isnan().all()


@pytest.mark.parametrize("call", [energy_score, lambda z, t: odin_perturb(lambda x: x, z, 0.1, t)])
@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_other_scores_refuse_a_bad_temperature(call: Callable[..., object], temperature: float) -> None:
    with pytest.raises(InputError, match="temperature"):
        call(torch.zeros(2, 2), temperature)


def test_scores_do_not_depend_on_the_order_of_classes() -> None:
    generator = torch.Generator().manual_seed(4)
    logits = torch.randint(-8, 8, (500, 7), generator=generator) / 3
    shuffled = logits[:, torch.randperm(7, generator=generator)]
    for score in OOD_SCORES:
        assert torch.equal(ood_score(logits, score), ood_score(shuffled, score))


def test_scores_by_name() -> None:
    logits = torch.randn(20, 4, generator=torch.Generator().manual_seed(5))
    assert torch.equal(ood_score(logits, "msp"), max_softmax_score(logits))
    assert torch.equal(ood_score(logits, "temperature"), max_softmax_score(logits, 1000.0))
    assert torch.equal(ood_score(logits, "odin"), max_softmax_score(logits, 1000.0))
    assert torch.equal(ood_score(logits, "energy"), energy_score(logits))
    with pytest.raises(InputError, match="unknown OoD score 'mahalanobis': use one of msp"):
        ood_score(logits, "mahalanobis")


# --- ODIN -------------------------------------------------------------------------------------------


def network(seed: int = 0) -> torch.nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4)).double()
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return net


def test_odin_follows_the_closed_form_gradient() -> None:
    net = network()
    rows = torch.randn(30, 6, generator=torch.Generator().manual_seed(1)).double()
    (w1, b1), (w2, b2) = ((net[i].weight.detach().numpy(), net[i].bias.detach().numpy()) for i in (0, 2))
    before = rows.numpy() @ w1.T + b1
    logits = (np.maximum(before, 0) @ w2.T + b2) / 1000.0
    softmax = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
    # of log softmax at the largest class, by the logits: one-hot minus softmax
    by_logits = np.eye(4)[logits.argmax(1)] - softmax
    gradient = ((by_logits @ w2) * (before > 0)) @ w1
    with torch.no_grad():
        moved = odin_perturb(net, rows, 0.3)
    np.testing.assert_allclose(moved.numpy(), rows.numpy() + 0.3 * np.sign(gradient), atol=1e-15)
    assert not moved.requires_grad
    assert all(parameter.grad is None for parameter in net.parameters())


def test_odin_raises_confidence_and_without_a_step_changes_nothing() -> None:
    net = network()
    rows = torch.randn(50, 6, generator=torch.Generator().manual_seed(2)).double()
    small = odin_perturb(net, rows, 1e-4)
    assert (max_softmax_score(net(small), 1000.0) >= max_softmax_score(net(rows), 1000.0)).all()
    assert torch.equal(odin_perturb(net, rows, 0.0), rows)


def test_odin_works_for_stacked_heads_and_steps_per_feature() -> None:
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(5, 6, 4, generator=generator)
    rows = torch.randn(7, 6, generator=generator)
    step = torch.rand(6, generator=generator)
    together = odin_perturb(lambda x: x @ weights, rows.expand(5, 7, 6), step)
    assert together.shape == (5, 7, 6)
    for head in range(5):
        alone = odin_perturb(lambda x, head=head: x @ weights[head], rows, step)
        assert torch.equal(together[head], alone)
        torch.testing.assert_close((alone - rows).abs(), step.expand(7, 6))


def test_odin_works_where_gradients_are_off_and_where_there_are_none() -> None:
    net = network()
    with torch.inference_mode():
        rows = torch.randn(4, 6, dtype=torch.float64)
        moved = odin_perturb(net, rows, 0.1)
    assert not torch.equal(moved, rows)
    rows = torch.randn(4, 6)
    assert torch.equal(odin_perturb(lambda x: torch.zeros(4, 3), rows, 0.1), rows)
    unused = torch.ones(3, requires_grad=True)
    assert torch.equal(odin_perturb(lambda x: unused.expand(4, 3), rows, 0.1), rows)
    assert odin_perturb(lambda x: x @ torch.zeros(0, 3), torch.zeros(4, 0), 0.1).shape == (4, 0)


@pytest.mark.parametrize("epsilon", [-0.1, math.nan, math.inf, torch.tensor([0.1, -0.1])])
def test_odin_refuses_bad_steps(epsilon: float | torch.Tensor) -> None:
    with pytest.raises(InputError, match="odin_perturb: epsilon"):
        odin_perturb(lambda x: x, torch.zeros(2, 2), epsilon)


def test_scores_are_those_of_pytorch_ood() -> None:
    detector = pytest.importorskip("pytorch_ood.detector")
    net = network(7).eval()
    rows = torch.randn(60, 6, generator=torch.Generator().manual_seed(8)).double()
    with torch.no_grad():
        logits = net(rows)
        moved = net(odin_perturb(net, rows, 0.2))
    # theirs are outlier scores: lower is more in-distribution
    with torch.no_grad():
        torch.testing.assert_close(-max_softmax_score(logits), detector.MaxSoftmax(net).predict(rows))
        torch.testing.assert_close(
            -max_softmax_score(logits, 1000.0), detector.MaxSoftmax(net, t=1000.0).predict(rows)
        )
        torch.testing.assert_close(-energy_score(logits), detector.EnergyBased(net).predict(rows))
    odin = detector.ODIN(net, eps=0.2, temperature=1000.0).predict(rows)
    torch.testing.assert_close(-max_softmax_score(moved, 1000.0), odin.detach(), rtol=1e-14, atol=0)


# --- false positives --------------------------------------------------------------------------------


def fpr_by_sklearn(score_in: np.ndarray, score_out: np.ndarray, tpr: float) -> float:
    truth = np.r_[np.zeros(len(score_in)), np.ones(len(score_out))]
    fprs, tprs, _ = roc_curve(truth, -np.r_[score_in, score_out], drop_intermediate=False)
    return float(fprs[np.argmax(tprs >= tpr)])


@settings(max_examples=100, deadline=None)
@given(score_in=TIED | FREE, score_out=TIED | FREE, tpr=st.sampled_from([0.05, 0.5, 0.8, 0.95, 1.0]))
def test_fpr_is_sklearns(score_in: list[float], score_out: list[float], tpr: float) -> None:
    a, b = np.array(score_in), np.array(score_out)
    assert fpr_at_tpr(torch.from_numpy(a), torch.from_numpy(b), tpr).item() == fpr_by_sklearn(a, b, tpr)


@pytest.mark.parametrize("n_out", [1, 7, 19, 20, 40, 60, 100, 140, 180, 333])
def test_fpr_counts_rows_exactly(n_out: int) -> None:
    rng = np.random.default_rng(n_out)
    a, b = rng.integers(0, 60, 97) / 60 + 0.3, rng.integers(0, 60, n_out) / 60
    assert fpr_at_tpr(torch.from_numpy(a), torch.from_numpy(b)).item() == fpr_by_sklearn(a, b, 0.95)


def test_fpr_bounds_and_the_other_convention() -> None:
    low, high = torch.tensor([0.1, 0.2]), torch.tensor([0.8, 0.9, math.inf])
    assert fpr_at_tpr(high, low).item() == 0.0
    assert fpr_at_tpr(low, high).item() == 1.0
    assert fpr_at_tpr(torch.ones(3), torch.ones(4)).item() == 1.0
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=200) + 1, rng.normal(size=100)
    # in-distribution rows as positives: accepted where the confidence is at least the threshold
    threshold = np.sort(a)[::-1][int(np.ceil(0.95 * 200)) - 1]
    other = fpr_at_tpr(torch.from_numpy(-b), torch.from_numpy(-a)).item()
    assert other == np.mean(b >= threshold)


def test_fpr_batched_is_looped() -> None:
    generator = torch.Generator().manual_seed(0)
    score_in = torch.randint(0, 9, (3, 4, 20), generator=generator).float()
    score_out = torch.randint(0, 9, (4, 15), generator=generator).double()
    value = fpr_at_tpr(score_in, score_out, 0.7)
    assert value.shape == (3, 4)
    for i in range(3):
        for j in range(4):
            assert value[i, j] == fpr_at_tpr(score_in[i, j], score_out[j], 0.7)


@pytest.mark.parametrize("tied", [False, True])
def test_fpr_is_pytorch_oods(tied: bool) -> None:
    metrics = pytest.importorskip("pytorch_ood.metrics")
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=240) + 1, rng.normal(size=160)
    if tied:
        a, b = a.round(1), b.round(1)
    metric = metrics.FPRAtTPR(0.95)
    labels = torch.cat([torch.zeros(240), -torch.ones(160)]).long()
    metric.update(-torch.from_numpy(np.r_[a, b]), labels)
    expected = metric.compute()["FPR95TPR"]
    assert fpr_at_tpr(torch.from_numpy(a), torch.from_numpy(b)).item() == pytest.approx(float(expected), abs=1e-7)


@pytest.mark.parametrize(
    ("score_in", "score_out", "tpr", "message"),
    [
        (torch.zeros(0), torch.zeros(3), 0.95, "score_in has shape"),
        (torch.zeros(2, 3), torch.zeros(2, 0), 0.95, "score_out has shape"),
        (torch.tensor([0.0, math.nan]), torch.zeros(3), 0.95, "score_in holds NaN"),
        (torch.zeros(2, 3), torch.zeros(4, 3), 0.95, "do not broadcast"),
        (torch.zeros(3), torch.zeros(3), 0.0, "tpr is 0.0"),
        (torch.zeros(3), torch.zeros(3), 1.5, "tpr is 1.5"),
        (torch.zeros(3), torch.zeros(3), math.nan, "tpr is nan"),
    ],
)
def test_fpr_refuses(score_in: torch.Tensor, score_out: torch.Tensor, tpr: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fpr_at_tpr(score_in, score_out, tpr)
