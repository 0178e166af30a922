"""Rankings: how important each bit looks, by the training rows and by the dense head trained on them.

A ranking is a function of :class:`~moevoprune.baselines.data.RankingData` that gives one score per bit, shape
(n_bits,), larger for what matters more, and never NaN.

Rankings of *signals* judge what a bit lets through (``data.signals``); bits with a constant signal get the lowest
score. A single connection has no signal of its own: one of the first layer gets the rank of its feature times the
rank of its dense weight, a deeper one the rank of its weight alone. Either way the scores of a layer are rank
shares within that layer, so that no layer is pruned harder for having other units of measure.
"""

from __future__ import annotations

import functools
import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from moevoprune.baselines.data import RankingData, standardise
from moevoprune.errors import InputError, nearest, whole_number

__all__ = [
    "RANKINGS",
    "anova_f",
    "combine",
    "forward_selection",
    "l1_path",
    "minimum_redundancy",
    "mutual_information",
    "neuron_norm",
    "rank_bits",
    "recursive_elimination",
    "saliency",
    "top_bits",
    "weight_magnitude",
]

Floats = npt.NDArray[np.float32]
Values = npt.NDArray[np.float64]
Ranking = Callable[[RankingData], Values]

_MOST_PICKS = 400
# keeps a first choice without any redundancy from counting infinitely
_LEAST_REDUNDANCY = 0.01
_LARGEST_RELEVANCE = 1e12
_L1_GRID = 12
# from just above the penalty that lets the first feature in, to where nearly all are in
_L1_FROM, _L1_TO = 1.1, 100.0
_L1_TOLERANCE = 1e-3
_L1_CHECK_SLACK = 1.01
_ELIMINATED_SHARE = 0.2
_ELIMINATION_C = 0.01


def anova_f(data: RankingData) -> Values:
    """ANOVA F statistic between the classes.

    For regression that of a linear fit, the largest over the targets. Both are scikit-learn's.
    """
    return _rank_signals(data, _anova)


def mutual_information(data: RankingData) -> Values:
    """Mutual information with the target, in nats, by nearest neighbours; the largest over regression targets.

    scikit-learn's estimator (Kraskov et al. 2004; Ross 2014), seeded by ``data.seed``.
    """
    return _rank_signals(data, _mutual_information)


def l1_path(data: RankingData) -> Values:
    """Order of entry along a path of L1-penalised linear models.

    For classification one logistic model per class (scikit-learn's liblinear), for regression the multi-task lasso
    (scikit-learn's ``lasso_path``; one target makes it the lasso). The penalty falls along a geometric grid until
    half of the signals have entered. What enters earlier ranks higher, at the same penalty by the size of its
    coefficients; what never enters follows, by :func:`anova_f`.
    """
    return _rank_signals(data, _l1_path)


def weight_magnitude(data: RankingData) -> Values:
    """One-shot magnitude pruning of weights: a bit goes when the last weight that it gates would go.

    The largest absolute weight of the dense head among those leaving an input, entering a unit, or the weight
    itself (Han et al. 2015).
    """
    magnitudes = [np.abs(weights) for weights in data.dense_weights]
    return data.encoding.arrange(magnitudes[0].max(axis=1), [m.max(axis=0) for m in magnitudes[:-1]], magnitudes)


def neuron_norm(data: RankingData) -> Values:
    """One-shot pruning of neurons: Euclidean norm of the dense weights that enter a unit (Li et al. 2017).

    For an input, the norm of those that leave it times the standard deviation of its feature; for a single
    connection, its absolute weight.
    """
    weights = data.dense_weights
    spread = data.sample[0].std(axis=0, dtype=np.float64)
    return data.encoding.arrange(
        np.linalg.norm(weights[0], axis=1) * spread,
        [np.linalg.norm(matrix, axis=0) for matrix in weights[:-1]],
        [np.abs(matrix) for matrix in weights],
    )


def saliency(data: RankingData) -> Values:
    """First-order Taylor estimate of how the training loss changes when a bit goes (Molchanov et al. 2017).

    ``abs(sum of w * dL/dw)`` over the dense weights that the bit gates: those that leave an input, those that
    enter a unit together with its bias (which goes with it), or the weight itself. L is the mean cross-entropy, or
    the mean squared error, on the rows of ``data.sample``.
    """
    products, bias_products = _weights_times_gradients(data)
    units = []
    for product, bias_product in zip(products[:-1], bias_products[:-1], strict=True):
        units.append(np.abs(product.sum(axis=0) + bias_product))
    return data.encoding.arrange(np.abs(products[0].sum(axis=1)), units, [np.abs(product) for product in products])


def recursive_elimination(data: RankingData) -> Values:
    """Recursive feature elimination (Guyon et al. 2002): rank of survival.

    A multinomial logistic model (ridge for regression) is fitted to the signals that remain; the fifth of them
    with the smallest squared coefficients goes, at least one, until one is left.
    """
    return _rank_signals(data, _recursive_elimination)


def minimum_redundancy(data: RankingData, most: int = _MOST_PICKS) -> Values:
    """Minimum redundancy, maximum relevance: the quotient form with the F statistic (Ding & Peng 2005).

    The signal whose :func:`anova_f`, divided by its mean absolute correlation with those already chosen, is
    largest is chosen next; what is not chosen follows, by :func:`anova_f`.

    Parameters
    ----------
    data
        What to rank.
    most
        Choices, at most.

    Raises
    ------
    InputError
        ``most`` is not a whole number of at least 1.
    """
    most = whole_number("most", most, 1)
    return _rank_signals(data, functools.partial(_minimum_redundancy, most=most))


def forward_selection(data: RankingData, ridge: float = 10.0, most: int = _MOST_PICKS) -> Values:
    """Greedy forward selection for ridge regression: orthogonal least squares (Chen, Billings & Luo 1989).

    Targets are one-hot for classes, centred, and divided by their standard deviation. The signal that lowers the
    penalised residual sum of squares ``||Y - Xw||^2 + lambda ||w||^2`` most is added, again and again; what is not
    picked follows, by :func:`anova_f`.

    Parameters
    ----------
    data
        What to rank.
    ridge
        Penalty per row, > 0: ``lambda = ridge * rows``. A small one follows the training rows closely; the larger
        it is, the more the choice resembles a ranking one by one.
    most
        Picks, at most; never more than the rows less one.

    Raises
    ------
    InputError
        ``ridge`` is not a positive number, or ``most`` not a whole number of at least 1.
    """
    if not (math.isfinite(ridge) and ridge > 0):
        raise InputError(f"ridge = {ridge!r}: use a number above 0")
    most = whole_number("most", most, 1)
    return _rank_signals(data, functools.partial(_forward_selection, ridge=ridge, most=most))


def combine(scores: Sequence[Values]) -> Values:
    """Mean of several rankings' rank shares, in (0, 1]; equal scores share their mean rank.

    Parameters
    ----------
    scores
        One array of shape (n_bits,) per ranking, at least one.

    Raises
    ------
    InputError
        There is no ranking to combine.
    """
    if not len(scores):
        raise InputError("no ranking to combine: give at least one")
    mean: Values = np.mean([_rank_share(one) for one in scores], axis=0)
    return mean


RANKINGS: dict[str, Ranking] = {
    "anova_f": anova_f,
    "mutual_information": mutual_information,
    "l1_path": l1_path,
    "weight_magnitude": weight_magnitude,
    "neuron_norm": neuron_norm,
    "saliency": saliency,
    "recursive_elimination": recursive_elimination,
    "minimum_redundancy": minimum_redundancy,
    "forward_selection": forward_selection,
}


def rank_bits(data: RankingData, name: str) -> Values:
    """Score bits by a ranking given by name, a key of :data:`RANKINGS`.

    Raises
    ------
    InputError
        The name is unknown.
    """
    if name not in RANKINGS:
        raise InputError(f"unknown ranking {name!r}{nearest(name, RANKINGS)}: use one of {', '.join(RANKINGS)}")
    # products that are summed up by several threads differ in their last digits with the number of threads, and
    # two bits that are nearly equal may then change places
    with threadpool_limits(1):
        return RANKINGS[name](data)


def top_bits(scores: Values, sizes: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Masks of the best-scored bits; of equal ones, those with the lower number.

    Parameters
    ----------
    scores
        One per bit, shape (n_bits,).
    sizes
        Active bits of each mask, within 0..n_bits.

    Returns
    -------
    ndarray of bool, shape (len(sizes), n_bits)
    """
    order = np.argsort(-scores, kind="stable")
    masks = np.zeros((len(sizes), len(scores)), dtype=np.bool_)
    for mask, size in zip(masks, sizes, strict=True):
        mask[order[:size]] = True
    return masks


def _rank_signals(data: RankingData, score: Callable[[RankingData, Floats], Values]) -> Values:
    """Score every bit by its signal, or where bits have none, by its feature and its weight."""
    if data.signals is not None:
        return _score_signals(data, data.signals, score)
    of_features = _rank_share(_score_signals(data, standardise(data.sample[0]), score))
    layers = [_rank_share(np.abs(weights)) for weights in data.dense_weights]
    layers[0] = _rank_share(of_features[:, None] * layers[0])
    return data.encoding.arrange(of_features, [], layers)


def _score_signals(data: RankingData, signals: Floats, score: Callable[[RankingData, Floats], Values]) -> Values:
    """Score signals; the constant ones are kept from the estimator and put below all others."""
    varies = signals.any(axis=0)
    scores = np.zeros(signals.shape[1])
    if varies.any():
        found = np.nan_to_num(score(data, signals if varies.all() else signals[:, varies]), nan=0.0)
        # ranks would do as well; the statistic itself is worth showing
        scores[~varies] = found.min() - 1.0
        scores[varies] = found
    return scores


def _rank_share(scores: Values) -> Values:
    """Rank of each score among all of the array, in (0, 1]; of the array's shape."""
    from scipy.stats import rankdata

    ranks: Values = rankdata(scores).reshape(np.shape(scores)) / np.size(scores)
    return ranks


def _rank_by(*keys: Values) -> Values:
    """Ranks by the first key, where that is equal by the second, and so on; equal in all shares the rank."""
    ranks = np.unique(np.stack(keys, axis=1), axis=0, return_inverse=True)[1]
    return ranks.ravel().astype(np.float64)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence estimators about constant columns and fits stopped early, both of which are meant."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def _target_columns(data: RankingData) -> Values:
    """Targets as columns, one-hot for classes; shape (rows, outputs), float64."""
    targets = data.sample[1]
    if data.task == "regression":
        return targets.astype(np.float64)
    one_hot: Values = (targets[:, None] == np.arange(data.encoding.shape.n_outputs)).astype(np.float64)
    return one_hot


def _anova(data: RankingData, signals: Floats) -> Values:
    from sklearn.feature_selection import f_classif, f_regression

    targets = data.sample[1]
    with _quiet():
        if data.task == "classification":
            statistics = f_classif(signals, targets)[0]
        else:
            statistics = np.max([np.nan_to_num(f_regression(signals, t)[0], nan=0.0) for t in targets.T], axis=0)
    return np.nan_to_num(np.asarray(statistics, dtype=np.float64), nan=0.0)


def _mutual_information(data: RankingData, signals: Floats) -> Values:
    from sklearn.feature_selection import mutual_info_classif, mutual_info_regression

    targets = data.sample[1]
    seed = _sklearn_seed(data)
    with _quiet():
        if data.task == "classification":
            information = mutual_info_classif(signals, targets, discrete_features=False, random_state=seed)
        else:
            information = np.max(
                [
                    mutual_info_regression(signals, t, discrete_features=False, random_state=seed)
                    for t in targets.T
                ],
                axis=0,
            )
    return np.asarray(information, dtype=np.float64)


def _sklearn_seed(data: RankingData) -> int:
    # what numpy's old generator takes
    return data.seed % 2**32


def _l1_path(data: RankingData, signals: Floats) -> Values:
    columns = np.asfortranarray(signals, dtype=np.float64)
    targets = _target_columns(data)
    path = _lasso_sizes if data.task == "regression" else _logistic_sizes
    entry = np.full(columns.shape[1], -np.inf)
    size_at_entry = np.zeros(columns.shape[1])
    for number, sizes in enumerate(path(columns, targets, _sklearn_seed(data))):
        new = (sizes > 0) & np.isinf(entry)
        entry[new] = -number
        size_at_entry[new] = sizes[new]
        if 2 * np.isfinite(entry).sum() >= len(entry):
            break
    return _rank_by(entry, size_at_entry, _anova(data, signals))


def _lasso_sizes(columns: Values, targets: Values, seed: int) -> Iterator[Values]:
    """Size of each signal's coefficients, penalty by penalty."""
    from sklearn.linear_model import lasso_path

    centred = targets - targets.mean(axis=0)
    strongest = np.linalg.norm(columns.T @ centred, axis=1).max() / len(columns)
    if strongest == 0.0:
        return
    coefficients = None
    for penalty in strongest / np.geomspace(_L1_FROM, _L1_TO, _L1_GRID):
        with _quiet():
            path = lasso_path(
                columns, np.asfortranarray(centred), alphas=[penalty], coef_init=coefficients, tol=_L1_TOLERANCE
            )[1]
        coefficients = np.asfortranarray(path[:, :, 0])
        yield np.linalg.norm(coefficients, axis=0)


def _logistic_sizes(columns: Values, targets: Values, seed: int) -> Iterator[Values]:
    """Sum over the classes of each signal's absolute coefficients, penalty by penalty."""
    present = targets[:, (targets.min(axis=0) == 0.0) & (targets.max(axis=0) == 1.0)]
    # of two classes one says what the other does
    classes = present.T[:1] if present.shape[1] == 2 else present.T
    if not len(classes):
        return
    strongest = max(np.abs(columns.T @ (of_class - of_class.mean())).max() for of_class in classes)
    if strongest == 0.0:
        return
    models = [_L1Logistic(columns, of_class, seed) for of_class in classes]
    for strength in np.geomspace(_L1_FROM, _L1_TO, _L1_GRID) / strongest:
        yield np.sum([np.abs(model.fit(strength)) for model in models], axis=0)


class _L1Logistic:
    """L1-penalised logistic model of one class, fitted for rising ``C`` by scikit-learn's liblinear.

    liblinear's time grows with the columns it is given, and few of them matter: it is given those that may enter,
    and the optimality conditions of the others are checked afterwards, so that nothing is missed.
    """

    def __init__(self, columns: Values, of_class: Values, seed: int) -> None:
        self._columns = columns
        self._of_class = of_class
        self._seed = seed
        self._coefficients = np.zeros(columns.shape[1])
        self._slopes = np.abs(columns.T @ (of_class.mean() - of_class))

    def fit(self, strength: float) -> Values:
        """Coefficients, shape (signals,), for liblinear's ``C = strength``."""
        given = (self._coefficients != 0.0) | (self._slopes * strength > 1.0)
        while given.any():
            model = _l1_logistic_regression(strength, self._seed)
            part = self._columns[:, given]
            with _quiet():
                model.fit(part, self._of_class)
            self._coefficients = np.zeros(len(given))
            self._coefficients[given] = model.coef_[0]
            with np.errstate(over="ignore"):
                chances = 1.0 / (1.0 + np.exp(-(part @ model.coef_[0] + model.intercept_[0])))
            self._slopes = np.abs(self._columns.T @ (chances - self._of_class))
            missed = (self._slopes * strength > _L1_CHECK_SLACK) & ~given
            if not missed.any():
                break
            given = given | missed
        return self._coefficients


def _l1_logistic_regression(strength: float, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    # scikit-learn 1.8 replaced `penalty` by `l1_ratio` and warns of the old one
    penalty = inspect.signature(LogisticRegression).parameters.get("penalty")
    lasso: dict[str, Any] = {"l1_ratio": 1.0}
    if penalty is not None and penalty.default == "l2":
        lasso = {"penalty": "l1"}
    return LogisticRegression(
        solver="liblinear", C=strength, tol=_L1_TOLERANCE, max_iter=200, random_state=seed, **lasso
    )


def _weights_times_gradients(data: RankingData) -> tuple[list[Values], list[Values]]:
    """Weight times gradient of the mean loss, per layer: for the weights (inputs, units) and biases (units,)."""
    rows = data.sample[0].astype(np.float64)
    targets = _target_columns(data)
    weights, biases = data.dense_weights, data.dense_biases
    activations = [rows]
    for layer, (matrix, bias) in enumerate(zip(weights, biases, strict=True)):
        values = activations[-1] @ matrix
        if bias is not None:
            values = values + bias
        activations.append(np.maximum(values, 0.0) if layer < len(weights) - 1 else values)
    outputs = activations.pop()
    if data.task == "classification":
        chances = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        gradient = (chances / chances.sum(axis=1, keepdims=True) - targets) / len(rows)
    else:
        gradient = 2.0 * (outputs - targets) / outputs.size
    products: list[Values] = []
    bias_products: list[Values] = []
    for matrix, bias, below in zip(reversed(weights), reversed(biases), reversed(activations), strict=True):
        products.append(matrix * (below.T @ gradient))
        bias_products.append(np.zeros(matrix.shape[1]) if bias is None else bias * gradient.sum(axis=0))
        gradient = (gradient @ matrix.T) * (below > 0.0)
    return products[::-1], bias_products[::-1]


def _recursive_elimination(data: RankingData, signals: Floats) -> Values:
    from sklearn.linear_model import LogisticRegression, Ridge

    # scikit-learn's RFE drops a fixed number per round, never a share of what remains: hence the loop
    remaining = np.arange(signals.shape[1])
    order: list[npt.NDArray[np.int64]] = []
    while len(remaining) > 1:
        if data.task == "classification":
            model = LogisticRegression(C=_ELIMINATION_C, max_iter=100, tol=1e-3)
        else:
            model = Ridge(alpha=1.0 / _ELIMINATION_C)
        with _quiet():
            model.fit(signals[:, remaining], data.sample[1])
        squares = (np.atleast_2d(model.coef_).astype(np.float64) ** 2).sum(axis=0)
        # of equals the later bit goes first, as ties go to the earlier bit everywhere
        weakest_first = np.lexsort((-remaining, squares))
        n_gone = max(1, int(_ELIMINATED_SHARE * len(remaining)))
        order.append(remaining[weakest_first[:n_gone]])
        remaining = np.sort(remaining[weakest_first[n_gone:]])
    order.append(remaining)
    scores = np.empty(signals.shape[1])
    scores[np.concatenate(order)] = np.arange(signals.shape[1])
    return scores


def _forward_selection(data: RankingData, signals: Floats, ridge: float, most: int) -> Values:
    columns = signals.astype(np.float64)
    n_rows, n_signals = columns.shape
    targets = _target_columns(data)
    targets = targets - targets.mean(axis=0)
    spread = targets.std(axis=0)
    targets = targets[:, spread > 0] / spread[spread > 0]
    # the columns' part that no chosen one explains, seen through its products alone: with itself (plus the
    # penalty) and with the targets; `factor` holds the rows of the Cholesky factor of what was chosen
    own = np.einsum("ij,ij->j", columns, columns) + ridge * n_rows
    with_targets = columns.T @ targets
    n_picks = min(most, n_rows - 1, n_signals)
    factor = np.zeros((n_picks, n_signals))
    picked = np.zeros(n_signals)
    for number in range(n_picks):
        gains = np.einsum("ij,ij->i", with_targets, with_targets) / own
        gains[picked > 0] = -1.0
        best = int(gains.argmax())
        picked[best] = n_picks - number
        pivot = np.sqrt(own[best])
        row = (columns.T @ columns[:, best] - factor[:number, best] @ factor[:number]) / pivot
        factor[number] = row
        with_targets = with_targets - np.outer(row, with_targets[best] / pivot)
        # the penalty is part of every column's own product, whatever else is chosen
        own = np.maximum(own - row**2, ridge * n_rows)
    return _rank_by(picked, _anova(data, signals))


def _minimum_redundancy(data: RankingData, signals: Floats, most: int) -> Values:
    n_rows, n_signals = signals.shape
    # a feature that separates the classes exactly has an infinite statistic, beside which nothing would count
    relevance = np.minimum(_anova(data, signals), _LARGEST_RELEVANCE)
    picked = np.zeros(n_signals)
    redundancy = np.zeros(n_signals)
    best = int(relevance.argmax())
    n_picks = min(most, n_signals)
    for number in range(n_picks):
        picked[best] = n_picks - number
        redundancy += np.abs(signals.T @ signals[:, best]) / n_rows
        quotient = relevance / (redundancy / (number + 1) + _LEAST_REDUNDANCY)
        quotient[picked > 0] = -np.inf
        best = int(quotient.argmax())
    return _rank_by(picked, relevance)
