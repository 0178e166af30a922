"""The constructed network beside other ways to a network of its size, all scored once on the test part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moevoprune.construction.building import Built, build_network
from moevoprune.construction.construction import take_units
from moevoprune.construction.network import (
    hidden_widths,
    n_parameters,
    parameter_count,
    start_network,
    train_network,
)
from moevoprune.construction.scoring import metric_of, score_on_test, target_variance
from moevoprune.construction.settings import ConstructionSettings
from moevoprune.construction.sweep import retrain_seed, smallest_close
from moevoprune.features import FeatureSet
from moevoprune.features.folds import training_part
from moevoprune.heads.head import TrainedHead
from moevoprune.heads.settings import HeadSettings
from moevoprune.search.loop import run_search
from moevoprune.search.problem import PruningProblem

__all__ = ["METHODS", "Comparison", "MethodScore", "compare_methods"]

METHODS = {
    "large": "the large network",
    "refined": "constructed of it, and retrained",
    "constructed": "the same before retraining",
    "scratch": "the same shape, trained from scratch",
    "magnitude": "magnitude pruning to the same shape, and retrained",
    "evolved": "evolutionary search over the units",
    "sklearn": "scikit-learn's MLP of the same shape",
}
"""What each method is, in words."""

_POPULATION = 20
# what ranks masks needs no network that is trained to the end
_SEARCH_SHARE = 3
_ENCODINGS = {1: "neurons", 2: "neurons:both"}

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class MethodScore:
    """One method with one seed.

    Attributes
    ----------
    method
        A key of :data:`METHODS`.
    widths
        Units of each hidden layer.
    parameters
        Weights and biases.
    test
        Accuracy or R² on the test part.
    """

    method: str
    widths: tuple[int, ...]
    parameters: int
    test: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """All methods with one seed.

    Attributes
    ----------
    seed
        The seed.
    metric
        ``"accuracy"`` or ``"r2"``.
    built
        The large network, what was made of it, and the sweep.
    scores
        One per method.
    """

    seed: int
    metric: str
    built: Built
    scores: tuple[MethodScore, ...]

    def __getitem__(self, method: str) -> MethodScore:
        """Look up a method's score; KeyError where it was left out."""
        for score in self.scores:
            if score.method == method:
                return score
        raise KeyError(method)


def compare_methods(
    features: FeatureSet, settings: ConstructionSettings, seed: int, budget: int = 60
) -> Comparison:
    """Construct a network and set it beside others.

    * ``scratch``: the refined network's shape with start weights of its own, trained for the epochs of the large
      network's training and of the retraining together, in one go.
    * ``magnitude``: in each layer of the large network as many units as the refined one has, those with the
      largest Euclidean norm of incoming weights and bias; retrained like the refined one.
    * ``evolved``: the default search with the score and the number of units as objectives, on the same folds but
      without repeats and with a third of the epochs; of its front the smallest network within the tolerance, from
      the search's start weights trained as long as ``scratch``. Left out with more than two hidden layers, or with
      a budget of 0.
    * ``sklearn``: scikit-learn's ``MLPClassifier`` or ``MLPRegressor``, with the same epochs as ``scratch``, the
      same batches, first step size and L2 penalty; its step size stays constant.

    Parameters
    ----------
    features
        The data.
    settings
        How the network is constructed.
    seed
        Seed of everything random.
    budget
        Evaluations of the evolutionary search.

    Raises
    ------
    InputError
        As :func:`~moevoprune.construction.building.build_network`.
    """
    # a test part that cannot be scored is found before anything is trained
    target_variance(features, features.y_test)
    built = build_network(features, settings, seed)
    rows, targets = training_part(features)
    contest = _Contest(features, np.asarray(rows), targets, settings, built, seed)
    networks: dict[str, TrainedHead] = {
        "large": built.large,
        "refined": built.refined,
        "constructed": built.constructed,
        "scratch": contest.scratch(),
        "magnitude": contest.magnitude(),
    }
    if budget > 0 and len(settings.hidden) in _ENCODINGS:
        networks["evolved"] = contest.evolved(budget)
    scores = [
        MethodScore(
            method,
            hidden_widths(network),
            n_parameters(network),
            score_on_test(network.outputs(features.X_test), features),
        )
        for method, network in networks.items()
    ]
    return Comparison(seed, metric_of(features.task), built, (*scores, contest.sklearn()))


@dataclass(frozen=True, eq=False)
class _Contest:
    """What the other methods are given: the training part, and the shape to beat."""

    features: FeatureSet
    rows: Floats
    targets: Array
    settings: ConstructionSettings
    built: Built
    seed: int

    @property
    def decay(self) -> float:
        return self.built.sweep.weight_decay

    @property
    def widths(self) -> tuple[int, ...]:
        return hidden_widths(self.built.refined)

    def scratch(self) -> TrainedHead:
        return self._trained_to_the_end(self._start(self.widths))

    def magnitude(self) -> TrainedHead:
        kept = _largest_units(self.built.large, self.widths)
        training = self.settings.retraining(len(self.rows), self.decay)
        small = take_units(self.built.large, kept)
        return train_network(small, self.rows, self.targets, training, retrain_seed(self.seed))

    def evolved(self, budget: int) -> TrainedHead:
        head = HeadSettings(
            hidden=self.settings.hidden,
            optimiser="adam",
            learning_rate=self.settings.learning_rate,
            weight_decay=self.decay,
            epochs=max(1, self.settings.n_epochs(len(self.rows)) // _SEARCH_SHARE),
            batch_size=self.settings.batch_size,
        )
        encoding = _ENCODINGS[len(self.settings.hidden)]
        objectives = [metric_of(self.features.task), "active_neurons"]
        with PruningProblem(
            self.features, encoding, objectives, head, self.settings.cv, self.seed, "cpu"
        ) as problem:
            result = run_search(problem, _POPULATION, budget=budget, seed=self.seed)
            masks = [problem.encoding.decode(mask) for mask in result.masks]
        sizes = [mask.n_parameters(self.features.n_outputs, bias=True) for mask in masks]
        chosen = masks[smallest_close(sizes, result.values[:, 0].tolist(), self.settings.tolerance)]
        return self._trained_to_the_end(take_units(self._start(self.settings.hidden), chosen.hidden))

    def sklearn(self) -> MethodScore:
        training = self.settings.longest_training(len(self.rows), self.decay)
        # scikit-learn divides the penalty by the rows of a batch
        batch = min(training.batch_size, len(self.rows))
        options = {
            "hidden_layer_sizes": self.widths,
            "alpha": training.weight_decay * batch,
            "batch_size": batch,
            "learning_rate_init": training.learning_rate,
            "max_iter": training.epochs,
            "n_iter_no_change": training.epochs + 1,
            "tol": 0.0,
            "random_state": self.seed,
        }
        outputs = _sklearn_outputs(self.built.large, self.rows, self.targets, self.features.X_test, options)
        parameters = parameter_count(self.features.n_features, self.widths, self.features.n_outputs)
        return MethodScore("sklearn", self.widths, parameters, score_on_test(outputs, self.features))

    def _start(self, widths: Sequence[int]) -> TrainedHead:
        return start_network(self.rows, self.targets, widths, self.features.n_outputs, self.seed)

    def _trained_to_the_end(self, network: TrainedHead) -> TrainedHead:
        training = self.settings.longest_training(len(self.rows), self.decay)
        return train_network(network, self.rows, self.targets, training, self.seed)


def _largest_units(network: TrainedHead, widths: Sequence[int]) -> list[npt.NDArray[np.int64]]:
    """Numbers of the units of each hidden layer with the largest norms of incoming weights and bias."""
    kept = []
    for weight, bias, width in zip(network.weights, network.biases, widths, strict=False):
        squares = (weight**2).sum(axis=0) + (0.0 if bias is None else bias**2)
        kept.append(np.sort(np.argsort(-squares, kind="stable")[:width]))
    return kept


def _sklearn_outputs(
    large: TrainedHead, rows: Floats, targets: Array, test_rows: Floats, options: dict[str, object]
) -> Floats:
    """What scikit-learn's MLP gives for the test rows: probabilities or targets, standardised as ours are."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with warnings.catch_warnings(), threadpool_limits(1):
        # it is to stop after these epochs; where it diverges its score says so
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        if large.target_mean is None or large.target_scale is None:
            model = MLPClassifier(**options).fit(large.prepare(rows), targets)
            return np.asarray(model.predict_proba(large.prepare(test_rows)), dtype=np.float32)
        answers = (targets.astype(np.float32) - large.target_mean) / large.target_scale
        model = MLPRegressor(**options).fit(large.prepare(rows), answers.squeeze())
        predicted = model.predict(large.prepare(test_rows)).reshape(len(test_rows), -1)
        return np.asarray(predicted * large.target_scale + large.target_mean, dtype=np.float32)
