"""Columns of a table as numbers: texts become one column per text (one-hot)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError, nearest, printable

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MOST_CATEGORIES", "Column", "TableEncoding", "check_complete", "is_numeric"]

MOST_CATEGORIES = 50
"""A column with more different texts than this is taken for a name or a free text, and refused."""

Values = npt.NDArray[np.float64]

_NUMBER_WITH_COMMA = r"[+-]?\d+(,\d+)?([eE][+-]?\d+)?"


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes
    ----------
    name
        As the table's header has it.
    categories
        The different texts of the column, sorted; None for a column of numbers.
    """

    name: str
    categories: tuple[str, ...] | None = None


@dataclass(frozen=True)
class TableEncoding:
    """How rows of a table become rows of features.

    Attributes
    ----------
    columns
        Columns that are read, in the order of the features.
    """

    columns: tuple[Column, ...]

    @classmethod
    def fit(cls, frame: pd.DataFrame, source: str) -> TableEncoding:
        """Note the columns of a table, and the different texts of those that are no numbers.

        Parameters
        ----------
        frame
            The feature columns, without missing values.
        source
            What to call the table in a message.

        Raises
        ------
        InputError
            A column has more than :data:`MOST_CATEGORIES` different texts, or texts among numbers.
        """
        return cls(tuple(_describe(frame[name], str(name), source) for name in frame.columns))

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Name of every feature: the column's, or ``column=text`` for a column of texts."""
        return tuple(
            name
            for column in self.columns
            for name in (
                (column.name,)
                if column.categories is None
                else tuple(f"{column.name}={category}" for category in column.categories)
            )
        )

    def encode(self, frame: pd.DataFrame, source: str) -> Values:
        """Turn rows of a table into features.

        Parameters
        ----------
        frame
            A table with at least the columns of the encoding, in any order.
        source
            What to call the table in a message.

        Returns
        -------
        ndarray, shape (rows, features)
            Numbers as they are, truth values as 0 and 1, a 1 in the column of each text.

        Raises
        ------
        InputError
            A column is missing, has a missing value, or holds what it did not hold in training.
        """
        known = [str(name) for name in frame.columns]
        for column in self.columns:
            if column.name not in known:
                raise InputError(f"{source}: lacks the column {column.name!r}{nearest(column.name, known)}")
        frame = frame.set_axis(known, axis=1)[[column.name for column in self.columns]]
        check_complete(frame, source)
        return np.hstack([_encoded(frame[column.name], column, source) for column in self.columns])

    def to_list(self) -> list[dict[str, Any]]:
        """Plain values, e.g. for JSON; :meth:`from_list` reads them."""
        return [
            {"name": column.name, "categories": None if column.categories is None else list(column.categories)}
            for column in self.columns
        ]

    @classmethod
    def from_list(cls, columns: Sequence[dict[str, Any]]) -> TableEncoding:
        """Rebuild an encoding from :meth:`to_list`."""
        return cls(
            tuple(
                Column(
                    str(each["name"]), None if each["categories"] is None else tuple(map(str, each["categories"]))
                )
                for each in columns
            )
        )


def is_numeric(values: pd.Series[Any]) -> bool:
    """Whether a column holds numbers or truth values."""
    import pandas as pd

    return bool(pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values))


def check_complete(frame: pd.DataFrame, source: str) -> None:
    """Refuse missing and infinite values, and numbers with decimal commas, which would be texts.

    Raises
    ------
    InputError
        There is one; the message names its column and row.
    """
    for name in frame.columns:
        values = frame[name]
        _refuse_first(
            values.isna().to_numpy(), f"{source}: column {name!r} has no value", "fill or remove such rows"
        )
        if is_numeric(values):
            infinite = ~np.isfinite(values.to_numpy(dtype=np.float64))
            _refuse_first(infinite, f"{source}: column {name!r} is infinite", "replace such values")
        else:
            _refuse_decimal_commas(values.astype(str), str(name), source)


def _refuse_decimal_commas(texts: pd.Series[Any], name: str, source: str) -> None:
    with_comma = texts.str.contains(",", regex=False).to_numpy(dtype=np.bool_)
    if with_comma.any() and texts.str.fullmatch(_NUMBER_WITH_COMMA).all():
        text = texts.iloc[int(with_comma.argmax())][:40]
        what = f"{source}: column {name!r} holds numbers with commas, such as {text!r}"
        _refuse_first(with_comma, what, "write them with decimal points")


def _describe(values: pd.Series[Any], name: str, source: str) -> Column:
    if is_numeric(values):
        return Column(name)
    texts = values.astype(str)
    _refuse_texts_among_numbers(texts, name, source)
    categories = sorted(set(texts))
    if len(categories) > MOST_CATEGORIES:
        raise InputError(
            f"{source}: column {name!r} has {len(categories)} different texts (at most {MOST_CATEGORIES} become "
            "columns of their own): leave it out with --drop, or group them"
        )
    return Column(name, tuple(categories))


def _refuse_texts_among_numbers(texts: pd.Series[Any], name: str, source: str) -> None:
    import pandas as pd

    no_number = pd.to_numeric(texts, errors="coerce").isna().to_numpy()
    if 0 < no_number.sum() < len(texts) / 2:
        text = printable(str(texts.iloc[int(no_number.argmax())]))[:40]
        _refuse_first(no_number, f"{source}: column {name!r} holds numbers, but {text!r}", "replace such values")


def _encoded(values: pd.Series[Any], column: Column, source: str) -> Values:
    if column.categories is None:
        if not is_numeric(values):
            raise InputError(f"{source}: column {column.name!r} holds texts, but it held numbers in training")
        numbers: Values = values.to_numpy(dtype=np.float64)[:, None]
        return numbers
    texts = values.astype(str).to_numpy()
    places = {category: place for place, category in enumerate(column.categories)}
    unknown = np.array([text not in places for text in texts], dtype=np.bool_)
    if unknown.any():
        text = printable(str(texts[int(unknown.argmax())]))[:40]
        _refuse_first(
            unknown, f"{source}: column {column.name!r} holds {text!r}, not seen in training", "remove it"
        )
    encoded = np.zeros((len(texts), len(places)))
    encoded[np.arange(len(texts)), [places[text] for text in texts]] = 1.0
    return encoded


def _refuse_first(bad: npt.NDArray[np.bool_], what: str, advice: str) -> None:
    if bad.any():
        raise InputError(f"{what} in row {int(bad.argmax()) + 1} (the first below the header is 1): {advice}")
