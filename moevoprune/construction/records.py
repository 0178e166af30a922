"""What is kept of a comparison so that studies over many seeds can go on: its numbers, in a file of their own."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from moevoprune.construction.building import Built, refine
from moevoprune.construction.comparison import Comparison, MethodScore, compare_methods
from moevoprune.construction.network import hidden_widths, n_parameters
from moevoprune.construction.scoring import score_on_test
from moevoprune.construction.settings import ConstructionSettings
from moevoprune.construction.tables import TEST_SHARE, Table, split_table
from moevoprune.errors import InputError, printable
from moevoprune.features import FeatureSet
from moevoprune.files import read_text, write_text
from moevoprune.fronts.plots.style import make_folder

__all__ = ["BEST_SCORING", "ComparisonRecord", "ComparisonTask", "carry_out"]

BEST_SCORING = "best_scoring"
"""Method: as ``"refined"``, with the threshold that scores best in cross-validation, whatever the size."""

_FORMAT = 1


@dataclass(frozen=True)
class ComparisonRecord:
    """One data set with one seed, in numbers.

    Attributes
    ----------
    metric
        ``"accuracy"`` or ``"r2"``.
    epsilon, best_epsilon
        The threshold of the small network that was chosen, and that which scores best in cross-validation.
    scores
        Those of :func:`~moevoprune.construction.comparison.compare_methods`, and :data:`BEST_SCORING`.
    """

    metric: str
    epsilon: float
    best_epsilon: float
    scores: tuple[MethodScore, ...]

    def __getitem__(self, method: str) -> MethodScore:
        """Look up a method's score; KeyError where it was left out."""
        return {score.method: score for score in self.scores}[method]

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods that were carried out."""
        return tuple(score.method for score in self.scores)

    def gone(self, method: str) -> float:
        """Share of the large network's parameters that a method's network lacks."""
        return 1.0 - self[method].parameters / self["large"].parameters

    def save(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        write_text(path, json.dumps({"format": _FORMAT, **asdict(self)}, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> ComparisonRecord:
        """Read what :meth:`save` wrote.

        Raises
        ------
        InputError
            The file is missing or damaged.
        """
        try:
            stored = json.loads(read_text(path))
            scores = tuple(_score(one) for one in stored["scores"])
            epsilons = float(stored["epsilon"]), float(stored["best_epsilon"])
            numbers = [*epsilons, *(score.test for score in scores)]
            methods = {score.method for score in scores}
            whole = (
                stored["format"] == _FORMAT
                and stored["metric"] in ("accuracy", "r2")
                and all(map(math.isfinite, numbers))
                and {"large", "refined", BEST_SCORING} <= methods
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            whole = False
        if not whole:
            raise InputError(f"{printable(str(path))}: is missing or damaged")
        return cls(stored["metric"], *epsilons, scores)


@dataclass(frozen=True, eq=False)
class ComparisonTask:
    """One data set with one seed to be compared, and where its record goes.

    Parameters
    ----------
    name
        Of the data set, fit for a file name.
    data
        Rows; those that come without a test part are split by the seed.
    settings
        How networks are constructed.
    seed
        Seed of everything random, the split included.
    budget
        Evaluations of the evolutionary search; 0 leaves it out.
    folder
        Where records are kept.
    """

    name: str
    data: Table | FeatureSet
    settings: ConstructionSettings
    seed: int
    budget: int
    folder: Path

    @property
    def features(self) -> FeatureSet:
        """The data with their test part."""
        return split_table(self.data, self.seed, TEST_SHARE)

    @property
    def path(self) -> Path:
        """File of the record; another one with other data or settings."""
        depends_on = (
            self.features.content_hash,
            self.settings.model_dump_json(),
            self.seed,
            self.budget,
            version("moevoprune"),
        )
        digest = hashlib.sha256(repr(depends_on).encode()).hexdigest()[:12]
        return self.folder / f"{self.name}-seed{self.seed}-{digest}.json"

    def stored(self) -> ComparisonRecord | None:
        """The record of an earlier call; None where there is none, or a damaged one."""
        try:
            return ComparisonRecord.load(self.path)
        except InputError:
            return None


def carry_out(task: ComparisonTask) -> ComparisonRecord:
    """Take the record of a task from its file, or do the work and write it.

    Raises
    ------
    InputError
        As :func:`~moevoprune.construction.comparison.compare_methods`, or the file cannot be written.
    """
    stored = task.stored()
    if stored is not None:
        return stored
    features = task.features
    comparison = compare_methods(features, task.settings, task.seed, task.budget)
    record = ComparisonRecord(
        comparison.metric,
        comparison.built.sweep.epsilon,
        comparison.built.sweep.best_epsilon,
        (*comparison.scores, _best_scoring(comparison, features, task.settings)),
    )
    make_folder(task.folder)
    record.save(task.path)
    return record


def _best_scoring(comparison: Comparison, features: FeatureSet, settings: ConstructionSettings) -> MethodScore:
    built: Built = comparison.built
    epsilon = built.sweep.best_epsilon
    if epsilon == built.sweep.epsilon:
        network = built.refined
    else:
        _, network = refine(features, built.large, epsilon, settings, built.sweep.weight_decay, comparison.seed)
    test = score_on_test(network.outputs(features.X_test), features)
    return MethodScore(BEST_SCORING, hidden_widths(network), n_parameters(network), test)


def _score(stored: dict[str, Any]) -> MethodScore:
    widths = tuple(int(width) for width in stored["widths"])
    return MethodScore(str(stored["method"]), widths, int(stored["parameters"]), float(stored["test"]))
