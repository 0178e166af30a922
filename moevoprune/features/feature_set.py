"""Feature vectors of a frozen backbone with their targets: checked once, then never changed."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError, printable
from moevoprune.features.feature_folder import (
    MapReference,
    converted_blocks,
    is_feature_folder,
    is_mapped,
    map_array,
    row_blocks,
    write_folder,
)
from moevoprune.features.free_memory import check_room
from moevoprune.features.npz_files import open_archive, read_array, write_blocks
from moevoprune.files import atomic_path

__all__ = ["FeatureSet", "Task"]

Task = Literal["classification", "regression"]
Array = npt.NDArray[Any]

_REGRESSION_HINT = (
    "for regression, use task='regression' (in the file, or on the command line: --set task=regression)"
)
_MAX_LISTED = 12
_LARGEST_EXTRACTION = 2**20
# of what heads are trained on: differences and products with weights then stay within float32
_LARGEST_TRAINED_ON = 1e36
# of the arrays of strings, in bytes, four a character, and a header: more becomes too many objects of Python
_LARGEST_STRINGS = {"extraction": 4 * _LARGEST_EXTRACTION + 2**16, "class_names": 2**26, "task": 2**16}
_IN_MEMORY = ("X_ood", "X_ood_test")
# in the order of the content hash: new ones at the end
_ARRAYS = ("X_train", "y_train", "X_test", "y_test", "X_val", "y_val", "X_ood", "X_ood_test")
# with the targets of the test rows, as those are squared
_TRAINED_ON = ("X_train", "y_train", "X_val", "y_val", "y_test")


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features and targets of one transfer-learning task, validated and read-only.

    Any real numeric array is accepted and converted; the arrays of the instance are C-contiguous,
    cannot be written to and share no memory with a writable input.

    Features that do not fit in memory are left in their files: a whole ``.npy`` file of float16 or float32 that is
    mapped read-only (as :meth:`load` does with a folder) stays a :class:`numpy.memmap` of that number format, and
    is checked in blocks. Fitness is the same bits either way. Do not change such files while they are in use.

    Parameters
    ----------
    X_train, X_test : ndarray, shape (n_train, d) and (n_test, d)
        Features of the training and test rows; finite, in the range of float32 (those that are trained
        on between -1e36 and 1e36), at least one row and one column. Stored as float32, but for mapped files.
    y_train, y_test : ndarray
        Classification: integer labels 0..C-1, shape (n,), stored as int64; every class has at least one
        row in `y_train`, and there are at least two. Regression: numbers between -1e36 and 1e36, shape
        (n,) or (n, T), stored as float32 of shape (n, T).
    X_val, y_val : ndarray, optional
        Validation rows, in the same form; both or neither.
    X_ood : ndarray, shape (n_ood, d), optional
        Features of out-of-distribution rows, without targets.
    class_names : tuple of str, optional
        One name for each class; sets C. Left empty, the names are "0", "1", ... Characters that would
        disturb a terminal are replaced by "?". Must be empty for regression.
    task : {"classification", "regression"}
        What the targets mean.
    name : str
        Name for reports; not part of the content hash.
    X_ood_test : ndarray, shape (n_ood_test, d), optional
        Out-of-distribution rows held back for the final test; only together with `X_ood`.
    extraction : str
        JSON text that says how the features were made, at most 1 MiB; empty where that is not known. Not part of
        the content hash.

    Raises
    ------
    InputError
        If an array breaks one of these rules; the message names the array, row and column.
    """

    X_train: Array = field(repr=False)
    y_train: Array = field(repr=False)
    X_test: Array = field(repr=False)
    y_test: Array = field(repr=False)
    X_val: Array | None = field(default=None, repr=False)
    y_val: Array | None = field(default=None, repr=False)
    X_ood: Array | None = field(default=None, repr=False)
    class_names: tuple[str, ...] = ()
    task: Task = "classification"
    name: str = "features"
    X_ood_test: Array | None = field(default=None, repr=False)
    extraction: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        task = _checked_task(self.task)
        if (self.X_val is None) != (self.y_val is None):
            there, lacking = ("y_val", "X_val") if self.X_val is None else ("X_val", "y_val")
            raise InputError(f"{there} is given without {lacking}; give both or neither")

        parts: dict[str, tuple[Array, Array]] = {}
        for part in ("train", "test", "val"):
            features, targets = getattr(self, f"X_{part}"), getattr(self, f"y_{part}")
            if part == "val" and features is None:
                continue
            x = _features(f"X_{part}", features)
            convert = _labels if task == "classification" else _regression_targets
            y = convert(f"y_{part}", targets)
            if len(x) != len(y):
                raise InputError(
                    f"X_{part} has {len(x)} rows but y_{part} has {len(y)}; give one target for each row"
                )
            parts[part] = (x, y)
        if self.X_ood is None and self.X_ood_test is not None:
            raise InputError("X_ood_test is given without X_ood; give X_ood, or both")
        outside = {
            key: _features(key, getattr(self, key))
            for key in ("X_ood", "X_ood_test")
            if getattr(self, key) is not None
        }

        x_train, y_train = parts["train"]
        for label, x in {**{f"X_{part}": x for part, (x, _) in parts.items()}, **outside}.items():
            if x.shape[1] != x_train.shape[1]:
                raise InputError(
                    f"{label} has {x.shape[1]} features (columns) but X_train has {x_train.shape[1]};"
                    " take them all from the same backbone layer"
                )

        names = _checked_class_names(self.class_names)
        if task == "classification":
            names = _check_classes({f"y_{part}": y for part, (_, y) in parts.items()}, names)
        else:
            if names:
                raise InputError("class_names belongs to classification; leave it out for regression")
            for part, (_, y) in parts.items():
                if y.shape[1] != y_train.shape[1]:
                    raise InputError(
                        f"y_{part} has {y.shape[1]} targets (columns) but y_train has {y_train.shape[1]};"
                        " give the same targets in every part"
                    )

        for part, (x, y) in parts.items():
            object.__setattr__(self, f"X_{part}", x)
            object.__setattr__(self, f"y_{part}", y)
        for key, x in outside.items():
            object.__setattr__(self, key, x)
        object.__setattr__(self, "extraction", _checked_extraction(self.extraction))
        object.__setattr__(self, "class_names", names)
        object.__setattr__(self, "name", printable(str(self.name)))

    @property
    def n_train(self) -> int:
        """Number of training rows."""
        return int(self.X_train.shape[0])

    @property
    def n_test(self) -> int:
        """Number of test rows."""
        return int(self.X_test.shape[0])

    @property
    def n_features(self) -> int:
        """Number of features (columns), the same in every part."""
        return int(self.X_train.shape[1])

    @property
    def n_classes(self) -> int:
        """Number of classes; 0 for regression."""
        return len(self.class_names)

    @property
    def n_outputs(self) -> int:
        """Outputs a head needs: the number of classes, or of regression targets."""
        return self.n_classes if self.task == "classification" else int(self.y_train.shape[1])

    @property
    def is_mapped(self) -> bool:
        """Whether some features are left in their files."""
        return any(is_mapped(array) for array in self._arrays().values())

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 in hexadecimal (64 characters) over the task, the arrays and the class names.

        The hash is over the stored values, so it does not depend on the file's number format (as long
        as that holds the same values), on the file's name or on `name`.
        """
        digest = hashlib.sha256()
        arrays = self._arrays()
        head = {
            "task": self.task,
            "class_names": self.class_names,
            "arrays": [[key, list(array.shape)] for key, array in arrays.items()],
        }
        digest.update(json.dumps(head).encode("ascii") + b"\0")
        for array in arrays.values():
            # the byte order is fixed so that the hash is the same on every machine
            kind = "<i8" if array.dtype.kind == "i" else "<f4"
            for block in converted_blocks(array, kind):
                digest.update(block.data)
        return digest.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        # a mapped file is not sent to another process: that maps it itself
        return {key: MapReference.of(value) if is_mapped(value) else value for key, value in self.__dict__.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for key, value in state.items():
            self.__dict__[key] = value.open() if isinstance(value, MapReference) else value

    @classmethod
    def load(cls, path: str | os.PathLike[str], task: Task | None = None) -> FeatureSet:
        """Read a feature set from an .npz file or a folder of .npy files; only what is used is read.

        Parameters
        ----------
        path : path
            An .npz file with the arrays `X_train`, `y_train`, `X_test` and `y_test`, and optionally
            `X_val`, `y_val`, `X_ood`, `X_ood_test`, `class_names` (1-D, strings), `task` and `extraction`
            (0-d, strings). Other arrays are ignored. Pickled objects are never read. Or a folder with the same
            arrays as `X_train.npy` and so on; its features must be float16 or float32 in C order, and those of
            the training, validation and test rows stay on disk.
        task : {"classification", "regression"}, optional
            Overrides the file's `task`. Where neither states one, it is classification. For regression
            the file's `class_names` is ignored.

        Returns
        -------
        FeatureSet
            Its name is the file's name without the extension, or the folder's.

        Raises
        ------
        InputError
            If the file is missing, unreadable, damaged or incomplete, or breaks a rule of the class;
            the message starts with the path.
        """
        path = Path(path)
        source = printable(str(path))
        try:
            if task is not None:
                task = _checked_task(task)
            if is_feature_folder(path):
                return _from_folder(cls, path, task)
            with _open_file(path) as file, open_archive(file) as archive:
                return _from_archive(cls, archive, task, path.stem)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None

    def save(self, path: str | os.PathLike[str], dtype: Literal["float32", "float16"] = "float32") -> None:
        """Write the set to a compressed .npz file that :meth:`load` reads back.

        The file appears whole or not at all: it is written under a temporary name in the same folder
        and then renamed, replacing an older file of that name.

        Parameters
        ----------
        path : path
            File to write, used as given (no extension is added); its folder must exist.
        dtype : {"float32", "float16"}
            Number format of the features (targets keep theirs). float16 halves the file and rounds to
            about 3 significant digits; its largest number is 65504.

        Raises
        ------
        InputError
            If `dtype` is another, if a feature overflows float16, or if the file cannot be written.
        """
        path = Path(path)
        arrays, kinds = self._to_write(printable(str(path)), dtype)
        with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "x", zipfile.ZIP_DEFLATED) as archive:
            for key, array in arrays.items():
                kind = kinds.get(key, array.dtype.str)
                write_blocks(archive, key, converted_blocks(array, kind), array.shape, kind)

    def save_folder(self, path: str | os.PathLike[str], dtype: Literal["float32", "float16"] = "float32") -> None:
        """Write the set as a folder of .npy files that :meth:`load` reads back, features left on disk.

        The folder appears whole or not at all. It takes the place of an empty folder, and of nothing else.

        Parameters
        ----------
        path : path
            Folder to write; the one that it is to be in must exist.
        dtype : {"float32", "float16"}
            Number format of the features, as for :meth:`save`.

        Raises
        ------
        InputError
            If `dtype` is another, if a feature overflows float16, if something is there already, or if the folder
            cannot be written.

        Examples
        --------
        >>> FeatureSet.load("features.npz").save_folder("features", "float16")  # doctest: +SKIP
        """
        path = Path(path)
        write_folder(path, *self._to_write(printable(str(path)), dtype))

    def _to_write(self, target: str, dtype: str) -> tuple[dict[str, Array], dict[str, str]]:
        """Arrays by name, and the number formats of those that are written in another than their own."""
        if dtype not in ("float32", "float16"):
            raise InputError(f"{target}: dtype is {dtype!r}; use 'float32' or 'float16'")
        arrays = self._arrays()
        kinds = {key: np.dtype(dtype).newbyteorder("<").str for key in arrays if key.startswith("X_")}
        for key in kinds if dtype == "float16" else ():
            start, spot = _first_in_blocks(arrays[key], _overflows_half)
            if spot is not None:
                spot = (start + spot[0], spot[1])
                raise InputError(
                    f"{target}: {key} overflows float16 at {_where(spot)}"
                    f" (value {arrays[key][spot]:g}); save as float32"
                )
        if self.class_names:
            arrays["class_names"] = np.array(self.class_names, dtype=np.str_)
        arrays["task"] = np.array(self.task, dtype=np.str_)
        if self.extraction:
            arrays["extraction"] = np.array(self.extraction, dtype=np.str_)
        return arrays, kinds

    def _arrays(self) -> dict[str, Array]:
        return {key: value for key in _ARRAYS if (value := getattr(self, key)) is not None}


# --- reading and writing files ---------------------------------------------------------------------


def _open_file(path: Path) -> BinaryIO:
    try:
        if path.is_dir():
            raise InputError(
                "is a directory without X_train.npy; give the path of an .npz file, or of a folder with"
                " X_train.npy, y_train.npy, X_test.npy and y_test.npy"
            )
        if path.exists() and not path.is_file():
            raise InputError("is not a regular file; give the path of an .npz file")
        return open(path, "rb")
    except FileNotFoundError:
        raise InputError("no such file; check the path") from None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error}); check the path") from None
    except ValueError as error:  # a NUL character in the path
        if isinstance(error, InputError):
            raise
        raise InputError(f"is not a possible path ({error}); check the path") from None


def _from_archive(cls: type[FeatureSet], archive: zipfile.ZipFile, task: Task | None, name: str) -> FeatureSet:
    members = [n[: -len(".npy")] for n in archive.namelist() if n.endswith(".npy")]

    def read(key: str) -> Array:
        if not key.startswith("X_"):
            return read_array(archive, key, _LARGEST_STRINGS.get(key))
        array = read_array(archive, key, becomes=np.float32)
        _give_up(array)
        # converted one by one: a float64 file needs room for one float64 array, not for all
        return _features(key, array)

    def size_of(key: str) -> int:
        return archive.getinfo(f"{key}.npy").file_size

    return _from_members(cls, members, read, size_of, task, name)


def _from_folder(cls: type[FeatureSet], folder: Path, task: Task | None) -> FeatureSet:
    try:
        members = sorted(path.stem for path in folder.iterdir() if path.suffix == ".npy")
        name = folder.resolve().name
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error}); check its permissions") from None

    def read(key: str) -> Array:
        array = map_array(folder / f"{key}.npy")
        if array.nbytes > _LARGEST_STRINGS.get(key, array.nbytes):
            raise InputError(f"{key}.npy is larger than any such array; write it again")
        if key in _IN_MEMORY or not key.startswith("X_"):
            check_room(array.nbytes, f"{key}.npy", "save fewer rows")
        if not key.startswith("X_"):
            return np.array(array)
        if array.size and not is_mapped(array):
            raise InputError(
                f"{key}.npy is {array.dtype}; save it as float16 or float32, as it is used straight from disk"
            )
        # rows from elsewhere are compared with one another as a whole
        return array if key not in _IN_MEMORY else np.array(array)

    def size_of(key: str) -> int:
        try:
            return (folder / f"{key}.npy").stat().st_size
        except OSError:
            return 0

    return _from_members(cls, members, read, size_of, task, name)


def _from_members(
    cls: type[FeatureSet],
    members: Sequence[str],
    read: Callable[[str], Array],
    size_of: Callable[[str], int],
    task: Task | None,
    name: str,
) -> FeatureSet:
    for key in ("X_train", "y_train", "X_test", "y_test"):
        if key not in members:
            listed = ", ".join(printable(member) for member in members[:_MAX_LISTED]) or "no arrays"
            more = f" and {len(members) - _MAX_LISTED} more" if len(members) > _MAX_LISTED else ""
            raise InputError(f"has no array {key!r}; it holds {listed}{more}; add {key!r}")

    if task is None:
        task = "classification"
        if "task" in members:
            stated = read("task")
            if stated.ndim != 0 or stated.dtype.kind != "U":
                raise InputError(
                    f"array 'task' is {stated.dtype} of shape {stated.shape};"
                    " save one string, 'classification' or 'regression'"
                )
            task = _checked_task(_strings(stated, "task")[0])

    arrays = {key: read(key) for key in _ARRAYS if key in members}
    names: tuple[str, ...] = ()
    if task == "classification" and "class_names" in members:
        stored = read("class_names")
        if stored.ndim != 1 or stored.dtype.kind != "U":
            raise InputError(
                f"class_names is {stored.dtype} of shape {stored.shape}, not a 1-D array of strings;"
                " save one string for each class"
            )
        names = _strings(stored, "class_names")
    extraction = ""
    if "extraction" in members:
        # looked at before anything is read, as it may be any size
        if size_of("extraction") > _LARGEST_STRINGS["extraction"]:
            raise InputError("extraction is longer than 1 MiB; save a shorter description, or leave it out")
        extraction = _stored_extraction(read("extraction"))
    return cls(**arrays, class_names=names, task=task, name=name, extraction=extraction)


def _stored_extraction(stored: Array) -> str:
    if stored.ndim != 0 or stored.dtype.kind != "U":
        raise InputError(
            f"array 'extraction' is {stored.dtype} of shape {stored.shape};"
            " save one string that says how the features were made, or leave it out"
        )
    return _strings(stored, "extraction")[0]


def _strings(array: Array, name: str) -> tuple[str, ...]:
    try:
        return tuple(str(item) for item in array.ravel().tolist())
    except (ValueError, SystemError):  # the latter for numbers far beyond Unicode
        raise InputError(f"array {name!r} holds bytes that are no text; save plain strings") from None


# --- checking and converting arrays ----------------------------------------------------------------


def _checked_task(task: object) -> Task:
    for known in get_args(Task):
        if isinstance(task, str) and task == known:
            return known  # type: ignore[no-any-return]
    shown = repr(task)
    raise InputError(f"task is {shown[:40]}; use 'classification' or 'regression'")


def _checked_extraction(text: object) -> str:
    if not isinstance(text, str):
        raise InputError(f"extraction is {type(text).__name__}, not a string; give JSON text, or leave it out")
    if len(text) > _LARGEST_EXTRACTION or len(text.encode("utf-8", "surrogatepass")) > _LARGEST_EXTRACTION:
        raise InputError("extraction is longer than 1 MiB; give a shorter description, or leave it out")
    if text:
        try:
            record = json.loads(text, parse_constant=_no_number)
            json.dumps(record)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise InputError("extraction is no JSON object; write one, or leave it out")
    return text


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number in JSON")


def _numeric(name: str, value: object) -> Array:
    if value is None:
        raise InputError(f"{name} is None; give an array of numbers")
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise InputError(f"{name} is not an array ({_reason(error)}); give an array of numbers") from None
    if array.dtype.kind not in "fiu":
        kind = {
            "b": "a bool array",
            "O": "an object array",
            "U": "an array of strings",
            "S": "an array of bytes strings",
            "c": "an array of complex numbers",
        }.get(array.dtype.kind, f"an array of {array.dtype}")
        raise InputError(f"{name} is {kind}; convert it to {_wanted(name)}")
    return array


def _wanted(name: str) -> str:
    if name.startswith("X_"):
        return "a 2-D float array"
    return "integers 0..C-1, with the names in class_names (for regression: to floats)"


def _features(name: str, value: object) -> Array:
    array = value if is_mapped(value) else _numeric(name, value)
    if array.ndim != 2:
        raise InputError(f"{name} is {array.ndim}-D (shape {array.shape}); reshape it to 2-D, (rows, features)")
    if array.shape[0] == 0:
        raise InputError(f"{name} has zero rows; give at least one row or leave the part out")
    if array.shape[1] == 0:
        raise InputError(f"{name} has zero columns; give at least one feature")
    return _finite_float32(name, array)


def _regression_targets(name: str, value: object) -> Array:
    array = _numeric(name, value)
    if array.ndim == 1:
        array = array[:, np.newaxis]
    if array.ndim != 2 or array.shape[1] == 0:
        raise InputError(f"{name} has shape {array.shape}; give (rows,) or (rows, targets)")
    return _finite_float32(name, array)


def _labels(name: str, value: object) -> Array:
    array = _numeric(name, value)
    if array.dtype.kind == "f":
        raise InputError(
            f"{name} holds {array.dtype} values, not integer labels;"
            f" convert labels to integers 0..C-1, or, {_REGRESSION_HINT}"
        )
    if array.ndim != 1:
        raise InputError(
            f"{name} is {array.ndim}-D (shape {array.shape}); give 1-D labels, one integer for each row"
        )
    spot = _first(array < 0)
    if spot is not None:
        raise InputError(f"{name} has the negative label {array[spot]} at {_where(spot)}; use labels 0..C-1")
    # a uint64 label beyond int64 would turn negative
    spot = _first(array > np.uint64(np.iinfo(np.int64).max)) if array.dtype == np.uint64 else None
    if spot is not None:
        raise InputError(f"{name} has the label {array[spot]} at {_where(spot)}; use labels 0..C-1")
    return _frozen(array, np.dtype(np.int64))


def _finite_float32(name: str, array: Array) -> Array:
    result = array if is_mapped(array) else _frozen(array, np.dtype(np.float32))
    # a number of Python would be turned into float16, which cannot hold it
    limit = np.float32(_LARGEST_TRAINED_ON) if name in _TRAINED_ON else np.finfo(np.float32).max
    # negated, as NaN is not less than anything either
    start, spot = _first_in_blocks(result, lambda block: ~(np.abs(block) <= limit))
    if spot is None:
        return result
    spot = (start + spot[0], *spot[1:])
    value = array[spot]
    if np.isfinite(result[spot]):
        raise InputError(
            f"{name} holds {value:g} at {_where(spot)}; scale it down: products of numbers beyond {limit:g}"
            " overflow float32"
        )
    if np.isfinite(value):
        raise InputError(f"{name} overflows float32 at {_where(spot)} (value {value:g}); scale it down")
    what = "NaN" if np.isnan(value) else "infinity"
    raise InputError(f"{name} holds {what} at {_where(spot)}; remove or replace such values")


def _frozen(array: Array, dtype: np.dtype[Any]) -> Array:
    """Return the array as read-only, C-contiguous `dtype`; copied unless nobody can write to it."""
    if array.dtype == dtype and array.flags.c_contiguous and _is_frozen(array):
        return array
    # overflow is looked for afterwards, where row and column are known
    with np.errstate(all="ignore"):
        result: Array = np.array(array, dtype=dtype, order="C", copy=True)
    result.flags.writeable = False
    return result


def _give_up(array: Array) -> None:
    """Make an array that nobody else has read-only, so that it need not be copied."""
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner.flags.writeable = False
        owner = owner.base


def _is_frozen(array: Array) -> bool:
    # a read-only view does not help if the array it looks at is writable
    owner: object = array
    while isinstance(owner, np.ndarray):
        if owner.flags.writeable:
            return False
        owner = owner.base
    return owner is None


def _checked_class_names(names: Iterable[object]) -> tuple[str, ...]:
    if isinstance(names, str | bytes) or not isinstance(names, Iterable):
        raise InputError("class_names is not a sequence of strings; give one string for each class")
    checked = []
    for index, name in enumerate(names):
        if not isinstance(name, str):
            raise InputError(
                f"class_names[{index}] is {type(name).__name__}, not a string; give one string for each class"
            )
        checked.append(printable(name))
    return tuple(checked)


def _check_classes(labels: dict[str, Array], names: tuple[str, ...]) -> tuple[str, ...]:
    """Check the labels of all parts against the classes of `y_train`; return the class names."""
    found = np.unique(labels["y_train"])
    if found.size == 1:
        raise InputError(f"y_train holds only one class (label {found[0]}); give rows of at least two classes")
    largest = int(found[-1])
    if names and len(names) <= largest:
        raise InputError(
            f"class_names has {len(names)} names but y_train has labels up to {largest}; give {largest + 1} names"
        )
    if found[0] != 0:
        raise InputError(
            f"y_train's labels do not start at 0 (the smallest is {found[0]});"
            " renumber the labels of every part 0..C-1"
        )
    n_classes = len(names) or largest + 1
    if found.size < n_classes:
        # no array of n_classes entries is made: one absurd label must not fill the memory
        misplaced = np.flatnonzero(found != np.arange(found.size))
        missing = int(misplaced[0]) if misplaced.size else int(found.size)
        title = f"{missing} ({names[missing]})" if names else str(missing)
        more = n_classes - found.size - 1
        also = f", nor of {more} other classes" if more else ""
        raise InputError(
            f"y_train has no row of class {title}{also};"
            f" add training rows or renumber the labels without gaps (classes are 0..{n_classes - 1})"
        )
    for key, y in labels.items():
        spot = _first(y >= n_classes)
        if spot is not None:
            raise InputError(
                f"{key} has the label {y[spot]} at {_where(spot)}, outside the classes 0..{n_classes - 1}"
                " of y_train; remove such rows or add the class to y_train"
            )
    return names or tuple(str(index) for index in range(n_classes))


# --- words -----------------------------------------------------------------------------------------


def _first(mask: npt.NDArray[np.bool_]) -> tuple[int, ...] | None:
    """Index of the first true entry in row order, or None."""
    if not mask.any():
        return None
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(mask)), mask.shape))


def _first_in_blocks(
    array: Array, condition: Callable[[Array], npt.NDArray[np.bool_]]
) -> tuple[int, tuple[int, ...] | None]:
    """First row of the block that has an entry with a condition, and the entry's place in it; or None."""
    for piece in row_blocks(array):
        spot = _first(condition(np.asarray(array[piece])))
        if spot is not None:
            return piece.start, spot
    return 0, None


def _overflows_half(block: Array) -> npt.NDArray[np.bool_]:
    with np.errstate(over="ignore", under="ignore"):
        overflows: npt.NDArray[np.bool_] = np.isinf(block.astype(np.float16))
    return overflows


def _where(spot: tuple[int, ...]) -> str:
    place = f"row {spot[0]}" if len(spot) == 1 else f"row {spot[0]}, column {spot[1]}"
    return f"{place} (counted from 0)"


def _reason(error: Exception) -> str:
    return printable(f"{error}"[:200]) or type(error).__name__
