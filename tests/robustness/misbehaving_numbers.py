"""Numbers that misbehave: data sets whose values break naive code, with every setting that could break on them.

As a script it draws some hundreds of combinations of data, number format, encoding, objectives, search and head,
and takes each through Python or through the commands to the last page. A combination is finished, or refused in
one line before any work; anything else is a loss: a traceback, a warning that reaches the user, a value out of
its range, a NaN in a file, or a line that is said twice.

    python tests/robustness/misbehaving_numbers.py --combinations 300 --seed 1
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import re
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, Any]
Generator = np.random.Generator

N_TRAIN, N_TEST, N_FEATURES = 36, 18, 6
_LARGEST = float(np.finfo(np.float32).max)


# --- data ------------------------------------------------------------------------------------------


def classes(generator: Generator, n_classes: int = 3) -> Arrays:
    """Well-behaved: every class with a centre of its own, rows of all classes in both parts."""
    labels = np.arange(N_TRAIN + N_TEST) % n_classes
    centres = generator.normal(scale=2.0, size=(n_classes, N_FEATURES))
    rows = centres[labels] + generator.normal(size=(N_TRAIN + N_TEST, N_FEATURES))
    return {
        "X_train": rows[:N_TRAIN],
        "y_train": labels[:N_TRAIN],
        "X_test": rows[N_TRAIN:],
        "y_test": labels[N_TRAIN:],
        "X_ood": generator.normal(scale=4.0, size=(20, N_FEATURES)),
    }


def targets(generator: Generator, noise: float = 0.3, n_targets: int = 1) -> Arrays:
    """Well-behaved regression: a line with noise."""
    rows = generator.normal(size=(N_TRAIN + N_TEST, N_FEATURES))
    values = rows @ generator.normal(size=(N_FEATURES, n_targets)) + noise * generator.normal(
        size=(len(rows), n_targets)
    )
    return {
        "X_train": rows[:N_TRAIN],
        "y_train": values[:N_TRAIN],
        "X_test": rows[N_TRAIN:],
        "y_test": values[N_TRAIN:],
        "task": "regression",
    }


def with_features(data: Arrays, change: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]) -> Arrays:
    """Data whose features, of all parts alike, are changed."""
    return {key: change(value) if key.startswith("X_") else value for key, value in data.items()}


def _column(value: float, column: int = 1) -> Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]:
    def change(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        rows = rows.copy()
        rows[:, column] = value
        return rows

    return change


def _outlier(size: float) -> Callable[[Generator], Arrays]:
    def make(generator: Generator) -> Arrays:
        data = classes(generator)
        data["X_train"][3, 2] = size
        return data

    return make


def _test_outlier(generator: Generator) -> Arrays:
    data = classes(generator)
    data["X_test"][0, 2], data["X_ood"][0, 1] = 3e38, -3e38
    return data


def _equal_rows(generator: Generator) -> Arrays:
    return with_features(classes(generator), lambda rows: np.repeat(rows[:1], len(rows), axis=0))


def _doubled_rows(generator: Generator) -> Arrays:
    data = classes(generator)
    return {key: np.concatenate([value, value]) for key, value in data.items()}


def _one_row_class(generator: Generator) -> Arrays:
    data = classes(generator)
    data["y_train"] = np.where(np.arange(N_TRAIN) == 5, 3, data["y_train"])
    return data


def _one_row_class_with_validation(generator: Generator) -> Arrays:
    data = _one_row_class(generator)
    data["X_val"], data["y_val"] = data["X_test"][:9], data["y_test"][:9]
    return data


def _imbalanced(generator: Generator) -> Arrays:
    data = classes(generator, 2)
    rows = generator.normal(size=(2002, N_FEATURES))
    labels = np.zeros(len(rows), dtype=np.int64)
    labels[[7, 1500]] = 1
    return {**data, "X_train": rows, "y_train": labels}


def _missing_in_test(generator: Generator) -> Arrays:
    data = classes(generator)
    return {**data, "y_test": np.zeros_like(data["y_test"])}


def _missing_in_validation(generator: Generator) -> Arrays:
    data = classes(generator)
    return {**data, "X_val": data["X_test"], "y_val": np.ones_like(data["y_test"])}


def _few_rows(n_rows: int) -> Callable[[Generator], Arrays]:
    def make(generator: Generator) -> Arrays:
        data = classes(generator, 2)
        return {**data, "X_train": data["X_train"][:n_rows], "y_train": data["y_train"][:n_rows]}

    return make


def _one_test_row(generator: Generator) -> Arrays:
    data = classes(generator)
    return {**data, "X_test": data["X_test"][:1], "y_test": data["y_test"][:1]}


def _one_class(generator: Generator) -> Arrays:
    data = classes(generator)
    return {**data, "y_train": np.zeros_like(data["y_train"]), "y_test": np.zeros_like(data["y_test"])}


def _many_classes(generator: Generator) -> Arrays:
    data = classes(generator, 12)
    return data


def _equal_labels_for_equal_rows(generator: Generator) -> Arrays:
    # the classes are told apart exactly, by one feature without any spread inside a class
    data = classes(generator)
    for part in ("train", "test"):
        data[f"X_{part}"][:, 0] = data[f"y_{part}"]
    return data


def _mixed_sizes(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return rows * np.array([1e30, 1e-30, 1.0, 1e15, 1e-15, 0.0])


def _signed_largest(generator: Generator) -> Arrays:
    return with_features(classes(generator), lambda rows: np.where(rows > 0, _LARGEST, -_LARGEST))


def _mostly_largest(generator: Generator) -> Arrays:
    data = with_features(classes(generator), lambda rows: np.full_like(rows, -_LARGEST))
    data["X_train"][::7], data["X_test"][::5] = _LARGEST, _LARGEST
    return data


def _half_largest(generator: Generator) -> Arrays:
    return with_features(classes(generator), lambda rows: np.clip(rows * 30000.0, -65504.0, 65504.0))


def _constant_targets(value: float) -> Callable[[Generator], Arrays]:
    def make(generator: Generator) -> Arrays:
        data = targets(generator)
        return {**data, "y_train": np.full_like(data["y_train"], value), "y_test": data["y_test"] * 0 + value}

    return make


def _scaled_targets(scale: float, offset: float = 0.0) -> Callable[[Generator], Arrays]:
    def make(generator: Generator) -> Arrays:
        data = targets(generator)
        return {**data, "y_train": data["y_train"] * scale + offset, "y_test": data["y_test"] * scale + offset}

    return make


def _one_constant_target(generator: Generator) -> Arrays:
    data = targets(generator, n_targets=2)
    data["y_train"][:, 1] = data["y_test"][:, 1] = 7.0
    return data


def _largest_targets(generator: Generator) -> Arrays:
    data = targets(generator)
    signs = {key: np.where(data[key] > 0, _LARGEST, -_LARGEST) for key in ("y_train", "y_test")}
    return {**data, **signs}


def _outlying_target(generator: Generator) -> Arrays:
    data = targets(generator)
    data["y_train"][4] = 1e20
    return data


def _subnormal_targets(generator: Generator) -> Arrays:
    return _scaled_targets(1e-42)(generator)


CLASSIFICATION: dict[str, Callable[[Generator], Arrays]] = {
    "ordinary": classes,
    "one constant feature": lambda g: with_features(classes(g), _column(5.0)),
    "one huge constant feature": lambda g: with_features(classes(g), _column(1e30)),
    "all features constant": lambda g: with_features(classes(g), lambda rows: np.full_like(rows, 3.7)),
    "all features zero": lambda g: with_features(classes(g), np.zeros_like),
    "duplicated columns": lambda g: with_features(classes(g), lambda rows: np.repeat(rows[:, :2], 3, axis=1)),
    "duplicated rows": _doubled_rows,
    "all rows equal": _equal_rows,
    "one-row class": _one_row_class,
    "one-row class, own validation rows": _one_row_class_with_validation,
    "twelve classes of three rows": _many_classes,
    "2 rows": _few_rows(2),
    "4 rows": _few_rows(4),
    "one class": _one_class,
    "one test row": _one_test_row,
    "features of 1e30": lambda g: with_features(classes(g), lambda rows: rows * 1e30),
    "features of 1e-30": lambda g: with_features(classes(g), lambda rows: rows * 1e-30),
    "features of 1e30 and 1e-30": lambda g: with_features(classes(g), _mixed_sizes),
    "features of 1e38": lambda g: with_features(classes(g), lambda rows: np.clip(rows, -3, 3) * 1e38),
    "largest of float32, both signs": _signed_largest,
    "largest of float32, mostly negative": _mostly_largest,
    "subnormal features": lambda g: with_features(classes(g), lambda rows: rows * 1e-41),
    "smallest subnormal features": lambda g: with_features(classes(g), lambda rows: np.sign(rows) * 1.4e-45),
    "largest of float16": _half_largest,
    "huge offset, tiny variance": lambda g: with_features(classes(g), lambda rows: 1e8 + rows * 1e-3),
    "offset that float32 just resolves": lambda g: with_features(classes(g), lambda rows: 1e6 + rows),
    "one outlier of 1e20": _outlier(1e20),
    "one outlier of 1e38": _outlier(1e38),
    "outliers in test and OoD rows": _test_outlier,
    "labels 1 in 1000": _imbalanced,
    "classes missing from the test part": _missing_in_test,
    "classes missing from the validation part": _missing_in_validation,
    "classes told apart exactly": _equal_labels_for_equal_rows,
    "one feature": lambda g: with_features(classes(g), lambda rows: rows[:, :1]),
    "minus zero and zero": lambda g: with_features(classes(g), lambda rows: np.where(rows > 0, 0.0, -0.0)),
}

REGRESSION: dict[str, Callable[[Generator], Arrays]] = {
    "ordinary targets": targets,
    "constant targets": _constant_targets(3.0),
    "targets of zero": _constant_targets(0.0),
    "constant targets of 1e30": _constant_targets(1e30),
    "targets of 1e30": _scaled_targets(1e30),
    "targets of 1e-30": _scaled_targets(1e-30),
    "subnormal targets": _subnormal_targets,
    "targets at an offset of 1e6": _scaled_targets(1.0, 1e6),
    "exactly linear targets": lambda g: targets(g, noise=0.0),
    "one of two targets constant": _one_constant_target,
    "largest of float32 as targets": _largest_targets,
    "one target of 1e20": _outlying_target,
    "regression, features of 1e30": lambda g: with_features(targets(g), lambda rows: rows * 1e30),
    "regression, all features zero": lambda g: with_features(targets(g), np.zeros_like),
    "regression, duplicated columns": lambda g: with_features(
        targets(g), lambda rows: np.repeat(rows[:, :2], 3, axis=1)
    ),
    "regression, largest of float32": lambda g: with_features(
        targets(g), lambda rows: np.where(rows > 0, _LARGEST, -_LARGEST)
    ),
}

DATA = {**CLASSIFICATION, **REGRESSION}

# --- settings --------------------------------------------------------------------------------------

FORMATS = ("float32", "float64", "float16")
ENCODINGS = ("features", "neurons", "neurons:2", "features+neurons", "connections")
OBJECTIVES = {
    "classification": (
        "accuracy,active_neurons",
        "accuracy,active_neurons,cka:noise",
        "accuracy,active_neurons,cka:dense",
        "accuracy,active_neurons,ood_auroc",
        "accuracy,active_neurons,ood_auroc:msp,ood_auroc:energy",
        "accuracy,active_neurons,ood_auroc:odin,cka",
    ),
    "regression": ("r2,active_neurons", "mse,active_neurons", "r2,active_neurons,cka:noise,cka:dense", "r2,mse"),
}
ALGORITHMS = (
    "guided",
    "nsga2",
    "reference",
    "evo_prune_deeptl",
    "deep_pruning_es",
    "nsga3",
    "sms_emoa",
    "spea2",
    "random",
)
HEADS: dict[str, tuple[str, ...]] = {
    "default": (),
    "raw features": ("standardise=false",),
    "rate 1": ("learning_rate=1.0",),
    "rate 100": ("learning_rate=100.0",),
    "rate 1e6": ("learning_rate=1e6",),
    "rate 1e6, adam": ("learning_rate=1e6", 'optimiser="adam"'),
    "adam": ('optimiser="adam"', "learning_rate=0.01"),
    "no hidden layer": ("hidden=[]",),
    "stopped by validation": ('early_stop="validation"', "weight_decay=0.01"),
    "paper": ("preset=paper",),
}
AFTERWARDS = (
    ("show",),
    ("plot",),
    ("explain",),
    ("ensemble", "--how", "greedy"),
    ("ensemble", "--voting", "hard", "--how", "all"),
    ("robustness", "--repeats", "2", "--noise", "0,1,1000"),
    ("export", "onnx"),
    ("export", "safetensors", "--member", "ensemble"),
    ("export", "pt2", "--member", "best"),
    ("report",),
)

RANGES = {
    "accuracy": (0.0, 1.0),
    "active_neurons": (0.0, 1.0),
    # clipped from above only
    "cka": (-2.0, 1.0),
    "ood_auroc": (0.0, 1.0),
    "r2": (-1e3, 1.0),
    "mse": (0.0, 1e85),
}


@dataclass(frozen=True)
class Combination:
    """One attempt: which data, written in which number format, and how they are searched."""

    data: str
    number_format: str
    encoding: str
    objectives: str
    algorithm: str
    head: str
    cv: int | None
    commands: bool

    def __str__(self) -> str:
        way = "commands" if self.commands else "Python"
        parts = (self.data, self.number_format, self.encoding, self.objectives, self.algorithm, self.head)
        return f"{' | '.join(parts)} | cv={self.cv} | {way}"


def head_options(combination: Combination) -> list[str]:
    """``--set`` values of a combination; small heads, so that hundreds take minutes."""
    chosen = list(HEADS[combination.head])
    if not any(option.startswith("hidden") for option in chosen):
        chosen.append("hidden=[5,4]" if combination.encoding == "neurons:2" else "hidden=[5]")
    return [*chosen, "epochs=5", "batch_size=16", "patience=2"]


def draw(generator: Generator, data: str, commands: bool) -> Combination:
    """Draw the settings for a data set."""
    task = "regression" if data in REGRESSION else "classification"

    def one_of(choices: Sequence[Any]) -> Any:
        return choices[int(generator.integers(len(choices)))]

    return Combination(
        data,
        one_of(FORMATS),
        one_of(ENCODINGS),
        one_of(OBJECTIVES[task]),
        one_of(ALGORITHMS),
        one_of(tuple(HEADS)),
        one_of((None, 1, 2, 3)),
        commands,
    )


def make_data(combination: Combination, seed: int) -> Arrays:
    """Arrays of a combination in its number format, as somebody would save them."""
    data = DATA[combination.data](np.random.default_rng(seed))
    with np.errstate(all="ignore"):
        return {
            key: value.astype(combination.number_format) if key.startswith("X_") else value
            for key, value in data.items()
        }


# --- carrying out ----------------------------------------------------------------------------------


class Loss(Exception):
    """What must not happen."""


@dataclass
class Outcome:
    """What became of a combination: ``finished``, ``refused`` or ``lost``, and the line or traceback."""

    kind: str
    text: str = ""


def attempt(combination: Combination, seed: int, folder: Path) -> Outcome:
    """Carry out a combination; nothing is raised."""
    way = by_commands if combination.commands else by_python
    return guarded(lambda: way(combination, seed, folder))


def guarded(carry_out: Callable[[], Outcome]) -> Outcome:
    """Carry out an attempt, and make a loss of whatever it raises or warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # third-party: not ours to mend
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="pymoo")
        warnings.filterwarnings("ignore", category=PendingDeprecationWarning, module="pymoo")
        try:
            outcome = carry_out()
        except Loss as loss:
            outcome = Outcome("lost", str(loss))
        except Exception:
            outcome = Outcome("lost", traceback.format_exc())
    if caught:
        said = sorted({f"{w.category.__name__} at {w.filename}:{w.lineno}: {w.message}" for w in caught})
        return Outcome("lost", "\n".join([*said, outcome.text]))
    return outcome


def by_python(combination: Combination, seed: int, folder: Path) -> Outcome:
    """Search through the classes, and look at the front."""
    from moevoprune import FeatureSet, HeadSettings, PruningProblem, evolve
    from moevoprune.errors import InputError

    changes: dict[str, Any] = {}
    preset = "default"
    for option in head_options(combination):
        key, _, value = option.partition("=")
        if key == "preset":
            preset = value
        else:
            changes[key] = json.loads(value)
    try:
        features = FeatureSet(**make_data(combination, seed), name="misbehaving")
        problem = PruningProblem(
            features,
            combination.encoding,
            combination.objectives.split(","),
            HeadSettings.preset(preset, **changes),
            combination.cv,
            seed,
            "cpu",
        )
    except InputError as error:
        return Outcome("refused", one_line(str(error)))
    with problem:
        try:
            front = evolve(problem, 6, 2, algorithm=combination.algorithm, seed=seed)
        except InputError as error:
            # what only the search can know, such as that it needs another encoding; nothing has been trained
            if problem.n_trained:
                raise
            return Outcome("refused", one_line(str(error)))
        check_front(front, problem)
    return Outcome("finished")


def check_front(front: Any, problem: Any) -> None:
    """Check that a front is finite, in range, without dominated or repeated members."""
    for axis, column, dense in zip(front.axes, front.values.T, front.dense_values, strict=True):
        low, high = RANGES[axis.name.split(":")[0]]
        for name, values in (("members", column), ("the dense head", np.array([dense]))):
            if not (np.isfinite(values).all() and (low <= values).all() and (values <= high).all()):
                raise Loss(f"{axis.name} of {name} is {values.tolist()}, not within {low} .. {high}")
    if not np.isfinite([*front.test, front.dense_test, *front.F.ravel()]).all():
        raise Loss(f"test scores {front.test.tolist()} and {front.dense_test}, losses {front.F.tolist()}")
    if len(front) == 0:
        raise Loss("the front is empty")
    if len(np.unique(front.masks, axis=0)) < len(front):
        raise Loss("a mask is in the front twice")
    losses = front.F
    worse = (losses[:, None] >= losses).all(-1) & (losses[:, None] > losses).any(-1)
    if worse.any() and problem.max_active is None:
        raise Loss(f"members are dominated: {losses.tolist()}")
    if not 0.0 <= front.hypervolume() <= 1.0 + 1e-9:
        raise Loss(f"the hypervolume is {front.hypervolume()}")
    front.knee(), front.correlations()


def by_commands(combination: Combination, seed: int, folder: Path) -> Outcome:
    """Go through ``moevoprune run`` and whatever looks at its folder."""
    folder.mkdir()
    data, out = folder / "misbehaving.npz", folder / "run"
    with np.errstate(all="ignore"):
        np.savez(data, **make_data(combination, seed))
    arguments = ["run", str(data), "--out", str(out), "--seed", str(seed), "--pop", "6", "--gens", "2"]
    arguments += ["--encoding", combination.encoding, "--objectives", combination.objectives]
    arguments += ["--algorithm", combination.algorithm, "--jobs", "1"]
    arguments += [] if combination.cv is None else ["--cv", str(combination.cv)]
    for option in head_options(combination):
        arguments += ["--set", option]
    code, text, complaint = command(arguments)
    if code == 2:
        if (out / "journal.jsonl").exists() or (out / "front.csv").exists():
            raise Loss(f"refused after work began: {complaint}")
        return Outcome("refused", one_line(complaint.strip()))
    if code != 0 or complaint:
        raise Loss(f"exit code {code}, said on stderr: {complaint}")
    check_said_once(text)
    check_files(out)
    for name, *options in AFTERWARDS:
        where = [str(out)]
        if name == "export":
            where += ["--to", str(folder / f"head.{options.pop(0)}")]
        if name == "explain":
            where += ["--out", str(folder / "explanation")]
        code, text, complaint = command([name, *where, *options])
        lines = complaint.strip().splitlines()
        if code == 2 and len(lines) == 1 and allowed_refusal(name, lines[0]):
            continue
        if code != 0 or complaint:
            raise Loss(f"{name} {' '.join(options)}: exit code {code}, said on stderr: {complaint}")
        check_said_once(text)
    check_files(folder)
    return Outcome("finished")


# what is wrong with the data, by what `moevoprune construct` is given, and what `moevoprune filters` is
CONSTRUCTED = {
    "constant column": {"n": 48, "change": {"a": "3"}},
    "constant column of 1e30": {"n": 48, "change": {"a": "1e30"}},
    "columns of 1e30 and 1e-30": {"n": 48, "times": {"a": 1e30, "b": 1e-30}},
    "all columns zero": {"n": 48, "change": {"a": "0", "b": "0", "c": "0"}},
    "one-row class": {"n": 48, "target": ["x"] * 47 + ["y"]},
    "one class": {"n": 48, "target": ["x"] * 48},
    "2 rows": {"n": 2, "target": ["x", "y"]},
    "constant target": {"n": 48, "target": [2.5] * 48, "task": "regression"},
    "target of 1e30": {"n": 48, "target": 1e30, "task": "regression"},
    "target of 1e-30": {"n": 48, "target": 1e-30, "task": "regression"},
    "exactly linear target": {"n": 48, "target": 1.0, "task": "regression"},
    "rate of 1e6": {"n": 48, "options": ("--learning-rate", "1e6")},
    "rate of 1e6, regression": {
        "n": 48,
        "target": 1.0,
        "task": "regression",
        "options": ("--learning-rate", "1e6"),
    },
}


def construct_from(name: str, folder: Path, seed: int) -> Outcome:
    """Go through ``moevoprune construct`` with a table that misbehaves."""
    case: dict[str, Any] = CONSTRUCTED[name]
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(case["n"], 3))
    columns: dict[str, Sequence[Any]] = {}
    for letter, column in zip("abc", rows.T, strict=True):
        scaled = (column * case.get("times", {}).get(letter, 1.0)).tolist()
        columns[letter] = [case["change"][letter]] * len(rows) if letter in case.get("change", {}) else scaled
    target = case.get("target", ["x", "y"] * (len(rows) // 2))
    columns["t"] = (rows @ [1.0, -2.0, 0.5] * target).tolist() if isinstance(target, float) else target
    folder.mkdir()
    table = folder / "table.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    out = folder / "out"
    arguments = ["construct", str(table), "--target", "t", "--out", str(out), "--quick", "--jobs", "1"]
    arguments += ["--hidden", "6,4", "--epochs", "4", "--cv", "2", "--budget", "6", "--seed", str(seed)]
    arguments += ["--task", case["task"]] if "task" in case else []
    return finished_or_refused([*arguments, *case.get("options", ())], out)


FILTERED = (
    "constant images",
    "black images",
    "equal channels and classes",
    "one-row class",
    "one class",
    "4 images",
)


def filters_from(name: str, folder: Path, seed: int) -> Outcome:
    """Go through ``moevoprune filters`` with images that misbehave."""
    generator = np.random.default_rng(seed)
    n = 4 if name == "4 images" else 60
    images = generator.integers(0, 256, (n, 8, 8), dtype=np.uint8)
    labels = np.arange(n) % 2
    if name == "constant images":
        images[:] = 77
    elif name == "black images":
        images[:] = 0
    elif name == "equal channels and classes":
        images[:] = images[:1]
    elif name == "one-row class":
        labels = np.where(np.arange(n) == 3, 2, labels)
    elif name == "one class":
        labels[:] = 0
    folder.mkdir()
    cut = 3 * n // 4
    parts = {"X_train": images[:cut], "y_train": labels[:cut], "X_test": images[cut:], "y_test": labels[cut:]}
    np.savez(folder / "images.npz", **parts)
    out = folder / "out"
    arguments = ["filters", str(folder / "images.npz"), "--network", "cnn", "--out", str(out), "--budget", "8"]
    arguments += ["--pop", "4", "--search-images", "32", "--epochs", "1", "--jobs", "1", "--seed", str(seed)]
    return finished_or_refused(arguments, out)


COMPARED = {
    "all features zero": (),
    "targets of 1e30": (),
    "constant targets": (),
    "one of two targets constant": ("--set", 'encoding="neurons"'),
    "ordinary": ("--set", "learning_rate=1e6"),
    "features of 1e30 and 1e-30": ("--set", 'encoding="neurons"', "--set", "standardise=false"),
}
_CHEAP = (
    "nsga2,dense,anova,l1_path,weight_magnitude,gradual_magnitude,neuron_norm,recursive_elimination,random,"
    "best_fixed,mutual_information"
)


def compare_on(name: str, folder: Path, seed: int) -> Outcome:
    """Go through ``moevoprune compare``, where methods differ by nothing, or without a spread."""
    folder.mkdir()
    data, out = folder / "misbehaving.npz", folder / "out"
    np.savez(data, **DATA[name](np.random.default_rng(seed)))
    arguments = ["compare", str(data), "--methods", _CHEAP, "--seeds", "2", "--budget", "12", "--out", str(out)]
    arguments += ["--jobs", "1", "--cv", "2"]
    for option in ("hidden=[4]", "epochs=3", "batch_size=16"):
        arguments += ["--set", option]
    return finished_or_refused([*arguments, *COMPARED[name]], out)


def finished_or_refused(arguments: Sequence[str], out: Path) -> Outcome:
    """Carry out a command that writes a folder, and check what it says and writes."""
    code, text, complaint = command(arguments)
    lines = complaint.strip().splitlines()
    if code == 2 and len(lines) == 1:
        written = sorted(path.name for path in out.rglob("*.csv")) if out.exists() else []
        if written:
            raise Loss(f"refused after {written} had been written: {complaint}")
        return Outcome("refused", one_line(lines[0]))
    if code != 0 or complaint:
        raise Loss(f"exit code {code}, said on stderr: {complaint}")
    check_said_once(text)
    check_files(out)
    return Outcome("finished")


def allowed_refusal(name: str, line: str) -> bool:
    """Whether a command that looks at a run may refuse with a line: only where there is nothing to look at."""
    return "diverged" in line or "not finite" in line or "regression heads predict numbers" in line


def command(arguments: Sequence[str]) -> tuple[int, str, str]:
    """Carry out a command in this process: its exit code, and what it said on stdout and stderr."""
    from moevoprune.cli.main import main

    said, complained = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
        code = main(list(arguments))
    return code, said.getvalue(), complained.getvalue()


def one_line(text: str) -> str:
    """Check that a refusal is one line with something in it."""
    if "\n" in text or len(text) < 20 or "Error(" in text:
        raise Loss(f"not one clear line: {text!r}")
    return text


def check_said_once(text: str) -> None:
    """Check that no sentence is said twice; lines of tables and of generations hold numbers of their own."""
    lines = [line.strip() for line in text.splitlines() if len(line.split()) > 5]
    repeated = [line for line, count in Counter(lines).items() if count > 1]
    if repeated:
        raise Loss(f"said more than once: {repeated[0]!r}")


_NOT_A_NUMBER = re.compile(r"(?<![\w.])-?(nan|inf|infinity)(?![\w])", re.IGNORECASE)


def check_files(folder: Path) -> None:
    """Check that no table, record or page of a folder holds a number that is none."""
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                for number, row in enumerate(csv.reader(file)):
                    if any(_NOT_A_NUMBER.fullmatch(entry.strip()) for entry in row):
                        raise Loss(f"{path.name}: line {number + 1} holds {row}")
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        elif path.suffix == ".html":
            page = re.sub(
                r"<script.*?</script>|<style.*?</style>", "", path.read_text(encoding="utf-8"), flags=re.S
            )
            found = _NOT_A_NUMBER.search(page)
            if found:
                raise Loss(f"{path.name}: {page[max(found.start() - 60, 0) : found.end() + 40]!r}")


def _refuse_constant(text: str) -> None:
    raise Loss(f"a record holds {text}")


# --- the script ------------------------------------------------------------------------------------


def _guarded_case(make: Callable[[str, Path, int], Outcome], name: str) -> Callable[[int, Path], Outcome]:
    return lambda seed, folder: guarded(lambda: make(name, folder, seed))


def main() -> int:
    """Draw combinations, carry them out and report; returns 1 where anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--combinations", type=int, default=300, metavar="N", help="how many (default: 300)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed of the draw (default: 1)")
    parser.add_argument("--share", type=float, default=0.34, help="share that goes through the commands")
    parser.add_argument("--only", type=int, metavar="I", help="carry out this one of them alone")
    arguments = parser.parse_args()

    from moevoprune.fronts.plots import style

    # figures are drawn whole, but small: what is on trial is their numbers
    style.DPI = 30
    generator = np.random.default_rng(arguments.seed)
    names = list(DATA)
    combinations = [
        draw(generator, names[number % len(names)], bool(generator.random() < arguments.share))
        for number in range(arguments.combinations)
    ]
    attempts: list[tuple[str, bool, Callable[[int, Path], Outcome]]] = [
        (str(combination), combination.commands, lambda seed, folder, it=combination: attempt(it, seed, folder))
        for combination in combinations
    ]
    for name in CONSTRUCTED:
        attempts.append((f"construct: {name}", True, _guarded_case(construct_from, name)))
    for name in COMPARED:
        attempts.append((f"compare: {name}", True, _guarded_case(compare_on, name)))
    for name in FILTERED:
        attempts.append((f"filters: {name}", True, _guarded_case(filters_from, name)))
    counts: Counter[str] = Counter()
    refusals: Counter[str] = Counter()
    started = time.monotonic()
    for number, (name, commands, carry_out) in enumerate(attempts):
        if arguments.only not in (None, number):
            continue
        with tempfile.TemporaryDirectory() as folder:
            outcome = carry_out(number + 1, Path(folder) / "attempt")
        counts[outcome.kind] += 1
        counts["commands"] += commands
        if outcome.kind == "refused":
            line = re.sub(r"/\S+/", "", outcome.text.removeprefix("moevoprune: error: "))
            refusals[re.sub(r"-?[\d.]+(e[+-]?\d+)?", "#", line)[:150]] += 1
        if outcome.kind == "lost":
            print(f"LOST {number}: {name}\n{outcome.text}\n", flush=True)
        if number % 20 == 19:
            print(f"{number + 1} of {len(attempts)}: {dict(counts)}", file=sys.stderr, flush=True)
    for text, count in refusals.most_common():
        print(f"refused {count:4d}: {text}")
    total = sum(counts[kind] for kind in ("finished", "refused", "lost"))
    seconds = time.monotonic() - started
    print(
        f"{total} combinations ({counts['commands']} through the commands) of {len(names)} data sets, "
        f"seed {arguments.seed}: {counts['finished']} finished, {counts['refused']} refused in one line, "
        f"{counts['lost']} lost; {seconds:.0f} s"
    )
    return 1 if counts["lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
