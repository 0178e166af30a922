"""What ensembles of a front's members are worth on the test rows, beside single members and the dense head."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moevoprune.device import reproducible
from moevoprune.errors import InputError
from moevoprune.features import FeatureSet
from moevoprune.fronts.ensemble_pool import Pool
from moevoprune.fronts.ensemble_tables import (
    BEST_MEMBER,
    DENSE,
    KNEE_MEMBER,
    EnsembleRow,
    EnsembleStudy,
    WindowResult,
)
from moevoprune.fronts.ensemble_ways import WINDOWS
from moevoprune.fronts.ensembles import DEFAULT_HOW, WAYS, Chosen, choose_from
from moevoprune.fronts.evolve import DIVERGED_TEST_SCORE
from moevoprune.fronts.front import Front
from moevoprune.fronts.ood_scoring import OodTest
from moevoprune.fronts.predictions import check_present
from moevoprune.heads.ensemble import HeadEnsemble, Voting, combine, head_is_sound
from moevoprune.heads.head import TrainedHead
from moevoprune.objectives import r2_score
from moevoprune.objectives.calibration import expected_calibration_error
from moevoprune.search.problem import DEFAULT_ODIN_EPSILON

__all__ = ["study_ensembles"]

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

# weights of first layers stacked at a time, 16 MB
_MOST_WEIGHTS = 2**22
# outputs of all heads held at a time, 32 MB; a vote needs some copies of them
_MOST_OUTPUTS = 2**23


def study_ensembles(
    front: Front,
    features: FeatureSet,
    more: Sequence[tuple[str, Chosen, Voting]] = (),
    odin_epsilon: float = DEFAULT_ODIN_EPSILON,
) -> EnsembleStudy:
    """Score every way to choose members, with its default options, and every window of accuracy on the test rows.

    The default way and the windows vote soft and hard, the others soft. Members are chosen by validation rows
    alone; the test rows are for scoring.

    Parameters
    ----------
    front
        With predictions.
    features
        The data it was evolved on.
    more
        Further ensembles, which come first: name, members, voting.
    odin_epsilon
        The run's step of ODIN's perturbation; only ODIN uses it. The out-of-distribution score is that of the
        front's first ``ood_auroc`` objective, without one the temperature-scaled softmax. An ensemble's score of a
        row is the weighted mean of its members'.

    Raises
    ------
    InputError
        The front has no predictions or no members that have not diverged, or the data are not its own.
    """
    pool = Pool.of(front)
    scorer = _Scorer(front, features, pool, odin_epsilon)
    ballots = [*(_Ballot(*asked) for asked in more), *_ways(pool), *_single_heads(scorer)]
    soft = [_Ballot("window", choose_from(pool, "window", low=low, high=high)) for low, high in WINDOWS]
    hard = [_Ballot("window", window.chosen, "hard") for window in soft]
    validation = scorer.validation(ballots)
    # all at once, so that the members' outputs are computed once
    test = scorer.test([*ballots, *soft, *hard])
    return EnsembleStudy(
        metric=front.test_metric,
        n_features=features.n_features,
        ood_score=None if scorer.ood is None else scorer.ood.scores[0],
        ensembles=tuple(_row(scorer, ballot, validation[ballot], test[ballot]) for ballot in ballots),
        windows=tuple(
            _window(scorer, window, mean.chosen, test[mean], test[majority])
            for window, mean, majority in zip(WINDOWS, soft, hard, strict=True)
        ),
    )


@dataclass(frozen=True, eq=False)
class _Ballot:
    """Who votes, and how; a single head has no voting. Each is itself alone, and so a key."""

    name: str
    chosen: Chosen
    voting: Voting | None = "soft"


@dataclass(frozen=True, eq=False)
class _Answers:
    """What voters say of some rows.

    ``values`` are class labels, -1 where an output is not finite, shape (rows,); or predicted targets, shape
    (rows, outputs). ``confidence`` is the probability, or share of votes, of each label, shape (rows,).
    """

    values: npt.NDArray[np.generic]
    confidence: Values


@dataclass(frozen=True)
class _Score:
    """Accuracy or R², and the expected calibration error where there is one."""

    quality: float
    ece: float | None


class _Scorer:
    """Lets heads of a front vote on its validation and test rows; the dense head is the last one."""

    def __init__(self, front: Front, features: FeatureSet, pool: Pool, odin_epsilon: float) -> None:
        self.front, self.features, self.pool = front, features, pool
        self.predicted = check_present(front.predictions)
        own = (features.task, features.n_features, features.class_names) == (
            self.predicted.task,
            front.dense_head.n_features,
            front.class_names,
        )
        if not own or not np.array_equal(features.y_test, self.predicted.test_targets):
            raise InputError(f"{features.name}: is other data than those that the front was evolved on")
        self.heads = (*front.heads, front.dense_head)
        self.ood = OodTest.of_front(front, features, odin_epsilon)
        self._confidences: dict[int, tuple[Tensor, Tensor] | None] = {}
        self._quality = np.full(len(front), -np.inf)
        self._quality[pool.members] = pool.quality

    @property
    def dense(self) -> int:
        """Place of the dense head."""
        return len(self.front)

    def best_of(self, members: Indices) -> int:
        """Member with the best validation accuracy, of equals the one with fewest bits."""
        return int(members[np.argmax(self._quality[members])])

    def test_of(self, member: int) -> float:
        """Test accuracy or R² of one member."""
        return float(self.front.dense_test if member == self.dense else self.front.test[member])

    def validation(self, ballots: Sequence[_Ballot]) -> dict[_Ballot, _Score]:
        """Score votes on the validation rows, by the heads that were trained without a row's fold."""
        outputs, targets = self.predicted.validation_outputs, self.predicted.validation_targets
        return self._scores(ballots, (outputs[:, rows] for rows in self._pieces(len(targets))), targets)

    def test(self, ballots: Sequence[_Ballot]) -> dict[_Ballot, _Score]:
        """Score votes on the test rows."""
        rows, targets = self.features.X_test, self.features.y_test
        return self._scores(
            ballots, (_outputs(self.heads, rows[piece]) for piece in self._pieces(len(rows))), targets
        )

    def ood_measures(self, chosen: Chosen) -> tuple[float | None, float | None]:
        """AUROC and FPR95 of the weighted mean of the members' scores."""
        if self.ood is None:
            return None, None
        inside, outside = torch.zeros(1), torch.zeros(1)
        for member, weight in zip(chosen.members.tolist(), chosen.weights.tolist(), strict=True):
            confidences = self._confidences_of(self.ood, member)
            if confidences is None:
                return None, None
            inside, outside = inside + weight * confidences[0], outside + weight * confidences[1]
        return self.ood.measure((inside, outside))

    def ood_of_members(self, members: Indices) -> Values | None:
        """AUROC of each member alone, shape (members,); None where there are no rows for it."""
        if self.ood is None:
            return None
        confidences = [self._confidences_of(self.ood, member) for member in members.tolist()]
        return np.array([self.ood.measure(known)[0] for known in confidences])

    def best_of_selection_ood(self, members: Indices) -> int | None:
        """Place among members of the one with the best AUROC in the search, of equals the one with fewest bits."""
        names = [name for name in self.front.objectives if name.partition(":")[0] == "ood_auroc"]
        return int(np.argmax(self.front.column(names[0])[members])) if names else None

    def _confidences_of(self, ood: OodTest, member: int) -> tuple[Tensor, Tensor] | None:
        if member not in self._confidences:
            self._confidences[member] = ood.confidences(self.heads[member], ood.scores[0])
        return self._confidences[member]

    def _pieces(self, n_rows: int) -> Iterator[slice]:
        """Rows, so many at a time that the outputs of all heads for them fit in memory."""
        step = max(_MOST_OUTPUTS // (len(self.heads) * self.heads[0].widths[-1]), 1)
        return (slice(start, start + step) for start in range(0, n_rows, step))

    def _scores(
        self, ballots: Sequence[_Ballot], pieces: Iterator[Floats], targets: npt.NDArray[np.generic]
    ) -> dict[_Ballot, _Score]:
        # the pieces outside: the outputs of a piece serve all ballots, and are held once
        answers = [[_vote(outputs, ballot, self.features.task) for ballot in ballots] for outputs in pieces]
        return {
            ballot: self._score(parts, targets)
            for ballot, parts in zip(ballots, zip(*answers, strict=True), strict=True)
        }

    def _score(self, parts: Sequence[_Answers], targets: npt.NDArray[np.generic]) -> _Score:
        values = np.concatenate([part.values for part in parts])
        if self.features.task == "regression":
            worst = DIVERGED_TEST_SCORE["regression"]
            known = bool(np.isfinite(values).all())
            r2 = r2_score(torch.from_numpy(values), torch.from_numpy(np.array(targets))).item() if known else worst
            return _Score(max(r2, worst), None)
        confidence = np.concatenate([part.confidence for part in parts])
        right = values == targets
        # the winner against all other classes: the calibration error looks at no more
        winner = np.stack([confidence, np.zeros_like(confidence)], axis=1)
        known = bool((values >= 0).all())
        ece = expected_calibration_error(winner, np.where(right, 0, 1)) if known else None
        return _Score(float(right.mean()), ece)


def _vote(outputs: Floats, ballot: _Ballot, task: Literal["classification", "regression"]) -> _Answers:
    """Let voters answer; ``outputs`` are those of all heads, shape (heads, rows, outputs)."""
    chosen = ballot.chosen
    own = torch.from_numpy(outputs[chosen.members])
    shares = torch.from_numpy(chosen.weights.astype(np.float32))[:, None, None]
    with reproducible(torch.device("cpu")):
        voted = combine(own, shares, ballot.voting or "soft", task).double().numpy()
        guesses = own.argmax(dim=-1).numpy() if ballot.voting == "hard" else None
    if task == "regression":
        return _Answers(voted, np.empty(0))
    finite = np.isfinite(voted).all(axis=1)
    labels = np.where(finite, voted.argmax(axis=1), -1)
    if guesses is None:
        return _Answers(labels, voted.max(axis=1))
    # shares of votes lie on the edges of the calibration error's bins, such as 10 votes of 15: neither combine's
    # millionth for the winner nor rounding may move them, so whole votes are counted as such
    weights = np.round(chosen.weights / chosen.weights.min(), 9)
    return _Answers(labels, weights @ (guesses == labels) / weights.sum())


def _ways(pool: Pool) -> list[_Ballot]:
    """Every way to choose members, with its default options."""
    ballots = []
    for how in WAYS:
        chosen = choose_from(pool, how)
        ballots.append(_Ballot(how, chosen))
        if how == DEFAULT_HOW and pool.task == "classification":
            ballots.append(_Ballot(how, chosen, "hard"))
    return ballots


def _single_heads(scorer: _Scorer) -> list[_Ballot]:
    """The best member, the knee and the dense head."""
    singles = {
        BEST_MEMBER: (scorer.best_of(scorer.pool.members), "the member with the best validation score"),
        KNEE_MEMBER: (scorer.front.knee(), "the member nearest to the ideal point"),
        DENSE: (scorer.dense, "every bit active"),
    }
    return [
        _Ballot(name, Chosen(np.array([member], np.int64), np.ones(1), how), None)
        for name, (member, how) in singles.items()
    ]


def _row(scorer: _Scorer, ballot: _Ballot, validation: _Score, test: _Score) -> EnsembleRow:
    chosen = ballot.chosen
    heads = [scorer.heads[member] for member in chosen.members]
    union = len(np.unique(np.concatenate([head.inputs for head in heads])))
    dense = ballot.name == DENSE
    best = None if dense else scorer.best_of(chosen.members)
    auroc, fpr95 = scorer.ood_measures(chosen)
    return EnsembleRow(
        name=ballot.name,
        how=chosen.how,
        voting=ballot.voting,
        members=len(heads),
        union_features=union,
        union_fraction=union / scorer.features.n_features,
        parameters=sum(head.n_parameters for head in heads),
        validation=validation.quality,
        # a single head's is that of the front
        test=scorer.test_of(int(chosen.members[0])) if ballot.voting is None else test.quality,
        ece=test.ece,
        ood_auroc=auroc,
        ood_fpr95=fpr95,
        best_member=best,
        best_member_test=None if best is None else scorer.test_of(best),
        numbers=() if dense else tuple(chosen.members.tolist()),
        weights=() if dense else tuple(chosen.weights.tolist()),
    )


def _window(scorer: _Scorer, window: tuple[int, int], chosen: Chosen, soft: _Score, hard: _Score) -> WindowResult:
    members = chosen.members
    of_members = scorer.front.test[members]
    return WindowResult(
        low=window[0],
        high=window[1],
        members=len(members),
        # numbers have no majority
        hard=math.nan if scorer.features.task == "regression" else hard.quality,
        soft=soft.quality,
        best_member=float(of_members.max()),
        best_by_validation=scorer.test_of(scorer.best_of(members)),
        mean_member=float(of_members.mean()),
        **_window_ood(scorer, chosen),
    )


def _window_ood(scorer: _Scorer, chosen: Chosen) -> dict[str, float]:
    """Columns of a window on out-of-distribution rows; none where there are no such rows."""
    ensemble, _ = scorer.ood_measures(chosen)
    of_members = scorer.ood_of_members(chosen.members)
    if ensemble is None or of_members is None:
        return {}
    picked = scorer.best_of_selection_ood(chosen.members)
    return {
        "ood_auroc": ensemble,
        "ood_best_member": float(of_members.max()),
        "ood_best_by_selection": math.nan if picked is None else float(of_members[picked]),
        "ood_mean_member": float(of_members.mean()),
    }


def _outputs(heads: Sequence[TrainedHead], rows: Floats) -> Floats:
    """Outputs of every head for some rows, shape (heads, rows, outputs); NaN of those that have diverged."""
    outputs = np.full((len(heads), len(rows), heads[0].widths[-1]), np.nan, dtype=np.float32)
    sound = [number for number, head in enumerate(heads) if head_is_sound(head)]
    # heads of like size, which are neighbours in a front, read a small union: fewer zeros are multiplied
    step = max(_MOST_WEIGHTS // (heads[0].n_features * max(head.widths[1] for head in heads)), 1)
    for start in range(0, len(sound), step):
        part = sound[start : start + step]
        stack = HeadEnsemble([heads[number] for number in part])
        outputs[part] = stack.predict_members(rows)
    return outputs
