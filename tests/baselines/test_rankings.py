"""Rankings of bits, against scikit-learn, plain loops and automatic differentiation."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from sklearn.feature_selection import f_classif, f_regression, mutual_info_classif, mutual_info_regression
from sklearn.linear_model import Lasso, LogisticRegression, MultiTaskLasso, Ridge

import moevoprune.baselines.data
import moevoprune.baselines.rankings as rankings
from moevoprune import FeatureSet, InputError
from moevoprune.baselines import RANKINGS, GradualMagnitude, RankingData, combine, rank_bits, top_bits
from moevoprune.baselines.rankings import minimum_redundancy
from moevoprune.heads.trainer import PopulationTrainer

ENCODINGS = [
    ("features", ()),
    ("features", (8,)),
    ("neurons", (8,)),
    ("neurons", (8, 6)),
    ("neurons:2", (8, 6)),
    ("features+neurons", (8, 6)),
    ("connections", ()),
    ("connections", (4,)),
    ("connections", (4, 3)),
]
SIGNAL_RANKINGS = [
    "anova_f",
    "mutual_information",
    "l1_path",
    "recursive_elimination",
    "minimum_redundancy",
    "forward_selection",
]
BOTH_TASKS = pytest.mark.parametrize("task", ["classification", "regression"])


@BOTH_TASKS
@pytest.mark.parametrize(("encoding", "hidden"), ENCODINGS)
def test_every_ranking_scores_every_bit(task, encoding, hidden, several_features, ranking_data):
    scores = {}
    for _ in range(2):
        data = ranking_data(several_features[task], encoding, hidden)
        for name in RANKINGS:
            found = rank_bits(data, name)
            assert found.shape == (data.encoding.n_bits,)
            assert found.dtype == np.float64
            assert not np.isnan(found).any()
            assert len(np.unique(found)) > data.encoding.n_bits // 3
            np.testing.assert_array_equal(found, scores.setdefault(name, found))


@BOTH_TASKS
def test_constant_features_are_last(task, several_features, with_constants, ranking_data):
    features = with_constants(several_features[task])
    for encoding in ("features", "features+neurons"):
        data = ranking_data(features, encoding)
        for name in SIGNAL_RANKINGS:
            found = rank_bits(data, name)
            assert np.isfinite(found).all()
            others = np.delete(found[: features.n_features], [4, 9])
            assert found[4] == found[9] < others.min(), name
    # weights of a constant feature never move, but its feature says nothing
    assert rank_bits(data, "neuron_norm")[4] == 0.0


def test_constant_features_are_last_among_connections(small_features, with_constants, ranking_data):
    data = ranking_data(with_constants(small_features), "connections")
    for name in SIGNAL_RANKINGS:
        found = rank_bits(data, name).reshape(14, 8).mean(axis=1)
        assert set(np.argsort(found)[:2]) == {4, 9}, name


def test_data_without_any_signal_is_ranked_too(small_features, with_constants, ranking_data):
    data = ranking_data(with_constants(small_features, range(14)))
    for name in RANKINGS:
        assert np.isfinite(rank_bits(data, name)).all(), name


@BOTH_TASKS
def test_a_head_that_diverges_has_scores_too(task, several_features, ranking_data):
    data = ranking_data(several_features[task], "features+neurons", learning_rate=1e30)
    assert data.dense_stack.diverged.all()
    for name in RANKINGS:
        assert np.isfinite(rank_bits(data, name)).all(), name


def test_signals_are_what_the_bits_let_through(small_features, ranking_data):
    data = ranking_data(small_features, "features+neurons", (8, 6))
    stack = data.dense_stack
    rows = torch.from_numpy(np.array(data.features))
    first = (rows @ stack.weights[0][0] + stack.biases[0][0]).relu()
    second = stack.forward(rows, 0)[1]
    expected = np.concatenate([data.features, first.numpy(), second.numpy()], axis=1).astype(np.float64)
    deviation = expected.std(axis=0)
    expected = (expected - expected.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    np.testing.assert_allclose(data.signals, expected, atol=1e-4)
    assert ranking_data(small_features, "connections").signals is None
    units = ranking_data(small_features, "neurons:2", (8, 6)).signals
    np.testing.assert_array_equal(units, data.signals[:, 22:])


def test_raw_features_rank_as_prepared_ones(small_features, ranking_data):
    raw = ranking_data(small_features, standardise=False)
    prepared = ranking_data(small_features)
    for name in ("anova_f", "l1_path", "forward_selection"):
        order = np.argsort(rank_bits(prepared, name))
        np.testing.assert_array_equal(np.argsort(rank_bits(raw, name)), order)


def test_few_of_many_rows_are_looked_at(small_features, ranking_data, monkeypatch):
    monkeypatch.setattr(moevoprune.baselines.data, "MOST_ROWS", 60)
    data = ranking_data(small_features, "features+neurons")
    rows, targets = data.sample
    assert rows.shape == (60, 14)
    assert data.signals.shape == (60, 22)
    at = [int(np.flatnonzero((data.features == row).all(axis=1))[0]) for row in rows]
    assert len(set(at)) == 60
    np.testing.assert_array_equal(data.targets[at], targets)
    for name in RANKINGS:
        assert np.isfinite(rank_bits(data, name)).all()
    other = ranking_data(small_features, seed=4)
    assert not np.array_equal(other.sample[0], rows)


def test_data_must_fit_together(small_features, ranking_data):
    data = ranking_data(small_features)
    with pytest.raises(InputError, match="do not fit"):
        RankingData(
            data.features[:, :5], data.targets, data.task, data.encoding, data.head, data.seed, data.trainer
        )


def test_anova_and_information_are_those_of_scikit_learn(small_features, small_regression, ranking_data):
    data = ranking_data(small_features)
    x, y = data.signals.astype(np.float64), data.targets
    np.testing.assert_allclose(rank_bits(data, "anova_f"), f_classif(x, y)[0], rtol=1e-4)
    np.testing.assert_allclose(
        rank_bits(data, "mutual_information"), mutual_info_classif(x, y, random_state=3), atol=1e-3
    )
    data = ranking_data(small_regression)
    x, y = data.signals.astype(np.float64), data.targets
    expected = np.max([f_regression(x, t)[0] for t in y.T], axis=0)
    np.testing.assert_allclose(rank_bits(data, "anova_f"), expected, rtol=1e-4)
    expected = np.max([mutual_info_regression(x, t, random_state=3) for t in y.T], axis=0)
    np.testing.assert_allclose(rank_bits(data, "mutual_information"), expected, atol=1e-3)


def l1_model(strength):
    old = "penalty" in inspect.signature(LogisticRegression).parameters
    old = old and inspect.signature(LogisticRegression).parameters["penalty"].default == "l2"
    lasso = {"penalty": "l1"} if old else {"l1_ratio": 1.0}
    return LogisticRegression(solver="liblinear", C=strength, tol=1e-6, max_iter=5000, random_state=0, **lasso)


def entries(sizes):
    """What enters when, and how large: the order that is to come out, up to the entry of half of the signals."""
    first = np.array([np.flatnonzero(column)[0] if column.any() else len(sizes) for column in sizes.T])
    at_entry = np.array([s[f] if f < len(s) else 0.0 for s, f in zip(sizes.T, first, strict=True)])
    done = np.sort(first)[(len(first) + 1) // 2 - 1]
    never = first > done
    return np.where(never, len(sizes), first), np.where(never, 0.0, at_entry)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_l1_path_is_that_of_plain_liblinear(small_features, ranking_data, n_classes, monkeypatch):
    # to the usual tolerance, a coefficient of .001 may be there or not
    monkeypatch.setattr(rankings, "_L1_TOLERANCE", 1e-6)
    monkeypatch.setattr(rankings, "_L1_CHECK_SLACK", 1.0001)
    keep = small_features.y_train < n_classes
    features = FeatureSet(
        small_features.X_train[keep],
        small_features.y_train[keep],
        small_features.X_test[small_features.y_test < n_classes],
        small_features.y_test[small_features.y_test < n_classes],
    )
    data = ranking_data(features)
    x, y = data.signals.astype(np.float64), data.targets
    labels = [y == c for c in range(n_classes)]
    strongest = max(np.abs(x.T @ (label - label.mean())).max() for label in labels)
    sizes = np.zeros((12, 14))
    for number, strength in enumerate(np.geomspace(1.1, 100, 12) / strongest):
        for label in labels:
            sizes[number] += np.abs(l1_model(strength).fit(x, label).coef_[0])
    first, at_entry = entries(sizes)
    expected = np.lexsort((f_classif(x, y)[0], at_entry, -first))
    np.testing.assert_array_equal(np.argsort(rank_bits(data, "l1_path"), kind="stable"), expected)


def test_l1_models_satisfy_the_conditions_of_all_columns():
    generator = np.random.default_rng(5)
    columns = generator.normal(size=(80, 200))
    labels = (columns[:, :6].sum(axis=1) + generator.normal(size=80) > 0).astype(np.float64)
    model = rankings._L1Logistic(columns, labels, 0)
    strongest = np.abs(columns.T @ (labels - labels.mean())).max()
    for ratio in (1.1, 3.0, 10.0):
        found = model.fit(ratio / strongest)
        plain = l1_model(ratio / strongest).fit(columns, labels)
        np.testing.assert_allclose(found, plain.coef_[0], atol=0.02)
        assert (model._slopes * ratio / strongest).max() < 1.02


@pytest.mark.parametrize("n_targets", [1, 2])
def test_l1_path_of_regression_is_the_lasso(small_regression, ranking_data, n_targets):
    features = FeatureSet(
        small_regression.X_train,
        small_regression.y_train[:, :n_targets],
        small_regression.X_test,
        small_regression.y_test[:, :n_targets],
        task="regression",
    )
    data = ranking_data(features)
    x, y = data.signals.astype(np.float64), data.targets.astype(np.float64)
    y = y - y.mean(axis=0)
    strongest = np.linalg.norm(x.T @ y, axis=1).max() / len(x)
    sizes = []
    for penalty in strongest / np.geomspace(1.1, 100, 12):
        if n_targets == 1:
            sizes.append(np.abs(Lasso(alpha=penalty, fit_intercept=False).fit(x, y[:, 0]).coef_))
        else:
            model = MultiTaskLasso(alpha=penalty, fit_intercept=False).fit(x, y)
            sizes.append(np.linalg.norm(model.coef_, axis=0))
    first, at_entry = entries(np.array(sizes))
    statistic = np.max([f_regression(x, t)[0] for t in y.T], axis=0)
    expected = np.lexsort((statistic, at_entry, -first))
    np.testing.assert_array_equal(np.argsort(rank_bits(data, "l1_path"), kind="stable"), expected)


def gated_weights(data):
    """For each bit, where the weights that it gates are: (layer, inputs, units)."""
    widths = data.encoding.shape.widths
    if data.is_connections:
        n_layers = max(len(widths) - 2, 1)
        return [
            (layer, [i], [j]) for layer in range(n_layers) for i, j in np.ndindex(widths[layer], widths[layer + 1])
        ]
    inputs = [(0, [i], range(widths[1])) for i in range(widths[0])]
    units = [(k, range(widths[k]), [j]) for k in range(len(widths) - 2) for j in range(widths[k + 1])]
    return {
        "features": inputs,
        "neurons": units,
        "neurons:2": units[-widths[-2] :],
        "features+neurons": inputs + units,
    }[data.encoding.name]


@BOTH_TASKS
@pytest.mark.parametrize(("encoding", "hidden"), ENCODINGS)
def test_scores_of_weights(task, encoding, hidden, several_features, ranking_data):
    data = ranking_data(several_features[task], encoding, hidden)
    parts = [data.dense_weights[layer][np.ix_(i, j)] for layer, i, j in gated_weights(data)]
    found = rank_bits(data, "weight_magnitude")
    np.testing.assert_allclose(found, [np.abs(part).max() for part in parts])
    # features are standardised here: their spread is 1
    found = rank_bits(data, "neuron_norm")
    np.testing.assert_allclose(found, [np.sqrt((part**2).sum()) for part in parts], rtol=1e-5)


def test_norms_of_inputs_count_their_spread(small_features, ranking_data):
    data = ranking_data(small_features, standardise=False)
    norms = np.linalg.norm(data.dense_weights[0], axis=1)
    np.testing.assert_allclose(rank_bits(data, "neuron_norm"), norms * data.features.std(axis=0), rtol=1e-5)


@BOTH_TASKS
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("encoding", "hidden"), ENCODINGS)
def test_saliency_is_that_of_automatic_differentiation(
    task, encoding, hidden, bias, several_features, ranking_data
):
    data = ranking_data(several_features[task], encoding, hidden, bias=bias)
    weights = [torch.tensor(w, requires_grad=True) for w in data.dense_weights]
    biases = [None if b is None else torch.tensor(b, requires_grad=True) for b in data.dense_biases]
    values = torch.tensor(data.features, dtype=torch.float64)
    for layer, (w, b) in enumerate(zip(weights, biases, strict=True)):
        values = values @ w if b is None else values @ w + b
        values = values.relu() if layer < len(weights) - 1 else values
    if task == "classification":
        loss = torch.nn.functional.cross_entropy(values, torch.tensor(data.targets))
    else:
        loss = torch.nn.functional.mse_loss(values, torch.tensor(data.targets, dtype=torch.float64))
    loss.backward()
    expected = []
    for layer, i, j in gated_weights(data):
        total = (weights[layer] * weights[layer].grad)[np.ix_(i, j)].sum().item()
        whole_unit = not data.is_connections and len(j) == 1 and len(i) == data.encoding.shape.widths[layer]
        if whole_unit and biases[layer] is not None and not (layer == 0 and encoding == "features"):
            total += (biases[layer] * biases[layer].grad)[j].sum().item()
        expected.append(abs(total))
    np.testing.assert_allclose(rank_bits(data, "saliency"), expected, rtol=1e-8, atol=1e-14)


@BOTH_TASKS
def test_recursive_elimination(task, several_features, ranking_data):
    data = ranking_data(several_features[task])
    x, y = data.signals.astype(np.float64), data.targets
    found = rank_bits(data, "recursive_elimination")
    left = list(range(x.shape[1]))
    rank = 0
    while len(left) > 1:
        if task == "classification":
            coefficients = LogisticRegression(C=0.01, tol=1e-8, max_iter=1000).fit(x[:, left], y).coef_
        else:
            coefficients = Ridge(alpha=100.0).fit(x[:, left], y).coef_
        squares = (coefficients**2).sum(axis=0)
        for place in np.argsort(squares)[: max(1, len(left) // 5)]:
            assert found[left[place]] == rank
            rank += 1
        left = [bit for bit in left if found[bit] >= rank]
    assert found[left[0]] == rank


@BOTH_TASKS
@pytest.mark.parametrize("ridge", [1.0, 0.01])
def test_forward_selection_is_the_greedy_search(task, ridge, several_features, ranking_data):
    data = ranking_data(several_features[task])
    x, y = data.signals.astype(np.float64), data.targets
    targets = np.eye(3)[y] if task == "classification" else y.astype(np.float64)
    targets = (targets - targets.mean(axis=0)) / targets.std(axis=0)
    penalty = ridge * len(x)

    def penalised_loss(chosen):
        part = x[:, chosen]
        weights = np.linalg.solve(part.T @ part + penalty * np.eye(len(chosen)), part.T @ targets)
        return ((targets - part @ weights) ** 2).sum() + penalty * (weights**2).sum()

    chosen = []
    while len(chosen) < 6:
        left = [bit for bit in range(x.shape[1]) if bit not in chosen]
        chosen.append(left[int(np.argmin([penalised_loss([*chosen, bit]) for bit in left]))])
    statistic = rank_bits(data, "anova_f")
    rest = sorted(set(range(x.shape[1])) - set(chosen), key=lambda bit: -statistic[bit])
    found = rankings.forward_selection(data, ridge=ridge, most=6)
    assert np.argsort(-found, kind="stable").tolist() == [*chosen, *rest]


def test_forward_selection_leaves_copies_to_the_end(small_features, ranking_data):
    rows = np.concatenate([small_features.X_train, small_features.X_train[:, :5]], axis=1)
    tests = np.concatenate([small_features.X_test, small_features.X_test[:, :5]], axis=1)
    features = FeatureSet(rows, small_features.y_train, tests, small_features.y_test)
    found = rankings.forward_selection(ranking_data(features), ridge=0.01, most=5)
    picked = np.argsort(-found, kind="stable")[:5]
    assert len(set(np.where(picked >= 14, picked - 14, picked))) == 5


def test_forward_selection_with_more_features_than_rows(ranking_data):
    generator = np.random.default_rng(2)
    rows = generator.normal(size=(12, 40)).astype(np.float32)
    labels = np.arange(12) % 3
    found = rank_bits(ranking_data(FeatureSet(rows, labels, rows, labels)), "forward_selection")
    assert len(np.unique(found)) == 40
    with pytest.raises(InputError, match="ridge"):
        rankings.forward_selection(ranking_data(FeatureSet(rows, labels, rows, labels)), ridge=0.0)
    with pytest.raises(InputError, match="most"):
        rankings.forward_selection(ranking_data(FeatureSet(rows, labels, rows, labels)), most=0)


@pytest.mark.parametrize("name", SIGNAL_RANKINGS)
def test_connections_are_ranked_by_feature_and_weight(name, small_features, ranking_data):
    data = ranking_data(small_features, "connections", (4, 3))
    first, second = (rankdata(np.abs(w)).reshape(w.shape) / w.size for w in data.dense_weights[:2])
    features = rankdata(rank_bits(ranking_data(small_features, "features", (4, 3)), name)) / 14
    expected = [rankdata(features[:, None] * first) / first.size, second.ravel()]
    np.testing.assert_allclose(rank_bits(data, name), np.concatenate(expected))


def test_combined_rankings():
    a, b = np.array([1.0, 5.0, 5.0, 9.0]), np.array([-3.0, 7.0, 1e9, 0.0])
    np.testing.assert_allclose(combine([a]), [0.25, 0.625, 0.625, 1.0])
    np.testing.assert_allclose(combine([a, b]), [0.25, 0.6875, 0.8125, 0.75])
    with pytest.raises(InputError, match="at least one"):
        combine([])


def test_unknown_ranking(small_features, ranking_data):
    with pytest.raises(InputError, match="did you mean 'anova_f'"):
        rank_bits(ranking_data(small_features), "anova")


def test_the_seed_reaches_what_is_drawn(small_features, ranking_data):
    one, other = (ranking_data(small_features, "neurons", seed=seed) for seed in (1, 2**40 + 1))
    assert not np.array_equal(rank_bits(one, "weight_magnitude"), rank_bits(other, "weight_magnitude"))
    assert np.isfinite(rank_bits(other, "mutual_information")).all()


def test_minimum_redundancy_is_its_definition(small_features, ranking_data):
    data = ranking_data(small_features)
    signals = data.signals.astype(np.float64)
    relevance = f_classif(data.signals, data.targets)[0]
    correlation = np.abs(np.corrcoef(signals.T))
    chosen = [int(relevance.argmax())]
    while len(chosen) < 14:
        left = [bit for bit in range(14) if bit not in chosen]
        quotients = [relevance[bit] / (correlation[bit, chosen].mean() + 0.01) for bit in left]
        chosen.append(left[int(np.argmax(quotients))])
    assert np.argsort(-minimum_redundancy(data)).tolist() == chosen
    # what is not chosen follows by the statistic
    few = np.argsort(-minimum_redundancy(data, most=3))
    assert few[:3].tolist() == chosen[:3]
    assert (np.diff(relevance[few[3:]]) <= 0).all()


def test_features_that_separate_exactly_count_once(ranking_data):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    rows = rng.normal(size=(60, 8)).astype(np.float32)
    rows[:, :3] = labels[:, None] * [1.0, 2.0, -3.0]
    rows[:, 3] += 1.5 * labels
    data = FeatureSet(rows, labels, rows, labels)
    order = np.argsort(-minimum_redundancy(ranking_data(data)), kind="stable")
    assert order[0] in (0, 1, 2)
    assert np.isfinite(minimum_redundancy(ranking_data(data))).all()


@pytest.mark.parametrize("encoding", ["features", "features+neurons"])
def test_a_part_of_the_rows_is_as_good_as_data_of_its_own(small_features, ranking_data, encoding):
    whole = ranking_data(small_features, encoding)
    rows = np.arange(0, len(whole.features), 2)
    part = replace(whole, rows=rows)
    trainer = PopulationTrainer(
        whole.features[rows], whole.targets[rows], whole.encoding.shape, whole.head, whole.seed, "cpu"
    )
    own = replace(whole, features=whole.features[rows], targets=whole.targets[rows], trainer=trainer)
    for name in RANKINGS:
        np.testing.assert_allclose(rank_bits(part, name), rank_bits(own, name), rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(
        GradualMagnitude().masks(part, [3, 9]).sum(axis=1), GradualMagnitude().masks(own, [3, 9]).sum(axis=1)
    )


def test_top_bits():
    masks = top_bits(np.array([2.0, 5.0, 5.0, 1.0]), [0, 1, 3, 4])
    assert masks.tolist() == [
        [False] * 4,
        [False, True, False, False],
        [True, True, True, False],
        [True] * 4,
    ]
