"""What the members of a front predict: for rows they were not trained on, and for the test rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError
from moevoprune.files import atomic_path
from moevoprune.objectives import evenly

__all__ = ["Predictions", "check_present", "evenly"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of the members of a front, and of the dense head as their last entry.

    Attributes
    ----------
    task
        ``"classification"`` or ``"regression"``.
    validation_rows
        Rows of the training part, rising, shape (validation rows,). Repeated folds have a row several times; very
        large sets are thinned out evenly.
    validation_targets
        Their class labels, shape (validation rows,), or targets, shape (validation rows, outputs).
    validation_outputs
        Logits, or predicted targets in their own units, each from the head that was trained without that row's
        fold; shape (members + 1, validation rows, outputs). NaN for a head that diverged.
    test_targets
        Class labels of the test rows, shape (test rows,), or targets, shape (test rows, outputs).
    test_predictions
        What the retrained heads predict for the test rows: class labels, shape (members + 1, test rows), -1 for a
        head that diverged; or targets, shape (members + 1, test rows, outputs).
    """

    task: Literal["classification", "regression"]
    validation_rows: Indices
    validation_targets: Array
    validation_outputs: Floats
    test_targets: Array
    test_predictions: Array

    @property
    def n_members(self) -> int:
        """Number of members, the dense head not counted."""
        return len(self.validation_outputs) - 1

    def confusion(self, member: int, part: Literal["validation", "test"], n_classes: int) -> Indices:
        """Count the rows by true class (first axis) and predicted class (second), shape (classes, classes).

        Parameters
        ----------
        member
            Number of the member; -1 for the dense head.
        part
            The rows to count.
        n_classes
            Number of classes.
        """
        if part == "test":
            truth, guesses = self.test_targets, self.test_predictions[member]
        else:
            outputs = self.validation_outputs[member]
            truth = self.validation_targets
            guesses = np.where(np.isfinite(outputs).all(axis=1), outputs.argmax(axis=1), -1)
        known = guesses >= 0
        counts = np.zeros((n_classes, n_classes), dtype=np.int64)
        np.add.at(counts, (truth[known].astype(np.int64), guesses[known].astype(np.int64)), 1)
        return counts

    def take(self, members: Indices) -> Predictions:
        """Keep some members, in the given order, and the dense head."""
        kept = np.append(members, self.n_members)
        return replace(
            self,
            validation_outputs=self.validation_outputs[kept],
            test_predictions=self.test_predictions[kept],
        )

    @classmethod
    def merge(cls, parts: Sequence[Predictions | None]) -> Predictions | None:
        """Put the members of several fronts behind one another; None where they are not about the same rows.

        The dense head is that of the first.
        """
        known = [part for part in parts if part is not None]
        first = known[0] if known else None
        if first is None or len(known) < len(parts):
            return None
        for other in known[1:]:
            same = (
                other.task == first.task
                and np.array_equal(other.validation_rows, first.validation_rows)
                and np.array_equal(other.validation_targets, first.validation_targets)
                and np.array_equal(other.test_targets, first.test_targets)
            )
            if not same:
                return None
        return replace(
            first,
            validation_outputs=np.concatenate(
                [*(part.validation_outputs[:-1] for part in known), first.validation_outputs[-1:]]
            ),
            test_predictions=np.concatenate(
                [*(part.test_predictions[:-1] for part in known), first.test_predictions[-1:]]
            ),
        )

    def save(self, path: str | Path, front: str) -> None:
        """Write an ``.npz``.

        Parameters
        ----------
        path
            The file.
        front
            Fingerprint of the front they belong to.

        Raises
        ------
        InputError
            The file cannot be written.
        """
        with atomic_path(Path(path)) as temporary:
            # outputs hardly get smaller, and packing them takes long
            np.savez(
                temporary,
                allow_pickle=False,
                format=np.array(_FORMAT),
                front=np.array(front),
                task=np.array(self.task),
                validation_rows=self.validation_rows,
                validation_targets=self.validation_targets,
                validation_outputs=self.validation_outputs,
                test_targets=self.test_targets,
                test_predictions=self.test_predictions,
            )

    @classmethod
    def from_arrays(cls, arrays: dict[str, Array], n_members: int) -> Predictions:
        """Rebuild what :meth:`save` wrote.

        Parameters
        ----------
        arrays
            The arrays of the file.
        n_members
            Members of the front they belong to.

        Raises
        ------
        KeyError
            An array is missing.
        ValueError
            They do not fit together.
        """
        task = str(arrays["task"])
        predictions = cls(
            task="regression" if task == "regression" else "classification",
            validation_rows=arrays["validation_rows"].astype(np.int64),
            validation_targets=arrays["validation_targets"],
            validation_outputs=arrays["validation_outputs"].astype(np.float32),
            test_targets=arrays["test_targets"],
            test_predictions=arrays["test_predictions"],
        )
        outputs, guesses = predictions.validation_outputs, predictions.test_predictions
        fits = (
            int(arrays["format"]) == _FORMAT
            and task in ("classification", "regression")
            and outputs.ndim == 3
            and outputs.shape[:2] == (n_members + 1, len(predictions.validation_rows))
            and len(predictions.validation_targets) == len(predictions.validation_rows)
            and guesses.shape[:2] == (n_members + 1, len(predictions.test_targets))
        )
        if fits and task == "classification":
            n_classes = outputs.shape[2]
            fits = all(
                labels.dtype.kind in "iu"
                and labels.ndim == 1
                and bool(((labels >= 0) & (labels < n_classes)).all())
                for labels in (predictions.validation_targets, predictions.test_targets)
            ) and bool(((guesses >= -1) & (guesses < n_classes)).all())
        if not fits:
            raise ValueError("the arrays do not fit together")
        return predictions


def check_present(predictions: Predictions | None) -> Predictions:
    """Return the predictions of a front that has some.

    Raises
    ------
    InputError
        There are none.
    """
    if predictions is None:
        raise InputError(
            "this front has no validation predictions: its run is of an older version (repeat it), or it was "
            "merged from runs whose validation rows differ, as hold-outs do (take one run, or runs with --cv 5)"
        )
    return predictions
