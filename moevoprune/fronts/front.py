"""A Pareto front of trained heads: a plain value to look at, pick from, save and load."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError, nearest, words_of
from moevoprune.features.free_memory import check_whole_file
from moevoprune.features.npz_files import read_arrays
from moevoprune.files import atomic_path, make_folder, ordered_safetensors, write_text
from moevoprune.fronts.predictions import Predictions
from moevoprune.fronts.run_folder import FRONT, FRONT_CSV, HEADS, PREDICTIONS
from moevoprune.fronts.tables import csv_text
from moevoprune.heads.head import TrainedHead
from moevoprune.search.archive import hypervolume, knee, non_dominated

if TYPE_CHECKING:
    from moevoprune.heads.ensemble import HeadEnsemble, Voting

__all__ = ["Axis", "Front"]

Bits = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]

_FORMAT = 1
_TEST, _DENSE_TEST = "test_", "dense_test_"
# "test_metric" is an entry of its own in the file
_RESERVED = frozenset({"metric"})


@dataclass(frozen=True)
class Axis:
    """One objective of a front.

    Attributes
    ----------
    name
        Name of the objective.
    maximise
        Whether larger is better.
    """

    name: str
    maximise: bool


@dataclass(frozen=True, eq=False)
class Front:
    """Non-dominated heads, fewest active bits first, with the dense head beside them.

    Attributes
    ----------
    axes
        The objectives.
    encoding
        Name of the encoding.
    masks
        Bits of the members, shape (members, n_bits).
    active
        Active bits of each member, shape (members,).
    values
        Objective values in natural direction, measured on folds of the training part, shape (members, n_obj).
    F
        The same, minimised, as pymoo has them.
    ideal, corner
        Best and worst losses, the box of the hypervolume, shape (n_obj,).
    heads
        The members' heads, retrained on the whole training part.
    test_metric
        ``"accuracy"`` or ``"r2"``.
    test
        That metric on the test rows, shape (members,).
    dense_values, dense_test, dense_head
        The same for the head with every bit active, shape (n_obj,).
    history
        Per generation: arrays of shape (generations,), e.g. ``evaluations``, ``hypervolume``, ``best``.
    class_names
        Names of the classes; empty in regression.
    test_columns
        Further measures of the retrained heads on rows held back for the test, by name, each of shape (members,).
        With out-of-distribution rows: ``"ood_auroc"`` and ``"ood_fpr95"``, see
        :func:`moevoprune.fronts.evolve.declare_front`.
    dense_test_columns
        The same of the dense head, by the same names.
    predictions
        What the members predict for validation and test rows; what ensembles are chosen by. None where that is not
        known.
    """

    axes: tuple[Axis, ...]
    encoding: str
    masks: Bits
    active: npt.NDArray[np.int64]
    values: Values
    F: Values
    ideal: Values
    corner: Values
    heads: tuple[TrainedHead, ...]
    test_metric: str
    test: Values
    dense_values: Values
    dense_test: float
    dense_head: TrainedHead
    history: Mapping[str, Values]
    class_names: tuple[str, ...] = ()
    test_columns: Mapping[str, Values] = field(default_factory=dict)
    dense_test_columns: Mapping[str, float] = field(default_factory=dict)
    predictions: Predictions | None = None

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def n_bits(self) -> int:
        """Length of a mask."""
        return int(self.masks.shape[1])

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of the objectives."""
        return tuple(axis.name for axis in self.axes)

    def column(self, objective: str) -> Values:
        """Values of one objective, natural direction, shape (members,).

        Raises
        ------
        InputError
            The front has no such objective.
        """
        return self.values[:, self._index(objective)]

    def test_scores(self) -> Values:
        """Accuracy (or R²) of the retrained heads on the test rows, shape (members,)."""
        return self.test

    def best(self, objective: str) -> int:
        """Member with the best value of an objective; of equals the one with fewest active bits.

        Raises
        ------
        InputError
            The front has no such objective, or no members.
        """
        self._check_not_empty()
        return int(np.argmin(self.F[:, self._index(objective)]))

    def knee(self) -> int:
        """Member nearest to the ideal point.

        The losses are scaled to [0, 1] over the front and their sum (the normalised Manhattan distance of
        DeepPruningES, arXiv 1912.11527) is smallest at the knee. An objective that is the same for all members
        does not count; of equals the member with fewest active bits is taken.

        Raises
        ------
        InputError
            The front has no members.
        """
        self._check_not_empty()
        return knee(self.F)

    def ensemble(self, how: str = "default", voting: Voting = "soft", **options: Any) -> HeadEnsemble:
        """Let members vote, chosen by their predictions for validation rows alone.

        Parameters
        ----------
        how
            A way to choose them: ``"default"``, ``"all"``, ``"window"``, ``"knee"``, ``"greedy"``, ``"diverse"``
            or ``"union"``; see :func:`moevoprune.fronts.ensembles.choose_members`.
        voting
            ``"soft"`` (mean probabilities, or predictions) or ``"hard"`` (majority).
        options
            Options of that way.

        Raises
        ------
        InputError
            There is no such way, option or voting, or the front has no validation predictions.
        """
        from moevoprune.fronts.ensembles import make_ensemble

        return make_ensemble(self, how, voting, **options)

    def hypervolume(self) -> float:
        """Share of the box between ideal and corner that the front dominates, on validation values."""
        return hypervolume(self.F, self.corner) / float(np.prod(self.corner - self.ideal))

    def correlations(self) -> Values:
        """Spearman's rank correlations of the objectives over the members, natural direction.

        Near 1 or -1, two objectives repeat each other: a front in both tells little more than one in either.

        Returns
        -------
        ndarray, shape (n_obj, n_obj)
            NaN where an objective is the same for all members, or there are fewer than 2.
        """
        from scipy.stats import rankdata

        if len(self) < 2:
            return np.full((len(self.axes),) * 2, np.nan)
        ranks = rankdata(self.values, axis=0)
        centred = ranks - ranks.mean(axis=0)
        covariance = centred.T @ centred
        deviation = np.sqrt(np.diag(covariance))
        scale = np.outer(deviation, deviation)
        correlations: Values = np.divide(covariance, scale, out=np.full_like(covariance, np.nan), where=scale > 0)
        return correlations

    def correlated_pairs(self) -> list[tuple[str, str, float]]:
        """Every pair of objectives, by name, with its rank correlation over the members."""
        matrix = self.correlations()
        return [
            (self.objectives[i], self.objectives[j], float(matrix[i, j]))
            for i, j in itertools.combinations(range(len(self.axes)), 2)
        ]

    @classmethod
    def merge(cls, fronts: Sequence[Front]) -> Front:
        """Merge the fronts of several runs on one problem: the papers' "super Pareto front".

        Kept are the members that no member of any front dominates; of members with equal losses the first.
        Every run measured its members on its own folds, so a merged front flatters itself a little more than a
        single one; test scores do not take part in the choice. The dense head's scores are the runs' means, its
        weights are the first run's. The merged front has no history, those further test measures that all
        fronts have, and predictions where all have them for the same rows.

        Parameters
        ----------
        fronts
            At least one; all with the same encoding, objectives and number of bits.

        Raises
        ------
        InputError
            There is none, or they are fronts of different problems.
        """
        if not fronts:
            raise InputError("there is no front to merge: give at least one")
        first = fronts[0]
        for other in fronts[1:]:
            if (other.axes, other.encoding, other.n_bits) != (first.axes, first.encoding, first.n_bits):
                raise InputError("fronts of different encodings, objectives or numbers of bits cannot be merged")
        losses = np.concatenate([front.F for front in fronts])
        kept = non_dominated(losses)
        active = np.concatenate([front.active for front in fronts])
        kept = kept[np.argsort(active[kept], kind="stable")]
        heads = [head for front in fronts for head in front.heads]
        predictions = Predictions.merge([front.predictions for front in fronts])
        measures = [name for name in first.test_columns if all(name in front.test_columns for front in fronts)]
        return replace(
            first,
            masks=np.concatenate([front.masks for front in fronts])[kept],
            active=active[kept],
            values=np.concatenate([front.values for front in fronts])[kept],
            F=losses[kept],
            ideal=np.min([front.ideal for front in fronts], axis=0),
            corner=np.max([front.corner for front in fronts], axis=0),
            heads=tuple(heads[i] for i in kept),
            test=np.concatenate([front.test for front in fronts])[kept],
            dense_values=np.mean([front.dense_values for front in fronts], axis=0),
            dense_test=float(np.mean([front.dense_test for front in fronts])),
            history={},
            test_columns={
                name: np.concatenate([front.test_columns[name] for front in fronts])[kept] for name in measures
            },
            dense_test_columns={
                name: float(np.mean([front.dense_test_columns[name] for front in fronts])) for name in measures
            },
            predictions=None if predictions is None else predictions.take(kept),
        )

    def to_rows(self) -> list[dict[str, Any]]:
        """One plain dictionary per member and one for the dense head, sorted by active bits."""
        rows = [
            self._row(
                member,
                int(self.active[member]),
                self.values[member],
                float(self.test[member]),
                {name: float(column[member]) for name, column in self.test_columns.items()},
            )
            for member in range(len(self))
        ]
        rows.append(self._row("dense", self.n_bits, self.dense_values, self.dense_test, self.dense_test_columns))
        return rows

    def to_csv(self) -> str:
        """Return the rows as CSV text, numbers to six digits after the point."""
        rows = self.to_rows()
        return csv_text(rows[0], (row.values() for row in rows))

    def save(self, folder: str | Path) -> None:
        """Write ``front.csv``, ``front.npz``, ``heads.safetensors`` and, where there are any, ``predictions.npz``.

        Parameters
        ----------
        folder
            Made where missing.

        Raises
        ------
        InputError
            The folder cannot be written.
        """
        from safetensors.numpy import save

        folder = Path(folder)
        try:
            make_folder(folder)
        except OSError as error:
            raise InputError(f"{folder}: cannot be made ({error.strerror}): choose another folder") from error
        tensors: dict[str, npt.NDArray[Any]] = {}
        for name, head in [*((str(i), head) for i, head in enumerate(self.heads)), ("dense", self.dense_head)]:
            tensors.update({f"{name}.{key}": array for key, array in head.to_arrays().items()})
        with atomic_path(folder / HEADS) as temporary:
            # as bytes: safetensors' own file would be readable by its owner alone
            about = {"format": f"moevoprune-heads-{_FORMAT}", "front": self.fingerprint}
            temporary.write_bytes(ordered_safetensors(save(tensors, metadata=about)))
        with atomic_path(folder / FRONT) as temporary:
            np.savez_compressed(temporary, allow_pickle=False, **self._arrays())
        if self.predictions is not None:
            self.predictions.save(folder / PREDICTIONS, self.fingerprint)
        else:
            # another front's must not stay beside this one
            (folder / PREDICTIONS).unlink(missing_ok=True)
        write_text(folder / FRONT_CSV, self.to_csv())

    @classmethod
    def load(cls, folder: str | Path) -> Front:
        """Read what :meth:`save` wrote.

        Raises
        ------
        InputError
            A file is missing, damaged or not of this format.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(folder)
        try:
            arrays = read_arrays(path / FRONT)
            check_whole_file(path / HEADS)
            with safe_open(path / HEADS, framework="numpy") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
                about = file.metadata() or {}
        except FileNotFoundError as error:
            missing = Path(error.filename or path / HEADS)
            raise InputError(f"{missing}: not found: is {path} a finished run?") from None
        except OSError as error:
            raise InputError(f"{path}: the saved front cannot be read ({error.strerror or error})") from None
        except (InputError, SafetensorError) as error:
            raise InputError(f"{path}: the saved front cannot be read ({words_of(error)})") from None
        try:
            front = cls._from_arrays(arrays, tensors)
        except KeyError as error:
            raise InputError(f"{path}: the saved front lacks {error}: the files are incomplete") from None
        except (TypeError, ValueError, IndexError, AttributeError, OverflowError):
            raise InputError(f"{path}: the saved front cannot be read: its files are damaged") from None
        if not front._fits_together():
            raise InputError(f"{path}: the saved front's arrays do not fit together: its files are damaged")
        # heads of older versions do not say
        if about.get("front", front.fingerprint) != front.fingerprint:
            raise InputError(f"{path / HEADS}: belongs to another front: repeat the run with --resume")
        return replace(front, predictions=front._load_predictions(path / PREDICTIONS))

    @property
    def fingerprint(self) -> str:
        """Digest of masks and losses, for files that name members by their numbers: it tells fronts apart."""
        content = np.packbits(self.masks).tobytes() + np.ascontiguousarray(self.F, dtype=np.float64).tobytes()
        return hashlib.sha256(content).hexdigest()[:16]

    def _load_predictions(self, path: Path) -> Predictions | None:
        """Read this front's predictions; None where there are none, as in runs of older versions."""
        advice = "remove it, or repeat the run with --resume"
        try:
            arrays = read_arrays(path)
            predictions = Predictions.from_arrays(arrays, len(self))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error}): {advice}") from None
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
            raise InputError(f"{path}: is damaged ({words_of(error)}): {advice}") from None
        if str(arrays.get("front", "")) != self.fingerprint:
            raise InputError(f"{path}: belongs to another front: {advice}")
        return predictions

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {
            "format": np.array(_FORMAT),
            "masks": self.masks,
            "F": self.F,
            "values": self.values,
            "active": self.active,
            "objectives": np.array(self.objectives, dtype=np.str_),
            "maximise": np.array([axis.maximise for axis in self.axes]),
            "encoding": np.array(self.encoding),
            "ideal": self.ideal,
            "corner": self.corner,
            "test_metric": np.array(self.test_metric),
            "test": self.test,
            "dense_values": self.dense_values,
            "dense_test": np.array(self.dense_test),
            "class_names": np.array(self.class_names, dtype=np.str_),
            **{f"history_{key}": column for key, column in self.history.items()},
            **{_TEST + name: column for name, column in self.test_columns.items()},
            **{_DENSE_TEST + name: np.array(value) for name, value in self.dense_test_columns.items()},
        }

    @classmethod
    def _from_arrays(cls, arrays: dict[str, npt.NDArray[Any]], tensors: dict[str, npt.NDArray[Any]]) -> Front:
        if int(arrays["format"]) != _FORMAT:
            raise ValueError("another format")
        stored: dict[str, dict[str, npt.NDArray[Any]]] = {}
        for key, tensor in tensors.items():
            name, _, part = key.partition(".")
            stored.setdefault(name, {})[part] = tensor
        heads = {name: TrainedHead.from_arrays(parts) for name, parts in stored.items()}
        prefix = "history_"
        return cls(
            axes=tuple(
                Axis(str(name), bool(up))
                for name, up in zip(arrays["objectives"], arrays["maximise"], strict=True)
            ),
            encoding=str(arrays["encoding"]),
            masks=arrays["masks"].astype(np.bool_),
            active=arrays["active"],
            values=arrays["values"],
            F=arrays["F"],
            ideal=arrays["ideal"],
            corner=arrays["corner"],
            heads=tuple(heads[str(i)] for i in range(len(arrays["masks"]))),
            test_metric=str(arrays["test_metric"]),
            test=arrays["test"],
            dense_values=arrays["dense_values"],
            dense_test=float(arrays["dense_test"]),
            dense_head=heads["dense"],
            history={k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)},
            class_names=tuple(str(name) for name in arrays["class_names"]),
            test_columns={
                key.removeprefix(_TEST): column
                for key, column in arrays.items()
                if key.startswith(_TEST) and key.removeprefix(_TEST) not in _RESERVED
            },
            dense_test_columns={
                key.removeprefix(_DENSE_TEST): float(value)
                for key, value in arrays.items()
                if key.startswith(_DENSE_TEST)
            },
        )

    def _fits_together(self) -> bool:
        n, n_obj = len(self.masks), len(self.axes)
        shapes = {
            "active": (n,),
            "values": (n, n_obj),
            "F": (n, n_obj),
            "ideal": (n_obj,),
            "corner": (n_obj,),
            "test": (n,),
            "dense_values": (n_obj,),
        }
        arrays = {name: getattr(self, name) for name in shapes}
        return (
            self.masks.ndim == 2
            and n_obj > 0
            and all(array.shape == shapes[name] and array.dtype.kind in "if" for name, array in arrays.items())
            and all(column.ndim == 1 and column.dtype.kind == "f" for column in self.history.values())
            and all(column.shape == (n,) and column.dtype.kind == "f" for column in self.test_columns.values())
            and set(self.test_columns) == set(self.dense_test_columns)
            and all(np.isfinite(array).all() for array in (self.F, self.values, self.ideal, self.corner))
            and bool((self.corner > self.ideal).all())
            and self._heads_fit()
        )

    def _heads_fit(self) -> bool:
        heads = [*self.heads, self.dense_head]
        kinds = {(head.task, head.n_features, head.widths[-1]) for head in heads}
        named = len(self.class_names)
        return len(kinds) == 1 and named in (0, self.dense_head.widths[-1])

    def _row(
        self, member: int | str, active: int, values: Values, test: float, further: Mapping[str, float]
    ) -> dict[str, Any]:
        row: dict[str, Any] = {"member": member, "active": active, "active_fraction": active / self.n_bits}
        row.update(zip(self.objectives, values.tolist(), strict=True))
        row[_TEST + self.test_metric] = test
        row.update({_TEST + name: further[name] for name in self.test_columns})
        return row

    def _index(self, objective: str) -> int:
        if objective not in self.objectives:
            hint = nearest(objective, self.objectives)
            raise InputError(f"no objective {objective!r} in this front{hint}: {', '.join(self.objectives)}")
        return self.objectives.index(objective)

    def _check_not_empty(self) -> None:
        if len(self) == 0:
            raise InputError("the front has no members: the search found no feasible mask")
