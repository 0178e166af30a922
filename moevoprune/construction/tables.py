"""Where the rows come from: scikit-learn's bundled sets, CSV files and files of features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt

from moevoprune.construction.encoding import TableEncoding, check_complete, is_numeric
from moevoprune.errors import InputError, nearest, printable, words_of
from moevoprune.features import FeatureSet, load_features
from moevoprune.features.feature_set import Task
from moevoprune.features.free_memory import check_whole_file

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BUNDLED", "TEST_SHARE", "Table", "open_table", "read_csv", "read_frame", "split_table"]

BUNDLED = ("breast_cancer", "wine", "digits", "diabetes", "linnerud")
"""scikit-learn's bundled sets, by the names that its functions ``load_NAME`` have."""

TEST_SHARE = 0.25
"""Share of the rows that is held back as the test part, where the data come without a split."""

_REGRESSIONS = ("diabetes", "linnerud")
# whole numbers with more different values are quantities, not classes
_MOST_NUMBERED_CLASSES = 20
# beyond it floating point skips whole numbers
_LARGEST_WHOLE = 2.0**53
# of a table, and characters of its first line: pandas would spend minutes on more, and forged files have them
_MOST_COLUMNS = 100_000
_LONGEST_HEADER = 2**24

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Table:
    """Rows and targets that have not been split into a training and a test part.

    Attributes
    ----------
    name
        For tables and file names.
    task
        ``"classification"`` or ``"regression"``.
    rows
        Features, shape (n, features), float64.
    targets
        Class numbers, shape (n,), int64; or targets, shape (n, outputs), float64.
    class_names
        One per class; empty for regression.
    target_names
        One per target column.
    encoding
        How columns of a table became features; None where they were features already.
    """

    name: str
    task: Task
    rows: Array = field(repr=False)
    targets: Array = field(repr=False)
    class_names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()
    encoding: TableEncoding | None = field(default=None, repr=False)


def open_table(
    source: str,
    target: Sequence[str] = (),
    task: Task | None = None,
    drop: Sequence[str] = (),
) -> Table | FeatureSet:
    """Open what a user names.

    Parameters
    ----------
    source
        One of :data:`BUNDLED`, a ``.csv`` file, or an ``.npz`` file of features, which is split already.
    target
        Columns of a CSV file that are to be predicted.
    task
        Overrides what a file says or what its target looks like.
    drop
        Columns of a CSV file to leave out.

    Raises
    ------
    InputError
        The source is none of these, cannot be read, or does not fit the other arguments.
    """
    if task is not None and task not in get_args(Task):
        raise InputError(f"task = {task!r}: use classification or regression")
    ending = Path(source).suffix.lower()
    if ending == ".csv":
        return read_csv(Path(source), target, task, drop)
    if target or drop:
        raise InputError(f"{source}: --target and --drop name columns of a CSV file: leave them out")
    if source in BUNDLED:
        return _bundled(source, task)
    if ending == ".npz":
        return load_features(Path(source), task)
    raise InputError(
        f"{source!r} is no bundled set ({', '.join(BUNDLED)}), no .csv and no .npz file{nearest(source, BUNDLED)}"
    )


def split_table(table: Table | FeatureSet, seed: int, test_share: float = TEST_SHARE) -> FeatureSet:
    """Hold back a test part, with equal shares of every class; data that are split already stay as they are.

    Parameters
    ----------
    table
        The data.
    seed
        Seed of the split.
    test_share
        Share of the rows in the test part, in (0, 1).

    Raises
    ------
    InputError
        There are too few rows of a class, or in all.
    """
    if isinstance(table, FeatureSet):
        return table
    from sklearn.model_selection import train_test_split

    classes = table.targets if table.task == "classification" else None
    _check_counts(table, test_share)
    train, test = train_test_split(
        np.arange(len(table.rows)), test_size=test_share, stratify=classes, random_state=seed
    )
    try:
        return FeatureSet(
            table.rows[train],
            table.targets[train],
            table.rows[test],
            table.targets[test],
            class_names=table.class_names,
            task=table.task,
            name=table.name,
        )
    except InputError as error:
        raise InputError(f"{table.name}: {error}") from None


def read_csv(path: Path, target: Sequence[str], task: Task | None = None, drop: Sequence[str] = ()) -> Table:
    """Read a CSV file with a header; columns may be separated by commas, semicolons or tabs.

    Columns of numbers and truth values are features as they are, columns of texts become one feature per text.

    Parameters
    ----------
    path
        The file.
    target
        Columns to predict; several for regression only.
    task
        None: regression where a target has broken numbers, more than 20 different ones, or there are several
        targets; else classification.
    drop
        Columns to leave out.

    Raises
    ------
    InputError
        pandas is not installed, the file cannot be read, a column is not there, or a value is missing (the message
        names its column and row).
    """
    frame = read_frame(path)
    source, known = str(path), [str(name) for name in frame.columns]
    if not target:
        raise InputError(f"{source}: name the column to predict with --target; its columns are {_listed(known)}")
    for option, names in (("--target", target), ("--drop", drop)):
        for name in names:
            if name not in known:
                hint = nearest(name, known) or f"; its columns are {_listed(known)}"
                raise InputError(f"{source}: has no column {name!r} for {option}{hint}")
    if both := set(target) & set(drop):
        raise InputError(f"{source}: column {sorted(both)[0]!r} is named by --target and by --drop")
    inputs = frame[[name for name in known if name not in {*target, *drop}]]
    if inputs.shape[1] == 0 or len(frame) == 0:
        raise InputError(f"{source}: has no {'rows' if len(frame) == 0 else 'columns'} to learn from")
    answers = frame[list(dict.fromkeys(target))]
    check_complete(answers, source)
    check_complete(inputs, source)
    task = task or _task_of(answers)
    encoding = TableEncoding.fit(inputs, source)
    targets, class_names = (_labels if task == "classification" else _quantities)(answers, source)
    return Table(
        path.stem,
        task,
        encoding.encode(inputs, source),
        targets,
        class_names,
        tuple(answers.columns),
        encoding,
    )


def read_frame(path: Path) -> pd.DataFrame:
    """Read a CSV file with a header; of comma, semicolon and tab the header's most frequent one separates columns.

    Raises
    ------
    InputError
        pandas is not installed, or the file is no table with one name for each column.
    """
    try:
        import pandas as pd
    except ImportError:
        raise InputError("CSV files need the package pandas: pip install pandas") from None
    try:
        # pandas holds the texts and the numbers
        check_whole_file(path, copies=2)
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline(_LONGEST_HEADER)
            separator = max(",;\t", key=header.count)
        if len(header) == _LONGEST_HEADER or header.count(separator) >= _MOST_COLUMNS:
            raise ValueError(f"its first line is longer than any header of {_MOST_COLUMNS:,} columns")
        options: dict[str, Any] = {"sep": separator, "encoding": "utf-8-sig", "skipinitialspace": True}
        # with a header, columns of one name are numbered, and the first of too many values names the row
        names = pd.read_csv(path, header=None, nrows=2, dtype=str, **options).iloc[0].dropna().str.strip()
        frame = pd.read_csv(path, low_memory=False, **options)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({words_of(error)}): check the path") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text: save it as CSV in UTF-8") from None
    except InputError:
        raise
    # a path that cannot be one, or what pandas says of files without columns or with rows of several lengths
    except ValueError as error:
        raise InputError(f"{path}: is no table ({words_of(error)})") from None
    if names.duplicated().any():
        twice = printable(str(names[names.duplicated()].iloc[0]))
        raise InputError(f"{path}: has two columns {twice!r}: give each a name of its own")
    return frame.set_axis([str(name) for name in frame.columns], axis=1).apply(_with_large_numbers)


def _with_large_numbers(values: pd.Series[Any]) -> pd.Series[Any]:
    """Whole numbers beyond 64 bits, which are read as texts, as floating point."""
    import pandas as pd

    if is_numeric(values) or not len(values):
        return values
    numbers = pd.to_numeric(values.astype(str).where(values.notna()), errors="coerce").astype(np.float64)
    return numbers if values.notna().any() and numbers.notna().equals(values.notna()) else values


def _task_of(answers: pd.DataFrame) -> Task:
    if answers.shape[1] > 1:
        return "regression"
    values = answers.iloc[:, 0]
    if not is_numeric(values) or values.dtype == bool:
        return "classification"
    numbers = values.to_numpy(dtype=np.float64)
    whole = bool((numbers == np.rint(numbers)).all())
    return "classification" if whole and len(np.unique(numbers)) <= _MOST_NUMBERED_CLASSES else "regression"


def _labels(answers: pd.DataFrame, source: str) -> tuple[Array, tuple[str, ...]]:
    if answers.shape[1] > 1:
        raise InputError(f"{source}: several targets are for regression only: name one column with --target")
    found, labels = np.unique(_as_classes(answers.iloc[:, 0]), return_inverse=True)
    if len(found) < 2:
        raise InputError(f"{source}: column {answers.columns[0]!r} holds one class only: {found[0]}")
    return labels.astype(np.int64), tuple(str(name) for name in found)


def _as_classes(values: pd.Series[Any]) -> Array:
    """Classes that sort as people count: numbers by size, whole ones without a point."""
    if not is_numeric(values) or values.dtype == bool:
        return np.array([str(value) for value in values])
    if values.dtype.kind in "iu":
        return np.asarray(values)
    numbers = values.to_numpy(dtype=np.float64)
    whole = (numbers == np.rint(numbers)) & (np.abs(numbers) < _LARGEST_WHOLE)
    classes: Array = numbers.astype(np.int64) if whole.all() else numbers
    return classes


def _quantities(answers: pd.DataFrame, source: str) -> tuple[Array, tuple[str, ...]]:
    for name in answers.columns:
        if not is_numeric(answers[name]):
            raise InputError(f"{source}: column {name!r} holds texts: regression needs numbers")
    return answers.to_numpy(dtype=np.float64), ()


def _bundled(name: str, task: Task | None) -> Table:
    from sklearn import datasets

    own: Task = "regression" if name in _REGRESSIONS else "classification"
    if task not in (None, own):
        raise InputError(f"{name} is a {own} set: leave task={task!r} out")
    loaded: Any = getattr(datasets, f"load_{name}")()
    rows = np.asarray(loaded.data, dtype=np.float64)
    if own == "classification":
        classes = tuple(str(each) for each in loaded.target_names)
        return Table(name, own, rows, np.asarray(loaded.target, dtype=np.int64), classes, ("target",))
    targets = np.asarray(loaded.target, dtype=np.float64).reshape(len(rows), -1)
    names = tuple(str(each) for each in loaded.target_names) if targets.shape[1] > 1 else ("target",)
    return Table(name, own, rows, targets, (), names)


def _check_counts(table: Table, test_share: float) -> None:
    n_rows = len(table.rows)
    if n_rows * test_share < 2 or n_rows * (1 - test_share) < 2:
        raise InputError(f"{table.name}: {n_rows} rows are too few to hold back {test_share:.0%} of them")
    if table.task == "regression":
        return
    counts = np.bincount(table.targets, minlength=len(table.class_names))
    if counts.min() < 2:
        rare = table.class_names[int(counts.argmin())]
        raise InputError(f"{table.name}: class {rare!r} has one row only: give more rows of it, or remove it")
    if n_rows * test_share < len(counts):
        raise InputError(
            f"{table.name}: {test_share:.0%} of {n_rows} rows cannot hold a row of each of {len(counts)} classes"
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:12])
    return shown if len(names) <= 12 else f"{shown}, ... ({len(names)} in all)"
