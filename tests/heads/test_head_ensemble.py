"""Ensembles of heads: as a loop over the members would vote, as a module, exported."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, r2_score

from moevoprune.errors import InputError
from moevoprune.heads.ensemble import HeadEnsemble
from moevoprune.heads.head import TrainedHead

N_FEATURES, N_CLASSES = 12, 4


def make_head(seed, hidden=(6,), n_inputs=None, bias=True, task="classification", scaling=None, offset=0.0):
    """A head with random weights; its standardisation is its own, or that of a seed."""
    generator = np.random.default_rng(seed)
    count = int(generator.integers(1, N_FEATURES)) if n_inputs is None else n_inputs
    inputs = np.sort(generator.choice(N_FEATURES, count, replace=False)).astype(np.int64)
    shared = np.random.default_rng(1000 + (seed if scaling is None else scaling))
    mean = (shared.normal(size=N_FEATURES) + offset).astype(np.float32)
    scale = shared.uniform(0.5, 3, N_FEATURES).astype(np.float32)
    outputs = N_CLASSES if task == "classification" else 2
    widths = [count, *hidden, outputs]

    def draw(*shape):
        return generator.normal(size=shape).astype(np.float32)

    regression = {}
    if task == "regression":
        regression = {
            "target_mean": np.float32([100, -3]),
            "target_scale": generator.uniform(1, 20, 2).astype(np.float32),
        }
    return TrainedHead(
        task=task,
        n_features=N_FEATURES,
        inputs=inputs,
        weights=tuple(draw(a, b) for a, b in itertools.pairwise(widths)),
        biases=tuple(draw(b) if bias else None for b in widths[1:]),
        mean=mean[inputs],
        scale=scale[inputs],
        **regression,
    )


def rows(n=30, offset=0.0):
    return (np.random.default_rng(5).normal(size=(n, N_FEATURES)) * 2 + offset).astype(np.float32)


POOLS = {
    "no hidden layer": [make_head(s, ()) for s in range(5)],
    "one hidden layer": [make_head(s) for s in range(5)],
    "shared standardisation": [make_head(s, scaling=0) for s in range(5)],
    "two hidden layers": [make_head(s, (7, 5)) for s in range(5)],
    "different widths": [make_head(s, (1 + s, 9 - s)) for s in range(6)],
    "no bias": [make_head(s, (4,), bias=False) for s in range(3)],
    "some biases": [make_head(s, (4,), bias=s % 2 == 0) for s in range(3)],
    "one without inputs": [make_head(0), make_head(1, n_inputs=0), make_head(2)],
    "none with inputs": [make_head(s, n_inputs=0) for s in range(3)],
    "no units": [make_head(0, (0,)), make_head(1, (3,))],
    "no units at all": [make_head(0, (0, 2)), make_head(1, (0, 2))],
    "all inputs": [make_head(s, n_inputs=N_FEATURES) for s in range(3)],
    "a single member": [make_head(3)],
}


@pytest.mark.parametrize("name", POOLS)
def test_soft_voting_is_the_mean_of_the_members_probabilities(name):
    heads, features = POOLS[name], rows()
    weights = np.arange(1.0, len(heads) + 1)
    expected = sum(w * h.predict_proba(features).astype(np.float64) for w, h in zip(weights, heads, strict=True))
    expected /= weights.sum()
    ours = HeadEnsemble(heads, weights)
    np.testing.assert_allclose(ours.predict_proba(features), expected, atol=1e-5)
    np.testing.assert_array_equal(ours.predict(features), expected.argmax(axis=1))
    with torch.no_grad():
        np.testing.assert_allclose(ours(torch.from_numpy(features)).numpy(), expected, atol=1e-5)
    logits = np.stack([head.outputs(features) for head in heads])
    np.testing.assert_allclose(ours.predict_members(features), logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(ours.inputs, sorted({int(feature) for head in heads for feature in head.inputs}))
    assert ours.n_members == len(heads)
    assert ours.n_classes == N_CLASSES
    assert ours.n_features == N_FEATURES
    assert ours.n_parameters == sum(head.n_parameters for head in heads)
    np.testing.assert_allclose(ours.weights, weights / weights.sum())


@pytest.mark.parametrize("name", POOLS)
def test_hard_voting_counts_votes(name):
    heads, features = POOLS[name], rows(60)
    weights = np.random.default_rng(0).integers(1, 4, len(heads)).astype(float)
    weights /= weights.sum()
    votes, mean = np.zeros((60, N_CLASSES)), np.zeros((60, N_CLASSES))
    for weight, head in zip(weights, heads, strict=True):
        votes[np.arange(60), head.predict(features)] += weight
        mean += weight * head.predict_proba(features)
    expected = [
        max(range(N_CLASSES), key=lambda c: (round(votes[i, c], 9), mean[i, c], -c)) for i in range(60)
    ]  # fmt: skip
    ours = HeadEnsemble(heads, weights, "hard")
    np.testing.assert_array_equal(ours.predict(features), expected)
    np.testing.assert_allclose(ours.predict_proba(features), votes, atol=3e-6)


def constant(*logits):
    """A head that says the same of every row."""
    head = make_head(0, (), n_inputs=0)
    return replace(head, biases=(np.array(logits, dtype=np.float32),))


def test_ties_are_decided_by_probability_and_then_for_the_lowest_class():
    sure, unsure, other = constant(0, 0, 5, 0), constant(0, 1, 0, 0), constant(2, 0, 0, 0)
    for members in ([sure, unsure], [unsure, sure]):
        assert HeadEnsemble(members, voting="hard").predict(rows(2)).tolist() == [2, 2]
    # votes count before probabilities: two are against the sure one
    assert HeadEnsemble([sure, unsure, unsure], voting="hard").predict(rows(1)).tolist() == [1]
    assert HeadEnsemble([sure, unsure, unsure], voting="soft").predict(rows(1)).tolist() == [2]
    # three votes of a third each, in float32: a tie all the same
    assert HeadEnsemble([unsure, other, sure], voting="hard").predict(rows(1)).tolist() == [2]
    mirrored = [constant(0, 0, 1, 0), constant(0, 1, 0, 0)]
    assert HeadEnsemble(mirrored, voting="hard").predict(rows(1)).tolist() == [1]


@pytest.mark.parametrize("hidden", [(), (6,), (5, 3)])
def test_regression_is_the_mean_prediction(hidden):
    heads, features = [make_head(s, hidden, task="regression") for s in range(4)], rows()
    weights = np.array([0.0, 1, 2, 3])
    expected = np.tensordot(weights / 6, [head.outputs(features).astype(np.float64) for head in heads], axes=1)
    ours = HeadEnsemble(heads, weights)
    np.testing.assert_allclose(ours.predict(features), expected, rtol=1e-5, atol=1e-3)
    targets = expected + np.random.default_rng(0).normal(size=expected.shape)
    assert ours.score(features, targets) == pytest.approx(r2_score(targets, expected), abs=1e-5)
    assert ours.n_classes == 0
    with pytest.raises(InputError, match="no class probabilities"):
        ours.predict_proba(features)
    with pytest.raises(InputError, match="regression heads"):
        HeadEnsemble(heads, voting="hard")


def test_score_is_accuracy():
    heads, features = POOLS["one hidden layer"], rows(200)
    targets = np.random.default_rng(3).integers(0, N_CLASSES, 200)
    ours = HeadEnsemble(heads)
    assert ours.score(features, targets) == accuracy_score(targets, ours.predict(features))
    with pytest.raises(InputError, match="targets have shape"):
        ours.score(features, targets[:-1])


def test_rows_without_finite_outputs_have_no_prediction():
    heads, features = POOLS["one hidden layer"], rows(6)
    features[1], features[4] = 3e38, np.nan
    near = np.array([0, 2, 3, 5])
    for voting in ("soft", "hard"):
        ours = HeadEnsemble(heads, voting=voting)
        probabilities, labels = ours.predict_proba(features), ours.predict(features)
        assert np.isnan(probabilities[[1, 4]]).all()
        assert labels[[1, 4]].tolist() == [-1, -1]
        np.testing.assert_allclose(probabilities[near], ours.predict_proba(features[near]), atol=1e-6)
        np.testing.assert_array_equal(labels[near], ours.predict(features[near]))
        assert ours.score(features, ours.predict(rows(6))) == 4 / 6
    # one overflow to negative infinity is enough, though a softmax makes a 0 of it
    low = replace(constant(0, 0, 5, 0), biases=(np.float32([0, 0, 5, -3e38]),))
    steep = replace(low, inputs=np.array([0]), weights=(np.float32([[0, 0, 0, -3e38]]),), mean=np.zeros(1, "f"))
    steep = replace(steep, scale=np.ones(1, np.float32))
    for voting in ("soft", "hard"):
        assert np.isnan(HeadEnsemble([steep, low], voting=voting).predict_proba(np.full((1, 12), 2, "f"))).all()


def test_regression_rows_without_finite_outputs():
    ours, features = HeadEnsemble([make_head(s, task="regression") for s in range(3)]), rows(4)
    features[2] = 3e38
    predicted = ours.predict(features)
    assert np.isfinite(predicted).all(axis=1).tolist() == [True, True, False, True]
    assert ours.score(features, np.zeros_like(predicted)) == -math.inf


def test_features_far_from_zero_lose_no_digits():
    # a mean of 5000 standard deviations: folded into a bias it would leave three digits
    heads = [make_head(s, scaling=0, n_inputs=8, offset=5000.0) for s in range(4)]
    features = rows(offset=5000.0)
    expected = []
    for head in heads:
        prepared = (features[:, head.inputs].astype(np.float64) - head.mean) / head.scale
        hidden = np.maximum(prepared @ head.weights[0].astype(np.float64) + head.biases[0], 0)
        expected.append(hidden @ head.weights[1].astype(np.float64) + head.biases[1])
    np.testing.assert_allclose(HeadEnsemble(heads).predict_members(features), expected, rtol=1e-4, atol=1e-4)


def test_one_member_twice_counts_once():
    head, other = make_head(0), make_head(1)
    twice = HeadEnsemble([head, other, head])
    assert twice.n_parameters == head.n_parameters + other.n_parameters
    np.testing.assert_allclose(
        twice.predict_proba(rows()), HeadEnsemble([head, other], [2, 1]).predict_proba(rows()), atol=1e-6
    )


def test_zeros_of_a_mask_are_no_parameters():
    head = make_head(0)
    weight = head.weights[0].copy()
    weight[:, 0] = 0
    pruned = replace(head, weights=(weight, *head.weights[1:]))
    assert HeadEnsemble([pruned]).n_parameters == head.n_parameters - weight.shape[0]


def test_rows_in_pieces_are_rows_at_once(monkeypatch):
    from moevoprune.heads import ensemble as module

    heads, features = POOLS["different widths"], rows(23)
    whole = HeadEnsemble(heads)
    expected = whole.predict_proba(features), whole.predict_members(features)
    monkeypatch.setattr(module, "_MOST_NUMBERS", 5 * 9 * len(heads))
    np.testing.assert_allclose(whole.predict_proba(features), expected[0], atol=1e-6)
    np.testing.assert_allclose(whole.predict_members(features), expected[1], rtol=1e-5, atol=1e-5)
    assert whole.predict(features[:0]).shape == (0,)


def test_it_is_a_module(tmp_path):
    heads, features = POOLS["one hidden layer"], rows()
    ours = HeadEnsemble(heads)
    assert not ours.training
    assert not any(parameter.requires_grad for parameter in ours.parameters())
    other = HeadEnsemble([make_head(s) for s in range(5)], [1, 2, 3, 4, 5])
    other.load_state_dict(ours.state_dict())
    np.testing.assert_array_equal(other.predict_proba(features), ours.predict_proba(features))
    double = HeadEnsemble(heads).double()
    np.testing.assert_allclose(double.predict_proba(features), ours.predict_proba(features), atol=1e-5)
    assert "5 members, soft voting" in repr(ours)


@pytest.mark.parametrize(
    ("voting", "name"),
    [("soft", "no hidden layer"), ("hard", "different widths"), ("hard", "none with inputs")],
)
def test_torch_export_keeps_the_predictions(voting, name):
    ours = HeadEnsemble(POOLS[name], voting=voting)
    exported = torch.export.export(
        ours, (torch.zeros(3, N_FEATURES),), dynamic_shapes=({0: torch.export.Dim("rows")},)
    )
    for n in (2, 17):
        features = rows(n)
        features[0] = np.nan
        with torch.no_grad():
            outputs = exported.module()(torch.from_numpy(features)).numpy()
        np.testing.assert_allclose(outputs, ours.predict_proba(features), atol=1e-6)
        assert np.isnan(outputs[0]).all() or len(ours.inputs) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(("voting", "name"), [("soft", "different widths"), ("hard", "none with inputs")])
def test_onnx_keeps_the_predictions(voting, name, tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    ours = HeadEnsemble(POOLS[name], voting=voting)
    torch.onnx.export(
        ours,
        (torch.zeros(3, N_FEATURES),),
        str(tmp_path / "e.onnx"),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("rows")},),
        input_names=["features"],
        verbose=False,
    )
    session = onnxruntime.InferenceSession(str(tmp_path / "e.onnx"), providers=["CPUExecutionProvider"])
    for n in (2, 40):
        features = rows(n)
        (outputs,) = session.run(None, {"features": features})
        np.testing.assert_allclose(outputs, ours.predict_proba(features), atol=1e-5)
        np.testing.assert_array_equal(outputs.argmax(axis=1), ours.predict(features))
        features[0] = np.nan
        (outputs,) = session.run(None, {"features": features})
        np.testing.assert_allclose(outputs, ours.predict_proba(features), atol=1e-5)


def test_bad_input_is_refused():
    heads = POOLS["one hidden layer"]
    with pytest.raises(InputError, match="at least one member"):
        HeadEnsemble([])
    for weights in ([1, 2], np.ones((5, 1)), np.ones(6)):
        with pytest.raises(InputError, match="one for each of its 5 members"):
            HeadEnsemble(heads, weights)
    for weights in ([0] * 5, [1, 1, 1, 1, -1], [np.nan, 1, 1, 1, 1], [np.inf, 1, 1, 1, 1]):
        with pytest.raises(InputError, match="finite, at least 0 and not all 0"):
            HeadEnsemble(heads, weights)
    with pytest.raises(InputError, match="no numbers"):
        HeadEnsemble(heads, ["a"] * 5)
    with pytest.raises(InputError, match="use one of soft, hard"):
        HeadEnsemble(heads, voting="loud")
    with pytest.raises(InputError, match="member 1 of the ensemble has another"):
        HeadEnsemble([heads[0], make_head(1, ())])
    with pytest.raises(InputError, match="member 1 of the ensemble has another"):
        HeadEnsemble([heads[0], make_head(1, task="regression")])
    diverged = replace(heads[1], weights=(heads[1].weights[0] * np.float32(np.nan), heads[1].weights[1]))
    with pytest.raises(InputError, match="member 1 of the ensemble has diverged"):
        HeadEnsemble([heads[0], diverged])
    with pytest.raises(InputError, match="reads rows of 12 features"):
        HeadEnsemble(heads).predict(np.zeros((3, 5)))


def test_huge_weights_do_not_overflow():
    ours = HeadEnsemble(POOLS["one hidden layer"], [1e308] * 5)
    np.testing.assert_allclose(ours.weights, 0.2)
