"""A network as a file: safetensors, with all that it takes to predict from rows or from a table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
import numpy.typing as npt

from moevoprune.construction.encoding import TableEncoding
from moevoprune.construction.tables import Table, read_frame
from moevoprune.errors import InputError, words_of
from moevoprune.features import FeatureSet
from moevoprune.files import atomic_path, open_regular, ordered_safetensors
from moevoprune.heads.head import TrainedHead

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["StoredNetwork"]

_FORMAT = "moevoprune-network-1"

Rows = Union[npt.NDArray[np.floating[Any]], "pd.DataFrame", str, Path]


@dataclass(frozen=True, eq=False)
class StoredNetwork:
    """A trained network, with the names of its classes and how the columns of a table become its inputs.

    Attributes
    ----------
    network
        The network.
    class_names
        One per output; empty for regression.
    target_names
        What is predicted.
    encoding
        Of a network that reads rows of a CSV table; None where its inputs are features already.
    """

    network: TrainedHead
    class_names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()
    encoding: TableEncoding | None = None

    @classmethod
    def of(cls, network: TrainedHead, data: Table | FeatureSet) -> StoredNetwork:
        """Put a network together with the names of the data that it was trained on."""
        if isinstance(data, FeatureSet):
            return cls(network, data.class_names)
        return cls(network, data.class_names, data.target_names, data.encoding)

    def predict(self, rows: Rows) -> npt.NDArray[Any]:
        """Predict class names, shape (rows,), or targets in their own units, shape (rows, outputs).

        Parameters
        ----------
        rows
            Features, shape (rows, features); or, for a network that was trained on a CSV table, a data frame or
            the path of a CSV file, with at least the columns that it reads.

        Raises
        ------
        InputError
            The rows are not of the form that the network reads.
        """
        answers = self.network.predict(self._features(rows))
        return np.array(self.class_names)[answers.astype(np.int64)] if self.class_names else answers

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, whole or not at all.

        Raises
        ------
        InputError
            The file cannot be written.
        """
        from safetensors.numpy import save

        about = {
            "class_names": list(self.class_names),
            "target_names": list(self.target_names),
            "columns": None if self.encoding is None else self.encoding.to_list(),
        }
        content = save(self.network.to_arrays(), {"format": _FORMAT, "about": json.dumps(about)})
        with atomic_path(Path(path)) as temporary:
            temporary.write_bytes(ordered_safetensors(content))

    @classmethod
    def load(cls, path: str | Path) -> StoredNetwork:
        """Read a file that :meth:`save` wrote.

        Raises
        ------
        InputError
            The file is missing, damaged, or another kind of file.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        try:
            # opening a FIFO would wait for ever
            open_regular(path).close()
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in list(file.keys())}
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: cannot be read as a network ({words_of(error)})") from None
        if metadata.get("format") != _FORMAT:
            raise InputError(f"{path}: is no network that moevoprune construct wrote")
        try:
            about = json.loads(metadata["about"])
            columns = about["columns"]
            stored = cls(
                TrainedHead.from_arrays(arrays),
                tuple(map(str, about["class_names"])),
                tuple(map(str, about["target_names"])),
                None if columns is None else TableEncoding.from_list(columns),
            )
            stored._check()
            return stored
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{path}: is damaged ({words_of(error)})") from None

    def _check(self) -> None:
        """Hold names and columns to the network, and refuse what it would divide by zero."""
        if not (self.network.scale > 0).all():
            raise InputError("a feature is divided by 0")
        classes = self.network.widths[-1] if self.network.task == "classification" else 0
        if len(self.class_names) != classes:
            raise InputError(f"there are {len(self.class_names)} class names for {classes} classes")
        if self.encoding is not None and len(self.encoding.feature_names) != self.network.n_features:
            raise InputError(
                f"its columns make {len(self.encoding.feature_names)} features, but the network reads"
                f" {self.network.n_features}"
            )

    def _features(self, rows: Rows) -> npt.NDArray[Any]:
        if isinstance(rows, np.ndarray):
            if rows.dtype.kind not in "biuf":
                raise InputError(f"rows are {rows.dtype}: give an array of numbers, (rows, features)")
            return rows
        if self.encoding is None:
            raise InputError("this network was not trained on a CSV table: give it an array of features")
        if isinstance(rows, str | Path):
            return self.encoding.encode(read_frame(Path(rows)), str(rows))
        return self.encoding.encode(rows, "the table")
