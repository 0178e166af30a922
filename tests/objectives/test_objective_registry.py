"""Candidates, objectives and how lists of them are read."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import scipy.special
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from moevoprune.errors import InputError
from moevoprune.objectives import (
    Candidate,
    FoldPrediction,
    Objective,
    available_objectives,
    debiased_linear_cka,
    ood_scores_of,
    resolve_objectives,
)


def classes(n: int = 12, seed: int = 0) -> FoldPrediction:
    rng = np.random.default_rng(seed)
    hidden = torch.as_tensor(rng.normal(size=(n, 6)))
    return FoldPrediction(
        targets=torch.as_tensor(rng.integers(0, 3, n)),
        outputs=torch.as_tensor(rng.normal(size=(n, 3))),
        hidden=hidden,
        hidden_noisy=hidden + 0.3 * torch.as_tensor(rng.normal(size=(n, 6))),
        hidden_dense=torch.as_tensor(rng.normal(size=(n, 9))),
        ood_outputs=torch.as_tensor(rng.normal(size=(15, 3))) * 0.6,
        odin_outputs=torch.as_tensor(rng.normal(size=(n, 3))),
        odin_ood_outputs=torch.as_tensor(rng.normal(size=(15, 3))) * 0.6,
    )


def reals(n: int = 12, seed: int = 0) -> FoldPrediction:
    rng = np.random.default_rng(seed)
    targets = torch.as_tensor(rng.normal(size=(n, 2)))
    none = {"ood_outputs": None, "odin_outputs": None, "odin_ood_outputs": None}
    return replace(classes(n, seed), targets=targets, outputs=targets + 0.5, **none)


def candidate(*folds: FoldPrediction, active: int = 3, n_bits: int = 8) -> Candidate:
    return Candidate(folds or (classes(12, 0), classes(7, 1)), active, n_bits)


def one(spec: str, task: str = "classification") -> Objective:
    return resolve_objectives([spec], task)[0]


def diverged(fold: FoldPrediction, field: str, value: float) -> FoldPrediction:
    bad = getattr(fold, field).clone()
    bad[0, 0] = value
    return replace(fold, **{field: bad})


def test_candidate_and_fold_facts() -> None:
    c = candidate()
    assert c.active_fraction == 3 / 8
    assert c.finite
    assert [fold.n_rows for fold in c.folds] == [12, 7]


@pytest.mark.parametrize("field", ["outputs", "hidden", "ood_outputs", "odin_outputs", "odin_ood_outputs"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_bad_value_makes_a_candidate_not_finite(field: str, value: float) -> None:
    assert not candidate(classes(), diverged(classes(), field, value)).finite


def test_pooled_measures_weigh_rows_not_folds() -> None:
    c = candidate()
    outputs = np.concatenate([f.outputs.numpy() for f in c.folds])
    targets = np.concatenate([f.targets.numpy() for f in c.folds])
    assert one("accuracy")(c) == pytest.approx(metrics.accuracy_score(targets, outputs.argmax(1)))
    c = candidate(reals(12, 0), reals(5, 1))
    outputs = np.concatenate([f.outputs.numpy() for f in c.folds])
    targets = np.concatenate([f.targets.numpy() for f in c.folds])
    assert one("r2", "regression")(c) == pytest.approx(metrics.r2_score(targets, outputs))
    assert one("mse", "regression")(c) == pytest.approx(0.25)
    assert one("active_neurons")(c) == 3 / 8


@pytest.mark.parametrize("make", [classes, reals])
@pytest.mark.parametrize(
    ("name", "field"), [("cka", "hidden_noisy"), ("cka:noise", "hidden_noisy"), ("cka:dense", "hidden_dense")]
)
def test_cka_is_the_mean_over_folds(make: Callable[..., FoldPrediction], name: str, field: str) -> None:
    c = candidate(make(12, 0), make(7, 1))
    expected = np.mean([debiased_linear_cka(f.hidden, getattr(f, field)).item() for f in c.folds])
    objective = one(name, "classification" if make is classes else "regression")
    assert objective.name == name
    assert objective.needs == {"dense" if field == "hidden_dense" else "noise"}
    assert objective(c) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["cka:noise", "cka:dense"])
def test_cka_of_an_empty_mask_is_zero(name: str) -> None:
    assert one(name)(candidate(active=0)) == 0.0


@pytest.mark.parametrize("active", [0, 3])
def test_cka_refuses_small_folds(active: int) -> None:
    with pytest.raises(InputError, match="fold 1 has 3 validation rows"):
        one("cka")(candidate(classes(12), classes(3), active=active))


@pytest.mark.parametrize(("name", "field"), [("cka:noise", "hidden_noisy"), ("cka:dense", "hidden_dense")])
def test_cka_says_what_is_missing(name: str, field: str) -> None:
    with pytest.raises(InputError, match=f"fold 0 has no {field}"):
        one(name)(candidate(replace(classes(), **{field: None})))


def test_a_noisy_pass_that_overflows_scores_zero() -> None:
    assert one("cka")(candidate(diverged(classes(), "hidden_noisy", math.inf))) == 0.0


OOD_NAMES = {
    "ood_auroc": "temperature",
    "ood_auroc:temperature": "temperature",
    "ood_auroc:msp": "msp",
    "ood_auroc:odin": "odin",
    "ood_auroc:energy": "energy",
}


@pytest.mark.parametrize(("name", "score"), OOD_NAMES.items())
def test_ood_auroc_is_the_mean_over_folds(name: str, score: str) -> None:
    c = candidate(classes(12, 0), classes(7, 1))
    odin = score == "odin"
    expected = []
    for fold in c.folds:
        inside, outside = (fold.odin_outputs, fold.odin_ood_outputs) if odin else (fold.outputs, fold.ood_outputs)
        logits = np.concatenate([inside.numpy(), outside.numpy()])
        if score == "energy":
            confidence = scipy.special.logsumexp(logits, axis=1)
        else:
            confidence = scipy.special.softmax(logits / (1 if score == "msp" else 1000), axis=1).max(1)
        truth = np.r_[np.zeros(len(inside)), np.ones(len(outside))]
        expected.append(metrics.roc_auc_score(truth, -confidence))
    objective = one(name)
    assert objective.name == name
    assert objective.needs == ({"ood", "odin"} if odin else {"ood"})
    assert objective(c) == pytest.approx(np.mean(expected), abs=1e-12)
    assert ood_scores_of([one("accuracy"), replace(objective, name="mine")]) == (score,)


@pytest.mark.parametrize("name", OOD_NAMES)
def test_ood_auroc_of_an_empty_mask_tells_nothing(name: str) -> None:
    assert one(name)(candidate(active=0)) == 0.5


@pytest.mark.parametrize(
    ("name", "field", "need"),
    [
        ("ood_auroc", "ood_outputs", "ood"),
        ("ood_auroc:odin", "odin_outputs", "odin"),
        ("ood_auroc:odin", "odin_ood_outputs", "odin"),
    ],
)
def test_ood_auroc_says_what_is_missing(name: str, field: str, need: str) -> None:
    with pytest.raises(InputError, match=f"fold 0 has no {field}.*needs={{'{need}'}}"):
        one(name)(candidate(replace(classes(), **{field: None})))


def test_scores_in_use_are_listed_once_in_order() -> None:
    names = ["ood_auroc:energy", "accuracy", "ood_auroc", "ood_auroc:odin"]
    assert ood_scores_of(resolve_objectives(names, "classification")) == ("energy", "temperature", "odin")
    assert ood_scores_of([one("accuracy"), Objective("ood_auroc", lambda c: 1.0)]) == ()


def test_diverged_heads_score_worst() -> None:
    c = candidate(classes(), diverged(classes(3), "outputs", math.nan))
    assert one("accuracy")(c) == one("cka")(c) == one("cka:dense")(c) == 0.0
    assert all(one(name)(c) == 0.0 for name in OOD_NAMES)
    # finite on the validation rows, not on others
    c = candidate(classes(), diverged(classes(3), "ood_outputs", math.inf))
    assert all(one(name)(c) == 0.0 for name in ("accuracy", *OOD_NAMES))
    assert one("active_neurons")(c) == 3 / 8
    c = candidate(reals(12, 0), diverged(reals(5, 1), "hidden", math.inf))
    targets = np.concatenate([f.targets.numpy() for f in c.folds])
    assert one("r2", "regression")(c) == -1e3
    assert one("mse", "regression")(c) == pytest.approx(1e6 * (targets.var(0).mean() + 1))


@pytest.mark.parametrize("value", [1e30, 1e200])
def test_a_finite_but_absurd_head_is_no_worse_than_a_diverged_one(value: float) -> None:
    absurd = candidate(diverged(reals(), "outputs", value))
    broken = candidate(diverged(reals(), "outputs", math.nan))
    for name in ("r2", "mse"):
        assert one(name, "regression")(absurd) == one(name, "regression")(broken)


def test_diverged_value_of_a_users_objective() -> None:
    c = candidate(diverged(classes(), "outputs", math.nan))
    assert Objective("f", lambda c: 1.0)(c) == -1e6
    assert Objective("f", lambda c: 1.0, maximise=False)(c) == 1e6
    assert Objective("f", lambda c: 1.0, worst=0.25)(c) == 0.25
    assert Objective("f", lambda c: 1.0, worst=0.25, diverged_value=-2.0)(c) == -2.0
    assert Objective("f", lambda c: 1.0, diverged_value=lambda c: -c.active)(c) == -3.0


@pytest.mark.parametrize(
    "value", [2, 2.0, np.float32(2), np.int64(2), torch.tensor(2.0), torch.tensor([2]), np.array([[2.0]])]
)
def test_numbers_of_any_kind_become_floats(value: object) -> None:
    got = Objective("f", lambda c: value)(candidate())  # type: ignore[arg-type, return-value]
    assert type(got) is float
    assert got == 2.0


def test_a_tensor_that_requires_grad_is_fine() -> None:
    weight = torch.tensor(2.0, requires_grad=True)
    assert Objective("f", lambda c: weight)(candidate()) == 2.0  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        None,
        "0.5",
        True,
        np.bool_(True),
        1j,
        torch.zeros(2),
        np.zeros(0),
        10**400,
    ],
)
def test_what_is_no_finite_number_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="objective 'flops' returned"):
        Objective("flops", lambda c: value)(candidate())  # type: ignore[arg-type, return-value]


def test_losses() -> None:
    values = np.array([[0.0, 0.25], [1.0, 0.5]])
    assert one("accuracy").to_loss(values).tolist() == [[1.0, 0.75], [0.0, 0.5]]
    assert Objective("f", lambda c: 1.0).to_loss(values).tolist() == (-values).tolist()
    assert one("active_neurons").to_loss(values).tolist() == values.tolist()
    loss = one("active_neurons").to_loss(values)
    loss[:] = 7.0
    assert values[0, 0] == 0.0


@given(
    values=st.lists(st.floats(-1e3, 1e3), max_size=8),
    maximise=st.booleans(),
    best=st.sampled_from([None, 1.0, 1, 2.0]),
)
def test_losses_turn_back(values: list[float], maximise: bool, best: float | None) -> None:
    objective = Objective("f", lambda c: 1.0, maximise=maximise, best=best)
    loss = objective.to_loss(np.array(values))
    np.testing.assert_allclose(objective.from_loss(loss), values, atol=1e-12)
    if len(values) > 1 and values[0] > values[1] + 1e-9:
        assert (loss[0] < loss[1]) == maximise


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": " "}, "non-empty string"),
        ({"function": 3}, "function is a int"),
        ({"tasks": frozenset()}, "tasks is empty"),
        ({"tasks": frozenset({"ranking"})}, "tasks is"),
        ({"tasks": "regression"}, "tasks is"),
        ({"needs": frozenset({"gradients"})}, "needs is"),
        ({"best": math.inf}, "best is inf"),
        ({"worst": "low"}, "worst is 'low'"),
        ({"diverged_value": math.nan}, "diverged_value is nan"),
        ({"best": 1.0, "worst": 1.0}, "must differ"),
        ({"best": 0.0, "worst": 1.0}, "do not fit maximise=True"),
        ({"best": 1.0, "worst": 0.0, "maximise": False}, "do not fit maximise=False"),
    ],
)
def test_bad_objectives_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Objective(**{"name": "f", "function": lambda c: 1.0, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"targets": torch.zeros(0, dtype=torch.int64)}, "no rows"),
        ({"targets": torch.zeros(12)}, r"both must be \(n, T\)"),
        ({"targets": torch.zeros(12, 2)}, r"both must be \(n, T\)"),
        ({"targets": torch.zeros(12, 2, dtype=torch.int64)}, r"give shape \(n,\)"),
        ({"outputs": torch.zeros(11, 3)}, "outputs has shape"),
        ({"hidden": torch.zeros(12)}, "hidden has shape"),
        ({"hidden_noisy": torch.zeros(13, 6)}, "hidden_noisy has shape"),
        ({"hidden_dense": torch.zeros(13, 6)}, "hidden_dense has shape"),
        ({"ood_outputs": torch.zeros(15, 4)}, "ood_outputs has shape .* but outputs has 3 columns"),
        ({"ood_outputs": torch.zeros(0, 3)}, "ood_outputs has shape"),
        ({"ood_outputs": torch.zeros(3)}, "ood_outputs has shape"),
        ({"odin_outputs": torch.zeros(13, 3)}, "odin_outputs has shape"),
        ({"odin_outputs": torch.zeros(12, 2)}, "odin_outputs has shape"),
        ({"odin_ood_outputs": torch.zeros(15, 2)}, "odin_ood_outputs has shape"),
    ],
)
def test_bad_folds_are_refused(fields: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(classes(), **fields)


@pytest.mark.parametrize(("folds", "active", "n_bits"), [((), 1, 2), ((classes(),), 3, 2), ((classes(),), 0, 0)])
def test_bad_candidates_are_refused(folds: tuple[FoldPrediction, ...], active: int, n_bits: int) -> None:
    with pytest.raises(InputError, match="candidate:"):
        Candidate(folds, active, n_bits)


def test_every_available_name_resolves_for_its_tasks() -> None:
    assert set(available_objectives()) == {
        "accuracy", "r2", "mse", "active_neurons", "cka", "cka:noise", "cka:dense", *OOD_NAMES,
    }  # fmt: skip
    unfit = {("accuracy", "regression"), ("r2", "classification"), ("mse", "classification")}
    unfit |= {(name, "regression") for name in OOD_NAMES}
    for name in available_objectives():
        for task in ("classification", "regression"):
            if (name, task) in unfit:
                with pytest.raises(InputError, match="but the targets are"):
                    one(name, task)
            else:
                assert one(name, task).name == name


def test_names_functions_and_objectives_mix_in_order() -> None:
    def margin(c: Candidate) -> float:
        return 0.5

    size = Objective("size", lambda c: c.active, maximise=False)
    got = resolve_objectives(["accuracy", margin, size, "cka", "cka:dense"], "classification")
    assert [o.name for o in got] == ["accuracy", "margin", "size", "cka", "cka:dense"]
    assert got[1].maximise
    assert got[1](candidate()) == 0.5
    assert got[1].best is None
    assert got[2] is size


@pytest.mark.parametrize(
    ("specs", "task", "message"),
    [
        ([], "classification", "list is empty; name at least one of accuracy"),
        ("accuracy", "classification", r"give a list, for example \['accuracy'\]"),
        (["acuracy"], "classification", "unknown name 'acuracy'; did you mean 'accuracy'.*active_neurons"),
        (["zzz"], "classification", "unknown name 'zzz'; choose among accuracy"),
        (["cka", "cka"], "classification", "'cka' repeats 'cka'"),
        (["cka", "accuracy", "cka:noise"], "classification", "'cka:noise' repeats 'cka'"),
        (["ood_auroc", "ood_auroc:temperature"], "classification", "repeats 'ood_auroc'"),
        (["ood_auroc:odin"], "regression", "needs class labels but .*: use r2 or mse$"),
        (["mse"], "classification", "needs real-valued targets .*: use accuracy$"),
        (["ood_auc"], "classification", "did you mean 'ood_auroc'"),
        ([Objective("mse", lambda c: 1.0), "mse"], "regression", "'mse' repeats 'mse'"),
        (["accuracy"], "ranking", "task is 'ranking'"),
        (["accuracy"], "regression", "needs class labels but the targets are real numbers: use r2 or mse"),
        (["r2"], "classification", "needs real-valued targets but the targets are class labels: use acc"),
        ([3], "classification", "3 is a int"),
        ([functools.partial(max, 1)], "classification", "has no __name__"),
    ],
)  # fmt: skip
def test_bad_lists_are_refused(specs: object, task: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve_objectives(specs, task)  # type: ignore[arg-type]


def test_boxes() -> None:
    corners = {
        name: (one(name, task).best, one(name, task).worst)
        for name, task in [
            ("accuracy", "classification"),
            ("r2", "regression"),
            ("mse", "regression"),
            ("active_neurons", "regression"),
            ("cka", "regression"),
            ("ood_auroc", "classification"),
        ]
    }
    assert corners == {
        "accuracy": (1.0, 0.0),
        "r2": (1.0, 0.0),
        "mse": (0.0, None),
        "active_neurons": (0.0, 1.0),
        "cka": (1.0, 0.0),
        "ood_auroc": (1.0, 0.0),
    }


def test_package_stands_alone() -> None:
    import subprocess
    import sys

    script = (
        "import sys, moevoprune.objectives\n"
        "bad = [m for m in sys.modules if m.split('.')[0] == 'pymoo' or (m.startswith('moevoprune.') and "
        "not m.startswith(('moevoprune.objectives', 'moevoprune.errors')))]\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
