"""Data sets without each of their classes, and with one in steps: what the relevant-classes study searches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moevoprune.cli.building import read_problem
from moevoprune.cli.processes import free_name
from moevoprune.cli.sweeping import Problem, resolve
from moevoprune.errors import InputError
from moevoprune.features import FeatureSet
from moevoprune.features.class_subsets import with_share_of_class, without_class
from moevoprune.fronts.plots.style import make_folder
from moevoprune.studies.study import Study

__all__ = ["WHOLE", "ClassVariants", "class_variants", "without"]

# the variant with all rows
WHOLE = "all-classes"


@dataclass(frozen=True, eq=False)
class ClassVariants:
    """A data set of at least three classes, and what it is cut down to.

    Attributes
    ----------
    source
        As typed.
    problem
        With all classes.
    added
        Label of the class that is added in steps: that with most training rows, of equals the first.
    steps
        Shares of its training rows, rising, each above 0 and below 1.
    """

    source: str
    problem: Problem
    added: int
    steps: tuple[float, ...]

    @property
    def name(self) -> str:
        """What the data set is called."""
        return self.problem.name

    @property
    def features(self) -> FeatureSet:
        """All of it."""
        return self.problem.features

    @property
    def added_name(self) -> str:
        """Name of the class that is added."""
        return self.features.class_names[self.added]

    @property
    def shares(self) -> tuple[float, ...]:
        """Shares of the class that is added, from none to all of it."""
        return (0.0, *self.steps, 1.0)

    def at(self, share: float) -> str:
        """Variant with one of :attr:`shares` of the class that is added."""
        ends = {0.0: without(self.added), 1.0: WHOLE}
        return ends.get(share) or f"class-{self.added}-at-{100 * share:.0f}"

    def settings(self, folder: Path) -> dict[str, dict[str, Any]]:
        """Settings of all variants by their dotted keys, by variant; features are written where they are missing.

        The folds are those that all rows have, not those that would follow from fewer.

        Parameters
        ----------
        folder
            Of the features; made where it is missing.

        Raises
        ------
        InputError
            The folder or a file cannot be made, or a file there cannot be read.
        """
        make_folder(folder)
        folds = {"problem.cv": self.problem.config.problem.cv}
        settings: dict[str, dict[str, Any]] = {WHOLE: folds}
        for variant, features in self._subsets().items():
            path = _save(features, folder / f"{self.name}-{variant}.npz")
            settings[variant] = {**folds, "data.features": path}
        return settings

    def _subsets(self) -> dict[str, FeatureSet]:
        """What is searched besides the whole, by variant."""
        left_out = {
            without(label): without_class(self.features, label) for label in range(self.features.n_classes)
        }
        return left_out | {
            self.at(step): with_share_of_class(self.features, self.added, step, 1) for step in self.steps
        }


def without(label: int) -> str:
    """Variant in which a class is left out."""
    return f"without-{label}"


def class_variants(study: Study, steps: Sequence[float]) -> list[ClassVariants]:
    """Read the data sets of a study; a section says which are left out, having two classes only.

    Parameters
    ----------
    study
        Its sources are read; sections are added to it.
    steps
        As in :class:`ClassVariants`.

    Raises
    ------
    InputError
        A source cannot be read or is no set of features, or none has three classes.
    """
    found: list[ClassVariants] = []
    names: set[str] = set()
    for source in dict.fromkeys(study.arguments.data):
        name = free_name(source, names)
        names.add(name.casefold())
        # before images are read, which may take hours
        if "images" in read_problem(source)[1].get("data", {}):
            raise InputError(f"{source}: subsets are made of features: extract them first (moevoprune extract)")
        problem = resolve(name, source, {}, (), study.say)
        features = problem.features
        if features.task != "classification":
            raise InputError(f"{source}: its targets are numbers: there are no classes to leave out")
        if features.n_classes < 3:
            study.sections.append(
                f"{name} is left out: without one of its {features.n_classes} classes there is nothing to tell."
            )
            continue
        rows = np.bincount(features.y_train, minlength=features.n_classes)
        found.append(ClassVariants(source, problem, int(rows.argmax()), tuple(steps)))
    if not found:
        raise InputError("no data set has three classes: without one of two there is nothing to tell apart")
    return found


def _save(features: FeatureSet, path: Path) -> str:
    """Write a subset, unless the file is there already; returns its absolute path."""
    path = path.absolute()
    if not path.exists() or FeatureSet.load(path).content_hash != features.content_hash:
        features.save(path)
    return str(path)
