"""What ensembles of a front's members are worth on the test rows, beside single members and the dense head."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moevoprune.device import reproducible
from moevoprune.errors import InputError
from moevoprune.features import FeatureSet
from moevoprune.files import write_text
from moevoprune.fronts.ensembles import DEFAULT_HOW, WAYS, WINDOWS, Chosen, Pool, choose_from
from moevoprune.fronts.evolve import DIVERGED_TEST_SCORE
from moevoprune.fronts.front import Front
from moevoprune.fronts.ood_test import OodTest
from moevoprune.fronts.predictions import check_present
from moevoprune.heads.ensemble import HeadEnsemble, Voting, combine, head_is_sound
from moevoprune.heads.head import TrainedHead
from moevoprune.objectives.calibration import expected_calibration_error
from moevoprune.search.problem import DEFAULT_ODIN_EPSILON

__all__ = [
    "BEST_MEMBER",
    "CSV_FILE",
    "DENSE",
    "JSON_FILE",
    "KNEE_MEMBER",
    "WINDOWS_FILE",
    "EnsembleRow",
    "EnsembleStudy",
    "WindowResult",
    "load_study",
    "study_ensembles",
    "study_run",
    "window_study",
    "windows_csv",
]

Floats = npt.NDArray[np.float32]

CSV_FILE, WINDOWS_FILE, JSON_FILE = "ensembles.csv", "windows.csv", "ensembles.json"
BEST_MEMBER, KNEE_MEMBER, DENSE = "best member", "knee member", "dense head"

_FORMAT = 1
# weights of first layers stacked at a time, 16 MB
_MOST_WEIGHTS = 2**22


@dataclass(frozen=True)
class EnsembleRow:
    """One ensemble, or a single head beside them.

    Attributes
    ----------
    name
        Name of the way its members were chosen, or one of :data:`BEST_MEMBER` (by validation; of equals fewest
        bits), :data:`KNEE_MEMBER` and :data:`DENSE`.
    how
        The same in words.
    voting
        ``"soft"``, ``"hard"``, or None of a single head.
    members
        Number of members.
    union_features
        Features that they read together.
    union_fraction
        The same as a share of all features.
    parameters
        Non-zero weights, and biases, of the members.
    validation
        Accuracy, or R², on the validation rows, by the heads that were trained without a row's fold.
    test
        The same on the test rows, by the retrained heads.
    ece
        Expected calibration error on the test rows, 15 bins; None in regression.
    ood_auroc, ood_fpr95
        How well out-of-distribution rows are told from the test rows, by the weighted mean of the members'
        scores; None where there are no such rows, or an output is not finite.
    best_member
        Number of the member with the best validation accuracy among these; None of the dense head.
    best_member_test
        That member's accuracy, or R², on the test rows.
    numbers
        Numbers of the members in the front; none of the dense head.
    weights
        Weight of each, with a sum of 1.
    """

    name: str
    how: str
    voting: str | None
    members: int
    union_features: int
    union_fraction: float
    parameters: int
    validation: float
    test: float
    ece: float | None
    ood_auroc: float | None
    ood_fpr95: float | None
    best_member: int | None
    best_member_test: float | None
    numbers: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class WindowResult:
    """Members of one window of validation accuracy, on the test rows; MO-EvoPruneDeepTL's plot.

    Attributes
    ----------
    low, high
        Percentiles of the members' validation accuracies.
    members
        Number of members in the window.
    hard, soft
        Test accuracy of their majority vote, as in the papers, and of their mean probabilities. In regression the
        R² of their mean prediction, and NaN for the majority.
    best_member
        Largest test accuracy of a member of the window, as in the papers: chosen by the test rows, so no one could
        have picked it.
    best_by_validation
        Test accuracy of the member with the best validation accuracy.
    mean_member
        Mean test accuracy of the members.
    """

    low: int
    high: int
    members: int
    hard: float
    soft: float
    best_member: float
    best_by_validation: float
    mean_member: float


@dataclass(frozen=True)
class EnsembleStudy:
    """Ensembles of a front, scored on the test rows.

    Attributes
    ----------
    metric
        ``"accuracy"`` or ``"r2"``.
    n_features
        Features that there are.
    ood_score
        Name of the score behind the out-of-distribution columns; None where there are none.
    ensembles
        The ensembles, then the single heads.
    windows
        One entry per window of :data:`moevoprune.fronts.ensembles.WINDOWS`.
    """

    metric: str
    n_features: int
    ood_score: str | None
    ensembles: tuple[EnsembleRow, ...]
    windows: tuple[WindowResult, ...] = ()

    def row(self, name: str, voting: str | None = "soft") -> EnsembleRow:
        """Return an ensemble by its way and voting, or a single head by its name.

        Raises
        ------
        KeyError
            There is none.
        """
        for row in self.ensembles:
            if row.name == name and row.voting in (voting, None):
                return row
        raise KeyError(name)

    def headline(self) -> str:
        """One line on the default ensemble, beside its best member and the dense head."""
        ensemble, dense = self.row("default"), self.row(DENSE)
        metric = "accuracy" if self.metric == "accuracy" else "R²"
        return (
            f"an ensemble of {ensemble.members} members, {ensemble.union_features:,} of {self.n_features:,} "
            f"features together: test {metric} {_short(ensemble.test)}; its best member "
            f"{_short(ensemble.best_member_test)}, the dense head {_short(dense.test)}"
        )

    def to_rows(self) -> list[dict[str, Any]]:
        """One plain dictionary per ensemble; columns that none has a value in are left out."""
        rows = []
        for row in self.ensembles:
            plain = asdict(row)
            del plain["numbers"], plain["weights"]
            rows.append({_column(name, self.metric): value for name, value in plain.items()})
        optional = ("ece", "ood_auroc", "ood_fpr95")
        empty = [name for name in optional if all(row[name] is None for row in rows)]
        return [{name: value for name, value in row.items() if name not in empty} for row in rows]

    def to_csv(self) -> str:
        """Return :meth:`to_rows` as CSV text, numbers to six digits after the point."""
        return _csv(self.to_rows())

    def to_markdown(self) -> str:
        """Return the table for people: members, features, and scores on the test rows in per cent."""
        header, *cells = self._cells()
        rule = ["---", "---", *["---:"] * (len(header) - 2)]
        return "".join(f"| {' | '.join(line)} |\n" for line in (header, rule, *cells))

    def to_text(self) -> str:
        """Return the same table for a terminal."""
        cells = self._cells()
        widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
        lines = []
        for line in cells:
            padded = [
                cell.ljust(width) if column < 2 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ]
            lines.append("  ".join(padded).rstrip())
        return "\n".join(lines)

    def _cells(self) -> list[list[str]]:
        """Header and rows of the table for people."""
        classes, ood = self.metric != "r2", self.ood_score is not None
        scale = 100.0 if classes else 1.0
        header = ["ensemble", "voting", "members", "features", "parameters"]
        header += ["test accuracy %" if classes else "test R²", "its best member"]
        header += ["ECE %"] * classes + ["OoD AUROC %", "FPR95 %"] * ood
        table = [header]
        for row in self.ensembles:
            cells = [row.name, row.voting or "", f"{row.members}", f"{row.union_features}", f"{row.parameters}"]
            cells += [_cell(row.test, scale), _cell(row.best_member_test, scale)]
            cells += [_cell(row.ece, 100.0)] * classes
            cells += [_cell(row.ood_auroc, 100.0), _cell(row.ood_fpr95, 100.0)] * ood
            table.append(cells)
        return table

    def to_json(self) -> str:
        """Return everything as JSON text, which :func:`load_study` reads.

        An object with ``format`` (1), ``metric``, ``n_features``, ``ood_score``, ``ensembles`` and ``windows``.
        The last two are lists of objects with the attributes of :class:`EnsembleRow` and :class:`WindowResult`;
        null stands for what is not known.
        """
        return json.dumps(_plain({"format": _FORMAT, **asdict(self)}), indent=1, allow_nan=False) + "\n"

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``ensembles.csv``, ``windows.csv`` and ``ensembles.json`` into a folder, which must exist.

        Raises
        ------
        InputError
            A file cannot be written.
        """
        folder = Path(folder)
        contents = {
            CSV_FILE: self.to_csv(),
            WINDOWS_FILE: windows_csv(self.windows),
            JSON_FILE: self.to_json(),
        }
        for name, text in contents.items():
            write_text(folder / name, text)
        return [folder / name for name in contents]


def study_ensembles(
    front: Front,
    features: FeatureSet,
    more: Sequence[tuple[str, Chosen, Voting]] = (),
    odin_epsilon: float = DEFAULT_ODIN_EPSILON,
) -> EnsembleStudy:
    """Score every way to choose members, with its default options, on the test rows.

    The default way votes soft and hard, the others soft. Members are chosen by validation rows alone; the test
    rows are for scoring.

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
    return EnsembleStudy(*_study(_Scorer(front, features, odin_epsilon), more))


def window_study(front: Front, features: FeatureSet) -> tuple[WindowResult, ...]:
    """Let the members of every window of validation accuracy vote, and score them on the test rows.

    Parameters
    ----------
    front, features
        As in :func:`study_ensembles`.

    Returns
    -------
    tuple of WindowResult
        One per window of :data:`moevoprune.fronts.ensembles.WINDOWS`.

    Raises
    ------
    InputError
        As :func:`study_ensembles`.
    """
    return _windows(_Scorer(front, features))


def study_run(
    front: Front,
    features: FeatureSet,
    folder: str | Path,
    more: Sequence[tuple[str, Chosen, Voting]] = (),
    odin_epsilon: float = DEFAULT_ODIN_EPSILON,
) -> EnsembleStudy:
    """Study ensembles and windows, and write both into a run folder; see :meth:`EnsembleStudy.save`.

    Parameters
    ----------
    front, features, more, odin_epsilon
        As in :func:`study_ensembles`.
    folder
        Must exist.

    Raises
    ------
    InputError
        As :func:`study_ensembles`, or a file cannot be written.
    """
    scorer = _Scorer(front, features, odin_epsilon)
    study = EnsembleStudy(*_study(scorer, more), windows=_windows(scorer))
    study.save(folder)
    return study


def load_study(folder: str | Path) -> EnsembleStudy:
    """Read ``ensembles.json`` of a folder.

    Raises
    ------
    InputError
        The file is missing, cannot be read or is damaged.
    """
    from pydantic import TypeAdapter, ValidationError

    path = Path(folder) / JSON_FILE
    again = "write it again with moevoprune ensemble"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != _FORMAT:
            raise InputError(f"{path}: is of another format than this version reads: {again}")
        for window in content["windows"]:
            window.update({name: math.nan for name, value in window.items() if value is None})
        study: EnsembleStudy = TypeAdapter(EnsembleStudy).validate_python(content)
    except FileNotFoundError:
        raise InputError(f"{path}: not found: {again}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except InputError:
        raise
    except (ValidationError, ValueError, RecursionError, AttributeError, KeyError, TypeError):
        raise InputError(f"{path}: is damaged: {again}") from None
    return study


def windows_csv(windows: Sequence[WindowResult]) -> str:
    """Return windows as CSV text, numbers to six digits after the point; NaN is an empty cell."""
    return _csv([_plain(asdict(window)) for window in windows], [field.name for field in fields(WindowResult)])


class _Scorer:
    """Outputs of all members, and of the dense head as the last one, computed once."""

    def __init__(self, front: Front, features: FeatureSet, odin_epsilon: float = DEFAULT_ODIN_EPSILON) -> None:
        self.front, self.features = front, features
        self.pool = Pool.of(front)
        predicted = check_present(front.predictions)
        own = (features.task, features.n_features, features.class_names) == (
            predicted.task,
            front.dense_head.n_features,
            front.class_names,
        )
        if not own or not np.array_equal(features.y_test, predicted.test_targets):
            raise InputError(f"{features.name}: is other data than those that the front was evolved on")
        self.heads = (*front.heads, front.dense_head)
        self._validation = torch.from_numpy(predicted.validation_outputs)
        self._validation_targets = predicted.validation_targets
        self._test = torch.from_numpy(_outputs(self.heads, features.X_test))
        self.ood = OodTest.of_front(front, features, odin_epsilon)
        self._confidences: dict[int, tuple[Tensor, Tensor] | None] = {}
        self._quality = np.full(len(front), -np.inf)
        self._quality[self.pool.members] = self.pool.quality

    @property
    def dense(self) -> int:
        """Place of the dense head."""
        return len(self.front)

    def best_of(self, members: npt.NDArray[np.int64]) -> int:
        """Member with the best validation accuracy, of equals the one with fewest bits."""
        return int(members[np.argmax(self._quality[members])])

    def test_of(self, member: int) -> float:
        """Test accuracy or R² of one member."""
        return float(self.front.dense_test if member == self.dense else self.front.test[member])

    def vote(self, chosen: Chosen, voting: Voting, test: bool = True) -> npt.NDArray[np.float64]:
        """What an ensemble says of the test or validation rows, shape (rows, outputs)."""
        outputs = self._test if test else self._validation
        shares = torch.from_numpy(chosen.weights.astype(np.float32))[:, None, None]
        with reproducible(torch.device("cpu")):
            voted = combine(outputs[torch.from_numpy(chosen.members)], shares, voting, self.features.task)
        return voted.double().numpy()

    def score(self, voted: npt.NDArray[np.float64], test: bool = True) -> float:
        """Accuracy or R² of what an ensemble says."""
        targets = self.features.y_test if test else self._validation_targets
        if self.features.task == "classification":
            # a head that diverged is never right
            return float(np.mean((voted.argmax(axis=1) == targets) & np.isfinite(voted).all(axis=1)))
        from sklearn.metrics import r2_score

        worst = DIVERGED_TEST_SCORE["regression"]
        return max(float(r2_score(targets, voted)), worst) if np.isfinite(voted).all() else worst

    def ood_measures(self, chosen: Chosen) -> tuple[float | None, float | None]:
        """AUROC and FPR95 of the weighted mean of the members' scores."""
        if self.ood is None:
            return None, None
        inside, outside = torch.zeros(1), torch.zeros(1)
        for member, weight in zip(chosen.members.tolist(), chosen.weights.tolist(), strict=True):
            if member not in self._confidences:
                self._confidences[member] = self.ood.confidences(self.heads[member], self.ood.scores[0])
            confidences = self._confidences[member]
            if confidences is None:
                return None, None
            inside, outside = inside + weight * confidences[0], outside + weight * confidences[1]
        return self.ood.measure((inside, outside))


def _study(
    scorer: _Scorer, more: Sequence[tuple[str, Chosen, Voting]]
) -> tuple[str, int, str | None, tuple[EnsembleRow, ...]]:
    """Fields of a study but its windows."""
    front, classes = scorer.front, scorer.features.task == "classification"
    rows = [_row(scorer, name, chosen, voting) for name, chosen, voting in more]
    for how in WAYS:
        chosen = choose_from(scorer.pool, how)
        rows.append(_row(scorer, how, chosen, "soft"))
        if how == DEFAULT_HOW and classes:
            rows.append(_row(scorer, how, chosen, "hard"))
    singles = {
        BEST_MEMBER: (scorer.best_of(scorer.pool.members), "the member with the best validation score"),
        KNEE_MEMBER: (front.knee(), "the member nearest to the ideal point"),
        DENSE: (scorer.dense, "every bit active"),
    }
    rows += [
        _row(scorer, name, Chosen(np.array([member], np.int64), np.ones(1), how), None)
        for name, (member, how) in singles.items()
    ]
    ood_score = None if scorer.ood is None else scorer.ood.scores[0]
    return front.test_metric, scorer.features.n_features, ood_score, tuple(rows)


def _row(scorer: _Scorer, name: str, chosen: Chosen, voting: Voting | None) -> EnsembleRow:
    heads = [scorer.heads[member] for member in chosen.members]
    union = len(np.unique(np.concatenate([head.inputs for head in heads])))
    how: Voting = voting or "soft"
    voted = scorer.vote(chosen, how)
    dense = name == DENSE
    best = None if dense else scorer.best_of(chosen.members)
    calibrated = scorer.features.task == "classification" and bool(np.isfinite(voted).all())
    auroc, fpr95 = scorer.ood_measures(chosen)
    return EnsembleRow(
        name=name,
        how=chosen.how,
        voting=voting,
        members=len(heads),
        union_features=union,
        union_fraction=union / scorer.features.n_features,
        parameters=sum(head.n_parameters for head in heads),
        validation=scorer.score(scorer.vote(chosen, how, test=False), test=False),
        test=scorer.score(voted) if voting is not None else scorer.test_of(int(chosen.members[0])),
        ece=expected_calibration_error(_as_probabilities(voted), scorer.features.y_test) if calibrated else None,
        ood_auroc=auroc,
        ood_fpr95=fpr95,
        best_member=best,
        best_member_test=None if best is None else scorer.test_of(best),
        numbers=() if dense else tuple(chosen.members.tolist()),
        weights=() if dense else tuple(chosen.weights.tolist()),
    )


def _windows(scorer: _Scorer) -> tuple[WindowResult, ...]:
    results = []
    for low, high in WINDOWS:
        chosen = choose_from(scorer.pool, "window", low=low, high=high)
        of_members = scorer.front.test[chosen.members]
        regression = scorer.features.task == "regression"
        results.append(
            WindowResult(
                low=low,
                high=high,
                members=len(chosen.members),
                hard=math.nan if regression else scorer.score(scorer.vote(chosen, "hard")),
                soft=scorer.score(scorer.vote(chosen, "soft")),
                best_member=float(of_members.max()),
                best_by_validation=scorer.test_of(scorer.best_of(chosen.members)),
                mean_member=float(of_members.mean()),
            )
        )
    return tuple(results)


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


def _as_probabilities(voted: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Without the millionth by which a vote's winner is raised."""
    return np.minimum(voted, 1.0)


def _column(name: str, metric: str) -> str:
    """Name of a column in a table: what is measured is said there."""
    return {"validation": f"validation_{metric}", "test": f"test_{metric}"}.get(
        name, f"best_member_test_{metric}" if name == "best_member_test" else name
    )


def _csv(rows: Sequence[Mapping[str, Any]], header: Sequence[str] | None = None) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0] if header is None else header)
    for row in rows:
        writer.writerow([f"{value:.6f}" if isinstance(value, float) else value for value in row.values()])
    return text.getvalue()


def _cell(value: float | None, scale: float) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if scale == 1 else f"{scale * value:.1f}"


def _plain(value: Any) -> Any:
    """Plain values for JSON, which has no NaN and no infinity."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _short(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}".removeprefix("0")
