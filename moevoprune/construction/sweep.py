"""The front of size against score over the thresholds, by cross-validation inside the training part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from moevoprune.construction.construction import construct
from moevoprune.construction.network import hidden_widths, n_parameters, start_network, train_network
from moevoprune.construction.scoring import row_scores, target_variance
from moevoprune.construction.settings import DECAYS, ConstructionSettings
from moevoprune.errors import InputError
from moevoprune.features import FeatureSet
from moevoprune.features.folds import fresh_seed, make_folds, training_part
from moevoprune.heads.head import TrainedHead

__all__ = ["CrossValidation", "Sweep", "SweepPoint", "retrain_seed", "smallest_close", "sweep"]

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SweepPoint:
    """Networks of all folds that were made in one way.

    Attributes
    ----------
    epsilon
        The threshold; None for the large networks.
    parameters
        Weights and biases, mean over the folds.
    widths
        Units of each hidden layer, mean over the folds.
    rows
        Score of each row that was held out, mean over the repeats, shape (rows,).
    """

    epsilon: float | None
    parameters: float
    widths: tuple[float, ...]
    rows: Values = field(repr=False)

    @property
    def score(self) -> float:
        """Accuracy or R² on the rows held out."""
        return float(self.rows.mean())

    def error_against(self, other: SweepPoint) -> float:
        """Standard error of the difference between two scores, from the same rows."""
        differences = self.rows - other.rows
        return float(differences.std() / np.sqrt(len(differences)))


@dataclass(frozen=True, eq=False)
class Sweep:
    """What cross-validation says about the thresholds.

    Attributes
    ----------
    weight_decay
        That of all networks.
    decay_scores
        Cross-validated score of the large network by weight decay.
    large
        The large networks.
    points
        One per threshold, in their order.
    chosen
        Number of the point that was chosen.
    """

    weight_decay: float
    decay_scores: dict[float, float]
    large: SweepPoint
    points: tuple[SweepPoint, ...]
    chosen: int

    @property
    def epsilon(self) -> float:
        """The threshold that was chosen."""
        return self._epsilon(self.chosen)

    @property
    def best_epsilon(self) -> float:
        """The threshold whose networks score best; of equally good ones that of the smallest."""
        sizes = [point.parameters for point in self.points]
        return self._epsilon(smallest_close(sizes, [point.score for point in self.points], 0.0))

    def _epsilon(self, number: int) -> float:
        epsilon = self.points[number].epsilon
        return 0.0 if epsilon is None else epsilon


class CrossValidation:
    """The folds of a training part, and networks that are trained and scored on them.

    Parameters
    ----------
    features
        The data; the test part is not looked at.
    settings
        How networks are trained.
    seed
        Seed of folds, start weights and row order.
    """

    def __init__(self, features: FeatureSet, settings: ConstructionSettings, seed: int) -> None:
        rows, self._targets = training_part(features)
        self._rows = np.asarray(rows)
        self._settings, self._seed, self._n_outputs = settings, seed, features.n_outputs
        repeats = settings.n_repeats(len(self._rows))
        self._folds = make_folds(features, settings.cv, seed, repeats)
        held_out = np.unique(np.concatenate(self._folds.validation))
        self._variance = target_variance(features, self._targets[held_out])
        self._name = features.name

    def large_networks(self, weight_decay: float) -> list[TrainedHead]:
        """Train a large network per fold."""
        networks = []
        for train in self._folds.train:
            rows, targets = self._rows[train], self._targets[train]
            start = start_network(rows, targets, self._settings.hidden, self._n_outputs, self._seed)
            training = self._settings.training(len(rows), weight_decay)
            networks.append(train_network(start, rows, targets, training, self._seed))
        return networks

    def constructed(self, large: Sequence[TrainedHead], epsilon: float, weight_decay: float) -> list[TrainedHead]:
        """Construct a small network of every fold's large one, and retrain it."""
        networks = []
        for train, network in zip(self._folds.train, large, strict=True):
            rows, targets = self._rows[train], self._targets[train]
            small = construct(network, rows, epsilon, self._settings.measure).network
            training = self._settings.retraining(len(rows), weight_decay)
            networks.append(train_network(small, rows, targets, training, retrain_seed(self._seed)))
        return networks

    def point(self, networks: Sequence[TrainedHead], epsilon: float | None = None) -> SweepPoint:
        """Score one network per fold on the rows that it has not seen."""
        sums, counts = np.zeros(len(self._rows)), np.zeros(len(self._rows))
        for validation, network in zip(self._folds.validation, networks, strict=True):
            outputs = network.outputs(self._rows[validation])
            sums[validation] += row_scores(outputs, self._targets[validation], self._variance)
            counts[validation] += 1
        scored = counts > 0
        return SweepPoint(
            epsilon,
            float(np.mean([n_parameters(network) for network in networks])),
            tuple(np.mean([hidden_widths(network) for network in networks], axis=0).tolist()),
            sums[scored] / counts[scored],
        )

    def check_finite(self, networks: Sequence[TrainedHead]) -> None:
        """Refuse large networks that have diverged.

        Raises
        ------
        InputError
            A weight is not finite.
        """
        if not all(np.isfinite(weight).all() for network in networks for weight in network.weights):
            raise InputError(f"{self._name}: training diverged: use a smaller learning rate")


def sweep(features: FeatureSet, settings: ConstructionSettings, seed: int) -> Sweep:
    """Cross-validate the whole construction for every threshold, and choose one.

    In every fold a large network is trained, small ones are made of it for all thresholds, retrained, and scored
    on the rows that none of them has seen. Chosen is the smallest network (mean over the folds) whose score is at
    most ``settings.tolerance`` below the best, the large network's included. A single threshold is used as it is.

    Parameters
    ----------
    features
        The data; the test part is not looked at.
    settings
        How networks are trained, and what is tried.
    seed
        Seed of folds, start weights and row order.

    Raises
    ------
    InputError
        There are too few rows for the folds, or training diverges.
    """
    folds = CrossValidation(features, settings, seed)
    decays = DECAYS if settings.weight_decay is None else (settings.weight_decay,)
    tried = {decay: folds.large_networks(decay) for decay in decays}
    scores = {decay: folds.point(networks).score for decay, networks in tried.items()}
    # the strongest that is close to the best: it leaves fewest units that vary
    decay = max(decay for decay in decays if scores[decay] >= max(scores.values()) - settings.tolerance)
    networks = tried[decay]
    folds.check_finite(networks)
    large = folds.point(networks)
    points = tuple(
        folds.point(folds.constructed(networks, epsilon, decay), epsilon) for epsilon in settings.epsilons
    )
    chosen = smallest_close(
        [point.parameters for point in points],
        [point.score for point in points],
        settings.tolerance,
        at_least=large.score,
    )
    return Sweep(decay, scores, large, points, chosen)


def smallest_close(
    sizes: Sequence[float], scores: Sequence[float], tolerance: float, at_least: float = -np.inf
) -> int:
    """Number of the smallest network whose score is close to the best.

    Parameters
    ----------
    sizes, scores
        Of the networks, at least one.
    tolerance
        How far below the best score is close.
    at_least
        A score that the best one is no lower than. Where no network is close to it, the best one is taken.

    Returns
    -------
    int
        Of equally small ones that with the better score.
    """
    best = max(scores)
    limit = min(max(best, at_least) - tolerance, best)
    close = [number for number, score in enumerate(scores) if score >= limit]
    return min(close, key=lambda number: (sizes[number], -scores[number]))


def retrain_seed(seed: int) -> int:
    """Seed of the order of rows in retraining: another order than in training."""
    return fresh_seed(seed, 0x2E72)
