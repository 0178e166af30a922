"""How accuracy falls as features or images are disturbed more and more: members, the dense head, ensembles."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError, printable, whole_number
from moevoprune.features.corruptions import MAX_SEVERITY, corrupt, resolve_corruptions
from moevoprune.features.feature_set import FeatureSet
from moevoprune.features.folds import training_part
from moevoprune.files import read_text
from moevoprune.fronts.evolve import DIVERGED_TEST_SCORE
from moevoprune.fronts.explanation import quality_objective
from moevoprune.fronts.front import Front
from moevoprune.fronts.run_folder import ROBUSTNESS
from moevoprune.fronts.tables import csv_rows, csv_text
from moevoprune.heads.ensemble import HeadEnsemble
from moevoprune.heads.head import TrainedHead
from moevoprune.heads.scaling import Scaling

if TYPE_CHECKING:
    from PIL.Image import Image

    from moevoprune.features.backbones import Backbone

__all__ = [
    "DROPOUT_SHARES",
    "FEATURE_DROPOUT",
    "FEATURE_NOISE",
    "NOISE_SEVERITIES",
    "Predictor",
    "RobustnessCurve",
    "feature_dropout",
    "feature_noise",
    "from_csv",
    "image_corruptions",
    "load_robustness",
    "predictors_of",
    "to_csv",
]

Array = npt.NDArray[Any]
Values = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

FEATURE_NOISE, FEATURE_DROPOUT = "feature_noise", "feature_dropout"
NOISE_SEVERITIES = (0.0, 0.25, 0.5, 1.0, 2.0)
DROPOUT_SHARES = (0.0, 0.1, 0.25, 0.5, 0.75)

_COLUMNS = ("name", "kind", "severity", "accuracy", "error")
_BATCH = 16
_ROWS_AT_ONCE = 8192


class Predictor(Protocol):
    """What predicts from features: a :class:`TrainedHead`, an ensemble, or anything else with this method."""

    def predict(self, features: npt.NDArray[np.floating]) -> npt.NDArray[np.generic]:
        """Class labels, shape (rows,), or predicted targets, shape (rows, outputs)."""


@dataclass(frozen=True)
class RobustnessCurve:
    """Accuracy of one predictor under one kind of disturbance.

    Attributes
    ----------
    name
        The predictor: ``"knee"``, ``"best"``, ``"dense"``, ``"ensemble"``, ``"member 7"``, ...
    kind
        ``"feature_noise"``, ``"feature_dropout"``, or a name of
        :data:`moevoprune.features.corruptions.CORRUPTIONS`.
    severities
        Strengths of the disturbance, rising; 0 for none. Of feature noise: its standard deviation in training
        standard deviations of each feature. Of dropout: the share of the features. Of corruptions: 1 to 5.
    accuracy
        On the disturbed test rows, 0 to 1, one per severity; in regression R², 1 and below.
    error
        Standard error of that, with respect to the choice of test rows.
    """

    name: str
    kind: str
    severities: tuple[float, ...]
    accuracy: tuple[float, ...]
    error: tuple[float, ...]


def predictors_of(front: Front, members: Sequence[int] = ()) -> dict[str, Predictor]:
    """Heads of a front that are worth comparing, by name.

    Parameters
    ----------
    front
        With at least one member.
    members
        Numbers of further members.

    Returns
    -------
    dict
        ``"knee"``, ``"best"`` (best quality on the folds), ``"member N"`` for each further member, ``"dense"``,
        and ``"ensemble"``, the front's default ensemble, where it can be chosen.

    Raises
    ------
    InputError
        The front has no members.
    """
    predictors: dict[str, Predictor] = {
        "knee": front.heads[front.knee()],
        "best": front.heads[front.best(quality_objective(front))],
        **{f"member {member}": front.heads[member] for member in members},
        "dense": front.dense_head,
    }
    # older runs have no validation predictions to choose by
    with suppress(InputError):
        predictors["ensemble"] = front.ensemble()
    return predictors


def feature_noise(
    predictors: Front | Mapping[str, Predictor],
    features: FeatureSet,
    severities: Sequence[float] = NOISE_SEVERITIES,
    seed: int = 0,
    repeats: int = 5,
) -> list[RobustnessCurve]:
    """Measure accuracy on test rows with Gaussian noise on their features.

    As in the objective ``cka:noise``, noise of severity s has s times the standard deviation that each feature has
    over the training part. All predictors are given the same noise, and all severities multiples of it.

    Parameters
    ----------
    predictors
        A front (see :func:`predictors_of`), or predictors by name.
    features
        Training part, for the deviations, and test rows.
    severities
        Standard deviations of the noise, at least one, finite, 0 or larger.
    seed
        Seed of the noise, 0 or larger.
    repeats
        How often noise is drawn, at least 1; results are means over the draws.

    Returns
    -------
    list of RobustnessCurve
        One per predictor; severities rise, each of them once. Rows for which a head gives no finite number count
        as wrong; in regression it then has the R² of a diverged head.

    Raises
    ------
    InputError
        An argument is out of range, or the features are not those that a head reads.
    """
    steps = _check_severities(severities)
    spread = Scaling.fit(*training_part(features), standardise=True).scale

    def disturb(clean: Floats, generator: np.random.Generator) -> Callable[[float], Floats]:
        noise = generator.standard_normal(clean.shape, dtype=np.float32) * spread

        def disturbed(step: float) -> Floats:
            # what is too large for float32 becomes infinite, and heads give no finite number for it
            with np.errstate(over="ignore"):
                return np.asarray(clean + np.float32(step) * noise, dtype=np.float32)

        return disturbed

    return _curves(FEATURE_NOISE, predictors, features, steps, disturb, seed, repeats)


def feature_dropout(
    predictors: Front | Mapping[str, Predictor],
    features: FeatureSet,
    shares: Sequence[float] = DROPOUT_SHARES,
    seed: int = 0,
    repeats: int = 5,
) -> list[RobustnessCurve]:
    """Measure accuracy on test rows of which some features are lost.

    Of every row each feature is lost by chance, independently of the others; it then has its mean over the
    training part. All predictors lack the same features, and what a row lacks it lacks at all larger shares too.

    Parameters
    ----------
    predictors
        A front (see :func:`predictors_of`), or predictors by name.
    features
        Training part, for the means, and test rows.
    shares
        Chances of a feature to be lost, at least one, in [0, 1].
    seed
        Seed of the losses, 0 or larger.
    repeats
        How often they are drawn, at least 1; results are means over the draws.

    Returns
    -------
    list of RobustnessCurve
        As of :func:`feature_noise`; severities are the shares.

    Raises
    ------
    InputError
        An argument is out of range, or the features are not those that a head reads.
    """
    steps = _check_severities(shares, most=1.0)
    mean = Scaling.fit(*training_part(features), standardise=True).mean

    def disturb(clean: Floats, generator: np.random.Generator) -> Callable[[float], Floats]:
        # in [0, 1): a share of 1 takes all
        chance = generator.random(clean.shape, dtype=np.float32)
        return lambda step: np.where(chance < np.float32(step), mean, clean)

    return _curves(FEATURE_DROPOUT, predictors, features, steps, disturb, seed, repeats)


def image_corruptions(
    predictors: Front | Mapping[str, Predictor],
    backbone: Backbone,
    images: Sequence[Image],
    labels: npt.ArrayLike,
    corruptions: Sequence[str] | None = None,
    severities: Sequence[int] = (1, 2, 3, 4, 5),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[RobustnessCurve]:
    """Measure accuracy on corrupted images.

    As ImageNet-C, what the network sees is corrupted: the image is resized and cropped before, and normalised
    afterwards. Each corrupted image goes through the backbone once, for all predictors.

    Parameters
    ----------
    predictors
        A front (see :func:`predictors_of`), or predictors by name.
    backbone
        The network that their features come from.
    images
        Images as its ``preprocessing.cropped`` gives them; at least one.
    labels
        Their classes, shape (n,).
    corruptions
        Names out of :data:`moevoprune.features.corruptions.CORRUPTIONS`; None for all.
    severities
        Out of 1 to 5; 0, the images as they are, is always added.
    seed
        Seed of all that is random, 0 or larger; the numbers drawn for an image depend on it and the image's place.
    progress
        Called with the number of images that went through the network, and how many there are in all.

    Returns
    -------
    list of RobustnessCurve
        One per corruption and predictor, in this order.

    Raises
    ------
    InputError
        An argument is out of range, or the features are not those that a head reads.
    """
    import torch

    if isinstance(predictors, Front):
        predictors = predictors_of(predictors)
    kinds = resolve_corruptions(corruptions)
    steps = sorted({0, *(whole_number("severity", step, 0, MAX_SEVERITY) for step in severities)})
    whole_number("seed", seed, 0)
    truth = np.asarray(labels, dtype=np.int64)
    if len(images) == 0 or truth.shape != (len(images),):
        raise InputError(f"{len(images)} images and labels of shape {truth.shape}: give one label for each image")
    total, done = len(images) * (1 + len(kinds) * (len(steps) - 1)), 0

    def measure(kind: str, step: int) -> dict[str, _Tally]:
        nonlocal done
        rows = []
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            # the same numbers at every severity: what differs is its strength
            corrupted = [
                corrupt(image, kind, step, np.random.default_rng([seed, 0xC022, start + offset]))
                for offset, image in enumerate(batch)
            ]
            pixels = torch.stack([backbone.preprocessing.normalised(image) for image in corrupted])
            rows.append(backbone.features(pixels).cpu().numpy())
            done += len(batch)
            if progress is not None:
                progress(done, total)
        features = np.concatenate(rows)
        return {
            name: _Tally("classification", truth).add(_predict(predictor, features))
            for name, predictor in predictors.items()
        }

    clean = measure(kinds[0], 0)
    curves = []
    for kind in kinds:
        by_step = [clean, *(measure(kind, step) for step in steps[1:])]
        curves += [_curve(name, kind, steps, [tallies[name] for tallies in by_step]) for name in predictors]
    return curves


def to_csv(curves: Sequence[RobustnessCurve]) -> str:
    """Return curves as CSV text: ``name,kind,severity,accuracy,error``, numbers to six digits after the point."""
    rows = (
        (curve.name, curve.kind, f"{severity:g}", accuracy, error)
        for curve in curves
        for severity, accuracy, error in zip(curve.severities, curve.accuracy, curve.error, strict=True)
    )
    return csv_text(_COLUMNS, rows)


def from_csv(text: str, where: str = ROBUSTNESS) -> list[RobustnessCurve]:
    """Read what :func:`to_csv` wrote.

    Parameters
    ----------
    text
        The text.
    where
        What to call it in a message.

    Raises
    ------
    InputError
        It is something else.
    """
    points: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    try:
        rows = csv_rows(text)
        if not rows or tuple(rows[0]) != _COLUMNS:
            raise ValueError("another table")
        for name, kind, *numbers in rows[1:]:
            severity, accuracy, error = (float(number) for number in numbers)
            if not all(math.isfinite(number) for number in (severity, accuracy, error)):
                raise ValueError("not finite")
            points.setdefault((name, kind), []).append((severity, accuracy, error))
    except ValueError:
        raise InputError(
            f"{printable(where)}: is no table of robustness, or is damaged: write it again with moevoprune "
            "robustness"
        ) from None
    return [RobustnessCurve(*key, *zip(*sorted(of_curve), strict=True)) for key, of_curve in points.items()]


def load_robustness(folder: str | Path) -> list[RobustnessCurve] | None:
    """Read the ``robustness.csv`` of a run folder; None where there is none.

    Raises
    ------
    InputError
        The file cannot be read, or is damaged.
    """
    path = Path(folder) / ROBUSTNESS
    try:
        text = read_text(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is damaged: it is no text in UTF-8") from None
    return from_csv(text, str(path))


def _curves(
    kind: str,
    predictors: Front | Mapping[str, Predictor],
    features: FeatureSet,
    steps: Sequence[float],
    disturb: Callable[[Floats, np.random.Generator], Callable[[float], Floats]],
    seed: int,
    repeats: int,
) -> list[RobustnessCurve]:
    """Score predictors on disturbed test rows; ``disturb`` draws, and returns the rows at each strength."""
    if isinstance(predictors, Front):
        predictors = predictors_of(predictors)
    whole_number("seed", seed, 0)
    whole_number("repeats", repeats, 1)
    tallies = {name: [_Tally(features.task, features.y_test) for _ in steps] for name in predictors}
    for repeat in range(repeats):
        generator = np.random.default_rng([seed, 0x9015, repeat])
        guesses: dict[tuple[str, int], list[Array]] = {
            (name, n): [] for name in predictors for n in range(len(steps))
        }
        # some rows at a time: test rows may be on disk, and as many as there is no memory for
        for start in range(0, features.n_test, _ROWS_AT_ONCE):
            disturbed = disturb(features.X_test[start : start + _ROWS_AT_ONCE], generator)
            for number, step in enumerate(steps):
                rows = disturbed(step)
                for name, predictor in predictors.items():
                    guesses[name, number].append(_predict(predictor, rows))
        for (name, number), parts in guesses.items():
            tallies[name][number].add(np.concatenate(parts))
    return [_curve(name, kind, steps, tally) for name, tally in tallies.items()]


class _Tally:
    """Predictions for the same rows, gathered over several draws of the disturbance."""

    def __init__(self, task: str, truth: Array) -> None:
        self._task = task
        self._truth = truth
        # classification: right or wrong; regression: squared errors
        self._sum: Values = np.zeros(truth.shape)
        self._draws = 0
        self._finite = True

    def add(self, predicted: Array) -> _Tally:
        if self._task == "classification":
            self._sum += predicted == self._truth
        elif np.isfinite(predicted).all():
            self._sum += np.square(predicted.astype(np.float64) - self._truth)
        else:
            self._finite = False
        self._draws += 1
        return self

    def result(self) -> tuple[float, float]:
        """Accuracy or R², and its standard error over the rows."""
        mean = self._sum / self._draws
        if self._task == "classification":
            # of one draw this is the binomial standard error
            return float(mean.mean()), float(mean.std() / math.sqrt(len(mean)))
        if not self._finite:
            return DIVERGED_TEST_SCORE["regression"], 0.0
        spread = np.square(self._truth - self._truth.mean(axis=0, dtype=np.float64))
        varies = spread.mean(axis=0) > 0
        variance = np.where(varies, spread.mean(axis=0), 1.0)
        # as scikit-learn: a constant target is explained in full or not at all
        unexplained = np.where(varies, mean.mean(axis=0) / variance, mean.mean(axis=0) > 0)
        # delta method: how much each row pulls at R²
        pull = ((mean - unexplained * spread) / variance)[:, varies].sum(axis=1) / len(varies)
        r2 = max(1.0 - float(unexplained.mean()), DIVERGED_TEST_SCORE["regression"])
        return r2, float(pull.std() / math.sqrt(len(pull)))


def _predict(predictor: Predictor, rows: npt.NDArray[np.float32]) -> Array:
    """Predictions, -1 for the class where outputs are not finite."""
    if isinstance(predictor, TrainedHead | HeadEnsemble) and predictor.task == "classification":
        outputs = predictor.outputs(rows) if isinstance(predictor, TrainedHead) else predictor.predict_proba(rows)
        return np.where(np.isfinite(outputs).all(axis=1), outputs.argmax(axis=1), -1)
    return np.asarray(predictor.predict(rows))


def _curve(name: str, kind: str, severities: Sequence[float], tallies: Sequence[_Tally]) -> RobustnessCurve:
    accuracy, error = zip(*(tally.result() for tally in tallies), strict=True)
    return RobustnessCurve(name, kind, tuple(float(step) for step in severities), accuracy, error)


def _check_severities(severities: Sequence[float], most: float = math.inf) -> list[float]:
    steps = sorted({float(step) for step in severities})
    if not steps or not all(math.isfinite(step) and 0 <= step <= most for step in steps):
        what, allowed = ("severities of the noise", "0 or more")
        if most < math.inf:
            what, allowed = "shares of lost features", f"0 to {most:g}"
        raise InputError(
            f"{what} are {', '.join(f'{step:g}' for step in severities) or 'none'}: give numbers of {allowed}"
        )
    return steps
