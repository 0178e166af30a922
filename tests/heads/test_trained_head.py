"""A trained head on its own, and the standardisation that travels with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from moevoprune.errors import InputError
from moevoprune.heads.encodings import HeadShape, make_encoding
from moevoprune.heads.head import TrainedHead
from moevoprune.heads.scaling import Scaling
from moevoprune.heads.settings import HeadSettings
from moevoprune.heads.trainer import HeadStack, PopulationTrainer

Array = npt.NDArray[Any]
N_ROWS, N_FEATURES = 60, 11

CASES = [
    (task, hidden, encoding, n_active, bias, standardise)
    for task in ("classification", "regression")
    for hidden, encoding, n_active, bias, standardise in [
        ((), "features", 4, True, True),
        ((), "features", 0, True, True),
        ((), "connections", 6, True, False),
        ((7,), "features", 5, True, True),
        ((7,), "features", 5, False, True),
        ((7,), "features", 0, True, True),
        ((7,), "neurons", 3, False, False),
        ((7,), "neurons", 0, True, True),
        ((7,), "connections", 30, True, True),
        ((7, 5), "features+neurons", 12, True, True),
        ((7, 5), "neurons:2", 2, False, True),
        ((7, 5), "connections", 40, True, True),
    ]
]


def task_rows(task: str) -> tuple[Array, Array]:
    """Features of very different scale and offset, one of them constant."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(N_ROWS, N_FEATURES)) * np.logspace(-1, 1, N_FEATURES) + np.linspace(
        -3, 3, N_FEATURES
    )
    features[:, 2] = 0.3
    features = features.astype(np.float32)
    if task == "classification":
        return features, (features[:, 4] > features[:, 4].mean()).astype(np.int64) + (np.arange(N_ROWS) % 5 == 0)
    targets = np.stack([features[:, 5] * 40 + 100, features[:, 6] - features[:, 7] * 0.1], axis=1)
    return features, targets.astype(np.float32)


def trained(
    task: str, hidden: tuple[int, ...], encoding: str, n_active: int, bias: bool, standardise: bool
) -> tuple[TrainedHead, HeadStack, Scaling, Array]:
    features, targets = task_rows(task)
    scaling = Scaling.fit(features, targets, standardise)
    # raw targets of a hundred and more want small steps
    rate = 0.02 if standardise or task == "classification" else 1e-5
    training = HeadSettings(
        hidden=hidden,
        bias=bias,
        start="active",
        standardise=standardise,
        learning_rate=rate,
        momentum=0.5,
        epochs=8,
        batch_size=16,
    )
    shape = HeadShape(N_FEATURES, hidden, 3 if task == "classification" else 2)
    encoded = make_encoding(encoding, shape)
    bits = np.zeros(encoded.n_bits, dtype=np.bool_)
    bits[np.random.default_rng(1).permutation(encoded.n_bits)[:n_active]] = True
    trainer = PopulationTrainer(
        scaling.apply(features), scaling.apply_to_targets(targets), shape, training, seed=2, device="cpu"
    )
    (stack,) = trainer.fit([encoded.decode(bits)], [np.arange(40), np.arange(20, 60)])
    assert not stack.diverged.any()
    return TrainedHead.from_stack(stack, 1, scaling), stack, scaling, features


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_a_trained_head_predicts_what_its_stack_predicts(case: Any) -> None:
    head, stack, scaling, features = trained(*case)
    prepared = torch.from_numpy(scaling.apply(features)[:, stack.mask.inputs])
    outputs, hidden = (tensor.numpy() for tensor in stack.forward(prepared, 1))
    if scaling.target_mean is not None and scaling.target_scale is not None:
        outputs = outputs * scaling.target_scale + scaling.target_mean
        assert head.task == "regression"
        np.testing.assert_array_equal(head.predict(features), head.outputs(features))
        with pytest.raises(InputError, match="regression head has no class probabilities"):
            head.predict_proba(features)
    else:
        assert head.task == "classification"
        top = np.sort(outputs, axis=1)
        clear = top[:, -1] - top[:, -2] > 1e-4
        np.testing.assert_array_equal(head.predict(features)[clear], outputs.argmax(axis=1)[clear])
        expected = torch.from_numpy(outputs).softmax(1).numpy()
        np.testing.assert_allclose(head.predict_proba(features), expected, atol=1e-5)
        np.testing.assert_allclose(head.predict_proba(features).sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(head.outputs(features), outputs, rtol=1e-5, atol=1e-4)
    if case[1]:
        np.testing.assert_allclose(head.hidden(features), hidden, rtol=1e-5, atol=1e-4)
    else:
        np.testing.assert_array_equal(head.hidden(features), head.outputs(features))
    assert head.widths == stack.mask.widths(outputs.shape[1])
    assert head.n_parameters == stack.mask.n_parameters(outputs.shape[1], bias=case[4] and bool(case[1]))


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_the_torch_module_gives_the_same_outputs_on_the_active_features(case: Any) -> None:
    head, _, _, features = trained(*case)
    state = torch.get_rng_state()
    module = head.to_module()
    assert torch.equal(torch.get_rng_state(), state)
    assert not module.training
    with torch.no_grad():
        outputs = module(torch.from_numpy(features[:, head.inputs]))
    expected = head.outputs(features)
    assert outputs.dtype == torch.float32
    size = max(np.abs(expected).max(), 1.0)
    np.testing.assert_allclose(outputs.numpy(), expected, rtol=0, atol=1e-5 * size)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_a_head_survives_its_arrays(case: Any) -> None:
    head, _, _, features = trained(*case)
    arrays = head.to_arrays()
    assert all(array.flags.c_contiguous for array in arrays.values())
    again = TrainedHead.from_arrays({name: array.copy() for name, array in arrays.items()})
    assert (again.task, again.n_features, again.widths) == (head.task, head.n_features, head.widths)
    np.testing.assert_array_equal(again.outputs(features), head.outputs(features))
    np.testing.assert_array_equal(again.hidden(features), head.hidden(features))
    for name, array in again.to_arrays().items():
        assert array.dtype == arrays[name].dtype
        np.testing.assert_array_equal(array, arrays[name])
    assert again.to_arrays().keys() == arrays.keys()


def classifier() -> tuple[TrainedHead, Array]:
    head, _, _, features = trained("classification", (7,), "features", 5, True, True)
    return head, features


@pytest.mark.parametrize("missing", ["n_features", "inputs", "mean", "scale", "weight0"])
def test_incomplete_arrays_are_refused(missing: str) -> None:
    arrays = classifier()[0].to_arrays()
    del arrays[missing]
    with pytest.raises(InputError, match="stored head"):
        TrainedHead.from_arrays(arrays)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("inputs", lambda a: a[:-1]),
        ("inputs", lambda a: a + 100),
        ("inputs", lambda a: a - 100),
        ("mean", lambda a: a[:-1]),
        ("scale", lambda a: a[None]),
        ("weight0", lambda a: a[:-1]),
        ("weight0", lambda a: a[:, :-1]),
        ("weight0", lambda a: a[None]),
        ("weight1", lambda a: a.T),
        ("bias0", lambda a: a[:-1]),
        ("bias1", lambda a: a[:, None]),
        ("n_features", lambda a: np.zeros_like(a)),
        ("n_features", lambda a: a[:0]),
        ("weight1", lambda a: a[0]),
        ("inputs", lambda a: a[0]),
        ("inputs", lambda a: a[::-1]),
        ("inputs", lambda a: np.full_like(a, a[0])),
    ],
    ids=[
        "one input missing",
        "inputs beyond the features",
        "negative inputs",
        "mean too short",
        "scale of two dimensions",
        "weight0 lacks a row",
        "weight0 lacks a column",
        "weight0 of three dimensions",
        "weight1 transposed",
        "bias0 too short",
        "bias1 of two dimensions",
        "no features",
        "empty n_features",
        "weight1 of one dimension",
        "inputs a bare number",
        "inputs not sorted",
        "inputs repeated",
    ],
)
def test_damaged_arrays_are_refused(name: str, damage: Callable[[Array], Array]) -> None:
    arrays: dict[str, Any] = classifier()[0].to_arrays()
    arrays[name] = damage(arrays[name])
    with pytest.raises(InputError, match="do not fit together"):
        TrainedHead.from_arrays(arrays)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("target_mean", None),
        ("target_scale", None),
        ("target_mean", lambda a: a[:-1]),
        ("target_scale", lambda a: a[:, None]),
    ],
    ids=["no mean", "no scale", "mean too short", "scale of two dimensions"],
)
def test_damaged_target_scales_are_refused(name: str, damage: Callable[[Array], Array] | None) -> None:
    head = trained("regression", (7,), "features", 5, True, True)[0]
    arrays: dict[str, Any] = head.to_arrays()
    if damage is None:
        del arrays[name]
    else:
        arrays[name] = damage(arrays[name])
    with pytest.raises(InputError, match="stored head"):
        TrainedHead.from_arrays(arrays)


def test_arrays_without_any_layer_are_refused() -> None:
    arrays = classifier()[0].to_arrays()
    with pytest.raises(InputError):
        TrainedHead.from_arrays({name: array for name, array in arrays.items() if "weight" not in name})


@pytest.mark.parametrize("shape", [(3, N_FEATURES - 1), (3, N_FEATURES + 1), (N_FEATURES,), (1, 3, N_FEATURES)])
def test_rows_of_another_width_are_refused(shape: tuple[int, ...]) -> None:
    head, _ = classifier()
    with pytest.raises(InputError, match=f"reads rows of {N_FEATURES} features"):
        head.outputs(np.zeros(shape, dtype=np.float32))


def test_rows_in_other_precisions_and_none_at_all() -> None:
    head, features = classifier()
    np.testing.assert_array_equal(head.outputs(features.astype(np.float64)), head.outputs(features))
    assert head.outputs(features[:0]).shape == (0, 3)
    assert head.predict(features[:0]).shape == (0,)
    assert head.outputs(features).dtype == np.float32


def test_probabilities_of_huge_logits_are_finite() -> None:
    head, features = classifier()
    probabilities = head.predict_proba(features * np.float32(1e6))
    assert np.isfinite(probabilities).all()


def test_features_that_are_not_read_do_not_matter() -> None:
    head, features = classifier()
    other = features.copy()
    other[:, np.setdiff1d(np.arange(N_FEATURES), head.inputs)] = 1e9
    np.testing.assert_array_equal(head.outputs(other), head.outputs(features))


def half_precision_rows(n_rows: int = 200) -> npt.NDArray[np.float32]:
    """Features as a backbone in half precision gives them: on float16's coarse grid, many of them exactly 0."""
    rng = np.random.default_rng(3)
    values = np.maximum(rng.normal(size=(n_rows, 20)) * np.logspace(-3, 3, 20), 0)
    return values.astype(np.float16).astype(np.float32)


@pytest.mark.parametrize("shift", [0.0, 1.0, 1000.0])
def test_scaling_agrees_with_scikit_learn(shift: float) -> None:
    rng = np.random.default_rng(4)
    for features in (half_precision_rows(), rng.normal(size=(50, 20)).astype(np.float32) + np.float32(shift)):
        scaling = Scaling.fit(features, np.zeros(len(features), dtype=np.int64), standardise=True)
        oracle = StandardScaler().fit(features.astype(np.float64))
        np.testing.assert_allclose(scaling.mean, oracle.mean_, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(scaling.scale, oracle.scale_, rtol=1e-6)
        expected = oracle.transform(features.astype(np.float64))
        # the mean is stored in float32, so a large offset costs digits
        np.testing.assert_allclose(scaling.apply(features), expected, atol=1e-5 + 2e-7 * shift)
        assert scaling.apply(features).dtype == np.float32
        assert scaling.target_mean is None
        assert scaling.target_scale is None


@settings(deadline=None)
@given(
    st.floats(-65504, 65504, width=16),
    st.integers(1, 300),
)
def test_constant_columns_become_zero(value: float, n_rows: int) -> None:
    for constant in (np.float32(value), np.float32(value) * np.float32(0.1)):
        features = np.full((n_rows, 3), constant, dtype=np.float32)
        scaling = Scaling.fit(features, np.zeros(n_rows, dtype=np.int64), standardise=True)
        assert scaling.scale.tolist() == [1.0, 1.0, 1.0]
        assert not scaling.apply(features).any()


def test_a_column_that_varies_in_one_row_is_not_constant() -> None:
    features = np.full((400, 2), 100.0, dtype=np.float32)
    features[7, 1] = np.float16(100.0625)
    scaling = Scaling.fit(features, np.zeros(400, dtype=np.int64), standardise=True)
    assert scaling.scale[0] == 1.0
    assert scaling.scale[1] == pytest.approx(features[:, 1].astype(np.float64).std(), rel=1e-6)


def test_regression_targets_are_scaled_and_come_back() -> None:
    features, targets = task_rows("regression")
    scaling = Scaling.fit(features, targets, standardise=True)
    assert scaling.target_mean is not None
    assert scaling.target_scale is not None
    prepared = scaling.apply_to_targets(targets)
    np.testing.assert_allclose(prepared, StandardScaler().fit_transform(targets.astype(np.float64)), atol=1e-4)
    np.testing.assert_allclose(
        prepared * scaling.target_scale + scaling.target_mean, targets, rtol=1e-5, atol=1e-5
    )


def test_without_standardisation_nothing_changes() -> None:
    for task in ("classification", "regression"):
        features, targets = task_rows(task)
        scaling = Scaling.fit(features, targets, standardise=False)
        np.testing.assert_array_equal(scaling.apply(features), features)
        np.testing.assert_array_equal(scaling.apply_to_targets(targets), targets)
        assert (scaling.target_mean is None) == (task == "classification")
