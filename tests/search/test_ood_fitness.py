"""OoD objectives of masks: what scikit-learn makes of logits obtained elsewhere, and what the search may see."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax
from sklearn.metrics import roc_auc_score

from moevoprune import Candidate, FeatureSet, HeadSettings, InputError, Objective, PruningProblem
from moevoprune.features.ood import ood_selection
from moevoprune.search.loop import run_search

SCORES = ("temperature", "msp", "odin", "energy")
OBJECTIVES = ["accuracy", *(f"ood_auroc:{score}" for score in SCORES)]


def random_masks(n, n_bits, seed=0):
    generator = np.random.default_rng(seed)
    return generator.random((n, n_bits)) < generator.random((n, 1))


def ood_rows(features, n=60, seed=3):
    """Rows from elsewhere, among them copies of in-distribution rows and rows that repeat."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(scale=1.3, size=(n, features.n_features)).astype(np.float32) + 0.8
    return np.concatenate([rows, features.X_train[:25], rows[:10]])


@pytest.fixture(scope="module")
def with_ood_rows(small_features):
    rows = ood_rows(small_features)
    return replace(small_features, X_ood=rows, X_ood_test=rows[:7] + 1)


@pytest.fixture(scope="module")
def quantised(small_features):
    """Few distinct values: with few active features, many rows are the same to a head."""
    parts = {key: np.clip(np.round(getattr(small_features, key)), 0, 2) for key in ("X_train", "X_test")}
    features = replace(small_features, **parts)
    return replace(features, X_ood=np.round(ood_rows(features)), X_ood_test=np.ones((3, 14)))


@contextmanager
def one_thread():
    """Threads that wait for one another cost more than these small products."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def as_function(stack, fold):
    """One fold's head as a float64 function of its rows."""

    def forward(values):
        for layer, (weight, bias) in enumerate(zip(stack.weights, stack.biases, strict=True)):
            values = torch.relu(values) if layer else values
            values = values @ weight[fold].double()
            values = values if bias is None else values + bias[fold].double()
        return values

    return forward


def confidence(forward, rows, score, step):
    rows = torch.from_numpy(rows.astype(np.float64))
    if score == "odin" and rows.shape[1]:
        rows.requires_grad_()
        logits = forward(rows)
        loss = torch.nn.functional.cross_entropy(logits / 1000.0, logits.argmax(1), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, rows)
        rows = (rows - torch.from_numpy(step) * gradient.sign()).detach()
    logits = forward(rows).detach().numpy()
    if score == "energy":
        values = logsumexp(logits, axis=1)
    else:
        values = softmax(logits / (1.0 if score == "msp" else 1000.0), axis=1).max(axis=1)
    # the oracle's own last digits must not part what ties
    return values.round(13)


def expected_aurocs(problem, mask, odin_epsilon):
    """Mean AUROC over folds for every score, from heads trained anew and run in float64 one by one."""
    fitness, features = problem.fitness, problem.features
    (stack,) = fitness.trainer.fit([problem.encoding.decode(mask)], fitness.folds.train)
    mean, scale = features.X_train.mean(0, dtype=np.float64), features.X_train.std(0, dtype=np.float64)
    step = np.full(features.n_features, odin_epsilon)
    if problem.head.standardise:

        def prepare(rows):
            return (rows - mean.astype(np.float32)) / scale.astype(np.float32)
    else:
        step = step * scale

        def prepare(rows):
            return rows

    inputs = stack.mask.inputs
    outside = prepare(ood_selection(features))[:, inputs]
    found = []
    for score in SCORES:
        of_folds = []
        for fold, rows in enumerate(fitness.folds.validation):
            forward = as_function(stack, fold)
            score_in = confidence(forward, prepare(features.X_train)[rows][:, inputs], score, step[inputs])
            score_out = confidence(forward, outside, score, step[inputs])
            truth = np.r_[np.zeros(len(score_in)), np.ones(len(score_out))]
            of_folds.append(roc_auc_score(truth, -np.r_[score_in, score_out]))
        found.append(np.mean(of_folds))
    return found


@pytest.mark.parametrize("data", ["with_ood_rows", "quantised"])
@pytest.mark.parametrize(
    "head",
    [
        HeadSettings(hidden=(8,), epochs=4, batch_size=16),
        HeadSettings(hidden=(8, 6), epochs=3, batch_size=16),
        HeadSettings(hidden=(), epochs=3),
        HeadSettings(hidden=(8,), epochs=4, batch_size=16, standardise=False, bias=False),
    ],
    ids=["one layer", "two layers", "no hidden layer", "raw features"],
)
def test_aurocs_of_a_population_are_scikit_learns(data, head, request):
    features = request.getfixturevalue(data)
    problem = PruningProblem(
        features, objectives=OBJECTIVES, head=head, cv=3, seed=2, device="cpu", odin_epsilon=0.1
    )
    masks = random_masks(11, 14)
    masks[0] = False
    masks[1] = True
    masks[2:6] = np.eye(14, dtype=bool)[:4]
    masks = np.concatenate([masks, masks[3:5]])
    with one_thread():
        expected = np.array([expected_aurocs(problem, mask, 0.1) for mask in masks])
    np.testing.assert_allclose(problem.values(masks)[:, 1:], expected, atol=1e-6)
    np.testing.assert_array_equal(problem.values(masks[:1])[0, 1:], 0.5)


@pytest.mark.parametrize("encoding", ["neurons", "features+neurons", "connections"])
def test_other_encodings(with_ood_rows, quick_head, encoding):
    problem = PruningProblem(with_ood_rows, encoding, OBJECTIVES, quick_head, cv=3, device="cpu", odin_epsilon=0.1)
    masks = random_masks(3, problem.n_var)
    masks[0] = False
    expected = np.array([expected_aurocs(problem, mask, 0.1) for mask in masks[1:]])
    np.testing.assert_allclose(problem.values(masks)[1:, 1:], expected, atol=1e-6)
    np.testing.assert_array_equal(problem.values(masks)[0, 1:], 0.5)


def test_every_copy_of_a_validation_row_ties(small_features, quick_head):
    """All validation rows of a fold once more as OoD rows: nothing can be told apart, whatever the mask."""
    base = PruningProblem(small_features, head=quick_head, cv=1)
    rows = small_features.X_train[base.fitness.folds.validation[0]]
    # other rows in between put the copies at other places of the matrix products
    features = replace(small_features, X_ood=rows[::-1], X_ood_test=rows[:2])
    problem = PruningProblem(features, objectives=OBJECTIVES[1:], head=quick_head, cv=1)
    np.testing.assert_array_equal(problem.values(random_masks(10, 14)), 0.5)


def test_fitness_of_other_objectives_does_not_change(with_ood_rows, quick_head):
    masks = random_masks(12, 14)
    alone = PruningProblem(with_ood_rows, objectives=["accuracy", "cka"], head=quick_head, cv=3)
    beside = PruningProblem(with_ood_rows, objectives=["accuracy", "cka", "ood_auroc"], head=quick_head, cv=3)
    np.testing.assert_array_equal(beside.values(masks)[:, :2], alone.values(masks))
    assert alone.fitness._ood is None


def test_the_short_name_is_temperature_scaling(with_ood_rows, quick_head):
    masks = random_masks(5, 14)
    both = [
        PruningProblem(with_ood_rows, objectives=[name], head=quick_head, cv=3)
        for name in ("ood_auroc", "ood_auroc:temperature")
    ]
    np.testing.assert_array_equal(both[0].values(masks), both[1].values(masks))
    assert both[0].identity() == both[1].identity()
    out = both[0].evaluate(masks, return_as_dictionary=True)
    np.testing.assert_allclose(out["F"][:, 0], 1 - both[0].values(masks)[:, 0])


def test_fitness_does_not_depend_on_the_batch(with_ood_rows, quick_head):
    masks = random_masks(6, 14)
    whole = PruningProblem(with_ood_rows, objectives=OBJECTIVES, head=quick_head, cv=3).values(masks)
    chunked = PruningProblem(with_ood_rows, objectives=OBJECTIVES, head=quick_head, cv=3, chunk=1)
    np.testing.assert_array_equal(chunked.values(masks[::-1])[::-1], whole)


def test_rows_held_back_for_the_test_are_never_read(with_ood_rows, quick_head):
    """Promise 1: whatever they hold, and even if looking at them failed, the search is the same."""

    class Trap:
        def __getattribute__(self, name):
            raise AssertionError("the search looked at rows held back for the test")

    def found(features):
        problem = PruningProblem(features, objectives=["accuracy", "ood_auroc:odin"], head=quick_head, cv=3)
        return run_search(problem, pop_size=6, n_gen=3, seed=1)

    ours = found(with_ood_rows)
    other = found(replace(with_ood_rows, X_ood_test=np.full((4, 14), -1e30)))
    np.testing.assert_array_equal(other.masks, ours.masks)
    np.testing.assert_array_equal(other.values, ours.values)
    trapped = replace(with_ood_rows)
    trapped.content_hash  # noqa: B018 - the identity of the data, which is that of all of it
    for key in ("X_test", "y_test", "X_ood_test"):
        object.__setattr__(trapped, key, Trap())
    np.testing.assert_array_equal(found(trapped).values, ours.values)


def test_a_split_of_x_ood_hides_its_second_part(small_features, quick_head):
    rows = ood_rows(small_features)
    features = replace(small_features, X_ood=rows)
    selection = replace(small_features, X_ood=ood_selection(features), X_ood_test=rows[:1])
    masks = random_masks(6, 14)
    values = [
        PruningProblem(data, objectives=["ood_auroc"], head=quick_head, cv=3).values(masks)
        for data in (features, selection)
    ]
    np.testing.assert_array_equal(*values)


def test_a_head_that_is_not_finite_on_other_rows_has_diverged(small_features, quick_head):
    # float32 holds these rows, but not once they are divided by a deviation below 1
    rows = np.full((5, 14), 3e38, np.float32)
    features = replace(small_features, X_train=small_features.X_train / 10, X_ood=rows, X_ood_test=rows)
    problem = PruningProblem(features, objectives=["accuracy", "active_neurons", *OBJECTIVES[1:]], head=quick_head)
    np.testing.assert_array_equal(problem.values(np.ones((1, 14), bool)), [[0, 1, 0, 0, 0, 0]])
    assert problem.n_diverged == 1


def test_heads_whose_training_diverged(with_ood_rows):
    head = HeadSettings(hidden=(8,), epochs=4, learning_rate=1e9)
    problem = PruningProblem(with_ood_rows, objectives=OBJECTIVES, head=head, cv=3)
    np.testing.assert_array_equal(problem.values(np.ones((1, 14), bool)), 0.0)


def test_the_step_is_part_of_the_identity_where_it_counts(with_ood_rows, quick_head):
    def identity(objectives, **arguments):
        return PruningProblem(with_ood_rows, objectives=objectives, head=quick_head, cv=3, **arguments).identity()

    odin = ["ood_auroc:odin"]
    assert identity(odin)["odin_epsilon"] == 0.2
    assert identity(odin) != identity(odin, odin_epsilon=0.1)
    # journals of problems without it must be what they always were
    assert "odin_epsilon" not in identity(["accuracy"])
    assert identity(["accuracy"]) == identity(["accuracy"], odin_epsilon=0.1) == identity(["ood_auroc"])
    before = [
        "data", "encoding", "folds", "seed", "noise", "device", "dtype", "trainer", "torch",
    ]  # fmt: skip
    assert [key for key in identity(["accuracy", "cka"]) if not key.startswith("head.")] == [
        *before,
        "min_active",
        "max_active",
    ]


def test_a_users_objective_may_ask_for_the_rows(with_ood_rows, small_regression, quick_head):
    def margin(candidate: Candidate) -> float:
        return float(np.mean([f.outputs.amax(1).mean() - f.ood_outputs.amax(1).mean() for f in candidate.folds]))

    objective = Objective("margin", margin, needs={"ood"})
    problem = PruningProblem(with_ood_rows, objectives=["accuracy", objective], head=quick_head, cv=3)
    assert np.isfinite(problem.values(random_masks(3, 14))).all()
    # in regression outputs are in the targets' own units
    rows = small_regression.X_train[:40]
    features = replace(small_regression, X_ood=rows, X_ood_test=rows)
    level = Objective("level", lambda c: c.folds[0].ood_outputs.mean(), needs={"ood"})
    problem = PruningProblem(features, objectives=[level], head=quick_head, cv=3)
    assert 50 < problem.values(np.ones((1, 10), bool))[0, 0] < 150
    steps = Objective("steps", lambda c: 0.0, needs={"odin"})
    with pytest.raises(InputError, match="ODIN needs class labels"):
        PruningProblem(features, objectives=[steps], head=quick_head, cv=3)


def test_small_folds_matter_to_cka_only(small_features, quick_head):
    keep = np.concatenate([np.flatnonzero(small_features.y_train == c)[:3] for c in range(3)])
    tiny = FeatureSet(
        small_features.X_train[keep],
        small_features.y_train[keep],
        small_features.X_test,
        small_features.y_test,
        X_ood=small_features.X_test,
        X_ood_test=small_features.X_test,
    )
    problem = PruningProblem(tiny, objectives=["ood_auroc"], head=quick_head, cv=3)
    assert 0 <= problem.values(np.ones((1, 14), bool))[0, 0] <= 1
    with pytest.raises(InputError, match="CKA needs at least 4"):
        PruningProblem(tiny, objectives=["ood_auroc", "cka"], head=quick_head, cv=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objectives": ["ood_auroc"]}, "small: the data have no out-of-distribution rows: add --ood PATH, or an"),
        ({"objectives": ["ood_auroc:odin"], "odin_epsilon": -0.1}, "odin_epsilon = -0.1"),
        ({"odin_epsilon": float("nan")}, "odin_epsilon = nan"),
        ({"odin_epsilon": "a"}, "odin_epsilon = 'a'"),
        ({"objectives": ["ood_auroc:mps"]}, "did you mean 'ood_auroc:msp'"),
    ],
)
def test_bad_arguments_are_refused(small_features, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        PruningProblem(small_features, **arguments)
    assert "\n" not in str(caught.value)


def test_regression_has_no_ood_auroc(small_regression):
    with pytest.raises(InputError, match="needs class labels but the targets are real numbers: use r2 or mse"):
        PruningProblem(small_regression, objectives=["r2", "ood_auroc"])
